//! The native service reads every sample of every corpus window, in every form, and
//! says why one is missing.

mod common;

use std::path::Path;

use common::corpus::{self, Session};
use common::native::{
    Cell, Client, Reading, Row, by_samples, by_time, connect, in_form, read, with_password,
};
use common::server::Server;
use mef3_server::grpc::proto::native::{
    GetRecordingRequest, MissingReason, OnDamage, ReadSignalRequest, SampleForm,
};
use mef3_server::mef::{ChannelOptions, SessionOptions, SessionWriter};
use tonic::Code;

const FORMS: [SampleForm; 4] = [
    SampleForm::Counts,
    SampleForm::Float32,
    SampleForm::Float64,
    SampleForm::RedBlocks,
];

/// Holds a row against what mef3io reads: values, and counts where it has a value.
fn assert_row(row: &Row, values: &[f64], counts: &[i32], form: SampleForm, what: &str) {
    assert_eq!(row.cells.len(), values.len(), "{what}");
    for (column, (&cell, &value)) in row.cells.iter().zip(values).enumerate() {
        let what = format!("{what}, column {column}");
        match (form, cell) {
            (_, Cell::Missing(_)) => assert!(value.is_nan(), "{what}"),
            (SampleForm::Counts | SampleForm::RedBlocks, Cell::Count(count)) => {
                assert!(!value.is_nan(), "{what}");
                assert_eq!(count, counts[column], "{what}");
                let scaled = f64::from(count) * row.factors[column];
                assert_eq!(scaled.to_bits(), value.to_bits(), "{what}, scaled");
            }
            (SampleForm::Float64, Cell::Value(found)) => {
                assert_eq!(found.to_bits(), value.to_bits(), "{what}");
            }
            (SampleForm::Float32, Cell::Value(found)) => {
                assert_eq!(found.to_bits(), f64::from(value as f32).to_bits(), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// The one channel of the corpus whose blocks, too, are encrypted at level 2.
fn is_locked(session: &Session, channel: &str, password: Option<&str>) -> bool {
    let is_at_level_2 = session.name == "encrypted_blocks" && channel == "level2";
    is_at_level_2 && password == session.password_level_1.as_deref()
}

async fn compare_windows(client: &mut Client, session: &Session, password: Option<&str>) -> usize {
    let windows = session.windows();
    for (window, number) in windows.iter().zip(0..) {
        for form in FORMS {
            let request = ReadSignalRequest {
                channels: vec![window.channel.clone()],
                compression: number % 2 + 1,
                ..by_time(&session.path, window.start_uutc, window.end_uutc)
            };
            let what = format!("{}, {}, {form:?}", session.name, window.kind);
            let request = in_form(request, form, OnDamage::Fail);
            let answer = read(client, request, password).await;
            if is_locked(session, &window.channel, password) {
                let refused = answer.expect_err(&what);
                assert_eq!(refused.code(), Code::FailedPrecondition, "{what}");
                continue;
            }
            let signal = answer.expect(&what);
            assert!(signal.damage.is_empty());
            assert_row(&signal.rows[0], &window.mef3io, &window.counts, form, &what);
        }
    }
    windows.len() * FORMS.len()
}

#[tokio::test]
async fn every_window_of_the_corpus_in_all_forms() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let mut compared = 0;
    for session in corpus::sessions() {
        // A level-1 password reads all of the signal.
        let levels = [&session.password_level_2, &session.password_level_1];
        for (password, number) in levels.into_iter().zip(0..) {
            if password.is_none() && number > 0 {
                continue;
            }
            compared += compare_windows(&mut client, &session, password.as_deref()).await;
        }
    }
    assert!(compared >= 2_800, "only {compared} windows");
}

#[tokio::test]
async fn channels_of_several_rates_come_in_one_reply() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let folder = corpus::folder();
    for name in ["mixed_rates", "staggered_channels", "fractional_fs"] {
        let session = Session::load(&folder, name);
        let (start, end) = ends(&session);
        let request = by_time(&session.path, start, end);
        let request = in_form(request, SampleForm::Float64, OnDamage::Fail);
        let all = read(&mut client, request.clone(), None).await.unwrap();
        let channels = session.facts["channels"].as_object().unwrap();
        assert_eq!(all.rows.len(), channels.len());
        for row in &all.rows {
            let alone = ReadSignalRequest {
                channels: vec![row.channel.clone()],
                ..request.clone()
            };
            let alone = read(&mut client, alone, None).await.unwrap();
            assert_eq!(alone.rows[0].cells, row.cells, "{name}, {}", row.channel);
            assert_eq!(
                row.sampling_frequency,
                channels[&row.channel]["sampling_frequency"]
            );
        }
        // Repeats, in another order.
        let names: Vec<String> = all
            .rows
            .iter()
            .rev()
            .map(|row| row.channel.clone())
            .collect();
        let twice = ReadSignalRequest {
            channels: [names.clone(), names].concat(),
            ..request
        };
        let twice = read(&mut client, twice, None).await.unwrap();
        let expected = all.rows.iter().rev().cycle();
        for (row, expected) in twice.rows.iter().zip(expected) {
            assert_eq!(row.cells, expected.cells);
        }
    }
}

/// Earliest start and latest end of a session's channels.
fn ends(session: &Session) -> (i64, i64) {
    let channels = session.facts["channels"].as_object().unwrap().values();
    let start = channels
        .clone()
        .map(|it| it["start_uutc"].as_i64().unwrap());
    let end = channels.map(|it| it["end_uutc"].as_i64().unwrap());
    (start.min().unwrap(), end.max().unwrap())
}

#[tokio::test]
async fn every_missing_sample_has_its_reason() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let folder = corpus::folder();
    let session = Session::load(&folder, "gaps_short_long");
    let (start, end) = ends(&session);
    let request = by_time(&session.path, start - 2_000_000, end + 3_000_000);
    let signal = read(&mut client, request, None).await.unwrap();
    for row in &signal.rows {
        let facts = &session.facts["channels"][&row.channel];
        let rate = row.sampling_frequency;
        let first = facts["start_uutc"].as_i64().unwrap();
        let last = facts["end_uutc"].as_i64().unwrap();
        let mut gaps = 0;
        for (column, cell) in row.cells.iter().enumerate() {
            let time = start as f64 - 2e6 + column as f64 * 1e6 / rate;
            match cell {
                Cell::Missing(MissingReason::Outside) => {
                    let half = 0.5e6 / rate + 1.0;
                    assert!(time < first as f64 + half || time >= last as f64 - half);
                }
                Cell::Missing(MissingReason::Gap) => {
                    assert!((first as f64..last as f64).contains(&time));
                    gaps += 1;
                }
                Cell::Missing(_) | Cell::Unsent => panic!("{cell:?}"),
                Cell::Value(_) | Cell::Count(_) => {}
            }
        }
        let expected = facts["gaps"].as_u64().unwrap() > 0;
        assert_eq!(gaps > 0, expected, "{}", row.channel);
    }
}

/// Why each column of a row has no sample.
fn reasons(row: &Row) -> Vec<Option<MissingReason>> {
    let reason = |cell: &Cell| match cell {
        Cell::Missing(reason) => Some(*reason),
        _ => None,
    };
    row.cells.iter().map(reason).collect()
}

#[tokio::test]
async fn damage_is_an_error_or_named_where_it_is_masked() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let path = corpus::folder().join("hostile/block_payload_flip.mefd");
    let described = client
        .get_recording(GetRecordingRequest {
            recording: path.display().to_string(),
            ..GetRecordingRequest::default()
        })
        .await
        .unwrap()
        .into_inner();
    let span = described.span.unwrap();
    let request = by_time(&path, span.start_uutc, span.end_uutc);
    let failed = read(&mut client, request.clone(), None).await.unwrap_err();
    assert_eq!(failed.code(), Code::DataLoss, "{failed:?}");
    let masked = in_form(request.clone(), SampleForm::Counts, OnDamage::Mask);
    let signal = read(&mut client, masked, None).await.unwrap();
    for form in [
        SampleForm::Float32,
        SampleForm::Float64,
        SampleForm::RedBlocks,
    ] {
        let other = in_form(request.clone(), form, OnDamage::Fail);
        let refused = read(&mut client, other, None).await.unwrap_err();
        assert_eq!(refused.message(), failed.message(), "{form:?}");
        let other = in_form(request.clone(), form, OnDamage::Mask);
        let other = read(&mut client, other, None).await.unwrap();
        assert_eq!(other.damage, signal.damage, "{form:?}");
        for (row, expected) in other.rows.iter().zip(&signal.rows) {
            assert_eq!(reasons(row), reasons(expected), "{form:?}");
            let exact = form != SampleForm::RedBlocks || row.cells == expected.cells;
            assert!(exact, "{form:?}");
        }
    }
    assert!(!signal.damage.is_empty());
    let lost: u64 = signal.damage.iter().map(|damage| damage.samples).sum();
    let missing = signal.rows.iter().flat_map(|row| &row.cells);
    let missing = missing.filter(|cell| **cell == Cell::Missing(MissingReason::Damaged));
    assert_eq!(missing.count() as u64, lost);
    for damage in &signal.damage {
        assert!(failed.message().contains(&damage.channel), "{failed:?}");
        assert!(damage.block.is_some() && !damage.reason.is_empty());
    }
}

#[tokio::test]
async fn samples_are_found_by_their_numbers() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let folder = corpus::folder();
    for name in [
        "mixed_rates",
        "staggered_channels",
        "fractional_fs",
        "gaps_short_long",
    ] {
        let session = Session::load(&folder, name);
        let request = by_samples(&session.path, 10, 210);
        let request = in_form(request, SampleForm::Counts, OnDamage::Fail);
        let signal = read(&mut client, request, None).await.unwrap();
        for row in &signal.rows {
            assert_eq!(row.cells.len(), 200, "{name}");
            let facts = &session.facts["channels"][&row.channel];
            let start = facts["start_uutc"].as_i64().unwrap();
            let time = |sample: f64| start + (sample * 1e6 / row.sampling_frequency).round() as i64;
            let by_time = ReadSignalRequest {
                channels: vec![row.channel.clone()],
                ..by_time(&session.path, time(10.0), time(210.0))
            };
            let by_time = in_form(by_time, SampleForm::Counts, OnDamage::Fail);
            let by_time = read(&mut client, by_time, None).await.unwrap();
            assert_eq!(by_time.rows[0].cells, row.cells, "{name}");
        }
    }
}

/// A reply that is cut after each of its messages, and goes on by the cursor.
async fn read_in_pieces(client: &mut Client, path: &Path, request: ReadSignalRequest) -> usize {
    let whole = read(client, request.clone(), None).await.unwrap();
    let mut stream = client
        .read_signal(request.clone())
        .await
        .unwrap()
        .into_inner();
    let mut reading = Reading::begin(&mut stream).await.unwrap();
    let mut pieces = 1;
    let mut cursor = reading.cursor.clone();
    while reading.go_on(&mut stream).await.unwrap() {
        // A message without a cursor is one of several that belong together.
        if std::mem::replace(&mut cursor, reading.cursor.clone()) == reading.cursor {
            continue;
        }
        // The connection is cut, and another packing is asked for.
        drop(stream);
        let next = ReadSignalRequest {
            cursor: reading.cursor.clone().into(),
            compression: (pieces % 2 + 1) as i32,
            ..request.clone()
        };
        stream = client.read_signal(next).await.unwrap().into_inner();
        Reading::begin(&mut stream).await.unwrap();
        pieces += 1;
    }
    let parts = reading.end();
    assert_eq!(whole.rows.len(), parts.rows.len(), "{}", path.display());
    for (whole, part) in whole.rows.iter().zip(&parts.rows) {
        assert_eq!(whole.cells, part.cells);
    }
    pieces
}

#[tokio::test]
async fn a_cut_reply_goes_on_by_its_cursor() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let folder = corpus::folder();
    let mut pieces = 0;
    for name in ["mixed_rates", "high_rate_32k", "eight_channels"] {
        let session = Session::load(&folder, name);
        let (start, end) = ends(&session);
        for form in [SampleForm::Float64, SampleForm::RedBlocks] {
            let request = by_time(&session.path, start, end);
            let request = in_form(request, form, OnDamage::Fail);
            pieces += read_in_pieces(&mut client, &session.path, request).await;
        }
    }
    assert!(pieces >= 10, "only {pieces} pieces");
    // A cursor of another request, and none at all.
    let session = Session::load(&folder, "mixed_rates");
    let (start, end) = ends(&session);
    let request = by_time(&session.path, start, end);
    let mut stream = client
        .read_signal(request.clone())
        .await
        .unwrap()
        .into_inner();
    let reading = Reading::begin(&mut stream).await.unwrap();
    for (cursor, end) in [(reading.cursor, end - 1), (b"x".to_vec(), end)] {
        let other = ReadSignalRequest {
            cursor: cursor.into(),
            ..by_time(&session.path, start, end)
        };
        let refused = client.read_signal(other).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    }
}

#[tokio::test]
async fn passwords_open_what_they_are_for() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let session = Session::load(&corpus::folder(), "encrypted_mef3io");
    let window = &session.windows()[0];
    let request = by_time(&session.path, window.start_uutc, window.end_uutc);
    for (password, reason) in [
        (None, "PASSWORD_REQUIRED"),
        (Some("wrong"), "PASSWORD_WRONG"),
    ] {
        let refused = read(&mut client, request.clone(), password)
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        let details = String::from_utf8_lossy(refused.details()).into_owned();
        assert!(details.contains(reason), "{details}");
    }
    // As text in place of bytes.
    let password = session.password_level_2.as_deref().unwrap();
    let mut text = with_password(request, None);
    let password = password.parse().unwrap();
    text.metadata_mut().insert("x-mef3-password", password);
    assert!(client.read_signal(text).await.is_ok());
}

/// Blocks that are longer than a message, and more rows than a message has room for.
#[tokio::test]
async fn long_blocks_come_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.mefd");
    let mut session = SessionWriter::create(&path, SessionOptions::default()).unwrap();
    let samples = 700_000;
    let mut names = Vec::new();
    for number in 0..3 {
        let options = ChannelOptions {
            block_samples: Some(300_000),
            ..ChannelOptions::new(format!("c{number}"), 1000.0)
        };
        names.push(options.name.clone());
        let mut chance = fastrand::Rng::with_seed(number);
        let counts: Vec<i32> = (0..samples).map(|_| chance.i32(..) >> 1).collect();
        let mut channel = session.channel(options).unwrap();
        channel.write(1_000_000, &counts).unwrap();
        channel.finish().unwrap();
    }
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    // In the midst of blocks, and a row twice.
    let request = ReadSignalRequest {
        channels: [&names[..], &names[1..2]].concat(),
        ..by_time(&path, 100_000_000, 650_000_000)
    };
    let counts = in_form(request.clone(), SampleForm::Counts, OnDamage::Fail);
    let counts = read(&mut client, counts, None).await.unwrap();
    let blocks = in_form(request.clone(), SampleForm::RedBlocks, OnDamage::Fail);
    let blocks = read(&mut client, blocks, None).await.unwrap();
    assert_eq!(blocks.rows.len(), 4);
    for (row, expected) in blocks.rows.iter().zip(&counts.rows) {
        assert_eq!(
            (&row.channel, &row.cells),
            (&expected.channel, &expected.cells)
        );
    }
    // Eight blocks or more of 1.5 MB each.
    assert!(blocks.messages > 24, "only {} messages", blocks.messages);
    let request = in_form(request, SampleForm::RedBlocks, OnDamage::Fail);
    let pieces = read_in_pieces(&mut client, &path, request).await;
    assert!(pieces > 30, "only {pieces} pieces");
}

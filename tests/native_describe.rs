//! What the native service says of recordings, in pages and as they grow.

mod common;

use std::time::Duration;

use common::corpus::{self, Session};
use common::native::{Client, by_time, connect, with_password};
use common::server::Server;
use mef3_server::grpc::proto::native::{
    Access, Channel, FollowRequest, GetRecordingRequest, GetRecordingResponse, GetStatsRequest,
    ListAnnotationsRequest, ListGapsRequest, ListSegmentsRequest, ReadReducedRequest, TimeSpan,
    WatchRecordingRequest,
};
use mef3_server::mef::{
    ChannelOptions, NewRecord, OpenOptions, Password, RecordQuery, SessionOptions, SessionWriter,
    open_session,
};
use prost::Message;
use tokio::time::timeout;

const MOST_BYTES: usize = 2 << 20;
const LIMIT: Duration = Duration::from_secs(20);
const START: i64 = 1_700_000_000_000_000;

/// All of a recording, in pages of so many channels.
async fn described(
    client: &mut Client,
    session: &Session,
    password: Option<&str>,
    page_size: u32,
) -> (GetRecordingResponse, Vec<Channel>) {
    let mut channels = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = GetRecordingRequest {
            recording: session.path.display().to_string(),
            page_size,
            page_token,
        };
        let answer = client.get_recording(with_password(request, password)).await;
        let mut answer = answer.unwrap().into_inner();
        assert!(page_size == 0 || answer.channels.len() <= page_size as usize);
        channels.append(&mut answer.channels);
        page_token = std::mem::take(&mut answer.next_page_token);
        if page_token.is_empty() {
            return (answer, channels);
        }
    }
}

#[tokio::test]
async fn recordings_are_what_the_references_say() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    for session in corpus::sessions() {
        let password = session.password_level_2.as_deref();
        let (answer, channels) = described(&mut client, &session, password, 0).await;
        let (paged, in_pages) = described(&mut client, &session, password, 2).await;
        assert_eq!(
            (&paged, &in_pages),
            (&answer, &channels),
            "{}",
            session.name
        );
        let facts = session.facts["channels"].as_object().unwrap();
        assert_eq!(channels.len(), facts.len());
        assert_eq!(answer.readable_channels as usize, facts.len());
        for channel in &channels {
            let facts = &facts[&channel.name];
            let what = format!("{}, {}", session.name, channel.name);
            let span = channel.span.unwrap();
            assert_eq!(
                channel.sampling_frequency, facts["sampling_frequency"],
                "{what}"
            );
            assert_eq!(span.start_uutc, facts["start_uutc"], "{what}");
            assert_eq!(span.end_uutc, facts["end_uutc"], "{what}");
            assert_eq!(
                channel.stored_samples, facts["stored_samples_count"],
                "{what}"
            );
            assert_eq!(channel.segments, facts["number_of_segments"], "{what}");
            assert_eq!(channel.unit, facts["units_description"], "{what}");
            let factor = channel.units_conversion_factor.unwrap();
            assert_eq!(factor, facts["units_conversion_factor"], "{what}");
        }
        let by_rate: u32 = answer.rate_groups.iter().map(|group| group.channels).sum();
        assert_eq!(by_rate, answer.readable_channels);
        let access = if password.is_some() {
            Access::Level2
        } else {
            Access::Unprotected
        };
        assert_eq!(answer.access(), access, "{}", session.name);
        assert!(answer.recommended_span_us > 0 && answer.limits.unwrap().request_bytes > 0);
    }
}

#[tokio::test]
async fn the_subject_is_locked_at_level_1() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let session = Session::load(&corpus::folder(), "encrypted_mef3io");
    let level_1 = session.password_level_1.as_deref();
    let (answer, _) = described(&mut client, &session, level_1, 0).await;
    assert_eq!((answer.access(), &answer.subject), (Access::Level1, &None));
    let level_2 = session.password_level_2.as_deref();
    let (answer, _) = described(&mut client, &session, level_2, 0).await;
    let subject = answer.subject.unwrap();
    assert_eq!(subject.id, session.facts["subject"]["subject_id"]);
}

#[tokio::test]
async fn segments_and_gaps_come_in_pages() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    for session in corpus::plain_sessions() {
        let recording = session.path.display().to_string();
        let facts = session.facts["channels"].as_object().unwrap();
        let (mut segments, mut gaps) = (Vec::new(), Vec::new());
        let mut page_token = String::new();
        loop {
            let request = ListSegmentsRequest {
                recording: recording.clone(),
                page_size: 3,
                page_token,
                ..ListSegmentsRequest::default()
            };
            let page = client.list_segments(request).await.unwrap().into_inner();
            segments.extend(page.segments);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        loop {
            let request = ListGapsRequest {
                recording: recording.clone(),
                page_size: 2,
                page_token,
                ..ListGapsRequest::default()
            };
            let page = client.list_gaps(request).await.unwrap().into_inner();
            assert!(page.gaps.len() <= 2);
            gaps.extend(page.gaps);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        for (name, facts) in facts {
            let of_it = segments.iter().filter(|segment| segment.channel == *name);
            let samples: Vec<u64> = of_it.map(|segment| segment.samples).collect();
            let expected = facts["segments"].as_array().unwrap().iter();
            let expected: Vec<u64> = expected
                .map(|segment| segment["number_of_samples"].as_u64().unwrap())
                .collect();
            assert_eq!(samples, expected, "{}, {name}", session.name);
            let found = gaps.iter().filter(|gap| gap.channel == *name);
            let between = found.map(|gap| gap.span.unwrap()).inspect(|span| {
                assert!(span.start_uutc < span.end_uutc);
            });
            assert_eq!(
                between.count() as u64,
                facts["gaps"],
                "{}, {name}",
                session.name
            );
        }
    }
}

#[tokio::test]
async fn annotations_come_in_pages_and_by_type_and_time() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let mut seen = 0;
    for session in corpus::sessions() {
        let password = session.password_level_2.as_deref();
        let options = OpenOptions {
            password: password.and_then(Password::new),
        };
        let query = RecordQuery {
            limit: usize::MAX,
            ..RecordQuery::default()
        };
        let recording = open_session(&session.path, &options).unwrap();
        let expected = recording.records(&query).unwrap().records;
        let mut found = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListAnnotationsRequest {
                recording: session.path.display().to_string(),
                page_size: 2,
                page_token,
                ..ListAnnotationsRequest::default()
            };
            let page = client
                .list_annotations(with_password(request, password))
                .await;
            let page = page.unwrap().into_inner();
            assert_eq!(page.total as usize, expected.len());
            found.extend(page.annotations);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(found.len(), expected.len(), "{}", session.name);
        for (found, placed) in found.iter().zip(&expected) {
            let record = &placed.record;
            assert_eq!(found.r#type, record.kind.to_string());
            assert_eq!(found.time_uutc, record.time_uutc);
            assert_eq!(found.channel, placed.channel.clone().unwrap_or_default());
            assert!(
                found.locked || serde_json::from_str::<serde_json::Value>(&found.body_json).is_ok()
            );
            let request = ListAnnotationsRequest {
                recording: session.path.display().to_string(),
                types: vec![found.r#type.clone()],
                span: found.time_uutc.map(|time| TimeSpan {
                    start_uutc: time,
                    end_uutc: time + 1,
                }),
                ..ListAnnotationsRequest::default()
            };
            let page = client
                .list_annotations(with_password(request, password))
                .await;
            let page = page.unwrap().into_inner();
            assert!(page.annotations.contains(found), "{found:?}");
            seen += 1;
        }
    }
    assert!(seen >= 5, "only {seen} annotations");
}

/// A session of one channel "ch" of 100 Hz, with two seconds in blocks of one.
fn write(path: &std::path::Path) -> SessionWriter {
    let mut session = SessionWriter::create(path, SessionOptions::default()).unwrap();
    let options = ChannelOptions {
        block_samples: Some(100),
        ..ChannelOptions::new("ch", 100.0)
    };
    let mut channel = session.channel(options).unwrap();
    channel.write(START, &[1; 200]).unwrap();
    channel.finish().unwrap();
    session
}

#[tokio::test]
async fn long_annotations_are_shared_out_or_say_that_they_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noted.mefd");
    let mut session = write(&path);
    let notes: Vec<NewRecord> = [300_000, 300_000, 300_000, 1_500_000, 10]
        .iter()
        .zip(START..)
        .map(|(&length, time)| NewRecord::note(time, "x".repeat(length)))
        .collect();
    session.records().unwrap().append(&notes).unwrap();
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let (mut found, mut pages) = (Vec::new(), 0);
    let mut page_token = String::new();
    loop {
        let request = ListAnnotationsRequest {
            recording: path.display().to_string(),
            page_token,
            ..ListAnnotationsRequest::default()
        };
        let page = client.list_annotations(request).await.unwrap().into_inner();
        assert!(page.encoded_len() <= MOST_BYTES);
        found.extend(page.annotations);
        pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let lengths: Vec<usize> = found.iter().map(|it| it.text.len()).collect();
    assert_eq!(lengths, [300_000, 300_000, 300_000, 0, 10]);
    assert!(found[3].omitted_bytes >= 1_500_000 && found[4].omitted_bytes == 0);
    assert!(pages >= 3, "{pages} pages");
}

#[tokio::test]
async fn blocks_and_states_are_told_as_they_land() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("growing.mefd");
    let mut session = write(&path);
    let server = Server::start_with(|serve| {
        serve.env("MEF3_SERVER_LIVE_STALENESS_MS", "100");
    });
    let mut client = connect(&server).await;
    let recording = path.display().to_string();
    let request = WatchRecordingRequest {
        recording: recording.clone(),
    };
    let mut states = client.watch_recording(request).await.unwrap().into_inner();
    let first = timeout(LIMIT, states.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let request = FollowRequest {
        recording,
        channels: Vec::new(),
        from_uutc: Some(START + 1_000_000),
    };
    let mut blocks = client.follow(request).await.unwrap().into_inner();
    let known = timeout(LIMIT, blocks.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!((known.channel.as_str(), known.block), ("ch", 1));
    assert_eq!(known.start_uutc, START + 1_000_000);
    let mut channel = session.continue_channel("ch").unwrap();
    channel.write(START + 5_000_000, &[7; 100]).unwrap();
    channel.finish().unwrap();
    let added = timeout(LIMIT, blocks.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(added.start_uutc, START + 5_000_000);
    let counts: &[i32] = &bytemuck::pod_collect_to_vec(&added.counts);
    assert_eq!(counts, [7; 100]);
    assert_eq!(added.sampling_frequency, 100.0);
    let grown = timeout(LIMIT, states.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let (before, after) = (first.revision.unwrap(), grown.revision.unwrap());
    assert_eq!(before.opening, after.opening);
    assert!(after.growth > before.growth);
    assert_eq!(grown.span.unwrap().end_uutc, START + 6_000_000);
}

#[tokio::test]
async fn a_reduced_view_has_the_extrema_of_each_row() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let session = Session::load(&corpus::folder(), "mixed_rates");
    let (answer, channels) = described(&mut client, &session, None, 0).await;
    let span = answer.span.unwrap();
    let request = ReadReducedRequest {
        recording: session.path.display().to_string(),
        span: Some(span),
        points: 100,
        ..ReadReducedRequest::default()
    };
    let mut reply = client.read_reduced(request).await.unwrap().into_inner();
    let mut rows = vec![Vec::new(); channels.len()];
    while let Some(message) = reply.message().await.unwrap() {
        assert_eq!(
            (message.total_columns, message.channels.len()),
            (100, rows.len())
        );
        let points: Vec<f32> = bytemuck::pod_collect_to_vec(&message.points);
        for (row, line) in rows.iter_mut().zip(points.chunks(message.columns as usize)) {
            row.extend_from_slice(line);
        }
    }
    let whole = by_time(&session.path, span.start_uutc, span.end_uutc);
    let whole = common::native::read(&mut client, whole, None)
        .await
        .unwrap();
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::NAN, f64::max);
    for (points, row) in rows.iter().zip(&whole.rows) {
        assert_eq!(points.len(), 100);
        let samples = row.cells.iter().filter_map(|cell| match cell {
            common::native::Cell::Value(value) => Some(*value),
            _ => None,
        });
        let expected = most(&mut samples.clone());
        assert_eq!(most(&mut points.iter().map(|&it| f64::from(it))), expected);
        let least = most(&mut samples.map(|it| -it));
        assert_eq!(most(&mut points.iter().map(|&it| -f64::from(it))), least);
    }
}

#[tokio::test]
async fn what_is_opened_in_passing_is_closed_again() {
    let server = Server::start_with(|serve| {
        serve.env("MEF3_SERVER_LIVE_PASSING_S", "1");
        serve.env("MEF3_SERVER_LIMITS_OPEN_RECORDINGS", "2");
    });
    let mut client = connect(&server).await;
    for session in corpus::plain_sessions().iter().take(5) {
        // Each makes room for the next.
        described(&mut client, session, None, 0).await;
        assert!(open(&mut client).await <= 2);
    }
    let deadline = tokio::time::Instant::now() + LIMIT;
    while open(&mut client).await > 0 {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn open(client: &mut Client) -> u64 {
    let stats = client
        .get_stats(GetStatsRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(!stats.version.is_empty() && stats.uptime_s > 0.0 && stats.workers.len() >= 2);
    stats.recordings
}

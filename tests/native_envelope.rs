//! The least and the greatest sample of each pixel are those that brute force finds
//! among all samples.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::corpus::{self, Session, copy_folder};
use common::envelope::{
    START, asked_pages, assert_same, brute_force, channels, envelope, files_below, over, samples,
    signal, write,
};
use common::native::connect;
use common::server::Server;
use mef3_server::grpc::proto::native::{OnDamage, ReadEnvelopeRequest, TimeSpan};
use mef3_server::mef::{ChannelOptions, SessionOptions, SessionWriter};
use tonic::Code;

const LIMIT: Duration = Duration::from_secs(20);
/// A random span about a recording's.
fn some_span(rng: &mut fastrand::Rng, span: TimeSpan) -> (i64, i64) {
    let length = span.end_uutc - span.start_uutc;
    match rng.u8(..4) {
        0 => (span.start_uutc, span.end_uutc),
        1 => (span.start_uutc - length / 3, span.end_uutc + length / 7),
        _ => {
            let start = span.start_uutc + rng.i64(-length / 10..=length);
            (start, start + 1 + rng.i64(0..length))
        }
    }
}

#[tokio::test]
async fn envelopes_of_the_corpus_are_those_of_all_samples() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let mut rng = fastrand::Rng::with_seed(7);
    let (mut compared, mut from_index) = (0, 0);
    for session in corpus::sessions() {
        let password = session.password_level_2.as_deref();
        for channel in channels(&mut client, &session.path, password).await {
            let all = samples(&mut client, &session.path, &channel, password).await;
            let all = all.unwrap();
            for round in 0..6 {
                let span = some_span(&mut rng, channel.span.unwrap());
                let pixels = [1, 7, 100, rng.u32(1..3000)][rng.usize(..4)];
                let request = ReadEnvelopeRequest {
                    channels: vec![channel.name.clone()],
                    decode_all: round % 3 == 2,
                    ..over(&session.path, span, pixels)
                };
                let what = format!("{}, {}, {request:?}", session.name, channel.name);
                let expected = brute_force(&all, span, pixels);
                let found = envelope(&mut client, request.clone(), password)
                    .await
                    .unwrap();
                assert_same(&found.rows[0], &expected, &what);
                let again = envelope(&mut client, request.clone(), password)
                    .await
                    .unwrap();
                assert_same(&again.rows[0], &expected, &what);
                assert!(request.decode_all || again.decoded_blocks == 0, "{what}");
                assert!(!request.decode_all || found.index_blocks == 0, "{what}");
                compared += 1;
                from_index += found.index_blocks;
            }
        }
    }
    assert!(
        compared > 200 && from_index > 100,
        "{compared}, {from_index}"
    );
}

#[tokio::test]
async fn channels_of_several_rates_come_in_one_reply() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let session = Session::load(&corpus::folder(), "mixed_rates");
    let channels = channels(&mut client, &session.path, None).await;
    let span = channels[0].span.unwrap();
    let span = (span.start_uutc, span.end_uutc);
    // More than has room in a message.
    for pixels in [333, 40_000] {
        let found = envelope(&mut client, over(&session.path, span, pixels), None)
            .await
            .unwrap();
        assert_eq!(found.rows.len(), channels.len());
        for (row, channel) in found.rows.iter().zip(&channels) {
            assert_eq!(row.channel, channel.name);
            let all = samples(&mut client, &session.path, channel, None)
                .await
                .unwrap();
            assert_same(row, &brute_force(&all, span, pixels), &channel.name);
        }
        // Repeats, in another order.
        let last = channels.last().unwrap().name.clone();
        let twice = ReadEnvelopeRequest {
            channels: vec![last.clone(), channels[0].name.clone(), last],
            decode_all: true,
            ..over(&session.path, span, pixels)
        };
        let twice = envelope(&mut client, twice, None).await.unwrap();
        for (row, of) in twice
            .rows
            .iter()
            .zip([channels.len() - 1, 0, channels.len() - 1])
        {
            assert_same(row, &found.rows[of], "repeated");
        }
    }
}

#[tokio::test]
async fn the_second_call_asks_for_no_page() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("night.mefd");
    write(&path, &["a", "b", "c"], 3000);
    let request = over(&path, (START + 12_345, START + 2_900_000_000), 111);
    let first = envelope(&mut client, request.clone(), None).await.unwrap();
    assert!(first.decoded_blocks > 0 && first.index_blocks > 0 && first.kept_parts == 0);
    let before = asked_pages(&mut client).await;
    let second = envelope(&mut client, request, None).await.unwrap();
    assert_eq!(asked_pages(&mut client).await, before);
    assert_eq!((second.decoded_blocks, &second.rows), (0, &first.rows));
    assert!(second.kept_parts > 0 && second.index_blocks == first.index_blocks);
}

#[tokio::test]
async fn damage_at_an_edge_fails_or_is_masked() {
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let path = corpus::folder().join("hostile/block_payload_flip.mefd");
    let base = corpus::folder().join("hostile/bases/base_two.mefd");
    let bad = |path: &Path, span, on_damage: OnDamage| {
        let mut request = over(path, span, 1);
        request.channels = vec!["bad".into()];
        request.set_on_damage(on_damage);
        request
    };
    // The damaged block, from 1500 to 2250 ms, is cut by the end.
    let start = 1_577_000_000_000_000;
    let span = (start, start + 2_000_000);
    let request = bad(&path, span, OnDamage::Fail);
    let refused = envelope(&mut client, request, None).await.unwrap_err();
    assert_eq!(refused.code(), Code::DataLoss);
    for _ in 0..2 {
        let request = bad(&path, span, OnDamage::Mask);
        let masked = envelope(&mut client, request, None).await.unwrap();
        let [damage] = masked.damage.as_slice() else {
            panic!("{:?}", masked.damage);
        };
        assert_eq!((damage.channel.as_str(), damage.block), ("bad", Some(2)));
        let before = bad(&base, (start, start + 1_500_000), OnDamage::Fail);
        let before = envelope(&mut client, before, None).await.unwrap();
        assert_same(&masked.rows[0], &before.rows[0], "before the damage");
    }
    // Within a pixel nobody notices, unless all is decoded.
    let whole = (start, start + 10_000_000);
    let request = bad(&path, whole, OnDamage::Fail);
    let found = envelope(&mut client, request.clone(), None).await.unwrap();
    let sound = envelope(&mut client, bad(&base, whole, OnDamage::Fail), None)
        .await
        .unwrap();
    assert_same(&found.rows[0], &sound.rows[0], "from the index");
    let all = ReadEnvelopeRequest {
        decode_all: true,
        ..request
    };
    let refused = envelope(&mut client, all, None).await.unwrap_err();
    assert_eq!(refused.code(), Code::DataLoss);
}

#[tokio::test]
async fn a_segment_that_cannot_be_read_fails_or_is_masked() {
    let folder = tempfile::tempdir().unwrap();
    let session = Session::load(&corpus::folder(), "multi_segment_mef3io");
    let path = folder.path().join("s.mefd");
    copy_folder(&session.path, &path);
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let channel = channels(&mut client, &path, None).await.remove(0);
    let lost = files_below(&path).into_iter().find(|file| {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        name.ends_with("-000001.tmet")
    });
    std::fs::write(lost.unwrap(), b"no metadata").unwrap();
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let span = channel.span.unwrap();
    let mut request = over(&path, (span.start_uutc, span.end_uutc), 50);
    let refused = envelope(&mut client, request.clone(), None)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::DataLoss);
    request.set_on_damage(OnDamage::Mask);
    let found = envelope(&mut client, request, None).await.unwrap();
    assert_eq!(found.damage.len(), 1);
    assert!(found.rows[0].minima.iter().any(|it| it.is_nan()));
    assert!(found.rows[0].minima.iter().any(|it| !it.is_nan()));
}

#[tokio::test]
async fn what_makes_no_sense_or_is_too_much_is_refused() {
    let server = Server::start_with(|serve| {
        serve.env("MEF3_SERVER_LIMITS_POINTS_MB", "1");
        serve.env("MEF3_SERVER_LIMITS_CHANNELS_PER_READ", "4");
    });
    let mut client = connect(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.mefd");
    write(&path, &["a"], 5);
    let span = (START, START + 5_000_000);
    let good = over(&path, span, 10);
    envelope(&mut client, good.clone(), None).await.unwrap();
    for (request, code, text) in [
        (over(&path, span, 0), Code::InvalidArgument, "pixels"),
        (over(&path, (5, 5), 1), Code::InvalidArgument, "end_uutc"),
        (
            ReadEnvelopeRequest {
                span: None,
                ..good.clone()
            },
            Code::InvalidArgument,
            "span",
        ),
        (
            ReadEnvelopeRequest {
                channels: vec!["none".into()],
                ..good.clone()
            },
            Code::NotFound,
            "none",
        ),
        (
            over(&path, span, 200_000),
            Code::ResourceExhausted,
            "limits.points_mb",
        ),
        (
            over(&path, span, u32::MAX),
            Code::ResourceExhausted,
            "limit",
        ),
        (
            ReadEnvelopeRequest {
                channels: vec!["a".into(); 5],
                ..good.clone()
            },
            Code::ResourceExhausted,
            "limits.channels_per_read",
        ),
    ] {
        let refused = envelope(&mut client, request, None).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
        let details = String::from_utf8_lossy(refused.details()).into_owned();
        assert!(
            refused.message().contains(text) || details.contains(text),
            "{refused:?}"
        );
    }
    // The longest span that there is has all samples in one pixel.
    let widest = envelope(&mut client, over(&path, (i64::MIN, i64::MAX), 3), None)
        .await
        .unwrap();
    let values = widest.rows[0].minima.iter().filter(|it| !it.is_nan());
    assert_eq!(values.count(), 1);
}

#[tokio::test]
async fn what_is_added_is_in_the_next_envelope() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("growing.mefd");
    let mut session = write(&path, &["a"], 2000);
    let server = Server::start_with(|serve| {
        serve.env("MEF3_SERVER_LIVE_STALENESS_MS", "50");
    });
    let mut client = connect(&server).await;
    let span = (START + 1, START + 4_000_000_000);
    let request = over(&path, span, 97);
    let before = envelope(&mut client, request.clone(), None).await.unwrap();
    let mut channel = session.continue_channel("a").unwrap();
    channel
        .write(START + 2_500_000_000, &signal(100_000, 9))
        .unwrap();
    channel.finish().unwrap();
    let limit = Instant::now() + LIMIT;
    let after = loop {
        let after = envelope(&mut client, request.clone(), None).await.unwrap();
        // Blocks that were seen to land are decoded: their index is still to come.
        if after.index_blocks + after.decoded_blocks + after.kept_parts
            >= before.index_blocks + before.decoded_blocks + 1000
        {
            break after;
        }
        assert!(Instant::now() < limit, "nothing new is seen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // What was cut before is known still.
    assert!(after.kept_parts >= before.decoded_blocks);
    let channel = channels(&mut client, &path, None).await.remove(0);
    let all = samples(&mut client, &path, &channel, None).await.unwrap();
    assert_same(&after.rows[0], &brute_force(&all, span, 97), "after");
}

/// The one file in a folder, when it is there and another than before.
async fn kept_file(folder: &Path, before: &[u8]) -> (std::path::PathBuf, Vec<u8>) {
    let limit = Instant::now() + LIMIT;
    loop {
        let files = if folder.is_dir() {
            files_below(folder)
        } else {
            Vec::new()
        };
        if let [file] = files.as_slice()
            && let Ok(bytes) = std::fs::read(file)
            && bytes != before
        {
            return (file.clone(), bytes);
        }
        assert!(Instant::now() < limit, "nothing is kept: {files:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_is_kept_on_disk_serves_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let (path, cache) = (folder.path().join("a.mefd"), folder.path().join("cache"));
    write(&path, &["a", "b"], 2000);
    let start = || {
        Server::start_with(|serve| {
            serve.env("MEF3_SERVER_PATHS_CACHE_FOLDER", &cache);
        })
    };
    let request = over(&path, (START + 1, START + 2_000_000_000), 97);
    let server = start();
    let mut client = connect(&server).await;
    let first = envelope(&mut client, request.clone(), None).await.unwrap();
    assert!(first.decoded_blocks > 0);
    let (file, sound) = kept_file(&cache, &[]).await;
    drop(server);

    let server = start();
    let mut client = connect(&server).await;
    let again = envelope(&mut client, request.clone(), None).await.unwrap();
    assert_eq!((again.decoded_blocks, &again.rows), (0, &first.rows));
    drop(server);

    // What is spoilt is nothing, and is written anew.
    let mut spoilt = sound.clone();
    spoilt[100] ^= 1;
    let huge = [&sound[..24], &[0xFF; 5000]].concat();
    for bytes in [&spoilt[..], &sound[..sound.len() / 2], &huge, b""] {
        std::fs::write(&file, bytes).unwrap();
        let server = start();
        let mut client = connect(&server).await;
        let again = envelope(&mut client, request.clone(), None).await.unwrap();
        assert_eq!(again.rows, first.rows);
        assert_eq!(again.decoded_blocks, first.decoded_blocks);
        assert_eq!(kept_file(&cache, bytes).await.1, sound);
    }

    // So is what is of other files.
    std::fs::remove_dir_all(&path).unwrap();
    write(&path, &["a", "b"], 1990);
    let server = start();
    let mut client = connect(&server).await;
    let other = envelope(&mut client, request, None).await.unwrap();
    assert!(other.decoded_blocks > 0 && other.rows != first.rows);
}

#[tokio::test]
async fn nothing_of_a_protected_recording_is_kept_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, cache) = (folder.path().join("a.mefd"), folder.path().join("cache"));
    write(&plain, &["a"], 2000);
    let server = Server::start_with(|serve| {
        serve.env("MEF3_SERVER_PATHS_CACHE_FOLDER", &cache);
    });
    let mut client = connect(&server).await;
    let session = Session::load(&corpus::folder(), "encrypted_mef3io");
    let password = session.password_level_2.as_deref();
    let channel = channels(&mut client, &session.path, password)
        .await
        .remove(0);
    let span = channel.span.unwrap();
    let span = (span.start_uutc + 1, span.end_uutc);
    let secret = envelope(&mut client, over(&session.path, span, 7), password)
        .await
        .unwrap();
    assert!(secret.decoded_blocks > 0);
    let request = over(&plain, (START + 1, START + 2_000_000_000), 97);
    envelope(&mut client, request, None).await.unwrap();
    // The one that came later is there, and is the only one.
    kept_file(&cache, &[]).await;
}

/// The case of the plan, in full: 24 hours of 64 channels. Wants a release build and
/// two minutes: `cargo test --release --test native_envelope -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "long"]
async fn a_day_of_64_channels() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("day.mefd");
    let (rate, hours) = (32.0, 24);
    let samples_per_channel = hours * 3600 * 32;
    let mut session = SessionWriter::create(&path, SessionOptions::default()).unwrap();
    for number in 0..64 {
        let options = ChannelOptions {
            block_samples: Some(32),
            ..ChannelOptions::new(format!("ch{number:02}"), rate)
        };
        let mut channel = session.channel(options).unwrap();
        let counts = signal(samples_per_channel, number + 1);
        channel.write(START, &counts).unwrap();
        channel.finish().unwrap();
    }
    let server = Server::start(&[]);
    let mut client = connect(&server).await;
    let opening = Instant::now();
    let channels = channels(&mut client, &path, None).await;
    println!("opening: {:?}", opening.elapsed());
    let span = (START, START + i64::from(hours) * 3_600_000_000);
    let request = over(&path, span, 2000);
    let begun = Instant::now();
    let first = envelope(&mut client, request.clone(), None).await.unwrap();
    println!("first call: {:?}", begun.elapsed());
    let before = asked_pages(&mut client).await;
    for _ in 0..5 {
        let begun = Instant::now();
        let again = envelope(&mut client, request.clone(), None).await.unwrap();
        println!(
            "later call: {:?}, {} from the index, {} kept",
            begun.elapsed(),
            again.index_blocks,
            again.kept_parts
        );
        assert_eq!((again.decoded_blocks, &again.rows), (0, &first.rows));
    }
    assert_eq!(asked_pages(&mut client).await, before);
    for number in [0, 31, 63] {
        let all = samples(&mut client, &path, &channels[number], None)
            .await
            .unwrap();
        assert_same(&first.rows[number], &brute_force(&all, span, 2000), "a day");
    }
}

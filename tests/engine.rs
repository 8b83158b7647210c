//! The embedding API over the reference corpus, with worker processes and
//! without: windows by both rules and as counts, and the stored blocks.

mod common;

use std::fmt::Debug;

use common::corpus::{self, Session, Window};
use mef3_server::mef::{MefError, OpenOptions, Password, Rule, SampleValue};
use mef3_server::{BlockItem, Engine, Error, ReadRequest, Recording};

procspawn::enable_test_support!();

fn engine(workers: usize) -> Engine {
    mef3_server::worker::init();
    Engine::builder()
        .workers(workers)
        .cache_mb(64)
        .start()
        .unwrap()
}

fn with_password(text: Option<&str>) -> OpenOptions {
    OpenOptions {
        password: text.and_then(Password::new),
    }
}

fn request(recording: &Recording, window: &Window, rule: Rule) -> ReadRequest {
    ReadRequest::new(recording, window.start_uutc, window.end_uutc)
        .channels([window.channel.as_str()])
        .rule(rule)
        // Small messages, so that most windows are made of several.
        .columns_per_message(1000)
}

/// A whole window, message by message.
async fn read<T: SampleValue>(engine: &Engine, request: &ReadRequest) -> Vec<T> {
    let mut windows = engine.read::<T>(request).unwrap();
    let mut samples = Vec::new();
    while let Some(window) = windows.next().await {
        let window = window.unwrap();
        assert_eq!(
            (window.rows, window.first_column),
            (1, samples.len() as u64)
        );
        samples.extend(window.samples);
    }
    assert_eq!(samples.len() as u64, windows.grid().columns());
    samples
}

fn is_nan<T: PartialOrd>(value: &T) -> bool {
    value.partial_cmp(value).is_none()
}

/// Equal bit for bit, all NaN being one.
fn assert_same<T: SampleValue + PartialOrd + Debug>(what: &str, read: &[T], truth: &[T]) {
    assert_eq!(read.len(), truth.len(), "{what}: number of samples");
    for (column, (read, truth)) in read.iter().zip(truth).enumerate() {
        let both_gaps = is_nan(read) && is_nan(truth);
        let same = bytemuck::bytes_of(read) == bytemuck::bytes_of(truth);
        assert!(
            same || both_gaps,
            "{what}, column {column}: {read:?}, not {truth:?}"
        );
    }
}

async fn compare_window(
    engine: &Engine,
    recording: &Recording,
    session: &Session,
    window: &Window,
) {
    let Session { name, .. } = session;
    let Window { channel, kind, .. } = window;
    let what = |rule| {
        format!(
            "{name}, {channel}, {kind} window from {} by {rule}",
            window.start_uutc
        )
    };

    let mef3io = request(recording, window, Rule::Mef3io);
    assert_same(
        &what("mef3io"),
        &read::<f64>(engine, &mef3io).await,
        &window.mef3io,
    );
    let pymef = window
        .pymef
        .as_ref()
        .expect("pymef reads every plain window");
    let read_pymef = read::<f64>(engine, &request(recording, window, Rule::Pymef)).await;
    assert_same(&what("pymef"), &read_pymef, pymef);

    // The truth has 0 and a mask where we have the least integer.
    let in_gap = window.mef3io.iter().map(|value| value.is_nan());
    let counts = window.counts.iter().zip(in_gap);
    let counts: Vec<i32> = counts
        .map(|(&count, gap)| if gap { i32::MIN } else { count })
        .collect();
    assert_same(
        &what("counts"),
        &read::<i32>(engine, &mef3io).await,
        &counts,
    );
}

async fn compare_all(workers: usize) {
    let engine = engine(workers);
    let mut windows = 0;
    for session in corpus::sessions() {
        let password = session.password_level_2.as_deref();
        let recording = engine
            .open_with(&session.path, with_password(password))
            .await;
        let recording = recording.unwrap();
        for window in session.windows() {
            compare_window(&engine, &recording, &session, &window).await;
            windows += 1;
        }
        engine.close(&session.path).await.unwrap();
    }
    assert_eq!(windows, 694);
    let statistics = engine.statistics().await.unwrap();
    assert_eq!(statistics.supervisor.in_process, workers == 0);
    assert_eq!(statistics.coordinator.failed, 0);
    engine.shutdown().await;
}

#[tokio::test]
async fn every_window_of_the_corpus_with_workers() {
    compare_all(2).await;
}

#[tokio::test]
async fn every_window_of_the_corpus_in_process() {
    compare_all(0).await;
}

#[tokio::test]
async fn blocks_come_whole_and_once() {
    let engine = engine(1);
    for session in corpus::plain_sessions() {
        let recording = engine.open(&session.path).await.unwrap();
        for channel in &recording.info().channels {
            let facts = &session.facts["channels"][&channel.name]["blocks"]["rows"];
            let expected: Vec<(i64, u64)> = facts
                .as_array()
                .unwrap()
                .iter()
                .map(|row| (row[0].as_i64().unwrap(), row[2].as_u64().unwrap()))
                .collect();
            // Beyond the span at both ends: all blocks.
            let (start, end) = (channel.start_uutc - 1_000_000, channel.end_uutc + 1_000_000);
            let request =
                ReadRequest::new(&recording, start, end).channels([channel.name.as_str()]);
            let mut blocks = engine.read_blocks(&request).unwrap();
            let mut found = Vec::new();
            while let Some(block) = blocks.next().await {
                let BlockItem::Block(block) = block.unwrap() else {
                    panic!("{}: an unreadable segment", session.name);
                };
                found.push((block.start_uutc, block.counts().unwrap().len() as u64));
            }
            assert_eq!(found, expected, "{}, {}", session.name, channel.name);
        }
    }
    engine.shutdown().await;
}

/// Whoever gives another password, or none, is never answered with what the
/// right one has opened.
#[tokio::test]
async fn a_password_opens_for_who_gives_it() {
    let engine = engine(1);
    let session = Session::load(&corpus::folder(), "encrypted_mef3io");
    let open = |text| engine.open_with(&session.path, with_password(text));
    let full = open(session.password_level_2.as_deref()).await.unwrap();
    assert_eq!(full.info().subject.as_ref().unwrap().id, "SUBJ-042");
    let signal = open(session.password_level_1.as_deref()).await.unwrap();
    assert_eq!(signal.info().subject, None);
    for text in [None, Some("wrong")] {
        let error = open(text).await.unwrap_err();
        let Error::Mef(error) = error else {
            panic!("{error}");
        };
        assert!(error.is_about_password(), "{error}");
        assert!(error.to_string().contains("password"), "{error}");
    }
    // Nothing that is printed shows a password.
    let shown = format!("{full:?} {:?}", with_password(Some("pw-L2")));
    assert!(!shown.contains("pw-L2") && !shown.contains("112, 119, 45, 76"));
    engine.shutdown().await;
}

/// An archive that was touched is another recording.
#[tokio::test]
async fn a_replaced_archive_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tar_archive.mefd.tar");
    std::fs::copy(corpus::folder().join("tar_archive.mefd.tar"), &path).unwrap();
    mef3_server::worker::init();
    let mut config = mef3_server::config::Config::default();
    config.live.staleness_ms = 0;
    let engine = Engine::builder().config(config).start().unwrap();
    let recording = engine.open(&path).await.unwrap();
    let start = recording.info().start_uutc().unwrap();
    let channel = recording.info().channels[0].name.clone();
    let request = ReadRequest::new(&recording, start, start + 1_000_000).channels([channel]);
    let before = read::<i32>(&engine, &request).await;
    assert_eq!(read::<i32>(&engine, &request).await, before);
    let again = engine.refresh(&recording).await.unwrap();
    assert_eq!(again.revision(), recording.revision());

    let file = std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap();
    file.set_len(file.metadata().unwrap().len() + 512).unwrap();
    let mut windows = engine.read::<i32>(&request).unwrap();
    let error = windows.next().await.unwrap().unwrap_err();
    assert!(
        matches!(error, Error::Mef(MefError::Changed { .. })),
        "{error}"
    );
    let again = engine.refresh(&recording).await.unwrap();
    assert_ne!(again.revision().opening, recording.revision().opening);
    engine.shutdown().await;
}

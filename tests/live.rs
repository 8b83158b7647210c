//! Recordings that are read while they are written.
//!
//! `MEF3_LIVE_SECONDS=180 cargo test --test live` is the long form.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::peers_python;
use mef3_server::mef::{ChannelOptions, MefError, SessionOptions, SessionWriter};
use mef3_server::{Engine, Error, ReadRequest, Recording};

procspawn::enable_test_support!();

const START: i64 = 1_600_000_000_000_000;
const RATE: f64 = 256.0;

/// Seconds that the appending goes on, where they are set.
fn long_form() -> Option<f64> {
    let seconds = std::env::var("MEF3_LIVE_SECONDS").ok()?;
    Some(seconds.parse().unwrap())
}

/// A sample must be visible so long after its writer is told that it is written. In
/// the short form, which runs beside other things, later: a look that takes long is
/// made less often.
fn visible_within() -> Duration {
    Duration::from_secs(if long_form().is_some() { 2 } else { 5 })
}

/// The sample of a number since the start; tests/python/append_live.py has the
/// same.
fn signal(number: u64) -> i32 {
    (number * 7919 % 20011) as i32 - 10005
}

fn time_of(number: u64) -> i64 {
    START + (number as f64 / RATE * 1e6).round() as i64
}

fn engine(staleness_ms: u64) -> Engine {
    mef3_server::worker::init();
    let mut config = mef3_server::config::Config::default();
    config.live.staleness_ms = staleness_ms;
    // What a prediction decodes would be counted with the reads.
    config.prefetch.max_mb = 0;
    Engine::builder().config(config).start().unwrap()
}

/// How much was written, and when that was known.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<(Instant, u64)>>>);

impl Written {
    fn note(&self, samples: u64) {
        self.0.lock().unwrap().push((Instant::now(), samples));
    }

    /// Samples that must be visible to who looks now, and those there can be.
    fn now(&self) -> u64 {
        let written = self.0.lock().unwrap();
        let within = visible_within();
        let due = |(at, _): &&(Instant, u64)| at.elapsed() >= within;
        written.iter().rev().find(due).map_or(0, |&(_, n)| n)
    }

    fn all(&self) -> u64 {
        self.0.lock().unwrap().last().map_or(0, |&(_, n)| n)
    }
}

/// So many samples, so often, with a pause between.
#[derive(Clone, Copy)]
struct Appends {
    samples: u64,
    pause: Duration,
    times: u64,
}

/// Appends with a Python library in a process of its own.
fn append_with_python(library: &str, session: &Path, appends: Appends, written: &Written) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/append_live.py");
    let mut writer = Command::new(peers_python())
        .arg(script)
        .arg(library)
        .arg(session)
        .args([START.to_string(), RATE.to_string()])
        .args([
            appends.samples.to_string(),
            appends.pause.as_secs_f64().to_string(),
        ])
        .arg(appends.times.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for line in BufReader::new(writer.stdout.take().unwrap()).lines() {
        written.note(line.unwrap().parse().unwrap());
    }
    assert!(writer.wait().unwrap().success());
}

/// Appends with our writer, which now and then begins a segment, or ends and is
/// opened anew.
fn append_with_ours(session: &Path, appends: Appends, written: &Written) {
    let mut writer = SessionWriter::create(session, SessionOptions::default()).unwrap();
    let mut channel = writer.channel(ChannelOptions::new("grow", RATE)).unwrap();
    for time in 0..appends.times {
        let numbers = time * appends.samples..(time + 1) * appends.samples;
        let samples: Vec<i32> = numbers.clone().map(signal).collect();
        channel.write(time_of(numbers.start), &samples).unwrap();
        match time % 10 {
            4 => channel.new_segment().unwrap(),
            7 => {
                channel.finish().unwrap();
                channel = writer.continue_channel("grow").unwrap();
            }
            _ => channel.flush().unwrap(),
        }
        written.note(numbers.end);
        thread::sleep(appends.pause);
    }
}

/// Reads samples from number `first` to `end` as counts.
async fn read(engine: &Engine, recording: &Recording, first: u64, end: u64) -> Vec<i32> {
    let request = ReadRequest::new(recording, time_of(first), time_of(end)).channels(["grow"]);
    let mut windows = engine.read::<i32>(&request).unwrap();
    let mut samples = Vec::new();
    while let Some(window) = windows.next().await {
        samples.extend(window.unwrap().samples);
    }
    samples
}

async fn wait_for(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// One of several readers: whatever was due when it looked is there, and right.
async fn read_at_random(engine: Engine, path: PathBuf, written: Written, seed: u64) -> u64 {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut recording = engine.open(&path).await.unwrap();
    let opening = recording.revision().opening;
    let mut reads = 0;
    while written.all() != u64::MAX {
        let due = written.now();
        recording = engine.refresh(&recording).await.unwrap();
        assert_eq!(recording.revision().opening, opening);
        let known = recording.info().channels[0].stored_samples();
        assert!(known >= due, "{known} samples are known, {due} are due");
        let first = rng.u64(..known);
        let end = known.min(first + rng.u64(1..20_000));
        let samples = read(&engine, &recording, first, end).await;
        let right: Vec<i32> = (first..end).map(signal).collect();
        assert_eq!(samples, right, "samples {first} to {end} of {known}");
        reads += 1;
        tokio::time::sleep(Duration::from_millis(rng.u64(..100))).await;
    }
    reads
}

/// Follows from the first block on: every sample once, in order.
async fn follow(engine: Engine, path: PathBuf, written: Written) -> u64 {
    let recording = engine.open(&path).await.unwrap();
    let mut blocks = engine.follow(&recording, ["grow"], Some(i64::MIN)).unwrap();
    let mut number = 0;
    let mut idle_since = Instant::now();
    while written.all() != u64::MAX || idle_since.elapsed() < visible_within() {
        let wait = tokio::time::timeout(Duration::from_millis(200), blocks.next());
        let Ok(block) = wait.await else {
            assert!(written.all() == u64::MAX || number >= written.now());
            continue;
        };
        idle_since = Instant::now();
        let block = block.unwrap().unwrap();
        assert_eq!(block.start_uutc, time_of(number));
        for &sample in block.counts().unwrap() {
            assert_eq!(sample, signal(number));
            number += 1;
        }
    }
    number
}

#[tokio::test]
async fn what_mef3io_appends_is_visible_and_right() {
    appended_samples_are_visible_and_right(|session, appends, written| {
        append_with_python("mef3io", session, appends, written);
    })
    .await;
}

/// It leaves short and truncated metadata behind at times (format section 13.1).
#[tokio::test]
async fn what_pymef_appends_is_visible_and_right() {
    appended_samples_are_visible_and_right(|session, appends, written| {
        append_with_python("pymef", session, appends, written);
    })
    .await;
}

#[tokio::test]
async fn what_our_writer_appends_is_visible_and_right() {
    appended_samples_are_visible_and_right(append_with_ours).await;
}

async fn appended_samples_are_visible_and_right(append: fn(&Path, Appends, &Written)) {
    let seconds = long_form().unwrap_or(8.0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live.mefd");
    let pause = if seconds > 60.0 { 1.0 } else { 0.25 };
    let appends = Appends {
        samples: RATE as u64,
        pause: Duration::from_secs_f64(pause),
        times: (seconds / pause) as u64,
    };
    let written = Written::default();
    let writer = {
        let (path, written) = (path.clone(), written.clone());
        thread::spawn(move || {
            append(&path, appends, &written);
            thread::sleep(visible_within());
            let all = written.all();
            // Tells the readers to end.
            written.note(u64::MAX);
            all
        })
    };
    let engine = engine(1000);
    wait_for(|| written.all() > 0).await;
    let readers: Vec<_> = (0..8)
        .map(|seed| read_at_random(engine.clone(), path.clone(), written.clone(), seed))
        .map(tokio::spawn)
        .collect();
    let follower = tokio::spawn(follow(engine.clone(), path.clone(), written.clone()));
    for reader in readers {
        assert!(reader.await.unwrap() > 5);
    }
    let all = writer.join().unwrap();
    assert_eq!(follower.await.unwrap(), all);
    assert_eq!(all, appends.times * appends.samples);
    engine.shutdown().await;
}

/// A session of one channel, `grow`, of 1000 samples.
fn small_session(path: &Path) -> SessionWriter {
    let mut session = SessionWriter::create(path, SessionOptions::default()).unwrap();
    write_channel(&mut session, "grow", 0..1000);
    session
}

fn write_channel(session: &mut SessionWriter, name: &str, numbers: std::ops::Range<u64>) {
    let mut channel = session.channel(ChannelOptions::new(name, RATE)).unwrap();
    let samples: Vec<i32> = numbers.clone().map(signal).collect();
    channel.write(time_of(numbers.start), &samples).unwrap();
    channel.finish().unwrap();
}

#[tokio::test]
async fn new_channels_and_segments_appear_and_pages_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live.mefd");
    let mut session = SessionWriter::create(&path, SessionOptions::default()).unwrap();
    let mut channel = session.channel(ChannelOptions::new("grow", RATE)).unwrap();
    let part = |numbers: std::ops::Range<u64>| numbers.map(signal).collect::<Vec<_>>();
    channel.write(time_of(0), &part(0..10_000)).unwrap();
    channel.new_segment().unwrap();

    let engine = engine(0);
    let first = engine.open(&path).await.unwrap();
    assert_eq!(read(&engine, &first, 0, 10_000).await, part(0..10_000));
    let decoded = engine.statistics().await.unwrap().coordinator.decoded;

    write_channel(&mut session, "before", 0..10);
    let second = engine.refresh(&first).await.unwrap();
    let names = |recording: &Recording| -> Vec<String> {
        let channels = recording.info().channels.iter();
        channels.map(|channel| channel.name.clone()).collect()
    };
    assert_eq!(names(&second), ["before", "grow"]);
    channel
        .write(time_of(10_000), &part(10_000..12_000))
        .unwrap();
    channel.new_segment().unwrap();
    let third = engine.refresh(&second).await.unwrap();
    assert_eq!(third.info().channels[1].segments.len(), 2);
    let revisions = [&first, &second, &third].map(|recording| recording.revision().to_string());
    let opening = first.revision().opening;
    assert_eq!(
        revisions,
        [0, 1, 2].map(|growth| format!("{opening}.{growth}"))
    );

    // Whoever has an earlier state reads that, and nobody decodes anything twice.
    assert_eq!(read(&engine, &first, 0, 10_000).await, part(0..10_000));
    assert_eq!(read(&engine, &third, 0, 10_000).await, part(0..10_000));
    let statistics = engine.statistics().await.unwrap();
    assert_eq!(statistics.coordinator.decoded, decoded);
    assert_eq!(read(&engine, &third, 0, 12_000).await, part(0..12_000));
    // Nothing happened: nothing is new.
    let fourth = engine.refresh(&third).await.unwrap();
    assert_eq!(fourth.revision(), third.revision());
    engine.shutdown().await;
}

#[tokio::test]
async fn what_was_replaced_is_never_served_from_the_cache() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("live.mefd");
    drop(small_session(&path));
    let engine = engine(0);
    let before = engine.open(&path).await.unwrap();
    let truth: Vec<i32> = (0..1000).map(signal).collect();
    assert_eq!(read(&engine, &before, 0, 1000).await, truth);

    // Other samples at the same times, under the same names.
    fs::rename(&path, folder.path().join("old.mefd")).unwrap();
    let mut session = SessionWriter::create(&path, SessionOptions::default()).unwrap();
    let mut channel = session.channel(ChannelOptions::new("grow", RATE)).unwrap();
    channel.write(START, &[7; 1000]).unwrap();
    channel.finish().unwrap();

    let request = ReadRequest::new(&before, time_of(0), time_of(1000));
    let changed = |error: &Error| matches!(error, Error::Mef(MefError::Changed { .. }));
    let mut windows = engine.read::<i32>(&request).unwrap();
    let refused = windows.next().await.unwrap().unwrap_err();
    assert!(changed(&refused), "{refused}");
    let after = engine.refresh(&before).await.unwrap();
    assert_ne!(after.revision().opening, before.revision().opening);
    assert_eq!(read(&engine, &after, 0, 1000).await, [7; 1000]);

    // Closed and replaced: the handle is of the old files all the same.
    engine.close(&path).await.unwrap();
    assert_eq!(read(&engine, &after, 0, 1000).await, [7; 1000]);
    let data = path.join("grow.timd/grow-000000.segd/grow-000000.tdat");
    let file = fs::OpenOptions::new().write(true).open(&data).unwrap();
    file.set_len(file.metadata().unwrap().len() - 8).unwrap();
    let request = ReadRequest::new(&after, time_of(0), time_of(1000));
    let mut windows = engine.read::<i32>(&request).unwrap();
    let refused = windows.next().await.unwrap().unwrap_err();
    assert!(changed(&refused), "{refused}");
    engine.shutdown().await;
}

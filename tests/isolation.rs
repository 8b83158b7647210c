//! What takes long, or does not answer, keeps nobody else waiting: openings, looks at
//! sessions of very many segments, storage that is gone, slots that rest.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::chaos::{mend, spoil};
use common::engine::{
    opened, reach, read_right, request, rest_of, start, statistics, with_workers, without_prefetch,
};
use common::process::client::soon;
use common::process::session::{KnownSession, START, assert_same};
use common::process::{LIMIT, signal};
use mef3_server::mef::{ChannelOptions, SessionOptions, SessionWriter};
use mef3_server::{Engine, Error, ReadRequest, Statistics};
use rustix::process::Signal;

procspawn::enable_test_support!();

/// What a read may take on a loaded machine, in a debug build, where nothing keeps it.
const QUICK: Duration = Duration::from_secs(2);

/// Reads all of a session, second after second, each in no time to speak of.
async fn reads_are_quick(engine: &Engine, session: &KnownSession) {
    for second in 0..session.seconds {
        let asked = Instant::now();
        let span = session.span(0..session.channels(), second, second + 1);
        read_right(engine, session, &span).await;
        assert!(asked.elapsed() < QUICK, "{:?}", asked.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_do_not_wait_behind_an_opening() {
    let slow = KnownSession::write(1, 1024, 4);
    spoil(&slow.path, "do slow 600000\nat open\n");
    let good = KnownSession::write(16, 1024, 32);
    let mut config = with_workers(2, 2);
    config.workers.stall_limit_s = 600;
    let engine = start(config);
    opened(&engine, &good).await;
    // More of them than there are workers.
    let openings: Vec<_> = (0..4)
        .map(|number| {
            let (engine, path) = (engine.clone(), slow.path.clone());
            let name = format!("{}{}", path.display(), "/".repeat(number));
            tokio::spawn(async move { engine.open(&name).await.is_ok() })
        })
        .collect();
    reach(&engine, "a worker opens", |now| {
        now.supervisor.workers.iter().any(|worker| worker.jobs > 0)
    })
    .await;
    reads_are_quick(&engine, &good).await;
    assert!(openings.iter().all(|opening| !opening.is_finished()));
    openings.iter().for_each(tokio::task::JoinHandle::abort);
    soon("shutdown", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looks_do_not_wait_for_one_that_hangs() {
    let bad = KnownSession::write(1, 1024, 4);
    let good = KnownSession::write(16, 1024, 32);
    let mut config = with_workers(2, 2);
    config.workers.stall_limit_s = 600;
    config.live.staleness_ms = 1;
    let engine = start(config);
    opened(&engine, &good).await;
    read_right(&engine, &bad, &bad.all()).await;
    spoil(&bad.path, "do hang\nat refresh\n");
    let hangs = {
        let (engine, path) = (engine.clone(), bad.path.clone());
        tokio::spawn(async move {
            let recording = engine.open(&path).await.unwrap();
            let all = ReadRequest::new(&recording, START, START + 4_000_000);
            rest_of(engine.read::<f32>(&all).unwrap(), 1).await.is_ok()
        })
    };
    reach(&engine, "a worker looks", |now| {
        now.supervisor.workers.iter().any(|worker| worker.jobs > 0)
    })
    .await;
    // Each of these has a look of its own, and the pages behind it.
    reads_are_quick(&engine, &good).await;
    assert!(!hangs.is_finished());
    hangs.abort();
    soon("shutdown", engine.shutdown()).await;
}

/// A session whose look is longer to tell than what fits into the channel to a worker.
fn of_many_segments(path: &Path) {
    let mut session = SessionWriter::create(path, SessionOptions::default()).unwrap();
    for number in 0..50 {
        let options = ChannelOptions::new(format!("channel with a long name {number}"), 100.0);
        let mut channel = session.channel(options).unwrap();
        for segment in 0..70 {
            if segment > 0 {
                channel.new_segment().unwrap();
            }
            channel.write(START + segment * 10_000, &[1]).unwrap();
        }
        channel.finish().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn looks_at_very_many_segments_go_on_beside_reads() {
    let folder = tempfile::tempdir().unwrap();
    let many = folder.path().join("many.mefd");
    of_many_segments(&many);
    let good = KnownSession::write(32, 1000, 240);
    let mut config = with_workers(2, 2);
    config.workers.stall_limit_s = 4;
    config.live.staleness_ms = 1;
    // Everything is decoded every time.
    config.cache.size_mb = 1;
    let engine = start(config);
    let recording = soon("open", engine.open(&many)).await.unwrap();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let engine = engine.clone();
            let span = good.all();
            let expected = good.expected(&span);
            let path = good.path.clone();
            tokio::spawn(async move {
                let recording = engine.open(&path).await.unwrap();
                for _ in 0..3 {
                    let windows = engine.read::<f32>(&request(&recording, &span)).unwrap();
                    assert_same(
                        &rest_of(windows, span.channels.len()).await.unwrap(),
                        &expected,
                    );
                }
            })
        })
        .collect();
    let mut looks = 0;
    while !readers.iter().all(tokio::task::JoinHandle::is_finished) {
        let window = ReadRequest::new(&recording, START, START + 10_000);
        let windows = engine.read::<f32>(&window).unwrap();
        rest_of(windows, 50).await.unwrap();
        looks += 1;
    }
    for reader in readers {
        reader.await.unwrap();
    }
    let now = statistics(&engine).await;
    assert!(looks >= 3, "{looks}");
    assert_eq!(now.supervisor.stalled, 0, "{now:#?}");
    assert_eq!(now.coordinator.lost_jobs, 0, "{now:#?}");
    soon("shutdown", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_grows_is_held_to_the_limit_of_indices_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("grows.mefd");
    let mut session = SessionWriter::create(&path, SessionOptions::default()).unwrap();
    let options = ChannelOptions {
        block_samples: Some(1),
        ..ChannelOptions::new("ch", 1000.0)
    };
    let mut channel = session.channel(options).unwrap();
    let mut end = START;
    let mut append = |samples: usize| {
        channel.write(end, &vec![7; samples]).unwrap();
        channel.flush().unwrap();
        end += samples as i64 * 1000;
    };
    append(1000);
    let mut config = without_prefetch();
    config.limits.metadata_mb = 1;
    config.live.staleness_ms = 1;
    let engine = start(config);
    let recording = soon("open", engine.open(&path)).await.unwrap();
    let read = || {
        let request = ReadRequest::new(&recording, START, START + 1_000_000);
        rest_of(engine.read(&request).unwrap(), 1)
    };
    assert_eq!(read().await.unwrap()[0].len(), 1000);
    append(60_000);
    let limit = Error::LimitExceeded {
        limit: "limits.metadata_mb",
        value: 1,
    };
    let deadline = Instant::now() + LIMIT;
    while soon("refresh", engine.refresh(&recording)).await.err() != Some(limit.clone()) {
        assert!(Instant::now() < deadline, "growth is not noticed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // What was there before can be read.
    assert_eq!(read().await.unwrap()[0].len(), 1000);
    let recordings = statistics(&engine).await.recordings;
    assert!(recordings.metadata_bytes < 1 << 20, "{recordings:?}");
    soon("shutdown", engine.shutdown()).await;
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_does_not_answer_costs_one_worker_and_answers_again() {
    let good = KnownSession::write(16, 1024, 32);
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    assert_ne!(
        device(elsewhere.path()),
        device(&good.path),
        "two file systems are needed, the temporary folder and /dev/shm"
    );
    let bad = elsewhere.path().join("bad.mefd");
    copy_folder(&good.path, &bad);
    let mut config = with_workers(2, 2);
    config.workers.stall_limit_s = 1;
    let engine = start(config);
    let gone = soon("open", engine.open(&bad)).await.unwrap();
    opened(&engine, &good).await;
    let read_gone = |channel: usize| {
        let span = good.span(channel..channel + 1, 0, 32);
        let windows = engine.read::<f32>(&request(&gone, &span)).unwrap();
        rest_of(windows, 1)
    };
    spoil(&bad, "do hang\nat page\n");
    let waiting: Vec<_> = (0..16)
        .map(|channel| tokio::spawn(read_gone(channel)))
        .collect();
    reach(&engine, "two workers are lost", |now| {
        now.supervisor.stalled >= 2
    })
    .await;
    // One of two workers at most is at what does not answer.
    let begun = Instant::now();
    let mut seconds = (0..32).cycle();
    while begun.elapsed() < Duration::from_secs(4) {
        let second = seconds.next().unwrap();
        let asked = Instant::now();
        read_right(&engine, &good, &good.span(0..16, second, second + 1)).await;
        assert!(asked.elapsed() < QUICK, "{:?}", asked.elapsed());
    }
    for read in waiting {
        let error = read.await.unwrap().unwrap_err();
        let known = matches!(
            error,
            Error::StuckStorage { .. } | Error::PoisonedPage { .. }
        );
        assert!(known, "{error}");
    }
    mend(&bad);
    let deadline = Instant::now() + LIMIT;
    let mut right = 0;
    while right == 0 {
        assert!(Instant::now() < deadline);
        for channel in 0..16 {
            match read_gone(channel).await {
                Ok(rows) => {
                    assert_same(
                        &rows,
                        &good.expected(&good.span(channel..channel + 1, 0, 32)),
                    );
                    right += 1;
                }
                Err(Error::StuckStorage { .. } | Error::PoisonedPage { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    soon("shutdown", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spare_worker_stands_in_for_a_slot_that_rests() {
    let session = KnownSession::write(2, 1024, 4);
    let mut config = with_workers(1, 2);
    config.workers.restart_budget = 1;
    config.workers.restart_window_s = 60;
    config.workers.rest_s = 600;
    let engine = start(config);
    for _ in 0..2 {
        let up = |now: &Statistics| now.supervisor.workers[0].pid.is_some();
        let now = reach(&engine, "the worker is up", up).await;
        let pid = now.supervisor.workers[0].pid;
        signal(pid.unwrap(), Signal::KILL);
        reach(&engine, "it is noticed", |now| {
            now.supervisor.workers[0].pid != pid
        })
        .await;
    }
    let now = reach(&engine, "the spare one is up", |now| {
        now.supervisor.workers[1].pid.is_some()
    })
    .await;
    assert!(!now.supervisor.in_process, "{now:#?}");
    read_right(&engine, &session, &session.all()).await;
    assert_eq!(statistics(&engine).await.supervisor.in_process_jobs, 0);
    soon("shutdown", engine.shutdown()).await;
}

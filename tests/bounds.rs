//! What a request may ask for, and what all of them together may hold.
//!
//! With `MEF3_LONG=1` the sessions are large and the limits of time are those that
//! the server promises; otherwise a loaded machine and a debug build are allowed for.

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::chaos::{assert_nothing_is_held, is_long};
use common::engine::{
    idle, opened, read_right, request, rest_of, start, statistics, without_prefetch,
};
use common::process::client::{Client, soon};
use common::process::session::{KnownSession, Span, assert_same};
use common::process::{LIMIT, Launch, descriptors, resident, signal, until};
use mef3_server::config::Config;
use mef3_server::{Block, BlockItem, BlockStream, Engine, Error, ReadRequest, WindowStream};
use rustix::process::Signal;

procspawn::enable_test_support!();

/// Seconds of a year.
const YEAR_S: i64 = 365 * 24 * 3600;
const MIB: u64 = 1 << 20;

/// Asks for a year of all channels, again and again.
async fn refuses_a_year(session: &KnownSession) {
    let server = Launch::new().start();
    server.workers_up(2);
    let mut client = Client::with_open(server.address, session).await;
    client.read_right(session, &session.span(0..1, 0, 1)).await;
    let year = session.span(0..session.channels(), 0, YEAR_S);
    let before = resident(server.pid());
    let mut longest = Duration::ZERO;
    for _ in 0..100 {
        let asked = Instant::now();
        let error = client.read(session, &year).await.unwrap_err();
        longest = longest.max(asked.elapsed());
        for part in ["limits.request_mb", "16384", "MiB"] {
            assert!(error.contains(part), "{error}");
        }
    }
    let grown = resident(server.pid()).saturating_sub(before);
    println!(
        "a year of {} channels: refused within {longest:?}, memory grown by {grown} bytes",
        session.channels()
    );
    let limit = if is_long() { 10 } else { 500 };
    assert!(longest < Duration::from_millis(limit), "{longest:?}");
    assert!(grown < 16 * MIB, "{grown} bytes");
    client.read_right(session, &session.span(0..1, 0, 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_of_a_small_session_is_refused_at_once_and_costs_nothing() {
    refuses_a_year(&KnownSession::write(1, 256, 60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_of_a_huge_session_is_refused_at_once_and_costs_nothing() {
    // Small blocks make an index of a recording of months.
    let (channels, seconds) = if is_long() { (64, 1600) } else { (16, 100) };
    let session = KnownSession::with_blocks(channels, 100, seconds, 10);
    refuses_a_year(&session).await;
}

/// The error of a read that has a limit in its way, and how long it took.
async fn refusal<T>(asked: impl Future<Output = Result<T, String>>) -> (String, Duration) {
    let began = Instant::now();
    let Err(error) = asked.await else {
        panic!("it is answered");
    };
    (error, began.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_waits_for_no_worker() {
    let session = KnownSession::write(2, 256, 60);
    let server = Launch::new()
        .env("MEF3_SERVER_LIMITS_REQUEST_MB", "1")
        .env("MEF3_SERVER_LIMITS_CHANNELS_PER_READ", "2048")
        // Every read that is not refused looks at the files.
        .env("MEF3_SERVER_LIVE_STALENESS_MS", "0")
        .start();
    let workers = server.workers_up(2);
    let mut client = Client::with_open(server.address, &session).await;
    let many = |channels| Span {
        channels: vec![1; channels],
        from_s: 0,
        to_s: 1,
    };
    // A second of so many rows is more than a megabyte.
    let names = many(1100).names();
    client.set_segments(&session, 1, &names).await;
    for worker in &workers {
        signal(worker.pid, Signal::STOP);
    }
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        for (told, (error, took)) in [
            (
                "the request has 2 MiB of samples, and one may have 1 (limits.request_mb)",
                refusal(client.read(&session, &many(1100))).await,
            ),
            (
                "the request has 3 MiB of samples, and one may have 1 (limits.request_mb)",
                refusal(client.segment(&session, 0)).await,
            ),
            (
                "limits.channels_per_read is limited to 2048",
                refusal(client.read(&session, &many(2049))).await,
            ),
        ] {
            assert_eq!(error, told);
            longest = longest.max(took);
        }
    }
    println!("refused within {longest:?}, while all workers are stopped");
    let limit = if is_long() { 10 } else { 500 };
    assert!(longest < Duration::from_millis(limit), "{longest:?}");
    for worker in &workers {
        signal(worker.pid, Signal::CONT);
    }
    client.read_right(&session, &session.all()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_too_long_is_refused() {
    let server = Launch::new()
        .env("MEF3_SERVER_LIMITS_REQUEST_MESSAGE_KB", "8")
        .start();
    let mut client = Client::connect(server.address).await;
    // With its tag and length a path takes 3 bytes more.
    let longest = "x".repeat(8 * 1024 - 3);
    let info = client.try_open(&longest).await.unwrap();
    assert!(!info.file_opened);
    for longer in [longest + "x", "x".repeat(1 << 20)] {
        let status = client.try_open(&longer).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");
        assert!(status.message().contains("8192"), "{status}");
    }
    let session = KnownSession::write(1, 256, 4);
    client.open(&session.key()).await.unwrap();
    client.read_right(&session, &session.all()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_a_request_is_exact() {
    let session = KnownSession::write(2, 1024, 130);
    let mut config = without_prefetch();
    config.limits.request_mb = 1;
    let engine = start(config);
    let recording = opened(&engine, &session).await;
    // 2 * 1024 * 128 samples of 4 bytes.
    read_right(&engine, &session, &session.span(0..2, 0, 128)).await;
    let more = request(&recording, &session.span(0..2, 0, 129));
    let refused = engine.read::<f32>(&more).err();
    let expected = Error::RequestTooLarge {
        bytes: MIB + 2 * 1024 * 4,
        limit_bytes: MIB,
    };
    assert_eq!(refused, Some(expected.clone()));
    assert_eq!(
        expected.to_string(),
        "the request has 2 MiB of samples, and one may have 1 (limits.request_mb)"
    );
    assert!(engine.read_blocks(&more).is_err());
    // Samples of twice the size, half of the time.
    let long = request(&recording, &session.span(0..2, 0, 65));
    assert!(engine.read::<f64>(&long).is_err());
    assert!(engine.read::<f32>(&long).is_ok());
    soon("shutdown", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn indices_have_a_limit_and_the_others_stay_readable() {
    let large = KnownSession::with_blocks(8, 1000, 60, 10);
    let small = KnownSession::write(1, 1000, 10);
    let mut config = without_prefetch();
    config.limits.metadata_mb = 1;
    let engine = start(config);
    read_right(&engine, &small, &small.all()).await;
    let refused = soon("open", engine.open(&large.path)).await.unwrap_err();
    let limit = Error::LimitExceeded {
        limit: "limits.metadata_mb",
        value: 1,
    };
    assert_eq!(refused, limit);
    read_right(&engine, &small, &small.all()).await;
    let recordings = statistics(&engine).await.recordings;
    assert_eq!(recordings.open, 1);
    assert!(recordings.metadata_bytes < MIB, "{recordings:?}");
    soon("shutdown", engine.shutdown()).await;
}

/// Much less than many readers would like to hold.
fn with_small_limits() -> Config {
    let mut config = without_prefetch();
    config.cache.size_mb = 1;
    config.limits.in_flight_mb = 4;
    config.limits.client_mb = 2;
    config
}

/// Reads that have taken one message each, and then take no more.
async fn idle_reads(
    engine: &Engine,
    session: &KnownSession,
    span: &Span,
    count: u64,
) -> Vec<WindowStream<f32>> {
    let recording = opened(engine, session).await;
    let mut reads = Vec::new();
    for reader in 1..=count {
        let request = request(&recording, span).reader(reader);
        // A sixteenth of a second in each message.
        let mut windows = engine.read(&request.columns_per_message(64)).unwrap();
        soon("a message", windows.next()).await.unwrap().unwrap();
        reads.push(windows);
    }
    reads
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_nobody_takes_hold_little_and_keep_nobody_waiting() {
    let session = Arc::new(KnownSession::write(16, 1024, 60));
    let span = session.all();
    let engine = start(with_small_limits());
    let idle_ones = idle_reads(&engine, &session, &span, 40).await;
    let held = statistics(&engine).await.held;
    assert_eq!(held.limit_bytes, 4 * MIB);
    assert!(held.ahead_bytes > 0, "nothing is read ahead: {held:?}");

    let busy: Vec<_> = (100..108)
        .map(|reader| {
            let (engine, session, span) = (engine.clone(), session.clone(), span.clone());
            tokio::spawn(async move {
                let recording = opened(&engine, &session).await;
                let request = request(&recording, &span).reader(reader);
                let windows = engine.read(&request).unwrap();
                let rows = rest_of(windows, span.channels.len()).await.unwrap();
                assert_same(&rows, &session.expected(&span));
            })
        })
        .collect();
    for read in busy {
        read.await.unwrap();
    }
    // What nobody took for so long is still there, and right.
    for windows in idle_ones {
        let rows = rest_of(windows, span.channels.len()).await.unwrap();
        let mut expected = session.expected(&span);
        for row in &mut expected {
            row.drain(..64);
        }
        assert_same(&rows, &expected);
    }
    let held = idle(&engine).await.held;
    let sum = held.awaited_bytes + held.ahead_bytes;
    assert_eq!(sum, 0, "{held:?}");
    soon("shutdown", engine.shutdown()).await;
}

/// The rest of the stored blocks of some rows, scaled.
async fn rest_of_blocks(mut blocks: BlockStream, rows: &mut [Vec<f32>]) {
    while let Some(item) = soon("the next block", blocks.next()).await {
        match item.unwrap() {
            BlockItem::Block(block) => push(rows, &block),
            other => panic!("{other:?}"),
        }
    }
}

fn push(rows: &mut [Vec<f32>], block: &Block) {
    let value = |&count: &i32| (f64::from(count) * block.units_conversion_factor) as f32;
    rows[block.row].extend(block.counts().unwrap().iter().map(value));
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_nobody_takes_are_held_by_permits_and_come_right() {
    let session = KnownSession::write(16, 1024, 60);
    let engine = start(with_small_limits());
    let recording = opened(&engine, &session).await;
    // All comes at once, so that nothing is read ahead of it.
    let at_once = request(&recording, &session.span(0..16, 0, 15));
    let mut blocks = engine.read_blocks(&at_once).unwrap();
    soon("a block", blocks.next()).await.unwrap().unwrap();
    let held = statistics(&engine).await.held;
    assert!(held.ahead_bytes >= MIB / 2, "the rest of them: {held:?}");
    assert_eq!(held.awaited_bytes, 0, "nobody waits: {held:?}");
    drop(blocks);
    let mut follow = engine.follow(&recording, [""; 0], Some(i64::MIN)).unwrap();
    soon("a block", follow.next()).await.unwrap().unwrap();
    let held = statistics(&engine).await.held;
    assert!(held.ahead_bytes > 0, "the rest of its page: {held:?}");
    assert_eq!(held.awaited_bytes, 0, "nobody waits: {held:?}");
    drop(follow);
    assert_eq!(statistics(&engine).await.held.ahead_bytes, 0);

    // More than there are permits for, and somebody else.
    let span = session.all();
    let mut idle_ones = Vec::new();
    for reader in 1..=8 {
        let request = request(&recording, &span).reader(reader);
        let mut blocks = engine.read_blocks(&request).unwrap();
        let mut rows = vec![Vec::new(); 16];
        let Some(Ok(BlockItem::Block(first))) = soon("a block", blocks.next()).await else {
            panic!("no block");
        };
        push(&mut rows, &first);
        idle_ones.push((blocks, rows));
    }
    let mut follow = engine.follow(&recording, [""; 0], Some(i64::MIN)).unwrap();
    let mut followed = vec![Vec::new(); 16];
    for _ in 0..16 * 60 {
        let block = soon("a block", follow.next()).await.unwrap().unwrap();
        push(&mut followed, &block);
    }
    assert_same(&followed, &session.expected(&span));
    read_right(&engine, &session, &span).await;
    for (blocks, mut rows) in idle_ones {
        rest_of_blocks(blocks, &mut rows).await;
        assert_same(&rows, &session.expected(&span));
    }
    drop(follow);
    let held = idle(&engine).await.held;
    assert_eq!((held.awaited_bytes, held.ahead_bytes), (0, 0));
    soon("shutdown", engine.shutdown()).await;
}

/// What reads of all kinds cost this process that have taken something, and then take
/// no more.
fn memory_of_idle_reads((path, start, end): (PathBuf, i64, i64)) -> u64 {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let builder = Engine::builder().config(with_small_limits());
        let engine = builder.workers(0).start().unwrap();
        let recording = engine.open(&path).await.unwrap();
        let request = |reader| ReadRequest::new(&recording, start, end).reader(reader);
        let mut all = engine.read::<f32>(&request(0)).unwrap();
        while let Some(window) = all.next().await {
            window.unwrap();
        }
        let before = resident(std::process::id());
        let mut idle = Vec::new();
        for reader in 1..=100 {
            let request = request(reader);
            let mut blocks = engine.read_blocks(&request).unwrap();
            let request = request.columns_per_message(64);
            let mut windows = engine.read::<f32>(&request).unwrap();
            let mut follow = engine.follow(&recording, [""; 0], Some(i64::MIN)).unwrap();
            blocks.next().await.unwrap().unwrap();
            windows.next().await.unwrap().unwrap();
            follow.next().await.unwrap().unwrap();
            idle.push((blocks, windows, follow));
        }
        let grown = resident(std::process::id()).saturating_sub(before);
        drop(idle);
        engine.shutdown().await;
        grown
    })
}

/// In a process of its own: other tests use memory, too.
#[test]
fn reads_of_all_kinds_that_nobody_takes_cost_little_memory() {
    let session = KnownSession::write(16, 1024, 60);
    let span = session.all();
    let arguments = (session.path.clone(), span.start(), span.end());
    let grown = procspawn::spawn(arguments, memory_of_idle_reads);
    let grown = grown.join().unwrap();
    println!("100 reads of each kind that take nothing: {grown} bytes");
    // The permits, and what lies around. Without them, a block stream alone holds 1 MiB.
    assert!(grown <= 4 * MIB + 24 * MIB, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_full_of_idle_reads_stays_small_and_answers() {
    let streams = if is_long() { 1000 } else { 100 };
    let session = KnownSession::write(16, 1000, 256);
    let server = Launch::new()
        .env("MEF3_SERVER_CACHE_SIZE_MB", "1")
        .env("MEF3_SERVER_PREFETCH_MAX_MB", "0")
        .start();
    server.workers_up(2);
    let before = descriptors(server.pid());
    let span = session.all();
    let mut readings = Vec::new();
    for _ in 0..streams {
        // On a connection of its own: streams that share one share its window.
        let mut client = Client::with_open(server.address, &session).await;
        let mut reading = client.start(&session, &span).await;
        assert!(reading.take().await.unwrap());
        readings.push(reading);
    }
    let mut fresh = Client::with_open(server.address, &session).await;
    let asked = Instant::now();
    fresh.read_right(&session, &span).await;
    let took = asked.elapsed();
    let held = resident(server.pid());
    println!("{streams} reads that take nothing: {held} bytes, another is answered in {took:?}");
    assert!(took < LIMIT);
    let allowed = 2 * MIB + streams as u64 * 256 * 1024 + 64 * MIB;
    assert!(held <= allowed, "{held} bytes, allowed are {allowed}");
    drop((readings, fresh));
    until("the connections end", LIMIT, || {
        descriptors(server.pid()) <= before
    });
    assert_nothing_is_held(server);
}

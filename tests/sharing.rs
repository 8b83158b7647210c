//! Many readers of one engine: nobody waits for a slow one, nothing is decoded
//! twice, and every limit holds.

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::engine::{
    Served, idle, opened, pages_of, read_right, request, rest_of, start, statistics,
    without_prefetch,
};
use common::process::client::{Client, soon};
use common::process::session::{KnownSession, assert_same};
use common::process::{LIMIT, Launch, process, resident, signal, until};
use futures_util::{FutureExt, StreamExt};
use mef3_server::{Engine, Error};
use rustix::process::Signal;
use tokio::time::timeout;

procspawn::enable_test_support!();

/// How long a short read may take beside slow ones.
const ANSWER: Duration = Duration::from_secs(5);

/// Twenty readers of short windows, each answered in time and right; the
/// slowest answer.
async fn twenty_readers(address: SocketAddr, session: &Arc<KnownSession>) -> Duration {
    let readers: Vec<_> = (0..20)
        .map(|reader| {
            let session = Arc::clone(session);
            tokio::spawn(async move {
                let mut client = Client::with_open(address, &session).await;
                let from = i64::from(reader) * 2;
                let span = session.span(0..8, from, from + 2);
                let began = Instant::now();
                client.read_right(&session, &span).await;
                began.elapsed()
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    for reader in readers {
        slowest = slowest.max(reader.await.unwrap());
    }
    slowest
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_client_that_pages_slowly() {
    let session = Arc::new(KnownSession::write(64, 512, 120));
    let server = Launch::new().start();
    let mut slow = Client::with_open(server.address, &session).await;
    let over = Arc::new(AtomicBool::new(false));
    let slow = {
        let (session, over) = (Arc::clone(&session), Arc::clone(&over));
        tokio::spawn(async move {
            let mut messages = 0;
            let mut reading = slow.start(&session, &session.all()).await;
            while reading.take().await.unwrap() {
                messages += 1;
                if !over.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            let rows = reading.finish().await.unwrap();
            assert_same(&rows, &session.expected(&session.all()));
            messages
        })
    };
    let slowest = twenty_readers(server.address, &session).await;
    let slow_was_reading = !slow.is_finished();
    over.store(true, Ordering::Relaxed);
    assert!(slow_was_reading, "the slow client was not slow");
    assert!(slowest < ANSWER, "{slowest:?}");
    assert!(slow.await.unwrap() >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_holds_nobody_up_and_little_memory() {
    // As sent 16 MB, sixty messages.
    let session = Arc::new(KnownSession::write(32, 512, 240));
    let server = Launch::new()
        .env("MEF3_SERVER_CACHE_SIZE_MB", "1")
        .env("MEF3_SERVER_LIMITS_READ_AHEAD_MB", "1")
        .start();
    let mut stalled = Vec::new();
    for _ in 0..16 {
        let mut client = Client::with_open(server.address, &session).await;
        let mut reading = client.start(&session, &session.all()).await;
        assert!(reading.take().await.unwrap());
        stalled.push((client, reading));
    }
    let slowest = twenty_readers(server.address, &session).await;
    assert!(slowest < ANSWER, "{slowest:?}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let memory = resident(server.pid()) >> 20;
    println!("{memory} MiB with 16 stalled streams, slowest answer {slowest:?}");
    // What the streams still have to send, and its pages, would be 400 MB.
    assert!(memory < 256, "{memory} MiB");
    let (_client, reading) = stalled.remove(0);
    let rows = reading.finish().await.unwrap();
    assert_same(&rows, &session.expected(&session.all()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_window_is_decoded_once_however_many_ask_for_it() {
    let session = Arc::new(KnownSession::write(8, 1000, 60));
    let span = session.all();
    let pages = pages_of(&session, &span).await;
    for readers in [2, 10] {
        let engine = start(without_prefetch());
        let tasks: Vec<_> = (0..readers)
            .map(|_| {
                let (engine, session, span) = (engine.clone(), session.clone(), span.clone());
                tokio::spawn(async move { read_right(&engine, &session, &span).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let coordinator = idle(&engine).await.coordinator;
        assert_eq!(
            coordinator.decoded, pages,
            "{readers} readers: {coordinator:#?}"
        );
        soon("shutdown", engine.shutdown()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_window_is_decoded_once_for_ten_clients() {
    let session = Arc::new(KnownSession::write(8, 1000, 60));
    let span = session.all();
    let pages = pages_of(&session, &span).await;
    let engine = start(without_prefetch());
    let served = Served::start(&engine);
    let address = served.address;
    let clients: Vec<_> = (0..10)
        .map(|_| {
            let (session, span) = (session.clone(), span.clone());
            tokio::spawn(async move {
                let mut client = Client::with_open(address, &session).await;
                client.read_right(&session, &span).await;
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let coordinator = idle(&engine).await.coordinator;
    assert_eq!(coordinator.decoded, pages, "{coordinator:#?}");
    served.end().await;
    soon("shutdown", engine.shutdown()).await;
}

/// An engine with one worker, which is stopped, and a session that is open.
async fn engine_at_a_standstill(session: &KnownSession) -> (Engine, u32) {
    let mut config = without_prefetch();
    config.workers.min = 1;
    let engine = start(config);
    opened(&engine, session).await;
    let worker = statistics(&engine).await.supervisor.workers[0].pid.unwrap();
    signal(worker, Signal::STOP);
    (engine, worker)
}

/// Waits until all pages are in flight: of a reply of two messages at most.
async fn all_asked(engine: &Engine, pages: u64) {
    let deadline = Instant::now() + LIMIT;
    while statistics(engine).await.coordinator.in_flight < pages {
        assert!(Instant::now() < deadline, "{:#?}", statistics(engine).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Work that is wanted by nobody is not done, but for what the worker has.
async fn assert_cancelled(engine: &Engine, worker: u32, pages: u64) {
    signal(worker, Signal::CONT);
    let decoded = idle(engine).await.coordinator.decoded;
    assert!(decoded <= pages / 4, "{decoded} of {pages} pages");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_dropped_takes_its_queued_work_with_it() {
    let session = KnownSession::write(64, 512, 16);
    let span = session.all();
    let pages = pages_of(&session, &span).await;
    let (engine, worker) = engine_at_a_standstill(&session).await;
    let recording = opened(&engine, &session).await;
    let mut windows = engine.read::<f32>(&request(&recording, &span)).unwrap();
    let waiting = tokio::spawn(async move { windows.next().await.is_some() });
    all_asked(&engine, pages).await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    assert_cancelled(&engine, worker, pages).await;
    // Nothing is wrong with what was left out.
    read_right(&engine, &session, &span).await;
    soon("shutdown", engine.shutdown()).await;
}

/// The same over the wire: the client cancels the call.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_cancelled_takes_its_queued_work_with_it() {
    let session = KnownSession::write(64, 512, 16);
    let span = session.all();
    let pages = pages_of(&session, &span).await;
    let (engine, worker) = engine_at_a_standstill(&session).await;
    let served = Served::start(&engine);
    let mut client = Client::connect(served.address).await;
    client.open(&session.key()).await.unwrap();
    let reading = client.start(&session, &span).await;
    all_asked(&engine, pages).await;
    drop(reading);
    // The cancellation travels on its own.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_cancelled(&engine, worker, pages).await;
    client.read_right(&session, &span).await;
    served.end().await;
    soon("shutdown", engine.shutdown()).await;
}

#[test]
fn an_engine_serves_any_runtime_and_thread() {
    fn is_shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    fn can_move<T: Send + 'static>(_: &T) {}

    let session = Arc::new(KnownSession::write(4, 256, 60));
    let engine = start(without_prefetch());
    is_shared(&engine);
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let (engine, session) = (engine.clone(), session.clone());
            std::thread::spawn(move || {
                let from = thread * 15;
                let span = session.span(0..4, from, from + 15);
                let runtime = if thread % 2 == 0 {
                    tokio::runtime::Builder::new_current_thread()
                } else {
                    tokio::runtime::Builder::new_multi_thread()
                };
                let mut runtime = runtime;
                let runtime = runtime.enable_all().build().unwrap();
                runtime.block_on(read_right(&engine, &session, &span));
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    // No runtime at all: a bare executor.
    let rows = block_on(async {
        let recording = engine.open(&session.path).await.unwrap();
        is_shared(&recording);
        let span = session.all();
        let windows = engine.read::<f32>(&request(&recording, &span)).unwrap();
        can_move(&windows);
        let windows: Vec<_> = windows.into_stream().collect().await;
        let mut rows = vec![Vec::new(); session.channels()];
        for window in windows {
            let window = window.unwrap();
            for (row, samples) in rows.iter_mut().zip(window.samples.chunks(window.columns)) {
                row.extend_from_slice(samples);
            }
        }
        engine.shutdown().await;
        rows
    });
    assert_same(&rows, &session.expected(&session.all()));
}

/// The simplest executor there is, which gives up after a while.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    let deadline = Instant::now() + LIMIT;
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {LIMIT:?}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_next_loses_nothing() {
    let session = KnownSession::write(16, 1000, 200);
    let span = session.all();
    let mut config = without_prefetch();
    config.limits.read_ahead_mb = 1;
    config.cache.size_mb = 1;
    let engine = start(config);
    let recording = opened(&engine, &session).await;
    // More than may be read ahead, so that every message is waited for.
    let request = request(&recording, &span).columns_per_message(20_000);
    let mut windows = engine.read::<f32>(&request).unwrap();
    let mut rows = vec![Vec::new(); span.channels.len()];
    let mut dropped = 0;
    let deadline = Instant::now() + LIMIT;
    loop {
        assert!(Instant::now() < deadline);
        // Four times it is dropped after one poll, then it gets a moment.
        let next = windows.next();
        let outcome = if dropped % 5 < 4 {
            next.now_or_never()
        } else {
            timeout(Duration::from_millis(2), next).await.ok()
        };
        match outcome {
            None => dropped += 1,
            Some(None) => break,
            Some(Some(window)) => {
                let window = window.unwrap();
                assert_eq!(window.first_column, rows[0].len() as u64);
                for (row, samples) in rows.iter_mut().zip(window.samples.chunks(window.columns)) {
                    row.extend_from_slice(samples);
                }
            }
        }
    }
    assert!(dropped >= 40, "only {dropped} calls were dropped");
    assert_same(&rows, &session.expected(&span));
    soon("shutdown", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_under_a_shutdown_end_in_stopped() {
    let session = KnownSession::write(16, 1000, 60);
    let mut config = without_prefetch();
    config.limits.read_ahead_mb = 1;
    let engine = start(config);
    let recording = opened(&engine, &session).await;
    let request = request(&recording, &session.all()).columns_per_message(1000);
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut windows = engine.read::<f32>(&request).unwrap();
        soon("the first window", windows.next())
            .await
            .unwrap()
            .unwrap();
        streams.push(windows);
    }
    let waiting = streams.pop().unwrap();
    let waiting = tokio::spawn(rest_of(waiting, session.channels()));
    soon("shutdown", engine.shutdown()).await;
    // Quick as it is, it may have been complete before.
    if let Err(error) = soon("the waiting read", waiting).await.unwrap() {
        assert_eq!(error, Error::Stopped);
    }
    for windows in streams {
        let end = rest_of(windows, session.channels()).await;
        assert_eq!(end.unwrap_err(), Error::Stopped);
    }
    let late = soon("open", engine.open(&session.path)).await;
    assert_eq!(late.unwrap_err(), Error::Stopped);
    let late = engine.read::<f32>(&request).unwrap();
    let late = rest_of(late, session.channels()).await;
    assert_eq!(late.unwrap_err(), Error::Stopped);
    assert_eq!(engine.statistics().await.unwrap_err(), Error::Stopped);
    soon("a second shutdown", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_dropped_takes_its_workers_with_it() {
    let session = KnownSession::write(2, 256, 10);
    let engine = start(without_prefetch());
    let recording = opened(&engine, &session).await;
    let windows = engine.read::<f32>(&request(&recording, &session.all()));
    let workers = statistics(&engine).await.supervisor.workers;
    let pids: Vec<u32> = workers.iter().filter_map(|worker| worker.pid).collect();
    assert!(!pids.is_empty() && pids.iter().all(|&pid| process(pid).is_some()));
    drop(engine);
    until("the workers are gone", LIMIT, || {
        pids.iter().all(|&pid| process(pid).is_none())
    });
    let end = rest_of(windows.unwrap(), session.channels()).await;
    assert_eq!(end.unwrap_err(), Error::Stopped);
}

fn limit_exceeded(limit: &'static str, value: u64) -> Error {
    Error::LimitExceeded { limit, value }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_pages_than_may_be_queued_are_refused() {
    let session = KnownSession::write(16, 1000, 60);
    let mut config = without_prefetch();
    config.limits.queued_pages = 64;
    let engine = start(config);
    let recording = opened(&engine, &session).await;
    let request = request(&recording, &session.all()).columns_per_message(60_000);
    let windows = engine.read(&request).unwrap();
    let refused = rest_of(windows, session.channels()).await.err();
    let busy = Error::Busy {
        limit: "limits.queued_pages",
        value: 64,
    };
    assert_eq!(refused, Some(busy));
    let coordinator = idle(&engine).await.coordinator;
    assert!(coordinator.refused >= 1, "{coordinator:?}");
    // What fits is served as ever.
    read_right(&engine, &session, &session.span(0..4, 0, 10)).await;
    soon("shutdown", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_refused_pages_ahead_goes_on_without_them() {
    let session = KnownSession::write(16, 1000, 60);
    let mut config = without_prefetch();
    // Room for one message, of 32 pages or 48, and not for the next one.
    config.limits.queued_pages = 48;
    let engine = start(config);
    let recording = opened(&engine, &session).await;
    let request = request(&recording, &session.all()).columns_per_message(8192);
    let windows = engine.read(&request).unwrap();
    let rows = rest_of(windows, session.channels()).await.unwrap();
    assert_same(&rows, &session.expected(&session.all()));
    let statistics = idle(&engine).await;
    assert!(statistics.coordinator.refused >= 1, "{statistics:?}");
    let held = statistics.held;
    assert_eq!((held.awaited_bytes, held.ahead_bytes), (0, 0));
    soon("shutdown", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_recordings_than_may_be_open_are_refused() {
    let sessions = [(); 3].map(|()| KnownSession::write(1, 256, 4));
    let mut config = without_prefetch();
    config.limits.open_recordings = 2;
    let engine = start(config);
    let [first, second, third] = &sessions;
    opened(&engine, first).await;
    opened(&engine, second).await;
    let refused = soon("open", engine.open(&third.path)).await.unwrap_err();
    assert_eq!(refused, limit_exceeded("limits.open_recordings", 2));
    // One that is open can be opened again, and closing makes room.
    opened(&engine, second).await;
    engine.close(&first.path).await.unwrap();
    read_right(&engine, third, &third.all()).await;
    soon("shutdown", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_channels_than_one_read_may_have_are_refused() {
    let session = KnownSession::write(4, 256, 4);
    let mut config = without_prefetch();
    config.limits.channels_per_read = 3;
    let engine = start(config);
    let recording = opened(&engine, &session).await;
    let refused = engine.read::<f32>(&request(&recording, &session.all()));
    assert_eq!(
        refused.err(),
        Some(limit_exceeded("limits.channels_per_read", 3))
    );
    read_right(&engine, &session, &session.span(0..3, 0, 4)).await;
    let served = Served::start(&engine);
    let mut client = Client::connect(served.address).await;
    client.open(&session.key()).await.unwrap();
    let refused = client.read(&session, &session.all()).await.unwrap_err();
    assert!(refused.contains("limits.channels_per_read"), "{refused}");
    served.end().await;
    soon("shutdown", engine.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_keeps_its_budget_under_a_stream_that_is_larger() {
    // Decoded 7.7 MB.
    let session = Arc::new(KnownSession::write(16, 1000, 120));
    let mut config = without_prefetch();
    config.cache.size_mb = 2;
    config.limits.read_ahead_mb = 1;
    let engine = start(config);
    let over = Arc::new(AtomicBool::new(false));
    let watch = {
        let (engine, over) = (engine.clone(), Arc::clone(&over));
        tokio::spawn(async move {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                let cache = statistics(&engine).await.cache;
                assert!(cache.bytes <= cache.budget_bytes, "{cache:?}");
                most = most.max(cache.bytes);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            most
        })
    };
    for _ in 0..2 {
        read_right(&engine, &session, &session.all()).await;
    }
    over.store(true, Ordering::Relaxed);
    let most = watch.await.unwrap();
    let cache = statistics(&engine).await.cache;
    assert_eq!(cache.budget_bytes, 2 << 20);
    assert!(
        most > cache.budget_bytes / 2,
        "{most}: the cache was never filled"
    );
    assert!(cache.evictions > 0, "{cache:?}");
    soon("shutdown", engine.shutdown()).await;
}

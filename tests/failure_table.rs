//! What can go wrong, and what a client sees of it: one test for each row of the
//! table of failures that the server was designed by, named after the row.

mod common;

use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::chaos::{end_cleanly, mend, spoil};
use common::process::client::{Client, soon};
use common::process::session::{KnownSession, assert_same};
use common::process::{LIMIT, Launch, Server, all_gone, children, process, signal, until};
use mef3_server::config::Config;
use mef3_server::{Engine, ReadRequest, Recording, Statistics, WorkerState};
use rustix::process::Signal;

procspawn::enable_test_support!();

/// Nothing is read that was not asked for.
fn launch() -> Launch {
    Launch::new()
        .env("MEF3_SERVER_PREFETCH_MAX_MB", "0")
        // A probe under way would change which worker has the next job.
        .env("MEF3_SERVER_HEALTH_PROBE_INTERVAL_S", "3600")
}

fn session() -> KnownSession {
    KnownSession::write(4, 256, 40)
}

/// Times that a worker was lost.
fn gone(server: &Server) -> usize {
    server.records_of("worker is gone").len()
}

fn engine(change: impl FnOnce(&mut Config)) -> Engine {
    mef3_server::worker::init();
    let mut config = Config::default();
    config.prefetch.max_mb = 0;
    change(&mut config);
    Engine::builder().config(config).start().unwrap()
}

async fn statistics(engine: &Engine) -> Statistics {
    soon("statistics", engine.statistics()).await.unwrap()
}

/// Reads the whole session from an engine: the last opening, and what it reads as.
async fn read_all(engine: &Engine, session: &KnownSession) -> Result<Recording, String> {
    let recording = soon("open", engine.open(&session.path)).await;
    let recording = recording.map_err(|error| error.to_string())?;
    let span = session.all();
    let request = ReadRequest::new(&recording, span.start(), span.end()).channels(span.names());
    let mut windows = engine
        .read::<f32>(&request)
        .map_err(|error| error.to_string())?;
    let mut rows = vec![Vec::new(); session.channels()];
    while let Some(window) = soon("the next window", windows.next()).await {
        let window = window.map_err(|error| error.to_string())?;
        for (row, samples) in rows.iter_mut().zip(window.samples.chunks(window.columns)) {
            row.extend_from_slice(samples);
        }
    }
    assert_same(&rows, &session.expected(&span));
    Ok(recording)
}

/// Its jobs go to another worker at once; the slot restarts. The client sees nothing
/// but time. A panic is caught and costs no worker: pages of its job are tried alone,
/// and the one that panics then, too, is an error.
#[tokio::test(flavor = "multi_thread")]
async fn worker_exits_is_killed_or_panics() {
    let server = launch().start();
    for ending in ["exit", "abort", "kill", "panic"] {
        let session = session();
        let mut client = Client::with_open(server.address, &session).await;
        let mut workers = server.workers_up(2).into_iter();
        // The one that an idle server asks first.
        let first = workers.find(|worker| worker.name == "mef3-worker-0");
        let victim = first.unwrap().pid;
        let before = gone(&server);
        let began = Instant::now();
        if ending == "kill" {
            // One that is stopped is in the middle of its job until it is killed.
            signal(victim, Signal::STOP);
            let reading = client.start(&session, &session.all()).await;
            let reading = tokio::spawn(reading.finish());
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(!reading.is_finished(), "the stopped worker had no job");
            signal(victim, Signal::KILL);
            assert_same(
                &reading.await.unwrap().unwrap(),
                &session.expected(&session.all()),
            );
        } else if ending == "panic" {
            // In whichever worker: where it is tried again is left to chance.
            spoil(&session.path, "do panic\nchannel ch 000");
            let read = client.read(&session, &session.all()).await;
            let error = read.unwrap_err();
            for part in [session.key().as_str(), "channel ch 000", "decoder panicked"] {
                assert!(error.contains(part), "{error}");
            }
            // Its neighbours of the same job are not to blame.
            client
                .read_right(&session, &session.span(1..4, 0, 40))
                .await;
            assert!(process(victim).is_some(), "a panic is caught");
            assert_eq!(gone(&server), before);
            continue;
        } else {
            spoil(&session.path, &format!("do {ending}\npid {victim}"));
            client.read_right(&session, &session.all()).await;
        }
        let took = began.elapsed();
        until("the worker is replaced", Duration::from_secs(1), || {
            gone(&server) == before + 1 && server.workers().len() == 2
        });
        println!("{ending}: read in {took:?}");
        assert!(took < Duration::from_secs(2), "{ending}: {took:?}");
    }
    end_cleanly(server);
}

/// It is quarantined and never run in the server process. The client sees an error
/// that names file, channel and block; other pages are served.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_page_kills_two_workers() {
    let session = session();
    let server = launch()
        // The second death sends the slot to rest: only the server itself reads.
        .arg("--workers=1")
        .env("MEF3_SERVER_WORKERS_RESTART_BUDGET", "1")
        .start();
    server.workers_up(1);
    let mut client = Client::with_open(server.address, &session).await;
    spoil(&session.path, "do abort\nchannel ch 000\nblocks 0..1");
    let guilty = session.span(0..1, 0, 40);
    let error = client.read(&session, &guilty).await.unwrap_err();
    for part in [
        session.key().as_str(),
        "channel ch 000",
        "blocks from 0",
        "ended 2 workers",
    ] {
        assert!(error.contains(part), "{error}");
    }
    // The log comes by another way than the answer.
    until("the log has it", LIMIT, || {
        server.records_of("page is given up").len() == 1 && gone(&server) == 2
    });
    server.logged("no worker can run: reads are decoded in the server process");
    // Another opening of the same files is refused in the same words, by nobody.
    client.close(&session.key()).await;
    let mut other = Client::with_open(server.address, &session).await;
    assert_eq!(other.read(&session, &guilty).await.unwrap_err(), error);
    other.read_right(&session, &session.span(1..4, 0, 40)).await;
    assert_eq!(gone(&server), 2);
    end_cleanly(server);
}

/// Killed; nothing waits for it. The client sees time.
#[tokio::test(flavor = "multi_thread")]
async fn worker_hangs() {
    let stall_limit = Duration::from_secs(1);
    let server = launch()
        .env("MEF3_SERVER_WORKERS_STALL_LIMIT_S", "1")
        .start();
    for hang in ["hang", "loop", "stop"] {
        let session = session();
        let mut client = Client::with_open(server.address, &session).await;
        let workers = server.workers_up(2);
        let first = workers.iter().find(|it| it.name == "mef3-worker-0");
        let victim = first.unwrap().pid;
        if hang == "stop" {
            signal(victim, Signal::STOP);
        } else {
            spoil(&session.path, &format!("do {hang}\npid {victim}"));
        }
        let began = Instant::now();
        client.read_right(&session, &session.all()).await;
        let took = began.elapsed();
        println!("{hang}: read in {took:?}");
        assert!(took <= stall_limit + Duration::from_secs(1), "{took:?}");
        until("it is gone", LIMIT, || process(victim).is_none());
        server.workers_up(2);
    }
    assert_eq!(server.records_of("worker makes no progress").len(), 3);
    end_cleanly(server);
}

/// The slot rests; the server itself reads, and goes on trying. The client sees
/// nothing; the figures say so.
#[tokio::test(flavor = "multi_thread")]
async fn restarts_exceed_the_budget() {
    let session = session();
    let engine = engine(|config| config.workers.rest_s = 2);
    let workers = |statistics: &Statistics| statistics.supervisor.workers.clone();
    let deadline = Instant::now() + LIMIT;
    let mut kills = 0;
    loop {
        let now = statistics(&engine).await;
        if now.supervisor.in_process {
            break;
        }
        assert!(Instant::now() < deadline, "{now:#?}");
        for worker in workers(&now) {
            if let (WorkerState::Ready, Some(pid)) = (worker.state, worker.pid) {
                let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
                // It may have just ended.
                kills += u32::from(rustix::process::kill_process(pid, Signal::KILL).is_ok());
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Ten restarts for each of the two.
    assert!(kills >= 22, "{kills}");
    let resting = statistics(&engine).await;
    for worker in workers(&resting) {
        assert_eq!(worker.state, WorkerState::Resting);
    }
    read_all(&engine, &session).await.unwrap();
    let read = statistics(&engine).await.supervisor;
    assert!(read.in_process && read.in_process_jobs >= 2, "{read:?}");
    let began = Instant::now();
    while statistics(&engine).await.supervisor.in_process {
        assert!(began.elapsed() < LIMIT);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{kills} kills; workers again after {:?}", began.elapsed());
    soon("close", engine.close(&session.path)).await.unwrap();
    read_all(&engine, &session).await.unwrap();
    let after = statistics(&engine).await.supervisor;
    assert_eq!(after.in_process_jobs, read.in_process_jobs);
    soon("shutdown", engine.shutdown()).await;
}

/// A typed error, never NaN; the recording's revision changes.
#[tokio::test(flavor = "multi_thread")]
async fn file_vanishes_shrinks_or_is_unreadable() {
    let engine = engine(|config| config.live.staleness_ms = 0);
    for trouble in ["vanishes", "shrinks", "is unreadable"] {
        let session = session();
        let stem = "ch 001-000000";
        let file = format!("ch 001.timd/{stem}.segd/{stem}.tdat");
        let file = session.path.join(file);
        let before = read_all(&engine, &session).await.unwrap().revision();
        let whole = fs::read(&file).unwrap();
        match trouble {
            "vanishes" => fs::remove_file(&file).unwrap(),
            "shrinks" => fs::write(&file, &whole[..whole.len() / 2]).unwrap(),
            _ => spoil(&session.path, "do errno EACCES\nchannel ch 001\ncall open"),
        }
        if trouble == "is unreadable" {
            // A worker that has the file open can read on; after this, none has.
            soon("close", engine.close(&session.path)).await.unwrap();
        }
        let error = read_all(&engine, &session).await.unwrap_err();
        println!("a file that {trouble}: {error}");
        assert!(error.contains("ch 001"), "{trouble}: {error}");
        if trouble == "is unreadable" {
            mend(&session.path);
        } else {
            fs::write(&file, &whole).unwrap();
        }
        let after = read_all(&engine, &session).await.unwrap().revision();
        assert_ne!(after.opening, before.opening, "{trouble}");
    }
    soon("shutdown", engine.shutdown()).await;
}

/// Its waiters leave; what nobody wants is not done.
#[tokio::test(flavor = "multi_thread")]
async fn client_goes_away() {
    let session = KnownSession::write(64, 512, 60);
    let engine = engine(|config| config.workers.min = 1);
    let recording = soon("open", engine.open(&session.path)).await.unwrap();
    let worker = statistics(&engine).await.supervisor.workers[0].pid.unwrap();
    // The worker has a job, and the rest waits.
    signal(worker, Signal::STOP);
    let span = session.all();
    let request = ReadRequest::new(&recording, span.start(), span.end());
    let mut windows = engine.read::<f32>(&request).unwrap();
    let waiting = tokio::spawn(async move { windows.next().await.is_some() });
    let deadline = Instant::now() + LIMIT;
    let mut wanted = 0;
    // All that is read ahead is asked for.
    while wanted == 0 || statistics(&engine).await.coordinator.in_flight > wanted {
        wanted = statistics(&engine).await.coordinator.in_flight;
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    // The Coordinator looks every 20 ms for what nobody wants.
    tokio::time::sleep(Duration::from_millis(200)).await;
    signal(worker, Signal::CONT);
    while statistics(&engine).await.coordinator.in_flight > 0 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let decoded = statistics(&engine).await.coordinator.decoded;
    println!("{decoded} of {wanted} pages were decoded for nobody");
    assert!(decoded <= wanted / 4, "{decoded} of {wanted} pages");
    soon("shutdown", engine.shutdown()).await;
}

/// Nothing new is taken, streams finish within the grace and are cut after it, and
/// workers go last.
#[tokio::test(flavor = "multi_thread")]
async fn shutdown() {
    let session = KnownSession::write(32, 1000, 120);
    for (grace, finishes) in [("20", true), ("1", false)] {
        let mut server = launch()
            .env("MEF3_SERVER_SERVER_SHUTDOWN_GRACE_S", grace)
            .start();
        let mut client = Client::with_open(server.address, &session).await;
        let mut reading = client.start(&session, &session.all()).await;
        assert!(reading.take().await.unwrap());
        let workers = server.workers_up(2);
        server.signal(Signal::TERM);
        server.logged("ending");
        until("the port is closed", LIMIT, || {
            TcpStream::connect(server.address).is_err()
        });
        assert!(!all_gone(&workers), "workers went before the streams");
        if finishes {
            let rows = reading.finish().await.unwrap();
            assert_same(&rows, &session.expected(&session.all()));
            assert_eq!(server.wait(LIMIT).code(), Some(0));
        } else {
            assert_eq!(server.wait(LIMIT).code(), Some(0));
            // What is cut must not look complete.
            assert!(reading.finish().await.is_err());
        }
        assert!(all_gone(&workers), "{workers:?} outlive the server");
        assert_eq!(server.left_behind(), [""; 0]);
    }
}

/// No orphan, no stray socket file. The client sees its connection break.
#[tokio::test(flavor = "multi_thread")]
async fn server_is_killed() {
    let session = session();
    let mut server = launch().env("N_PROCESS_WORKERS", "4").start();
    let workers = server.workers_up(4);
    let mut client = Client::with_open(server.address, &session).await;
    // One that works and one that hangs go, too.
    signal(workers[0].pid, Signal::STOP);
    let reading = client.start(&session, &session.all()).await;
    server.signal(Signal::KILL);
    let killed = Instant::now();
    server.wait(LIMIT);
    until("the workers are gone", Duration::from_secs(1), || {
        all_gone(&workers)
    });
    println!(
        "4 workers are gone {:?} after their server",
        killed.elapsed()
    );
    assert_eq!(children(server.pid()), []);
    assert_eq!(server.left_behind(), [""; 0]);
    // It may have been complete, but it never looks so when it is not.
    if let Ok(rows) = reading.finish().await {
        assert_same(&rows, &session.expected(&session.all()));
    }
}

/// Killed while workers are anywhere between the start of their processes and their
/// first word.
#[test]
fn server_is_killed_while_workers_start() {
    for pause in 0..8 {
        let mut server = launch().start();
        let begun = || children(server.pid());
        until("workers start", LIMIT, || begun().len() == 2);
        std::thread::sleep(Duration::from_micros(pause * 700));
        let begun = begun();
        server.signal(Signal::KILL);
        server.wait(LIMIT);
        until("the workers are gone", LIMIT, || {
            let gone = |pid| process(pid).is_none_or(|now| now.state == 'Z');
            begun.iter().all(|child| gone(child.pid))
        });
        assert_eq!(server.left_behind(), [""; 0], "after {pause} steps");
    }
}

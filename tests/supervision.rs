//! Workers that die or hang under the server's hands: every read ends complete
//! and right, the worker is replaced, and nothing is left behind.
//!
//! `MEF3_CHAOS_SECONDS` sets how long the storm of kills goes on, 5 s unless set.

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::process::client::Client;
use common::process::session::{KnownSession, assert_same};
use common::process::{
    LIMIT, Launch, Process, Server, all_gone, children, cpu_time, process, signal, until,
};
use rustix::process::Signal;

/// How soon a dead worker must have a successor.
const REPLACED: Duration = Duration::from_secs(1);

/// Reads cold in many small steps ahead, so that a read is still under way when
/// something happens to a worker.
fn launch() -> Launch {
    Launch::new()
        .env("MEF3_SERVER_LIMITS_READ_AHEAD_MB", "1")
        .env("MEF3_SERVER_PREFETCH_MAX_MB", "0")
}

/// Sixteen megabytes as sent: some sixty messages.
fn session() -> KnownSession {
    KnownSession::write(16, 1000, 256)
}

/// Ends the server as a service manager does, and looks for what it left.
fn end_cleanly(mut server: Server) {
    let workers = server.workers();
    server.signal(Signal::TERM);
    let status = server.wait(LIMIT);
    assert_eq!(status.code(), Some(0), "{:#?}", server.records());
    assert!(all_gone(&workers), "{workers:?} outlive the server");
    assert_eq!(server.left_behind(), [""; 0]);
}

/// Waits until another worker stands in for `dead`, and nothing of it is left.
fn assert_replaced(server: &Server, dead: &Process, killed: Instant) {
    let limit = REPLACED.saturating_sub(killed.elapsed());
    until("a new worker is up", limit, || {
        let workers = server.workers();
        workers
            .iter()
            .any(|worker| worker.name == dead.name && worker.pid != dead.pid)
    });
    let zombie = |child: &Process| child.state == 'Z';
    until("the dead worker is reaped", REPLACED, || {
        !children(server.pid()).iter().any(zombie)
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_the_middle_of_a_read_costs_nothing_but_time() {
    let session = session();
    let server = launch().start();
    let victim = server.workers_up(2).remove(0);
    let mut client = Client::with_open(server.address, &session).await;

    // A stopped worker that has a job is in the middle of it until it is killed.
    signal(victim.pid, Signal::STOP);
    let mut reading = client.start(&session, &session.all()).await;
    let reading = tokio::spawn(async move {
        while reading.take().await? {}
        reading.finish().await
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!reading.is_finished(), "the stopped worker had no job");
    let killed = Instant::now();
    signal(victim.pid, Signal::KILL);

    assert_replaced(&server, &victim, killed);
    let rows = reading.await.unwrap().unwrap();
    assert_same(&rows, &session.expected(&session.all()));
    end_cleanly(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_workers_killed_at_once_under_a_read_cost_nothing_but_time() {
    let session = session();
    let server = launch().start();
    let mut client = Client::with_open(server.address, &session).await;
    for second in 0..4 {
        // Not read before, so that workers have to work.
        let span = session.span(0..16, second * 64, (second + 1) * 64);
        let mut reading = client.start(&session, &span).await;
        assert!(reading.take().await.unwrap());
        let workers = server.workers_up(2);
        let killed = Instant::now();
        for worker in &workers {
            signal(worker.pid, Signal::KILL);
        }
        let rows = reading.finish().await.unwrap();
        assert_same(&rows, &session.expected(&span));
        for worker in &workers {
            assert_replaced(&server, worker, killed);
        }
    }
    end_cleanly(server);
}

/// Two workers that had the page and had not begun it say nothing against it.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_not_to_blame_for_workers_that_never_began_it() {
    let session = session();
    let server = launch().start();
    let mut client = Client::with_open(server.address, &session).await;
    let mut workers = server.workers_up(2);
    workers.sort_by(|a, b| a.name.cmp(&b.name));
    for worker in &workers {
        signal(worker.pid, Signal::STOP);
    }
    let one_page = session.span(0..1, 0, 1);
    let mut reading = client.start(&session, &one_page).await;
    let reading = tokio::spawn(async move {
        reading.take().await?;
        reading.finish().await
    });
    for (worker, number) in workers.iter().zip(1..) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!reading.is_finished(), "the stopped workers had no job");
        signal(worker.pid, Signal::KILL);
        until("the death is noticed", LIMIT, || {
            server.records_of("worker is gone").len() >= number
        });
    }
    let rows = reading.await.unwrap().unwrap();
    assert_same(&rows, &session.expected(&one_page));
    end_cleanly(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_hangs_is_replaced_and_its_work_done_by_others() {
    let session = session();
    let server = launch()
        .env("MEF3_SERVER_WORKERS_STALL_LIMIT_S", "1")
        .start();
    let victims = server.workers_up(2);
    let mut client = Client::with_open(server.address, &session).await;
    for victim in &victims {
        signal(victim.pid, Signal::STOP);
    }
    client.read_right(&session, &session.all()).await;
    until("the stopped workers are gone", LIMIT, || {
        victims.iter().all(|victim| process(victim.pid).is_none())
    });
    server.workers_up(2);
    assert!(!server.records_of("worker makes no progress").is_empty());
    end_cleanly(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_that_dies_is_replaced() {
    let server = launch().start();
    for victim in server.workers_up(2) {
        let killed = Instant::now();
        signal(victim.pid, Signal::KILL);
        assert_replaced(&server, &victim, killed);
    }
    end_cleanly(server);
}

/// The first worker that has worked for a while.
fn busy_worker(server: &Server) -> Process {
    let mut idle = HashMap::new();
    let mut busy = None;
    until("a worker works", LIMIT, || {
        busy = server.workers().into_iter().find(|worker| {
            let Some(spent) = cpu_time(worker.pid) else {
                return false;
            };
            let before = *idle.entry(worker.pid).or_insert(spent);
            spent - before > Duration::from_millis(20)
        });
        busy.is_some()
    });
    busy.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_ends_two_workers_is_an_error_and_its_neighbours_are_served() {
    // Blocks that take long enough for a worker to be killed over one.
    let session = KnownSession::with_blocks(2, 32_000, 200, 6_400_000);
    let guilty = session.span(0..1, 0, 1);
    let innocent = session.span(1..2, 0, 1);
    let server = launch().arg("--workers=1").start();
    server.workers_up(1);
    let mut client = Client::with_open(server.address, &session).await;

    let reading = client.start(&session, &guilty).await;
    for _ in 0..2 {
        let victim = busy_worker(&server);
        signal(victim.pid, Signal::KILL);
        until("the worker is gone", LIMIT, || {
            server
                .workers()
                .iter()
                .all(|worker| worker.pid != victim.pid)
        });
    }
    let error = reading.finish().await.unwrap_err();
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
        server.records_of("page is given up").len() == 1
    });

    // Another opening of the same files is refused in the same words, by no worker.
    client.close(&session.key()).await;
    let mut other = Client::with_open(server.address, &session).await;
    assert_eq!(other.read(&session, &guilty).await.unwrap_err(), error);
    other.read_right(&session, &innocent).await;
    assert_eq!(server.records_of("worker is gone").len(), 2);
    end_cleanly(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_a_worker_is_not_read_by_the_server_itself() {
    let session = KnownSession::with_blocks(2, 32_000, 200, 6_400_000);
    let server = launch()
        .arg("--workers=1")
        // The second worker that dies sends its slot to rest.
        .env("MEF3_SERVER_WORKERS_RESTART_BUDGET", "1")
        .env("MEF3_SERVER_WORKERS_RESTART_WINDOW_S", "600")
        .env("MEF3_SERVER_WORKERS_REST_S", "3")
        .start();
    server.workers_up(1);
    let mut client = Client::with_open(server.address, &session).await;
    let idle = server.workers().remove(0);
    signal(idle.pid, Signal::KILL);
    until("another worker is up", LIMIT, || {
        server.workers().iter().any(|worker| worker.pid != idle.pid)
    });

    let suspect = session.span(0..1, 0, 1);
    let reading = client.start(&session, &suspect).await;
    signal(busy_worker(&server).pid, Signal::KILL);
    let error = reading.finish().await.unwrap_err();
    assert!(error.contains("none can be started now"), "{error}");
    client.read_right(&session, &session.span(1..2, 0, 1)).await;
    server.logged("no worker can run: reads are decoded in the server process");
    server.logged("worker processes read again");
    client.read_right(&session, &suspect).await;
    end_cleanly(server);
}

/// All workers are killed again and again under eight readers.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_kills_fails_no_read_and_falsifies_none() {
    let length = std::env::var("MEF3_CHAOS_SECONDS").map_or(5, |seconds| seconds.parse().unwrap());
    let length = Duration::from_secs(length);
    let session = Arc::new(session());
    let server = launch()
        // The smallest cache: almost every read goes to a worker.
        .env("MEF3_SERVER_CACHE_SIZE_MB", "1")
        // Without it, a longer storm has slots rest, and reads are refused.
        .env("MEF3_SERVER_WORKERS_RESTART_BUDGET", "1000")
        .start();
    let over = Arc::new(AtomicBool::new(false));
    let reads = Arc::new(AtomicU64::new(0));
    let readers: Vec<_> = (0..8)
        .map(|reader| {
            let (session, over, reads) = (session.clone(), over.clone(), reads.clone());
            let address = server.address;
            tokio::spawn(async move {
                let mut client = Client::with_open(address, &session).await;
                let mut failures = Vec::new();
                for round in reader.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let from = round * 7 % 24 * 10;
                    let span = session.span(0..16, from, from + 10);
                    match client.read(&session, &span).await {
                        Ok(rows) => assert_same(&rows, &session.expected(&span)),
                        Err(error) => failures.push(error),
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                }
                failures
            })
        })
        .collect();

    let mut kills = 0;
    let began = Instant::now();
    while began.elapsed() < length {
        for worker in server.workers() {
            // It may have just been ended by the last kill.
            let pid = rustix::process::Pid::from_raw(worker.pid as i32).unwrap();
            kills += u32::from(rustix::process::kill_process(pid, Signal::KILL).is_ok());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut failures = Vec::new();
    for reader in readers {
        failures.extend(reader.await.unwrap());
    }
    let reads = reads.load(Ordering::Relaxed);
    println!("{reads} reads, {kills} kills");
    assert_eq!(failures, [""; 0], "of {reads} reads");
    assert!(
        kills >= 8 && reads >= 8,
        "{reads} reads under {kills} kills are no storm"
    );
    end_cleanly(server);
}

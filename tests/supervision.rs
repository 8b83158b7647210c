//! Workers that die or hang under the server's hands: every read ends complete
//! and right, the worker is replaced, and nothing is left behind.

mod common;

use std::time::{Duration, Instant};

use common::chaos::{end_cleanly, mend, spoil};
use common::process::client::Client;
use common::process::session::{KnownSession, assert_same};
use common::process::{LIMIT, Launch, Process, Server, children, signal, until};
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
async fn an_idle_worker_that_dies_is_replaced() {
    let server = launch().start();
    for victim in server.workers_up(2) {
        let killed = Instant::now();
        signal(victim.pid, Signal::KILL);
        assert_replaced(&server, &victim, killed);
    }
    end_cleanly(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ended_a_worker_is_not_read_by_the_server_itself() {
    let session = KnownSession::write(2, 256, 40);
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
    spoil(&session.path, "do abort\nchannel ch 000");
    let error = client.read(&session, &suspect).await.unwrap_err();
    assert!(error.contains("none can be started now"), "{error}");
    mend(&session.path);
    client.read_right(&session, &session.span(1..2, 0, 1)).await;
    server.logged("no worker can run: reads are decoded in the server process");
    server.logged("worker processes read again");
    client.read_right(&session, &suspect).await;
    end_cleanly(server);
}

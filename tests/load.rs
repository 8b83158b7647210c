//! Very many clients, and a mixed load for a long time.
//!
//! `MEF3_LONG=1 cargo test --release --test load -- --test-threads=1 --nocapture`
//! has 1,000 clients, and the soak for an hour.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::chaos::{Load, Shape, assert_nothing_is_held, by_form};
use common::process::client::Client;
use common::process::session::KnownSession;
use common::process::{LIMIT, Launch, children, descriptors, resident, signal, until};
use rustix::process::Signal;

const MIB: u64 = 1 << 20;

/// The largest memory of the server until told to stop.
async fn watch_memory(pid: u32, over: Arc<AtomicBool>) -> u64 {
    let mut most = 0;
    while !over.load(Ordering::Relaxed) {
        most = most.max(resident(pid));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    most
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_are_all_served_within_the_memory() {
    let clients = by_form(100, 1000);
    // What the clients read fills it.
    let cache_mb = 16;
    let session = Arc::new(KnownSession::write(16, 1000, 256));
    let server = Launch::new()
        .env("MEF3_SERVER_CACHE_SIZE_MB", cache_mb.to_string())
        .start();
    server.workers_up(2);
    let over = Arc::new(AtomicBool::new(false));
    let memory = tokio::spawn(watch_memory(server.pid(), Arc::clone(&over)));
    let shape = Shape {
        channels: 16,
        seconds: 2,
        pause: Duration::ZERO,
    };
    let load = Load::start(&server, &session, clients, shape);
    tokio::time::sleep(by_form(Duration::from_secs(5), Duration::from_secs(60))).await;
    let told = load.stop().await;
    over.store(true, Ordering::Relaxed);
    let most = memory.await.unwrap();
    println!(
        "{clients} clients: {} reads, {} failed, p99 {:?}, longest {:?}, {} MiB of memory at most",
        told.times.len(),
        told.failures.len(),
        told.p99(),
        told.longest(),
        most / MIB
    );
    told.assert_well(clients);
    let allowed = cache_mb * MIB + clients as u64 * 256 * 1024 + 64 * MIB;
    assert!(most <= allowed, "{most} bytes, allowed are {allowed}");
    assert_nothing_is_held(server);
}

/// Memory at moments of a soak, in bytes and seconds.
struct Course(Vec<(f64, f64)>);

impl Course {
    /// Bytes an hour, by the straight line that fits best from a moment on.
    fn slope(&self, from_s: f64) -> f64 {
        let points: Vec<_> = self.0.iter().filter(|(at, _)| *at >= from_s).collect();
        let count = points.len() as f64;
        let mean = |value: fn(&(f64, f64)) -> f64| {
            points.iter().map(|point| value(point)).sum::<f64>() / count
        };
        let (time, memory) = (mean(|point| point.0), mean(|point| point.1));
        let (mut both, mut square) = (0.0, 0.0);
        for (at, bytes) in points {
            both += (at - time) * (bytes - memory);
            square += (at - time).powi(2);
        }
        both / square * 3600.0
    }
}

/// Opens and closes a session, drops reads half way, and never reads others to the
/// end, until told to stop.
async fn be_a_nuisance(
    address: std::net::SocketAddr,
    session: KnownSession,
    over: Arc<AtomicBool>,
) -> u64 {
    let mut rounds = 0;
    while !over.load(Ordering::Relaxed) {
        let mut client = Client::with_open(address, &session).await;
        let mut dropped = client.start(&session, &session.all()).await;
        dropped.take().await.unwrap();
        drop(dropped);
        let ignored = client.start(&session, &session.all()).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        drop(ignored);
        client.close(&session.key()).await;
        rounds += 1;
    }
    rounds
}

#[tokio::test(flavor = "multi_thread")]
async fn a_soak_under_kills_leaks_nothing() {
    let length = by_form(Duration::from_secs(15), Duration::from_secs(3600));
    let settled = length / 6;
    let session = Arc::new(KnownSession::write(16, 1000, 256));
    let server = Launch::new().env("MEF3_SERVER_CACHE_SIZE_MB", "8").start();
    server.workers_up(2);
    let before = descriptors(server.pid());
    let over = Arc::new(AtomicBool::new(false));
    let nuisance = tokio::spawn(be_a_nuisance(
        server.address,
        KnownSession::write(4, 1000, 60),
        Arc::clone(&over),
    ));
    let short = Shape {
        channels: 4,
        seconds: 2,
        pause: Duration::from_millis(5),
    };
    let long = Shape {
        channels: 16,
        seconds: 60,
        pause: Duration::from_millis(100),
    };
    let loads = [
        Load::start(&server, &session, 12, short),
        Load::start(&server, &session, 4, long),
    ];
    let begun = Instant::now();
    let mut course = Course(Vec::new());
    let mut kills = 0;
    while begun.elapsed() < length {
        tokio::time::sleep(Duration::from_secs(1)).await;
        course
            .0
            .push((begun.elapsed().as_secs_f64(), resident(server.pid()) as f64));
        if course.0.len().is_multiple_of(5)
            && let Some(worker) = server.workers().first()
        {
            signal(worker.pid, Signal::KILL);
            kills += 1;
        }
    }
    over.store(true, Ordering::Relaxed);
    let mut reads = 0;
    for load in loads {
        let told = load.stop().await;
        told.assert_well(10);
        reads += told.times.len();
    }
    let rounds = nuisance.await.unwrap();
    let slope = course.slope(settled.as_secs_f64());
    println!(
        "soak of {length:?}: {reads} reads, {rounds} nuisances, {kills} kills, memory {:.1} MiB at \
         the end, slope {:.2} MiB an hour",
        course.0.last().unwrap().1 / MIB as f64,
        slope / MIB as f64
    );
    if by_form(false, true) {
        assert!(slope <= MIB as f64, "{slope} bytes an hour");
    }
    server.workers_up(2);
    until("descriptors are as before", LIMIT, || {
        descriptors(server.pid()).abs_diff(before) <= 5
    });
    let zombies = children(server.pid());
    assert!(
        zombies.iter().all(|child| child.state != 'Z'),
        "{zombies:?}"
    );
    assert_nothing_is_held(server);
}

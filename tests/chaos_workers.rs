//! Workers that crash, hang, lie and are killed under many readers: no read fails
//! that need not, and none is wrong.
//!
//! The long form:
//! `MEF3_LONG=1 cargo test --release --test chaos_workers -- --test-threads=1 --nocapture`

mod common;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::chaos::{Load, Shape, Told, by_form, end_cleanly, is_long, mend, spoil};
use common::process::client::Client;
use common::process::session::KnownSession;
use common::process::{LIMIT, Launch, Process, Server, until};
use rustix::process::{Pid, Signal, kill_process};

/// What a storm may make of the 99th percentile, and what one bad page may.
const STORM_FACTOR: f64 = 5.0;
const POISON_FACTOR: f64 = 1.5;

/// Sixteen times what the cache holds.
fn session() -> Arc<KnownSession> {
    Arc::new(KnownSession::write(16, 1000, 256))
}

/// Default settings, but for a cache that is smaller than the session.
fn launch() -> Launch {
    Launch::new().env("MEF3_SERVER_CACHE_SIZE_MB", "1")
}

const WINDOWS: Shape = Shape {
    channels: 8,
    seconds: 10,
    pause: Duration::ZERO,
};

fn clients() -> usize {
    by_form(8, 64)
}

/// Holds what was met in trouble against what was met without.
fn compare(what: &str, quiet: &Told, trouble: &Told, factor: f64) {
    let (before, after) = (quiet.p99(), trouble.p99());
    println!(
        "{what}: {} reads, {} failed, p99 {before:?} when quiet, {after:?} in trouble, longest {:?}",
        trouble.times.len(),
        trouble.failures.len(),
        trouble.longest(),
    );
    if is_long() {
        let limit = before.mul_f64(factor);
        assert!(after <= limit, "{what}: p99 {after:?}, at most {limit:?}");
    }
}

/// It may have just been ended.
fn send(worker: &Process, signal: Signal) -> bool {
    let pid = Pid::from_raw(worker.pid.try_into().unwrap()).unwrap();
    kill_process(pid, signal).is_ok()
}

/// Makes trouble again and again; how often it was made.
async fn trouble(length: Duration, pause: Duration, mut make: impl FnMut() -> usize) -> usize {
    let began = Instant::now();
    let mut made = 0;
    while began.elapsed() < length {
        made += make();
        tokio::time::sleep(pause).await;
    }
    made
}

async fn quiet(server: &Server, session: &Arc<KnownSession>) -> Told {
    let length = Duration::from_secs(by_form(2, 30));
    let quiet = Load::start(server, session, clients(), WINDOWS);
    let quiet = quiet.goes_on(length).await;
    quiet.assert_well(clients());
    quiet
}

/// Between two kills of a storm.
const STORM_PAUSE: Duration = Duration::from_millis(200);

/// Kills a random worker all the time, under readers. How often one was killed, and
/// how often all slots were at rest at once, so that the server read by itself.
async fn storm(what: &str, launch: Launch, length: Duration) -> (usize, usize) {
    let session = session();
    let server = launch.start();
    let before = quiet(&server, &session).await;
    let load = Load::start(&server, &session, clients(), WINDOWS);
    let mut random = fastrand::Rng::with_seed(5);
    let kills = trouble(length, STORM_PAUSE, || {
        let workers = server.workers();
        let victim = random.choice(&workers);
        victim.map_or(0, |victim| usize::from(send(victim, Signal::KILL)))
    });
    let kills = kills.await;
    let told = load.stop().await;
    let rests = server.records_of("worker slot rests").len();
    let returns = server.records_of("worker processes read again").len();
    println!("{what}: {kills} kills, slots rested {rests} times, {returns} returns to workers");
    compare(what, &before, &told, STORM_FACTOR);
    told.assert_well(clients());
    let alone = server
        .records_of("no worker can run: reads are decoded in the server process")
        .len();
    end_cleanly(server);
    (kills, alone)
}

/// Workers read all the while: that kills have an end by default, after which the server
/// reads by itself, would leave most of the storm to it.
#[tokio::test(flavor = "multi_thread")]
async fn random_workers_are_killed_all_the_time() {
    let length = Duration::from_secs(by_form(5, 600));
    let launch = launch().env("MEF3_SERVER_WORKERS_RESTART_BUDGET", "1000000");
    let (kills, alone) = storm("random kills", launch, length).await;
    let most = length.as_millis() / STORM_PAUSE.as_millis();
    assert!(kills as u128 >= most / 2, "{kills} of {most} kills");
    assert_eq!(alone, 0, "the server has read by itself");
}

/// By default the restarts are spent after some seconds: the server reads by itself,
/// until the slots have rested.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_that_spends_the_restarts_is_weathered_by_the_server() {
    let length = Duration::from_secs(by_form(10, 120));
    let (kills, alone) = storm("kills until nobody is left", launch(), length).await;
    // Ten restarts of each slot, and the one after them.
    assert!(kills >= 22, "{kills} kills");
    assert!(alone > 0, "there was always a worker");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_workers_are_killed_at_once_again_and_again() {
    let session = session();
    let server = launch().start();
    let before = quiet(&server, &session).await;
    let (length, pause) = by_form((6, 2), (600, 5));
    let load = Load::start(&server, &session, clients(), WINDOWS);
    let length = Duration::from_secs(length);
    let kills = trouble(length, Duration::from_secs(pause), || {
        let workers = server.workers().into_iter();
        workers.filter(|worker| send(worker, Signal::KILL)).count()
    });
    let kills = kills.await;
    let told = load.stop().await;
    println!("{kills} kills");
    compare("all killed", &before, &told, STORM_FACTOR);
    told.assert_well(clients());
    assert!(kills >= 6, "{kills} kills");
    end_cleanly(server);
}

/// A stopped worker is one that hangs.
#[tokio::test(flavor = "multi_thread")]
async fn workers_are_stopped_again_and_again() {
    let session = session();
    let stall_limit = Duration::from_secs(1);
    let server = launch()
        .env("MEF3_SERVER_WORKERS_STALL_LIMIT_S", "1")
        .start();
    server.workers_up(2);
    let length = Duration::from_secs(by_form(10, 300));
    // Short reads, so that what they take is the stall.
    let shape = Shape {
        channels: 2,
        seconds: 4,
        pause: Duration::from_millis(5),
    };
    let load = Load::start(&server, &session, 8, shape);
    let mut random = fastrand::Rng::with_seed(5);
    let stops = trouble(length, Duration::from_secs(2), || {
        let workers = server.workers();
        let victim = random.choice(&workers);
        victim.map_or(0, |victim| usize::from(send(victim, Signal::STOP)))
    });
    let stops = stops.await;
    let told = load.stop().await;
    let (longest, limit) = (told.longest(), stall_limit + Duration::from_secs(1));
    println!(
        "stopped workers: {} reads, {} failed, {stops} stops, longest {longest:?} of {limit:?}",
        told.times.len(),
        told.failures.len()
    );
    told.assert_well(8);
    assert!(stops >= 4, "{stops} stops");
    assert!(longest <= limit, "{longest:?}");
    let noticed = server.records_of("worker makes no progress").len();
    assert!(
        noticed >= stops / 2,
        "{noticed} of {stops} stops were noticed"
    );
    end_cleanly(server);
}

/// One page crashes its workers, hangs them, or eats their memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_poisonous_page_costs_two_workers_and_nobody_else() {
    let good = session();
    let shape = Shape {
        pause: Duration::from_millis(20),
        ..WINDOWS
    };
    let server = launch()
        .env("MEF3_SERVER_WORKERS_STALL_LIMIT_S", "1")
        .start();
    server.workers_up(2);
    let length = Duration::from_secs(by_form(1, 30));
    let quiet = Load::start(&server, &good, 4, shape).goes_on(length).await;
    for poison in ["abort", "loop", "bomb"] {
        let bad = KnownSession::write(2, 256, 20);
        let mut client = Client::with_open(server.address, &bad).await;
        let gone = || server.records_of("worker is gone").len();
        let before = gone();
        let load = Load::start(&server, &good, 4, shape);
        spoil(
            &bad.path,
            &format!("do {poison}\nchannel ch 000\nblocks 0..1"),
        );
        let began = Instant::now();
        let error = client.read(&bad, &bad.all()).await.unwrap_err();
        let took = began.elapsed();
        for part in [
            bad.key().as_str(),
            "channel ch 000",
            "blocks from 0",
            "ended 2 workers",
        ] {
            assert!(error.contains(part), "{poison}: {error}");
        }
        // The log comes by another way than the answer.
        until("the log has both deaths", LIMIT, || gone() >= before + 2);
        assert_eq!(gone(), before + 2, "{poison}");
        // Refused without costing anybody anything, and so is nothing else of it.
        assert_eq!(client.read(&bad, &bad.all()).await.unwrap_err(), error);
        client.read_right(&bad, &bad.span(1..2, 0, 20)).await;
        let told = load.goes_on(length).await;
        compare(
            &format!("beside {poison} ({took:?})"),
            &quiet,
            &told,
            POISON_FACTOR,
        );
        told.assert_well(4);
        assert_eq!(gone(), before + 2, "{poison}");

        // Another file in its place is another page.
        mend(&bad.path);
        let channel = bad.path.join("ch 000.timd/ch 000-000000.segd");
        let data = channel.join("ch 000-000000.tdat");
        let copy = channel.join("copy");
        fs::copy(&data, &copy).unwrap();
        fs::rename(copy, data).unwrap();
        let began = Instant::now();
        let mut read = client.read(&bad, &bad.all()).await;
        while read.is_err() && began.elapsed() < LIMIT {
            tokio::time::sleep(Duration::from_millis(20)).await;
            read = client.read(&bad, &bad.all()).await;
        }
        let forgotten = began.elapsed();
        println!("{poison}: forgotten {forgotten:?} after the file was replaced");
        common::process::session::assert_same(&read.unwrap(), &bad.expected(&bad.all()));
        // Known to be another after one look.
        assert!(forgotten < Duration::from_secs(3), "{forgotten:?}");
        client.close(&bad.key()).await;
    }
    end_cleanly(server);
}

/// What a worker can say of pages that the server can see through.
const LIES: [&str; 8] = [
    "job", "page", "blocks", "samples", "time", "payload", "done", "kind",
];
/// The same of an opening.
const OPENING_LIES: [&str; 3] = ["identity", "recording", "job"];
/// The same of what is new in a session.
const NEWS_LIES: [&str; 1] = ["news"];

#[tokio::test(flavor = "multi_thread")]
async fn a_lie_costs_its_worker_and_the_read_a_retry() {
    let server = launch()
        .env("MEF3_SERVER_PREFETCH_MAX_MB", "0")
        .arg("--workers=1")
        // There are more lies here than a slot has restarts.
        .env("MEF3_SERVER_WORKERS_RESTART_BUDGET", "1000")
        .env("MEF3_SERVER_WORKERS_RESTART_BACKOFF_MAX_MS", "20")
        // Each read looks for news.
        .env("MEF3_SERVER_LIVE_STALENESS_MS", "0")
        .start();
    for (lie, at) in LIES
        .map(|lie| (lie, "page"))
        .into_iter()
        .chain(OPENING_LIES.map(|lie| (lie, "open")))
        .chain(NEWS_LIES.map(|lie| (lie, "refresh")))
    {
        let session = KnownSession::write(2, 256, 20);
        let mut client = Client::connect(server.address).await;
        if at != "open" {
            client.open(&session.key()).await.unwrap();
        }
        let liar = server.workers_up(1)[0].pid;
        let lied = || {
            let gone = server.records_of("worker is gone").into_iter();
            let cause = |it: &serde_json::Value| it["cause"].as_str().unwrap().to_owned();
            gone.filter(|it| cause(it).contains("worker lied")).count()
        };
        let before = lied();
        // Told once: whoever comes after the liar is honest.
        spoil(
            &session.path,
            &format!("do lie {lie}\nat {at}\nblocks 0..1\npid {liar}"),
        );
        if at == "open" {
            client.open(&session.key()).await.unwrap();
        }
        client.read_right(&session, &session.all()).await;
        println!("lie about {lie}, once: read right");
        until("the liar is gone", LIMIT, || lied() == before + 1);
        spoil(
            &session.path,
            &format!("do lie {lie}\nat {at}\nblocks 0..1"),
        );
        client.close(&session.key()).await;
        let opened = client.open(&session.key()).await;
        let error = match opened {
            Err(error) => error,
            Ok(_) => {
                let page = session.span(0..1, 0, 20);
                client.read(&session, &page).await.unwrap_err()
            }
        };
        let place = if at == "page" {
            "blocks from 0"
        } else {
            "opening it"
        };
        for part in [session.key().as_str(), place, "ended 2 workers"] {
            assert!(error.contains(part), "{lie} at {at}: {error}");
        }
        println!("lie about {lie}, always: {error}");
        until("all liars are gone", LIMIT, || lied() == before + 3);
    }
    end_cleanly(server);
}

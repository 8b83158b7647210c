//! Connections: slow, half-open, too many, or more than the system has
//! descriptors for.

use std::time::{Duration, Instant};

use mef3_server::grpc::proto::SignalRangeRequest;
use rustix::process::{Pid, Resource, getrlimit, prlimit, setrlimit};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

use super::common::process::client::{Client, soon};
use super::common::process::session::KnownSession;
use super::common::process::{LIMIT, Launch, Server, descriptors, resident, until};
use super::load::{FastReaders, cpu_time, p99};
use super::peers::{Greeting, Pace, half_open, slow_client};
use super::{cuts, end_cleanly, is_long, launch, session};

/// After so long slow readers have got what they take at once, as fast as any.
const SETTLING: Duration = Duration::from_secs(3);

/// Lets this program have as many descriptors as it may.
fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// The server's descriptors with its workers up and nobody connected.
async fn baseline(server: &Server, session: &KnownSession) -> usize {
    server.workers_up(2);
    let mut client = Client::with_open(server.address, session).await;
    client.read_right(session, &session.all()).await;
    drop(client);
    let mut baseline = descriptors(server.pid());
    // Until the client is gone, and the workers have opened what they read.
    let mut same = 0;
    until("the descriptors settle", LIMIT, || {
        std::thread::sleep(Duration::from_millis(50));
        let now = descriptors(server.pid());
        same = if now == baseline { same + 1 } else { 0 };
        baseline = now;
        same >= 10
    });
    baseline
}

/// Connects as soon as there is room, which is within a second.
async fn connect_soon(server: &Server, session: &KnownSession) -> Client {
    let began = Instant::now();
    loop {
        let connected = Client::try_connect(server.address).await;
        if let Ok(mut client) = connected
            && client.try_open(&session.key()).await.is_ok()
        {
            return client;
        }
        assert!(began.elapsed() < Duration::from_secs(1), "no room");
    }
}

/// Reads everything at a kilobyte a second, until the server ends it.
async fn read_slowly(server: std::net::SocketAddr, session: &KnownSession) -> String {
    let pace = Pace {
        sip: 1024,
        pause: Duration::from_secs(1),
    };
    let mut client = slow_client(server, pace).await;
    let all = session.all();
    let request = SignalRangeRequest {
        file_path: session.key(),
        channel_names: all.names(),
        start_uutc: all.start(),
        end_uutc: all.end(),
        n_points: None,
    };
    let mut stream = match client.get_signal_range(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return status.to_string(),
    };
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("megabytes came by kilobytes"),
            Err(status) => return status.to_string(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_hold_up_nobody_and_are_cut() {
    raise_descriptors();
    let session = session();
    let (slow, fast, quiet) = match is_long() {
        // As long as the limits leave them all there.
        true => (200, 64, Duration::from_secs(18)),
        false => (20, 8, Duration::from_secs(1)),
    };
    let mut server = launch();
    if !is_long() {
        server = server
            .env("MEF3_SERVER_SERVER_KEEPALIVE_INTERVAL_S", "2")
            .env("MEF3_SERVER_SERVER_KEEPALIVE_LIMIT_S", "2")
            .env("MEF3_SERVER_SERVER_WRITE_STALL_LIMIT_S", "3");
    }
    let server = server.start();
    let before = baseline(&server, &session).await;

    let mut latencies = Vec::new();
    let (mut quiet_phases, mut loaded_phases) = (Vec::new(), Vec::new());
    let mut whole_phases = Vec::new();
    let mut most_memory = 0;
    let memory_before = resident(server.pid());
    // Quiet and loaded by turns, so that both meet the same machine.
    for _ in 0..if is_long() { 3 } else { 1 } {
        let readers = FastReaders::start(server.address, &session, fast);
        let began = Instant::now();
        tokio::time::sleep(quiet).await;
        quiet_phases.push(began..Instant::now());
        let began = Instant::now();
        let mut slow_readers = JoinSet::new();
        for _ in 0..slow {
            let (address, session) = (server.address, session.clone());
            slow_readers.spawn(async move { read_slowly(address, &session).await });
        }
        // As long as all of them are there.
        tokio::time::sleep(quiet).await;
        assert_eq!(slow_readers.len(), slow);
        loaded_phases.push(began + SETTLING..Instant::now());
        whole_phases.push(began..Instant::now());
        most_memory = most_memory.max(resident(server.pid()));
        // The limits, what a look adds, and what is on its way.
        let limit = Duration::from_secs(if is_long() { 75 } else { 15 });
        let ended = tokio::time::timeout(limit, slow_readers.join_all()).await;
        let took = began.elapsed();
        assert_eq!(ended.expect("slow readers are left").len(), slow);
        println!("{slow} slow readers are cut within {took:?}");
        latencies.extend(readers.finish().await);
    }
    until("the descriptors come back", LIMIT, || {
        descriptors(server.pid()) <= before
    });
    assert!(!cuts(&server).is_empty());

    let grown = most_memory.saturating_sub(memory_before) >> 20;
    println!("{grown} MiB more memory with {slow} slow and {fast} fast readers");
    // Read ahead and two messages each; the rest is what the allocator keeps.
    let bound = (slow + fast) as u64 * 2 + 64;
    assert!(grown <= bound, "{grown} MiB are more than {bound}");
    if is_long() {
        let quiet = p99(&latencies, &quiet_phases);
        let whole = p99(&latencies, &whole_phases);
        let loaded = p99(&latencies, &loaded_phases);
        println!(
            "p99 of {} reads: quiet {quiet:?}, loaded {loaded:?}, with the start {whole:?}",
            latencies.len()
        );
        assert!(loaded <= quiet.mul_f64(1.2), "{loaded:?} against {quiet:?}");
    }
    end_cleanly(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_are_freed_while_others_are_served() {
    raise_descriptors();
    let session = session();
    let (count, limit) = match is_long() {
        true => (500, Duration::from_secs(30)),
        false => (50, Duration::from_secs(5)),
    };
    let mut server = launch();
    if !is_long() {
        server = server
            .env("MEF3_SERVER_SERVER_HANDSHAKE_LIMIT_S", "1")
            .env("MEF3_SERVER_SERVER_KEEPALIVE_INTERVAL_S", "1")
            .env("MEF3_SERVER_SERVER_KEEPALIVE_LIMIT_S", "1");
    }
    let server = server.start();
    let before = baseline(&server, &session).await;
    let began = Instant::now();
    let mut connections = Vec::new();
    for greeting in Greeting::ALL.into_iter().cycle().take(count) {
        connections.push(half_open(server.address, greeting).await);
    }
    until("all are taken", LIMIT, || {
        descriptors(server.pid()) >= before + count
    });
    let mut client = Client::with_open(server.address, &session).await;
    let mut reads = 0;
    while descriptors(server.pid()) > before + 1 {
        assert!(began.elapsed() < limit, "not within {limit:?}");
        client.read_right(&session, &session.all()).await;
        reads += 1;
    }
    println!(
        "{count} half-open connections are freed within {:?}, beside {reads} reads",
        began.elapsed()
    );
    for mut connection in connections {
        let mut rest = Vec::new();
        // Closed or reset, but not open.
        let _ = soon("the end", connection.read_to_end(&mut rest)).await;
    }
    // That client answers, and idles no shorter than the half-open ones did.
    tokio::time::sleep(began.elapsed()).await;
    client.read_right(&session, &session.all()).await;
    drop(client);
    until("the descriptors come back", LIMIT, || {
        descriptors(server.pid()) <= before
    });
    // The log has no room for each of them.
    assert!(cuts(&server).contains(&"no HTTP/2 was spoken".into()));
    end_cleanly(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let session = session();
    let server = launch().env("MEF3_SERVER_LIMITS_CONNECTIONS", "4").start();
    let mut client = Client::with_open(server.address, &session).await;
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(half_open(server.address, Greeting::Settings).await);
    }
    for _ in 0..20 {
        let mut refused = half_open(server.address, Greeting::Nothing).await;
        let began = Instant::now();
        let mut rest = Vec::new();
        // Closed, or reset where the greeting crossed it.
        let _ = soon("the end", refused.read_to_end(&mut rest)).await;
        assert_eq!(rest, b"");
        assert!(began.elapsed() < Duration::from_secs(1));
    }
    client.read_right(&session, &session.all()).await;
    until("the log has it", LIMIT, || {
        !server.records_of("connection is refused").is_empty()
    });
    let refused = server.records_of("connection is refused");
    assert_eq!(refused[0]["limit"], 4);
    assert!(refused.len() <= 10, "{} lines", refused.len());

    // There is room as soon as one goes.
    drop(taken);
    connect_soon(&server, &session).await;
    end_cleanly(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn few_descriptors_mean_few_connections() {
    let session = session();
    let server = Launch::with_descriptors(650).start();
    let records = server.records();
    let fewer = "fewer connections are taken: the system grants too few descriptors";
    let warned = records.iter().find(|record| record["message"] == fewer);
    let room = warned.unwrap()["connections"].as_u64().unwrap();
    assert!((1..600).contains(&room), "{room}");
    let mut connections = Vec::new();
    for _ in 0..room + 20 {
        connections.push(half_open(server.address, Greeting::Settings).await);
    }
    server.logged("connection is refused");
    drop(connections);
    let mut client = connect_soon(&server, &session).await;
    client.read_right(&session, &session.all()).await;
    assert!(server.records_of("no connection can be taken").is_empty());
    end_cleanly(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_descriptors_goes_on_and_takes_connections_again() {
    let session = session();
    let server = launch().start();
    let before = baseline(&server, &session).await;
    let mut client = Client::with_open(server.address, &session).await;
    client.read_right(&session, &session.all()).await;

    let pid = Pid::from_raw(server.pid().try_into().unwrap());
    let mut limit = prlimit(pid, Resource::Nofile, getrlimit(Resource::Nofile)).unwrap();
    limit.current = Some(before as u64 + 10);
    prlimit(pid, Resource::Nofile, limit).unwrap();
    let mut connections = Vec::new();
    for _ in 0..40 {
        connections.push(half_open(server.address, Greeting::Settings).await);
    }
    server.logged("no connection can be taken");
    // The one that is there is served.
    client.read_right(&session, &session.all()).await;
    let (spent, began) = (cpu_time(server.pid()), Instant::now());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let share = (cpu_time(server.pid()) - spent).as_secs_f64() / began.elapsed().as_secs_f64();
    println!("without descriptors, {:.1} % of a core", share * 100.0);
    assert!(share < 0.1, "{share} of a core for nothing");
    assert!(server.records_of("no connection can be taken").len() <= 10);

    drop(connections);
    let began = Instant::now();
    let mut late = Client::with_open(server.address, &session).await;
    late.read_right(&session, &session.span(0..16, 0, 10)).await;
    let took = began.elapsed();
    println!("a connection is taken again after {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    client.read_right(&session, &session.all()).await;
    end_cleanly(server);
}

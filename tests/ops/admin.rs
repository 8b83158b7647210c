//! The admin port: what it answers, and that it does.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::common::process::client::Client;
use super::common::process::session::KnownSession;
use super::common::process::{LIMIT, Launch, until};
use super::{Admin, launch};

#[test]
fn it_is_off_unless_it_is_asked_for() {
    let server = Launch::new().start();
    server.workers_up(2);
    assert_eq!(server.records_of("admin port is open").len(), 0);
}

#[test]
fn workers_are_shown() {
    let server = launch().start();
    let admin = Admin::of(&server);
    let up = server.workers_up(2);
    let answer = admin.get("/workers");
    assert_eq!(answer.status, 200);
    assert!(answer.headers.contains("application/json"), "{answer:?}");
    let shown: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(shown["in_process"], false);
    let workers = shown["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 2);
    for (slot, worker) in workers.iter().enumerate() {
        assert_eq!(worker["slot"], slot);
        assert_eq!(worker["state"], "ready");
        assert_eq!(worker["restarts"], 0);
        assert!(worker["jobs"].is_u64());
        assert!(worker["memory_bytes"].as_u64().unwrap() > 100_000);
        assert!(up.iter().any(|it| worker["pid"] == it.pid), "{worker}");
    }
}

#[test]
fn the_level_of_the_log_is_changed_while_the_server_runs() {
    let server = launch().start();
    let admin = Admin::of(&server);
    assert_eq!(admin.get("/log-level").body, "info\n");
    for level in ["debug", "off", "error", "warn", "trace", "info"] {
        let answer = admin.ask("PUT", "/log-level", level).unwrap();
        assert_eq!((answer.status, answer.body), (200, format!("{level}\n")));
        assert_eq!(admin.get("/log-level").body, format!("{level}\n"));
    }
    for nonsense in ["", "loud", "5", "mef3_server=debug"] {
        let answer = admin.ask("PUT", "/log-level", nonsense).unwrap();
        assert_eq!(answer.status, 400, "{nonsense}");
    }
    let long = "x".repeat(10_000);
    assert_eq!(admin.ask("PUT", "/log-level", &long).unwrap().status, 413);
    assert_eq!(admin.get("/log-level").body, "info\n");
}

#[test]
fn what_it_does_not_know_is_refused() {
    let server = launch().start();
    let admin = Admin::of(&server);
    assert_eq!(admin.get("/").status, 404);
    assert_eq!(admin.get("/metrics/../etc/passwd").status, 404);
    let answer = admin.ask("POST", "/log-level", "debug").unwrap();
    assert_eq!(answer.status, 405);
    assert!(answer.headers.contains("allow: get, put"), "{answer:?}");
    assert_eq!(admin.ask("PUT", "/metrics", "").unwrap().status, 405);
    let header = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    // The server may hang up while this is still being sent.
    let refused = admin.send(&header).map_or(431, |answer| answer.status);
    assert_eq!(refused, 431);
    assert_eq!(admin.get("/livez").status, 200);
}

#[test]
fn clients_that_say_nothing_do_not_keep_it() {
    let server = launch().start();
    let admin = Admin::of(&server);
    let silent: Vec<TcpStream> = (0..40)
        .map(|_| TcpStream::connect(admin.0).unwrap())
        .collect();
    until("it answers again", LIMIT, || {
        let answer = admin.ask("GET", "/livez", "");
        answer.is_ok_and(|answer| answer.status == 200)
    });
    drop(silent);
}

/// The data port has no place left, its workers and its threads have more to do than
/// they can, and nobody takes what they make.
#[tokio::test(flavor = "multi_thread")]
async fn it_answers_while_the_data_port_is_saturated() {
    let session = KnownSession::write(32, 1000, 120);
    let server = launch()
        .env("MEF3_SERVER_LIMITS_CONNECTIONS", "24")
        .env("MEF3_SERVER_CACHE_SIZE_MB", "1")
        .env("MEF3_SERVER_HEALTH_PROBE_LIMIT_S", "10")
        .start();
    let admin = Admin::of(&server);
    admin.wait_for_readiness(200);
    let mut busy = Vec::new();
    let mut stuck = Vec::new();
    for _ in 0..8 {
        let mut client = Client::with_open(server.address, &session).await;
        stuck.push(client.start(&session, &session.all()).await);
        let (server, span) = (server.address, session.all());
        let mut reader = Client::connect(server).await;
        let mut reading = reader.start(&session, &span).await;
        busy.push(tokio::spawn(async move {
            while reading.take().await? {}
            Ok::<_, String>(())
        }));
    }
    let mut idle = Vec::new();
    let refused = || {
        let text = admin.get("/metrics").body;
        let line = text
            .lines()
            .find(|line| line.starts_with("mef3_connections_refused_total"));
        line.is_some_and(|line| !line.ends_with(" 0"))
    };
    until("connections are refused", LIMIT, || {
        idle.push(TcpStream::connect(server.address));
        refused()
    });
    let mut slowest = Duration::ZERO;
    for path in ["/livez", "/readyz", "/metrics", "/workers", "/log-level"].repeat(8) {
        let asked = Instant::now();
        let answer = admin.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        slowest = slowest.max(asked.elapsed());
    }
    println!("the slowest answer took {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    for reading in busy {
        reading.await.unwrap().unwrap();
    }
}

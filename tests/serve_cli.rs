//! The server as an operator meets it: how it starts, what it says when it
//! cannot, and how it ends.

mod common;

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::process::client::Client;
use common::process::session::{KnownSession, assert_same};
use common::process::{Ended, LIMIT, Launch, Server, all_gone, signal, until};
use rustix::process::Signal;

/// Time that an end may take beyond the grace.
const CUT: Duration = Duration::from_secs(1);

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Checks for one line on standard error that names what is wrong, a failure,
/// and nothing left.
fn assert_refused(ended: &Ended, parts: &[&str]) {
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    let lines: Vec<&str> = ended.stderr.lines().collect();
    let [line] = *lines else {
        panic!("not one line: {lines:#?}");
    };
    assert!(line.starts_with("mef3-server: "), "{line}");
    for part in parts {
        assert!(line.contains(part), "no {part} in: {line}");
    }
    assert_eq!(ended.stdout, "");
    assert_eq!(common::process::entries(ended.temporary.path()), [""; 0]);
}

/// Ends the server by a signal, and checks that it ends in time and wholly.
fn assert_ends(mut server: Server, with: Signal, limit: Duration) {
    let workers = server.workers();
    let began = Instant::now();
    server.signal(with);
    let status = server.wait(LIMIT);
    let took = began.elapsed();
    assert_eq!(status.code(), Some(0), "{:#?}", server.records());
    assert!(took <= limit, "{took:?}");
    assert!(all_gone(&workers), "{workers:?} outlive the server");
    assert_eq!(server.left_behind(), [""; 0]);
    assert_eq!(server.records_of("ended").len(), 1);
}

#[test]
fn a_port_in_use_is_one_clear_line() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = Launch::command(["serve", "--listen", &address]).run();
    assert_refused(&ended, &[&address, "in use"]);
}

#[test]
fn a_second_server_on_the_port_is_refused() {
    let first = Launch::new().start();
    let address = first.address.to_string();
    let ended = Launch::command(["serve", "--listen", &address]).run();
    assert_refused(&ended, &[&address, "in use"]);
}

#[test]
fn both_signals_end_an_idle_server_at_once() {
    for with in [Signal::TERM, Signal::INT] {
        let server = Launch::new().start();
        server.workers_up(2);
        assert_ends(server, with, CUT);
    }
}

#[test]
fn a_signal_right_after_the_start_ends_the_server() {
    for with in [Signal::TERM, Signal::INT] {
        assert_ends(Launch::new().start(), with, CUT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_stay_connected_do_not_delay_the_end() {
    let session = KnownSession::write(2, 256, 10);
    let server = Launch::new().start();
    let mut client = Client::with_open(server.address, &session).await;
    client.read_right(&session, &session.all()).await;
    assert_ends(server, Signal::TERM, CUT);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_under_way_finishes_within_the_grace() {
    let session = KnownSession::write(32, 1000, 120);
    let mut server = Launch::new()
        .env("MEF3_SERVER_SERVER_SHUTDOWN_GRACE_S", "20")
        .start();
    let mut client = Client::with_open(server.address, &session).await;
    let mut reading = client.start(&session, &session.all()).await;
    assert!(reading.take().await.unwrap());
    server.signal(Signal::TERM);
    server.logged("ending");
    // Nothing new is taken.
    until("the port is closed", LIMIT, || {
        TcpStream::connect(server.address).is_err()
    });
    let rows = reading.finish().await.unwrap();
    assert_same(&rows, &session.expected(&session.all()));
    assert_eq!(server.wait(LIMIT).code(), Some(0));
    assert_eq!(
        server
            .records_of("connections are cut at the end of the grace")
            .len(),
        0
    );
    assert_eq!(server.left_behind(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stops_reading_is_cut_at_the_end_of_the_grace() {
    let session = KnownSession::write(32, 1000, 120);
    let server = Launch::new()
        .env("MEF3_SERVER_SERVER_SHUTDOWN_GRACE_S", "1")
        .start();
    let mut client = Client::with_open(server.address, &session).await;
    let mut reading = client.start(&session, &session.all()).await;
    assert!(reading.take().await.unwrap());
    server.workers_up(2);
    assert_ends(server, Signal::TERM, Duration::from_secs(1) + CUT);
    // What is cut must not look complete.
    assert!(reading.finish().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_grace() {
    let session = KnownSession::write(32, 1000, 120);
    let server = Launch::new()
        .env("MEF3_SERVER_SERVER_SHUTDOWN_GRACE_S", "60")
        .start();
    let mut client = Client::with_open(server.address, &session).await;
    let mut reading = client.start(&session, &session.all()).await;
    assert!(reading.take().await.unwrap());
    server.signal(Signal::INT);
    server.logged("ending");
    assert_ends(server, Signal::INT, CUT);
    assert!(reading.finish().await.is_err());
}

#[test]
fn a_program_that_was_built_for_tests_says_so() {
    let server = Launch::new()
        .env("MEF3_SERVER_LOG_LEVEL", "error")
        .start_plain();
    let told = |record: &serde_json::Value| record.to_string().contains("built for tests");
    until("it is said", LIMIT, || server.records().iter().any(told));
}

#[test]
fn a_host_root_that_is_not_there_is_said() {
    let root = tempfile::tempdir().unwrap().path().join("gone");
    let server = Launch::new().arg("--host-root").arg(&root).start();
    let told = server.records_of("no such folder: clients will find nothing");
    assert_eq!(told.len(), 1, "{:#?}", server.records());
    assert_eq!(told[0]["host_root"], root.to_str().unwrap());
}

#[test]
fn a_connection_that_says_nothing_is_cut_at_the_end_of_the_grace() {
    let server = Launch::new()
        .env("MEF3_SERVER_SERVER_SHUTDOWN_GRACE_S", "1")
        .start();
    let mut silent = TcpStream::connect(server.address).unwrap();
    server.workers_up(2);
    assert_ends(server, Signal::TERM, Duration::from_secs(1) + CUT);
    silent.set_read_timeout(Some(LIMIT)).unwrap();
    // The server's greeting may be there; after it comes the end.
    let mut rest = Vec::new();
    match silent.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_hang_do_not_delay_the_end() {
    let session = KnownSession::write(32, 1000, 10);
    let server = Launch::new()
        .env("MEF3_SERVER_SERVER_SHUTDOWN_GRACE_S", "1")
        .start();
    let mut client = Client::with_open(server.address, &session).await;
    for worker in server.workers_up(2) {
        signal(worker.pid, Signal::STOP);
    }
    let reading = client.start(&session, &session.all()).await;
    assert_ends(server, Signal::TERM, Duration::from_secs(1) + CUT);
    assert!(reading.finish().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_grace_everything_is_cut_at_once() {
    let session = KnownSession::write(32, 1000, 120);
    let server = Launch::new()
        .env("MEF3_SERVER_SERVER_SHUTDOWN_GRACE_S", "0")
        .start();
    let mut client = Client::with_open(server.address, &session).await;
    let mut reading = client.start(&session, &session.all()).await;
    assert!(reading.take().await.unwrap());
    assert_ends(server, Signal::TERM, CUT);
    assert!(reading.finish().await.is_err());
}

#[test]
fn an_unknown_key_of_the_configuration_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("server.toml");
    fs::write(&file, "[cache]\nsize_md = 5\n").unwrap();
    let file = file.to_str().unwrap();
    let ended = Launch::command(["serve", "--config", file]).run();
    assert_refused(&ended, &[file, "size_md", "size_mb"]);
}

#[test]
fn a_bad_value_in_the_configuration_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("server.toml");
    fs::write(&file, "[workers]\nmin = \"many\"\n").unwrap();
    let file = file.to_str().unwrap();
    let ended = Launch::command(["serve", "--config", file]).run();
    assert_refused(&ended, &[file, "workers.min"]);
}

#[test]
fn a_missing_configuration_file_is_named() {
    let ended = Launch::command(["serve", "--config", "/nowhere/server.toml"]).run();
    assert_refused(&ended, &["/nowhere/server.toml"]);
}

#[test]
fn a_bad_variable_is_named() {
    for (name, value) in [
        ("MEF3_SERVER_CACHE_SIZE_MB", "plenty"),
        ("MEF3_SERVER_CACHE_SIZE", "5"),
        ("MEF3_SERVER_SERVER_LISTEN", "localhost"),
        ("PORT", "http"),
        ("N_PROCESS_WORKERS", "-1"),
        ("RUST_LOG", "mef3=loud"),
    ] {
        let ended = Launch::command(["serve"]).env(name, value).run();
        assert_refused(&ended, &[name]);
    }
}

#[test]
fn a_bad_flag_is_named() {
    let ended = Launch::command(["serve", "--workers", "5000"]).run();
    assert_refused(&ended, &["--workers: ", "workers.min", "5000"]);
}

#[test]
fn the_configuration_file_is_honoured() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("server.toml");
    let port = free_port();
    let text = format!("[server]\nlisten = \"127.0.0.1:{port}\"\n[workers]\nmin = 3\n");
    fs::write(&file, text).unwrap();
    let server = Launch::command(["serve", "--config", file.to_str().unwrap()]).start();
    assert_eq!(server.address, SocketAddr::from(([127, 0, 0, 1], port)));
    server.workers_up(3);
    assert_ends(server, Signal::TERM, CUT);
}

#[test]
fn variables_go_over_the_file_and_flags_over_both() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("server.toml");
    fs::write(
        &file,
        "[server]\nlisten = \"127.0.0.1:1\"\n[workers]\nmin = 4\n",
    )
    .unwrap();
    let server = Launch::command(["serve", "--config", file.to_str().unwrap()])
        .env("MEF3_SERVER_SERVER_LISTEN", "127.0.0.2:0")
        .env("MEF3_SERVER_WORKERS_MIN", "3")
        .arg("--workers")
        .arg("1")
        .start();
    assert_eq!(server.address.ip().to_string(), "127.0.0.2");
    server.workers_up(1);
    assert_eq!(server.records_of("worker is up").len(), 1);
}

#[test]
fn the_variables_of_the_older_servers_are_honoured() {
    let port = free_port();
    let server = Launch::command(["serve"])
        .env("PORT", port.to_string())
        .env("MEF3_SERVER_SERVER_INSECURE", "true")
        .env("N_PROCESS_WORKERS", "3")
        .env("CACHE_CAPACITY_MULTIPLIER", "10")
        .start();
    assert_eq!(server.address.port(), port);
    server.workers_up(3);
    let notice = |record: &serde_json::Value| {
        let message = record["message"].as_str().unwrap_or_default();
        record["level"] == "WARN" && message.contains("CACHE_CAPACITY_MULTIPLIER")
    };
    assert!(
        server.records().iter().any(notice),
        "{:#?}",
        server.records()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_workers_answers_from_its_own_process() {
    let session = KnownSession::write(2, 256, 10);
    let server = Launch::new().arg("--workers").arg("0").start();
    let mut client = Client::with_open(server.address, &session).await;
    client.read_right(&session, &session.all()).await;
    assert_eq!(common::process::children(server.pid()), []);
    assert_ends(server, Signal::TERM, CUT);
}

#[test]
fn the_demo_succeeds_and_leaves_nothing_behind() {
    let ended = Launch::command(["demo", "--once"]).run();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    // Cargo has made a program whose workers can be spoilt for these tests.
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert!(
        matches!(*lines, [line] if line.contains("built for tests")),
        "{lines:?}"
    );
    assert!(
        ended.stdout.contains("every sample as written"),
        "{}",
        ended.stdout
    );
    assert_eq!(common::process::entries(ended.temporary.path()), [""; 0]);
}

#[test]
fn the_demo_leaves_nothing_behind_whenever_it_is_interrupted() {
    for pause in [0, 100, 400, 1500] {
        let mut demo = Launch::command(["demo"]).own_group().start_plain();
        until("the demo begins", LIMIT, || !demo.left_behind().is_empty());
        std::thread::sleep(Duration::from_millis(pause));
        demo.signal_group(Signal::INT);
        let status = demo.wait(LIMIT);
        assert_eq!(
            status.code(),
            Some(0),
            "after {pause} ms: {:?}",
            demo.records()
        );
        assert_eq!(demo.left_behind(), [""; 0], "after {pause} ms");
    }
}

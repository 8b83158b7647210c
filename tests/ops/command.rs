//! `mef3-server health`, which asks a server whether it serves.

use std::net::TcpListener;

use super::common::certificates::{Authority, Files};
use super::common::process::{ClosedPort, Ended, LIMIT, Launch, until};
use super::{Admin, launch};

fn ask(address: &str, more: &[&str]) -> Ended {
    let launch = Launch::command(["health", address]);
    more.iter()
        .fold(launch, |launch, more| launch.arg(more))
        .run()
}

fn assert_refused(ended: &Ended, part: &str) {
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("does not serve"), "{}", ended.stderr);
    assert!(ended.stderr.contains(part), "no {part} in {}", ended.stderr);
}

#[test]
fn a_server_that_serves_is_told_from_one_that_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("mef3.sock");
    let server = launch()
        .env("MEF3_SERVER_SERVER_UNIX_SOCKET", &socket)
        .start();
    Admin::of(&server).wait_for_readiness(200);
    let address = server.address.to_string();
    let local = format!("unix:{}", socket.display());
    let names = [
        "readiness",
        "liveness",
        "gRPCMef3Server",
        "mef3.v1.RecordingService",
    ];
    for place in [&address, &local] {
        until("it serves", LIMIT, || ask(place, &[]).status.success());
        for name in names {
            let ended = ask(place, &["--service", name]);
            assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
            assert_eq!((ended.stdout, ended.stderr), (String::new(), String::new()));
        }
        assert_refused(&ask(place, &["--service", "nothing"]), "not registered");
    }
    let closed = ClosedPort::new();
    let ended = ask(&closed.address.to_string(), &[]);
    assert_refused(&ended, "no connection: ");
    assert_refused(&ended, "Connection refused");
}

#[test]
fn a_server_that_cannot_work_or_says_nothing_does_not_serve() {
    let server = launch()
        .env("TMPDIR", "/nonexistent")
        .env("MEF3_SERVER_WORKERS_SANDBOX", "required")
        .start();
    server.logged("the server is not ready");
    let address = server.address.to_string();
    assert_refused(&ask(&address, &[]), "NOT_SERVING");
    assert!(ask(&address, &["--service", "liveness"]).status.success());

    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = silent.local_addr().unwrap().to_string();
    assert_refused(
        &ask(&address, &["--limit-ms", "300"]),
        "no answer within 300ms",
    );
    assert_eq!(ask("localhost:1", &[]).status.code(), Some(2));
}

#[test]
fn a_server_that_encrypts_is_not_understood_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::write(folder.path(), &Authority::new().issue());
    let server = launch()
        .env("MEF3_SERVER_TLS_CERTIFICATE", files.certificate())
        .env("MEF3_SERVER_TLS_KEY", files.key())
        .start();
    let ended = ask(&server.address.to_string(), &[]);
    assert_refused(
        &ended,
        "does it encrypt? then ask it at its Unix domain socket",
    );
    assert!(
        !ended.stderr.contains("transport error"),
        "{}",
        ended.stderr
    );
}

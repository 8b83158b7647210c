//! The server as a service of systemd: what it tells its manager, and the unit file.

mod common;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use common::server::Server;

const LIMIT: Duration = Duration::from_secs(10);

/// Lines that a manager is told, up to one that begins so.
fn told(socket: &UnixDatagram, until: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let begun = Instant::now();
    while !lines.iter().any(|line| line.starts_with(until)) {
        assert!(begun.elapsed() < LIMIT, "no {until} in {lines:?}");
        let mut bytes = [0; 4096];
        if let Ok(length) = socket.recv(&mut bytes) {
            let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
            lines.extend(text.lines().map(ToOwned::to_owned));
        }
    }
    lines
}

#[test]
fn a_manager_is_told_of_the_beginning_the_life_and_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let server = Server::start_with(|serve| {
        serve
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "400000");
    });
    told(&socket, "READY=1");
    for _ in 0..3 {
        told(&socket, "WATCHDOG=1");
    }
    let lines = told(&socket, "STATUS=ready; 0 recordings open");
    assert!(!lines.iter().any(|line| line.starts_with("STOPPING")));
    let status = server.stop().map(|status| ExitStatus::code(&status));
    assert_eq!(status, Some(Some(0)));
    told(&socket, "STOPPING=1");
}

#[test]
fn nobody_is_told_anything_who_has_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let server = Server::start_with(|serve| {
        // A manager that is gone costs a line in the log, and no more.
        serve.env("NOTIFY_SOCKET", &path);
    });
    let begun = Instant::now();
    while !server.log().contains("service manager cannot be told") {
        assert!(begun.elapsed() < LIMIT, "{}", server.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(server.stop().unwrap().success());
}

#[test]
#[ignore = "needs systemd-analyze"]
fn the_units_are_such_as_systemd_takes() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let text = std::fs::read_to_string(config.join("mef3-server.service")).unwrap();
    let program = "/usr/bin/mef3-server";
    assert!(text.contains(program));
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("mef3-server.service");
    std::fs::write(
        &copy,
        text.replace(program, env!("CARGO_BIN_EXE_mef3-server")),
    )
    .unwrap();
    let sockets = folder.path().join("mef3-server.socket");
    std::fs::copy(config.join("mef3-server.socket"), &sockets).unwrap();
    let verified = Command::new("systemd-analyze")
        .arg("verify")
        .args([&copy, &sockets])
        .output()
        .unwrap_or_else(|error| panic!("systemd-analyze: {error}"));
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && said.is_empty(), "{said}");
}

//! Sockets that a service manager listens on, and passes to the server.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::process::client::Client;
use common::process::session::KnownSession;
use common::process::{LIMIT, Launch};
use mef3_server::grpc::proto::client::LegacyClient;
use rustix::process::Signal;
use tonic::transport::Endpoint;

fn port() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The same socket once more.
fn again(listener: &TcpListener) -> OwnedFd {
    listener.try_clone().unwrap().into()
}

/// Whether the admin port at an address answers.
fn admin_answers(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nhost: admin\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.starts_with("HTTP/1.1 200")
}

/// Reads a whole session through a Unix domain socket.
async fn read_at(path: &Path, session: &KnownSession) {
    let endpoint = Endpoint::from_shared(format!("unix://{}", path.display())).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut client = Client::connect_by(LegacyClient::new(channel));
    client.open(&session.key()).await.unwrap();
    client.read_right(session, &session.all()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passed_ports_are_served_and_outlive_the_server() {
    let session = KnownSession::write(2, 256, 10);
    let (clients, address) = port();
    let (operators, admin) = port();
    let (_taken, in_use) = port();
    for _ in 0..2 {
        let sockets = vec![again(&clients), again(&operators)];
        let mut server = Launch::with_sockets(sockets, "grpc:admin")
            // Neither is listened on: that would be an error.
            .arg("--listen")
            .arg(in_use.to_string())
            .env("MEF3_SERVER_ADMIN_LISTEN", in_use.to_string())
            .start();
        assert_eq!(server.address, address);
        assert_eq!(server.logged("listening")["were_passed"], true);
        for worker in server.workers_up(2) {
            let variables = std::fs::read(format!("/proc/{}/environ", worker.pid)).unwrap();
            let variables = String::from_utf8(variables).unwrap();
            assert!(!variables.contains("LISTEN_"), "{variables}");
        }
        let mut client = Client::connect(address).await;
        client.open(&session.key()).await.unwrap();
        client.read_right(&session, &session.all()).await;
        assert!(admin_answers(admin));
        drop(client);
        server.signal(Signal::TERM);
        assert_eq!(server.wait(LIMIT).code(), Some(0));
        // Who comes between two servers waits, and is not refused.
        TcpStream::connect(address).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_socket_of_this_machine_is_served_and_its_file_stays() {
    let session = KnownSession::write(2, 256, 10);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mef3.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let (clients, address) = port();
    let sockets = vec![socket.into(), clients.into()];
    let mut server = Launch::with_sockets(sockets, "mef3-server.socket:mef3-server.socket").start();
    assert_eq!(server.address, address);
    read_at(&path, &session).await;
    let mut client = Client::connect(address).await;
    client.open(&session.key()).await.unwrap();
    client.read_right(&session, &session.all()).await;
    drop(client);
    server.signal(Signal::TERM);
    assert_eq!(server.wait(LIMIT).code(), Some(0));
    assert!(path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_sockets_for_clients_the_settings_say_where() {
    let session = KnownSession::write(1, 256, 10);
    let (operators, admin) = port();
    let server = Launch::with_sockets(vec![operators.into()], "admin").start();
    assert_ne!(server.address, admin);
    assert_eq!(server.logged("listening")["were_passed"], false);
    assert!(admin_answers(admin));
    let mut client = Client::connect(server.address).await;
    client.open(&session.key()).await.unwrap();
    client.read_right(&session, &session.all()).await;

    // Those of another process are not taken.
    let server = Launch::new()
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDS", "1")
        .start();
    assert_eq!(server.logged("listening")["were_passed"], false);
}

#[test]
fn passed_ports_that_others_reach_are_encrypted_or_allowed() {
    let open = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let address = open.local_addr().unwrap();
    let ended = Launch::with_sockets(vec![again(&open)], "grpc").run();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    for part in [&address.to_string(), "tls.certificate", "server.insecure"] {
        assert!(ended.stderr.contains(part), "no {part} in {}", ended.stderr);
    }
    let server = Launch::with_sockets(vec![again(&open)], "grpc")
        .arg("--insecure")
        .start();
    assert_eq!(server.address, address);
    // What the settings name is not listened on, and needs nothing.
    let (near, address) = port();
    let server = Launch::with_sockets(vec![near.into()], "grpc")
        .arg("--listen")
        .arg("0.0.0.0:0")
        .start();
    assert_eq!(server.address, address);
}

#[test]
fn what_cannot_be_served_is_one_clear_line() {
    let file = || File::open("/dev/null").unwrap().into();
    let stream = || {
        let (listener, address) = port();
        let stream = TcpStream::connect(address).unwrap();
        drop(listener);
        stream.into()
    };
    let folder = tempfile::tempdir().unwrap();
    let local = UnixListener::bind(folder.path().join("mef3.sock")).unwrap();
    for (sockets, names, part) in [
        (vec![port().0.into()], "grcp", "grcp"),
        (vec![port().0.into()], "grpc:admin", "LISTEN_FDNAMES"),
        (vec![file()], "grpc", "socket 0"),
        (vec![port().0.into(), stream()], "grpc:grpc", "socket 1"),
        (vec![local.into()], "admin", "socket 0"),
        (
            vec![port().0.into(), port().0.into()],
            "admin:admin",
            "two sockets",
        ),
    ] {
        let ended = Launch::with_sockets(sockets, names).run();
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains(part), "no {part} in {}", ended.stderr);
    }
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs systemd-socket-activate"]
async fn systemd_itself_passes_sockets_so() {
    let session = KnownSession::write(1, 256, 10);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mef3.sock");
    let started = Command::new("systemd-socket-activate")
        .env("TMPDIR", folder.path())
        .arg("-l")
        .arg(&path)
        .args([
            "-E",
            "TMPDIR",
            "--fdname=grpc",
            env!("CARGO_BIN_EXE_mef3-server"),
            "serve",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("systemd-socket-activate: {error}"));
    let _running = Running(started);
    common::process::until("the socket is there", LIMIT, || path.exists());
    read_at(&path, &session).await;
}

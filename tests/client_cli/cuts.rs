//! Connections that are cut while a reply comes, and users who do not wait for its end.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::io::ioctl_fionread;
use rustix::process::Signal;

use super::common::process::session::{KnownSession, assert_same};
use super::common::process::{LIMIT, Launch, entries, until};
use super::{client, failure, output, text};

/// What becomes of a connection in the end.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Cut,
    /// Nothing more comes, and it stays.
    Silent,
}

/// Passes connections on to a server.
struct Proxy {
    address: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
    taken: Arc<AtomicUsize>,
}

impl Proxy {
    /// Ends the first connections, each after so many bytes of the server's.
    fn start(server: SocketAddr, ends: usize, after: usize, then: Then) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let server = Arc::new(Mutex::new(server));
        let current = Arc::clone(&server);
        // Ends with the test program.
        thread::spawn(move || {
            for client in listener.incoming() {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let most = if number < ends { after } else { usize::MAX };
                let server = TcpStream::connect(*current.lock().unwrap());
                // Without a server, the client is left.
                if let Ok(server) = server {
                    pass_on(client.unwrap(), server, most, then);
                }
            }
        });
        Self {
            address,
            server,
            taken,
        }
    }

    /// Connections from now on are to another server.
    fn lead_to(&self, server: SocketAddr) {
        *self.server.lock().unwrap() = server;
    }

    fn connections(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

fn pass_on(client: TcpStream, server: TcpStream, most: usize, then: Then) {
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
    thread::spawn(move || {
        let (mut client, mut server) = (client, server);
        let (mut left, mut buffer) = (most, [0; 8192]);
        while left > 0 {
            let room = left.min(buffer.len());
            let Ok(read @ 1..) = server.read(&mut buffer[..room]) else {
                break;
            };
            if client.write_all(&buffer[..read]).is_err() {
                break;
            }
            left -= read;
        }
        if left == 0 && then == Then::Silent {
            // Until the client has gone.
            let _ = client.read_to_end(&mut Vec::new());
        }
        // Either end may be gone already.
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}

/// A read of a whole session as an array of float32.
fn read(address: SocketAddr, session: &KnownSession, file: &Path) -> Launch {
    let (from, to) = (
        session.all().start().to_string(),
        session.all().end().to_string(),
    );
    let key = session.key();
    let arguments = [
        "read", &key, "--from", &from, "--to", &to, "--format", "npy", "--type", "f32",
    ];
    client(address, &arguments).arg("--output").arg(file)
}

/// The rows of an array in Fortran order.
fn rows(file: &Path, count: usize) -> Vec<Vec<f32>> {
    let bytes = fs::read(file).unwrap();
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]])) + 10;
    let (values, rest) = bytes[header..].as_chunks();
    assert!(rest.is_empty());
    let row = |row| {
        values
            .iter()
            .skip(row)
            .step_by(count)
            .copied()
            .map(f32::from_le_bytes)
    };
    (0..count).map(|number| row(number).collect()).collect()
}

#[test]
fn a_reply_that_is_cut_goes_on_and_nothing_is_lost_or_doubled() {
    let session = KnownSession::write(4, 1000, 300);
    let server = Launch::new().start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("whole.npy");
    for flags in [&[][..], &["--compress"]] {
        let proxy = Proxy::start(server.address, 4, 700_000, Then::Cut);
        let launch = read(proxy.address, &session, &file);
        output(flags.iter().fold(launch, |launch, flag| launch.arg(flag)));
        assert_same(&rows(&file, 4), &session.expected(&session.all()));
        assert!(
            (3..=5).contains(&proxy.connections()),
            "{}",
            proxy.connections()
        );
        assert_eq!(entries(folder.path()), ["whole.npy"]);
    }
}

#[test]
fn a_reply_that_never_goes_on_is_given_up_and_leaves_nothing() {
    let session = KnownSession::write(4, 1000, 60);
    let server = Launch::new().start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("part.npy");
    // Less than the first columns come in.
    let proxy = Proxy::start(server.address, usize::MAX, 100_000, Then::Cut);
    let ended = read(proxy.address, &session, &file)
        .arg("--retry-s")
        .arg("1")
        .run();
    failure(
        &ended,
        1,
        &[
            &proxy.address.to_string(),
            "gave up after 1 s without a sample",
        ],
    );
    // One asks what the recording is, one reads, and the others go on.
    assert!(proxy.connections() >= 3, "{}", proxy.connections());
    assert_eq!(entries(folder.path()), [""; 0]);
    // What was there stays.
    fs::write(&file, "before").unwrap();
    let ended = read(proxy.address, &session, &file)
        .arg("--retry-s")
        .arg("0")
        .run();
    failure(&ended, 1, &["gave up after 0 s"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "before");
    assert_eq!(entries(folder.path()), ["part.npy"]);
}

/// Waits until a file in a folder has some of them.
fn wait_for_samples(folder: &Path) {
    until("samples are written", LIMIT, || {
        let parts = fs::read_dir(folder).unwrap();
        let lengths = parts.map(|part| part.unwrap().metadata().map_or(0, |it| it.len()));
        lengths.sum::<u64>() > 1 << 20
    });
}

/// A new named pipe.
fn named_pipe(folder: &Path) -> PathBuf {
    let pipe = folder.join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    pipe
}

#[test]
fn a_read_outlives_a_restart_of_the_server() {
    let session = KnownSession::write(4, 1000, 300);
    let server = Launch::new().start();
    let proxy = Proxy::start(server.address, 0, 0, Then::Cut);
    let folder = tempfile::tempdir().unwrap();
    let pipe = named_pipe(folder.path());
    let mut reading = read(proxy.address, &session, &pipe).start_plain();
    // Nobody takes more than the first samples, so that the server cannot be done.
    let mut from = File::open(&pipe).unwrap();
    let mut bytes = vec![0; 10_000];
    from.read_exact(&mut bytes).unwrap();
    drop(server);
    let server = Launch::new().start();
    proxy.lead_to(server.address);
    from.read_to_end(&mut bytes).unwrap();
    assert!(reading.wait(LIMIT).success(), "{:?}", reading.records());
    let file = folder.path().join("whole.npy");
    fs::write(&file, bytes).unwrap();
    assert_same(&rows(&file, 4), &session.expected(&session.all()));
    assert!(proxy.connections() >= 3, "{}", proxy.connections());
}

#[test]
fn a_read_into_a_pipe_that_nobody_takes_from_can_be_ended() {
    let session = KnownSession::write(4, 1000, 60);
    let server = Launch::new().start();
    let folder = tempfile::tempdir().unwrap();
    let pipe = named_pipe(folder.path());
    for with in [Signal::INT, Signal::TERM] {
        let reading = read(server.address, &session, &pipe);
        let mut reading = reading.with_signals("--default-signal").start_plain();
        let from = File::open(&pipe).unwrap();
        until("the pipe is full", LIMIT, || {
            ioctl_fionread(&from).unwrap() >= 60_000
        });
        reading.signal(with);
        assert_eq!(reading.wait(LIMIT).signal(), Some(with.as_raw()));
    }
}

#[test]
fn a_signal_that_is_ignored_does_not_end_a_read() {
    let session = KnownSession::write(32, 1000, 120);
    let server = Launch::new().start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("part.csv");
    let proxy = Proxy::start(server.address, usize::MAX, 3_000_000, Then::Silent);
    let arguments = ["read", &session.key(), "--output", text(&file)];
    let launch = client(proxy.address, &arguments).with_signals("--ignore-signal=HUP");
    let mut reading = launch.start_plain();
    wait_for_samples(folder.path());
    reading.signal(Signal::HUP);
    // As long as one that is not ignored would be seen in.
    thread::sleep(Duration::from_millis(300));
    assert_eq!(entries(folder.path()).len(), 1);
    reading.signal(Signal::TERM);
    assert_eq!(reading.wait(LIMIT).code(), Some(1));
    assert_eq!(entries(folder.path()), [""; 0]);
}

#[test]
fn a_read_that_is_interrupted_leaves_nothing() {
    let session = KnownSession::write(32, 1000, 120);
    let server = Launch::new().start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("part.csv");
    let key = session.key();
    for with in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        // The first connection asks what the recording is.
        let proxy = Proxy::start(server.address, usize::MAX, 3_000_000, Then::Silent);
        let launch = client(proxy.address, &["read", &key, "--output", text(&file)]);
        let mut reading = launch.with_signals("--default-signal").start_plain();
        wait_for_samples(folder.path());
        reading.signal(with);
        assert_eq!(reading.wait(LIMIT).code(), Some(1));
        let told = format!("{:?}", reading.records());
        assert!(told.contains("interrupted"), "{told}");
        assert_eq!(entries(folder.path()), [""; 0]);
    }
}

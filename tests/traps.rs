//! The traps of worker processes, each sprung on purpose.
//!
//! The trap of a child that ends before it connects needs a program of its own:
//! `early_exit.rs`.

mod common;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::process::client::{Client, soon};
use common::process::session::KnownSession;
use common::process::{LIMIT, Launch, Server, all_gone, children, process, signal, until};
use mef3_server::{Engine, ReadRequest};
use rustix::process::Signal;
use tracing_subscriber::fmt::MakeWriter;

fn session() -> KnownSession {
    KnownSession::write(2, 256, 20)
}

/// A server whose folder for temporary files is of no use answers all the same,
/// from its own process, and says why.
async fn assert_in_process(server: Server, folder: &Path) {
    let session = session();
    let mut client = Client::with_open(server.address, &session).await;
    client.read_right(&session, &session.all()).await;
    assert_eq!(children(server.pid()), []);
    let gone = server.logged("worker is gone");
    let cause = gone["cause"].as_str().unwrap();
    assert!(cause.contains(folder.to_str().unwrap()), "{cause}");
    server.logged("no worker can run: reads are decoded in the server process");
    end(server).await;
}

/// Ends the server and looks for what is left of it.
async fn end(mut server: Server) {
    let workers = server.workers();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(LIMIT).code(), Some(0));
    assert!(all_gone(&workers), "{workers:?} outlive the server");
    assert_eq!(server.left_behind(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_folder_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let server = Launch::new().env("TMPDIR", &missing).start();
    assert_in_process(server, &missing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_folder_cannot_be_written() {
    // Not even by root, to whom permissions mean nothing.
    let unwritable = Path::new("/proc");
    let server = Launch::new().env("TMPDIR", unwritable).start();
    assert_in_process(server, unwritable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_folder_has_a_long_path() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(80));
    fs::create_dir(&long).unwrap();
    let server = Launch::new().env("TMPDIR", &long).start();
    assert_in_process(server, &long).await;
    assert_eq!(common::process::entries(&long), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_folder_goes_away_and_comes_back() {
    let session = session();
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("temporary");
    fs::create_dir(&folder).unwrap();
    let server = Launch::new()
        .env("TMPDIR", &folder)
        .env("MEF3_SERVER_WORKERS_REST_S", "1")
        .start();
    let workers = server.workers_up(2);
    fs::remove_dir(&folder).unwrap();
    for worker in workers {
        signal(worker.pid, Signal::KILL);
    }
    let mut client = Client::with_open(server.address, &session).await;
    client.read_right(&session, &session.all()).await;
    server.logged("no worker can run: reads are decoded in the server process");
    fs::create_dir(&folder).unwrap();
    server.workers_up(2);
    client.read_right(&session, &session.all()).await;
    end(server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_ignore_signals_that_are_meant_for_the_server() {
    let session = session();
    let server = Launch::new().start();
    let workers = server.workers_up(2);
    for worker in &workers {
        signal(worker.pid, Signal::INT);
        signal(worker.pid, Signal::TERM);
    }
    let mut client = Client::with_open(server.address, &session).await;
    for second in 0..session.seconds {
        client
            .read_right(&session, &session.span(0..2, second, second + 1))
            .await;
    }
    let pids = |server: &Server| {
        let mut pids: Vec<u32> = server.workers().iter().map(|worker| worker.pid).collect();
        pids.sort_unstable();
        pids
    };
    let mut before: Vec<u32> = workers.iter().map(|worker| worker.pid).collect();
    before.sort_unstable();
    assert_eq!(pids(&server), before);
    assert_eq!(server.records_of("worker is gone").len(), 0);
    end(server).await;
}

#[test]
fn interrupt_to_the_whole_process_group_ends_the_server_cleanly() {
    let mut server = Launch::new().own_group().start();
    let workers = server.workers_up(2);
    server.signal_group(Signal::INT);
    assert_eq!(server.wait(LIMIT).code(), Some(0));
    assert!(all_gone(&workers));
    assert_eq!(server.records_of("worker is gone").len(), 0);
    assert_eq!(server.left_behind(), [""; 0]);
}

/// ^C right after the start, while workers are anywhere between fork and ready.
#[test]
fn interrupt_while_workers_start_leaves_nothing_behind() {
    for pause in 0..8 {
        let mut server = Launch::new().own_group().start();
        std::thread::sleep(Duration::from_micros(pause * 500));
        let began = Instant::now();
        server.signal_group(Signal::INT);
        assert_eq!(server.wait(LIMIT).code(), Some(0));
        let took = began.elapsed();
        assert!(took < Duration::from_secs(4), "{took:?}");
        assert_eq!(server.left_behind(), [""; 0]);
    }
}

/// A backtrace would cost the dying worker a tenth of a second and more.
#[test]
fn a_host_that_wants_backtraces_hears_of_a_worker_s_death_at_once() {
    let server = Launch::new().env("RUST_BACKTRACE", "1").start();
    let worker = server.workers_up(2).remove(0);
    let environment = fs::read(format!("/proc/{}/environ", worker.pid)).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(environment.contains("TMPDIR="), "{environment:?}");
    assert!(!environment.contains("RUST_BACKTRACE"), "{environment:?}");
    signal(worker.pid, Signal::ABORT);
    until("the worker is replaced", Duration::from_secs(1), || {
        let workers = server.workers();
        workers.len() == 2 && process(worker.pid).is_none()
    });
}

#[test]
fn workers_have_names_of_their_own() {
    let server = Launch::new().env("N_PROCESS_WORKERS", "3").start();
    let workers = server.workers_up(3);
    let mut names: Vec<String> = workers
        .iter()
        .map(|worker| fs::read_to_string(format!("/proc/{}/comm", worker.pid)).unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["mef3-worker-0\n", "mef3-worker-1\n", "mef3-worker-2\n"]
    );
}

/// Nothing in this program calls `worker::init`.
#[tokio::test]
async fn a_host_that_forgets_init_reads_in_its_own_process_and_is_warned() {
    let log = Buffer::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let session = session();
    let engine = Engine::builder().workers(2).start().unwrap();
    let recording = soon("open", engine.open(&session.path)).await.unwrap();
    let span = session.all();
    let request = ReadRequest::new(&recording, span.start(), span.end());
    let mut windows = engine.read::<f32>(&request).unwrap();
    let window = soon("read", windows.next()).await.unwrap().unwrap();
    let rows: Vec<Vec<f32>> = window
        .samples
        .chunks(window.columns)
        .map(<[_]>::to_vec)
        .collect();
    common::process::session::assert_same(&rows, &session.expected(&span));
    assert!(soon("the end", windows.next()).await.is_none());

    let supervisor = engine.statistics().await.unwrap().supervisor;
    assert!(supervisor.in_process);
    assert_eq!(supervisor.workers, []);
    assert!(supervisor.in_process_jobs >= 2, "{supervisor:?}");
    assert!(
        log.text().contains("worker::init() was not called"),
        "{}",
        log.text()
    );
    soon("shutdown", engine.shutdown()).await;
}

/// A log that is kept in memory.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Buffer {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

//! What the system refuses a reader: each refusal is an error that names the file
//! and the reason, never a gap and never a wrong sample, and it is forgotten as soon
//! as it is over.

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::chaos::{end_cleanly, mend, spoil};
use common::process::client::Client;
use common::process::session::{KnownSession, assert_same};
use common::process::{LIMIT, Launch, Server, signal};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

/// How soon all is well after the refusal is over.
const MENDED: Duration = Duration::from_secs(1);
/// The same where a file was another for a while: that it is the old one again is
/// seen by the next look, `live.staleness_ms` after the last.
const LOOKED_AGAIN: Duration = Duration::from_millis(2500);

fn session() -> KnownSession {
    KnownSession::write(2, 256, 40)
}

/// Where a session's channel 0 has its samples.
fn data_file(session: &KnownSession) -> PathBuf {
    let stem = "ch 000-000000";
    session
        .path
        .join(format!("ch 000.timd/{stem}.segd/{stem}.tdat"))
}

/// Reads channel 0 until it fails: the error. What is read until then must be right.
async fn failure(client: &mut Client, session: &KnownSession) -> String {
    let began = Instant::now();
    let span = session.span(0..1, 0, session.seconds);
    while began.elapsed() < LIMIT {
        match client.read(session, &span).await {
            Err(error) => return error,
            Ok(rows) => assert_same(&rows, &session.expected(&span)),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no read fails");
}

/// Reads everything until it is well: how long that takes. What is read must be
/// right, and every error is about `file`.
async fn mended(client: &mut Client, session: &KnownSession, limit: Duration) -> Duration {
    let began = Instant::now();
    let span = session.all();
    loop {
        let read = client.read(session, &span).await;
        let took = began.elapsed();
        match read {
            Ok(rows) => {
                assert_same(&rows, &session.expected(&span));
                assert!(took <= limit, "{took:?}");
                return took;
            }
            Err(error) => assert!(took <= limit, "after {took:?}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn assert_names(what: &str, error: &str, reason: &str) {
    for part in ["ch 000", "known.mefd", reason] {
        assert!(error.contains(part), "{what}: no {part:?} in: {error}");
    }
}

/// What a call of the system answers in place of what was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn an_errno_is_told_and_forgotten() {
    let cases = [
        ("EIO", "Input/output error", &["open", "read", "status"][..]),
        ("ESTALE", "Stale file handle", &["open", "read", "status"]),
        ("EMFILE", "Too many open files", &["open"]),
        ("ENFILE", "Too many open files in system", &["open"]),
        (
            "ENOMEM",
            "Cannot allocate memory",
            &["open", "read", "status"],
        ),
        ("ENOSPC", "No space left on device", &["open", "read"]),
        ("EACCES", "Permission denied", &["open", "status"]),
        ("ENOENT", "no such file or directory", &["open", "status"]),
    ];
    let server = Launch::new()
        .env("MEF3_SERVER_PREFETCH_MAX_MB", "0")
        .start();
    for (errno, reason, calls) in cases {
        for call in calls {
            let what = format!("{errno} at {call}");
            let session = session();
            let mut client = Client::with_open(server.address, &session).await;
            // A worker has the file open, but for what is opened below.
            if *call != "open" {
                client.read_right(&session, &session.span(0..1, 0, 1)).await;
            }
            spoil(
                &session.path,
                &format!("do errno {errno}\nchannel ch 000\ncall {call}"),
            );
            let error = failure(&mut client, &session).await;
            assert_names(&what, &error.to_lowercase(), &reason.to_lowercase());
            // And again, after another look.
            tokio::time::sleep(Duration::from_millis(300)).await;
            failure(&mut client, &session).await;
            mend(&session.path);
            // A file that is not there makes another recording of it.
            let limit = if errno == "ENOENT" {
                LOOKED_AGAIN
            } else {
                MENDED
            };
            let took = mended(&mut client, &session, limit).await;
            println!("{what}: well after {took:?}: {error}");
            client.close(&session.key()).await;
        }
    }
    assert_eq!(server.records_of("worker is gone").len(), 0);
    end_cleanly(server);
}

/// A session that is opened while the system refuses one of its channels.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_opened_in_bad_times_is_whole_later() {
    let server = Launch::new().start();
    for errno in ["EIO", "ESTALE", "EMFILE", "ENOMEM"] {
        let session = session();
        spoil(
            &session.path,
            &format!("do errno {errno}\nchannel ch 000\nfile tidx"),
        );
        let mut client = Client::connect(server.address).await;
        // One bad channel does not cost the other.
        client.open(&session.key()).await.unwrap();
        client
            .read_right(&session, &session.span(1..2, 0, 40))
            .await;
        let error = failure(&mut client, &session).await;
        assert_names(errno, &error, "cannot be read");
        mend(&session.path);
        let took = mended(&mut client, &session, LOOKED_AGAIN).await;
        println!("opened with {errno}: well after {took:?}: {error}");
        client.close(&session.key()).await;
    }
    end_cleanly(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_vanishes_and_comes_back() {
    let server = Launch::new().start();
    for part in ["file", "session"] {
        let session = session();
        let mut client = Client::with_open(server.address, &session).await;
        let path = match part {
            "file" => data_file(&session),
            _ => session.path.clone(),
        };
        let away = path.with_extension("away");
        fs::rename(&path, &away).unwrap();
        let error = failure(&mut client, &session).await;
        assert!(error.contains("known.mefd"), "{error}");
        fs::rename(&away, &path).unwrap();
        let took = mended(&mut client, &session, LOOKED_AGAIN).await;
        println!("{part} that was away: well after {took:?}: {error}");
    }
    end_cleanly(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_shrinks_and_is_written_anew() {
    let session = session();
    let server = Launch::new()
        // The smallest cache, so that the file is read.
        .env("MEF3_SERVER_CACHE_SIZE_MB", "1")
        .start();
    let mut client = Client::with_open(server.address, &session).await;
    client.read_right(&session, &session.all()).await;
    let path = data_file(&session);
    let whole = fs::read(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(whole.len() as u64 / 2).unwrap();
    let error = failure(&mut client, &session).await;
    // By a page of the file, or by the look that saw the cut while they were read.
    assert!(
        error.contains("ch 000") || error.contains("replaced or truncated"),
        "{error}"
    );
    fs::write(&path, &whole).unwrap();
    let took = mended(&mut client, &session, LOOKED_AGAIN).await;
    println!("file that was cut: well after {took:?}: {error}");
    end_cleanly(server);
}

/// Cut and made whole again between two looks: nothing but the pages notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_that_no_look_sees_is_not_remembered() {
    let session = session();
    let server = Launch::new()
        .env("MEF3_SERVER_LIVE_STALENESS_MS", "600000")
        .start();
    let mut client = Client::with_open(server.address, &session).await;
    let path = data_file(&session);
    let whole = fs::read(&path).unwrap();
    // Opened by a worker as it was.
    client.read_right(&session, &session.span(0..1, 0, 1)).await;
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(whole.len() as u64 / 2).unwrap();
    let late = session.span(0..1, 35, 40);
    let error = client.read(&session, &late).await.unwrap_err();
    assert!(error.contains("ch 000"), "{error}");
    fs::write(&path, &whole).unwrap();
    let took = mended(&mut client, &session, LOOKED_AGAIN).await;
    println!("cut between two looks: well after {took:?}: {error}");
    end_cleanly(server);
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.try_into().unwrap()).unwrap()
}

/// Lets a process have so many descriptors; those that it had.
fn let_have(process: u32, descriptors: Option<u64>) -> Rlimit {
    // No process has another's hard limit: this one's is the workers', or higher.
    let now = prlimit(
        Some(pid(process)),
        Resource::Nofile,
        Rlimit {
            current: descriptors,
            maximum: maximum_of(process),
        },
    );
    now.unwrap()
}

/// The hard limit of a process.
fn maximum_of(process: u32) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let hard = line.unwrap().split_whitespace().nth(4).unwrap();
    hard.parse()
        .ok()
        .or_else(|| getrlimit(Resource::Nofile).maximum)
}

fn descriptors_of(process: u32) -> u64 {
    fs::read_dir(format!("/proc/{process}/fd")).unwrap().count() as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_without_descriptors_say_so_and_go_on() {
    let session = session();
    let server = Launch::new().start();
    let mut client = Client::with_open(server.address, &session).await;
    let workers = server.workers_up(2);
    let before: Vec<Rlimit> = workers
        .iter()
        .map(|worker| let_have(worker.pid, Some(descriptors_of(worker.pid))))
        .collect();
    let error = failure(&mut client, &session).await;
    assert!(error.contains("Too many open files"), "{error}");
    assert!(error.contains("known.mefd"), "{error}");
    for (worker, before) in workers.iter().zip(before) {
        let_have(worker.pid, before.current);
    }
    let took = mended(&mut client, &session, MENDED).await;
    println!("workers without descriptors: well after {took:?}: {error}");
    assert_eq!(server.records_of("worker is gone").len(), 0);
    end_cleanly(server);
}

/// The server itself can start no worker and take no connection, and goes on with
/// those that it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_descriptors_serves_who_is_there() {
    let session = session();
    let server = Launch::new().env("MEF3_SERVER_WORKERS_REST_S", "1").start();
    let mut client = Client::with_open(server.address, &session).await;
    let workers = server.workers_up(2);
    let before = let_have(server.pid(), Some(descriptors_of(server.pid())));
    for worker in &workers {
        signal(worker.pid, Signal::KILL);
    }
    server.logged("worker is gone");
    // Whoever reads meanwhile is answered rightly or told why not.
    for second in 0..10 {
        let span = session.span(0..2, second, second + 1);
        match client.read(&session, &span).await {
            Ok(rows) => assert_same(&rows, &session.expected(&span)),
            Err(error) => assert!(error.contains("Too many open files"), "{error}"),
        }
    }
    let_have(server.pid(), before.current);
    let took = mended(&mut client, &session, LOOKED_AGAIN).await;
    server.workers_up(2);
    let mut late = Client::with_open(server.address, &session).await;
    late.read_right(&session, &session.all()).await;
    println!("server without descriptors: well after {took:?}");
    end_cleanly(server);
}

/// A block that does not fit into a worker's memory costs its read and no worker.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_does_not_fit_into_memory_is_an_error() {
    // One block of 16 million samples: 64 MB decoded.
    let session = KnownSession::with_blocks(1, 32_000, 520, 1 << 24);
    let server = Launch::new().start();
    let mut client = Client::with_open(server.address, &session).await;
    let workers = server.workers_up(2);
    let limits: Vec<Rlimit> = workers
        .iter()
        .map(|worker| {
            let memory = fs::read_to_string(format!("/proc/{}/statm", worker.pid)).unwrap();
            let pages: u64 = memory.split(' ').next().unwrap().parse().unwrap();
            let limit = Rlimit {
                // What it has, and half of what the block takes.
                current: Some(pages * 4096 + (32 << 20)),
                maximum: Some(2048 << 20),
            };
            prlimit(Some(pid(worker.pid)), Resource::As, limit).unwrap()
        })
        .collect();
    let span = session.span(0..1, 0, 1);
    let error = client.read(&session, &span).await.unwrap_err();
    assert!(error.contains("does not fit into memory"), "{error}");
    assert!(error.contains("ch 000"), "{error}");
    for (worker, limit) in workers.iter().zip(limits) {
        prlimit(Some(pid(worker.pid)), Resource::As, limit).unwrap();
    }
    let began = Instant::now();
    client.read_right(&session, &span).await;
    println!(
        "block without memory: read after {:?}: {error}",
        began.elapsed()
    );
    assert_eq!(server.records_of("worker is gone").len(), 0);
    end_cleanly(server);
}

/// A file system of its own for temporary files, if this process may make one.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(folder.path())
            .output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        mounted.then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(self.path())
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A folder that stays mounted is of no further harm.
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

/// Reads right from the server's own process, and by workers once all is well.
async fn without_temporary_files(server: Server, reason: &str, mend: impl FnOnce()) {
    let session = session();
    let mut client = Client::with_open(server.address, &session).await;
    client.read_right(&session, &session.all()).await;
    let gone = server.logged("worker is gone");
    let cause = gone["cause"].as_str().unwrap();
    assert!(cause.contains(reason), "{cause}");
    mend();
    let began = Instant::now();
    server.workers_up(2);
    println!("{reason}: workers after {:?}", began.elapsed());
    client.read_right(&session, &session.all()).await;
    end_cleanly(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_folder_is_full_or_read_only() {
    // A folder takes an inode, and the root of the file system has the only one.
    for (bad, good, reason) in [
        ("nr_inodes=1", "nr_inodes=100", "No space left on device"),
        ("ro", "rw", "Read-only file system"),
    ] {
        let Some(mount) = Mount::new(bad) else {
            println!(
                "no file system can be mounted here: not even {bad:?} for temporary files; \
                 a folder that is missing or unwritable stands for it in traps.rs"
            );
            // What stands for it must do so: a folder in which nothing can be made.
            let server = Launch::new().env("TMPDIR", "/proc").start();
            let session = session();
            let mut client = Client::with_open(server.address, &session).await;
            client.read_right(&session, &session.all()).await;
            server.logged("no worker can run: reads are decoded in the server process");
            continue;
        };
        let server = Launch::new()
            .env("TMPDIR", mount.path())
            .env("MEF3_SERVER_WORKERS_REST_S", "1")
            .start();
        without_temporary_files(server, reason, || mount.remount(good)).await;
    }
}

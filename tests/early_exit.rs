//! Trap 1 of worker processes: a child that ends, or hangs, before it connects
//! leaves the thread that started it waiting for ever.
//!
//! A program of its own, whose children never get to `worker::init`: as with a
//! host that leaves `main` before it, one whose loader fails, or one that waits
//! for something first.

mod common;

use std::ffi::OsStr;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use common::process::session::{KnownSession, assert_same};
use common::process::{LIMIT, children, entries, until};
use mef3_server::config::Config;
use mef3_server::{Engine, ReadRequest, WorkerState};

/// How procspawn's children know what they are.
const CHILD: &str = "__PROCSPAWN_CONTENT_PROCESS_ID";
/// Set in the host, the part of this program with the engine, and in its
/// children: what these do.
const HOST: &str = "MEF3_EARLY_EXIT_HOST";
const HANG: &str = "hang";
const EXIT: &str = "exit";
/// The tests, and what the children do in each.
const TESTS: [(&str, &str); 2] = [
    ("children_that_end_before_they_connect_hold_nobody_up", EXIT),
    (
        "children_that_hang_before_they_connect_hold_nobody_up",
        HANG,
    ),
];

fn main() -> ExitCode {
    let host_of = env::var(HOST).ok();
    if env::var_os(CHILD).is_some() {
        if host_of.as_deref() == Some(HANG) {
            thread::sleep(Duration::from_secs(600));
        }
        return ExitCode::SUCCESS;
    }
    if let Some(children_do) = host_of {
        host(&children_do);
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let given = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if given("--list") {
        // As test runners expect it.
        if !given("--ignored") {
            for (name, _) in TESTS {
                println!("{name}: test");
            }
        }
        return ExitCode::SUCCESS;
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    for (name, children_do) in TESTS {
        let wanted = filter.is_none_or(|filter| name.contains(filter.as_str()));
        if wanted && !given("--ignored") {
            run_host(children_do);
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

fn run_host(children_do: &str) {
    // The host gets a folder for temporary files of its own.
    let temporary = tempfile::tempdir().unwrap();
    let status = Command::new(env::current_exe().unwrap())
        .env(HOST, children_do)
        .env("TMPDIR", temporary.path())
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(entries(temporary.path()), [""; 0]);
}

fn host(children_do: &str) {
    mef3_server::worker::init();
    let temporary = env::temp_dir();
    let mut config = Config::default();
    config.workers.min = 2;
    // A death is noticed before the limit, a hang is not.
    let (spawn_limit_s, read_limit_s) = if children_do == HANG {
        (1, 10)
    } else {
        (60, 5)
    };
    config.workers.spawn_limit_s = spawn_limit_s;
    config.workers.rest_s = 600;
    let session = KnownSession::write(4, 256, 60);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let engine = Engine::builder().config(config).start().unwrap();

    let began = Instant::now();
    runtime.block_on(read_all(&engine, &session));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(read_limit_s), "{took:?}");

    let supervisor = runtime.block_on(engine.statistics()).unwrap().supervisor;
    assert!(supervisor.in_process, "{supervisor:?}");
    for worker in &supervisor.workers {
        assert_eq!(worker.state, WorkerState::Resting);
    }
    assert_eq!(supervisor.abandoned, 0);
    until("the stuck threads end", LIMIT, || bridge_threads() == 0);
    assert_eq!(children(std::process::id()), []);
    // The session is the host's own.
    let session_folder = session.path.parent().and_then(|folder| folder.file_name());
    let others = || {
        let names = entries(&temporary);
        let others = names
            .into_iter()
            .filter(|name| Some(OsStr::new(name)) != session_folder);
        others.collect::<Vec<_>>()
    };
    assert_eq!(others(), [""; 0]);
    runtime.block_on(engine.shutdown());
}

async fn read_all(engine: &Engine, session: &KnownSession) {
    let read = async {
        let recording = engine.open(&session.path).await.unwrap();
        let span = session.all();
        let request = ReadRequest::new(&recording, span.start(), span.end());
        let mut windows = engine.read::<f32>(&request).unwrap();
        let mut rows = vec![Vec::new(); session.channels()];
        while let Some(window) = windows.next().await {
            let window = window.unwrap();
            for (row, samples) in rows.iter_mut().zip(window.samples.chunks(window.columns)) {
                row.extend_from_slice(samples);
            }
        }
        assert_same(&rows, &session.expected(&span));
    };
    tokio::time::timeout(Duration::from_secs(30), read)
        .await
        .unwrap();
}

/// Threads of this process that start or keep a worker.
fn bridge_threads() -> usize {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok())
        .filter(|name| name.starts_with("mef3-worker-"))
        .count()
}

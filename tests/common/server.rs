//! The server program, as a process of its own.

use std::env;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long a server may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to end once it is told to: more than the grace that it
/// gives to running replies.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long the log of an ended server may take to come in.
const LOG_LIMIT: Duration = Duration::from_secs(2);
/// What a process needs of the surroundings of the tests; anything else could be
/// a setting of the server.
const SURROUNDINGS: [&str; 4] = ["PATH", "HOME", "TMPDIR", "LLVM_PROFILE_FILE"];

/// A server that listens on a free port of this machine. It ends when dropped;
/// its log is shown where the test has failed.
pub struct Server {
    process: Child,
    address: SocketAddr,
    log: Log,
    ended: bool,
}

impl Server {
    /// Starts a server with further flags.
    pub fn start(flags: &[&str]) -> Self {
        Self::start_with(|serve| {
            serve.args(flags);
        })
    }

    /// Starts a server whose flags and environment `adjust` completes.
    pub fn start_with(adjust: impl FnOnce(&mut Command)) -> Self {
        let mut serve = Command::new(env!("CARGO_BIN_EXE_mef3-server"));
        let kept = SURROUNDINGS.map(|name| Some((name, env::var_os(name)?)));
        serve
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
            .env_clear()
            .envs(kept.into_iter().flatten())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // A test that ends blocks the runtime that its client's connection lives on,
        // so that the connection would be waited for in vain.
        serve.env("MEF3_SERVER_SERVER_SHUTDOWN_GRACE_S", "0");
        adjust(&mut serve);
        let mut process = serve.spawn().unwrap();
        let (announce, announced) = mpsc::channel();
        let log = Log::drain(process.stderr.take().unwrap(), announce);
        let Ok(address) = announced.recv_timeout(START_LIMIT) else {
            kill(&mut process);
            panic!("the server does not listen; its log:\n{}", log.whole());
        };
        Self {
            process,
            address,
            log,
            ended: false,
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address as a client wants it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        self.log.so_far()
    }

    /// Ends the server as an operator does. `None` is the status of one that
    /// did not end by itself.
    pub fn stop(mut self) -> Option<ExitStatus> {
        self.end()
    }

    fn end(&mut self) -> Option<ExitStatus> {
        self.ended = true;
        let status = self.terminate();
        if status.is_none() {
            kill(&mut self.process);
        }
        status
    }

    fn terminate(&mut self) -> Option<ExitStatus> {
        // A child that has ended and was not waited for takes the signal, too.
        kill_process(Pid::from_child(&self.process), Signal::TERM).ok()?;
        wait_until(STOP_LIMIT, || self.process.try_wait().ok().flatten())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.ended {
            self.end();
        }
        if thread::panicking() {
            eprintln!("log of the server:\n{}", self.log.whole());
        }
    }
}

fn kill(process: &mut Child) {
    // Fails only where the process has ended.
    let _ = process.kill();
    let _ = process.wait();
}

/// Asks again and again until there is an answer.
fn wait_until<T>(limit: Duration, mut answer: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        let found = answer();
        if found.is_some() || begun.elapsed() > limit {
            return found;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The log of a server, taken as it comes, so that the server never waits for a
/// reader.
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    drain: JoinHandle<()>,
}

impl Log {
    /// Takes the log until its end, and announces the address as soon as it
    /// stands there.
    fn drain(log: ChildStderr, announce: mpsc::Sender<SocketAddr>) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&lines);
        let drain = thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                if let Some(address) = listening_address(&line) {
                    // Whoever started the server may have given up.
                    let _ = announce.send(address);
                }
                taken.lock().unwrap().push(line);
            }
        });
        Self { lines, drain }
    }

    fn so_far(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// The log of a server that has ended. A child of it may still hold the
    /// log open: that is not waited for.
    fn whole(&self) -> String {
        wait_until(LOG_LIMIT, || self.drain.is_finished().then_some(()));
        self.so_far()
    }
}

/// The address in the record of the log that tells of it.
fn listening_address(line: &str) -> Option<SocketAddr> {
    let record: Value = serde_json::from_str(line).ok()?;
    if record["message"] != "listening" {
        return None;
    }
    record["address"].as_str()?.parse().ok()
}

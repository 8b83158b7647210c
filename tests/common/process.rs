//! The server as a process of its own, and what the system says of processes.

pub mod client;
pub mod session;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpSocket;

/// How long anything may take that should take milliseconds: a loaded machine
/// is slow, a hang is for ever.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
///
/// # Panics
/// Where it does not hold within the limit.
pub fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {limit:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A port of this machine that nobody listens at, and nobody else can, as long as this
/// lives.
pub struct ClosedPort {
    _bound: TcpSocket,
    pub address: SocketAddr,
}

impl ClosedPort {
    pub fn new() -> Self {
        let bound = TcpSocket::new_v4().unwrap();
        bound.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = bound.local_addr().unwrap();
        Self {
            _bound: bound,
            address,
        }
    }
}

/// A server about to be started, on a free port and in an empty environment.
pub struct Launch {
    command: Command,
    temporary: TempDir,
    /// The second socket of those that are passed.
    second: Option<OwnedFd>,
}

impl Launch {
    pub fn new() -> Self {
        Self::command(["serve", "--listen", "127.0.0.1:0"])
    }

    /// The program with other arguments.
    pub fn command<const N: usize>(arguments: [&str; N]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mef3-server"));
        let temporary = tempfile::tempdir().unwrap();
        command
            .env_clear()
            .env("TMPDIR", temporary.path())
            .args(arguments)
            .stdin(Stdio::null());
        Self {
            command,
            temporary,
            second: None,
        }
    }

    /// A server that may have so many descriptors.
    pub fn with_descriptors(number: u64) -> Self {
        let plain = Self::new();
        let mut command = Command::new("/bin/sh");
        command
            .env_clear()
            .env("TMPDIR", plain.temporary.path())
            .args(["-c", "ulimit -n $0 && exec \"$@\"", &number.to_string()])
            .arg(plain.command.get_program())
            .args(plain.command.get_args())
            .stdin(Stdio::null());
        Self { command, ..plain }
    }

    /// A server that is passed up to two sockets, as a service manager does, with their
    /// names, and listens on a free port if it does not take them.
    pub fn with_sockets(sockets: Vec<OwnedFd>, names: &str) -> Self {
        let mut plain = Self::command(["serve"]);
        let mut command = Command::new("/bin/sh");
        let script = "export LISTEN_PID=$$; exec \"$@\" 3<&0 4<&1 </dev/null >/dev/null";
        command
            .env_clear()
            .env("TMPDIR", plain.temporary.path())
            .env("MEF3_SERVER_SERVER_LISTEN", "127.0.0.1:0")
            .env("LISTEN_FDS", sockets.len().to_string())
            .env("LISTEN_FDNAMES", names)
            .args(["-c", script, "sh"])
            .arg(plain.command.get_program())
            .args(plain.command.get_args());
        let mut sockets = sockets.into_iter();
        command.stdin(sockets.next().map_or_else(Stdio::null, Stdio::from));
        plain.second = sockets.next();
        assert!(sockets.next().is_none());
        Self { command, ..plain }
    }

    /// Has `env` start the program, with what it is told of signals, such as
    /// `--ignore-signal=HUP`, whatever those are that the tests were started with.
    pub fn with_signals(self, told: &str) -> Self {
        let mut command = Command::new("/usr/bin/env");
        command
            .env_clear()
            .arg(told)
            .arg(self.command.get_program())
            .args(self.command.get_args())
            .stdin(Stdio::null());
        for (name, value) in self.command.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        Self { command, ..self }
    }

    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Makes the server the head of a process group, as a shell does.
    pub fn own_group(mut self) -> Self {
        use std::os::unix::process::CommandExt;
        self.command.process_group(0);
        self
    }

    /// Starts the server and waits until it listens.
    pub fn start(self) -> Server {
        let mut server = self.arg("--log-format").arg("json").start_plain();
        let listening = server.logged("listening");
        let address = listening["address"].as_str().unwrap();
        server.address = address.parse().unwrap();
        server
    }

    /// Starts the program, and waits for nothing.
    pub fn start_plain(mut self) -> Server {
        let mut child = self
            .command
            .stdout(self.second.map_or_else(Stdio::null, Stdio::from))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::default();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let records = Arc::clone(&log.0);
        let reader = thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let record = serde_json::from_str(&line).unwrap_or(Value::String(line));
                records.lock().unwrap().push(record);
            }
        });
        Server {
            child,
            address: ([0, 0, 0, 0], 0).into(),
            log,
            reader,
            temporary: self.temporary,
        }
    }

    /// Runs the program to its end.
    pub fn run(mut self) -> Ended {
        let mut child = self
            .command
            .stdout(self.second.map_or_else(Stdio::piped, Stdio::from))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out: Box<dyn std::io::Read + Send> = match child.stdout.take() {
            Some(out) => Box::new(out),
            None => Box::new(std::io::empty()),
        };
        let out = read_all(out);
        let err = read_all(child.stderr.take().unwrap());
        let status = wait_for(&mut child, Duration::from_secs(60));
        Ended {
            status,
            stdout: out.join().unwrap(),
            stderr: err.join().unwrap(),
            temporary: self.temporary,
        }
    }
}

/// A program that has ended.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    /// Its folder for temporary files.
    pub temporary: TempDir,
}

fn read_all(mut pipe: impl std::io::Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    })
}

fn wait_for(child: &mut Child, limit: Duration) -> ExitStatus {
    let mut status = None;
    until("the program ends", limit, || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// The records that a server wrote, each a JSON object; other lines as texts.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Value>>>);

impl Log {
    /// The records so far with this message.
    pub fn of(&self, message: &str) -> Vec<Value> {
        let records = self.0.lock().unwrap();
        let chosen = records.iter().filter(|record| record["message"] == message);
        chosen.cloned().collect()
    }
}

/// A running server. Dropping it kills it.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    log: Log,
    /// Ends when the server and its workers have closed the log.
    reader: thread::JoinHandle<()>,
    temporary: TempDir,
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The records so far.
    pub fn records(&self) -> Vec<Value> {
        self.log.0.lock().unwrap().clone()
    }

    /// The records so far with this message.
    pub fn records_of(&self, message: &str) -> Vec<Value> {
        self.log.of(message)
    }

    /// The log, also after the end.
    pub fn log(&self) -> Log {
        self.log.clone()
    }

    /// The first record with this message, when it comes.
    pub fn logged(&self, message: &str) -> Value {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(record) = self.records_of(message).into_iter().next() {
                return record;
            }
            assert!(
                Instant::now() < deadline,
                "no record {message:?} in {:#?}",
                self.records()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The worker processes that live and have reported.
    pub fn workers(&self) -> Vec<Process> {
        let up = self.records_of("worker is up");
        let mut workers = children(self.pid());
        workers.retain(|worker| {
            // A child has its parent's name until it is a program of its own.
            let reported = up.iter().any(|record| record["pid"] == worker.pid);
            reported && worker.state != 'Z'
        });
        workers
    }

    /// The workers, when there are so many.
    pub fn workers_up(&self, count: usize) -> Vec<Process> {
        until("workers are up", LIMIT, || self.workers().len() == count);
        self.workers()
    }

    /// Signals the server alone.
    pub fn signal(&self, with: Signal) {
        signal(self.pid(), with);
    }

    /// Signals the server and its workers, as ^C in a terminal does.
    pub fn signal_group(&self, with: Signal) {
        kill_process_group(pid(self.pid()), with).unwrap();
    }

    /// Waits for the end; after it, the log is complete.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let status = wait_for(&mut self.child, limit);
        until("the log ends", LIMIT, || self.reader.is_finished());
        status
    }

    /// The folder for temporary files, of this server alone.
    pub fn temporary(&self) -> &Path {
        self.temporary.path()
    }

    /// What stands in the folder for temporary files.
    pub fn left_behind(&self) -> Vec<String> {
        entries(self.temporary())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Names of the entries of a folder.
pub fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}

/// A process as the system shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    /// `Z` is a zombie, `T` is stopped.
    pub state: char,
    pub name: String,
}

/// Time that a process has spent on a core, if there is one.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let schedstat = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    let spent = schedstat.split(' ').next()?.parse().ok()?;
    Some(Duration::from_nanos(spent))
}

/// The process of a number, if there is one.
pub fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let (head, tail) = stat.rsplit_once(')')?;
    let mut fields = tail.split_whitespace();
    Some(Process {
        pid,
        name: head.split_once('(')?.1.to_owned(),
        state: fields.next()?.chars().next()?,
        parent: fields.next()?.parse().ok()?,
    })
}

/// The children of a process, zombies too.
pub fn children(parent: u32) -> Vec<Process> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?))
        .filter(|process| process.parent == parent)
        .collect()
}

/// Whether none of these processes runs any more.
pub fn all_gone(processes: &[Process]) -> bool {
    processes.iter().all(|old| {
        // The number may belong to another by now.
        process(old.pid).is_none_or(|now| now.name != old.name || now.state == 'Z')
    })
}

/// Signals one process.
pub fn signal(to: u32, with: Signal) {
    kill_process(pid(to), with).unwrap();
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.try_into().unwrap()).unwrap()
}

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Resident memory of a process in bytes.
pub fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() * 1024
}

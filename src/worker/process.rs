//! Worker processes: spawning, talking, killing. The only file that knows
//! procspawn and ipc-channel, so that both could be replaced.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipc_channel::ipc::{
    self, IpcBytesReceiver, IpcBytesSender, IpcReceiver, IpcSender, bytes_channel,
};
use ipc_channel::{IpcError, TryRecvError};
use procspawn::{Builder, JoinHandle, ProcConfig};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::cancels::Cancels;
use super::ending::{MemoryKills, is_stopped, was_killed};
use super::faults;
use super::log;
use super::protocol::{Job, JobId, Reply, Request};
use super::runner::{Answers, HangUp, Runner};
use super::sandbox::{Confines, Sandbox, enter};
use super::temporary::{FirstSocket, TemporaryFolderError, check_temporary_folder};
use crate::mef::Roots;

static INITIALISED: AtomicBool = AtomicBool::new(false);

/// Prepares this program for worker processes. Must be the first thing that
/// `main` does.
///
/// A worker is this same executable, started again. In a worker the call does
/// the worker's job and never returns; everything that `main` does before it
/// happens in every worker too. In the server it returns at once. A host that
/// forgets it gets no workers: reads are decoded in the process itself, and a
/// warning says so.
///
/// Programs whose executable is not their own (a shared library loaded by an
/// interpreter) must not call it, and run without workers.
pub fn init() {
    INITIALISED.store(true, Ordering::Release);
    let _socket = FirstSocket::of_this_process();
    // Resolving a backtrace takes a hundred milliseconds, in which the server
    // would wait to hear of the panic.
    ProcConfig::new()
        .pass_args(false)
        .capture_backtraces(false)
        .resolve_backtraces(false)
        .init();
}

/// Whether [`init`] was called.
pub(crate) fn is_initialised() -> bool {
    INITIALISED.load(Ordering::Acquire)
}

/// A worker that cannot be started.
#[derive(Debug, Error)]
pub(crate) enum SpawnError {
    #[error(transparent)]
    TemporaryFolder(#[from] TemporaryFolderError),
    #[error("no channel to a worker: {0}")]
    Channel(#[from] io::Error),
    #[error("worker process cannot be started: {0}")]
    Start(String),
    #[error("worker did not report within its time limit")]
    Silent,
    #[error("worker is not confined as workers.sandbox requires: {0}")]
    Sandbox(Sandbox),
}

/// The end of a conversation with a worker.
#[derive(Debug, Error)]
pub(crate) enum Lost {
    /// The process is gone, or will be taken for gone.
    #[error("connection to the worker broke: {0}")]
    Broken(String),
}

/// What every worker of a server is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WorkerSettings {
    /// Segments that it keeps open.
    pub(crate) open_segments: NonZeroUsize,
    pub(crate) confines: Confines,
    /// Whether it must not run without its whole sandbox.
    pub(crate) sandbox_required: bool,
    /// Whether lines of the log are JSON.
    pub(crate) log_json: bool,
}

/// A running worker. Dropping it kills the process and reaps it.
pub(crate) struct WorkerProcess {
    handle: JoinHandle<()>,
    requests: IpcSender<Request>,
    cancels: IpcSender<JobId>,
    replies: IpcReceiver<Reply>,
    payloads: IpcBytesReceiver,
    sandbox: Sandbox,
    /// This server has killed it.
    killed: Arc<AtomicBool>,
    memory_kills: MemoryKills,
}

impl WorkerProcess {
    /// Starts a worker and waits until it reports.
    ///
    /// Blocks, without a limit where the child dies before it connects; see
    /// [`rescue`](super::rescue). Must be called on the thread that will own the
    /// worker, since the worker dies with that thread.
    pub(crate) fn spawn(
        name: &str,
        settings: &WorkerSettings,
        limit: Duration,
    ) -> Result<Self, SpawnError> {
        check_temporary_folder()?;
        // ipc-channel panics where its socket cannot be made.
        let spawned = catch_unwind(AssertUnwindSafe(|| Self::start(name, settings)));
        let mut worker =
            spawned.map_err(|_| SpawnError::Start("socket cannot be made".into()))??;
        match worker.replies.try_recv_timeout(limit) {
            Ok(Reply::Ready(sandbox)) if settings.sandbox_required && !sandbox.is_whole() => {
                Err(SpawnError::Sandbox(sandbox))
            }
            Ok(Reply::Ready(sandbox)) => {
                worker.sandbox = sandbox;
                Ok(worker)
            }
            Ok(_) | Err(TryRecvError::Empty) => Err(SpawnError::Silent),
            Err(TryRecvError::IpcError(error)) => Err(SpawnError::Start(error.to_string())),
        }
    }

    fn start(name: &str, settings: &WorkerSettings) -> Result<Self, SpawnError> {
        let (requests, worker_requests) = ipc::channel()?;
        let (cancels, worker_cancels) = ipc::channel()?;
        let (worker_replies, replies) = ipc::channel()?;
        let (worker_payloads, payloads) = bytes_channel()?;
        let arguments = WorkerArguments {
            name: name.to_owned(),
            server: std::process::id(),
            settings: settings.clone(),
            requests: worker_requests,
            cancels: worker_cancels,
            replies: worker_replies,
            payloads: worker_payloads,
        };
        let handle = Builder::new()
            // A backtrace of an abort would cost 100 ms in the dying worker.
            .env_remove("RUST_BACKTRACE")
            // Workers are told passwords with the work that needs them.
            .env_remove("MEF3_PASSWORD")
            // Names of sockets that a service manager passed to the server.
            .env_remove("LISTEN_FDNAMES")
            .spawn(arguments, worker_main);
        if handle.pid().is_none() {
            let error = handle.join().err().map(|error| error.to_string());
            return Err(SpawnError::Start(error.unwrap_or_default()));
        }
        Ok(Self {
            handle,
            requests,
            cancels,
            replies,
            payloads,
            sandbox: Sandbox::default(),
            killed: Arc::default(),
            memory_kills: MemoryKills::now(),
        })
    }

    /// What the worker is confined to.
    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// A reference for those who do not own the worker.
    pub(crate) fn reference(&self) -> Option<WorkerRef> {
        let pid = self.handle.pid()?;
        // Not reaped yet, so the number still means this process.
        let descriptor =
            raw_pid(pid).and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
        let cancels = self.cancels.clone();
        Some(WorkerRef {
            pid,
            descriptor,
            killed: Arc::clone(&self.killed),
            cancels,
        })
    }

    /// Notes that the worker is well, so that its end can be explained.
    pub(crate) fn is_well(&mut self) {
        self.memory_kills.renew();
    }

    /// Whether the worker, which is lost, was killed by somebody else.
    pub(crate) fn was_killed_from_outside(&self) -> bool {
        let pid = self.handle.pid().and_then(raw_pid);
        let by_us = self.killed.load(Ordering::SeqCst);
        !by_us && pid.is_some_and(|pid| was_killed(pid, &self.memory_kills))
    }

    /// Sends a request. Blocks where hundreds are unanswered, and for one that is too
    /// long for the channel until the worker takes it, which it does when it has nothing
    /// else to do.
    pub(crate) fn send(&self, request: Request) -> Result<(), Lost> {
        self.requests
            .send(request)
            .map_err(|error| Lost::Broken(error.to_string()))
    }

    /// Waits for the next reply, however long it takes: a worker that does not
    /// move is killed from outside, which ends the wait.
    pub(crate) fn receive(&self) -> Result<Reply, Lost> {
        loop {
            match self.replies.recv() {
                Err(IpcError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                reply => return reply.map_err(|error| Lost::Broken(error.to_string())),
            }
        }
    }

    /// Waits for the payload that the last reply announced.
    pub(crate) fn receive_payload(&self) -> Result<Vec<u8>, Lost> {
        loop {
            match self.payloads.recv() {
                Err(IpcError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                payload => return payload.map_err(|error| Lost::Broken(error.to_string())),
            }
        }
    }

    /// Whether an idle worker is still there; it has nothing to say.
    pub(crate) fn check_idle(&self) -> Result<(), Lost> {
        match self.replies.try_recv() {
            Err(TryRecvError::Empty) => Ok(()),
            Err(TryRecvError::IpcError(IpcError::Io(error)))
                if error.kind() == io::ErrorKind::Interrupted =>
            {
                Ok(())
            }
            Err(TryRecvError::IpcError(error)) => Err(Lost::Broken(error.to_string())),
            Ok(_) => Err(Lost::Broken("unasked reply".into())),
        }
    }
}

/// What a worker is told at its start.
#[derive(Serialize, Deserialize)]
struct WorkerArguments {
    name: String,
    server: u32,
    settings: WorkerSettings,
    requests: IpcReceiver<Request>,
    /// Jobs that nobody wants any more. A channel of its own, since a worker looks
    /// at it while it works.
    cancels: IpcReceiver<JobId>,
    replies: IpcSender<Reply>,
    payloads: IpcBytesSender,
}

/// A worker's life: do what is asked until the server hangs up.
fn worker_main(arguments: WorkerArguments) {
    let WorkerArguments {
        name,
        server,
        settings,
        requests,
        cancels,
        replies,
        payloads,
    } = arguments;
    if prepare_process(&name, server).is_err() {
        return;
    }
    log::start(settings.log_json);
    faults::arm();
    // Before anything of a file is read. Without its limits it does not begin.
    let Ok(sandbox) = enter(&settings.confines) else {
        return;
    };
    let mut runner = Runner::new(settings.open_segments, Roots::new(&settings.confines.roots));
    let mut answers = Channels {
        replies,
        payloads,
        cancels: Cancels::default(),
        cancelled: cancels,
    };
    if answers.replies.send(Reply::Ready(sandbox)).is_err() {
        return;
    }
    loop {
        match requests.recv() {
            Ok(Request::Do(job)) => {
                log::set_detail(job.detail);
                let begun = answers.answer(Reply::Begun(job.id), &[]);
                if begun.and_then(|()| runner.run(&job, &mut answers)).is_err() {
                    return;
                }
            }
            Ok(Request::Close(session)) => runner.close(&session),
            Err(IpcError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            // The server closed the channel, or says what cannot be understood.
            Err(_) => return,
        }
    }
}

/// Makes the process a worker in the eyes of the system: it dies with its
/// server, ignores the signals that are meant for the server, goes first when
/// memory runs out, and has a name of its own.
fn prepare_process(name: &str, server: u32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The server may have died before the line above took effect.
    let parent = rustix::process::getppid();
    if parent.map(Pid::as_raw_pid) != i32::try_from(server).ok() {
        return Err(io::Error::from(io::ErrorKind::BrokenPipe));
    }
    // ^C and service managers signal the whole group, before the server drains.
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    if let Ok(name) = std::ffi::CString::new(name) {
        rustix::thread::set_name(&name)?;
    }
    // Not everywhere allowed, and nothing depends on it.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    Ok(())
}

/// The worker's side of the channels that it uses while it does a job.
struct Channels {
    replies: IpcSender<Reply>,
    payloads: IpcBytesSender,
    cancels: Cancels,
    cancelled: IpcReceiver<JobId>,
}

impl Answers for Channels {
    fn answer(&mut self, reply: Reply, samples: &[i32]) -> Result<(), HangUp> {
        let (reply, samples) = faults::spoilt(reply, samples);
        self.replies.send(reply).map_err(|_| HangUp)?;
        if samples.is_empty() {
            return Ok(());
        }
        let payload = bytemuck::cast_slice(&samples);
        self.payloads.send(payload).map_err(|_| HangUp)
    }

    fn working(&mut self, job: JobId) {
        // A server that is gone is noticed with the next answer.
        let _ = self.replies.send(Reply::Working(job));
    }

    fn is_cancelled(&mut self, job: &Job) -> bool {
        // What is wrong with the channel shows where the worker waits for work.
        self.cancels
            .contain(job.id, || self.cancelled.try_recv().ok())
    }
}

/// Names a worker process for those who do not own it: to show it, to kill it
/// and to take jobs back, even while its bridge waits for it.
#[derive(Debug)]
pub(crate) struct WorkerRef {
    pid: u32,
    /// Refers to this very process, also after its number went to another.
    /// Empty where the kernel has no such descriptors.
    descriptor: Option<OwnedFd>,
    /// Set before this server kills it.
    killed: Arc<AtomicBool>,
    cancels: IpcSender<JobId>,
}

impl WorkerRef {
    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells the worker that nobody wants a job. It never waits: a worker has two
    /// jobs at most, gets two such notes of each at most, empties the channel at the
    /// start of each, and hundreds fit into it.
    pub(crate) fn cancel(&self, job: JobId) {
        // A worker that is gone does nothing more, either.
        let _ = self.cancels.send(job);
    }

    /// Kills a process that makes no progress. One that somebody has stopped is not
    /// held against what it reads: it counts as killed by whoever stopped it. The result
    /// says whether it stalled by itself.
    pub(crate) fn kill_stalled(&self) -> bool {
        let stopped = raw_pid(self.pid).is_some_and(is_stopped);
        if stopped {
            self.send_kill();
        } else {
            self.kill();
        }
        !stopped
    }

    /// Kills the process. That it has ended already is as good.
    pub(crate) fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.send_kill();
    }

    fn send_kill(&self) {
        let killed = match (&self.descriptor, raw_pid(self.pid)) {
            (Some(descriptor), _) => rustix::process::pidfd_send_signal(descriptor, Signal::KILL),
            (None, Some(pid)) => rustix::process::kill_process(pid, Signal::KILL),
            (None, None) => return,
        };
        if let Err(error) = killed {
            tracing::debug!(%error, pid = self.pid, "worker was not killed");
        }
    }
}

fn raw_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

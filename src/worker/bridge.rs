//! The bridge thread of one worker: it starts the process, hands it jobs,
//! checks its answers, and reaps it. The only place that waits on a worker, and
//! it lives exactly as long as one, since a worker dies with the thread that
//! started it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use thiserror::Error;

use super::page::PagedRecording;
use super::process::{Lost, SpawnError, WorkerProcess, WorkerRef, WorkerSettings};
use super::protocol::{Job, JobCheck, JobId, Lie, PageOutcome, Reply, Request};
use super::rescue::reap_lost_children;
use super::sandbox::Sandbox;
use crate::mef::{MefError, RecordPage, Refresh};

/// Jobs that a worker has at a time: one that it does, and one that is there
/// already when that is done.
pub(crate) const JOBS_PER_WORKER: usize = 2;
/// Jobs and notes that wait for a bridge. A note that does not fit is dropped:
/// closing files early saves descriptors, and checks of identity keep reads
/// right without it.
const MAILBOX: usize = JOBS_PER_WORKER + 16;
/// How soon the death of an idle worker is noticed.
const IDLE_CHECK: Duration = Duration::from_millis(50);

/// What a bridge is asked.
#[derive(Debug)]
pub(crate) enum Command {
    /// Do a job.
    Do(Arc<Job>),
    /// Forget what is open below a session folder.
    Close(PathBuf),
}

/// What a bridge reports.
#[derive(Debug)]
pub(crate) enum Event {
    /// The worker is there, and confined so far.
    Up(Option<WorkerRef>, Sandbox),
    /// The worker makes progress with the job that it is doing.
    Working,
    /// News of a job.
    Job(JobId, JobEvent),
    /// The worker is gone and reaped. The last event of a bridge.
    Down {
        /// Why.
        cause: Cause,
        /// The job that it was doing; it had not begun the others.
        during: Option<JobId>,
    },
}

/// News of a job.
#[derive(Debug)]
pub(crate) enum JobEvent {
    /// The session of an open job.
    Opened(Result<Arc<PagedRecording>, MefError>),
    /// What is new in a session.
    Refreshed(Result<Refresh, MefError>),
    /// Some records of a session.
    Records(Result<RecordPage, MefError>),
    /// The probe was decoded as it should be.
    Probed,
    /// Some of a decode job's pages.
    Pages(Vec<PageOutcome>),
    /// The job is complete.
    Done,
    /// The decoder panicked; the rest of the job is undone.
    Panicked(String),
    /// The reader has left off, since the job was cancelled; the rest is undone.
    Cancelled,
    /// Nobody has begun the job; it is undone and not to blame for anything.
    Returned,
    /// The reader was lost while it did the job; the rest is undone.
    Lost,
    /// The reader was killed, since it got no further with the job; the rest is undone.
    Stalled,
    /// The reader was killed from outside while it did the job, which is not to
    /// blame for it; the rest is undone.
    Killed,
}

/// Why a worker is gone.
#[derive(Debug, Error)]
pub(crate) enum Cause {
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error("worker was stopped or killed from outside")]
    Killed,
    #[error("worker lied: {0}")]
    Lied(#[from] Lie),
    #[error("worker was told to stop")]
    Stopped,
}

/// What a bridge needs to know.
#[derive(Clone, Debug)]
pub(crate) struct BridgeSettings {
    pub(crate) name: String,
    pub(crate) worker: WorkerSettings,
    pub(crate) spawn_limit: Duration,
    pub(crate) page_samples: u32,
}

/// Starts a bridge thread. It ends when the sender is dropped or the worker is
/// lost, after its last event.
pub(crate) fn start(
    settings: BridgeSettings,
    report: impl Fn(Event) + Send + 'static,
) -> std::io::Result<SyncSender<Command>> {
    let (commands, mailbox) = sync_channel(MAILBOX);
    thread::Builder::new()
        .name(settings.name.clone())
        .spawn(move || {
            let (cause, during) = live(&settings, &mailbox, &report);
            report(Event::Down { cause, during });
        })?;
    Ok(commands)
}

/// From spawn to death: its cause, and the job that it came in.
fn live(
    settings: &BridgeSettings,
    mailbox: &Receiver<Command>,
    report: &dyn Fn(Event),
) -> (Cause, Option<JobId>) {
    let spawned = WorkerProcess::spawn(&settings.name, &settings.worker, settings.spawn_limit);
    let worker = match spawned {
        Ok(worker) => worker,
        Err(error) => {
            reap_lost_children();
            return (error.into(), None);
        }
    };
    report(Event::Up(worker.reference(), worker.sandbox().clone()));
    let mut bridge = Bridge {
        worker,
        page_samples: settings.page_samples,
        jobs: VecDeque::new(),
        begun: None,
    };
    loop {
        if let Err(mut cause) = bridge.step(mailbox, report) {
            if matches!(cause, Cause::Lost(_)) && bridge.worker.was_killed_from_outside() {
                cause = Cause::Killed;
            }
            return (cause, bridge.begun);
        }
    }
}

struct Bridge {
    worker: WorkerProcess,
    page_samples: u32,
    /// Jobs that the worker has, the one it does first.
    jobs: VecDeque<JobCheck>,
    /// The first of them, once the worker has begun it.
    begun: Option<JobId>,
}

impl Bridge {
    fn step(&mut self, mailbox: &Receiver<Command>, report: &dyn Fn(Event)) -> Result<(), Cause> {
        if self.jobs.is_empty() {
            match mailbox.recv_timeout(IDLE_CHECK) {
                Ok(command) => self.pass_on(command)?,
                Err(RecvTimeoutError::Timeout) => {
                    self.worker.check_idle()?;
                    self.worker.is_well();
                }
                Err(RecvTimeoutError::Disconnected) => return Err(Cause::Stopped),
            }
            return Ok(());
        }
        loop {
            match mailbox.try_recv() {
                Ok(command) => self.pass_on(command)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(Cause::Stopped),
            }
        }
        let reply = self.worker.receive()?;
        let Some(check) = self.jobs.front_mut() else {
            return Ok(());
        };
        let id = check.job_id();
        match reply {
            Reply::Ready(_) => return Err(Lie::Kind.into()),
            Reply::Begun(job) => {
                check_job(job, id)?;
                self.begun = Some(job);
                self.worker.is_well();
            }
            Reply::Working(job) => {
                check_job(job, id)?;
                report(Event::Working);
            }
            Reply::Opened(job, mut opened) => {
                check.opened(job, &mut opened)?;
                let page_samples = self.page_samples;
                let opened =
                    opened.map(|recording| Arc::new(PagedRecording::new(*recording, page_samples)));
                report(Event::Job(id, JobEvent::Opened(opened)));
            }
            Reply::Refreshed(job, news) => {
                check.refreshed(job, &news)?;
                report(Event::Job(id, JobEvent::Refreshed(news)));
            }
            Reply::Records(job, page) => {
                check.records(job, &page)?;
                report(Event::Job(id, JobEvent::Records(page)));
            }
            Reply::Probed(job, samples) => {
                check.probed(job, &samples)?;
                report(Event::Job(id, JobEvent::Probed));
            }
            Reply::Pages(job, headers) => {
                let payload = match check.headers(job, &headers)? {
                    0 => Vec::new(),
                    _ => self.worker.receive_payload()?,
                };
                let pages = check.pages(headers, &payload)?;
                report(Event::Job(id, JobEvent::Pages(pages)));
            }
            Reply::Done(job) => {
                check.done(job)?;
                self.jobs.pop_front();
                self.begun = None;
                report(Event::Job(id, JobEvent::Done));
            }
            Reply::Cancelled(job) => {
                check.cancelled(job)?;
                self.jobs.pop_front();
                self.begun = None;
                report(Event::Job(id, JobEvent::Cancelled));
            }
            Reply::Panicked(job, message) => {
                check_job(job, id)?;
                self.jobs.pop_front();
                self.begun = None;
                report(Event::Job(id, JobEvent::Panicked(message)));
            }
        }
        Ok(())
    }

    fn pass_on(&mut self, command: Command) -> Result<(), Lost> {
        match command {
            Command::Do(job) => {
                // Noted first: if sending fails, the job is lost like any other.
                self.jobs.push_back(JobCheck::new(Arc::clone(&job)));
                self.worker.send(Request::Do(job))
            }
            Command::Close(session) => self.worker.send(Request::Close(session)),
        }
    }
}

fn check_job(got: JobId, expected: JobId) -> Result<(), Lie> {
    if got == expected {
        Ok(())
    } else {
        Err(Lie::Job { got, expected })
    }
}

//! Sessions that are opened, looked at again or searched for records: jobs that are
//! done for one question, and are no pages.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use actix::{Handler, Message};
use tokio::sync::oneshot;

use super::{Coordinator, Ending, Kind, Run};
use crate::actors::blame::Suspicion;
use crate::actors::stuck::Gate;
use crate::error::Error;
use crate::mef::{Known, OpenOptions, RecordPage, RecordQuery, RecordReader, Refresh};
use crate::trace::Trace;
use crate::worker::page::PagedRecording;
use crate::worker::protocol::{JobId, Work};

/// A session that is to be opened, or looked at again.
pub(super) struct PendingOpen {
    pub(super) path: PathBuf,
    pub(super) options: OpenOptions,
    pub(super) asked: Asked,
    /// The request that it is for.
    pub(super) trace: Option<Trace>,
    pub(super) queued_at: Instant,
    /// The file system that it is about, where that is known.
    device: Option<u64>,
}

/// What is done with a session. Each is judged by itself: that one of them ends its
/// reader says little of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Task {
    Open,
    Refresh,
    Records,
}

pub(super) enum Asked {
    Open(oneshot::Sender<Result<Arc<PagedRecording>, Error>>),
    Refresh(Arc<Known>, oneshot::Sender<Result<Refresh, Error>>),
    Records(
        Arc<RecordReader>,
        RecordQuery,
        oneshot::Sender<Result<RecordPage, Error>>,
    ),
}

impl PendingOpen {
    pub(super) fn new(
        path: PathBuf,
        options: OpenOptions,
        asked: Asked,
        trace: Option<Trace>,
    ) -> Self {
        Self {
            path,
            options,
            asked,
            trace,
            queued_at: Instant::now(),
            device: None,
        }
    }

    pub(super) fn task(&self) -> Task {
        match &self.asked {
            Asked::Open(_) => Task::Open,
            Asked::Refresh(..) => Task::Refresh,
            Asked::Records(..) => Task::Records,
        }
    }

    /// What it is known by to those who hold something against it.
    fn culprit(&self) -> (PathBuf, Task) {
        (self.path.clone(), self.task())
    }

    pub(super) fn is_cancelled(&self) -> bool {
        match &self.asked {
            Asked::Open(reply) => reply.is_closed(),
            Asked::Refresh(_, reply) => reply.is_closed(),
            Asked::Records(_, _, reply) => reply.is_closed(),
        }
    }

    pub(super) fn work(&self) -> Work {
        let (path, options) = (self.path.clone(), self.options.clone());
        match &self.asked {
            Asked::Open(_) => Work::Open(path, options),
            Asked::Refresh(known, _) => Work::Refresh(path, options, Arc::clone(known)),
            Asked::Records(reader, query, _) => {
                Work::Records(path, Arc::clone(reader), query.clone())
            }
        }
    }

    /// Answers with an error. Whoever asked may be gone.
    pub(super) fn fail(self, error: Error) {
        match self.asked {
            Asked::Open(reply) => drop(reply.send(Err(error))),
            Asked::Refresh(_, reply) => drop(reply.send(Err(error))),
            Asked::Records(_, _, reply) => drop(reply.send(Err(error))),
        }
    }
}

impl Coordinator {
    pub(super) fn open(&mut self, open: PendingOpen) {
        if let Some(error) = self.blame.refusal(&open.culprit(), &()) {
            let error = error.clone();
            return open.fail(error);
        }
        if self.opens.len() + self.looks.len() >= self.mailbox {
            return open.fail(Error::Busy {
                limit: "limits.mailbox",
                value: self.mailbox as u64,
            });
        }
        self.queue_of(open.task()).push_back(open);
        self.dispatch();
    }

    /// Openings and searches for records may take long, and reads wait for looks.
    fn queue_of(&mut self, task: Task) -> &mut VecDeque<PendingOpen> {
        match task {
            Task::Open | Task::Records => &mut self.opens,
            Task::Refresh => &mut self.looks,
        }
    }

    /// The next look, opening or search that may begin.
    pub(super) fn next_open(&mut self) -> Option<PendingOpen> {
        let unhealthy = self.may_begin_uncertain();
        let mut looks = 0..self.looks.len();
        if let Some(place) = looks.find(|&place| self.may_look(place, unhealthy)) {
            return self.looks.remove(place);
        }
        if unhealthy {
            return self.opens.pop_front();
        }
        None
    }

    /// Whether a look may begin, where `unhealthy` says that any may.
    fn may_look(&mut self, place: usize, unhealthy: bool) -> bool {
        let Some(look) = self.looks.get(place) else {
            return false;
        };
        let suspect = !self.blame.is_empty() && self.suspicion(look).deadly;
        match self.gate(look.device) {
            Gate::Open => unhealthy || !suspect,
            Gate::Try => unhealthy,
            Gate::Wait | Gate::Shut => false,
        }
    }

    fn gate(&mut self, device: Option<u64>) -> Gate {
        let storage = self.flights.storage();
        device.map_or(Gate::Open, |device| storage.gate(device, Instant::now()))
    }

    /// Answers looks at storage that does not answer with an error.
    pub(super) fn refuse_stuck_looks(&mut self) {
        if self.flights.storage().is_empty() {
            return;
        }
        for look in std::mem::take(&mut self.looks) {
            if self.gate(look.device) == Gate::Shut {
                let what = look.path.display().to_string();
                look.fail(Error::StuckStorage { what });
            } else {
                self.looks.push_back(look);
            }
        }
    }

    fn suspicion(&self, open: &PendingOpen) -> Suspicion {
        self.blame.suspicion(&open.culprit(), &())
    }

    /// Starts the opening of a session, unless nobody waits for it or nobody may
    /// do it.
    pub(super) fn run_open(&mut self, open: PendingOpen) {
        if open.is_cancelled() {
            return;
        }
        let trying = self.gate(open.device) != Gate::Open;
        let suspect = self.suspicion(&open).deadly;
        if self.capacity.who.refuses(suspect || trying) {
            let what = open.path.display().to_string();
            return open.fail(Error::NoWorker { what });
        }
        if let Some(device) = open.device.filter(|_| trying) {
            self.flights.storage().begin(device, Instant::now());
        }
        let task = open.task();
        self.run(Run {
            work: open.work(),
            traces: open.trace.iter().cloned().collect(),
            kind: Kind::Open(task, Some(open)),
            predicted: false,
            suspect,
            uncertain: suspect || trying || task != Task::Refresh,
            lane: None,
            apart: true,
        });
    }

    /// What a job was asked to open, now that it is answered.
    pub(super) fn answered_open(&mut self, job: JobId) -> Option<PendingOpen> {
        let Kind::Open(_, open) = &mut self.running.get_mut(&job)?.kind else {
            return None;
        };
        let open = open.take()?;
        self.blame.clear(&open.culprit());
        if let Some(device) = open.device {
            self.flights.storage().answered(device);
        }
        Some(open)
    }

    pub(super) fn put_back_open(&mut self, open: PendingOpen, ending: Ending) {
        let path = open.path.display().to_string();
        let culprit = open.culprit();
        if let Some(device) = open.device {
            match ending {
                Ending::Stalled => self.flights.storage().stalled(device, Instant::now()),
                _ => self.flights.storage().ended(device),
            }
        }
        let error = match ending {
            Ending::NotBegun => return self.queue_of(open.task()).push_front(open),
            Ending::Died | Ending::Stalled | Ending::Killed => {
                let mut suspicion = self.blame.suspicion(&culprit, &());
                let hopeless = match ending {
                    Ending::Killed => suspicion.killed(),
                    _ => suspicion.died_alone(),
                };
                self.blame.suspect(culprit.clone(), (), suspicion);
                if !hopeless {
                    // What is well comes first.
                    return self.queue_of(open.task()).push_back(open);
                }
                let deaths = suspicion.deaths;
                Error::PoisonedSession { path, deaths }
            }
            Ending::Panicked(message) => Error::OpeningPanicked { path, message },
        };
        self.blame.give_up(culprit, (), error.clone());
        open.fail(error);
    }
}

/// Asks for a session to be opened.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct OpenSession {
    pub(crate) path: PathBuf,
    pub(crate) options: OpenOptions,
    /// The request that it is for.
    pub(crate) trace: Option<Trace>,
    /// Dropping the other end cancels what has not begun.
    pub(crate) reply: oneshot::Sender<Result<Arc<PagedRecording>, Error>>,
}

impl Handler<OpenSession> for Coordinator {
    type Result = ();

    fn handle(&mut self, open: OpenSession, _: &mut Self::Context) {
        let asked = Asked::Open(open.reply);
        self.open(PendingOpen::new(open.path, open.options, asked, open.trace));
    }
}

/// Asks for what is new in a session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RefreshSession {
    pub(crate) path: PathBuf,
    pub(crate) options: OpenOptions,
    pub(crate) known: Arc<Known>,
    /// The file system that the session is on.
    pub(crate) device: Option<u64>,
    /// The request that it is for.
    pub(crate) trace: Option<Trace>,
    /// Dropping the other end cancels what has not begun.
    pub(crate) reply: oneshot::Sender<Result<Refresh, Error>>,
}

impl Handler<RefreshSession> for Coordinator {
    type Result = ();

    fn handle(&mut self, refresh: RefreshSession, _: &mut Self::Context) {
        let asked = Asked::Refresh(refresh.known, refresh.reply);
        self.open(PendingOpen {
            device: refresh.device,
            ..PendingOpen::new(refresh.path, refresh.options, asked, refresh.trace)
        });
    }
}

/// Asks for records of a session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ReadRecords {
    pub(crate) path: PathBuf,
    pub(crate) reader: RecordReader,
    pub(crate) query: RecordQuery,
    /// The request that it is for.
    pub(crate) trace: Option<Trace>,
    /// Dropping the other end cancels what has not begun.
    pub(crate) reply: oneshot::Sender<Result<RecordPage, Error>>,
}

impl Handler<ReadRecords> for Coordinator {
    type Result = ();

    fn handle(&mut self, read: ReadRecords, _: &mut Self::Context) {
        let asked = Asked::Records(Arc::new(read.reader), read.query, read.reply);
        self.open(PendingOpen::new(
            read.path,
            OpenOptions::default(),
            asked,
            read.trace,
        ));
    }
}

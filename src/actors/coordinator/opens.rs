//! Sessions that are opened, looked at again or searched for records: jobs that are
//! done for one question, and are no pages.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use actix::{Handler, Message};
use tokio::sync::oneshot;

use super::{Coordinator, Ending, Kind, Run};
use crate::error::Error;
use crate::mef::{Known, OpenOptions, RecordPage, RecordQuery, RecordReader, Refresh};
use crate::worker::page::PagedRecording;
use crate::worker::protocol::{JobId, Work};

/// A session that is to be opened, or looked at again.
pub(super) struct PendingOpen {
    pub(super) path: PathBuf,
    pub(super) options: OpenOptions,
    pub(super) asked: Asked,
    pub(super) queued_at: Instant,
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
    pub(super) fn new(path: PathBuf, options: OpenOptions, asked: Asked) -> Self {
        Self {
            path,
            options,
            asked,
            queued_at: Instant::now(),
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

    /// Openings wait for themselves: they may take long, and reads wait for looks.
    fn queue_of(&mut self, task: Task) -> &mut VecDeque<PendingOpen> {
        match task {
            Task::Open => &mut self.opens,
            Task::Refresh | Task::Records => &mut self.looks,
        }
    }

    /// The next opening, look or search that may begin. Of neither do so many run that
    /// no reader is left for pages: where a session's storage does not answer, its
    /// readers come back late.
    pub(super) fn next_open(&mut self) -> Option<PendingOpen> {
        let most = self.capacity.all_but_one();
        let runs = |wanted: fn(Task) -> bool| {
            let tasks = self
                .running
                .values()
                .filter_map(|running| running.kind.task());
            tasks.filter(|&task| wanted(task)).count()
        };
        if !self.opens.is_empty() && runs(|task| task == Task::Open) < most {
            return self.opens.pop_front();
        }
        if !self.looks.is_empty() && runs(|task| task != Task::Open) < most {
            return self.looks.pop_front();
        }
        None
    }

    /// Starts the opening of a session, unless nobody waits for it or nobody may
    /// do it.
    pub(super) fn run_open(&mut self, open: PendingOpen) {
        if open.is_cancelled() {
            return;
        }
        let suspect = self.blame.suspicion(&open.culprit(), &()).deadly;
        if self.capacity.who.refuses(suspect) {
            let what = open.path.display().to_string();
            return open.fail(Error::NoWorker { what });
        }
        let (work, kind) = (open.work(), Kind::Open(open.task(), Some(open)));
        self.run(Run {
            work,
            kind,
            predicted: false,
            suspect,
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
        Some(open)
    }

    pub(super) fn put_back_open(&mut self, open: PendingOpen, ending: Ending) {
        let path = open.path.display().to_string();
        let culprit = open.culprit();
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
                    return self.queue_of(open.task()).push_front(open);
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
    /// Dropping the other end cancels what has not begun.
    pub(crate) reply: oneshot::Sender<Result<Arc<PagedRecording>, Error>>,
}

impl Handler<OpenSession> for Coordinator {
    type Result = ();

    fn handle(&mut self, open: OpenSession, _: &mut Self::Context) {
        let asked = Asked::Open(open.reply);
        self.open(PendingOpen::new(open.path, open.options, asked));
    }
}

/// Asks for what is new in a session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RefreshSession {
    pub(crate) path: PathBuf,
    pub(crate) options: OpenOptions,
    pub(crate) known: Arc<Known>,
    /// Dropping the other end cancels what has not begun.
    pub(crate) reply: oneshot::Sender<Result<Refresh, Error>>,
}

impl Handler<RefreshSession> for Coordinator {
    type Result = ();

    fn handle(&mut self, refresh: RefreshSession, _: &mut Self::Context) {
        let asked = Asked::Refresh(refresh.known, refresh.reply);
        self.open(PendingOpen::new(refresh.path, refresh.options, asked));
    }
}

/// Asks for records of a session.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ReadRecords {
    pub(crate) path: PathBuf,
    pub(crate) reader: RecordReader,
    pub(crate) query: RecordQuery,
    /// Dropping the other end cancels what has not begun.
    pub(crate) reply: oneshot::Sender<Result<RecordPage, Error>>,
}

impl Handler<ReadRecords> for Coordinator {
    type Result = ();

    fn handle(&mut self, read: ReadRecords, _: &mut Self::Context) {
        let asked = Asked::Records(Arc::new(read.reader), read.query, read.reply);
        self.open(PendingOpen::new(read.path, OpenOptions::default(), asked));
    }
}

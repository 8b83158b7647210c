//! Sessions that are opened, looked at again or searched for records: jobs that are
//! done for one question, and are no pages.

use std::path::PathBuf;
use std::sync::Arc;

use actix::{Handler, Message};
use tokio::sync::oneshot;

use super::{Coordinator, Ending, Kind};
use crate::error::Error;
use crate::mef::{Known, OpenOptions, RecordPage, RecordQuery, RecordReader, Refresh};
use crate::worker::page::PagedRecording;
use crate::worker::protocol::{JobId, Work};

/// A session that is to be opened, or looked at again.
pub(super) struct PendingOpen {
    pub(super) path: PathBuf,
    pub(super) options: OpenOptions,
    pub(super) asked: Asked,
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
        if let Some(error) = self.blame.refusal(&open.path) {
            let error = error.clone();
            return open.fail(error);
        }
        if self.opens.len() >= self.mailbox {
            return open.fail(Error::Busy {
                limit: "limits.mailbox",
                value: self.mailbox as u64,
            });
        }
        self.opens.push_back(open);
        self.dispatch();
    }

    /// Starts the opening of a session, unless nobody waits for it or nobody may
    /// do it.
    pub(super) fn run_open(&mut self, open: PendingOpen) {
        if open.is_cancelled() {
            return;
        }
        let suspect = self.blame.suspicion(&open.path).deadly;
        if self.capacity.who.refuses(suspect) {
            let what = open.path.display().to_string();
            return open.fail(Error::NoWorker { what });
        }
        let work = open.work();
        self.run(work, Kind::Open(Some(open)), false, suspect, None);
    }

    /// What a job was asked to open, now that it is answered.
    pub(super) fn answered_open(&mut self, job: JobId) -> Option<PendingOpen> {
        let Kind::Open(open) = &mut self.running.get_mut(&job)?.kind else {
            return None;
        };
        let open = open.take()?;
        self.blame.clear(&open.path);
        Some(open)
    }

    pub(super) fn put_back_open(&mut self, open: PendingOpen, ending: Ending) {
        let path = open.path.display().to_string();
        let error = match ending {
            Ending::NotBegun => return self.opens.push_front(open),
            Ending::Died | Ending::Killed => {
                let mut suspicion = self.blame.suspicion(&open.path);
                let hopeless = match ending {
                    Ending::Killed => suspicion.killed(),
                    _ => suspicion.died_alone(),
                };
                self.blame.suspect(open.path.clone(), suspicion);
                if !hopeless {
                    return self.opens.push_front(open);
                }
                let deaths = suspicion.deaths;
                Error::PoisonedSession { path, deaths }
            }
            Ending::Panicked(message) => Error::OpeningPanicked { path, message },
        };
        self.blame.give_up(open.path.clone(), error.clone());
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
        self.open(PendingOpen {
            path: open.path,
            options: open.options,
            asked: Asked::Open(open.reply),
        });
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
        self.open(PendingOpen {
            path: refresh.path,
            options: refresh.options,
            asked: Asked::Refresh(refresh.known, refresh.reply),
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
    /// Dropping the other end cancels what has not begun.
    pub(crate) reply: oneshot::Sender<Result<RecordPage, Error>>,
}

impl Handler<ReadRecords> for Coordinator {
    type Result = ();

    fn handle(&mut self, read: ReadRecords, _: &mut Self::Context) {
        self.open(PendingOpen {
            path: read.path,
            options: OpenOptions::default(),
            asked: Asked::Records(Arc::new(read.reader), read.query, read.reply),
        });
    }
}

//! The in-process reader: the workers' code on a thread of the server, for when
//! no worker can run.
//!
//! Owns the open segments of one thread. It is never given a job whose reader
//! has died before: what ended a worker would end the server.

use std::path::PathBuf;
use std::sync::Arc;

use actix::{Actor, Addr, Handler, Message, SyncArbiter, SyncContext};

use super::settings::Settings;
use super::supervisor::{Source, WorkerReport, WorkerSupervisor};
use crate::mef::Roots;
use crate::worker::bridge::{Event, JobEvent};
use crate::worker::page::PagedRecording;
use crate::worker::protocol::{Job, JobCheck, Lie, Reply};
use crate::worker::runner::{Answers, HangUp, Runner};

/// One reading thread of the server.
pub(crate) struct InProcessReader {
    thread: usize,
    runner: Runner,
    page_samples: u32,
    supervisor: Addr<WorkerSupervisor>,
}

impl InProcessReader {
    /// Starts the thread.
    pub(crate) fn start(
        thread: usize,
        settings: &Settings,
        supervisor: &Addr<WorkerSupervisor>,
    ) -> Addr<Self> {
        let open_segments = settings.worker.open_segments;
        let page_samples = settings.page_samples;
        let roots = Roots::new(&settings.worker.confines.roots);
        let supervisor = supervisor.clone();
        SyncArbiter::start(1, move || Self {
            thread,
            runner: Runner::new(open_segments, roots.clone()),
            page_samples,
            supervisor: supervisor.clone(),
        })
    }
}

impl Actor for InProcessReader {
    type Context = SyncContext<Self>;
}

/// Asks for a job to be done on this thread.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ReadInProcess(pub(crate) Arc<Job>);

impl Handler<ReadInProcess> for InProcessReader {
    type Result = ();

    fn handle(&mut self, ReadInProcess(job): ReadInProcess, _: &mut Self::Context) {
        let mut answers = Direct {
            check: JobCheck::new(Arc::clone(&job)),
            page_samples: self.page_samples,
            thread: self.thread,
            supervisor: &self.supervisor,
        };
        // The only listener is the supervisor; if it is gone, so is the question.
        let _ = self.runner.run(&job, &mut answers);
    }
}

/// Tells the thread to forget what is open below a session folder.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CloseInProcess(pub(crate) PathBuf);

impl Handler<CloseInProcess> for InProcessReader {
    type Result = ();

    fn handle(&mut self, CloseInProcess(session): CloseInProcess, _: &mut Self::Context) {
        self.runner.close(&session);
    }
}

/// Answers that stay in the process. They pass the same checks as a worker's.
struct Direct<'a> {
    check: JobCheck,
    page_samples: u32,
    thread: usize,
    supervisor: &'a Addr<WorkerSupervisor>,
}

impl Direct<'_> {
    fn event(&mut self, reply: Reply, samples: &[i32]) -> Result<JobEvent, Lie> {
        match reply {
            Reply::Ready(_) | Reply::Begun(_) | Reply::Working(_) => Err(Lie::Kind),
            Reply::Opened(job, mut opened) => {
                self.check.opened(job, &mut opened)?;
                let page_samples = self.page_samples;
                Ok(JobEvent::Opened(opened.map(|recording| {
                    Arc::new(PagedRecording::new(*recording, page_samples))
                })))
            }
            Reply::Refreshed(job, news) => {
                self.check.refreshed(job, &news)?;
                Ok(JobEvent::Refreshed(news))
            }
            Reply::Records(job, page) => {
                self.check.records(job, &page)?;
                Ok(JobEvent::Records(page))
            }
            Reply::Probed(job, samples) => {
                self.check.probed(job, &samples)?;
                Ok(JobEvent::Probed)
            }
            Reply::Pages(job, headers) => {
                self.check.headers(job, &headers)?;
                let payload = bytemuck::cast_slice(samples);
                Ok(JobEvent::Pages(self.check.pages(headers, payload)?))
            }
            Reply::Done(job) => self.check.done(job).map(|()| JobEvent::Done),
            Reply::Cancelled(job) => self.check.cancelled(job).map(|()| JobEvent::Cancelled),
            Reply::Panicked(_, message) => Ok(JobEvent::Panicked(message)),
        }
    }
}

impl Answers for Direct<'_> {
    fn answer(&mut self, reply: Reply, samples: &[i32]) -> Result<(), HangUp> {
        let job = self.check.job_id();
        // Our own code does not lie; if it does, that is a defect like a panic.
        let (event, go_on) = match self.event(reply, samples) {
            Ok(event) => (event, Ok(())),
            Err(lie) => (JobEvent::Panicked(lie.to_string()), Err(HangUp)),
        };
        if !self.supervisor.connected() {
            return Err(HangUp);
        }
        // Bounded by the job, of which a thread has one.
        self.supervisor.do_send(WorkerReport {
            source: Source::Thread(self.thread),
            event: Event::Job(job, event),
        });
        go_on
    }
}

//! The worker supervisor.
//!
//! Owns the worker slots: starts, watches, kills and restarts worker processes
//! through their bridge threads, and falls back to the in-process reader when
//! no worker can run. It hands out jobs and passes their news on to the
//! coordinator; what a job means it does not know.

mod scale;
mod watch;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, MessageResult};
use tokio::sync::oneshot;

pub(crate) use self::scale::QueueDelay;
use self::watch::TICK;
use super::coordinator::{Capacity, Coordinator, JobNews, Readers};
use super::in_process::{CloseInProcess, InProcessReader, ReadInProcess};
use super::settings::Settings;
use super::slot::{Loss, Slot, WorkerState, WorkerStatus};
use crate::worker::bridge::{self, BridgeSettings, Cause, Command, Event, JobEvent};
use crate::worker::protocol::{Job, JobId};
use crate::worker::{Sandbox, WORKER_NAME, WorkerRef, is_initialised};

/// Figures of the supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SupervisorStatistics {
    /// The worker slots.
    pub workers: Vec<WorkerStatus>,
    /// Whether reads are decoded in the server process, or would be if they may.
    pub in_process: bool,
    /// What the latest worker is confined to; nothing before the first.
    pub sandbox: Option<Sandbox>,
    /// Jobs that were done in the server process.
    pub in_process_jobs: u64,
    /// Workers that were killed because they made no progress.
    pub stalled: u64,
    /// Workers that could not be killed.
    pub abandoned: u64,
    /// Of these, workers that are still there.
    pub stuck: usize,
    /// Workers that were started because requests waited, or because others rest.
    pub grown: u64,
    /// Workers that were ended because they had nothing to do.
    pub shrunk: u64,
}

/// A thread of the in-process reader.
struct ReaderThread {
    address: Addr<InProcessReader>,
    job: Option<JobId>,
}

/// The supervisor actor.
pub(crate) struct WorkerSupervisor {
    settings: Settings,
    coordinator: Addr<Coordinator>,
    slots: Vec<Slot>,
    /// Jobs for readers with nothing else to do, of which there is none now.
    waiting: VecDeque<RunJob>,
    /// Started when they are first needed.
    threads: Vec<ReaderThread>,
    /// Whether the threads read because no worker can.
    fallback: bool,
    announced: Option<Capacity>,
    sandbox: Option<Sandbox>,
    /// Nothing is started any more.
    stopping: bool,
    /// Who waits for the last worker to be gone.
    stop: Option<oneshot::Sender<()>>,
    in_process_jobs: u64,
    stalled: u64,
    abandoned: u64,
    /// Bridges of abandoned workers that have not reported.
    stuck: usize,
    grown: u64,
    shrunk: u64,
}

impl WorkerSupervisor {
    pub(crate) fn new(settings: &Settings, coordinator: Addr<Coordinator>) -> Self {
        let workers = if settings.most_workers > 0 && !is_initialised() {
            tracing::warn!(
                "mef3_server::worker::init() was not called at the start of main: \
                 no worker processes, reads are decoded in this process"
            );
            0
        } else {
            settings.most_workers
        };
        Self {
            settings: settings.clone(),
            coordinator,
            slots: (0..workers).map(|_| Slot::new(settings)).collect(),
            waiting: VecDeque::new(),
            threads: Vec::new(),
            fallback: false,
            announced: None,
            sandbox: None,
            stopping: false,
            stop: None,
            in_process_jobs: 0,
            stalled: 0,
            abandoned: 0,
            stuck: 0,
            grown: 0,
            shrunk: 0,
        }
    }

    /// Whether reads go to the in-process reader: from the moment that no worker
    /// runs or will run soon, until one is up.
    fn in_process(&mut self) -> bool {
        let out = [WorkerState::Resting, WorkerState::Off];
        let hopeless = self.slots.iter().all(|slot| out.contains(&slot.state));
        self.fallback |= !self.stopping && hopeless;
        self.fallback
    }

    /// Tells the coordinator how many jobs there is room for.
    fn announce_capacity(&mut self, context: &mut Context<Self>) {
        let up = |slot: &&Slot| slot.state == WorkerState::Ready;
        let ready = self.slots.iter().filter(up);
        // What waits for a reader to itself is the next to get one.
        let open = self.waiting.is_empty();
        let (readers, jobs) = ready.fold((0, 0), |(readers, jobs), slot| {
            let room = if open { slot.room() } else { 0 };
            (readers + 1, jobs + slot.jobs.len() + room)
        });
        // Threads that have not come back yet take nothing from the workers.
        let reading = self.threads.iter().filter(|thread| thread.job.is_some());
        let elsewhere = self.waiting.len() + reading.count();
        let capacity = if !self.in_process() {
            Capacity {
                readers,
                jobs: jobs + elsewhere,
                who: Readers::Workers,
            }
        } else if self.settings.worker.sandbox_required {
            // Whoever asks is refused at once.
            Capacity {
                readers: 1,
                jobs: 1,
                who: Readers::Nobody,
            }
        } else {
            self.start_threads(context);
            Capacity {
                readers: self.threads.len(),
                jobs: self.threads.len(),
                who: Readers::Server,
            }
        };
        if self.announced != Some(capacity) {
            self.announced = Some(capacity);
            self.coordinator.do_send(capacity);
        }
    }

    fn start_threads(&mut self, context: &mut Context<Self>) {
        if !self.threads.is_empty() {
            return;
        }
        if !self.slots.is_empty() {
            tracing::warn!("no worker can run: reads are decoded in the server process");
        }
        self.threads = (0..self.settings.in_process_threads)
            .map(|thread| ReaderThread {
                address: InProcessReader::start(thread, &self.settings, &context.address()),
                job: None,
            })
            .collect();
    }

    fn start_worker(&mut self, slot_number: usize, context: &mut Context<Self>) {
        let Some(slot) = self.slots.get_mut(slot_number) else {
            return;
        };
        slot.generation += 1;
        slot.enter(WorkerState::Starting);
        let generation = slot.generation;
        let supervisor = context.address();
        let settings = BridgeSettings {
            name: format!("{WORKER_NAME}{slot_number}"),
            worker: self.settings.worker.clone(),
            spawn_limit: self.settings.spawn_limit,
            page_samples: self.settings.page_samples,
        };
        // Reports are bounded by the jobs that the bridge has.
        let started = bridge::start(settings, move |event| {
            supervisor.do_send(WorkerReport {
                source: Source::Worker {
                    slot: slot_number,
                    generation,
                },
                event,
            });
        });
        match started {
            Ok(commands) => slot.commands = Some(commands),
            Err(error) => {
                tracing::error!(%error, slot = slot_number, "bridge thread cannot be started");
                self.restart_later(slot_number, Loss::FailedStart, None, context);
            }
        }
    }

    fn worker_up(&mut self, slot_number: usize, worker: Option<WorkerRef>, sandbox: Sandbox) {
        if self.sandbox.as_ref() != Some(&sandbox) {
            self.tell_sandbox(&sandbox);
            self.sandbox = Some(sandbox);
        }
        if let Some(slot) = self.slots.get_mut(slot_number) {
            slot.up(worker);
            tracing::info!(slot = slot_number, pid = slot.pid(), "worker is up");
        }
        if std::mem::take(&mut self.fallback) {
            tracing::info!("worker processes read again");
        }
    }

    /// Says what this kernel confines workers to, once.
    fn tell_sandbox(&self, sandbox: &Sandbox) {
        if sandbox.is_whole() {
            tracing::info!("workers are confined to reading");
        } else if self.settings.worker.confines.enabled {
            tracing::warn!(%sandbox, "workers are not confined as they could be");
        }
    }

    fn worker_down(
        &mut self,
        slot_number: usize,
        cause: &Cause,
        during: Option<JobId>,
        context: &mut Context<Self>,
    ) {
        let Some(slot) = self.slots.get_mut(slot_number) else {
            return;
        };
        if slot.retired && slot.is_idle() {
            slot.off();
            return;
        }
        if !self.stopping {
            tracing::warn!(slot = slot_number, pid = slot.pid(), %cause, "worker is gone");
        }
        let loss = match cause {
            Cause::Spawn(_) => Loss::FailedStart,
            Cause::Killed => Loss::Killed,
            Cause::Lost(_) | Cause::Lied(_) | Cause::Stopped => Loss::Died,
        };
        self.restart_later(slot_number, loss, during, context);
    }

    /// Takes the slot's jobs from it and starts its next worker after a pause.
    /// Only the job that the worker was doing may have ended it.
    fn restart_later(
        &mut self,
        slot_number: usize,
        loss: Loss,
        during: Option<JobId>,
        context: &mut Context<Self>,
    ) {
        let settings = &self.settings;
        let Some(slot) = self.slots.get_mut(slot_number) else {
            return;
        };
        let stalled = slot.stalled;
        slot.down(loss, settings);
        for job in slot.jobs.drain(..) {
            // A worker that was told to stop has not died of its job.
            let event = match loss {
                _ if during != Some(job) || self.stopping => JobEvent::Returned,
                _ if stalled => JobEvent::Stalled,
                Loss::Killed => JobEvent::Killed,
                Loss::Died | Loss::FailedStart => JobEvent::Lost,
            };
            self.coordinator.do_send(JobNews { job, event });
        }
        if self.stopping {
            slot.enter(WorkerState::Off);
            return;
        }
        let pause = slot.plan_restart(settings, Instant::now());
        if slot.state == WorkerState::Resting {
            tracing::error!(slot = slot_number, ?pause, "worker slot rests");
            self.start_spare(context);
        }
        self.start_after(slot_number, pause, context);
    }

    /// Starts the next worker of a slot after a pause.
    fn start_after(&mut self, slot_number: usize, pause: Duration, context: &mut Context<Self>) {
        let current = move |supervisor: &Self| {
            let slot = supervisor.slots.get(slot_number);
            slot.map(|slot| slot.generation)
        };
        let generation = current(self);
        context.run_later(pause, move |supervisor, context| {
            if supervisor.stopping || current(supervisor) != generation {
                return;
            }
            supervisor.start_next(slot_number, context);
            supervisor.announce_capacity(context);
        });
    }

    /// Starts the next worker of a slot, or lets it rest.
    fn start_next(&mut self, slot_number: usize, context: &mut Context<Self>) {
        if self.stuck < self.settings.most_stuck {
            return self.start_worker(slot_number, context);
        }
        let stuck = self.stuck;
        tracing::error!(slot = slot_number, stuck, "too many abandoned workers");
        if let Some(slot) = self.slots.get_mut(slot_number) {
            slot.enter(WorkerState::Resting);
        }
        self.start_after(slot_number, self.settings.rest, context);
    }

    /// Takes a job in: for a reader, or for later.
    fn take_in(&mut self, run: RunJob) {
        let idle = |slot: &Slot| slot.room() > 0 && slot.is_idle();
        if run.apart && !self.in_process() && !self.slots.iter().any(idle) {
            self.waiting.push_back(run);
            return;
        }
        if self.assign(&run).is_none() {
            self.coordinator.do_send(JobNews {
                job: run.job.id,
                event: JobEvent::Returned,
            });
        }
    }

    /// Gives waiting jobs to readers that have become free, and tells the coordinator
    /// what room there is.
    fn hand_out(&mut self, context: &mut Context<Self>) {
        for run in std::mem::take(&mut self.waiting) {
            self.take_in(run);
        }
        self.announce_capacity(context);
    }

    /// Gives a job to the reader with the least to do, and among these to the one
    /// that has the files of its lane open; `None` if nobody can.
    fn assign(&mut self, run: &RunJob) -> Option<()> {
        let RunJob { job, lane, .. } = run;
        if self.in_process() {
            if run.suspect {
                return None;
            }
            let thread = self
                .threads
                .iter_mut()
                .find(|thread| thread.job.is_none())?;
            thread
                .address
                .try_send(ReadInProcess(Arc::clone(job)))
                .ok()?;
            thread.job = Some(job.id);
            self.in_process_jobs += 1;
            return Some(());
        }
        // Lanes are numbered by the workers that are up.
        let ready = |slot: &&mut Slot| slot.state == WorkerState::Ready;
        let (_, slot) = (0..)
            .zip(self.slots.iter_mut().filter(ready))
            .filter(|(_, slot)| slot.room() > 0 && (!run.apart || slot.is_idle()))
            .min_by_key(|(number, slot)| (slot.jobs.len(), Some(*number) != *lane))?;
        let commands = slot.commands.as_ref()?;
        commands.try_send(Command::Do(Arc::clone(job))).ok()?;
        slot.begin(job.id, run.apart);
        Some(())
    }

    fn pass_on(
        &mut self,
        source: Source,
        job: JobId,
        event: JobEvent,
        context: &mut Context<Self>,
    ) {
        let ended = matches!(
            event,
            JobEvent::Done | JobEvent::Cancelled | JobEvent::Panicked(_)
        );
        match source {
            Source::Worker { slot, .. } => {
                let Some(slot) = self.slots.get_mut(slot) else {
                    return;
                };
                let (was_apart, unexpected) = (slot.apart, slot.progress());
                let had_gone = ended && slot.end(job);
                let more_room = unexpected || had_gone || was_apart && !slot.apart;
                if more_room || !self.waiting.is_empty() {
                    self.hand_out(context);
                }
            }
            Source::Thread(thread) => {
                if let Some(thread) = self.threads.get_mut(thread).filter(|_| ended) {
                    thread.job = None;
                    self.hand_out(context);
                }
            }
        }
        // Of a job that went elsewhere the coordinator knows nothing.
        self.coordinator.do_send(JobNews { job, event });
    }

    fn finish_stop(&mut self) {
        if self.slots.iter().all(|slot| slot.state == WorkerState::Off)
            && let Some(stop) = self.stop.take()
        {
            // Whoever asked may have stopped waiting.
            let _ = stop.send(());
        }
    }
}

impl Drop for WorkerSupervisor {
    /// No worker outlives its supervisor, however that ends: the tree may be built anew.
    fn drop(&mut self) {
        for worker in self.slots.iter().filter_map(|slot| slot.worker.as_ref()) {
            worker.kill();
        }
    }
}

impl Actor for WorkerSupervisor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.settings.mailbox);
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if number >= self.settings.workers {
                slot.enter(WorkerState::Off);
            }
        }
        for slot in 0..self.settings.workers.min(self.slots.len()) {
            self.start_worker(slot, context);
        }
        self.announce_capacity(context);
        context.run_interval(TICK, |supervisor, context| supervisor.tick(context));
    }
}

/// Who reports.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// A bridge.
    Worker {
        /// Its slot.
        slot: usize,
        /// The slot's generation that it was started for.
        generation: u64,
    },
    /// A thread of the in-process reader.
    Thread(usize),
}

/// Reports of bridges and reader threads.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct WorkerReport {
    pub(crate) source: Source,
    pub(crate) event: Event,
}

impl Handler<WorkerReport> for WorkerSupervisor {
    type Result = ();

    fn handle(&mut self, report: WorkerReport, context: &mut Self::Context) {
        let source = report.source;
        if let Source::Worker { slot, generation } = source {
            let current = self.slots.get(slot).map(|slot| slot.generation);
            if current != Some(generation) {
                // A bridge that was abandoned; its jobs went elsewhere.
                if let Event::Down { .. } = report.event {
                    tracing::info!(slot, "abandoned worker is gone");
                    self.stuck = self.stuck.saturating_sub(1);
                }
                return;
            }
        }
        match (report.event, source) {
            (Event::Job(job, event), _) => return self.pass_on(source, job, event, context),
            (Event::Up(worker, sandbox), Source::Worker { slot, .. }) => {
                self.worker_up(slot, worker, sandbox);
            }
            (Event::Down { cause, during }, Source::Worker { slot, .. }) => {
                self.worker_down(slot, &cause, during, context);
            }
            (Event::Working, Source::Worker { slot, .. }) => {
                let slot = self.slots.get_mut(slot);
                if !slot.is_some_and(Slot::progress) {
                    return;
                }
            }
            (Event::Up(..) | Event::Down { .. } | Event::Working, Source::Thread(_)) => {}
        }
        if self.stopping {
            self.finish_stop();
        } else {
            self.hand_out(context);
        }
    }
}

/// Asks for a job to be done by any reader.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct RunJob {
    pub(crate) job: Arc<Job>,
    /// A reader has died over what the job is for: never in the server process.
    pub(crate) suspect: bool,
    /// The lane of its channels, which is the number of the reader that has read
    /// them before; nothing where it does not matter.
    pub(crate) lane: Option<usize>,
    /// It may take long, or is long to tell: it goes to a reader with nothing else to
    /// do, and nothing waits behind it.
    pub(crate) apart: bool,
}

impl Handler<RunJob> for WorkerSupervisor {
    type Result = ();

    fn handle(&mut self, run: RunJob, context: &mut Self::Context) {
        let apart = run.apart;
        self.take_in(run);
        if apart {
            self.announce_capacity(context);
        }
    }
}

/// Takes a job back: its reader leaves off before the next page. What the reader
/// says of it then is the answer.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CancelJob(pub(crate) JobId);

impl Handler<CancelJob> for WorkerSupervisor {
    type Result = ();

    fn handle(&mut self, CancelJob(job): CancelJob, context: &mut Self::Context) {
        if let Some(place) = self.waiting.iter().position(|run| run.job.id == job) {
            self.waiting.remove(place);
            let event = JobEvent::Cancelled;
            self.coordinator.do_send(JobNews { job, event });
            return self.announce_capacity(context);
        }
        // A thread of this process looks at the job itself.
        let has = |slot: &&Slot| slot.jobs.contains(&job) || slot.taken_back.contains(&job);
        let slot = self.slots.iter().find(has);
        if let Some(worker) = slot.and_then(|slot| slot.worker.as_ref()) {
            worker.cancel(job);
        }
    }
}

/// Tells all readers to forget what is open below a session folder.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CloseSession(pub(crate) PathBuf);

impl Handler<CloseSession> for WorkerSupervisor {
    type Result = ();

    fn handle(&mut self, CloseSession(session): CloseSession, _: &mut Self::Context) {
        for commands in self.slots.iter().filter_map(|slot| slot.commands.as_ref()) {
            // A full bridge drops the note: the files stay open until the
            // worker's own bound closes them.
            let _ = commands.try_send(Command::Close(session.clone()));
        }
        for thread in &self.threads {
            let _ = thread.address.try_send(CloseInProcess(session.clone()));
        }
    }
}

/// Asks for the supervisor's figures.
#[derive(Message)]
#[rtype(result = "SupervisorStatistics")]
pub(crate) struct CountWorkers;

impl Handler<CountWorkers> for WorkerSupervisor {
    type Result = MessageResult<CountWorkers>;

    fn handle(&mut self, _: CountWorkers, _: &mut Self::Context) -> Self::Result {
        let in_process = self.in_process();
        let workers = self.slots.iter().zip(0..);
        let workers = workers.map(|(slot, number)| slot.status(number));
        MessageResult(SupervisorStatistics {
            workers: workers.collect(),
            in_process,
            sandbox: self.sandbox.clone(),
            in_process_jobs: self.in_process_jobs,
            stalled: self.stalled,
            abandoned: self.abandoned,
            stuck: self.stuck,
            grown: self.grown,
            shrunk: self.shrunk,
        })
    }
}

/// Ends all workers for good; the sender hears when the last one is reaped.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StopWorkers(pub(crate) oneshot::Sender<()>);

impl Handler<StopWorkers> for WorkerSupervisor {
    type Result = ();

    fn handle(&mut self, StopWorkers(stopped): StopWorkers, _: &mut Self::Context) {
        self.stopping = true;
        self.stop = Some(stopped);
        for slot in &mut self.slots {
            let idle = [WorkerState::Waiting, WorkerState::Resting];
            if idle.contains(&slot.state) {
                slot.enter(WorkerState::Off);
            }
            // An idle bridge sees the closed mailbox, a busy one the death.
            slot.commands = None;
            if let Some(worker) = &slot.worker {
                worker.kill();
            }
        }
        self.threads.clear();
        self.release_starts();
        self.finish_stop();
    }
}

#[cfg(test)]
mod tests;

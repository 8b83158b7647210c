//! The coordinator of decoding.
//!
//! Owns the table of pages in flight: who waits for which page, what is queued
//! in which class, which job decodes it. A page is decoded once however many
//! want it; requests go before predictions; work whose reader died goes to
//! another. It reads no file.

mod opens;
mod probes;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::fut::WrapFuture;
use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult};
use tokio::sync::oneshot;
use tracing::Span;

use self::opens::{Asked, PendingOpen, Task};
pub(crate) use self::opens::{OpenSession, ReadRecords, RefreshSession};
pub use self::probes::ProbeFailure;
pub(crate) use self::probes::ProbeReaders;
use self::probes::ProbeReply;
use super::blame::Blame;
use super::cache::{Cache, LookUp, Store};
use super::delays::Delays;
use super::file_manager::{FileManager, RecordingChanged};
use super::flights::{Class, Completed, Ending, Flights, Limits, Progress, Take, Taken};
use super::settings::Settings;
use super::supervisor::{CancelJob, QueueDelay, RunJob, WorkerSupervisor};
use crate::error::Error;
use crate::mef::MefError;
use crate::trace::{self, Trace};
use crate::worker::bridge::JobEvent;
use crate::worker::page::{Form, Page, PageKey, PagedRecording, RecordingId, SegmentId};
use crate::worker::protocol::{Job, JobId, PageOutcome, PageWork, SegmentPlace, SegmentWork, Work};

/// Pages of one job at least, where there are so many: below, the round trip
/// costs more than the decoding.
const MIN_JOB_PAGES: usize = 4;
/// Pages of one job at most: about a millisecond of decoding each.
const MAX_JOB_PAGES: usize = 64;
/// Samples of one job at most, one page excepted.
const MAX_JOB_SAMPLES: u64 = 256 * 1024;
/// Pages of a job that only predictions want: it must be over soon when a
/// request comes.
const MAX_PREDICTED_PAGES: usize = 16;

/// Blocks of a job that is told in a moment. What is longer does not fit into the
/// channel to a worker, so that handing it over waits for the worker to take it.
const MANY_BLOCKS: usize = 4096;

/// A look at a session that takes longer than this may take very long.
const LONG_LOOK: Duration = Duration::from_millis(500);

/// Wait before a job that nobody could take is offered again.
const RETURN_PAUSE: Duration = Duration::from_millis(2);
/// How often it is looked for jobs that nobody waits for any more, and for pages
/// that wait long.
const LOOK_PERIOD: Duration = Duration::from_millis(20);

/// Figures of the coordinator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoordinatorStatistics {
    /// Pages that were decoded.
    pub decoded: u64,
    /// Of these, pages that only a prediction wanted.
    pub decoded_for_predictions: u64,
    /// Pages that a request wanted while they were in flight already.
    pub joined: u64,
    /// Pages that failed.
    pub failed: u64,
    /// Jobs whose reader died while it did them.
    pub lost_jobs: u64,
    /// Jobs that were taken back from their reader: nobody wanted them any more,
    /// or they were predictions in the way of a request.
    pub cancelled_jobs: u64,
    /// Requests that were refused because too many pages are in flight.
    pub refused: u64,
    /// Pages in flight now.
    pub in_flight: u64,
    /// Pages that were given up since readers have died or panicked over them, and
    /// that are answered with the error at once now.
    pub quarantined: u64,
    /// How long the pages that requests wanted have waited for a reader.
    pub queue_delays: Delays,
}

/// A request's pages, each with its outcome, in the order of the request.
pub(crate) type Fetched = Result<Vec<Result<Arc<Page>, Error>>, Error>;

/// A job that a reader has.
struct Running {
    job: Arc<Job>,
    kind: Kind,
    predicted: bool,
    /// It may keep its reader for long.
    uncertain: bool,
    since: Instant,
    /// What is done, as part of what is done for the first request that wants it.
    _span: Span,
}

/// A job that is to be given to a reader.
struct Run {
    work: Work,
    /// Requests that want it.
    traces: Vec<Trace>,
    kind: Kind,
    /// Only a prediction wants it.
    predicted: bool,
    /// A reader has died over it.
    suspect: bool,
    /// It may keep its reader for long.
    uncertain: bool,
    lane: Option<usize>,
    /// Nothing is to wait behind it.
    apart: bool,
}

enum Kind {
    /// Empty once it is answered: the job's end is still to come.
    Open(Task, Option<PendingOpen>),
    Decode {
        keys: Vec<PageKey>,
        /// Pages that are answered; the reader works in order.
        answered: usize,
    },
    /// Who waits for it; empty once it is answered.
    Probe(Vec<ProbeReply>),
}

impl Kind {
    /// What is done with a session, if it is not to read pages.
    fn task(&self) -> Option<Task> {
        match self {
            Self::Open(task, _) => Some(*task),
            Self::Decode { .. } | Self::Probe(_) => None,
        }
    }
}

/// The coordinator actor.
pub(crate) struct Coordinator {
    cache: Addr<Cache>,
    file_manager: Addr<FileManager>,
    supervisor: Addr<WorkerSupervisor>,
    mailbox: usize,
    limits: Limits,
    /// How long pages, openings and looks may wait before more workers are asked for.
    grow_delay: Duration,
    opens: VecDeque<PendingOpen>,
    /// Looks at sessions.
    looks: VecDeque<PendingOpen>,
    /// Who asks whether a reader can decode, while no reader has room.
    probes: Vec<ProbeReply>,
    /// What is held against sessions and what was done with them when a reader ended.
    blame: Blame<(PathBuf, Task), ()>,
    flights: Flights,
    running: HashMap<JobId, Running>,
    next_job: JobId,
    capacity: Capacity,
    statistics: CoordinatorStatistics,
}

impl Coordinator {
    pub(crate) fn new(
        settings: &Settings,
        cache: Addr<Cache>,
        file_manager: Addr<FileManager>,
        supervisor: Addr<WorkerSupervisor>,
    ) -> Self {
        Self {
            cache,
            file_manager,
            supervisor,
            mailbox: settings.mailbox,
            limits: Limits {
                pages: settings.queued_pages,
                waiters: settings.waiters,
            },
            grow_delay: settings.grow_delay,
            opens: VecDeque::new(),
            looks: VecDeque::new(),
            probes: Vec::new(),
            blame: Blame::of_unversioned(),
            flights: Flights::default(),
            running: HashMap::new(),
            next_job: 1,
            capacity: Capacity::default(),
            statistics: CoordinatorStatistics::default(),
        }
    }

    /// Asks the cache for pages that have just come into flight.
    fn look_up(&mut self, keys: Vec<PageKey>, prediction: bool, context: &mut Context<Self>) {
        if keys.is_empty() {
            return;
        }
        let question = LookUp {
            keys: keys.clone(),
            prediction,
        };
        // A cache that is gone is a cache that misses; the watchdog rebuilds it.
        let answer =
            self.cache
                .send(question)
                .into_actor(self)
                .map(move |pages, coordinator, _| {
                    let mut pages = pages.unwrap_or_default().into_iter();
                    for key in keys {
                        match pages.next().flatten() {
                            Some(page) => coordinator.flights.complete(key, &Ok(page)),
                            None => coordinator.flights.enqueue(key),
                        };
                    }
                    coordinator.dispatch();
                });
        context.spawn(answer);
    }

    /// Gives out work while there is room: opens, then requests, then
    /// predictions. One place a reader is kept free of predictions, and where a
    /// request would wait for one that is under way, that makes room.
    fn dispatch(&mut self) {
        let mut requested = false;
        while self.running.len() < self.capacity.jobs {
            if let Some(open) = self.next_open() {
                self.run_open(open);
                requested = true;
                continue;
            }
            let waiting = self.flights.queued(Class::Request);
            let share = waiting.div_ceil(self.capacity.readers.max(1));
            let pages = share.clamp(MIN_JOB_PAGES, MAX_JOB_PAGES);
            if self.run_pages(Class::Request, pages) {
                requested = true;
                continue;
            }
            if self.run_probe() {
                continue;
            }
            let predicted = self.running.values().filter(|job| job.predicted).count();
            if predicted >= self.capacity.readers
                || !self.run_pages(Class::Prediction, MAX_PREDICTED_PAGES)
            {
                break;
            }
        }
        // With no more jobs than readers, each has one of its own.
        let shared = requested && self.running.len() > self.capacity.readers;
        let full = self.running.len() >= self.capacity.jobs;
        let opens = !self.opens.is_empty() || !self.looks.is_empty();
        if shared || full && opens || self.flights.queued(Class::Request) > 0 {
            self.cancel_jobs(|running, unanswered, flights| {
                running.predicted && !unanswered.iter().any(|key| flights.is_requested(key))
            });
        }
    }

    /// Takes jobs back that `which` picks, by what is unanswered of each.
    fn cancel_jobs(&mut self, which: impl Fn(&Running, &[PageKey], &Flights) -> bool) {
        for (&id, running) in &self.running {
            let Kind::Decode { keys, answered } = &running.kind else {
                continue;
            };
            let unanswered = keys.get(*answered..).unwrap_or_default();
            if running.job.is_cancelled()
                || unanswered.is_empty()
                || !which(running, unanswered, &self.flights)
            {
                continue;
            }
            running.job.cancel();
            self.statistics.cancelled_jobs += 1;
            // Once for each job.
            self.supervisor.do_send(CancelJob(id));
        }
    }

    /// Takes back what nobody wants any more, and asks for more workers where
    /// requests wait for one.
    fn look_around(&mut self) {
        self.cancel_jobs(|_, unanswered, flights| {
            !unanswered.iter().any(|key| flights.is_wanted(key))
        });
        self.refuse_stuck_looks();
        if self.flights.refuse_stuck() {
            self.dispatch();
        }
        let opens = self.opens.front().into_iter().chain(self.looks.front());
        let delay = opens
            .map(|open| open.queued_at.elapsed())
            .fold(self.flights.longest_wait(), Duration::max);
        if delay >= self.grow_delay {
            // One for each look.
            self.supervisor.do_send(QueueDelay(delay));
        }
    }

    /// Starts one job of a class; `false` where nothing is queued.
    fn run_pages(&mut self, class: Class, pages: usize) -> bool {
        let take = Take {
            class,
            pages,
            samples: MAX_JOB_SAMPLES,
            lanes: self.capacity.readers,
            who: self.capacity.who,
            only_healthy: !self.may_begin_uncertain(),
        };
        let Taken {
            keys,
            suspect,
            trying,
            lane,
            waits,
        } = self.flights.take(&take);
        for wait in waits {
            self.statistics.queue_delays.note(wait);
        }
        if keys.is_empty() {
            return false;
        }
        let traces = self.flights.traces(&keys);
        let work = self.segment_work(&keys);
        let pages = work.iter().flat_map(|segment| &segment.pages);
        let blocks: usize = pages.map(|page| page.blocks.len()).sum();
        self.run(Run {
            work: Work::Decode(work),
            traces,
            kind: Kind::Decode { keys, answered: 0 },
            predicted: class == Class::Prediction,
            suspect,
            uncertain: suspect || trying,
            lane: Some(lane),
            apart: suspect || trying || blocks > MANY_BLOCKS,
        });
        true
    }

    /// Whether what may keep a reader for long may begin: one reader is kept free of it,
    /// where there are more.
    fn may_begin_uncertain(&self) -> bool {
        let uncertain = |job: &&Running| {
            let looks = job.kind.task() == Some(Task::Refresh);
            job.uncertain || looks && job.since.elapsed() > LONG_LOOK
        };
        let held = self.running.values().filter(uncertain).count();
        held < self.capacity.readers.saturating_sub(1).max(1)
    }

    fn run(&mut self, run: Run) {
        let id = self.next_job;
        self.next_job += 1;
        let requests = trace::ids(&run.traces);
        let job = Arc::new(Job::new(id, run.work).of(requests));
        let first = run.traces.first().map(Trace::span);
        let span = tracing::debug_span!(
            parent: first.and_then(Span::id),
            "job",
            id,
            work = job.work.name(),
            requests = %job.requests(),
        );
        let running = Running {
            job: Arc::clone(&job),
            kind: run.kind,
            predicted: run.predicted,
            uncertain: run.uncertain,
            since: Instant::now(),
            _span: span,
        };
        self.running.insert(id, running);
        // Bounded by the capacity that the supervisor announced.
        self.supervisor.do_send(RunJob {
            job,
            suspect: run.suspect,
            lane: run.lane,
            apart: run.apart,
        });
    }

    /// The pages' blocks, neighbours of one segment together, in order.
    fn segment_work(&self, keys: &[PageKey]) -> Vec<SegmentWork> {
        let mut work: Vec<SegmentWork> = Vec::new();
        let mut last: Option<(RecordingId, SegmentId)> = None;
        for key in keys {
            let Some(recording) = self.flights.recording(key) else {
                continue;
            };
            let Some((channel, segment, blocks)) = recording.run_of(key) else {
                continue;
            };
            let page = PageWork {
                first_block: key.first_block,
                blocks: blocks.collect(),
                form: key.form,
            };
            let place = (key.recording, key.segment);
            if last.replace(place) == Some(place)
                && let Some(current) = work.last_mut()
            {
                current.pages.push(page);
            } else {
                work.push(SegmentWork {
                    place: SegmentPlace {
                        session: recording.recording.path.clone(),
                        channel: channel.name.clone(),
                        stem: segment.stem.clone(),
                        password: recording.recording.password.clone(),
                    },
                    identity: segment.identity.data,
                    recording_time_offset: segment.recording_time_offset.unwrap_or(0),
                    pages: vec![page],
                });
            }
        }
        work
    }

    fn pages_decoded(&mut self, job: JobId, pages: Vec<PageOutcome>) {
        let Some(Running {
            kind: Kind::Decode { keys, answered },
            predicted,
            ..
        }) = self.running.get_mut(&job)
        else {
            return;
        };
        let mut decoded = Vec::new();
        let mut decodes = false;
        for (number, outcome) in pages {
            let Some(&key) = keys.get(number as usize) else {
                continue;
            };
            *answered = number as usize + 1;
            let outcome = outcome.map(Arc::new).map_err(|error| {
                if let MefError::Changed { .. } | MefError::NotFound { .. } = error {
                    self.file_manager.do_send(RecordingChanged(key.recording));
                }
                Error::Mef(error)
            });
            let completed = self.flights.answered(key, &outcome);
            match outcome {
                Ok(page) => {
                    decodes |= key.form == Form::Counts && page.has_words();
                    let predicted = *predicted && completed == Completed::Unwanted;
                    self.statistics.decoded += 1;
                    self.statistics.decoded_for_predictions += u64::from(predicted);
                    if page.is_lasting() {
                        decoded.push((key, page, predicted));
                    }
                }
                Err(_) => self.statistics.failed += 1,
            }
        }
        // Before any later look-up of these pages, since mailboxes keep order;
        // bounded by the pages in flight.
        self.cache.do_send(Store { pages: decoded });
        if decodes {
            // That requests leave no room for a probe shows as much.
            self.answer_probes(Ok(()));
        }
    }

    /// The requests that a job is for.
    fn requests_of(&self, job: JobId) -> String {
        let running = self.running.get(&job);
        running.map_or_else(String::new, |it| it.job.requests().to_string())
    }

    /// Puts the rest of a job back.
    fn put_back(&mut self, running: Running, ending: Ending) {
        match running.kind {
            Kind::Open(_, None) => {}
            Kind::Open(_, Some(open)) => self.put_back_open(open, ending),
            Kind::Probe(replies) => self.put_back_probe(replies, &ending),
            Kind::Decode { keys, answered } => {
                let unanswered = keys.get(answered..).unwrap_or_default();
                self.statistics.failed += self.flights.put_back(unanswered, &ending);
            }
        }
    }
}

impl Actor for Coordinator {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.mailbox);
        context.run_interval(LOOK_PERIOD, |coordinator, _| coordinator.look_around());
    }
}

/// Asks for pages of a recording.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Fetch {
    pub(crate) recording: Arc<PagedRecording>,
    pub(crate) pages: Vec<PageKey>,
    /// The request that wants them.
    pub(crate) trace: Option<Trace>,
    /// Dropping the other end cancels what nobody else wants and has not begun.
    pub(crate) reply: oneshot::Sender<Fetched>,
}

impl Handler<Fetch> for Coordinator {
    type Result = ();

    fn handle(&mut self, fetch: Fetch, context: &mut Self::Context) {
        let Fetch {
            recording,
            pages,
            trace,
            reply,
        } = fetch;
        if let Err(error) = self.flights.reserve(pages.len(), &self.limits) {
            self.statistics.refused += 1;
            // Whoever asked may be gone.
            let _ = reply.send(Err(error));
            return;
        }
        let (new, joined) = self.flights.request(&recording, &pages, trace, reply);
        self.statistics.joined += joined;
        self.look_up(new, false, context);
    }
}

/// Announces pages that may be wanted soon. Replaces what the same reader was
/// expected to want before.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Predict {
    /// Who is expected to want them.
    pub(crate) reader: u64,
    pub(crate) recording: Arc<PagedRecording>,
    pub(crate) pages: Vec<PageKey>,
}

impl Handler<Predict> for Coordinator {
    type Result = ();

    fn handle(&mut self, predict: Predict, context: &mut Self::Context) {
        let Predict {
            reader,
            recording,
            mut pages,
        } = predict;
        self.flights.cancel_predictions(|_, owner| owner == reader);
        // Predictions take at most half of the table.
        let room = (self.limits.pages / 2).saturating_sub(self.flights.len());
        pages.truncate(room);
        let new = self.flights.predict(&recording, &pages, reader);
        self.look_up(new, true, context);
    }
}

/// Forgets the predictions for a recording that was closed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CancelPredictions(pub(crate) RecordingId);

impl Handler<CancelPredictions> for Coordinator {
    type Result = ();

    fn handle(&mut self, CancelPredictions(id): CancelPredictions, _: &mut Self::Context) {
        self.flights
            .cancel_predictions(|key, _| key.recording == id);
    }
}

/// How much the readers can take at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub(crate) struct Capacity {
    /// Readers that can work at the same time.
    pub(crate) readers: usize,
    /// Jobs that may be given out.
    pub(crate) jobs: usize,
    /// Who the readers are.
    pub(crate) who: Readers,
}

/// Who reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Worker processes.
    #[default]
    Workers,
    /// Threads of the server, which are not given what a worker has died of.
    Server,
    /// No worker can run, and the server must not read.
    Nobody,
}

impl Readers {
    /// Whether they are not given work, or work that a worker has died of.
    pub(crate) fn refuses(self, deadly: bool) -> bool {
        match self {
            Self::Workers => false,
            Self::Server => deadly,
            Self::Nobody => true,
        }
    }
}

impl Handler<Capacity> for Coordinator {
    type Result = ();

    fn handle(&mut self, capacity: Capacity, _: &mut Self::Context) {
        self.capacity = capacity;
        self.dispatch();
    }
}

/// News of a job.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct JobNews {
    pub(crate) job: JobId,
    pub(crate) event: JobEvent,
}

impl Handler<JobNews> for Coordinator {
    type Result = ();

    fn handle(&mut self, JobNews { job, event }: JobNews, context: &mut Self::Context) {
        let ending = match event {
            JobEvent::Pages(pages) => return self.pages_decoded(job, pages),
            JobEvent::Opened(opened) => {
                if let Some(open) = self.answered_open(job)
                    && let Asked::Open(reply) = open.asked
                {
                    // Whoever asked may be gone.
                    let _ = reply.send(opened.map_err(Error::Mef));
                }
                return;
            }
            JobEvent::Refreshed(news) => {
                if let Some(open) = self.answered_open(job)
                    && let Asked::Refresh(_, reply) = open.asked
                {
                    // Whoever asked may be gone.
                    let _ = reply.send(news.map_err(Error::Mef));
                }
                return;
            }
            JobEvent::Records(page) => {
                if let Some(open) = self.answered_open(job)
                    && let Asked::Records(_, _, reply) = open.asked
                {
                    // Whoever asked may be gone.
                    let _ = reply.send(page.map_err(Error::Mef));
                }
                return;
            }
            JobEvent::Probed => return self.probed(job),
            JobEvent::Done => {
                self.running.remove(&job);
                return self.dispatch();
            }
            JobEvent::Returned => {
                if let Some(running) = self.running.remove(&job) {
                    // A worker that has it still must not do it, too.
                    running.job.cancel();
                    self.supervisor.do_send(CancelJob(job));
                    self.put_back(running, Ending::NotBegun);
                }
                // Not at once: whoever had no room has none yet.
                context.run_later(RETURN_PAUSE, |coordinator, _| coordinator.dispatch());
                return;
            }
            JobEvent::Cancelled => Ending::NotBegun,
            JobEvent::Lost => {
                self.statistics.lost_jobs += 1;
                Ending::Died
            }
            JobEvent::Stalled => {
                self.statistics.lost_jobs += 1;
                Ending::Stalled
            }
            JobEvent::Killed => {
                self.statistics.lost_jobs += 1;
                Ending::Killed
            }
            JobEvent::Panicked(message) => {
                let requests = self.requests_of(job);
                tracing::error!(job, requests, reason = message, "decoder panicked");
                Ending::Panicked(message)
            }
        };
        if matches!(ending, Ending::Died | Ending::Stalled | Ending::Killed) {
            let requests = self.requests_of(job);
            tracing::warn!(job, requests, ?ending, "job has lost its reader");
        }
        if let Some(running) = self.running.remove(&job) {
            self.put_back(running, ending);
        }
        self.dispatch();
    }
}

/// Asks for the coordinator's figures.
#[derive(Message)]
#[rtype(result = "CoordinatorStatistics")]
pub(crate) struct CountFlights;

impl Handler<CountFlights> for Coordinator {
    type Result = MessageResult<CountFlights>;

    fn handle(&mut self, _: CountFlights, _: &mut Self::Context) -> Self::Result {
        let Progress {
            in_flight,
            quarantined,
        } = self.flights.progress();
        MessageResult(CoordinatorStatistics {
            in_flight,
            quarantined,
            ..self.statistics
        })
    }
}

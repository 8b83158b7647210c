//! The table of pages in flight: plain data, without an actor around it.

mod take;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

pub(crate) use self::take::{Take, Taken};
use super::blame::{Blame, DeadlyFiles, Suspicion, Version};
use super::coordinator::Fetched;
use super::stuck::{Gate, StuckStorage};
use crate::error::{Error, PagePlace};
use crate::mef::FileIdentity;
use crate::trace::{self, MOST_OF_JOB, Trace};
use crate::worker::page::{Page, PageKey, PagedRecording};

/// Cancelled requests are looked for at most this often: it means to go over the
/// whole table.
const SWEEP_PAUSE: Duration = Duration::from_millis(100);

/// Why a page is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Somebody waits for it.
    Request,
    /// Somebody may want it soon.
    Prediction,
}

/// Whether anybody waited for a page that was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completed {
    /// Somebody waits, or did until it was cancelled.
    Wanted,
    /// Only a prediction was behind it.
    Unwanted,
}

/// How a job ended that left pages unanswered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ending {
    /// No reader has begun it, or its reader was told to leave off.
    NotBegun,
    /// Its reader died over it.
    Died,
    /// Its reader was killed, since it got no further.
    Stalled,
    /// Its reader was killed from outside.
    Killed,
    /// Its reader caught a panic, with this message.
    Panicked(String),
}

/// Names a page beyond the opening of its recording.
#[derive(Clone, PartialEq, Eq, Hash)]
struct PageOnDisk {
    /// What names the data file, whatever stands in it.
    file: (u64, u64),
    first_block: u32,
}

impl Version for FileIdentity {
    fn grew_from(&self, earlier: &Self) -> bool {
        self.continues(earlier) && self.size() > earlier.size()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The cache has been asked.
    LookingUp,
    /// Waits for a job.
    Queued(Class),
    /// In a job.
    Running,
}

struct Flight {
    recording: Arc<PagedRecording>,
    stage: Stage,
    /// When it last came into a queue.
    queued_at: Instant,
    /// Requests that wait, and the position of the page in each.
    waiters: Vec<(u64, usize)>,
    suspicion: Suspicion,
    /// Who is expected to want it, where nobody has asked.
    predicted_for: Option<u64>,
}

/// A request whose pages are not all there.
struct Request {
    pages: Vec<Option<Result<Arc<Page>, Error>>>,
    missing: usize,
    trace: Option<Trace>,
    reply: oneshot::Sender<Fetched>,
}

/// What the table may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Pages in flight.
    pub(crate) pages: usize,
    /// Requests that wait for pages, counted for each page that one waits for.
    pub(crate) waiters: usize,
}

/// Figures of the table.
pub(crate) struct Progress {
    pub(crate) in_flight: u64,
    /// Pages that were given up, and are not tried again yet.
    pub(crate) quarantined: u64,
}

/// All pages in flight, and the requests that wait for them.
#[derive(Default)]
pub(crate) struct Flights {
    flights: HashMap<PageKey, Flight>,
    requests: HashMap<u64, Request>,
    next_request: u64,
    /// Keys by class. A key whose flight has moved on is passed over.
    request_queue: VecDeque<PageKey>,
    prediction_queue: VecDeque<PageKey>,
    /// Waiters of all flights together.
    waiters: usize,
    blame: Blame<PageOnDisk, FileIdentity>,
    deadly_files: DeadlyFiles,
    stuck: StuckStorage,
    last_sweep: Option<Instant>,
}

impl Flights {
    /// Number of pages in flight.
    pub(crate) fn len(&self) -> usize {
        self.flights.len()
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress {
            in_flight: self.flights.len() as u64,
            quarantined: self.blame.given_up(Instant::now()) as u64,
        }
    }

    /// Number of pages that wait for a job; an upper bound.
    pub(crate) fn queued(&self, class: Class) -> usize {
        match class {
            Class::Request => self.request_queue.len(),
            Class::Prediction => self.prediction_queue.len(),
        }
    }

    /// How long the first page that a request wants has waited for a reader.
    pub(crate) fn longest_wait(&self) -> Duration {
        let first = self
            .request_queue
            .iter()
            .filter_map(|key| self.flights.get(key))
            .find(|flight| flight.stage == Stage::Queued(Class::Request));
        first.map_or(Duration::ZERO, |flight| flight.queued_at.elapsed())
    }

    /// Whether a request waits for a page that was not cancelled.
    pub(crate) fn is_requested(&self, key: &PageKey) -> bool {
        let flight = self.flights.get(key);
        flight.is_some_and(|flight| flight.waiters.iter().any(|(id, _)| self.waits(*id)))
    }

    /// Whether a request waits for a page, or somebody is expected to.
    pub(crate) fn is_wanted(&self, key: &PageKey) -> bool {
        let flight = self.flights.get(key);
        flight.is_some_and(|flight| flight.predicted_for.is_some()) || self.is_requested(key)
    }

    fn waits(&self, request: u64) -> bool {
        let request = self.requests.get(&request);
        request.is_some_and(|request| !request.reply.is_closed())
    }

    /// The requests that wait for some of these pages: as many as a job names.
    pub(crate) fn traces(&self, pages: &[PageKey]) -> Vec<Trace> {
        let mut traces: Vec<Trace> = Vec::new();
        let flights = pages.iter().filter_map(|key| self.flights.get(key));
        for (id, _) in flights.flat_map(|flight| &flight.waiters) {
            if traces.len() == MOST_OF_JOB {
                break;
            }
            let request = self.requests.get(id);
            if let Some(trace) = request.and_then(|request| request.trace.as_ref())
                && !traces.iter().any(|known| known.id() == trace.id())
            {
                traces.push(trace.clone());
            }
        }
        traces
    }

    /// The recording of a page in flight.
    pub(crate) fn recording(&self, key: &PageKey) -> Option<&Arc<PagedRecording>> {
        self.flights.get(key).map(|flight| &flight.recording)
    }

    /// Takes a request in. The result names the pages that have come into
    /// flight by it and must be looked up, and counts those that it joined.
    pub(crate) fn request(
        &mut self,
        recording: &Arc<PagedRecording>,
        pages: &[PageKey],
        trace: Option<Trace>,
        reply: oneshot::Sender<Fetched>,
    ) -> (Vec<PageKey>, u64) {
        if pages.is_empty() {
            // Whoever asked may be gone.
            let _ = reply.send(Ok(Vec::new()));
            return (Vec::new(), 0);
        }
        let request = self.next_request;
        self.next_request += 1;
        self.requests.insert(
            request,
            Request {
                pages: vec![None; pages.len()],
                missing: pages.len(),
                trace,
                reply,
            },
        );
        let mut new = Vec::new();
        let mut joined = 0;
        for (&key, position) in pages.iter().zip(0..) {
            let flight = self.flights.entry(key).or_insert_with(|| {
                new.push(key);
                Flight::new(Arc::clone(recording))
            });
            flight.waiters.push((request, position));
            self.waiters += 1;
            flight.predicted_for = None;
            if flight.stage == Stage::Queued(Class::Prediction) {
                flight.stage = Stage::Queued(Class::Request);
                flight.queued_at = Instant::now();
                self.request_queue.push_back(key);
            }
            joined += 1;
        }
        let joined = joined - new.len() as u64;
        (new, joined)
    }

    /// Takes a prediction in. The result names the pages that have come into
    /// flight by it and must be looked up.
    pub(crate) fn predict(
        &mut self,
        recording: &Arc<PagedRecording>,
        pages: &[PageKey],
        reader: u64,
    ) -> Vec<PageKey> {
        let mut new = Vec::new();
        for &key in pages {
            self.flights.entry(key).or_insert_with(|| {
                new.push(key);
                Flight {
                    predicted_for: Some(reader),
                    ..Flight::new(Arc::clone(recording))
                }
            });
        }
        new
    }

    /// Drops queued pages that only a prediction wants, of those that `which`
    /// picks by page and expected reader.
    pub(crate) fn cancel_predictions(&mut self, which: impl Fn(&PageKey, u64) -> bool) {
        let flights = &mut self.flights;
        self.prediction_queue.retain(|key| {
            let Some(flight) = flights.get(key) else {
                return false;
            };
            let queued = flight.stage == Stage::Queued(Class::Prediction);
            let cancelled = queued
                && flight
                    .predicted_for
                    .is_some_and(|reader| which(key, reader));
            if cancelled {
                flights.remove(key);
            }
            queued && !cancelled
        });
    }

    /// Makes sure that a request of so many pages may be taken in.
    pub(crate) fn reserve(&mut self, pages: usize, limits: &Limits) -> Result<(), Error> {
        let now = Instant::now();
        let may_sweep = self
            .last_sweep
            .is_none_or(|last| now.saturating_duration_since(last) >= SWEEP_PAUSE);
        if may_sweep && self.check_room(pages, limits).is_err() {
            self.last_sweep = Some(now);
            self.sweep();
        }
        self.check_room(pages, limits)
    }

    fn check_room(&self, pages: usize, limits: &Limits) -> Result<(), Error> {
        let (limit, value) = if self.flights.len().saturating_add(pages) > limits.pages {
            ("limits.queued_pages", limits.pages)
        } else if self.waiters.saturating_add(pages) > limits.waiters {
            ("limits.waiters", limits.waiters)
        } else {
            return Ok(());
        };
        Err(Error::Busy {
            limit,
            value: value as u64,
        })
    }

    /// Forgets requests that were cancelled, and the pages that only they waited
    /// for, as far as no job has them.
    fn sweep(&mut self) {
        self.requests
            .retain(|_, request| !request.reply.is_closed());
        self.waiters = 0;
        self.flights.retain(|_, flight| {
            flight
                .waiters
                .retain(|(request, _)| self.requests.contains_key(request));
            self.waiters += flight.waiters.len();
            flight.stage != Stage::Queued(Class::Request) || !flight.waiters.is_empty()
        });
        self.request_queue.retain(|key| {
            self.flights
                .get(key)
                .is_some_and(|flight| flight.stage == Stage::Queued(Class::Request))
        });
    }

    /// Puts a page that the cache does not have into its queue, unless it was
    /// given up a short while ago.
    pub(crate) fn enqueue(&mut self, key: PageKey) -> Completed {
        if !self.blame.is_empty()
            && let Some((page, data)) = self.on_disk(&key)
        {
            if let Some(error) = self.blame.refusal(&page, &data) {
                let refused = Err(error.clone());
                return self.complete(key, &refused);
            }
            let suspicion = self.blame.suspicion(&page, &data);
            if let Some(flight) = self.flights.get_mut(&key) {
                flight.suspicion = suspicion;
            }
        }
        self.queue(key, VecDeque::push_back)
    }

    /// Puts a page into its queue. One that nobody waits for any more, and that
    /// nobody is expected to want, is dropped.
    fn queue(
        &mut self,
        key: PageKey,
        push: impl FnOnce(&mut VecDeque<PageKey>, PageKey),
    ) -> Completed {
        let Some(flight) = self.flights.get_mut(&key) else {
            return Completed::Unwanted;
        };
        flight.queued_at = Instant::now();
        if !flight.waiters.is_empty() {
            flight.stage = Stage::Queued(Class::Request);
            push(&mut self.request_queue, key);
            return Completed::Wanted;
        }
        if flight.predicted_for.is_some() {
            flight.stage = Stage::Queued(Class::Prediction);
            push(&mut self.prediction_queue, key);
        } else {
            self.flights.remove(&key);
        }
        Completed::Unwanted
    }

    /// Puts the unanswered pages of a job back to the head of their queue, and
    /// returns how many were given up in place of that.
    ///
    /// Answers come in batches, so that the page that ended the reader may be any
    /// of the unanswered: each goes alone from now on, and only one that is left
    /// alone is charged. Those that are set apart go to the end of the queue:
    /// others must not wait with them.
    pub(crate) fn put_back(&mut self, unanswered: &[PageKey], ending: &Ending) -> u64 {
        let mut given_up = 0;
        let single = unanswered.len() == 1;
        if !self.stuck.is_empty() || *ending == Ending::Stalled {
            let first = unanswered.first().and_then(|key| self.device(key));
            match (first, ending) {
                // The page that it was at is the first, or not far from it.
                (Some(device), Ending::Stalled) => self.stuck.stalled(device, Instant::now()),
                (Some(device), _) => self.stuck.ended(device),
                (None, _) => {}
            }
        }
        for &key in unanswered.iter().rev() {
            let Some(flight) = self.flights.get_mut(&key) else {
                continue;
            };
            let suspicion = &mut flight.suspicion;
            let hopeless = match ending {
                Ending::NotBegun => false,
                Ending::Died | Ending::Stalled if single => suspicion.died_alone(),
                Ending::Died | Ending::Stalled => {
                    suspicion.died();
                    false
                }
                Ending::Killed => suspicion.killed(),
                Ending::Panicked(_) => {
                    suspicion.panicked();
                    single
                }
            };
            let suspicion = *suspicion;
            if *ending != Ending::NotBegun
                && let Some((page, data)) = self.on_disk(&key)
            {
                if suspicion.deadly {
                    self.deadly_files.note(page.file);
                }
                self.blame.suspect(page, data, suspicion);
            }
            if hopeless {
                self.give_up(key, suspicion, ending);
                given_up += 1;
            } else if suspicion.alone {
                self.queue(key, VecDeque::push_back);
            } else {
                self.queue(key, VecDeque::push_front);
            }
        }
        given_up
    }

    /// Gives a page up: it fails now, and is not tried again for a while.
    fn give_up(&mut self, key: PageKey, suspicion: Suspicion, ending: &Ending) {
        let Some(place) = self.place(&key) else {
            return;
        };
        let PagePlace {
            channel, segment, ..
        } = &place;
        let first_block = place.first_block;
        let requests = trace::ids(&self.traces(&[key])).join(",");
        tracing::error!(requests, %channel, %segment, first_block, ?ending, "page is given up");
        let error = match ending {
            Ending::Panicked(message) => Error::DecoderPanicked {
                place,
                message: message.clone(),
            },
            Ending::Died | Ending::Stalled | Ending::Killed | Ending::NotBegun => {
                Error::PoisonedPage {
                    place,
                    deaths: suspicion.deaths,
                }
            }
        };
        if let Some((page, data)) = self.on_disk(&key) {
            self.blame.give_up(page, data, error.clone());
        }
        self.complete(key, &Err(error));
    }

    /// Storage that does not answer.
    pub(super) fn storage(&mut self) -> &mut StuckStorage {
        &mut self.stuck
    }

    /// Answers what waits for storage that does not with an error: whoever waits
    /// holds what others need. Whether there was any of it.
    pub(super) fn refuse_stuck(&mut self) -> bool {
        if self.stuck.is_empty() {
            return false;
        }
        let now = Instant::now();
        let mut queue = std::mem::take(&mut self.request_queue);
        let before = queue.len();
        queue.retain(|&key| {
            let flight = self.flights.get(&key);
            let queued = flight.is_some_and(|it| it.stage == Stage::Queued(Class::Request));
            if queued && self.gate(&key, now) == Gate::Shut {
                let what = self.place(&key).map(|place| place.to_string());
                let what = what.unwrap_or_default();
                self.complete(key, &Err(Error::StuckStorage { what }));
                return false;
            }
            queued
        });
        let refused = queue.len() < before;
        self.request_queue = queue;
        refused
    }

    /// The page, and its data file as the recording knows it.
    fn on_disk(&self, key: &PageKey) -> Option<(PageOnDisk, FileIdentity)> {
        let (_, segment, _) = self.recording(key)?.run_of(key)?;
        let data = segment.identity.data;
        let page = PageOnDisk {
            file: data.place(),
            first_block: key.first_block,
        };
        Some((page, data))
    }

    /// The file system that the page's file is on.
    fn device(&self, key: &PageKey) -> Option<u64> {
        let (_, data) = self.on_disk(key)?;
        Some(data.place().0)
    }

    fn place(&self, key: &PageKey) -> Option<PagePlace> {
        let recording = self.recording(key)?;
        let (channel, segment, _) = recording.run_of(key)?;
        Some(PagePlace {
            session: recording.recording.path.clone(),
            channel: channel.name.clone(),
            segment: segment.stem.clone(),
            first_block: key.first_block,
        })
    }

    /// Ends the flight of a page that a reader has answered.
    pub(crate) fn answered(
        &mut self,
        key: PageKey,
        outcome: &Result<Arc<Page>, Error>,
    ) -> Completed {
        let survived = |flight: &Flight| flight.suspicion != Suspicion::default();
        if self.flights.get(&key).is_some_and(survived)
            && let Some((page, _)) = self.on_disk(&key)
        {
            self.blame.clear(&page);
        }
        if !self.stuck.is_empty()
            && let Some(device) = self.device(&key)
        {
            self.stuck.answered(device);
        }
        self.complete(key, outcome)
    }

    /// Ends a page's flight: everybody who waits for it gets the outcome.
    pub(crate) fn complete(
        &mut self,
        key: PageKey,
        outcome: &Result<Arc<Page>, Error>,
    ) -> Completed {
        let Some(flight) = self.flights.remove(&key) else {
            return Completed::Unwanted;
        };
        self.waiters = self.waiters.saturating_sub(flight.waiters.len());
        for &(id, position) in &flight.waiters {
            let Some(request) = self.requests.get_mut(&id) else {
                continue;
            };
            if let Some(page) = request.pages.get_mut(position) {
                *page = Some(outcome.clone());
            }
            request.missing = request.missing.saturating_sub(1);
            if request.missing == 0
                && let Some(request) = self.requests.remove(&id)
            {
                let pages = request.pages.into_iter().flatten().collect();
                // Whoever asked may be gone.
                let _ = request.reply.send(Ok(pages));
            }
        }
        if flight.waiters.is_empty() {
            Completed::Unwanted
        } else {
            Completed::Wanted
        }
    }
}

impl Flight {
    fn new(recording: Arc<PagedRecording>) -> Self {
        Self {
            recording,
            stage: Stage::LookingUp,
            queued_at: Instant::now(),
            waiters: Vec::new(),
            suspicion: Suspicion::default(),
            predicted_for: None,
        }
    }
}

#[cfg(test)]
mod tests;

//! The table of pages in flight: plain data, without an actor around it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use super::coordinator::Fetched;
use super::quarantine::Quarantine;
use crate::error::Error;
use crate::worker::page::{Page, PageKey, PagedRecording};

/// Requests that may wait for one page, on average over the pages that may be in
/// flight.
const WAITERS_PER_PAGE: usize = 4;

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
    /// Requests that wait, and the position of the page in each.
    waiters: Vec<(u64, usize)>,
    /// A reader died or panicked over a job with this page: it goes alone.
    alone: bool,
    /// A reader died over a job with this page: it never goes to the server
    /// process.
    deadly: bool,
    /// Readers that died of the page alone.
    attempts: u32,
    /// Who is expected to want it, where nobody has asked.
    predicted_for: Option<u64>,
}

/// A request whose pages are not all there.
struct Request {
    pages: Vec<Option<Result<Arc<Page>, Error>>>,
    missing: usize,
    reply: oneshot::Sender<Fetched>,
}

/// Figures of the table.
pub(crate) struct Progress {
    pub(crate) in_flight: u64,
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
    quarantine: Quarantine<PageKey>,
}

impl Flights {
    /// Number of pages in flight.
    pub(crate) fn len(&self) -> usize {
        self.flights.len()
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress {
            in_flight: self.flights.len() as u64,
        }
    }

    /// Number of pages that wait for a job; an upper bound.
    pub(crate) fn queued(&self, class: Class) -> usize {
        match class {
            Class::Request => self.request_queue.len(),
            Class::Prediction => self.prediction_queue.len(),
        }
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

    /// Whether a request of so many pages may be taken in, where `limit` pages
    /// may be in flight.
    pub(crate) fn has_room(&mut self, pages: usize, limit: usize) -> bool {
        let most_waiters = limit.saturating_mul(WAITERS_PER_PAGE);
        if self.waiters.saturating_add(pages) > most_waiters {
            self.sweep();
        }
        self.flights.len().saturating_add(pages) <= limit
            && self.waiters.saturating_add(pages) <= most_waiters
    }

    /// Forgets requests that were cancelled. Their pages stay in flight until
    /// their turn comes.
    fn sweep(&mut self) {
        self.requests
            .retain(|_, request| !request.reply.is_closed());
        self.waiters = 0;
        for flight in self.flights.values_mut() {
            flight
                .waiters
                .retain(|(request, _)| self.requests.contains_key(request));
            self.waiters += flight.waiters.len();
        }
    }

    /// Puts a page that the cache does not have into its queue, unless it is in
    /// quarantine. A prediction that is no longer of interest is queued all the
    /// same: it was looked up before its successor came.
    pub(crate) fn enqueue(&mut self, key: PageKey) -> Completed {
        if let Some(error) = self.quarantine.refusal(&key) {
            let refused = Err(error.clone());
            return self.complete(key, &refused);
        }
        let (known, deadly) = match self.quarantine.recall(&key) {
            Some(error) => (true, !matches!(error, Error::DecoderPanicked(_))),
            None => (false, false),
        };
        let Some(flight) = self.flights.get_mut(&key) else {
            return Completed::Unwanted;
        };
        flight.alone |= known;
        flight.deadly |= deadly;
        if flight.waiters.is_empty() {
            flight.stage = Stage::Queued(Class::Prediction);
            self.prediction_queue.push_back(key);
            Completed::Unwanted
        } else {
            flight.stage = Stage::Queued(Class::Request);
            self.request_queue.push_back(key);
            Completed::Wanted
        }
    }

    /// Puts a page of an unfinished job back to the head of its queue. One that
    /// is set apart goes to the end: it may have to wait for a worker, and others
    /// must not wait with it.
    pub(crate) fn return_to_queue(&mut self, key: PageKey) {
        let Some(flight) = self.flights.get_mut(&key) else {
            return;
        };
        let (class, queue) = if flight.waiters.is_empty() {
            (Class::Prediction, &mut self.prediction_queue)
        } else {
            (Class::Request, &mut self.request_queue)
        };
        flight.stage = Stage::Queued(class);
        if flight.alone {
            queue.push_back(key);
        } else {
            queue.push_front(key);
        }
    }

    /// Notes that a reader panicked over a job with this page among others, or
    /// died.
    pub(crate) fn set_apart(&mut self, key: PageKey, deadly: bool) {
        if let Some(flight) = self.flights.get_mut(&key) {
            flight.alone = true;
            flight.deadly |= deadly;
        }
    }

    /// Gives a page up: it fails now, and is not tried again for a while.
    pub(crate) fn give_up(&mut self, key: PageKey, error: Error) {
        self.quarantine.enter(key, error.clone());
        self.complete(key, &Err(error));
    }

    /// Counts a reader that died of the page and returns the count.
    pub(crate) fn charge(&mut self, key: PageKey) -> u32 {
        self.flights.get_mut(&key).map_or(0, |flight| {
            flight.attempts += 1;
            flight.attempts
        })
    }

    /// Takes pages for one job from the head of a queue, and says whether a
    /// reader has died of them. Such a page goes alone. Pages whose requests
    /// were all cancelled are dropped.
    pub(crate) fn take(
        &mut self,
        class: Class,
        max_pages: usize,
        max_samples: u64,
    ) -> (Vec<PageKey>, bool) {
        let mut keys = Vec::new();
        let mut samples = 0;
        while keys.len() < max_pages {
            let queue = match class {
                Class::Request => &mut self.request_queue,
                Class::Prediction => &mut self.prediction_queue,
            };
            let Some(key) = queue.pop_front() else {
                break;
            };
            let Some(flight) = self.flights.get_mut(&key) else {
                continue;
            };
            if flight.stage != Stage::Queued(class) {
                continue;
            }
            let abandoned = class == Class::Request
                && flight.waiters.iter().all(|(request, _)| {
                    self.requests
                        .get(request)
                        .is_none_or(|request| request.reply.is_closed())
                });
            let run = flight.recording.run_of(&key).map(|(_, _, run)| run);
            let Some(run) = run.filter(|_| !abandoned) else {
                self.complete(key, &Err(Error::Stopped));
                continue;
            };
            samples += run.samples;
            let full = samples > max_samples || flight.alone;
            if full && !keys.is_empty() {
                queue.push_front(key);
                break;
            }
            flight.stage = Stage::Running;
            keys.push(key);
            if flight.alone {
                return (keys, flight.deadly);
            }
        }
        (keys, false)
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
            waiters: Vec::new(),
            alone: false,
            deadly: false,
            attempts: 0,
            predicted_for: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mef::{ChannelOptions, SessionOptions, SessionWriter, open_session};

    /// A recording of eight pages of one block, and their keys.
    fn recording() -> (Arc<PagedRecording>, Vec<PageKey>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.mefd");
        let mut session = SessionWriter::create(&path, SessionOptions::default()).unwrap();
        let options = ChannelOptions {
            block_samples: Some(100),
            ..ChannelOptions::new("c", 100.0)
        };
        let mut channel = session.channel(options).unwrap();
        let samples: Vec<i32> = (0..800).collect();
        channel.write(1_000_000_000_000_000, &samples).unwrap();
        channel.finish().unwrap();
        let recording = PagedRecording::new(open_session(&path).unwrap(), 100);
        let keys = (0..8).filter_map(|block| recording.page_of(0, 0, block));
        let keys: Vec<_> = keys.collect();
        assert_eq!(keys.len(), 8);
        (Arc::new(recording), keys)
    }

    fn asked(
        flights: &mut Flights,
        recording: &Arc<PagedRecording>,
        keys: &[PageKey],
    ) -> oneshot::Receiver<Fetched> {
        let (reply, answer) = oneshot::channel();
        let (new, _) = flights.request(recording, keys, reply);
        for key in new {
            flights.enqueue(key);
        }
        answer
    }

    #[test]
    fn a_page_that_was_set_apart_goes_alone() {
        let (recording, keys) = recording();
        let mut flights = Flights::default();
        let _answer = asked(&mut flights, &recording, &keys[..4]);
        let mut take = || flights.take(Class::Request, 64, u64::MAX);
        assert_eq!(take(), (keys[..4].to_vec(), false));
        let _more = asked(&mut flights, &recording, &keys[4..]);
        for (&key, deadly) in keys[1..3].iter().zip([false, true]) {
            flights.set_apart(key, deadly);
            flights.return_to_queue(key);
        }
        let mut take = || flights.take(Class::Request, 64, u64::MAX);
        assert_eq!(take(), (keys[4..].to_vec(), false), "nobody waits for them");
        assert_eq!(take(), (vec![keys[1]], false));
        assert_eq!(take(), (vec![keys[2]], true));
    }

    #[test]
    fn a_page_that_was_given_up_is_refused_without_a_job() {
        let (recording, keys) = recording();
        let mut flights = Flights::default();
        let mut first = asked(&mut flights, &recording, &keys[..1]);
        flights.take(Class::Request, 1, u64::MAX);
        flights.give_up(keys[0], Error::Stopped);
        for answer in [&mut first, &mut asked(&mut flights, &recording, &keys[..1])] {
            let pages = answer.try_recv().unwrap().unwrap();
            assert!(matches!(pages[..], [Err(Error::Stopped)]));
        }
        assert_eq!(flights.len(), 0);
        assert!(flights.take(Class::Request, 1, u64::MAX).0.is_empty());
    }

    #[test]
    fn cancelled_requests_are_swept_out_and_their_pages_dropped() {
        let (recording, keys) = recording();
        let mut flights = Flights::default();
        let kept = asked(&mut flights, &recording, &keys[..2]);
        drop(asked(&mut flights, &recording, &keys));
        assert_eq!(flights.waiters, 10);
        flights.sweep();
        assert_eq!(flights.waiters, 2);
        let (taken, _) = flights.take(Class::Request, 64, u64::MAX);
        assert_eq!(taken, keys[..2]);
        assert_eq!(flights.len(), 2, "what nobody wants is dropped");
        for &key in &keys[..2] {
            flights.complete(key, &Err(Error::Stopped));
        }
        assert_eq!((flights.len(), flights.waiters), (0, 0));
        drop(kept);
    }

    #[test]
    fn pages_in_flight_and_those_who_wait_for_them_have_limits() {
        let (recording, keys) = recording();
        let mut flights = Flights::default();
        let mut answers = Vec::new();
        for _ in 0..4 {
            assert!(flights.has_room(2, 4));
            answers.push(asked(&mut flights, &recording, &keys[..2]));
        }
        assert!(!flights.has_room(3, 4), "five pages in flight");
        for _ in 0..4 {
            assert!(flights.has_room(2, 4));
            answers.push(asked(&mut flights, &recording, &keys[..2]));
        }
        assert!(!flights.has_room(1, 4), "17 places to wait");
        answers.pop();
        assert!(flights.has_room(2, 4), "who went away takes no place");
    }
}

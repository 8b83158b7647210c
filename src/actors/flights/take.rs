//! Which of the queued pages the next job gets.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Class, Flights, Gate, Stage};
use crate::actors::coordinator::Readers;
use crate::error::Error;
use crate::worker::page::PageKey;

/// Pages that are looked at for one job, for each that it may have.
const SEARCHED: usize = 4;
/// Pages that are put to the end of the queue for one job, since they may not be read
/// now.
const SET_ASIDE: usize = 1024;

/// What pages are taken for a job.
pub(crate) struct Take {
    pub(crate) class: Class,
    /// At most so many pages.
    pub(crate) pages: usize,
    /// Samples of them at most, one page excepted.
    pub(crate) samples: u64,
    /// Channels are dealt out to so many lanes, one for each reader.
    pub(crate) lanes: usize,
    pub(crate) who: Readers,
    /// Whether as many readers as may be are at what may keep them for long.
    pub(crate) only_healthy: bool,
}

/// Pages of a job.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) keys: Vec<PageKey>,
    /// A reader has died over them.
    pub(crate) suspect: bool,
    /// They are to show whether their storage answers.
    pub(crate) trying: bool,
    /// The lane of their channels.
    pub(crate) lane: usize,
    /// How long each has waited, where requests want them.
    pub(crate) waits: Vec<Duration>,
}

impl Flights {
    /// Takes pages for one job from the head of a queue: the first, and those after
    /// it whose channels are of the same lane, so that a channel's files are open in
    /// few readers. A page that a reader has died over goes alone, and fails where it
    /// would go to the server process. One whose storage is stuck goes alone, too, if
    /// it may be tried. Pages whose requests were all cancelled are dropped.
    pub(crate) fn take(&mut self, take: &Take) -> Taken {
        let mut taken = Taken::default();
        let mut samples = 0;
        let mut passed = Vec::new();
        let mut aside = Vec::new();
        let now = Instant::now();
        while taken.keys.len() < take.pages
            && passed.len() < take.pages * SEARCHED
            && aside.len() < SET_ASIDE
        {
            let Some(key) = self.queue_mut(take.class).pop_front() else {
                break;
            };
            let Some(flight) = self.flights.get(&key) else {
                continue;
            };
            if flight.stage != Stage::Queued(take.class) {
                continue;
            }
            let suspicion = flight.suspicion;
            let abandoned = take.class == Class::Request
                && !flight.waiters.iter().any(|(id, _)| self.waits(*id));
            if abandoned {
                self.complete(key, &Err(Error::Stopped));
                continue;
            }
            let gate = self.gate(&key, now);
            // Nobody can end a thread of the server that hangs.
            let deadly = suspicion.deadly || gate != Gate::Open || self.is_in_deadly_file(&key);
            if take.who.refuses(deadly) {
                let what = self.place(&key).map(|place| place.to_string());
                let what = what.unwrap_or_default();
                self.complete(key, &Err(Error::NoWorker { what }));
                continue;
            }
            let unhealthy = suspicion.deadly || gate == Gate::Try;
            if matches!(gate, Gate::Wait | Gate::Shut) || unhealthy && take.only_healthy {
                aside.push(key);
                continue;
            }
            let alone = suspicion.alone || gate == Gate::Try;
            let lane = flight.recording.lane_of(&key, take.lanes);
            let page_samples = flight.recording.words_of(&key);
            if !taken.keys.is_empty() {
                if lane != taken.lane {
                    passed.push(key);
                    continue;
                }
                if samples + page_samples > take.samples || alone {
                    passed.push(key);
                    break;
                }
            }
            samples += page_samples;
            if take.class == Class::Request {
                let wait = now.saturating_duration_since(flight.queued_at);
                taken.waits.push(wait);
            }
            taken.lane = lane;
            taken.keys.push(key);
            if let Some(flight) = self.flights.get_mut(&key) {
                flight.stage = Stage::Running;
            }
            if alone {
                taken.suspect = suspicion.deadly;
                taken.trying = gate == Gate::Try;
                if taken.trying
                    && let Some(device) = self.device(&key)
                {
                    self.stuck.begin(device, now);
                }
                break;
            }
        }
        let queue = self.queue_mut(take.class);
        queue.extend(aside);
        for key in passed.into_iter().rev() {
            queue.push_front(key);
        }
        taken
    }

    /// Whether the page's storage may be read.
    pub(super) fn gate(&self, key: &PageKey, now: Instant) -> Gate {
        if self.stuck.is_empty() {
            return Gate::Open;
        }
        let device = self.device(key);
        device.map_or(Gate::Open, |device| self.stuck.gate(device, now))
    }

    /// Whether a reader has died over a page of the same file.
    fn is_in_deadly_file(&self, key: &PageKey) -> bool {
        let page = self.on_disk(key);
        page.is_some_and(|(page, _)| self.deadly_files.contain(page.file))
    }

    fn queue_mut(&mut self, class: Class) -> &mut VecDeque<PageKey> {
        match class {
            Class::Request => &mut self.request_queue,
            Class::Prediction => &mut self.prediction_queue,
        }
    }
}

//! The prefetcher.
//!
//! Owns what each reader did last. After a window it predicts the next ones and
//! has their pages decoded at low priority, never beyond the recording's end.

use std::num::NonZeroUsize;

use actix::{Actor, Addr, Context, Handler, Message, MessageResult};
use lru::LruCache;

use super::coordinator::{Coordinator, Predict};
use super::plan::{Pattern, ReadPlan};
use super::settings::Settings;
use crate::mef::Grid;
use crate::worker::page::RecordingId;

/// Readers that are remembered.
const READERS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// Figures of the prefetcher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrefetchStatistics {
    /// Windows that were predicted.
    pub predicted_windows: u64,
}

/// Where a reader was.
struct Position {
    recording: RecordingId,
    start_uutc: i64,
}

/// The prefetcher actor.
pub(crate) struct Prefetcher {
    coordinator: Addr<Coordinator>,
    readers: LruCache<u64, Position>,
    settings: Settings,
    statistics: PrefetchStatistics,
}

impl Prefetcher {
    pub(crate) fn new(settings: &Settings, coordinator: Addr<Coordinator>) -> Self {
        Self {
            coordinator,
            readers: LruCache::new(READERS),
            settings: settings.clone(),
            statistics: PrefetchStatistics::default(),
        }
    }

    /// The windows that the reader is expected to want, soonest first.
    fn predict(&mut self, reader: u64, plan: &ReadPlan) -> Vec<(i64, i64)> {
        let (start, end) = (plan.grid.start_uutc(), plan.grid.end_uutc());
        let length = end.saturating_sub(start);
        let recording = plan.recording.id;
        let last = self.readers.put(
            reader,
            Position {
                recording,
                start_uutc: start,
            },
        );
        let backwards =
            last.is_some_and(|last| last.recording == recording && last.start_uutc > start);
        let (onwards, back) = match plan.pattern {
            Pattern::Segments => (self.settings.ahead_segments, 0),
            Pattern::Windows => (self.settings.ahead_windows, self.settings.behind_windows),
            Pattern::Parts => (0, 0),
        };
        let direction = if backwards { -1 } else { 1 };
        let steps = (1..=onwards as i64)
            .map(|step| step * direction)
            .chain((1..=back as i64).map(|step| -step * direction));
        let span = &plan.recording.recording;
        let (Some(first), Some(last)) = (span.start_uutc(), span.end_uutc()) else {
            return Vec::new();
        };
        steps
            .map(|step| step.saturating_mul(length))
            .map(|shift| (start.saturating_add(shift), end.saturating_add(shift)))
            .map(|(from, until)| (from.max(first), until.min(last)))
            .filter(|(from, until)| from < until)
            .collect()
    }
}

impl Actor for Prefetcher {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.settings.mailbox);
    }
}

/// Says that a reader has been given a window.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Observed {
    /// Tells readers from each other.
    pub(crate) reader: u64,
    pub(crate) plan: ReadPlan,
}

impl Handler<Observed> for Prefetcher {
    type Result = ();

    fn handle(&mut self, Observed { reader, plan }: Observed, _: &mut Self::Context) {
        let windows = self.predict(reader, &plan);
        self.statistics.predicted_windows += windows.len() as u64;
        if windows.is_empty() || self.settings.prefetch_bytes == 0 {
            return;
        }
        let coordinator = self.coordinator.clone();
        let mut budget = self.settings.prefetch_bytes;
        // Walking the indices of hundreds of channels is not an actor's work.
        tokio::task::spawn_blocking(move || {
            let mut pages = Vec::new();
            for (start, end) in windows {
                let (rule, rate) = (plan.grid.rule(), plan.grid.sampling_frequency());
                if let Ok(grid) = Grid::new(rule, start, end, rate) {
                    let window = ReadPlan {
                        grid,
                        columns: 0..grid.columns(),
                        ..plan.clone()
                    };
                    pages.extend(window.pages(&mut budget));
                }
            }
            // A coordinator without room has better things to do.
            let _ = coordinator.try_send(Predict {
                reader,
                recording: plan.recording,
                pages,
            });
        });
    }
}

/// Asks for the prefetcher's figures.
#[derive(Message)]
#[rtype(result = "PrefetchStatistics")]
pub(crate) struct CountPredictions;

impl Handler<CountPredictions> for Prefetcher {
    type Result = MessageResult<CountPredictions>;

    fn handle(&mut self, _: CountPredictions, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.statistics)
    }
}

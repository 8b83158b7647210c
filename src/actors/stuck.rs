//! Storage that does not answer: which file systems, and how they are tried again.
//!
//! Every read of a mount whose server is gone holds its worker until that is killed.
//! What waits for such storage must not take all workers, nor hold what others need,
//! so that after a few such ends it is asked by one worker at a time, and whoever else
//! wants something of it is told so.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

/// File systems that are remembered; the oldest go first.
const DEVICES: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// Readers that stalled over files of one, without an answer in between, before it is
/// taken for stuck. One may have got lost in a single file.
const STALLS: u32 = 2;
/// How long after its last stall storage is tried like any other.
const TERM: Duration = Duration::from_secs(600);
/// How long whoever else wants something waits for the reader that tries.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether files of a file system may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// As any other.
    Open,
    /// By one reader, to see whether it answers.
    Try,
    /// Not now: one reader has just begun to try.
    Wait,
    /// One reader tries, and has no answer.
    Shut,
}

struct Device {
    stalls: u32,
    last: Instant,
    /// Since when a reader tries.
    tried: Option<Instant>,
}

/// File systems over whose files readers have stalled.
pub(super) struct StuckStorage {
    devices: LruCache<u64, Device>,
}

impl Default for StuckStorage {
    fn default() -> Self {
        Self {
            devices: LruCache::new(DEVICES),
        }
    }
}

impl StuckStorage {
    /// Whether no reader has stalled of late, so that nothing need be asked.
    pub(super) fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    pub(super) fn gate(&self, device: u64, now: Instant) -> Gate {
        let Some(known) = self.devices.peek(&device) else {
            return Gate::Open;
        };
        let since = |then| now.saturating_duration_since(then);
        if known.stalls < STALLS || since(known.last) >= TERM {
            return Gate::Open;
        }
        match known.tried {
            None => Gate::Try,
            Some(begun) if since(begun) < PATIENCE => Gate::Wait,
            Some(_) => Gate::Shut,
        }
    }

    /// A reader begins to try.
    pub(super) fn begin(&mut self, device: u64, now: Instant) {
        if let Some(known) = self.devices.peek_mut(&device) {
            known.tried = Some(now);
        }
    }

    /// A reader has ended without an answer, for whatever reason.
    pub(super) fn ended(&mut self, device: u64) {
        if let Some(known) = self.devices.peek_mut(&device) {
            known.tried = None;
        }
    }

    /// A reader was killed, since it got no further with a file.
    pub(super) fn stalled(&mut self, device: u64, now: Instant) {
        let fresh = || Device {
            stalls: 0,
            last: now,
            tried: None,
        };
        let known = self.devices.get_or_insert_mut(device, fresh);
        if now.saturating_duration_since(known.last) >= TERM {
            known.stalls = 0;
        }
        known.stalls += 1;
        known.last = now;
        known.tried = None;
        if known.stalls == STALLS {
            tracing::error!(device, "storage does not answer: it is tried by one worker");
        }
    }

    /// A reader has answered something of a file.
    pub(super) fn answered(&mut self, device: u64) {
        let known = self.devices.pop(&device);
        if known.is_some_and(|known| known.stalls >= STALLS) {
            tracing::info!(device, "storage answers again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_that_stalls_twice_is_tried_by_one_reader_until_it_answers() {
        let mut storage = StuckStorage::default();
        let now = Instant::now();
        let later = now + PATIENCE;
        storage.stalled(1, now);
        assert_eq!(storage.gate(1, now), Gate::Open, "one file may be to blame");
        storage.stalled(1, now);
        assert_eq!(storage.gate(1, now), Gate::Try);
        assert_eq!(storage.gate(2, now), Gate::Open);
        storage.begin(1, now);
        assert_eq!(storage.gate(1, now), Gate::Wait);
        assert_eq!(storage.gate(1, later), Gate::Shut);
        storage.ended(1);
        assert_eq!(storage.gate(1, later), Gate::Try);
        assert_eq!(storage.gate(1, now + TERM), Gate::Open);
        storage.stalled(1, now + TERM);
        assert_eq!(storage.gate(1, now + TERM), Gate::Open, "as the first time");
        storage.answered(1);
        assert!(storage.is_empty());
    }

    #[test]
    fn an_answer_between_two_stalls_says_that_the_storage_is_well() {
        let mut storage = StuckStorage::default();
        let now = Instant::now();
        for _ in 0..5 {
            storage.stalled(1, now);
            storage.answered(1);
        }
        assert_eq!(storage.gate(1, now), Gate::Open);
    }
}

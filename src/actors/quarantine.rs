//! Pages and sessions that were given up: they are not tried again for a while.

use std::borrow::Borrow;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::error::Error;

/// Entries that are remembered; the oldest go first.
const ENTRIES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);
/// How long an entry is answered with its error. After that it is tried again.
const TERM: Duration = Duration::from_secs(60);

/// A bounded memory of what was given up, and why.
pub(super) struct Quarantine<K: Hash + Eq> {
    entries: LruCache<K, (Instant, Error)>,
}

impl<K: Hash + Eq> Default for Quarantine<K> {
    fn default() -> Self {
        Self {
            entries: LruCache::new(ENTRIES),
        }
    }
}

impl<K: Hash + Eq> Quarantine<K> {
    /// Remembers that `key` was given up.
    pub(super) fn enter(&mut self, key: K, error: Error) {
        self.entries.put(key, (Instant::now(), error));
    }

    /// The error of what is not to be tried again yet.
    pub(super) fn refusal<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&Error>
    where
        K: Borrow<Q>,
    {
        self.refusal_at(key, Instant::now())
    }

    fn refusal_at<Q: Hash + Eq + ?Sized>(&self, key: &Q, now: Instant) -> Option<&Error>
    where
        K: Borrow<Q>,
    {
        let (since, error) = self.entries.peek(key)?;
        (now.saturating_duration_since(*since) < TERM).then_some(error)
    }

    /// Why `key` was given up, ever, as far as that is remembered.
    pub(super) fn recall<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&Error>
    where
        K: Borrow<Q>,
    {
        self.entries.peek(key).map(|(_, error)| error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_is_refused_for_its_term_and_known_after_it() {
        let mut quarantine = Quarantine::default();
        quarantine.enter(7, Error::Stopped);
        let now = Instant::now();
        assert_eq!(quarantine.refusal(&7), Some(&Error::Stopped));
        assert_eq!(quarantine.refusal(&8), None);
        assert_eq!(quarantine.refusal_at(&7, now + TERM), None);
        assert_eq!(quarantine.recall(&7), Some(&Error::Stopped));
        assert_eq!(quarantine.recall(&8), None);
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let mut quarantine = Quarantine::default();
        for key in 0..=ENTRIES.get() {
            quarantine.enter(key, Error::Stopped);
        }
        assert!(quarantine.recall(&0).is_none());
        assert!(quarantine.recall(&1).is_some());
        assert!(quarantine.recall(&ENTRIES.get()).is_some());
    }
}

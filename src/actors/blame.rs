//! What is held against pages and sessions: readers that died or panicked over
//! them.

use std::borrow::Borrow;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::error::Error;

/// Entries that are remembered; the oldest go first.
const ENTRIES: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);
/// How long what was given up is answered with its error. After that it is tried
/// again.
const TERM: Duration = Duration::from_secs(60);
/// How long the server itself reads nothing of a file that readers have died over.
const DEADLY_TERM: Duration = Duration::from_secs(600);
/// Readers that may die of a page or a session before it is given up.
const MAX_DEATHS: u32 = 2;

/// Readers that may be killed from outside over a page or a session: the next ones
/// count as its own. A killer that we do not know of may choose by what they use.
const MAX_KILLS: u32 = 5;

/// What is held against a page or a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Suspicion {
    /// A reader died or panicked over a job with it: it goes alone.
    pub(super) alone: bool,
    /// A reader died over a job with it: it never goes to the server process.
    pub(super) deadly: bool,
    /// Readers that died over it, or over it and others.
    pub(super) deaths: u32,
    /// Readers that were killed from outside while they had it.
    kills: u32,
}

impl Suspicion {
    /// One of several that a reader may have panicked over.
    pub(super) fn panicked(&mut self) {
        self.alone = true;
    }

    /// One of several that a reader may have died of.
    pub(super) fn died(&mut self) {
        self.alone = true;
        self.deadly = true;
        self.deaths += 1;
    }

    /// What a reader had when it was killed from outside; whether it is to be given
    /// up now. It does not go to the server process less for it, and alone only
    /// after the second time, so that it has the best chances.
    pub(super) fn killed(&mut self) -> bool {
        self.kills += 1;
        self.alone |= self.kills > 1;
        self.kills > MAX_KILLS && self.died_alone()
    }

    /// What a reader has died of; whether it is to be given up now.
    pub(super) fn died_alone(&mut self) -> bool {
        self.died();
        self.deaths >= MAX_DEATHS
    }
}

/// Files that readers have died over of late, whatever pages it were, and though the
/// files may have grown since: where one page is deadly, another may be.
pub(super) struct DeadlyFiles {
    files: LruCache<(u64, u64), Instant>,
}

impl Default for DeadlyFiles {
    fn default() -> Self {
        Self {
            files: LruCache::new(ENTRIES),
        }
    }
}

impl DeadlyFiles {
    /// Notes that a reader has died over a file.
    pub(super) fn note(&mut self, file: (u64, u64)) {
        self.files.put(file, Instant::now());
    }

    pub(super) fn contain(&self, file: (u64, u64)) -> bool {
        self.contain_at(file, Instant::now())
    }

    fn contain_at(&self, file: (u64, u64), now: Instant) -> bool {
        let noted = self.files.peek(&file);
        noted.is_some_and(|&noted| now.saturating_duration_since(noted) < DEADLY_TERM)
    }
}

#[derive(Default)]
struct Entry {
    suspicion: Suspicion,
    given_up: Option<(Instant, Error)>,
}

/// A bounded memory of suspicions. It outlives the requests and openings that
/// gave rise to them, so that nobody who asks again starts from nothing.
pub(super) struct Blame<K: Hash + Eq> {
    entries: LruCache<K, Entry>,
}

impl<K: Hash + Eq> Default for Blame<K> {
    fn default() -> Self {
        Self {
            entries: LruCache::new(ENTRIES),
        }
    }
}

impl<K: Hash + Eq> Blame<K> {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is held against `key`.
    pub(super) fn suspicion<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Suspicion
    where
        K: Borrow<Q>,
    {
        let entry = self.entries.peek(key);
        entry.map_or_else(Suspicion::default, |entry| entry.suspicion)
    }

    /// Remembers what is held against `key`.
    pub(super) fn suspect(&mut self, key: K, suspicion: Suspicion) {
        let entry = self.entries.get_or_insert_mut(key, Entry::default);
        entry.suspicion = suspicion;
    }

    /// Remembers that `key` was given up.
    pub(super) fn give_up(&mut self, key: K, error: Error) {
        let entry = self.entries.get_or_insert_mut(key, Entry::default);
        entry.suspicion.alone = true;
        entry.given_up = Some((Instant::now(), error));
    }

    /// Forgets what was held against `key`: a reader has survived it.
    pub(super) fn clear<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.entries.pop(key);
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
        let (since, error) = self.entries.peek(key)?.given_up.as_ref()?;
        (now.saturating_duration_since(*since) < TERM).then_some(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_is_refused_for_its_term_and_suspect_after_it() {
        let mut blame = Blame::default();
        blame.suspect(7, Suspicion::default());
        assert_eq!(blame.refusal(&7), None);
        blame.give_up(7, Error::Stopped);
        let now = Instant::now();
        assert_eq!(blame.refusal(&7), Some(&Error::Stopped));
        assert_eq!(blame.refusal(&8), None);
        assert_eq!(blame.refusal_at(&7, now + TERM), None);
        assert!(blame.suspicion(&7).alone);
        assert_eq!(blame.suspicion(&8), Suspicion::default());
        blame.clear(&7);
        assert!(blame.is_empty());
        assert_eq!(blame.refusal(&7), None);
    }

    #[test]
    fn the_second_death_is_the_last() {
        let mut suspicion = Suspicion::default();
        suspicion.panicked();
        assert!(suspicion.alone && !suspicion.deadly);
        suspicion.died();
        assert!(suspicion.deadly && suspicion.deaths == 1);
        // It was among those that the first may have died of.
        assert!(suspicion.died_alone());
        let mut alone = Suspicion::default();
        assert!(!alone.died_alone());
        assert!(alone.died_alone());
    }

    #[test]
    fn kills_from_outside_count_only_when_there_is_no_end_of_them() {
        let mut suspicion = Suspicion::default();
        assert!(!suspicion.killed());
        assert!(!suspicion.alone);
        for _ in 1..MAX_KILLS {
            assert!(!suspicion.killed());
            assert!(suspicion.alone && !suspicion.deadly && suspicion.deaths == 0);
        }
        assert!(!suspicion.killed());
        assert!(suspicion.deadly && suspicion.deaths == 1);
        assert!(suspicion.killed());
    }

    #[test]
    fn a_file_is_deadly_for_its_term() {
        let mut files = DeadlyFiles::default();
        files.note((1, 2));
        assert!(files.contain((1, 2)) && !files.contain((1, 3)));
        assert!(!files.contain_at((1, 2), Instant::now() + DEADLY_TERM));
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let mut blame = Blame::default();
        for key in 0..=ENTRIES.get() {
            blame.give_up(key, Error::Stopped);
        }
        assert!(blame.refusal(&0).is_none());
        assert!(blame.refusal(&1).is_some());
        assert!(blame.refusal(&ENTRIES.get()).is_some());
    }
}

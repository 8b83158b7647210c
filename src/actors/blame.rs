//! What is held against pages and sessions: readers that died or panicked over
//! them.

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
/// The same for what has grown since, or may be another by now: that must be read soon,
/// and yet not end readers all the time.
const CHANGED_TERM: Duration = Duration::from_secs(5);
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

/// Tells the states of something apart that has one name.
pub(super) trait Version: Copy + PartialEq {
    /// Whether it is what it was earlier, with more of it.
    fn grew_from(&self, earlier: &Self) -> bool;
}

/// Nobody knows the state of a session before it is opened.
impl Version for () {
    fn grew_from(&self, (): &Self) -> bool {
        false
    }
}

struct Entry<V> {
    version: V,
    suspicion: Suspicion,
    given_up: Option<(Instant, Error)>,
}

/// A bounded memory of suspicions against what has a name `K`. It outlives the requests
/// and openings that gave rise to them, so that nobody who asks again starts from
/// nothing. Of a version that has not grown from the one that it knows, it knows nothing.
pub(super) struct Blame<K: Hash + Eq, V> {
    entries: LruCache<K, Entry<V>>,
    term: Duration,
}

impl<K: Hash + Eq> Blame<K, ()> {
    /// For what may change without anybody's knowing.
    pub(super) fn of_unversioned() -> Self {
        Self {
            entries: LruCache::new(ENTRIES),
            term: CHANGED_TERM,
        }
    }
}

impl<K: Hash + Eq, V> Default for Blame<K, V> {
    fn default() -> Self {
        Self {
            entries: LruCache::new(ENTRIES),
            term: TERM,
        }
    }
}

impl<K: Hash + Eq, V: Version> Blame<K, V> {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is held against `key`.
    pub(super) fn suspicion(&self, key: &K, version: &V) -> Suspicion {
        let entry = self.known(key, version);
        entry.map_or_else(Suspicion::default, |entry| entry.suspicion)
    }

    /// Remembers what is held against `key`.
    pub(super) fn suspect(&mut self, key: K, version: V, suspicion: Suspicion) {
        self.entry(key, version).suspicion = suspicion;
    }

    /// Remembers that `key` was given up.
    pub(super) fn give_up(&mut self, key: K, version: V, error: Error) {
        let entry = self.entry(key, version);
        entry.suspicion.alone = true;
        entry.given_up = Some((Instant::now(), error));
    }

    fn entry(&mut self, key: K, version: V) -> &mut Entry<V> {
        let fresh = || Entry {
            version,
            suspicion: Suspicion::default(),
            given_up: None,
        };
        let entry = self.entries.get_or_insert_mut(key, fresh);
        if version.grew_from(&entry.version) {
            entry.version = version;
            entry.given_up = None;
        } else if version != entry.version && !entry.version.grew_from(&version) {
            *entry = fresh();
        }
        entry
    }

    /// What is known of this version, of the one that it has grown from, or of one that
    /// has grown from it.
    fn known(&self, key: &K, version: &V) -> Option<&Entry<V>> {
        let entry = self.entries.peek(key)?;
        let known = &entry.version;
        let same = version == known || version.grew_from(known) || known.grew_from(version);
        same.then_some(entry)
    }

    /// Forgets what was held against `key`: a reader has survived it.
    pub(super) fn clear(&mut self, key: &K) {
        self.entries.pop(key);
    }

    /// The error of what is not to be tried again yet.
    pub(super) fn refusal(&self, key: &K, version: &V) -> Option<&Error> {
        self.refusal_at(key, version, Instant::now())
    }

    /// Number of those that are not to be tried again yet, as they were last known.
    pub(super) fn given_up(&self, now: Instant) -> usize {
        let given_up = self.entries.iter().filter(|(_, entry)| {
            let since = entry.given_up.as_ref().map(|(since, _)| *since);
            since.is_some_and(|since| now.saturating_duration_since(since) < self.term)
        });
        given_up.count()
    }

    fn refusal_at(&self, key: &K, version: &V, now: Instant) -> Option<&Error> {
        let entry = self.known(key, version)?;
        let (since, error) = entry.given_up.as_ref()?;
        let term = match entry.version == *version {
            true => self.term,
            false => CHANGED_TERM,
        };
        (now.saturating_duration_since(*since) < term).then_some(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of some size; another one is a hundred times as large.
    impl Version for u32 {
        fn grew_from(&self, earlier: &Self) -> bool {
            self > earlier && *self < 100 * earlier
        }
    }

    #[test]
    fn what_was_given_up_is_refused_for_its_term_and_suspect_after_it() {
        let mut blame = Blame::default();
        blame.suspect(7, 1, Suspicion::default());
        assert_eq!(blame.refusal(&7, &1), None);
        blame.give_up(7, 1, Error::Stopped);
        let now = Instant::now();
        assert_eq!(blame.refusal(&7, &1), Some(&Error::Stopped));
        assert_eq!(blame.refusal(&8, &1), None);
        assert_eq!(blame.refusal_at(&7, &1, now + TERM), None);
        assert_eq!((blame.given_up(now), blame.given_up(now + TERM)), (1, 0));
        assert!(blame.suspicion(&7, &1).alone);
        assert_eq!(blame.suspicion(&8, &1), Suspicion::default());
        blame.clear(&7);
        assert!(blame.is_empty());
        assert_eq!(blame.refusal(&7, &1), None);
    }

    #[test]
    fn what_has_grown_is_tried_again_soon_and_another_at_once() {
        let mut pages = Blame::default();
        pages.give_up(7, 1, Error::Stopped);
        let soon = Instant::now() + CHANGED_TERM;
        assert!(pages.refusal_at(&7, &1, soon).is_some());
        assert!(pages.refusal(&7, &2).is_some());
        assert!(pages.refusal_at(&7, &2, soon).is_none());
        assert!(pages.suspicion(&7, &2).alone);
        // A read that began before it had grown.
        pages.give_up(8, 2, Error::Stopped);
        assert!(pages.refusal(&8, &1).is_some());
        pages.suspect(8, 1, Suspicion::default());
        assert!(pages.refusal(&8, &2).is_some());
        // That it was given up before says nothing of what it is now.
        let suspicion = pages.suspicion(&7, &2);
        pages.suspect(7, 2, suspicion);
        assert!(pages.refusal(&7, &2).is_none());
        pages.give_up(7, 2, Error::Stopped);
        assert!(pages.refusal(&7, &200).is_none());
        assert_eq!(pages.suspicion(&7, &200), Suspicion::default());
        pages.suspect(7, 200, Suspicion::default());
        assert!(!pages.suspicion(&7, &200).alone);
    }

    #[test]
    fn sessions_are_tried_again_soon() {
        let mut sessions = Blame::of_unversioned();
        sessions.give_up(7, (), Error::Stopped);
        assert!(sessions.refusal(&7, &()).is_some());
        let soon = Instant::now() + CHANGED_TERM;
        assert!(sessions.refusal_at(&7, &(), soon).is_none());
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
            blame.give_up(key, (), Error::Stopped);
        }
        assert!(blame.refusal(&0, &()).is_none());
        assert!(blame.refusal(&1, &()).is_some());
        assert!(blame.refusal(&ENTRIES.get(), &()).is_some());
    }
}

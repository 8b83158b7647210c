//! The page cache.
//!
//! Owns decoded pages: an LRU list under a byte budget, emptied of what nobody
//! has asked for within the idle time. It never decodes and never waits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Message, MessageResult};
use lru::LruCache;

use super::settings::Settings;
use crate::worker::page::{Page, PageKey, RecordingId};

/// What a page costs beside its own bytes: key, list links and hash slot.
const ENTRY_BYTES: usize = 160;

/// Figures of the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStatistics {
    /// Pages that requests asked for and that were there.
    pub hits: u64,
    /// Pages that requests asked for and that were not there.
    pub misses: u64,
    /// Hits on pages that a prediction had brought, each counted once.
    pub prefetch_hits: u64,
    /// Pages that a prediction had brought, and that were dropped before any request
    /// asked for them.
    pub prefetch_wasted: u64,
    /// Pages that were dropped to stay within the budget.
    pub evictions: u64,
    /// Pages that are held.
    pub pages: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Bytes that they may take.
    pub budget_bytes: u64,
}

struct Entry {
    page: Arc<Page>,
    last_use: Instant,
    /// Brought by a prediction, and not asked for yet.
    predicted: bool,
}

impl Entry {
    fn cost(&self) -> usize {
        self.page.memory() + ENTRY_BYTES
    }
}

/// The cache actor.
pub(crate) struct Cache {
    pages: LruCache<PageKey, Entry>,
    bytes: usize,
    budget: usize,
    idle_limit: Option<Duration>,
    mailbox: usize,
    statistics: CacheStatistics,
}

impl Cache {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            // Bounded by bytes, not by number.
            pages: LruCache::unbounded(),
            bytes: 0,
            budget: settings.cache_bytes,
            idle_limit: settings.cache_idle_limit,
            mailbox: settings.mailbox,
            statistics: CacheStatistics::default(),
        }
    }

    fn store(&mut self, key: PageKey, page: Arc<Page>, predicted: bool) {
        let entry = Entry {
            page,
            last_use: Instant::now(),
            predicted,
        };
        let cost = entry.cost();
        if cost > self.budget {
            return;
        }
        self.bytes += cost;
        if let Some((_, replaced)) = self.pages.push(key, entry) {
            self.note_dropped(&replaced);
        }
        while self.bytes > self.budget && self.drop_oldest() {
            self.statistics.evictions += 1;
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let oldest = self.pages.pop_lru();
        if let Some((_, entry)) = &oldest {
            self.note_dropped(entry);
        }
        oldest.is_some()
    }

    fn note_dropped(&mut self, entry: &Entry) {
        self.bytes -= entry.cost();
        self.statistics.prefetch_wasted += u64::from(entry.predicted);
    }

    /// Drops what has idled too long; the list is in order of use.
    fn drop_idle(&mut self) {
        let Some(limit) = self.idle_limit else {
            return;
        };
        while self
            .pages
            .peek_lru()
            .is_some_and(|(_, entry)| entry.last_use.elapsed() > limit)
        {
            self.drop_oldest();
        }
    }
}

impl Actor for Cache {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.mailbox);
        if let Some(limit) = self.idle_limit {
            let period = (limit / 10).clamp(Duration::from_millis(100), Duration::from_secs(60));
            context.run_interval(period, |cache, _| cache.drop_idle());
        }
    }
}

/// Asks for pages. The answer has an entry for each key.
#[derive(Message)]
#[rtype(result = "Vec<Option<Arc<Page>>>")]
pub(crate) struct LookUp {
    pub(crate) keys: Vec<PageKey>,
    /// A prediction asks: not counted, and no page becomes younger by it.
    pub(crate) prediction: bool,
}

impl Handler<LookUp> for Cache {
    type Result = MessageResult<LookUp>;

    fn handle(&mut self, message: LookUp, _: &mut Self::Context) -> Self::Result {
        let now = Instant::now();
        let pages = message.keys.iter().map(|key| {
            if message.prediction {
                return self.pages.peek(key).map(|entry| Arc::clone(&entry.page));
            }
            let Some(entry) = self.pages.get_mut(key) else {
                self.statistics.misses += 1;
                return None;
            };
            entry.last_use = now;
            self.statistics.hits += 1;
            self.statistics.prefetch_hits += u64::from(std::mem::take(&mut entry.predicted));
            Some(Arc::clone(&entry.page))
        });
        MessageResult(pages.collect())
    }
}

/// Stores decoded pages.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Store {
    /// Pages, and whether only a prediction wanted them.
    pub(crate) pages: Vec<(PageKey, Arc<Page>, bool)>,
}

impl Handler<Store> for Cache {
    type Result = ();

    fn handle(&mut self, message: Store, _: &mut Self::Context) {
        for (key, page, predicted) in message.pages {
            self.store(key, page, predicted);
        }
    }
}

/// Drops all pages of a recording.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Purge(pub(crate) RecordingId);

impl Handler<Purge> for Cache {
    type Result = ();

    fn handle(&mut self, Purge(recording): Purge, _: &mut Self::Context) {
        let keys: Vec<PageKey> = self
            .pages
            .iter()
            .filter(|(key, _)| key.recording == recording)
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            if let Some(entry) = self.pages.pop(&key) {
                self.note_dropped(&entry);
            }
        }
    }
}

/// Asks for the cache's figures.
#[derive(Message)]
#[rtype(result = "CacheStatistics")]
pub(crate) struct CountCache;

impl Handler<CountCache> for Cache {
    type Result = MessageResult<CountCache>;

    fn handle(&mut self, _: CountCache, _: &mut Self::Context) -> Self::Result {
        MessageResult(CacheStatistics {
            pages: self.pages.len() as u64,
            bytes: self.bytes as u64,
            budget_bytes: self.budget as u64,
            ..self.statistics
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mef::DecodedBlock;
    use crate::worker::page::{Form, PagedRecording, SegmentId};

    fn page(samples: u32) -> Arc<Page> {
        let block = DecodedBlock {
            start_uutc: 0,
            samples,
            damage: None,
        };
        Arc::new(Page::new(0, [(block, samples)], vec![0; samples as usize].into()).unwrap())
    }

    fn keys(count: u32) -> Vec<PageKey> {
        let recording = PagedRecording::empty().id;
        let key = |first_block| PageKey {
            recording,
            segment: SegmentId::ANY,
            first_block,
            blocks: 1,
            form: Form::Counts,
        };
        (0..count).map(key).collect()
    }

    fn cache(budget: usize) -> Cache {
        Cache::new(&Settings {
            cache_bytes: budget,
            cache_idle_limit: Some(Duration::ZERO),
            ..Settings::default()
        })
    }

    #[test]
    fn the_budget_holds_whatever_is_stored() {
        let mut cache = cache(10 * (page(100).memory() + ENTRY_BYTES));
        for key in keys(50) {
            cache.store(key, page(100), false);
            assert!(cache.bytes <= cache.budget);
        }
        assert_eq!(cache.pages.len(), 10);
        assert_eq!(cache.statistics.evictions, 40);
        // A page that is larger than everything is not worth everything.
        cache.store(keys(1)[0], page(100_000), false);
        assert_eq!(cache.pages.len(), 10);
        let summed: usize = cache.pages.iter().map(|(_, entry)| entry.cost()).sum();
        assert_eq!(cache.bytes, summed);
    }

    #[test]
    fn storing_a_page_again_keeps_the_account() {
        let mut cache = cache(1 << 20);
        let key = keys(1)[0];
        cache.store(key, page(100), false);
        cache.store(key, page(50), false);
        assert_eq!(cache.bytes, page(50).memory() + ENTRY_BYTES);
    }

    #[test]
    fn predicted_pages_that_nobody_asked_for_are_wasted() {
        let mut cache = cache(10 * (page(100).memory() + ENTRY_BYTES));
        let keys = keys(20);
        for &key in &keys[..5] {
            cache.store(key, page(100), true);
        }
        let question = LookUp {
            keys: keys[..2].to_vec(),
            prediction: false,
        };
        cache.handle(question, &mut Context::new());
        for &key in &keys[5..] {
            cache.store(key, page(100), false);
        }
        let figures = cache.statistics;
        assert_eq!((figures.prefetch_hits, figures.prefetch_wasted), (2, 3));
    }

    #[test]
    fn idle_pages_go() {
        let mut cache = cache(1 << 20);
        cache.store(keys(1)[0], page(100), false);
        std::thread::sleep(Duration::from_millis(2));
        cache.drop_idle();
        assert_eq!((cache.pages.len(), cache.bytes), (0, 0));
    }
}

//! Fetching the pages of a read, a bounded number of bytes ahead of its reader.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Addr;
use futures_util::FutureExt;
use futures_util::future::{MaybeDone, maybe_done};
use tokio::sync::oneshot;
use tracing::debug_span;

use crate::actors::coordinator::{Coordinator, Fetch, Fetched};
use crate::actors::file_manager::{Check, FileManager};
use crate::actors::plan::{Pattern, ReadPlan};
use crate::actors::prefetcher::{Observed, Prefetcher};
use crate::actors::settings::Settings;
use crate::actors::tree::Addresses;
use crate::error::Error;
use crate::mef::{BlockPosition, Placement, duration_us};
use crate::trace::{self, Trace};
use crate::worker::page::{Page, PageKey, PagedRecording};

use super::permits::Lease;

/// Number of a chunk within its read.
type ChunkNumber = u64;

/// The pages of a read, chunk of columns by chunk of columns.
///
/// A page that several chunks need is asked for once and held from the first to
/// the last of them, whatever the cache does meanwhile, as long as what is held
/// stays within its limit and the permits for it can be had.
pub(crate) struct ReadAhead {
    file_manager: Addr<FileManager>,
    /// How long ago the files may have been looked at.
    staleness: Duration,
    checked_at: Option<Instant>,
    coordinator: Addr<Coordinator>,
    prefetcher: Addr<Prefetcher>,
    pub(crate) plan: ReadPlan,
    reader: u64,
    pub(crate) placements: Vec<Placement>,
    columns_per_chunk: u64,
    max_bytes: usize,
    /// Chunks that may be asked for ahead: one with the first, so that it comes
    /// soon, and twice as many with each that is taken.
    may_be_ahead: usize,
    next_column: u64,
    next_chunk: ChunkNumber,
    coming: VecDeque<Coming>,
    held: HashMap<PageKey, Held>,
    /// What may be held.
    lease: Lease,
}

/// A chunk whose pages were asked for.
struct Coming {
    number: ChunkNumber,
    first_column: u64,
    columns: u64,
    /// For each row, the blocks to place, in order, and the page of each.
    rows: Vec<Vec<(BlockPosition, PageKey)>>,
    asked: Vec<PageKey>,
    /// Bytes of these.
    bytes: usize,
    answer: MaybeDone<oneshot::Receiver<Fetched>>,
    /// Until they have come.
    trace: Option<Trace>,
}

impl Coming {
    /// Whether it is known already that there was no room for its pages.
    fn is_refused(&mut self) -> bool {
        // What comes later is waited for later.
        let _ = (&mut self.answer).now_or_never();
        let answer = Pin::new(&mut self.answer).output_mut();
        matches!(answer, Some(Ok(Err(Error::Busy { .. }))))
    }
}

/// A page that a coming chunk needs, or one that is still to be planned.
struct Held {
    /// Empty until it comes.
    page: Option<Arc<Page>>,
    bytes: usize,
    last_use: ChunkNumber,
    /// The end of its last block, uUTC.
    end_uutc: i64,
    /// Held by a permit for pages ahead of the client. Otherwise the client waits
    /// for it.
    ahead: bool,
}

impl Held {
    /// Whether no chunk after this one needs it. The one after the last that was
    /// planned may need a page again; times that lie far ahead must not fill the
    /// memory.
    fn is_over(&self, chunk: ChunkNumber, planned_until: i64) -> bool {
        self.last_use <= chunk && self.end_uutc <= planned_until
    }
}

/// A range of columns with its pages.
pub(crate) struct Chunk {
    pub(crate) first_column: u64,
    pub(crate) columns: u64,
    /// For each row, the blocks to place, in order.
    pub(crate) rows: Vec<Vec<(BlockPosition, Arc<Page>)>>,
}

/// A range of columns whose pages are taken one by one.
pub(crate) struct Blocks {
    number: ChunkNumber,
    pub(crate) first_column: u64,
    pub(crate) columns: u64,
    /// For each row, the blocks to place, in order, and the page of each.
    pub(crate) rows: Vec<Vec<(BlockPosition, PageKey)>>,
}

impl ReadAhead {
    pub(crate) fn new(
        addresses: &Addresses,
        plan: ReadPlan,
        reader: u64,
        columns_per_chunk: u64,
        settings: &Settings,
        lease: Lease,
    ) -> Self {
        let placements = plan
            .rows()
            .map(|channel| Placement::new(plan.grid, channel))
            .collect();
        let next_column = plan.columns.start;
        Self {
            file_manager: addresses.file_manager.clone(),
            staleness: settings.staleness,
            checked_at: None,
            coordinator: addresses.coordinator.clone(),
            prefetcher: addresses.prefetcher.clone(),
            plan,
            reader,
            placements,
            columns_per_chunk,
            max_bytes: settings.read_ahead_bytes,
            may_be_ahead: 1,
            next_column,
            next_chunk: 0,
            coming: VecDeque::new(),
            held: HashMap::new(),
            lease,
        }
    }

    /// Makes sure that the files are still those that the plan was made for,
    /// whatever the cache has of them.
    async fn check(&mut self) -> Result<(), Error> {
        let checked = self.checked_at.map(|checked| checked.elapsed());
        if checked.is_some_and(|age| age < self.staleness) {
            return Ok(());
        }
        let now = Instant::now();
        let (reply, same) = oneshot::channel();
        let question = Check {
            recording: Arc::clone(&self.plan.recording),
            trace: trace::current(),
            reply,
        };
        let sent = self.file_manager.send(question).await;
        sent.map_err(|_| Error::Stopped)?;
        same.await.map_err(|_| Error::Stopped)??;
        self.checked_at = Some(now);
        Ok(())
    }

    /// The next chunk; `None` after the last.
    ///
    /// Cancel-safe: a dropped call loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        let Some(chunk) = self.come().await? else {
            return Ok(None);
        };
        let page_of = |(block, key): (BlockPosition, PageKey)| {
            let page = self.held.get(&key).and_then(|held| held.page.clone());
            Some((block, page?))
        };
        let rows = chunk
            .rows
            .into_iter()
            .map(|row| row.into_iter().map(page_of).collect());
        let rows: Option<Vec<_>> = rows.collect();
        // Every page was asked for by this chunk or by one before it.
        let rows = rows.ok_or(Error::Stopped)?;
        self.leave(chunk.number);
        Ok(Some(Chunk {
            first_column: chunk.first_column,
            columns: chunk.columns,
            rows,
        }))
    }

    /// The blocks of the next chunk, for a client who takes them one by one; `None`
    /// after the last. Their pages are held until they are [left](Self::leave_blocks),
    /// as far as there is room ahead of the client. The others come
    /// [again](Self::page).
    ///
    /// Cancel-safe: a dropped call loses nothing.
    pub(crate) async fn next_blocks(&mut self) -> Result<Option<Blocks>, Error> {
        let Some(chunk) = self.come().await? else {
            return Ok(None);
        };
        // All others are held ahead of the client already.
        for (_, key) in chunk.rows.iter().flatten() {
            if let Some(held) = self.held.get_mut(key).filter(|held| !held.ahead) {
                held.ahead = self.lease.try_ahead(held.bytes);
                if !held.ahead {
                    self.held.remove(key);
                }
            }
        }
        self.lease.end_awaited();
        Ok(Some(Blocks {
            number: chunk.number,
            first_column: chunk.first_column,
            columns: chunk.columns,
            rows: chunk.rows,
        }))
    }

    /// A page of the blocks that came last.
    ///
    /// Cancel-safe: a dropped call loses nothing.
    pub(crate) async fn page(&mut self, key: PageKey) -> Result<Arc<Page>, Error> {
        if let Some(page) = self.held.get(&key).and_then(|held| held.page.clone()) {
            return Ok(page);
        }
        self.check().await?;
        let recording = &self.plan.recording;
        let page = fetch(&self.coordinator, recording, key, &mut self.lease).await?;
        let bytes = bytes_of(recording, &key);
        if self.lease.try_ahead(bytes) {
            let held = Held {
                page: Some(Arc::clone(&page)),
                bytes,
                // No later chunk that is planned needs it.
                last_use: 0,
                end_uutc: end_of(recording, &key),
                ahead: true,
            };
            self.held.insert(key, held);
        }
        self.lease.end_awaited();
        Ok(page)
    }

    /// All of these blocks were taken.
    pub(crate) fn leave_blocks(&mut self, blocks: &Blocks) {
        self.leave(blocks.number);
    }

    /// Those of one page were taken: it makes room for others.
    pub(crate) fn leave_page(&mut self, blocks: &Blocks, key: &PageKey) {
        let planned_until = self.planned_until();
        let held = self.held.get(key);
        if held.is_some_and(|held| held.is_over(blocks.number, planned_until)) {
            self.held.remove(key);
            self.lease.shrink_ahead(self.held_bytes());
        }
    }

    /// Waits for the next chunk. All of its pages are held when it has come.
    async fn come(&mut self) -> Result<Option<Coming>, Error> {
        self.ask_ahead().await?;
        let Some(chunk) = self.coming.front_mut() else {
            return Ok(None);
        };
        if !chunk.asked.is_empty() {
            (&mut chunk.answer).await;
            let fetched = Pin::new(&mut chunk.answer).take_output();
            let fetched = fetched.ok_or(Error::Stopped)?;
            let fetched = fetched.map_err(|_| Error::Stopped)??;
            for (key, page) in chunk.asked.drain(..).zip(fetched) {
                if let Some(held) = self.held.get_mut(&key) {
                    held.page = Some(page?);
                }
            }
        }
        self.may_be_ahead = self.may_be_ahead.saturating_mul(2);
        Ok(self.coming.pop_front())
    }

    /// Drops what no chunk after this one needs.
    fn leave(&mut self, chunk: ChunkNumber) {
        let planned_until = self.planned_until();
        self.held
            .retain(|_, held| !held.is_over(chunk, planned_until));
        self.settle(chunk);
    }

    /// The time until which chunks are planned, uUTC.
    fn planned_until(&self) -> i64 {
        self.plan.grid.time_bound(self.next_column, -1.0)
    }

    /// After `chunk`: holds nothing any more that its client has waited for, and
    /// keeps to the limit. Of the pages that no planned chunk after it needs, those
    /// are dropped that there is no room for, first those that reach furthest ahead.
    fn settle(&mut self, chunk: ChunkNumber) {
        let spare = self.held.iter().filter(|(_, held)| held.last_use <= chunk);
        let mut spare: Vec<_> = spare.map(|(key, held)| (held.end_uutc, *key)).collect();
        spare.sort_unstable();
        let mut bytes = self.held_bytes();
        while bytes > self.max_bytes
            && let Some((_, key)) = spare.pop()
        {
            bytes -= self.held.remove(&key).map_or(0, |held| held.bytes);
        }
        for (_, key) in spare {
            let Some(held) = self.held.get_mut(&key).filter(|held| !held.ahead) else {
                continue;
            };
            held.ahead = self.lease.try_ahead(held.bytes);
            if !held.ahead {
                bytes -= held.bytes;
                self.held.remove(&key);
            }
        }
        self.lease.end_awaited();
        self.lease.shrink_ahead(bytes);
    }

    /// Gets the permits for a chunk's pages: waits for them, where the client waits
    /// for the chunk; says no, where it is ahead and there is no room for it.
    async fn permit(&mut self, chunk: &Coming, ahead: bool) -> Result<bool, Error> {
        if !ahead {
            self.lease.awaited(chunk.bytes).await?;
            return Ok(true);
        }
        // What comes for the chunk before is held for this one, too.
        let mut shared = HashSet::new();
        let mut bytes = chunk.bytes;
        for (_, key) in chunk.rows.iter().flatten() {
            let awaited = self.held.get(key).filter(|held| !held.ahead);
            if let Some(held) = awaited
                && shared.insert(*key)
            {
                bytes += held.bytes;
            }
        }
        if !self.lease.try_ahead(bytes) {
            return Ok(false);
        }
        for key in shared {
            if let Some(held) = self.held.get_mut(&key) {
                held.ahead = true;
            }
        }
        Ok(true)
    }

    /// Asks for the pages of further chunks, while there is room.
    async fn ask_ahead(&mut self) -> Result<(), Error> {
        let total = self.plan.columns.end;
        while self.next_column < total {
            let ahead = !self.coming.is_empty();
            let enough = self.coming.len() > self.may_be_ahead;
            if ahead && (enough || self.held_bytes() >= self.max_bytes) {
                break;
            }
            self.check().await?;
            let (mut chunk, reply) = self.plan_chunk(total);
            if !self.permit(&chunk, ahead).await? {
                break;
            }
            if !chunk.asked.is_empty() {
                let question = Fetch {
                    recording: Arc::clone(&self.plan.recording),
                    pages: chunk.asked.clone(),
                    trace: chunk.trace.clone(),
                    reply,
                };
                self.coordinator
                    .send(question)
                    .await
                    .map_err(|_| Error::Stopped)?;
                // It is asked for again with the next message, or when its client
                // waits for it.
                if ahead && chunk.is_refused() {
                    self.lease.shrink_ahead(self.ahead_bytes());
                    break;
                }
            }
            // From here on nothing waits, so that a cancelled call leaves either
            // no trace or a complete one.
            self.note(chunk, ahead);
            if self.next_column >= total && self.plan.pattern != Pattern::Parts {
                // A prefetcher without room has better things to do.
                let _ = self.prefetcher.try_send(Observed {
                    reader: self.reader,
                    plan: self.plan.clone(),
                });
            }
        }
        Ok(())
    }

    /// Bytes that are held by permits for pages ahead of the client.
    fn ahead_bytes(&self) -> usize {
        let ahead = self.held.values().filter(|held| held.ahead);
        ahead.map(|held| held.bytes).sum()
    }

    fn held_bytes(&self) -> usize {
        self.held.values().map(|held| held.bytes).sum()
    }

    /// Finds out what the next chunk needs and does not have.
    fn plan_chunk(&self, total: u64) -> (Coming, oneshot::Sender<Fetched>) {
        let first_column = self.next_column;
        let columns = self.columns_per_chunk.min(total - first_column);
        let recording = &self.plan.recording;
        let mut asked = Vec::new();
        let mut seen = HashSet::new();
        let mut rows = Vec::with_capacity(self.placements.len());
        for (placement, &position) in self.placements.iter().zip(self.plan.channels.iter()) {
            let Some(channel) = recording.channel(position) else {
                continue;
            };
            let blocks = placement.blocks(channel, first_column..first_column + columns);
            let row = blocks.into_iter().filter_map(|block| {
                let key = self.plan.page_of(position, block)?;
                if !self.held.contains_key(&key) && seen.insert(key) {
                    asked.push(key);
                }
                Some((block, key))
            });
            rows.push(row.collect());
        }
        let bytes = asked.iter().map(|key| bytes_of(recording, key)).sum();
        let (reply, answer) = oneshot::channel();
        let trace = trace::current().map(|call| {
            let span = debug_span!(parent: call.span(), "pages", request = %call.id(), asked = asked.len());
            call.part(span)
        });
        let chunk = Coming {
            trace,
            number: self.next_chunk,
            first_column,
            columns,
            rows,
            asked,
            bytes,
            answer: maybe_done(answer),
        };
        (chunk, reply)
    }

    fn note(&mut self, chunk: Coming, ahead: bool) {
        for &(_, key) in chunk.rows.iter().flatten() {
            let recording = &self.plan.recording;
            let held = self.held.entry(key).or_insert_with(|| Held {
                page: None,
                bytes: bytes_of(recording, &key),
                last_use: chunk.number,
                end_uutc: end_of(recording, &key),
                ahead,
            });
            held.last_use = chunk.number;
        }
        self.next_column += chunk.columns;
        self.next_chunk += 1;
        self.coming.push_back(chunk);
    }
}

/// Has one page decoded, within permits of those that clients wait for. These are
/// for the caller to give back when the page is held by others, or not any more.
pub(super) async fn fetch(
    coordinator: &Addr<Coordinator>,
    recording: &Arc<PagedRecording>,
    key: PageKey,
    lease: &mut Lease,
) -> Result<Arc<Page>, Error> {
    lease.awaited(bytes_of(recording, &key)).await?;
    let (reply, fetched) = oneshot::channel();
    let question = Fetch {
        recording: Arc::clone(recording),
        pages: vec![key],
        trace: trace::current(),
        reply,
    };
    let page = async {
        let sent = coordinator.send(question).await;
        sent.map_err(|_| Error::Stopped)?;
        let pages = fetched.await.map_err(|_| Error::Stopped)??;
        pages.into_iter().next().ok_or(Error::Stopped)?
    };
    let page = page.await;
    if page.is_err() {
        lease.end_awaited();
    }
    page
}

/// Bytes of a page's words.
pub(super) fn bytes_of(recording: &PagedRecording, key: &PageKey) -> usize {
    recording.words_of(key) as usize * size_of::<i32>()
}

/// The end of a page's last block, in uUTC.
fn end_of(recording: &PagedRecording, key: &PageKey) -> i64 {
    let last = recording
        .run_of(key)
        .and_then(|(channel, _, blocks)| Some((channel, blocks.last()?)));
    last.map_or(i64::MIN, |(channel, entry)| {
        let duration = duration_us(entry.samples, channel.sampling_frequency);
        entry.start_uutc.saturating_add(duration)
    })
}

//! A read as stored blocks.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream::unfold;

use super::read_ahead::{Blocks, ReadAhead};
use crate::config::OnDamage;
use crate::error::Error;
use crate::mef::{BlockDamage, BlockPosition, UnreadableSegment};
use crate::worker::page::{Page, PageKey, PagedRecording};

/// A stored block: its samples as counts, just as they were recorded.
#[derive(Clone, Debug)]
pub struct Block {
    /// Row of the request that the block belongs to.
    pub row: usize,
    /// Where the block is in the row's channel.
    pub position: BlockPosition,
    /// Time of the first sample, uUTC.
    pub start_uutc: i64,
    /// Samples a second, in Hz.
    pub sampling_frequency: f64,
    /// Units per count, as stored: 0 where it was never set.
    pub units_conversion_factor: f64,
    page: Arc<Page>,
}

impl Block {
    /// A block of a page; `None` where the recording has no such block.
    pub(super) fn new(
        recording: &PagedRecording,
        row: usize,
        position: BlockPosition,
        key: &PageKey,
        page: Arc<Page>,
    ) -> Option<Self> {
        let (channel, segment, _) = recording.run_of(key)?;
        let entry = segment.index.get(position.block as usize)?;
        Some(Self {
            row,
            position,
            start_uutc: entry.start_uutc,
            sampling_frequency: channel.sampling_frequency,
            units_conversion_factor: segment.acquisition.units_conversion_factor,
            page,
        })
    }

    /// The counts.
    ///
    /// # Errors
    /// What is wrong with the block, where it is damaged.
    pub fn counts(&self) -> Result<&[i32], &BlockDamage> {
        let Some(block) = self.page.block(self.position.block) else {
            return Ok(&[]);
        };
        block.damage.map_or(Ok(block.words), Err)
    }
}

/// What a read of stored blocks hands out.
#[derive(Clone, Debug)]
pub enum BlockItem {
    /// A block; one that is damaged is an item like any other, see
    /// [`Block::counts`].
    Block(Block),
    /// A segment, or a part of one, that cannot be read and may have blocks in the
    /// window. Only where the request masks damage: otherwise the read is refused.
    Segment {
        /// Row of the request that the segment belongs to.
        row: usize,
        /// The segment. Its blocks lie somewhere between its neighbours.
        segment: Box<UnreadableSegment>,
    },
}

/// A read as a stream of [`BlockItem`]s: first the segments that are masked, whose
/// times nobody knows, then the blocks. Within a row these come in the order of
/// their place in the file where that is also the order of time.
pub struct BlockStream {
    pages: Option<ReadAhead>,
    unreadable: VecDeque<BlockItem>,
    ready: Ready,
}

/// The blocks that came last.
#[derive(Default)]
struct Ready {
    /// What they are of, until it is left.
    chunk: Option<Blocks>,
    /// Those that were not taken yet, and the page of each.
    blocks: VecDeque<(usize, BlockPosition, PageKey)>,
}

impl BlockStream {
    pub(super) fn new(pages: ReadAhead, on_damage: OnDamage) -> Self {
        let unreadable = match on_damage {
            OnDamage::Fail => VecDeque::new(),
            OnDamage::Mask => unreadable(&pages),
        };
        Self {
            pages: Some(pages),
            unreadable,
            ready: Ready::default(),
        }
    }

    /// The next item; `None` after the last, and after an error.
    ///
    /// # Cancellation
    /// Dropping the future loses nothing; dropping the stream cancels the work
    /// that nobody else wants. Until the call is made again or the stream is
    /// dropped, it may hold a share of `limits.in_flight_mb` that others wait for.
    ///
    /// # Errors
    /// The first thing that went wrong: a changed file, a limit.
    pub async fn next(&mut self) -> Option<Result<BlockItem, Error>> {
        if let Some(item) = self.unreadable.pop_front() {
            return Some(Ok(item));
        }
        let pages = self.pages.as_mut()?;
        let next = self.ready.next(pages).await.transpose();
        if !matches!(next, Some(Ok(_))) {
            self.pages = None;
        }
        next.map(|block| block.map(BlockItem::Block))
    }

    /// The same as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Result<BlockItem, Error>> + Send {
        unfold(self, |mut blocks| async move {
            let item = blocks.next().await?;
            Some((item, blocks))
        })
    }
}

/// The segments that may have blocks in the window and cannot be read.
fn unreadable(pages: &ReadAhead) -> VecDeque<BlockItem> {
    let grid = &pages.plan.grid;
    let rows = pages.plan.rows().enumerate();
    rows.flat_map(|(row, channel)| {
        let segments = channel.unreadable_within(grid.start_uutc(), grid.end_uutc());
        segments.map(move |segment| BlockItem::Segment {
            row,
            segment: Box::new(segment.clone()),
        })
    })
    .collect()
}

impl Ready {
    /// The next block; `None` after the last.
    async fn next(&mut self, pages: &mut ReadAhead) -> Result<Option<Block>, Error> {
        while self.blocks.is_empty() {
            if let Some(taken) = self.chunk.take() {
                pages.leave_blocks(&taken);
            }
            let Some(chunk) = pages.next_blocks().await? else {
                return Ok(None);
            };
            self.blocks = starting_in(pages, &chunk);
            self.chunk = Some(chunk);
        }
        let Some(&(row, position, key)) = self.blocks.front() else {
            return Ok(None);
        };
        let page = pages.page(key).await?;
        self.blocks.pop_front();
        if let (Some((.., next)), Some(chunk)) = (self.blocks.front(), &self.chunk)
            && *next != key
        {
            pages.leave_page(chunk, &key);
        }
        let recording = &pages.plan.recording;
        let block = Block::new(recording, row, position, &key, page);
        block.map(Some).ok_or(Error::Stopped)
    }
}

/// The blocks whose first visible sample is in this chunk: each block of a read
/// belongs to exactly one.
fn starting_in(pages: &ReadAhead, chunk: &Blocks) -> VecDeque<(usize, BlockPosition, PageKey)> {
    let columns = chunk.first_column..chunk.first_column + chunk.columns;
    let mut found = VecDeque::new();
    let sources = pages.plan.rows().zip(&pages.placements).zip(&chunk.rows);
    for (row, ((channel, placement), blocks)) in sources.enumerate() {
        for &(position, key) in blocks {
            let Some(segment) = channel.segments.get(position.segment as usize) else {
                continue;
            };
            let Some(entry) = segment.index.get(position.block as usize) else {
                continue;
            };
            let column = placement.column(position, entry.start_uutc, entry.samples);
            if column.is_some_and(|column| columns.contains(&(column.max(0) as u64))) {
                found.push_back((row, position, key));
            }
        }
    }
    found
}

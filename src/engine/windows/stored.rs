//! A read as stored blocks, with the columns that their samples belong to.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::Masked;
use super::line::{Line, Told};
use super::missing::{Coverage, Missing};
use crate::config::OnDamage;
use crate::engine::read_ahead::{Blocks, ReadAhead};
use crate::error::Error;
use crate::mef::BlockPosition;
use crate::worker::page::PageBlockView;

/// Bytes of blocks after which a part ends.
const PART_BYTES: usize = 256 << 10;

/// A block as it is stored, in plain text.
pub(crate) struct StoredBlock {
    /// Row of the request.
    pub(crate) row: usize,
    /// Column of the first sample within the whole read; it may be outside.
    pub(crate) first_column: i64,
    /// Where several blocks have samples of a column, the greatest is the one that
    /// counts.
    pub(crate) position: BlockPosition,
    /// Time of the first sample, uUTC.
    pub(crate) start_uutc: i64,
    pub(crate) samples: u32,
    /// Units per count, as stored.
    pub(crate) units_conversion_factor: f64,
    /// Header, statistics and samples (format section 8.2), with nothing encrypted.
    pub(crate) red: Bytes,
}

/// Some of the blocks that begin in a range of columns, and what there is to tell of it.
pub(crate) struct StoredPart {
    /// The columns within the whole read.
    pub(crate) columns: Range<u64>,
    /// Blocks whose first sample in the read is in these columns, row after row.
    pub(crate) blocks: Vec<StoredBlock>,
    /// Damage in these columns, where the request allows it.
    pub(crate) masked: Vec<Masked>,
    /// Columns that no block has a sample of, row by row; nor one that begins before
    /// these columns.
    pub(crate) missing: Vec<Missing>,
    /// Whether it is the first of these columns, and the last.
    pub(crate) is_first: bool,
    pub(crate) is_last: bool,
}

/// A read as a stream of [`StoredPart`]s, in the order of time.
pub(crate) struct StoredStream {
    pages: Option<ReadAhead>,
    on_damage: OnDamage,
    /// Blocks that were masked, in the engine's life.
    masked_blocks: Arc<AtomicU64>,
    running: Option<Running>,
    /// What was found and not handed out.
    blocks: Vec<StoredBlock>,
    bytes: usize,
    told: Told,
}

/// A range of columns that is being read.
struct Running {
    chunk: Blocks,
    /// The row that is being read, and its next block.
    row: usize,
    next: usize,
    coverage: Option<Coverage>,
    /// Whether nothing of these columns was handed out.
    untold: bool,
}

impl StoredStream {
    pub(in crate::engine) fn new(
        pages: ReadAhead,
        on_damage: OnDamage,
        masked_blocks: Arc<AtomicU64>,
    ) -> Self {
        Self {
            pages: Some(pages),
            on_damage,
            masked_blocks,
            running: None,
            blocks: Vec::new(),
            bytes: 0,
            told: Told::default(),
        }
    }

    /// The next part; `None` after the last, and after an error.
    ///
    /// Cancel-safe: a dropped call loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Result<StoredPart, Error>> {
        let part = self.try_next().await.transpose();
        if !matches!(part, Some(Ok(_))) {
            self.pages = None;
        }
        part
    }

    async fn try_next(&mut self) -> Result<Option<StoredPart>, Error> {
        let Some(pages) = &mut self.pages else {
            return Ok(None);
        };
        let running = match &mut self.running {
            Some(running) => running,
            None => match pages.next_blocks().await? {
                Some(chunk) => self.running.insert(Running {
                    chunk,
                    row: 0,
                    next: 0,
                    coverage: None,
                    untold: true,
                }),
                None => return Ok(None),
            },
        };
        let first = running.chunk.first_column;
        let columns = first..first + running.chunk.columns;
        while let Some(blocks) = running.chunk.rows.get(running.row) {
            while let Some(&(position, key)) = blocks.get(running.next) {
                let page = pages.page(key).await?;
                let Some(line) = line(pages, running.row, &columns, self.on_damage) else {
                    break;
                };
                let told = &mut self.told;
                let coverage = running.coverage.get_or_insert_with(|| {
                    line.begin(told);
                    Coverage::default()
                });
                if let Some(block) = page.block(position.block)
                    && let Some(column) = line.take(position, &block, Some(coverage), told)?
                    // What begins before the read is seen from its first column on.
                    && columns.contains(&(column.max(0) as u64))
                {
                    let stored = stored(&line, position, column, &block);
                    self.bytes += stored.as_ref().map_or(0, |it| it.red.len());
                    self.blocks.extend(stored);
                }
                running.next += 1;
                if blocks
                    .get(running.next)
                    .is_some_and(|(_, next)| *next != key)
                {
                    pages.leave_page(&running.chunk, &key);
                }
                if self.bytes >= PART_BYTES {
                    let is_first = std::mem::take(&mut running.untold);
                    return Ok(Some(self.part(columns, is_first, false)));
                }
            }
            if let Some(line) = line(pages, running.row, &columns, self.on_damage) {
                if running.coverage.is_none() {
                    line.begin(&mut self.told);
                }
                line.end(running.coverage.take().unwrap_or_default(), &mut self.told);
            }
            running.row += 1;
            running.next = 0;
        }
        pages.leave_blocks(&running.chunk);
        let is_first = running.untold;
        self.running = None;
        Ok(Some(self.part(columns, is_first, true)))
    }

    /// Hands out what was found.
    fn part(&mut self, columns: Range<u64>, is_first: bool, is_last: bool) -> StoredPart {
        let told = std::mem::take(&mut self.told);
        let masked = told.masked.len() as u64;
        self.masked_blocks.fetch_add(masked, Ordering::Relaxed);
        self.bytes = 0;
        StoredPart {
            columns,
            blocks: std::mem::take(&mut self.blocks),
            masked: told.masked,
            missing: told.missing,
            is_first,
            is_last,
        }
    }
}

/// A row of some columns of a read.
fn line<'a>(
    pages: &'a ReadAhead,
    row: usize,
    columns: &'a Range<u64>,
    on_damage: OnDamage,
) -> Option<Line<'a>> {
    let plan = &pages.plan;
    Some(Line {
        recording: &plan.recording.recording,
        row,
        channel: plan.recording.channel(*plan.channels.get(row)?)?,
        placement: pages.placements.get(row)?,
        columns,
        on_damage,
    })
}

/// A block of a page; `None` where the recording has no such block.
fn stored(
    line: &Line<'_>,
    position: BlockPosition,
    first_column: i64,
    block: &PageBlockView<'_>,
) -> Option<StoredBlock> {
    let segment = line.channel.segments.get(position.segment as usize)?;
    let entry = segment.index.get(position.block as usize)?;
    let bytes: &[u8] = bytemuck::cast_slice(block.words);
    Some(StoredBlock {
        row: line.row,
        first_column,
        position,
        start_uutc: block.start_uutc,
        samples: block.samples,
        units_conversion_factor: segment.acquisition.units_conversion_factor,
        red: Bytes::copy_from_slice(bytes.get(..entry.bytes as usize)?),
    })
}

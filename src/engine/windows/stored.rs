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

/// Bytes of blocks in a part; a longer block is cut.
const PART_BYTES: usize = 128 << 10;
/// Bytes of a block beside those that are stored.
const BLOCK_FIELDS: usize = 64;

/// A block as it is stored, in plain text, or a part of a long one.
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
    /// Bytes of the whole block.
    pub(crate) bytes: u32,
    /// Where `red` begins in it.
    pub(crate) offset: u32,
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
    /// Of a block that is handed out in parts: its column, and the bytes that were.
    begun: Option<(i64, usize)>,
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
                    begun: None,
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
                // Also for the rest of a block: its page is held by permits, or not at all.
                let page = pages.page(key).await?;
                let block = page.block(position.block).ok_or(Error::Stopped)?;
                let line = line(pages, running.row, &columns, self.on_damage);
                let line = line.ok_or(Error::Stopped)?;
                let begun = match running.begun.take() {
                    Some(begun) => Some(begun),
                    None => {
                        let told = &mut self.told;
                        let coverage = running.coverage.get_or_insert_with(|| {
                            line.begin(told);
                            Coverage::default()
                        });
                        let column = line.take(position, &block, Some(coverage), told)?;
                        // What begins before the read is seen from its first column on.
                        let begins = |column: &i64| columns.contains(&((*column).max(0) as u64));
                        column.filter(begins).map(|column| (column, 0))
                    }
                };
                if let Some((column, from)) = begun {
                    let room = PART_BYTES - self.bytes;
                    let stored = stored(&line, position, column, &block, from, room)?;
                    let end = from + stored.red.len();
                    let is_cut = end < stored.bytes as usize;
                    if is_cut && !self.blocks.is_empty() {
                        running.begun = begun;
                        return Ok(Some(self.part(columns, false)));
                    }
                    self.bytes += stored.red.len() + BLOCK_FIELDS;
                    self.blocks.push(stored);
                    if is_cut {
                        running.begun = Some((column, end));
                        return Ok(Some(self.part(columns, false)));
                    }
                }
                running.next += 1;
                if blocks
                    .get(running.next)
                    .is_some_and(|(_, next)| *next != key)
                {
                    pages.leave_page(&running.chunk, &key);
                }
                if self.bytes >= PART_BYTES {
                    return Ok(Some(self.part(columns, false)));
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
        Ok(Some(self.part(columns, true)))
    }

    /// Hands out what was found of some columns, which are left after the last part.
    fn part(&mut self, columns: Range<u64>, is_last: bool) -> StoredPart {
        let running = self.running.as_mut();
        let is_first = running.is_some_and(|it| std::mem::take(&mut it.untold));
        if is_last {
            self.running = None;
        }
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

/// At most so many bytes of a block of a page, from some byte on.
///
/// # Errors
/// [`Error::Stopped`] where the recording has no such block.
fn stored(
    line: &Line<'_>,
    position: BlockPosition,
    first_column: i64,
    block: &PageBlockView<'_>,
    from: usize,
    most: usize,
) -> Result<StoredBlock, Error> {
    let segment = line.channel.segments.get(position.segment as usize);
    let segment = segment.ok_or(Error::Stopped)?;
    let entry = segment.index.get(position.block as usize);
    let bytes = entry.ok_or(Error::Stopped)?.bytes;
    let words: &[u8] = bytemuck::cast_slice(block.words);
    let end = from.saturating_add(most).min(bytes as usize);
    let red = words.get(from..end).ok_or(Error::Stopped)?;
    Ok(StoredBlock {
        row: line.row,
        first_column,
        position,
        start_uutc: block.start_uutc,
        samples: block.samples,
        units_conversion_factor: segment.acquisition.units_conversion_factor,
        bytes,
        offset: from as u32,
        red: Bytes::copy_from_slice(red),
    })
}

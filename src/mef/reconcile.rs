//! Making sure that a block index tells the truth about its data file
//! (format sections 7.1, 13.2 and 15).
//!
//! A wrong entry can hide a block: samples that are there would be answered as
//! a gap. Whatever the index says of a block stands in the block's own header
//! again, under a checksum, so every entry that claims something unusual is
//! looked up there: where blocks do not follow each other without a gap, where
//! they do not follow each other in the file, and all of them where the index's
//! own checksum is wrong. The header wins. An index whose blocks are seamless is
//! believed, since a wrong time or count would break a seam.

use std::cell::Cell;
use std::collections::HashSet;
use std::io;

use serde::{Deserialize, Serialize};
use zerocopy::FromBytes;

use super::crc::crc32;
use super::index::{BlockEntry, BlockIndex, Extrema, duration_us};
use super::layout::{BLOCK_HEADER_BYTES, BlockHeader, HEADER_BYTES};
use super::red::{MAX_BLOCK_BYTES, is_plausible};
use super::store::ReadAt;
use super::time;

/// How often each byte of the data file may be read, on average.
const BUDGET_READS: u64 = 4;
/// What rounding moves a block by, in microseconds (format section 11.5).
const ROUNDING_US: i64 = 2;
/// How far clocks that jitter move a block.
const MAX_JITTER_SAMPLES: f64 = 2.0;
/// Unknown stretches of one data file that are kept apart; the last of them takes
/// in what comes after it.
const MAX_UNKNOWN: usize = 100;

/// What was found wrong with an index, and put right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRepairs {
    /// Entries that contradicted the header of their block, which wins.
    pub corrected: u64,
    /// Blocks that the index did not have, or not where they are.
    pub recovered: u64,
    /// Entries that pointed at no block of their own.
    pub dropped: u64,
    /// Bytes after the last whole block of the data file.
    pub torn_bytes: u64,
}

/// A stretch of the data file that no entry covers and that is no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unknown {
    pub(crate) file_offset: u64,
    pub(crate) bytes: u64,
    /// End of the block before it, uUTC.
    pub(crate) not_before: Option<i64>,
    /// Start of the block after it, uUTC.
    pub(crate) not_after: Option<i64>,
}

/// An index that can be believed.
pub(crate) struct Reconciled {
    pub(crate) index: BlockIndex,
    pub(crate) repairs: IndexRepairs,
    pub(crate) unknown: Vec<Unknown>,
}

/// Holds an index against its data file.
pub(crate) struct Reconciler<'a> {
    data: &'a dyn ReadAt,
    recording_time_offset: i64,
    sampling_frequency: f64,
    /// Entries, from the first on, that the index's checksum vouches for.
    trusted: usize,
    /// Entries, from the first on, that were reconciled before.
    known: usize,
    /// Bytes of blocks that may still be read: entries that overlap must not
    /// have the same bytes read again and again.
    budget: Cell<u64>,
    progress: &'a mut dyn FnMut(),
}

impl<'a> Reconciler<'a> {
    /// Of the index's entries, the first `trusted` have the right checksum, and
    /// the first `known` were reconciled before. `progress` is called now and
    /// then.
    pub(crate) fn new(
        data: &'a dyn ReadAt,
        (recording_time_offset, sampling_frequency): (i64, f64),
        trusted: usize,
        known: usize,
        progress: &'a mut dyn FnMut(),
    ) -> io::Result<Self> {
        let budget = data.size()?.saturating_mul(BUDGET_READS);
        Ok(Self {
            data,
            recording_time_offset,
            sampling_frequency,
            trusted,
            known,
            budget: Cell::new(budget),
            progress,
        })
    }

    /// Number of entries, the trusted ones included, up to the last whose block is
    /// whole: somebody may be writing what is behind it.
    pub(crate) fn whole_blocks(&mut self, index: &BlockIndex) -> io::Result<usize> {
        for block in (self.trusted..index.len()).rev() {
            let Some(entry) = index.get(block) else {
                break;
            };
            if self.whole_block(entry.file_offset)?.is_some() {
                return Ok(block + 1);
            }
            (self.progress)();
        }
        Ok(index.len().min(self.trusted))
    }

    /// Checks all entries after the known ones, and adds blocks at the end of
    /// the file that the index does not have yet.
    pub(crate) fn reconcile(mut self, index: BlockIndex) -> io::Result<Reconciled> {
        let mut repairs = IndexRepairs::default();
        let mut unknown = Vec::new();
        let mut index = if self.tiles(&index) {
            index
        } else {
            self.rebuild(&index, &mut repairs, &mut unknown)?
        };
        self.verify(&mut index, &mut repairs)?;
        let size = self.data.size()?;
        let mut end = index.end_data_within(size);
        for block in self.blocks_from(end)? {
            end = block.file_end();
            index.push(block, self.sampling_frequency);
            repairs.recovered += 1;
        }
        repairs.torn_bytes = size.saturating_sub(end);
        // What an entry beyond the file has made an unknown stretch already is one.
        let known = unknown.last().map(|last| last.file_offset + last.bytes);
        let torn = known.map_or(end, |known| known.max(end));
        if torn < size && !self.is_padding(torn, size)? {
            let (not_before, not_after) = self.span_of_torn(torn, index.end_uutc())?;
            unknown.push(Unknown {
                file_offset: torn,
                bytes: size - torn,
                not_before,
                not_after,
            });
        }
        Ok(Reconciled {
            index,
            repairs,
            unknown,
        })
    }

    /// When the samples are from whose block is cut off at the end of the file: by
    /// its header, if that is there and goes on where the last block ends.
    fn span_of_torn(
        &self,
        offset: u64,
        last_end: Option<i64>,
    ) -> io::Result<(Option<i64>, Option<i64>)> {
        let header = self.header(offset)?.filter(is_plausible);
        let told = header.map(|header| self.told_by(offset, &header));
        Ok(match told {
            Some(told) if last_end.is_none_or(|end| told.start_uutc >= end - ROUNDING_US) => {
                (Some(told.start_uutc), Some(self.end_of(&told)))
            }
            _ => (last_end, None),
        })
    }

    /// All whole blocks that follow each other from an offset of the file on.
    pub(crate) fn blocks_from(&mut self, offset: u64) -> io::Result<Vec<BlockEntry>> {
        let mut blocks = Vec::new();
        let mut end = offset;
        while let Some(block) = self.whole_block(end)? {
            end = block.file_end();
            blocks.push(block);
            (self.progress)();
        }
        Ok(blocks)
    }

    /// Whether the blocks follow each other in the file without holes.
    fn tiles(&self, index: &BlockIndex) -> bool {
        let mut end = match self.known.checked_sub(1) {
            Some(last) => index.get(last).map(|entry| entry.file_end()),
            None => Some(HEADER_BYTES as u64),
        };
        (self.known..index.len()).all(|block| {
            let entry = index.get(block);
            let follows = entry.map(|entry| entry.file_offset) == end;
            end = entry.map(|entry| entry.file_end());
            follows
        })
    }

    /// Finds the blocks that the entries leave out, and drops entries that point
    /// at no block. Where nothing is missing and the index's checksum vouches for
    /// its order, that stays; otherwise the blocks' order is the file's.
    fn rebuild(
        &mut self,
        index: &BlockIndex,
        repairs: &mut IndexRepairs,
        unknown: &mut Vec<Unknown>,
    ) -> io::Result<BlockIndex> {
        let mut by_offset: Vec<(BlockEntry, usize)> = index.iter().zip(0..).collect();
        by_offset.sort_by_key(|(entry, _)| entry.file_offset);
        let size = self.data.size()?;
        let mut found: Vec<BlockEntry> = Vec::new();
        let mut end = HEADER_BYTES as u64;
        let mut entries = by_offset.into_iter().peekable();
        let (mut recovered, mut corrected, mut misplaced) = (0, 0, Vec::new());
        let mut unknown_stretches = 0;
        while end < size || entries.peek().is_some() {
            // What points into a block that was found is no block.
            while let Some(entry) = entries.next_if(|(entry, _)| entry.file_offset < end) {
                misplaced.push(entry);
            }
            let at_end = |(entry, _): &(BlockEntry, usize)| entry.file_offset == end && end < size;
            if let Some((entry, _)) = entries.next_if(at_end) {
                let next = entries.peek().map_or(size, |(next, _)| next.file_offset);
                // Its length may be wrong, which hides nothing if its block is whole.
                let whole = match entry.file_end() == next {
                    true => None,
                    false => self.whole_block(end)?,
                };
                corrected += u64::from(whole.is_some_and(|block| block.bytes != entry.bytes));
                let entry = whole.unwrap_or(entry);
                end = entry.file_end();
                found.push(entry);
            } else if let Some(block) = self.whole_block(end)? {
                end = block.file_end();
                found.push(block);
                recovered += 1;
                (self.progress)();
            } else {
                let next = entries
                    .peek()
                    .map_or(size, |(entry, _)| entry.file_offset.min(size));
                if next <= end {
                    // Entries beyond the end of the file are all that is left.
                    misplaced.extend(entries.by_ref());
                    break;
                }
                if entries.peek().is_none() {
                    break;
                }
                if !self.is_padding(end, next)? {
                    let not_after = entries
                        .peek()
                        .filter(|(entry, _)| entry.file_offset < size)
                        .map(|(entry, _)| entry.start_uutc);
                    match unknown.last_mut() {
                        Some(last) if unknown_stretches == MAX_UNKNOWN => {
                            last.bytes = next - last.file_offset;
                            last.not_after = not_after;
                        }
                        _ => {
                            unknown_stretches += 1;
                            unknown.push(Unknown {
                                file_offset: end,
                                bytes: next - end,
                                not_before: found.last().map(|entry| self.end_of(entry)),
                                not_after,
                            });
                        }
                    }
                }
                end = next;
            }
        }
        let in_order = self.trusted >= index.len();
        if recovered == 0 && corrected == 0 && misplaced.is_empty() && in_order {
            return Ok(index.clone());
        }
        repairs.recovered += recovered;
        repairs.corrected += corrected;
        // What stands behind the entries that the checksum vouches for, and is no
        // block, is foreign padding.
        let vouched = self.trusted;
        let (padding, misplaced): (Vec<_>, Vec<_>) = misplaced
            .into_iter()
            .partition(|&(_, block)| vouched > 0 && block >= vouched);
        repairs.dropped += padding.len() as u64;
        // While bytes are unaccounted for, the entry may be all that is known of
        // them: it stays, and reading it is an error.
        if unknown.is_empty() && recovered > 0 {
            repairs.dropped += misplaced.len() as u64;
        } else {
            let starts: HashSet<u64> = found.iter().map(|entry| entry.file_offset).collect();
            let (same, other): (Vec<_>, Vec<_>) = misplaced
                .into_iter()
                .map(|(entry, _)| entry)
                .partition(|entry| starts.contains(&entry.file_offset));
            repairs.dropped += same.len() as u64;
            found.extend(other);
        }
        let mut rebuilt = BlockIndex::default();
        for entry in found {
            rebuilt.push(entry, self.sampling_frequency);
        }
        // Entries have moved: none of them is vouched for by its place.
        (self.trusted, self.known) = (0, 0);
        Ok(rebuilt)
    }

    /// Looks up every entry that claims something unusual.
    fn verify(&mut self, index: &mut BlockIndex, repairs: &mut IndexRepairs) -> io::Result<()> {
        let mut corrections = Vec::new();
        let last = index.len().saturating_sub(1);
        let mut before = self.known.checked_sub(1).and_then(|block| index.get(block));
        let mut looked_up = self.known;
        for block in self.known..index.len() {
            let Some(entry) = index.get(block) else {
                break;
            };
            let seamless = before.is_some_and(|before| {
                let next = index.get(block + 1);
                self.follows(&before, &entry, next.as_ref())
            });
            if !seamless || block == last || block >= self.trusted {
                // Either side of a broken seam may be the wrong one.
                for suspect in block.saturating_sub(1).max(looked_up)..=block {
                    let Some(entry) = index.get(suspect) else {
                        continue;
                    };
                    if let Some(corrected) = self.contradiction(&entry)? {
                        corrections.push((suspect, corrected));
                    }
                }
                looked_up = block + 1;
                (self.progress)();
            }
            before = Some(entry);
        }
        drop_copies(index, &mut corrections);
        if corrections.is_empty() {
            return Ok(());
        }
        repairs.corrected += corrections.len() as u64;
        // Blocks that changed places change them back: some reads look for them by
        // the order of time.
        let (places, mut blocks): (Vec<usize>, Vec<BlockEntry>) = corrections.into_iter().unzip();
        blocks.sort_by_key(|block| block.start_uutc);
        let mut entries: Vec<BlockEntry> = index.iter().collect();
        for (place, block) in places.into_iter().zip(blocks) {
            if let Some(entry) = entries.get_mut(place) {
                *entry = block;
            }
        }
        let mut corrected = BlockIndex::default();
        for entry in entries {
            corrected.push(entry, self.sampling_frequency);
        }
        *index = corrected;
        Ok(())
    }

    /// What the block's header says, where it is right and the entry is not.
    fn contradiction(&self, entry: &BlockEntry) -> io::Result<Option<BlockEntry>> {
        let Some(header) = self.header(entry.file_offset)? else {
            return Ok(None);
        };
        let told = self.told_by(entry.file_offset, &header);
        if told.facts() == entry.facts() {
            return Ok(None);
        }
        // Only a header whose checksum is right outweighs an entry.
        let whole = self.whole_block(entry.file_offset)?;
        Ok(whole.filter(|told| told.bytes == entry.bytes))
    }

    /// Whether an entry follows the one before it as entries do.
    fn follows(&self, before: &BlockEntry, entry: &BlockEntry, next: Option<&BlockEntry>) -> bool {
        let late = self.lateness(before, entry);
        if late.saturating_abs() <= ROUNDING_US {
            return true;
        }
        // Clocks jitter, too. But a wrong count is off by whole samples, and a wrong
        // time by as much before its block as behind it.
        let period_us = 1e6 / self.sampling_frequency;
        let samples = late as f64 / period_us;
        let whole = (samples - samples.round()).abs() * period_us <= ROUNDING_US as f64;
        let behind = next.map(|next| self.lateness(entry, next));
        let undone = behind.is_some_and(|behind| {
            let both = late.saturating_add(behind);
            both.saturating_abs() <= ROUNDING_US
        });
        samples.abs() <= MAX_JITTER_SAMPLES && !whole && !undone
    }

    /// Microseconds from the end of an entry's block to the start of the next.
    fn lateness(&self, before: &BlockEntry, entry: &BlockEntry) -> i64 {
        entry.start_uutc.saturating_sub(self.end_of(before))
    }

    fn end_of(&self, entry: &BlockEntry) -> i64 {
        let duration = duration_us(entry.samples, self.sampling_frequency);
        entry.start_uutc.saturating_add(duration)
    }

    /// The block at an offset, if a whole one with the right checksum is there.
    fn whole_block(&self, offset: u64) -> io::Result<Option<BlockEntry>> {
        let Some(header) = self.header(offset)? else {
            return Ok(None);
        };
        let length = header.block_bytes.get();
        let plausible = (BLOCK_HEADER_BYTES as u32..=MAX_BLOCK_BYTES).contains(&length);
        let inside = offset.saturating_add(u64::from(length)) <= self.data.size()?;
        let affordable = self.budget.get().checked_sub(u64::from(length));
        let (true, true, Some(rest)) = (plausible && is_plausible(&header), inside, affordable)
        else {
            return Ok(None);
        };
        self.budget.set(rest);
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(length as usize)
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        bytes.resize(length as usize, 0);
        let filled = self.data.read_at(&mut bytes, offset)?;
        let covered = bytes.get(size_of::<u32>()..filled).unwrap_or_default();
        let right = filled == bytes.len() && crc32(covered) == header.crc.get();
        Ok(right.then(|| self.told_by(offset, &header)))
    }

    fn header(&self, offset: u64) -> io::Result<Option<BlockHeader>> {
        // Of an offset that no file can have, the system makes an error.
        if offset >= self.data.size()? {
            return Ok(None);
        }
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        let filled = self.data.read_at(&mut bytes, offset)?;
        let whole = filled == bytes.len();
        Ok(BlockHeader::read_from_bytes(&bytes).ok().filter(|_| whole))
    }

    fn told_by(&self, file_offset: u64, header: &BlockHeader) -> BlockEntry {
        let start = time::absolute(header.start_time.get(), self.recording_time_offset);
        BlockEntry {
            file_offset,
            start_uutc: start.unwrap_or(time::NO_TIME),
            samples: header.number_of_samples.get(),
            bytes: header.block_bytes.get(),
            flags: header.flags,
            // Of what the index has, nothing is known to be of this block.
            extrema: Extrema::UNKNOWN,
        }
    }

    /// Whether a stretch of the file holds nothing but zeros or pad bytes, as far as
    /// that is looked at.
    fn is_padding(&self, from: u64, until: u64) -> io::Result<bool> {
        let mut buffer = [0; 8192];
        let mut offset = from;
        let until = until.min(from.saturating_add(MAX_PADDING_BYTES));
        while offset < until {
            let wanted = (until - offset).min(buffer.len() as u64) as usize;
            let (part, _) = buffer.split_at_mut(wanted);
            let filled = self.data.read_at(part, offset)?;
            let read = part.get(..filled).unwrap_or_default();
            if filled == 0 || read.iter().any(|byte| ![0, PAD_BYTE].contains(byte)) {
                return Ok(filled == 0);
            }
            offset += filled as u64;
        }
        Ok(true)
    }
}

/// Leaves out corrections by a block that is another one again: what the index has
/// for its place was overwritten, and reading it must fail.
fn drop_copies(index: &BlockIndex, corrections: &mut Vec<(usize, BlockEntry)>) {
    if corrections.is_empty() {
        return;
    }
    let wrong: HashSet<usize> = corrections.iter().map(|&(block, _)| block).collect();
    let right = index.iter().zip(0..).filter(|(_, b)| !wrong.contains(b));
    let mut seen: HashSet<(i64, u32)> = right
        .map(|(entry, _)| (entry.start_uutc, entry.samples))
        .collect();
    corrections.retain(|(_, entry)| seen.insert((entry.start_uutc, entry.samples)));
}

/// How much of a stretch without a block is looked at: a file may have terabytes of
/// holes that take no time to make.
const MAX_PADDING_BYTES: u64 = 4 << 20;

/// What fills a block up to a multiple of eight bytes (format section 2).
const PAD_BYTE: u8 = 0x7E;

impl BlockEntry {
    /// What stands in the block's header, too.
    fn facts(&self) -> (i64, u32, u32) {
        (self.start_uutc, self.samples, self.bytes)
    }
}

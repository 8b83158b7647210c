//! The block index of a segment, as columns (format section 7.1).

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zerocopy::FromBytes;

use super::layout::{
    BLOCK_HEADER_BYTES, FLAG_DISCONTINUITY, HEADER_BYTES, INDEX_ENTRY_BYTES, IndexEntry,
};
use super::time;

/// Entries of one part of an index. A part that is full never changes, and is
/// shared by all states of a recording that grows.
pub(crate) const PART_ENTRIES: usize = 4096;

/// Entries of padding that recorders may have put into an index ahead of its blocks.
const MOST_PADDING: u64 = 1 << 20;

/// Most bytes of an index that goes with `data_bytes` of data: no block is shorter
/// than its header. A longer one is refused before it is read.
pub(crate) fn most_index_bytes(data_bytes: u64) -> u64 {
    let blocks = data_bytes / BLOCK_HEADER_BYTES as u64;
    let entries = blocks.saturating_add(MOST_PADDING);
    entries
        .saturating_mul(INDEX_ENTRY_BYTES as u64)
        .saturating_add(HEADER_BYTES as u64)
}

/// Where a segment's blocks are, in the file and in time.
///
/// The index is a hint about the data file: every entry is checked again when
/// its block is decoded, and nothing is allocated from its numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockIndex {
    /// All full but the last.
    parts: Vec<Arc<Part>>,
    /// Start times never decrease, so that they can be searched.
    sorted: bool,
    /// Duration of the longest block in microseconds.
    longest_us: i64,
    /// Largest end time of a block, absolute uUTC.
    end_uutc: i64,
    total_samples: u64,
    /// The byte after the last block in the data file.
    data_end: u64,
    /// Bytes after the last whole entry.
    trailing_bytes: u64,
}

/// Up to [`PART_ENTRIES`] entries, as columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Part {
    #[serde(with = "column")]
    file_offset: Vec<u64>,
    #[serde(with = "column")]
    start_uutc: Vec<i64>,
    #[serde(with = "column")]
    samples: Vec<u32>,
    #[serde(with = "column")]
    bytes: Vec<u32>,
    #[serde(with = "column")]
    flags: Vec<u8>,
    #[serde(with = "column")]
    minimum: Vec<i32>,
    #[serde(with = "column")]
    maximum: Vec<i32>,
}

/// One entry of a [`BlockIndex`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockEntry {
    /// Byte offset of the block from the start of the data file.
    pub file_offset: u64,
    /// Time of the first sample, absolute uUTC.
    pub start_uutc: i64,
    /// Number of samples.
    pub samples: u32,
    /// Length of the block in bytes, header and padding included.
    pub bytes: u32,
    /// The block's flags (format section 8.2).
    pub flags: u8,
    /// Least and greatest sample, as far as the writer has told them.
    pub extrema: Extrema,
}

/// Least and greatest sample of a block in counts, by the index: of a lossy block
/// they are those that went into the encoder (format section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extrema {
    minimum: i32,
    maximum: i32,
}

impl Extrema {
    /// Of a block whose writer has told neither.
    pub const UNKNOWN: Self = Self {
        minimum: i32::MIN,
        maximum: i32::MIN,
    };

    /// Known ones.
    #[cfg(test)]
    pub(crate) fn of(minimum: i32, maximum: i32) -> Self {
        Self { minimum, maximum }
    }

    /// The least sample, where it is known.
    pub fn minimum(&self) -> Option<i32> {
        Some(self.minimum).filter(|&count| count != i32::MIN)
    }

    /// The greatest sample, where it is known.
    pub fn maximum(&self) -> Option<i32> {
        Some(self.maximum).filter(|&count| count != i32::MIN)
    }

    /// Both in units, NaN where unknown: a negative factor makes the least sample
    /// the greatest value.
    pub fn in_units(&self, factor: f64) -> (f64, f64) {
        let value = |count: Option<i32>| count.map_or(f64::NAN, |it| f64::from(it) * factor);
        let (minimum, maximum) = (value(self.minimum()), value(self.maximum()));
        if factor < 0.0 {
            return (maximum, minimum);
        }
        (minimum, maximum)
    }
}

/// The part of a [`BlockEntry`] that says what a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockExtent {
    /// Time of the first sample, absolute uUTC.
    pub(crate) start_uutc: i64,
    /// Number of samples.
    pub(crate) samples: u32,
    extrema: Extrema,
}

impl BlockExtent {
    /// The least and the greatest sample in counts, where the index has both.
    pub(crate) fn known(&self) -> Option<(i32, i32)> {
        let known = (self.extrema.minimum()?, self.extrema.maximum()?);
        (known.0 <= known.1).then_some(known)
    }
}

impl BlockEntry {
    /// The block is marked as not following seamlessly from the one before.
    pub fn discontinuity(&self) -> bool {
        self.flags & FLAG_DISCONTINUITY != 0
    }

    /// The byte after the block in the data file.
    pub(crate) fn file_end(&self) -> u64 {
        self.file_offset.saturating_add(u64::from(self.bytes))
    }
}

impl Default for BlockIndex {
    fn default() -> Self {
        Self {
            parts: Vec::new(),
            sorted: true,
            longest_us: 0,
            end_uutc: i64::MIN,
            total_samples: 0,
            data_end: HEADER_BYTES as u64,
            trailing_bytes: 0,
        }
    }
}

impl BlockIndex {
    /// Reads the entries in `body`, what follows the header in a `.tidx` file.
    ///
    /// The number of entries follows from the length; the header's counts may
    /// be stale. Entries that are padding are left out. A block without a time
    /// has [`time::NO_TIME`].
    pub(crate) fn parse(body: &[u8], recording_time_offset: i64, sampling_frequency: f64) -> Self {
        let entries = body.chunks_exact(INDEX_ENTRY_BYTES);
        let mut index = Self {
            trailing_bytes: entries.remainder().len() as u64,
            ..Self::default()
        };
        for bytes in entries {
            let Ok(entry) = IndexEntry::ref_from_bytes(bytes) else {
                continue;
            };
            if is_padding(entry) {
                continue;
            }
            let start = time::absolute(entry.start_time.get(), recording_time_offset);
            let entry = BlockEntry {
                // A negative offset becomes one beyond any file.
                file_offset: u64::try_from(entry.file_offset.get()).unwrap_or(u64::MAX),
                start_uutc: start.unwrap_or(time::NO_TIME),
                samples: entry.number_of_samples.get(),
                bytes: entry.block_bytes.get(),
                flags: entry.block_flags,
                extrema: Extrema {
                    minimum: entry.minimum_sample_value.get(),
                    maximum: entry.maximum_sample_value.get(),
                },
            };
            index.push(entry, sampling_frequency);
        }
        index
    }

    /// Appends an entry.
    pub(crate) fn push(&mut self, entry: BlockEntry, sampling_frequency: f64) {
        let duration = duration_us(entry.samples, sampling_frequency);
        let last = self.parts.last().and_then(|part| part.start_uutc.last());
        self.sorted &= last.is_none_or(|&last| last <= entry.start_uutc);
        self.longest_us = self.longest_us.max(duration);
        self.end_uutc = self.end_uutc.max(entry.start_uutc.saturating_add(duration));
        self.total_samples = self.total_samples.saturating_add(u64::from(entry.samples));
        self.data_end = self.data_end.max(entry.file_end());
        let full = |part: &Arc<Part>| part.samples.len() >= PART_ENTRIES;
        if self.parts.last().is_none_or(full) {
            self.parts.push(Arc::default());
        }
        if let Some(part) = self.parts.last_mut() {
            let part = Arc::make_mut(part);
            part.file_offset.push(entry.file_offset);
            part.start_uutc.push(entry.start_uutc);
            part.samples.push(entry.samples);
            part.bytes.push(entry.bytes);
            part.flags.push(entry.flags);
            part.minimum.push(entry.extrema.minimum);
            part.maximum.push(entry.extrema.maximum);
        }
    }

    /// The same index without its last entries.
    pub(crate) fn truncated(&self, entries: usize, sampling_frequency: f64) -> Self {
        let mut index = Self {
            trailing_bytes: self.trailing_bytes,
            ..Self::default()
        };
        for entry in self.iter().take(entries) {
            index.push(entry, sampling_frequency);
        }
        index
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        let full = self.parts.len().saturating_sub(1) * PART_ENTRIES;
        full + self.parts.last().map_or(0, |part| part.samples.len())
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The entry of block `block`, counted from 0.
    pub fn get(&self, block: usize) -> Option<BlockEntry> {
        let part = self.parts.get(block / PART_ENTRIES)?;
        let position = block % PART_ENTRIES;
        Some(BlockEntry {
            file_offset: *part.file_offset.get(position)?,
            start_uutc: *part.start_uutc.get(position)?,
            samples: *part.samples.get(position)?,
            bytes: *part.bytes.get(position)?,
            flags: *part.flags.get(position)?,
            extrema: Extrema {
                minimum: *part.minimum.get(position)?,
                maximum: *part.maximum.get(position)?,
            },
        })
    }

    /// All entries in file order.
    pub fn iter(&self) -> impl Iterator<Item = BlockEntry> + '_ {
        (0..self.len()).filter_map(|block| self.get(block))
    }

    /// What up to so many blocks hold, from one on, to the end of its part at most.
    pub(crate) fn extents(
        &self,
        first: usize,
        blocks: usize,
    ) -> impl Iterator<Item = BlockExtent> + '_ {
        let at = first % PART_ENTRIES;
        let part = self.parts.get(first / PART_ENTRIES).into_iter();
        part.flat_map(move |part| {
            let end = part.samples.len().min(at.saturating_add(blocks));
            let starts = part.start_uutc.get(at..end).unwrap_or_default();
            let samples = part.samples.get(at..end).unwrap_or_default();
            let minima = part.minimum.get(at..end).unwrap_or_default();
            let maxima = part.maximum.get(at..end).unwrap_or_default();
            let entries = starts.iter().zip(samples).zip(minima).zip(maxima);
            entries.map(
                |(((&start_uutc, &samples), &minimum), &maximum)| BlockExtent {
                    start_uutc,
                    samples,
                    extrema: Extrema { minimum, maximum },
                },
            )
        })
    }

    /// The byte after the last block in the data file.
    pub(crate) fn data_end(&self) -> u64 {
        self.data_end
    }

    /// Finds the end of the data in a file of `size` bytes again: entries that point
    /// outside it say nothing of where the next block will be.
    pub(crate) fn end_data_within(&mut self, size: u64) -> u64 {
        if self.data_end > size {
            let ends = self.iter().map(|entry| entry.file_end());
            let last = ends.filter(|&end| end <= size).max();
            self.data_end = last.unwrap_or(0).max(HEADER_BYTES as u64);
        }
        self.data_end
    }

    /// Number of samples and of bytes of each block, part by part.
    pub(crate) fn sizes_by_part(&self) -> impl Iterator<Item = impl Iterator<Item = (u32, u32)>> {
        let parts = self.parts.iter();
        parts.map(|part| part.samples.iter().copied().zip(part.bytes.iter().copied()))
    }

    /// Start of the first block in file order, absolute uUTC.
    pub fn start_uutc(&self) -> Option<i64> {
        self.start_of(0)
    }

    /// The latest end of any block (start plus samples at the sampling rate),
    /// absolute uUTC.
    pub fn end_uutc(&self) -> Option<i64> {
        (!self.is_empty()).then_some(self.end_uutc)
    }

    /// Sum of all samples.
    pub fn total_samples(&self) -> u64 {
        self.total_samples
    }

    /// Whether the duration of every block is a number of microseconds: at absurdly
    /// low rates it is not, and no block has an end.
    pub(crate) fn has_finite_durations(&self) -> bool {
        self.longest_us < i64::MAX
    }

    /// Bytes after the last whole entry: a torn append or foreign padding.
    pub fn trailing_bytes(&self) -> u64 {
        self.trailing_bytes
    }

    /// Bytes that the columns take in memory.
    pub fn memory(&self) -> usize {
        self.len() * (8 + 8 + 4 + 4 + 1 + 4 + 4)
    }

    /// A range of blocks that holds every block with a sample in
    /// `[from, until)`, and perhaps others.
    pub fn candidates(&self, from: i64, until: i64) -> Range<usize> {
        if !self.sorted {
            return 0..self.len();
        }
        let earliest = from.saturating_sub(self.longest_us);
        let first = self.partition_point(|start| start < earliest);
        let end = self.partition_point(|start| start < until);
        first..end.max(first)
    }

    /// The first block from `skip` on that starts after `time`.
    pub fn first_start_after(&self, time: i64, skip: usize) -> Option<usize> {
        if self.sorted {
            let block = self.partition_point(|start| start <= time);
            return (block.max(skip) < self.len()).then_some(block.max(skip));
        }
        (skip..self.len()).find(|&block| self.start_of(block).is_some_and(|start| start > time))
    }

    fn start_of(&self, block: usize) -> Option<i64> {
        let part = self.parts.get(block / PART_ENTRIES)?;
        part.start_uutc.get(block % PART_ENTRIES).copied()
    }

    /// Number of blocks, from the first on, whose start satisfies `before`; the
    /// index must be sorted.
    fn partition_point(&self, before: impl Fn(i64) -> bool) -> usize {
        let starts_before = |part: &Arc<Part>| part.start_uutc.first().is_some_and(|&s| before(s));
        // The part that holds the turn, or ends right before it.
        let Some(number) = self.parts.partition_point(starts_before).checked_sub(1) else {
            return 0;
        };
        let within = self.parts.get(number).map_or(0, |part| {
            part.start_uutc.partition_point(|&start| before(start))
        });
        number * PART_ENTRIES + within
    }

    /// Whether the columns belong together; an index that came from another
    /// process is checked before it is used.
    pub(crate) fn is_consistent(&self) -> bool {
        let whole = |(part, number): (&Arc<Part>, usize)| {
            let length = part.samples.len();
            let expected = if number + 1 < self.parts.len() {
                PART_ENTRIES..=PART_ENTRIES
            } else {
                1..=PART_ENTRIES
            };
            expected.contains(&length)
                && part.file_offset.len() == length
                && part.start_uutc.len() == length
                && part.bytes.len() == length
                && part.flags.len() == length
                && part.minimum.len() == length
                && part.maximum.len() == length
        };
        let starts = self.parts.iter().flat_map(|part| &part.start_uutc);
        let samples = self.parts.iter().flat_map(|part| &part.samples);
        self.parts.iter().zip(0..).all(whole)
            && self.longest_us >= 0
            && (!self.sorted || starts.is_sorted())
            && self.total_samples == samples.map(|&samples| u64::from(samples)).sum::<u64>()
    }
}

/// Duration of `samples` at a rate, to the nearest microsecond.
pub fn duration_us(samples: u32, sampling_frequency: f64) -> i64 {
    // `as` saturates where the rate is absurdly low.
    (f64::from(samples) * 1e6 / sampling_frequency).round() as i64
}

/// Padding by recorders: entries of zeros or of "no entry" (format 15, row 21).
fn is_padding(entry: &IndexEntry) -> bool {
    let bytes = entry.block_bytes.get();
    entry.file_offset.get() <= 0 && (bytes == 0 || bytes == u32::MAX)
}

/// Serialises a column as one byte string: element by element would cost more
/// than reading the file.
mod column {
    use std::fmt;
    use std::marker::PhantomData;

    use bytemuck::Pod;
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<T: Pod, S: Serializer>(
        column: &[T],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytemuck::cast_slice(column))
    }

    pub(super) fn deserialize<'de, T: Pod, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_bytes(ColumnVisitor(PhantomData))
    }

    struct ColumnVisitor<T>(PhantomData<T>);

    impl<T: Pod> Visitor<'_> for ColumnVisitor<T> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("the bytes of a column")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<T>, E> {
            if !bytes.len().is_multiple_of(size_of::<T>()) {
                return Err(E::invalid_length(bytes.len(), &self));
            }
            Ok(bytemuck::pod_collect_to_vec(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(starts: impl IntoIterator<Item = i64>) -> BlockIndex {
        let mut index = BlockIndex::default();
        for start_uutc in starts {
            let entry = BlockEntry {
                file_offset: 1024,
                start_uutc,
                samples: 1,
                bytes: 312,
                flags: 0,
                extrema: Extrema::UNKNOWN,
            };
            index.push(entry, 1e6);
        }
        index
    }

    #[test]
    fn parts_do_not_show() {
        for blocks in [0, 1, PART_ENTRIES, PART_ENTRIES + 1, 3 * PART_ENTRIES] {
            let index = index((0..blocks as i64).map(|start| start * 10));
            assert!(index.is_consistent());
            assert_eq!(index.len(), blocks);
            assert_eq!(index.iter().count(), blocks);
            assert_eq!(index.get(blocks), None);
            assert_eq!(index.total_samples(), blocks as u64);
            for block in [
                0,
                1,
                PART_ENTRIES - 1,
                PART_ENTRIES,
                PART_ENTRIES + 1,
                blocks,
            ] {
                let until = block as i64 * 10;
                let end = index.candidates(i64::MIN, until).end;
                assert_eq!(end, block.min(blocks), "{block} of {blocks}");
                let after = index.first_start_after(until, 0);
                assert_eq!(after, Some(block + 1).filter(|&after| after < blocks));
            }
        }
    }

    #[test]
    fn extrema_in_units_are_in_order_and_unknown_ones_are_no_numbers() {
        let extrema = Extrema {
            minimum: -3,
            maximum: 7,
        };
        assert_eq!(extrema.in_units(0.5), (-1.5, 3.5));
        assert_eq!(extrema.in_units(-2.0), (-14.0, 6.0));
        let (minimum, maximum) = Extrema::UNKNOWN.in_units(1.0);
        assert!(minimum.is_nan() && maximum.is_nan());
        let half = Extrema {
            maximum: 7,
            ..Extrema::UNKNOWN
        };
        assert!(half.in_units(1.0).0.is_nan());
        assert_eq!(half.in_units(1.0).1, 7.0);
    }

    #[test]
    fn a_grown_index_shares_its_full_parts() {
        let before = index(0..PART_ENTRIES as i64 + 5);
        let mut after = before.clone();
        let last = before.get(before.len() - 1).unwrap();
        after.push(last, 1e6);
        assert!(Arc::ptr_eq(&before.parts[0], &after.parts[0]));
        assert_eq!(before.len() + 1, after.len());
        assert_eq!(after.truncated(before.len(), 1e6), before);
    }
}

//! The block index of a segment, as columns (format section 7.1).

use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};
use zerocopy::FromBytes;

use super::error::{Malformation, MefError};
use super::layout::{HEADER_BYTES, INDEX_ENTRY_BYTES, IndexEntry};
use super::time;

/// Where a segment's blocks are, in the file and in time.
///
/// The index is a hint about the data file: every entry is checked again when
/// its block is decoded, and nothing is allocated from its numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BlockIndex {
    #[serde(with = "column")]
    file_offset: Vec<u64>,
    #[serde(with = "column")]
    start_uutc: Vec<i64>,
    #[serde(with = "column")]
    samples: Vec<u32>,
    #[serde(with = "column")]
    bytes: Vec<u32>,
    #[serde(with = "column")]
    discontinuity: Vec<u8>,
    /// Start times never decrease, so that they can be searched.
    sorted: bool,
    /// Duration of the longest block in microseconds.
    longest_us: i64,
    /// Largest end time of a block, absolute uUTC.
    end_uutc: i64,
    /// Bytes after the last whole entry.
    trailing_bytes: u64,
}

/// One entry of a [`BlockIndex`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    /// Byte offset of the block from the start of the data file.
    pub file_offset: u64,
    /// Time of the first sample, absolute uUTC.
    pub start_uutc: i64,
    /// Number of samples.
    pub samples: u32,
    /// Length of the block in bytes, header and padding included.
    pub bytes: u32,
    /// The block is marked as not following seamlessly from the one before.
    pub discontinuity: bool,
}

impl BlockIndex {
    /// Parses a whole `.tidx` file, header included.
    ///
    /// The number of entries follows from the length; the header's counts may
    /// be stale. Entries that are padding are left out.
    pub(crate) fn parse(
        bytes: &[u8],
        file: &Path,
        recording_time_offset: i64,
        sampling_frequency: f64,
    ) -> Result<Self, MefError> {
        let Some(body) = bytes.get(HEADER_BYTES..) else {
            return Err(MefError::malformed(
                file,
                Malformation::TooShort {
                    need: HEADER_BYTES as u64,
                    have: bytes.len() as u64,
                },
            ));
        };
        let entries = body.chunks_exact(INDEX_ENTRY_BYTES);
        let mut index = Self {
            sorted: true,
            end_uutc: i64::MIN,
            trailing_bytes: entries.remainder().len() as u64,
            ..Self::default()
        };
        index.reserve(entries.len());
        for bytes in entries {
            let Ok(entry) = IndexEntry::ref_from_bytes(bytes) else {
                continue;
            };
            if !is_padding(entry) {
                index.push(entry, recording_time_offset, sampling_frequency);
            }
        }
        Ok(index)
    }

    fn reserve(&mut self, entries: usize) {
        self.file_offset.reserve_exact(entries);
        self.start_uutc.reserve_exact(entries);
        self.samples.reserve_exact(entries);
        self.bytes.reserve_exact(entries);
        self.discontinuity.reserve_exact(entries);
    }

    fn push(&mut self, entry: &IndexEntry, offset: i64, sampling_frequency: f64) {
        // A block without a time is expected where the one before ends; if its
        // header says otherwise, it is reported as damaged when it is decoded.
        let start = time::absolute(entry.start_time.get(), offset).unwrap_or(self.end_uutc);
        let samples = entry.number_of_samples.get();
        let duration = duration_us(samples, sampling_frequency);
        self.sorted &= self.start_uutc.last().is_none_or(|&last| last <= start);
        self.longest_us = self.longest_us.max(duration);
        self.end_uutc = self.end_uutc.max(start.saturating_add(duration));
        // A negative offset becomes one beyond any file.
        let file_offset = u64::try_from(entry.file_offset.get()).unwrap_or(u64::MAX);
        self.file_offset.push(file_offset);
        self.start_uutc.push(start);
        self.samples.push(samples);
        self.bytes.push(entry.block_bytes.get());
        self.discontinuity.push(entry.block_flags & 1);
    }

    /// Number of blocks.
    pub fn len(&self) -> usize {
        self.file_offset.len()
    }

    /// Whether there is no block.
    pub fn is_empty(&self) -> bool {
        self.file_offset.is_empty()
    }

    /// The entry of block `block`, counted from 0.
    pub fn get(&self, block: usize) -> Option<BlockEntry> {
        Some(BlockEntry {
            file_offset: *self.file_offset.get(block)?,
            start_uutc: *self.start_uutc.get(block)?,
            samples: *self.samples.get(block)?,
            bytes: *self.bytes.get(block)?,
            discontinuity: *self.discontinuity.get(block)? != 0,
        })
    }

    /// All entries in file order.
    pub fn iter(&self) -> impl Iterator<Item = BlockEntry> + '_ {
        (0..self.len()).filter_map(|block| self.get(block))
    }

    /// Number of samples of each block, in file order.
    pub fn samples(&self) -> &[u32] {
        &self.samples
    }

    /// Start of the first block in file order, absolute uUTC.
    pub fn start_uutc(&self) -> Option<i64> {
        self.start_uutc.first().copied()
    }

    /// The latest end of any block (start plus samples at the sampling rate),
    /// absolute uUTC.
    pub fn end_uutc(&self) -> Option<i64> {
        (!self.is_empty()).then_some(self.end_uutc)
    }

    /// Sum of all samples.
    pub fn total_samples(&self) -> u64 {
        self.samples.iter().map(|&samples| u64::from(samples)).sum()
    }

    /// Bytes after the last whole entry: a torn append or foreign padding.
    pub fn trailing_bytes(&self) -> u64 {
        self.trailing_bytes
    }

    /// Bytes that the columns take in memory.
    pub fn memory(&self) -> usize {
        self.len() * (8 + 8 + 4 + 4 + 1)
    }

    /// A range of blocks that holds every block with a sample in
    /// `[from, until)`, and perhaps others.
    pub fn candidates(&self, from: i64, until: i64) -> Range<usize> {
        if !self.sorted {
            return 0..self.len();
        }
        let earliest = from.saturating_sub(self.longest_us);
        let first = self.start_uutc.partition_point(|&start| start < earliest);
        let end = self.start_uutc.partition_point(|&start| start < until);
        first..end.max(first)
    }

    /// The first block from `skip` on that starts after `time`.
    pub fn first_start_after(&self, time: i64, skip: usize) -> Option<usize> {
        if self.sorted {
            let block = self.start_uutc.partition_point(|&start| start <= time);
            return (block.max(skip) < self.len()).then_some(block.max(skip));
        }
        (skip..self.len()).find(|&block| self.start_uutc.get(block).is_some_and(|&s| s > time))
    }

    /// Whether the columns belong together; an index that came from another
    /// process is checked before it is used.
    pub(crate) fn is_consistent(&self) -> bool {
        let length = self.len();
        self.start_uutc.len() == length
            && self.samples.len() == length
            && self.bytes.len() == length
            && self.discontinuity.len() == length
            && self.longest_us >= 0
            && (!self.sorted || self.start_uutc.is_sorted())
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

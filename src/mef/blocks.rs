//! Decoding runs of blocks from a segment's data file.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::error::{BlockError, IndexField, MefError};
use super::identity::SegmentIdentity;
use super::index::BlockEntry;
use super::layout::BLOCK_HEADER_BYTES;
use super::place::BlockPosition;
use super::recording::{Channel, Recording, Segment};
use super::red::{Decoder, MAX_BLOCK_SAMPLES};
use super::session::{OpenedSegment, open_segment};
use super::time;

/// Bytes of blocks that are read with one call. Larger blocks are read alone.
const READ_BYTES: u64 = 1 << 20;
/// The longest block that can hold [`MAX_BLOCK_SAMPLES`] (format section 8.6).
const MAX_BLOCK_BYTES: u32 = 5 * MAX_BLOCK_SAMPLES + 311;

/// A block after decoding; its samples stand in the buffer beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecodedBlock {
    /// Time of the first sample, absolute uUTC; by the index where the block is
    /// damaged.
    pub start_uutc: i64,
    /// Number of samples that were decoded: none where the block is damaged.
    pub samples: u32,
    /// Why the block has no samples, and which samples are lost.
    pub damage: Option<BlockDamage>,
}

/// A block that could not be decoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockDamage {
    /// Byte offset in the data file, by the index.
    pub file_offset: u64,
    /// Samples that the index promises.
    pub samples: u32,
    /// What is wrong.
    pub error: BlockError,
}

/// A segment that is open for decoding.
pub struct SegmentReader {
    segment: OpenedSegment,
}

impl SegmentReader {
    /// Opens segment `stem` of the channel folder.
    ///
    /// # Errors
    /// [`MefError`] where metadata, index or data cannot be read.
    pub fn open(channel_folder: &Path, stem: &str) -> Result<Self, MefError> {
        let segment = open_segment(channel_folder, stem)?;
        Ok(Self { segment })
    }

    /// Opens a segment of a channel of `recording`, and makes sure that it is the
    /// one that stood there when the recording was opened, possibly grown.
    ///
    /// # Errors
    /// [`MefError`] where metadata, index or data cannot be read, or are others.
    pub fn open_in(
        recording: &Recording,
        channel: &Channel,
        segment: &Segment,
    ) -> Result<Self, MefError> {
        let folder = recording.channel_folder(&channel.name);
        let reader = Self::open(&folder, &segment.stem)?;
        reader.check_identity(&segment.identity)?;
        Ok(reader)
    }

    /// Checks that these are the files that a recording was opened from,
    /// possibly grown since.
    ///
    /// # Errors
    /// [`MefError::Changed`] where they are others.
    pub fn check_identity(&self, expected: &SegmentIdentity) -> Result<(), MefError> {
        if self.segment.identity.continues(expected) {
            Ok(())
        } else {
            Err(self.changed())
        }
    }

    /// The error that says that the files are not the ones they were.
    pub fn changed(&self) -> MefError {
        MefError::Changed {
            file: self.segment.data_path.clone(),
        }
    }

    /// What the index says of a block.
    pub fn block(&self, block: usize) -> Option<BlockEntry> {
        self.segment.index.get(block)
    }

    /// Bytes that the index takes in memory.
    pub fn memory(&self) -> usize {
        self.segment.index.memory()
    }

    /// Whether the files under the segment's names are still the opened ones,
    /// possibly grown.
    ///
    /// # Errors
    /// [`MefError`] where they cannot be looked at.
    pub fn is_current(&self) -> Result<bool, MefError> {
        Ok(self
            .segment
            .identity
            .index
            .still_at(&self.segment.index_path)?
            && self
                .segment
                .identity
                .data
                .still_at(&self.segment.data_path)?)
    }

    /// Decodes `count` blocks from `first` on, appends all their samples to
    /// `samples` and one entry a block to `blocks`.
    ///
    /// A block that cannot be decoded is one entry with its damage. Blocks that
    /// the index does not have are left out.
    pub fn decode(
        &self,
        first: usize,
        count: usize,
        scratch: &mut Scratch,
        samples: &mut Vec<i32>,
        blocks: &mut Vec<DecodedBlock>,
    ) {
        let end = first.saturating_add(count).min(self.segment.index.len());
        let mut block = first;
        while block < end {
            let mut run = self.contiguous_run(block, end);
            let mut read = self.read(&run, &mut scratch.bytes);
            if read.is_err() && run.len() > 1 {
                // One bad entry must not cost its neighbours.
                run.truncate(1);
                read = self.read(&run, &mut scratch.bytes);
            }
            let mut rest = scratch.bytes.as_slice();
            for entry in &run {
                let outcome = match &read {
                    Ok(()) => {
                        let length = rest.len().min(entry.bytes as usize);
                        let (bytes, tail) = rest.split_at(length);
                        rest = tail;
                        self.decode_block(entry, bytes, &mut scratch.decoder, samples)
                    }
                    Err(error) => Err(error.clone()),
                };
                blocks.push(outcome.unwrap_or_else(|error| DecodedBlock {
                    start_uutc: entry.start_uutc,
                    samples: 0,
                    damage: Some(BlockDamage {
                        file_offset: entry.file_offset,
                        samples: entry.samples,
                        error,
                    }),
                }));
            }
            block += run.len();
        }
    }

    /// Entries from `first` on that follow each other in the file and are read
    /// with one call; at least one.
    fn contiguous_run(&self, first: usize, end: usize) -> Vec<BlockEntry> {
        let mut run: Vec<BlockEntry> = Vec::new();
        let mut bytes = 0;
        for entry in (first..end).filter_map(|block| self.segment.index.get(block)) {
            let follows = run.last().is_none_or(|last| {
                last.file_offset.checked_add(u64::from(last.bytes)) == Some(entry.file_offset)
            });
            bytes += u64::from(entry.bytes);
            if !run.is_empty() && (!follows || bytes > READ_BYTES) {
                break;
            }
            run.push(entry);
        }
        run
    }

    /// Reads the blocks of a contiguous run into the reused buffer. Nothing is
    /// allocated for a range that the file does not hold.
    fn read(&self, run: &[BlockEntry], buffer: &mut Vec<u8>) -> Result<(), BlockError> {
        buffer.clear();
        let offset = run.first().map_or(0, |entry| entry.file_offset);
        let bytes: u64 = run.iter().map(|entry| u64::from(entry.bytes)).sum();
        let io_error = |error: io::Error| BlockError::Io(error.to_string());
        let file_bytes = self.segment.data.metadata().map_err(io_error)?.len();
        let inside = offset
            .checked_add(bytes)
            .is_some_and(|end| end <= file_bytes);
        let block_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if !inside {
            return Err(BlockError::OutsideFile {
                offset,
                bytes: block_bytes,
                file_bytes,
            });
        }
        if bytes > u64::from(MAX_BLOCK_BYTES) {
            return Err(BlockError::Length(block_bytes));
        }
        buffer.resize(bytes as usize, 0);
        self.segment
            .data
            .read_exact_at(buffer, offset)
            .map_err(io_error)
    }

    fn decode_block(
        &self,
        entry: &BlockEntry,
        bytes: &[u8],
        decoder: &mut Decoder,
        samples: &mut Vec<i32>,
    ) -> Result<DecodedBlock, BlockError> {
        if bytes.len() < BLOCK_HEADER_BYTES {
            return Err(BlockError::Length(entry.bytes));
        }
        let offset = self.segment.recording_time_offset;
        let facts = decoder.decode_if(bytes, samples, |facts| {
            let start_uutc = time::absolute(facts.stored_start_time, offset);
            if start_uutc != Some(entry.start_uutc) {
                Err(BlockError::IndexMismatch(IndexField::StartTime))
            } else if facts.samples != entry.samples {
                Err(BlockError::IndexMismatch(IndexField::Samples))
            } else {
                Ok(())
            }
        })?;
        Ok(DecodedBlock {
            start_uutc: entry.start_uutc,
            samples: facts.samples,
            damage: None,
        })
    }
}

/// A damaged block with its place, as a reader is told of it.
#[derive(Clone, Debug, PartialEq, Error, Serialize, Deserialize)]
#[error(
    "{file}: channel {channel}, segment {segment}, block {block} \
     ({samples} samples from {start_uutc}, file offset {file_offset}): {error}",
    file = file.display(),
    samples = damage.samples,
    file_offset = damage.file_offset,
    error = damage.error
)]
pub struct DamagedBlock {
    /// The data file.
    pub file: PathBuf,
    /// Name of the channel.
    pub channel: String,
    /// Stem of the segment.
    pub segment: String,
    /// Position of the block in the segment's index.
    pub block: u32,
    /// Time of the first lost sample, uUTC.
    pub start_uutc: i64,
    /// Where and why.
    pub damage: BlockDamage,
}

impl DamagedBlock {
    /// Names the block at `position` of a channel of the recording.
    pub(crate) fn new(
        recording: &Recording,
        channel: &Channel,
        position: BlockPosition,
        start_uutc: i64,
        damage: &BlockDamage,
    ) -> Self {
        let segment = channel.segments.get(position.segment as usize);
        let stem = segment
            .map(|segment| segment.stem.as_str())
            .unwrap_or_default();
        Self {
            file: recording.data_file(&channel.name, stem),
            channel: channel.name.clone(),
            segment: stem.to_owned(),
            block: position.block,
            start_uutc,
            damage: damage.clone(),
        }
    }
}

/// Buffers that decoding reuses from run to run.
#[derive(Default)]
pub struct Scratch {
    bytes: Vec<u8>,
    decoder: Decoder,
}

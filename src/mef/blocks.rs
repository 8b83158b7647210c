//! Decoding runs of blocks from a segment's data file.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::crypto::{Keys, Password};
use super::error::{BlockError, IndexField, MefError};
use super::header::parse_header;
use super::identity::FileIdentity;
use super::index::BlockEntry;
use super::layout::{BLOCK_HEADER_BYTES, HEADER_BYTES};
use super::place::BlockPosition;
use super::recording::{Channel, Recording, Segment};
use super::red::{self, BlockFacts, Decoder, MAX_BLOCK_BYTES};
use super::segment::SegmentFiles;
use super::store::{ReadAt, Store, StoredFile};
use super::time;

/// Bytes of blocks that are read with one call. Larger blocks are read alone.
const READ_BYTES: u64 = 1 << 20;

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

impl DecodedBlock {
    /// Whether the block is damaged, and may read well the next time.
    pub(crate) fn may_pass(&self) -> bool {
        let damage = self.damage.as_ref();
        damage.is_some_and(|damage| damage.error.may_pass())
    }
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

/// The data file of a segment, open for decoding.
pub struct SegmentReader {
    data: StoredFile,
    identity: FileIdentity,
    recording_time_offset: i64,
    /// For blocks whose statistics are encrypted.
    keys: Keys,
}

impl SegmentReader {
    /// Opens the data file of segment `stem` of a channel. Where the password is
    /// not the file's, encrypted blocks cannot be decoded.
    pub(crate) fn open(
        store: &Store,
        channel: &str,
        stem: &str,
        recording_time_offset: i64,
        password: Option<&Password>,
    ) -> Result<Self, MefError> {
        let data = store.file(SegmentFiles::new(channel, stem).name("tdat"))?;
        let identity = FileIdentity::of(&data)?;
        let bytes = data.read(0, HEADER_BYTES as u64)?;
        let header = parse_header(&bytes, "tdat", data.path())?;
        let unlocked = Keys::unlock(header, password);
        let keys = unlocked.map(|(_, keys)| keys).unwrap_or_default();
        Ok(Self {
            data,
            identity,
            recording_time_offset,
            keys,
        })
    }

    /// Opens a segment of a channel of `recording`, and makes sure that it is the
    /// one that stood there when the recording was opened, possibly grown.
    ///
    /// # Errors
    /// [`MefError`] where the data file cannot be read, or is another.
    pub fn open_in(
        recording: &Recording,
        channel: &Channel,
        segment: &Segment,
    ) -> Result<Self, MefError> {
        let reader = Self::open(
            &recording.store()?,
            &channel.name,
            &segment.stem,
            segment.recording_time_offset.unwrap_or(0),
            recording.password.as_ref(),
        )?;
        reader.check_identity(&segment.identity.data)?;
        Ok(reader)
    }

    /// Checks that this is the file that a recording was opened from, possibly
    /// grown since.
    ///
    /// # Errors
    /// [`MefError::Changed`] where it is another.
    pub fn check_identity(&self, expected: &FileIdentity) -> Result<(), MefError> {
        if self.identity.continues(expected) {
            return Ok(());
        }
        Err(MefError::Changed {
            file: self.data.path().into(),
        })
    }

    /// Whether the file under the data file's name is still the opened one,
    /// possibly grown.
    ///
    /// # Errors
    /// [`MefError`] where it cannot be looked at.
    pub fn is_current(&self) -> Result<bool, MefError> {
        self.identity.is_current(&self.data)
    }

    /// Decodes blocks, appends all their samples to `samples` and one entry a
    /// block to `decoded`.
    ///
    /// A block that cannot be decoded is one entry with its damage.
    pub fn decode(
        &self,
        blocks: &[BlockEntry],
        scratch: &mut Scratch,
        samples: &mut Vec<i32>,
        decoded: &mut Vec<DecodedBlock>,
    ) {
        let decode = |decoder: &mut Decoder, bytes: &[u8], expected: &Expected<'_>| {
            decoder.decode_if(bytes, &self.keys, samples, expected)
        };
        self.each_block(blocks, scratch, decoded, decode);
    }

    /// As [`decode`](Self::decode), but appends the blocks as they are stored, in plain
    /// text (see [`red::copy_if`]). What only decoding would show is not found.
    pub(crate) fn copy(
        &self,
        blocks: &[BlockEntry],
        scratch: &mut Scratch,
        words: &mut Vec<i32>,
        copied: &mut Vec<DecodedBlock>,
    ) {
        let copy = |_: &mut Decoder, bytes: &[u8], expected: &Expected<'_>| {
            red::copy_if(bytes, &self.keys, words, expected)
        };
        self.each_block(blocks, scratch, copied, copy);
    }

    /// Reads blocks, has something done with the bytes of each, and appends what comes
    /// of it to `decoded`.
    fn each_block(
        &self,
        blocks: &[BlockEntry],
        scratch: &mut Scratch,
        decoded: &mut Vec<DecodedBlock>,
        mut handle: impl FnMut(&mut Decoder, &[u8], &Expected<'_>) -> Result<BlockFacts, BlockError>,
    ) {
        let mut rest = blocks;
        while !rest.is_empty() {
            let (mut run, mut after) = rest.split_at(contiguous_blocks(rest));
            let mut read = self.read(run, &mut scratch.bytes);
            if read.is_err() {
                // One bad entry must not cost its neighbours.
                (run, after) = rest.split_at(1);
                read = self.read(run, &mut scratch.bytes);
            }
            rest = after;
            let mut bytes = scratch.bytes.as_slice();
            for entry in run {
                let outcome = match &read {
                    Ok(()) => {
                        let length = bytes.len().min(entry.bytes as usize);
                        let (block, tail) = bytes.split_at(length);
                        bytes = tail;
                        self.handled(entry, block, |bytes, expected| {
                            handle(&mut scratch.decoder, bytes, expected)
                        })
                    }
                    Err(error) => Err(error.clone()),
                };
                decoded.push(outcome.unwrap_or_else(|error| DecodedBlock {
                    start_uutc: entry.start_uutc,
                    samples: 0,
                    damage: Some(BlockDamage {
                        file_offset: entry.file_offset,
                        samples: entry.samples,
                        error,
                    }),
                }));
            }
        }
    }

    /// Reads the blocks of a contiguous run into the reused buffer. Nothing is
    /// allocated for a range that the file does not hold.
    fn read(&self, run: &[BlockEntry], buffer: &mut Vec<u8>) -> Result<(), BlockError> {
        buffer.clear();
        let offset = run.first().map_or(0, |entry| entry.file_offset);
        let bytes: u64 = run.iter().map(|entry| u64::from(entry.bytes)).sum();
        let io_error = |error: io::Error| BlockError::Io(error.to_string());
        let file_bytes = self.data.size().map_err(io_error)?;
        let inside = offset
            .checked_add(bytes)
            .is_some_and(|end| end <= file_bytes);
        let block_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let outside = BlockError::OutsideFile {
            offset,
            bytes: block_bytes,
            file_bytes,
        };
        if !inside {
            return Err(outside);
        }
        if bytes > u64::from(MAX_BLOCK_BYTES) {
            return Err(BlockError::Length(block_bytes));
        }
        if buffer.try_reserve(bytes as usize).is_err() {
            return Err(BlockError::Memory { bytes, samples: 0 });
        }
        buffer.resize(bytes as usize, 0);
        match self.data.read_at(buffer, offset).map_err(io_error)? {
            filled if filled == buffer.len() => Ok(()),
            // Cut since its size was asked for.
            _ => Err(outside),
        }
    }

    /// Has a block handled that is the one of the index.
    fn handled(
        &self,
        entry: &BlockEntry,
        bytes: &[u8],
        handle: impl FnOnce(&[u8], &Expected<'_>) -> Result<BlockFacts, BlockError>,
    ) -> Result<DecodedBlock, BlockError> {
        if bytes.len() < BLOCK_HEADER_BYTES {
            return Err(BlockError::Length(entry.bytes));
        }
        let offset = self.recording_time_offset;
        let facts = handle(bytes, &|facts| {
            let start_uutc = time::absolute(facts.stored_start_time, offset);
            if start_uutc.unwrap_or(time::NO_TIME) != entry.start_uutc {
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

/// Whether the facts of a block's header are those that are expected.
type Expected<'a> = dyn Fn(&BlockFacts) -> Result<(), BlockError> + 'a;

/// How many of the first blocks follow each other in the file and are read with
/// one call; at least one.
fn contiguous_blocks(blocks: &[BlockEntry]) -> usize {
    let mut bytes = blocks.first().map_or(0, |entry| u64::from(entry.bytes));
    let follows = blocks.windows(2).take_while(|pair| {
        let [before, entry] = pair else {
            return false;
        };
        bytes += u64::from(entry.bytes);
        before.file_end() == entry.file_offset && bytes <= READ_BYTES
    });
    1 + follows.count()
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

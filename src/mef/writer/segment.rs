//! One segment under construction: three files in a folder that becomes visible
//! when they are complete.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use fastrand::Rng;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{I32, I64, U32};

use super::metadata::{FileKind, Level, metadata_file};
use super::{ChannelOptions, Session, WriteError, create_folder};
use crate::mef::crc::{RunningCrc, crc32};
use crate::mef::layout::{FLAG_DISCONTINUITY, HEADER_BYTES, INDEX_ENTRY_BYTES, IndexEntry};
use crate::mef::red::{EncodedBlock, NAN};

/// Bytes that are gathered before they go to the data file: enough that the
/// system calls do not count.
const BUFFER_BYTES: usize = 256 * 1024;

pub(super) struct SegmentWriter {
    number: u32,
    /// Name of the folder and of the files, without extension.
    stem: String,
    channel_folder: PathBuf,
    /// Where the files are while the segment is incomplete.
    partial_folder: PathBuf,
    data_path: PathBuf,
    data: BufWriter<File>,
    /// Length of the data file so far, its header included.
    data_bytes: u64,
    data_crc: RunningCrc,
    index: Vec<IndexEntry>,
    samples: u64,
    maximum_difference_bytes: u32,
    /// Samples of the channel in all earlier segments.
    start_sample: u64,
}

impl SegmentWriter {
    pub(super) fn create(
        channel_folder: &Path,
        channel: &str,
        number: u32,
        start_sample: u64,
    ) -> Result<Self, WriteError> {
        let stem = format!("{channel}-{number:06}");
        let partial_folder = channel_folder.join(format!("{stem}.segd.partial"));
        create_folder(&partial_folder)?;
        let data_path = partial_folder.join(format!("{stem}.tdat"));
        let file = File::create_new(&data_path).map_err(WriteError::io(&data_path))?;
        let mut data = BufWriter::with_capacity(BUFFER_BYTES, file);
        // Room for the header, which needs the times and counts of all blocks.
        data.write_all(&[0; HEADER_BYTES])
            .map_err(WriteError::io(&data_path))?;
        Ok(Self {
            number,
            stem,
            channel_folder: channel_folder.into(),
            partial_folder,
            data_path,
            data,
            data_bytes: HEADER_BYTES as u64,
            data_crc: RunningCrc::new(),
            index: Vec::new(),
            samples: 0,
            maximum_difference_bytes: 0,
            start_sample,
        })
    }

    /// Number of samples so far.
    pub(super) fn samples(&self) -> u64 {
        self.samples
    }

    /// Appends an encoded block to the data file and to the index.
    pub(super) fn append(&mut self, block: &EncodedBlock, bytes: &[u8]) -> Result<(), WriteError> {
        self.data
            .write_all(bytes)
            .map_err(WriteError::io(&self.data_path))?;
        self.data_crc.update(bytes);
        self.index.push(IndexEntry {
            file_offset: I64::new(self.data_bytes as i64),
            start_time: I64::new(block.stored_start_time),
            // Counted from the segment's start (format section 7.1).
            start_sample: I64::new(self.samples as i64),
            number_of_samples: U32::new(block.samples),
            block_bytes: U32::new(block.bytes),
            maximum_sample_value: I32::new(block.maximum),
            minimum_sample_value: I32::new(block.minimum),
            protected_region: [0; 4],
            block_flags: block.flags,
            block_protected_region: [0; 3],
            block_discretionary_region: [0; 8],
        });
        self.data_bytes += bytes.len() as u64;
        self.samples += u64::from(block.samples);
        self.maximum_difference_bytes = self.maximum_difference_bytes.max(block.difference_bytes);
        Ok(())
    }

    /// Writes the headers, the index and the metadata, and makes the segment
    /// visible.
    pub(super) fn finish(
        mut self,
        session: &Session,
        channel: &ChannelOptions,
        rng: &mut Rng,
    ) -> Result<(), WriteError> {
        let totals = Totals::of(
            &self.index,
            self.start_sample,
            self.maximum_difference_bytes,
        );
        let level = Level::new(session, channel, self.number, &totals, rng);

        let header = level.header(
            FileKind::Data,
            totals.blocks,
            totals.maximum_block_bytes,
            self.data_crc.value(),
            rng,
        );
        self.data
            .rewind()
            .and_then(|()| self.data.write_all(header.as_bytes()))
            .and_then(|()| self.data.flush())
            .map_err(WriteError::io(&self.data_path))?;

        let index = self.index.as_bytes();
        let header = level.header(
            FileKind::Index,
            totals.blocks,
            INDEX_ENTRY_BYTES as i64,
            crc32(index),
            rng,
        );
        self.write_file("tidx", &[header.as_bytes(), index].concat())?;

        let metadata = metadata_file(session, channel, &level, &totals, rng);
        self.write_file("tmet", metadata.as_bytes())?;

        let folder = self.channel_folder.join(format!("{}.segd", self.stem));
        fs::rename(&self.partial_folder, &folder).map_err(WriteError::io(&folder))
    }

    fn write_file(&self, extension: &str, bytes: &[u8]) -> Result<(), WriteError> {
        let path = self
            .partial_folder
            .join(format!("{}.{extension}", self.stem));
        fs::write(&path, bytes).map_err(WriteError::io(&path))
    }
}

/// What the metadata declare of all blocks together (format section 6.3).
/// Readers size their buffers by these, so they are exact.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Totals {
    /// Samples of the channel in all earlier segments.
    pub(super) start_sample: i64,
    pub(super) samples: i64,
    pub(super) blocks: i64,
    /// Stored time of the first block.
    pub(super) stored_start_time: i64,
    /// Stored time of the last block.
    pub(super) last_stored_start_time: i64,
    pub(super) last_block_samples: u32,
    pub(super) maximum_block_bytes: i64,
    pub(super) maximum_block_samples: u32,
    pub(super) maximum_difference_bytes: u32,
    pub(super) discontinuities: i64,
    pub(super) maximum_contiguous_blocks: i64,
    pub(super) maximum_contiguous_block_bytes: i64,
    pub(super) maximum_contiguous_samples: i64,
    /// Least and greatest count; `None` if all samples are NaN.
    pub(super) extremes: Option<(i32, i32)>,
}

impl Totals {
    fn of(index: &[IndexEntry], start_sample: u64, maximum_difference_bytes: u32) -> Self {
        let mut totals = Self {
            start_sample: start_sample as i64,
            blocks: index.len() as i64,
            stored_start_time: index.first().map_or(0, |entry| entry.start_time.get()),
            last_stored_start_time: index.last().map_or(0, |entry| entry.start_time.get()),
            last_block_samples: index
                .last()
                .map_or(0, |entry| entry.number_of_samples.get()),
            maximum_difference_bytes,
            ..Self::default()
        };
        let (mut run_blocks, mut run_bytes, mut run_samples) = (0, 0, 0);
        for entry in index {
            let samples = entry.number_of_samples.get();
            let bytes = i64::from(entry.block_bytes.get());
            if entry.block_flags & FLAG_DISCONTINUITY != 0 {
                totals.discontinuities += 1;
                (run_blocks, run_bytes, run_samples) = (0, 0, 0);
            }
            run_blocks += 1;
            run_bytes += bytes;
            run_samples += i64::from(samples);
            totals.samples += i64::from(samples);
            totals.maximum_block_bytes = totals.maximum_block_bytes.max(bytes);
            totals.maximum_block_samples = totals.maximum_block_samples.max(samples);
            totals.maximum_contiguous_blocks = totals.maximum_contiguous_blocks.max(run_blocks);
            totals.maximum_contiguous_block_bytes =
                totals.maximum_contiguous_block_bytes.max(run_bytes);
            totals.maximum_contiguous_samples = totals.maximum_contiguous_samples.max(run_samples);
            totals.include_extremes(
                entry.minimum_sample_value.get(),
                entry.maximum_sample_value.get(),
            );
        }
        totals
    }

    fn include_extremes(&mut self, minimum: i32, maximum: i32) {
        // A block of NaN only has no extremes.
        if maximum == NAN {
            return;
        }
        let (least, greatest) = self.extremes.unwrap_or((minimum, maximum));
        self.extremes = Some((least.min(minimum), greatest.max(maximum)));
    }
}

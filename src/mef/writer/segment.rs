//! One segment under construction: three files that grow, in a folder that is
//! hidden until they are complete.

use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{I32, I64, U32};

use super::file::{GrowingFile, include_times, replace_whole};
use super::template::{FileKind, Template};
use super::totals::Totals;
use super::{WriteError, create_folder};
use crate::mef::layout::IndexEntry;
use crate::mef::red::EncodedBlock;
use crate::mef::time;

/// Bytes of blocks that are gathered before they go to the data file: enough that
/// the system calls do not count.
const BUFFER_BYTES: usize = 256 * 1024;
/// Most hidden folders of one segment that crashed writers may have left.
const MOST_LEFTOVERS: u32 = 1000;

pub(super) struct SegmentWriter {
    /// Where the files are.
    pub(super) folder: PathBuf,
    /// Name of the folder and of the files, without extension.
    pub(super) stem: String,
    /// Where the segment will be seen; `None` if it can be seen already.
    pub(super) visible_as: Option<PathBuf>,
    pub(super) data: GrowingFile,
    pub(super) index: GrowingFile,
    /// The segment's own metadata.
    pub(super) template: Template,
    /// What a foreign writer has put behind the metadata.
    pub(super) metadata_tail: Vec<u8>,
    pub(super) totals: Totals,
    /// What the index counts the first sample as: zero, but for a segment whose
    /// writer numbers the samples of the channel (format section 7.1).
    pub(super) first_sample: i64,
    /// Blocks, and their entries, that are not in the files yet.
    pub(super) blocks: Vec<u8>,
    pub(super) entries: Vec<IndexEntry>,
}

impl SegmentWriter {
    /// Begins a new segment; `start_sample` is the number of samples in all earlier
    /// ones.
    pub(super) fn create(
        channel_folder: &Path,
        channel: &str,
        number: u32,
        start_sample: u64,
        template: &Template,
        rng: &mut Rng,
    ) -> Result<Self, WriteError> {
        let stem = format!("{channel}-{number:06}");
        let folder = create_hidden_folder(channel_folder, &stem)?;
        let mut template = template.for_segment(number, rng);
        template.section_2_mut().start_sample =
            I64::new(i64::try_from(start_sample).unwrap_or(i64::MAX));
        let [data, index] = [FileKind::Data, FileKind::Index].map(|kind| {
            let header = template.file_header(kind, rng);
            GrowingFile::create(file_path(&folder, &stem, kind), header, 0, &[])
        });
        let data = data?;
        data.lock()?;
        Ok(Self {
            visible_as: Some(channel_folder.join(format!("{stem}.segd"))),
            folder,
            stem,
            data,
            index: index?,
            template,
            metadata_tail: Vec::new(),
            totals: Totals::default(),
            first_sample: 0,
            blocks: Vec::new(),
            entries: Vec::new(),
        })
    }

    /// Number of samples so far.
    pub(super) fn samples(&self) -> u64 {
        self.totals.samples
    }

    /// Appends an encoded block.
    pub(super) fn append(&mut self, block: &EncodedBlock, bytes: &[u8]) -> Result<(), WriteError> {
        let place = self.data.end() + self.blocks.len() as u64;
        let entry = IndexEntry {
            file_offset: I64::new(place as i64),
            start_time: I64::new(block.stored_start_time),
            start_sample: I64::new(self.first_sample.saturating_add(self.samples() as i64)),
            number_of_samples: U32::new(block.samples),
            block_bytes: U32::new(block.bytes),
            maximum_sample_value: I32::new(block.maximum),
            minimum_sample_value: I32::new(block.minimum),
            protected_region: [0; 4],
            block_flags: block.flags,
            block_protected_region: [0; 3],
            block_discretionary_region: [0; 8],
        };
        let fs = self.template.section_2().sampling_frequency.get();
        let offset = self.template.recording_time_offset();
        self.totals
            .add(&entry, Some(block.difference_bytes), fs, offset);
        self.blocks.extend_from_slice(bytes);
        self.entries.push(entry);
        if self.blocks.len() >= BUFFER_BYTES {
            self.write_out()?;
        }
        Ok(())
    }

    /// Makes all blocks so far visible. A visible segment can be read after every
    /// step (format section 13.1), and a hidden one appears with the last.
    pub(super) fn publish(&mut self) -> Result<(), WriteError> {
        self.write_out()?;
        let offset = self.template.recording_time_offset();
        let (start, end) = self.totals.span.unwrap_or_default();
        let times = [start, end].map(|time| time::stored_under(time, offset).map(I64::new));
        let times = times.into_iter().flatten();
        self.data
            .include_size(u64::from(self.totals.maximum_block_bytes));
        for file in [&mut self.index, &mut self.data] {
            file.include_times(times.clone(), offset);
            file.write_header(self.totals.blocks)?;
        }
        include_times(self.template.header_mut(), times, offset);
        self.totals.declare(self.template.section_2_mut());
        let path = file_path(&self.folder, &self.stem, FileKind::Metadata);
        let metadata = self.template.file(&path)?;
        replace_whole(&path, &[metadata.as_bytes(), &self.metadata_tail].concat())?;
        let Some(folder) = self.visible_as.take() else {
            return Ok(());
        };
        fs::rename(&self.folder, &folder).map_err(WriteError::io(&folder))?;
        self.data
            .moved_to(file_path(&folder, &self.stem, FileKind::Data));
        self.index
            .moved_to(file_path(&folder, &self.stem, FileKind::Index));
        self.folder = folder;
        Ok(())
    }

    /// Writes blocks, and then the entries that lead to them.
    fn write_out(&mut self) -> Result<(), WriteError> {
        if self.entries.is_empty() {
            return Ok(());
        }
        self.data.check_unchanged()?;
        self.index.check_unchanged()?;
        self.data.extend(self.data.end(), &self.blocks)?;
        self.index
            .extend(self.index.end(), self.entries.as_bytes())?;
        self.blocks.clear();
        self.entries.clear();
        Ok(())
    }
}

/// A file of the segment `stem`.
pub(super) fn file_path(folder: &Path, stem: &str, kind: FileKind) -> PathBuf {
    folder.join(format!("{stem}.{}", kind.extension()))
}

/// Creates a folder that no reader takes for a segment. Those of writers that
/// died hold samples that nobody has seen: they stay.
fn create_hidden_folder(channel_folder: &Path, stem: &str) -> Result<PathBuf, WriteError> {
    let mut folder = channel_folder.join(format!("{stem}.segd.partial"));
    for leftover in 1..MOST_LEFTOVERS {
        match create_folder(&folder) {
            Err(WriteError::Exists { .. }) => {
                tracing::warn!(folder = %folder.display(), "another writer left an incomplete segment");
                folder = channel_folder.join(format!("{stem}.segd.partial-{leftover}"));
            }
            created => return created.map(|()| folder),
        }
    }
    Err(WriteError::Exists { path: folder })
}

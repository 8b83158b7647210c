//! Verifying a session: everything that its files say twice, or under a
//! checksum (format sections 3, 4, 7, 8, 9 and 14).
//!
//! Reading is lenient where nothing is lost; this is not. What the known writers
//! do differently, and what the format calls informational, is no finding
//! (format section 15).

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;
use zerocopy::FromBytes;

use super::annotations::RecordQuery;
use super::crc::{CRC_NOT_COMPUTED, RunningCrc, crc32, crc32_continue};
use super::error::{BlockError, IndexField, MefError};
use super::header::{header_crc_is_right, parse_header};
use super::index::duration_us;
use super::layout::{
    BLOCK_HEADER_BYTES, BlockHeader, HEADER_BYTES, INDEX_ENTRY_BYTES, IndexEntry, METADATA_BYTES,
    UniversalHeader,
};
use super::recording::{Channel, Recording, Segment};
use super::records::RecordError;
use super::red::{Decoder, MAX_BLOCK_BYTES};
use super::segment::{SegmentFiles, is_growing};
use super::session::{OpenOptions, open_session};
use super::store::{Item, ReadAt, Store, StoredFile};
use super::time;

/// Bytes that are read at a time for the checksum of a whole file.
const PIECE: u64 = 1 << 20;
/// "No entry" for an extreme of a block.
const NO_EXTREME: i32 = i32::MIN;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The file at fault.
    pub file: PathBuf,
    /// Byte offset in it, where there is one.
    pub offset: Option<u64>,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with a file.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file, or what it belongs to, cannot be read.
    #[error(transparent)]
    Unreadable(#[from] MefError),
    /// A checksum is not that of the bytes.
    #[error("{part} CRC mismatch: stored {stored:08X}, computed {computed:08X}")]
    Crc {
        /// "header" or "body".
        part: &'static str,
        /// As stored.
        stored: u32,
        /// Over the bytes.
        computed: u32,
    },
    /// A block cannot be decoded.
    #[error("block {block}: {error}")]
    Block {
        /// Position in the index.
        block: usize,
        /// Why.
        error: BlockError,
    },
    /// An index entry does not say what its block says.
    #[error("entry {entry} contradicts its block in the {field}")]
    Entry {
        /// Position in the index.
        entry: usize,
        /// The fact.
        field: &'static str,
    },
    /// Bytes of the data file that are in no block of the index.
    #[error("{0} bytes are in no block of the index")]
    Unindexed(u64),
    /// Bytes after the last whole entry.
    #[error("{0} bytes after the last whole entry")]
    Trailing(u64),
    /// A number that is declared is not that of what is there.
    #[error("declares {declared} {what}, has {found}")]
    Count {
        /// What is counted.
        what: &'static str,
        /// As declared.
        declared: i64,
        /// As found.
        found: i64,
    },
    /// The units conversion factor is no finite number.
    #[error("units conversion factor {0} is not usable")]
    ConversionFactor(f64),
    /// A span of time that does not hold what it spans.
    #[error("{0}")]
    Time(&'static str),
    /// A record cannot be read.
    #[error("record: {0}")]
    Record(RecordError),
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Files of the format.
    pub files: u64,
    /// Blocks of samples.
    pub blocks: u64,
    /// Records.
    pub records: u64,
}

/// Verifies a session, and tells `found` of everything that is wrong. With
/// `deep`, every block is decoded, too, which finds what has a right checksum
/// and cannot be what was recorded.
///
/// # Errors
/// [`MefError`] where the path is no session, or nothing of it can be read
/// without the right password.
pub fn check_session(
    path: &Path,
    options: &OpenOptions,
    deep: bool,
    found: &mut dyn FnMut(Finding),
) -> Result<Checked, MefError> {
    let recording = open_session(path, options)?;
    let mut check = Check {
        store: recording.store()?,
        recording: &recording,
        deep,
        decoder: Decoder::new(),
        checked: Checked::default(),
        found,
    };
    check.run()?;
    Ok(check.checked)
}

struct Check<'a> {
    store: Store,
    recording: &'a Recording,
    deep: bool,
    decoder: Decoder,
    checked: Checked,
    found: &'a mut dyn FnMut(Finding),
}

impl Check<'_> {
    fn run(&mut self) -> Result<(), MefError> {
        let recording = self.recording;
        for channel in &recording.unreadable {
            self.unreadable(&channel.error);
        }
        for segment in recording
            .channels
            .iter()
            .flat_map(|channel| &channel.unreadable)
        {
            self.unreadable(&segment.error);
        }
        let videos = recording.video_channels.iter();
        for segment in videos.flat_map(|channel| &channel.unreadable) {
            self.unreadable(&segment.error);
        }
        self.folder(Path::new(""))?;
        for channel in &recording.channels {
            for segment in &channel.segments {
                self.segment(channel, segment);
            }
        }
        let records = recording.records(&RecordQuery::default())?;
        self.checked.records = records.total;
        for damaged in records.damaged {
            (self.found)(Finding {
                file: damaged.file,
                offset: Some(damaged.file_offset),
                problem: Problem::Record(damaged.error),
            });
        }
        Ok(())
    }

    fn unreadable(&mut self, error: &MefError) {
        (self.found)(Finding {
            file: error.file().into(),
            offset: None,
            problem: error.clone().into(),
        });
    }

    fn report(&mut self, file: &StoredFile, offset: Option<u64>, problem: Problem) {
        (self.found)(Finding {
            file: file.path().into(),
            offset,
            problem,
        });
    }

    /// Checks all files of the format in a folder and in those below it that are
    /// parts of a session.
    fn folder(&mut self, folder: &Path) -> Result<(), MefError> {
        for Item { name, is_folder } in self.store.list(folder)? {
            let path = folder.join(&name);
            let extension = path.extension().and_then(|extension| extension.to_str());
            let Some(extension) = extension else {
                continue;
            };
            // A segment holds no folders: a link back cannot make this endless.
            let descend = match folder.components().count() {
                0 => ["timd", "vidd"].contains(&extension),
                1 => extension == "segd",
                _ => false,
            };
            if is_folder && descend {
                self.folder(&path)?;
            } else if !is_folder && FILE_TYPES.contains(&extension) {
                let extension = extension.to_owned();
                if let Err(error) = self.file(&path, &extension) {
                    self.unreadable(&error);
                }
            }
        }
        Ok(())
    }

    /// Checks a file's header and the checksum of its body.
    fn file(&mut self, name: &Path, extension: &str) -> Result<(), MefError> {
        let file = self.store.file(name)?;
        self.checked.files += 1;
        let bytes = file.read(0, HEADER_BYTES as u64)?;
        let header = parse_header(&bytes, extension, file.path())?;
        if !header_crc_is_right(header) {
            let stored = header.header_crc.get();
            let computed = crc32(bytes.get(size_of::<u32>()..).unwrap_or_default());
            let part = "header";
            self.report(
                &file,
                Some(0),
                Problem::Crc {
                    part,
                    stored,
                    computed,
                },
            );
        }
        let times = [header.start_time.get(), header.end_time.get()];
        let [start, end] = times.map(|stored| time::absolute(stored, 0));
        if start.zip(end).is_some_and(|(start, end)| start > end) {
            let problem = Problem::Time("starts after it ends");
            self.report(&file, Some(16), problem);
        }
        self.body(&file, header, extension)
    }

    /// Whether a segment has more blocks than a header of it knows of, and was
    /// written to a moment ago.
    fn has_grown(&self, file: &StoredFile, header: &UniversalHeader) -> bool {
        let name = file.path().with_extension("tidx");
        let name = name.strip_prefix(self.store.path("")).unwrap_or(&name);
        let size = self.store.file(name).and_then(|index| {
            let size = index.size();
            size.map_err(|error| index.error(&error))
        });
        let body = size.unwrap_or(0).saturating_sub(HEADER_BYTES as u64);
        let entries = i64::try_from(body / INDEX_ENTRY_BYTES as u64).unwrap_or(i64::MAX);
        is_growing(file) && header.number_of_entries.get() < entries
    }

    fn body(
        &mut self,
        file: &StoredFile,
        header: &UniversalHeader,
        extension: &str,
    ) -> Result<(), MefError> {
        let stored = header.body_crc.get();
        // Writers disagree on that of records, which have their own each; and a
        // file that grows has that of an earlier state.
        if stored == CRC_NOT_COMPUTED || extension == "rdat" || self.has_grown(file, header) {
            return Ok(());
        }
        let end = match extension {
            "tmet" | "vmet" => METADATA_BYTES as u64,
            _ => u64::MAX,
        };
        let (mut standard, mut from_zero) = (RunningCrc::new(), 0);
        let mut offset = HEADER_BYTES as u64;
        loop {
            let piece = file.read(offset, PIECE.min(end.saturating_sub(offset)))?;
            if piece.is_empty() {
                break;
            }
            offset += piece.len() as u64;
            standard.update(&piece);
            from_zero = crc32_continue(from_zero, &piece);
        }
        let computed = standard.value();
        // The legacy writer begins with another register (format section 4).
        let legacy = extension == "tdat" && stored == from_zero;
        if stored != computed && !legacy {
            let part = "body";
            self.report(
                file,
                Some(4),
                Problem::Crc {
                    part,
                    stored,
                    computed,
                },
            );
        }
        Ok(())
    }

    /// Checks the index of a segment against its blocks, and what is declared.
    fn segment(&mut self, channel: &Channel, segment: &Segment) {
        let files = SegmentFiles::new(&channel.name, &segment.stem);
        let opened = ["tmet", "tidx", "tdat"].map(|kind| self.store.file(files.name(kind)));
        let [Ok(metadata), Ok(index), Ok(data)] = opened else {
            // Gone since the session was opened.
            for error in opened.into_iter().filter_map(Result::err) {
                self.unreadable(&error);
            }
            return;
        };
        let entries = match index.read(HEADER_BYTES as u64, u64::MAX) {
            Ok(body) => body,
            Err(error) => return self.unreadable(&error),
        };
        if let Err(error) = self.blocks(segment, &index, &data, &entries) {
            self.unreadable(&data.error(&error));
        }
        self.declarations(segment, &metadata);
        self.spans(channel, segment, &[&metadata, &index, &data]);
    }

    fn blocks(
        &mut self,
        segment: &Segment,
        index: &StoredFile,
        data: &StoredFile,
        entries: &[u8],
    ) -> io::Result<()> {
        let offset = segment.recording_time_offset.unwrap_or(0);
        let (chunks, rest) = entries.as_chunks::<INDEX_ENTRY_BYTES>();
        let mut end = HEADER_BYTES as u64;
        let mut samples = Vec::new();
        for (number, bytes) in chunks.iter().enumerate() {
            let Ok(entry) = IndexEntry::ref_from_bytes(bytes) else {
                continue;
            };
            if entry.file_offset.get() <= 0 && [0, u32::MAX].contains(&entry.block_bytes.get()) {
                continue;
            }
            self.checked.blocks += 1;
            let place = (HEADER_BYTES + number * INDEX_ENTRY_BYTES) as u64;
            let start = u64::try_from(entry.file_offset.get()).unwrap_or(u64::MAX);
            if start != end {
                let field = "file offset";
                self.report(
                    index,
                    Some(place),
                    Problem::Entry {
                        entry: number,
                        field,
                    },
                );
            }
            let block = match read_block(data, start, entry.block_bytes.get())? {
                Ok(block) => block,
                Err(error) => {
                    self.report(
                        data,
                        Some(start),
                        Problem::Block {
                            block: number,
                            error,
                        },
                    );
                    end = start.saturating_add(u64::from(entry.block_bytes.get()));
                    continue;
                }
            };
            end = start.saturating_add(block.len() as u64);
            if let Ok((header, _)) = BlockHeader::ref_from_prefix(&block) {
                for field in contradictions(entry, header, offset) {
                    self.report(
                        index,
                        Some(place),
                        Problem::Entry {
                            entry: number,
                            field,
                        },
                    );
                }
            }
            if self.deep {
                samples.clear();
                match self.decoder.decode(&block, &mut samples) {
                    Ok(_) => {
                        if !extremes_hold(entry, &block, &samples) {
                            let field = "extremes";
                            let problem = Problem::Entry {
                                entry: number,
                                field,
                            };
                            self.report(index, Some(place), problem);
                        }
                    }
                    // Whether it can be read is a matter of the password.
                    Err(BlockError::Encrypted { .. }) => {}
                    Err(error) => {
                        self.report(
                            data,
                            Some(start),
                            Problem::Block {
                                block: number,
                                error,
                            },
                        );
                    }
                }
            }
        }
        self.entry_counts(chunks.len(), &[index, data])?;
        if !rest.is_empty() {
            let place = (entries.len() - rest.len() + HEADER_BYTES) as u64;
            self.report(index, Some(place), Problem::Trailing(rest.len() as u64));
        }
        let size = data.size()?;
        if end < size && !is_growing(data) {
            self.report(data, Some(end), Problem::Unindexed(size - end));
        }
        Ok(())
    }

    /// Checks the number of entries that headers declare; negative is unknown.
    fn entry_counts(&mut self, entries: usize, files: &[&StoredFile]) -> io::Result<()> {
        for file in files {
            let mut bytes = [0; HEADER_BYTES];
            file.read_at(&mut bytes, 0)?;
            let Ok(header) = UniversalHeader::ref_from_bytes(&bytes) else {
                continue;
            };
            let (declared, found) = (header.number_of_entries.get(), entries as i64);
            let stale = declared < found && is_growing(file);
            if declared >= 0 && declared != found && !stale {
                let what = "entries";
                let problem = Problem::Count {
                    what,
                    declared,
                    found,
                };
                self.report(file, Some(32), problem);
            }
        }
        Ok(())
    }

    fn declarations(&mut self, segment: &Segment, metadata: &StoredFile) {
        if segment.acquisition.scale().is_none() {
            let factor = segment.acquisition.units_conversion_factor;
            self.report(metadata, None, Problem::ConversionFactor(factor));
        }
        if is_growing(metadata) {
            return;
        }
        let declared = &segment.acquisition;
        let samples = i64::try_from(segment.index.total_samples()).unwrap_or(i64::MAX);
        let counts = [
            ("samples", declared.declared_samples, samples),
            (
                "blocks",
                declared.declared_blocks,
                segment.index.len() as i64,
            ),
        ];
        for (what, declared, found) in counts {
            // Some writers leave zero where they know nothing.
            let declared = declared.filter(|&declared| declared != 0);
            if let Some(declared) = declared.filter(|&declared| declared != found) {
                let problem = Problem::Count {
                    what,
                    declared,
                    found,
                };
                self.report(metadata, None, problem);
            }
        }
    }

    /// Checks that the headers' times span the blocks.
    fn spans(&mut self, channel: &Channel, segment: &Segment, files: &[&StoredFile]) {
        let offset = segment.recording_time_offset.unwrap_or(0);
        let sample = duration_us(1, channel.sampling_frequency).max(1);
        let (Some(first), Some(last)) = (segment.index.start_uutc(), segment.index.end_uutc())
        else {
            return;
        };
        for file in files {
            let Ok(bytes) = file.read(0, HEADER_BYTES as u64) else {
                continue;
            };
            let Ok(header) = UniversalHeader::ref_from_bytes(&bytes) else {
                continue;
            };
            let start = time::absolute(header.start_time.get(), offset);
            let end = time::absolute(header.end_time.get(), offset);
            if start.is_some_and(|start| start > first.saturating_add(sample)) {
                self.report(
                    file,
                    Some(16),
                    Problem::Time("starts after its first block"),
                );
            }
            let short = end.is_some_and(|end| end < last.saturating_sub(sample));
            if short && !is_growing(file) {
                self.report(file, Some(24), Problem::Time("ends before its last block"));
            }
        }
    }
}

/// The files of the format, by extension.
const FILE_TYPES: [&str; 7] = ["tmet", "tidx", "tdat", "vmet", "vidx", "rdat", "ridx"];

/// A block's bytes, whose checksum is right.
fn read_block(
    data: &StoredFile,
    offset: u64,
    bytes: u32,
) -> io::Result<Result<Vec<u8>, BlockError>> {
    let file_bytes = data.size()?;
    if offset
        .checked_add(u64::from(bytes))
        .is_none_or(|end| end > file_bytes)
    {
        return Ok(Err(BlockError::OutsideFile {
            offset,
            bytes,
            file_bytes,
        }));
    }
    if !(BLOCK_HEADER_BYTES as u32..=MAX_BLOCK_BYTES).contains(&bytes) {
        return Ok(Err(BlockError::Length(bytes)));
    }
    let mut block = vec![0; bytes as usize];
    let filled = data.read_at(&mut block, offset)?;
    block.truncate(filled);
    let Ok((header, _)) = BlockHeader::ref_from_prefix(&block) else {
        return Ok(Err(BlockError::Length(bytes)));
    };
    let (stored, length) = (header.crc.get(), header.block_bytes.get());
    let computed = crc32(block.get(size_of::<u32>()..).unwrap_or_default());
    Ok(if stored != computed {
        Err(BlockError::Crc { stored, computed })
    } else if length != bytes {
        Err(BlockError::IndexMismatch(IndexField::Bytes))
    } else {
        Ok(block)
    })
}

/// What an entry says otherwise than its block.
fn contradictions<'a>(
    entry: &IndexEntry,
    header: &BlockHeader,
    offset: i64,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let absolute = |stored| time::absolute(stored, offset);
    let same_start = absolute(entry.start_time.get()) == absolute(header.start_time.get());
    let same_samples = entry.number_of_samples == header.number_of_samples;
    [
        (same_start, "start time"),
        (same_samples, "number of samples"),
        (entry.block_flags == header.flags, "flags"),
    ]
    .into_iter()
    .filter(|&(same, _)| !same)
    .map(|(_, field)| field)
}

/// Whether the samples of a lossless block lie within the entry's extremes.
fn extremes_hold(entry: &IndexEntry, block: &[u8], samples: &[i32]) -> bool {
    let Ok((header, _)) = BlockHeader::ref_from_prefix(block) else {
        return true;
    };
    let (least, greatest) = (
        entry.minimum_sample_value.get(),
        entry.maximum_sample_value.get(),
    );
    // Lossy samples lie slightly outside (format section 7.1).
    let lossy = header.scale_factor.get() > 1.0
        || header.detrend_slope.get() != 0.0
        || header.detrend_intercept.get() != 0.0;
    let unset = least == NO_EXTREME || greatest == NO_EXTREME;
    let inside = |sample: &i32| *sample == NO_EXTREME || (least..=greatest).contains(sample);
    lossy || unset || samples.iter().all(inside)
}

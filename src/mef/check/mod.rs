//! Verifying a session: everything that its files say twice, or under a
//! checksum (format sections 3, 4, 7, 8, 9 and 14).
//!
//! Reading is lenient where nothing is lost; this is not. What the known writers
//! do differently, and what the format calls informational, is no finding
//! (format section 15).

mod segment;
mod video;

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use thiserror::Error;

use crate::mef::annotations::{RecordQuery, TimeOffset, TimeOffsets};
use crate::mef::crc::{CRC_NOT_COMPUTED, RunningCrc, crc32, crc32_continue};
use crate::mef::error::{BlockError, MefError};
use crate::mef::header::{header_crc_is_right, parse_header, verify_version};
use crate::mef::layout::{
    HEADER_BYTES, INDEX_ENTRY_BYTES, METADATA_BYTES, UniversalHeader, VIDEO_INDEX_ENTRY_BYTES,
};
use crate::mef::recording::Recording;
use crate::mef::records::{RECORD_ENTRY_BYTES, RecordError};
use crate::mef::red::Decoder;
use crate::mef::segment::is_growing;
use crate::mef::session::{OpenOptions, open_session};
use crate::mef::store::{Item, ReadAt, Store, StoredFile};
use crate::mef::time;

/// Bytes that are read at a time for the checksum of a whole file.
const PIECE: u64 = 1 << 20;

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
        /// "header", "body" or "video file".
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
    /// A channel of which nothing is there.
    #[error("channel without a segment")]
    NoSegment,
    /// The units conversion factor is no finite number.
    #[error("units conversion factor {0} is not usable")]
    ConversionFactor(f64),
    /// A span of time that does not hold what it spans.
    #[error("{0}")]
    Time(&'static str),
    /// A clip is not, or not wholly, within the video file.
    #[error("clip {0} is not within the video file")]
    Clip(usize),
    /// A record cannot be read.
    #[error("record: {0}")]
    Record(RecordError),
    /// More is wrong with the records than is listed.
    #[error("{0} more findings about records")]
    FurtherRecords(u64),
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
/// and cannot be what was recorded, and videos are held against their checksums.
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
        offsets: TimeOffsets::of(&recording),
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
    offsets: TimeOffsets,
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
        for channel in &recording.video_channels {
            for segment in &channel.segments {
                if let Err(error) = self.video(channel, segment) {
                    self.unreadable(&error);
                }
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
        if records.further_damage > 0 {
            (self.found)(Finding {
                file: recording.path.clone(),
                offset: None,
                problem: Problem::FurtherRecords(records.further_damage),
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
        let depth = folder.components().count();
        // Videos of some writers are outside of their channel.
        let mut is_empty = folder.extension().is_some_and(|kind| kind == "timd");
        for Item { name, is_folder } in self.store.list(folder)? {
            let path = folder.join(&name);
            let extension = path.extension().and_then(|extension| extension.to_str());
            let Some(extension) = extension else {
                continue;
            };
            // A segment holds no folders: a link back cannot make this endless.
            let descend = match depth {
                0 => ["timd", "vidd"].contains(&extension),
                1 => extension == "segd",
                _ => false,
            };
            // A channel may have been annotated before there were data.
            is_empty &= !descend && !FILE_TYPES.contains(&extension);
            if is_folder && descend {
                self.folder(&path)?;
            } else if !is_folder && FILE_TYPES.contains(&extension) {
                let extension = extension.to_owned();
                if let Err(error) = self.file(&path, &extension) {
                    self.unreadable(&error);
                }
            }
        }
        if is_empty {
            (self.found)(Finding {
                file: self.recording.path.join(folder),
                offset: None,
                problem: Problem::NoSegment,
            });
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
        if let Err(error) = verify_version(header, file.path()) {
            self.report(&file, Some(13), error.into());
        }
        let (start, end) = (header.start_time.get(), header.end_time.get());
        let span = both_absolute(start, end, self.offset_of(name).known());
        if span.is_some_and(|(start, end)| start > end) {
            let problem = Problem::Time("starts after it ends");
            self.report(&file, Some(16), problem);
        }
        let entry_bytes = match extension {
            "ridx" => Some(RECORD_ENTRY_BYTES),
            "vidx" => Some(VIDEO_INDEX_ENTRY_BYTES),
            // Those of blocks are counted with the blocks.
            _ => None,
        };
        if let Some(entry_bytes) = entry_bytes {
            let counted = self.count_entries(&file, entry_bytes as u64);
            counted.map_err(|error| file.error(&error))?;
        }
        self.body(&file, header, extension)
    }

    /// Checks that an index has as many whole entries as its header declares.
    fn count_entries(&mut self, file: &StoredFile, entry_bytes: u64) -> io::Result<()> {
        let size = file.size()?;
        let body = size.saturating_sub(HEADER_BYTES as u64);
        let (entries, rest) = (body / entry_bytes, body % entry_bytes);
        self.entry_counts(usize::try_from(entries).unwrap_or(usize::MAX), &[file])?;
        if rest > 0 && !is_growing(file) {
            self.report(file, Some(size - rest), Problem::Trailing(rest));
        }
        Ok(())
    }

    /// What the times in a file's header are relative to.
    fn offset_of(&self, name: &Path) -> TimeOffset {
        let mut folders = name.parent().into_iter().flat_map(Path::components);
        let mut folder = || {
            folders
                .next()
                .and_then(|folder| folder.as_os_str().to_str())
        };
        match (folder(), folder()) {
            (None, _) => self.offsets.of_session(),
            (Some(channel), None) => self.offsets.of_channel(channel),
            (Some(channel), Some(segment)) => {
                let stem = segment.strip_suffix(".segd").unwrap_or(segment);
                self.offsets.of_segment(channel, stem)
            }
        }
    }

    /// Whether the index beside a file has more entries than the file's header
    /// knows of, and the file was written to a moment ago.
    fn has_grown(
        &self,
        file: &StoredFile,
        header: &UniversalHeader,
        index: &str,
        entry_bytes: usize,
    ) -> bool {
        let name = file.path().with_extension(index);
        let name = name.strip_prefix(self.store.path("")).unwrap_or(&name);
        let size = self.store.file(name).and_then(|index| {
            let size = index.size();
            size.map_err(|error| index.error(&error))
        });
        let body = size.unwrap_or(0).saturating_sub(HEADER_BYTES as u64);
        let entries = i64::try_from(body / entry_bytes as u64).unwrap_or(i64::MAX);
        is_growing(file) && header.number_of_entries.get() < entries
    }

    fn body(
        &mut self,
        file: &StoredFile,
        header: &UniversalHeader,
        extension: &str,
    ) -> Result<(), MefError> {
        let stored = header.body_crc.get();
        // A file that grows has that of an earlier state.
        let (index, entry_bytes) = match extension {
            "rdat" | "ridx" => ("ridx", RECORD_ENTRY_BYTES),
            _ => ("tidx", INDEX_ENTRY_BYTES),
        };
        if stored == CRC_NOT_COMPUTED || self.has_grown(file, header, index, entry_bytes) {
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
}

/// Two stored times as absolute ones, if they can be compared: where the offset is not
/// known, not one that is relative to it with one that is not.
fn both_absolute(one: i64, other: i64, offset: Option<i64>) -> Option<(i64, i64)> {
    if offset.is_none() && time::is_relative(one) != time::is_relative(other) {
        return None;
    }
    let absolute = |stored| time::absolute(stored, offset.unwrap_or(0));
    absolute(one).zip(absolute(other))
}

/// The files of the format, by extension.
const FILE_TYPES: [&str; 7] = ["tmet", "tidx", "tdat", "vmet", "vidx", "rdat", "ridx"];

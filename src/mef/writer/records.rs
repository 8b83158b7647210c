//! Writes records: creates a pair of record files, or appends to one
//! (format sections 9, 13.1 and 16).
//!
//! An append goes in the order of format section 13.1: records, their index
//! entries, the header of the index, the header of the data. A reader that comes
//! between two of these steps finds all earlier records, and after a crash of the
//! process so does the next writer. The writer does not wait for the disk.

mod existing;

use std::path::{Path, PathBuf};

use fastrand::Rng;
use thiserror::Error;
use zerocopy::IntoBytes;
use zerocopy::little_endian::I64;

use super::WriteError;
use super::file::{GrowingFile, include_times};
use super::template::uuid;
use crate::mef::crypto::Keys;
use crate::mef::layout::{HEADER_BYTES, UniversalHeader};
use crate::mef::records::{
    EncodedRecord, NewRecord, RECORD_ENTRY_BYTES, RecordEntry, RecordError, encode_record,
};
use crate::mef::time::NO_TIME;

/// Why a pair of record files takes no records.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum RecordFileFault {
    /// Records of a session with passwords are encrypted, and others are not.
    #[error("the file says that there are {}passwords, unlike the session", if *.protected { "" } else { "no " })]
    Protection {
        /// The file's header holds the marks of passwords.
        protected: bool,
    },
    /// The index has entries that are not those of records.
    #[error("index does not fit the data file{}", reason(.0.as_ref()))]
    Index(Option<RecordError>),
    /// The record that is last by the index is damaged.
    #[error("last record is damaged: {0}")]
    LastRecord(RecordError),
    /// Behind the last record of the index is something that may be records.
    #[error("bytes from offset {offset} on may be records that the index does not have")]
    Tail {
        /// Byte offset in the data file.
        offset: u64,
    },
    /// The header declares more records than can be found.
    #[error("header declares {declared} records, {found} can be found")]
    Missing {
        /// Number of records by the header.
        declared: u64,
        /// Number of records by the index, and whole ones behind them.
        found: u64,
    },
}

fn reason(error: Option<&RecordError>) -> String {
    error.map(|error| format!(": {error}")).unwrap_or_default()
}

/// The files of a pair.
#[derive(Clone, Copy)]
enum FileKind {
    Data,
    Index,
}

impl FileKind {
    fn extension(self) -> &'static str {
        match self {
            Self::Data => "rdat",
            Self::Index => "ridx",
        }
    }

    fn path(self, folder: &Path, stem: &str) -> PathBuf {
        // Not `with_extension`: a stem may have dots.
        folder.join(format!("{stem}.{}", self.extension()))
    }

    /// The header of a new file; count and CRCs are missing.
    fn header(self, template: &UniversalHeader, rng: &mut Rng) -> UniversalHeader {
        let mut header = template.clone();
        header.file_type = *match self {
            Self::Data => b"rdat\0",
            Self::Index => b"ridx\0",
        };
        (header.version_major, header.version_minor) = (3, 0);
        header.byte_order = 1;
        header.start_time = I64::new(NO_TIME);
        header.end_time = I64::new(NO_TIME);
        header.maximum_entry_size = I64::new(match self {
            Self::Data => 0,
            Self::Index => RECORD_ENTRY_BYTES as i64,
        });
        header.file_uuid = uuid(rng);
        header.provenance_uuid = header.file_uuid;
        header.protected_region = [0; 60];
        header.discretionary_region = [0; 64];
        header
    }

    /// Creates a file that has these entries from the first moment on.
    fn create(
        self,
        path: PathBuf,
        template: &UniversalHeader,
        entries: &[RecordEntry],
        recording_time_offset: i64,
        rng: &mut Rng,
    ) -> Result<GrowingFile, WriteError> {
        let mut header = self.header(template, rng);
        include_times(&mut header, times_of(entries), recording_time_offset);
        GrowingFile::create(path, header, entries.len() as u64, entries.as_bytes())
    }
}

fn times_of(entries: &[RecordEntry]) -> impl Iterator<Item = I64> {
    entries.iter().map(|entry| entry.time)
}

fn record_fault(path: &Path, fault: RecordFileFault) -> WriteError {
    WriteError::RecordFile {
        path: path.into(),
        fault,
    }
}

/// A pair of record files that takes records.
///
/// No other writer can have it open at the same time: the data file is locked,
/// which other programs do not look at. Nothing is ever truncated.
pub struct RecordWriter {
    data: GrowingFile,
    index: GrowingFile,
    keys: Option<Keys>,
    recording_time_offset: i64,
    /// Number of entries that the index has.
    indexed: u64,
    /// Whole records behind those of the index, which get their entries with the
    /// next append.
    adopted: Vec<RecordEntry>,
    /// Byte offset just behind the last whole record. What the data file has
    /// behind it is torn.
    end: u64,
    unusable: bool,
}

impl RecordWriter {
    /// Creates `STEM.rdat` and `STEM.ridx` in a folder, without records.
    ///
    /// Names, level UUID, segment number and the marks of the passwords are the
    /// template's. With keys, which must be given if and only if the template
    /// has these marks, bodies are encrypted at level 2.
    ///
    /// # Errors
    /// [`WriteError::Exists`] where one of the files exists,
    /// [`WriteError::RecordFile`] for keys that do not fit the template, and
    /// [`WriteError::Io`].
    pub(crate) fn create(
        folder: &Path,
        stem: &str,
        template: &UniversalHeader,
        keys: Option<Keys>,
        recording_time_offset: i64,
        rng: &mut Rng,
    ) -> Result<Self, WriteError> {
        let [data_path, index_path] =
            [FileKind::Data, FileKind::Index].map(|kind| kind.path(folder, stem));
        for path in [&data_path, &index_path] {
            if path.symlink_metadata().is_ok() {
                return Err(WriteError::Exists { path: path.clone() });
            }
        }
        existing::check_protection(&data_path, template, keys.as_ref())?;
        // Data without an index are readable; an index without data is a riddle.
        let data = FileKind::Data.create(data_path, template, &[], 0, rng)?;
        data.lock()?;
        let index = FileKind::Index.create(index_path, template, &[], 0, rng)?;
        Ok(Self {
            data,
            index,
            keys,
            recording_time_offset,
            indexed: 0,
            adopted: Vec::new(),
            end: HEADER_BYTES as u64,
            unusable: false,
        })
    }

    /// Opens the existing `STEM.rdat` and `STEM.ridx` of a folder, to append.
    ///
    /// A crash may have left bytes behind the last record of the index. Whole
    /// records with a right CRC among them are adopted: they get their entries
    /// with the next append. What is then left is overwritten by it only if it
    /// cannot be a record, that is, if it is cut off by the end of the file or
    /// begins with zeros, and if the header does not count it. In all other
    /// cases, and where the index or the last record is damaged, the files are
    /// refused, since an append could destroy records. An index that is missing
    /// is made anew, here and now, if all bytes of the data file are whole
    /// records.
    ///
    /// # Errors
    /// [`WriteError::RecordFile`] for files that cannot be extended safely,
    /// [`WriteError::Unreadable`] for a header that breaks the format, and
    /// [`WriteError::Io`].
    pub(crate) fn open(
        folder: &Path,
        stem: &str,
        keys: Option<Keys>,
        recording_time_offset: i64,
        rng: &mut Rng,
    ) -> Result<Self, WriteError> {
        existing::open(folder, stem, keys, recording_time_offset, rng)
    }

    /// Appends records in the given order, which need not be that of their
    /// times.
    ///
    /// # Errors
    /// [`WriteError::Record`] for a record that cannot be stored: then none of
    /// them was written. After [`WriteError::Io`] and [`WriteError::RecordFile`]
    /// the writer takes no more records.
    pub fn append(&mut self, records: &[NewRecord]) -> Result<(), WriteError> {
        if self.unusable {
            return Err(WriteError::Unusable);
        }
        let (bytes, mut entries) = self.encode(records)?;
        if entries.is_empty() && self.adopted.is_empty() {
            return Ok(());
        }
        // Until the last header is written.
        self.unusable = true;
        self.data.check_unchanged()?;
        self.index.check_unchanged()?;
        self.data.extend(self.end, &bytes)?;
        self.end += bytes.len() as u64;
        entries.splice(0..0, self.adopted.drain(..));
        let place = HEADER_BYTES as u64 + self.indexed * RECORD_ENTRY_BYTES as u64;
        self.index.extend(place, entries.as_bytes())?;
        self.indexed += entries.len() as u64;
        for file in [&mut self.index, &mut self.data] {
            file.include_times(times_of(&entries), self.recording_time_offset);
            file.write_header(self.indexed)?;
        }
        self.unusable = false;
        Ok(())
    }

    /// All records one after another, and their entries.
    fn encode(&mut self, records: &[NewRecord]) -> Result<(Vec<u8>, Vec<RecordEntry>), WriteError> {
        let (mut bytes, mut entries) = (Vec::new(), Vec::with_capacity(records.len()));
        let mut longest = 0;
        for (position, record) in records.iter().enumerate() {
            let place = self.end + bytes.len() as u64;
            let (keys, offset) = (self.keys.as_ref(), self.recording_time_offset);
            let encoded = encode_record(record, keys, offset, place);
            let EncodedRecord {
                bytes: record,
                entry,
            } = encoded.map_err(|reason| WriteError::Record { position, reason })?;
            longest = longest.max(record.len());
            bytes.extend_from_slice(&record);
            entries.push(entry);
        }
        self.data.include_size(longest as u64);
        Ok((bytes, entries))
    }
}

#[cfg(test)]
mod tests;

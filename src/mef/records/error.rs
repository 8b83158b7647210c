//! Why a record cannot be read, or not be written.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::RecordType;
use super::load::MAX_BODY_BYTES;
use crate::mef::error::Malformation;
use crate::mef::path_bytes;

/// Why a record, or what a file says of its records, cannot be believed
/// (format sections 9 and 14).
#[derive(Clone, Debug, PartialEq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RecordError {
    /// The file's bytes could not be read.
    #[error("record cannot be read: {0}")]
    Io(String),
    /// The CRC over the record does not match the stored one.
    #[error("CRC mismatch: stored {stored:08X}, computed {computed:08X}")]
    Crc {
        /// As stored.
        stored: u32,
        /// Over the bytes.
        computed: u32,
    },
    /// The record has no CRC, and stands behind a damaged one or where the index has
    /// another: nothing shows that it is one.
    #[error("record has no CRC, and nothing else vouches for it")]
    Unverified,
    /// The file ends within the record's header.
    #[error("file ends {have} bytes into the record's header")]
    HeaderCutShort {
        /// Bytes of the header that are there.
        have: u64,
    },
    /// The body would reach beyond the end of the file.
    #[error("body of {bytes} bytes is beyond the file, which has {available} left")]
    OutsideFile {
        /// Length of the body by its header.
        bytes: u32,
        /// Bytes of the file behind the header.
        available: u64,
    },
    /// The record's type is empty, and yet there are records to come.
    #[error("record has no type")]
    NoType,
    /// A body that is longer than this implementation reads.
    #[error("body of {0} bytes is longer than the limit of {MAX_BODY_BYTES}")]
    TooLong(u32),
    /// The encryption level is none of the defined values.
    #[error("encryption level {0} is not defined")]
    EncryptionLevel(i8),
    /// An entry of the index points outside the data file.
    #[error("index entry points to offset {offset} of a file of {file_bytes} bytes")]
    IndexOffset {
        /// Byte offset of the record by the index.
        offset: i64,
        /// Length of the data file.
        file_bytes: u64,
    },
    /// The index has a record that does not stand in the data file.
    #[error(
        "index has a record of type {kind} at offset {offset} of the data, where there is none"
    )]
    IndexOnly {
        /// The record's type by the index.
        kind: RecordType,
        /// Byte offset of the record in the data file by the index.
        offset: u64,
    },
    /// The times of the file's records are relative to an offset that stands in
    /// metadata which cannot be read, or which contradict each other.
    #[error(
        "times of the records are unresolved: metadata cannot be read, or differ in the recording time offset"
    )]
    UnresolvedTimes,
    /// The file holds fewer records than its header declares.
    #[error("file holds {found} records, its header declares {declared}")]
    Missing {
        /// Number of records by the header.
        declared: u64,
        /// Number of records that are there, damaged ones included.
        found: u64,
    },
    /// The header of the data or index file breaks the format.
    #[error("file header: {0}")]
    FileHeader(Malformation),
    /// Records that overlap each other over and over; the rest is not read.
    #[error("too many overlapping records, the rest of the file is not read")]
    Overlaps,
    /// Several record files might be the session's, and none has its name.
    #[error("{0} files could hold the session's records, none of them under its name")]
    Ambiguous(usize),
    /// Another record stands where this one was found.
    #[error("record was changed after it was found")]
    Changed,
}

/// A record that is lost, or a finding about a whole record file.
#[derive(Clone, Debug, PartialEq, Error, Serialize, Deserialize)]
#[error("{}: record at offset {file_offset}: {error}", file.display())]
pub struct DamagedRecord {
    /// The data file, or the index file where its entry is at fault.
    #[serde(with = "path_bytes")]
    pub file: PathBuf,
    /// Byte offset of the record or entry in that file; 0 for the file's header.
    pub file_offset: u64,
    /// What is wrong.
    pub error: RecordError,
}

/// Why a record cannot be written.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum RecordRefusal {
    /// The type is empty, or the body is that of another type or version.
    #[error("type or version does not fit the body")]
    Kind,
    /// A locked body cannot be written.
    #[error("body is locked")]
    Locked,
    /// A text that does not fit its field, or that holds a NUL.
    #[error("{field} has a NUL or is longer than {limit} bytes")]
    Text {
        /// The field of the body.
        field: &'static str,
        /// Most bytes of UTF-8 that the field holds.
        limit: usize,
    },
    /// Before 1970, or not after the recording's time offset.
    #[error("time {0} us cannot be stored")]
    Time(i64),
    /// A body that is longer than readers take.
    #[error("body of {0} bytes is longer than the limit of {MAX_BODY_BYTES}")]
    TooLong(usize),
    /// The keys at hand lack that of level 2.
    #[error("the key of level 2 is not at hand")]
    NoKey,
}

//! What can be wrong with a session, as values that a caller can act on.
//!
//! Every error names the file at fault. The types are serialisable, because the
//! process that reads a file is not the process that answers for it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::path_bytes;

/// A session, or a file of one, that cannot be read.
#[derive(Clone, Debug, PartialEq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MefError {
    /// Nothing stands at the path.
    #[error("{}: no such file or directory", path.display())]
    NotFound {
        /// The path as it was asked for.
        #[serde(with = "path_bytes")]
        path: PathBuf,
    },
    /// The path exists and is not a MEF 3.0 session.
    #[error("{}: {reason}", path.display())]
    NotASession {
        /// The path as it was asked for.
        #[serde(with = "path_bytes")]
        path: PathBuf,
        /// What a session would have and this has not.
        reason: String,
    },
    /// No channel of the session has this name.
    #[error("{}: no channel {channel:?}, the session has {}", session.display(), listed(known))]
    UnknownChannel {
        /// The session.
        #[serde(with = "path_bytes")]
        session: PathBuf,
        /// The name as it was asked for.
        channel: Box<str>,
        /// The channels that there are.
        known: Box<[String]>,
    },
    /// The operating system refused.
    #[error("{}: {message}", path.display())]
    Io {
        /// The file or folder of the failed call.
        #[serde(with = "path_bytes")]
        path: PathBuf,
        /// The system's own words.
        message: String,
        /// `errno`, where there is one.
        os_error: Option<i32>,
    },
    /// The metadata are encrypted and cannot be read without a password.
    #[error("{}: tmet is encrypted and the password is missing or incorrect", file.display())]
    Encrypted {
        /// The metadata file.
        #[serde(with = "path_bytes")]
        file: PathBuf,
    },
    /// The password is none of the session's.
    #[error("{}: the password is incorrect", file.display())]
    WrongPassword {
        /// The metadata file that it was tried on.
        #[serde(with = "path_bytes")]
        file: PathBuf,
    },
    /// The path, or a link on it, leads to where files may not be read.
    #[error("{}: outside of the data roots", path.display())]
    OutsideRoots {
        /// The path.
        #[serde(with = "path_bytes")]
        path: PathBuf,
    },
    /// The file breaks the format.
    #[error("{}: {reason}", file.display())]
    Malformed {
        /// The file at fault.
        #[serde(with = "path_bytes")]
        file: PathBuf,
        /// The rule it breaks.
        reason: Malformation,
    },
    /// The file is not the one that was read when the session was opened.
    #[error("{}: replaced or truncated after the session was opened", file.display())]
    Changed {
        /// The file at fault.
        #[serde(with = "path_bytes")]
        file: PathBuf,
    },
}

impl MefError {
    /// Wraps an operating-system error with the path it concerns.
    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            return Self::NotFound { path: path.into() };
        }
        // Files are only read: nothing else crosses a border.
        if error.kind() == io::ErrorKind::CrossesDevices {
            return Self::OutsideRoots { path: path.into() };
        }
        Self::Io {
            path: path.into(),
            message: error.to_string(),
            os_error: error.raw_os_error(),
        }
    }

    /// The file or folder at fault.
    pub fn file(&self) -> &Path {
        match self {
            Self::NotFound { path }
            | Self::OutsideRoots { path }
            | Self::NotASession { path, .. }
            | Self::Io { path, .. } => path,
            Self::UnknownChannel { session, .. } => session,
            Self::Encrypted { file }
            | Self::WrongPassword { file }
            | Self::Malformed { file, .. }
            | Self::Changed { file } => file,
        }
    }

    /// Whether the right password would help.
    pub fn is_about_password(&self) -> bool {
        matches!(self, Self::Encrypted { .. } | Self::WrongPassword { .. })
    }

    pub(crate) fn malformed(file: &Path, reason: Malformation) -> Self {
        Self::Malformed {
            file: file.into(),
            reason,
        }
    }
}

/// Names in a sentence.
fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "no channel".into();
    }
    names.join(", ")
}

/// A rule of the format that a metadata or index file breaks
/// (format sections 3, 6 and 14).
#[derive(Clone, Debug, PartialEq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Malformation {
    /// Shorter than the fixed part of its kind.
    #[error("file is {have} bytes long, at least {need} are needed")]
    TooShort {
        /// Bytes that the format demands.
        need: u64,
        /// Bytes that are there.
        have: u64,
    },
    /// An index that is longer than its data could fill, padding included, or than
    /// a clip table may be.
    #[error("index is {have} bytes long, {most} are possible")]
    IndexTooLong {
        /// Bytes that are there.
        have: u64,
        /// Most bytes that it may have.
        most: u64,
    },
    /// The header's type string is not that of the extension.
    #[error("header says file type {found:?}, expected {expected:?}")]
    FileType {
        /// The type that the extension stands for.
        expected: String,
        /// The type in the header.
        found: String,
    },
    /// Big-endian or unknown byte order.
    #[error("byte order {0} is not supported, only little-endian (1)")]
    ByteOrder(u8),
    /// A major version other than 3: such a file is read as if it were, and never
    /// written to.
    #[error("MEF version {0} is not known, only 3")]
    Version(u8),
    /// The header's CRC does not match its bytes.
    #[error("header CRC mismatch: stored {stored:08X}, computed {computed:08X}")]
    HeaderCrc {
        /// As stored.
        stored: u32,
        /// Over the bytes.
        computed: u32,
    },
    /// The body's CRC does not match its bytes.
    #[error("body CRC mismatch: stored {stored:08X}, computed {computed:08X}")]
    BodyCrc {
        /// As stored.
        stored: u32,
        /// Over the bytes.
        computed: u32,
    },
    /// A section's encryption level is none of the defined values.
    #[error("section {section} has the undefined encryption level {level}")]
    EncryptionLevel {
        /// 2 or 3.
        section: u8,
        /// The value found.
        level: i8,
    },
    /// The sampling frequency is not a finite positive number, or so low that the
    /// length of a block is no 64-bit time.
    #[error("sampling frequency {0} Hz is not usable")]
    SamplingFrequency(f64),
    /// Segments of one channel have different rates, so that it has no grid.
    #[error("sampling frequency changes from {0} Hz to {1} Hz within the channel")]
    RateChanges(f64, f64),
    /// The file belongs to another segment than the metadata beside it.
    #[error("file belongs to another segment: its level UUID is not that of the metadata")]
    OtherSegment,
    /// The data file holds something between two blocks that the index does not
    /// know and that is no block.
    #[error("{bytes} bytes at offset {offset} are in no block of the index")]
    UnknownBytes {
        /// Where they begin.
        offset: u64,
        /// How many there are.
        bytes: u64,
    },
    /// Neither headers nor index hold a time.
    #[error("no time in any header or index entry")]
    NoTime,
    /// A folder, FIFO or device under a file's name.
    #[error("not a regular file")]
    NotAFile,
    /// A name that is not valid Unicode.
    #[error("name is not valid UTF-8")]
    Name,
    /// A session archive that cannot be read in place.
    #[error(transparent)]
    Archive(Box<ArchiveError>),
}

impl From<ArchiveError> for Malformation {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(Box::new(error))
    }
}

/// Why a session archive cannot be read in place (format section 1.1).
///
/// Names of members are shown with invalid UTF-8 replaced, and cut where they
/// are very long.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The archive was compressed as a whole.
    #[error("archive is compressed with {0}; only a plain tar can be read in place")]
    Compressed(String),
    /// The first block is no tar header of the `ustar` family.
    #[error("not a tar archive with ustar headers")]
    NotTar,
    /// Where a header is due there is something else.
    #[error("no tar header with a valid checksum at byte {offset}")]
    Header {
        /// Place of the header from the start of the archive.
        offset: u64,
    },
    /// The size field is negative, no number, or beyond 64 bits.
    #[error("archive member {member:?} has an impossible size")]
    Size {
        /// The member's name as stored.
        member: String,
    },
    /// The member's bytes go on after the archive has ended.
    #[error(
        "archive is truncated: member {member:?} ends at byte {end}, and the archive at {archive_bytes}"
    )]
    Truncated {
        /// The member's name as stored.
        member: String,
        /// Bytes that the archive would have to this member's end.
        end: u64,
        /// Length of the archive in bytes.
        archive_bytes: u64,
    },
    /// The block of zeros is missing that ends an archive: members may be missing,
    /// too.
    #[error("archive is truncated: it ends after {archive_bytes} bytes without an end mark")]
    NoEnd {
        /// Length of the archive in bytes.
        archive_bytes: u64,
    },
    /// A name with a `..` component or a NUL, or a very long one.
    #[error("archive member {member:?} has a name that no file of a session can have")]
    MemberName {
        /// The member's name as stored.
        member: String,
    },
    /// The member's holes were left out, so that its bytes are not contiguous.
    #[error("archive member {member:?} is stored as a sparse file and cannot be read in place")]
    Sparse {
        /// The member's name as stored.
        member: String,
    },
    /// An extended header whose records contradict themselves.
    #[error("extended header at byte {offset} holds a malformed record")]
    ExtendedHeader {
        /// Place of its first record from the start of the archive.
        offset: u64,
    },
    /// An extended header or long name beyond what this implementation reads.
    #[error("extended header at byte {offset} has {bytes} bytes, more than the limit of {limit}", limit = super::store::MAX_EXTENSION_BYTES)]
    ExtendedHeaderTooLong {
        /// Place of its first byte from the start of the archive.
        offset: u64,
        /// Its length in bytes.
        bytes: u64,
    },
    /// More headers than this implementation keeps.
    #[error("archive has more than {limit} headers")]
    TooManyMembers {
        /// The most headers that are read.
        limit: u64,
    },
}

/// Why one block of samples cannot be decoded (format sections 8 and 14).
#[derive(Clone, Debug, PartialEq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BlockError {
    /// The index points outside the data file.
    #[error("block lies outside its file (offset {offset}, {bytes} bytes, file {file_bytes})")]
    OutsideFile {
        /// Byte offset in the data file, by the index.
        offset: u64,
        /// Block length in bytes, by the index.
        bytes: u32,
        /// Length of the data file in bytes.
        file_bytes: u64,
    },
    /// The block's bytes could not be read.
    #[error("block cannot be read: {0}")]
    Io(String),
    /// There is not enough memory for the block.
    #[error("block of {bytes} bytes, {samples} samples, does not fit into memory")]
    Memory {
        /// Its length in bytes.
        bytes: u64,
        /// Its samples.
        samples: u32,
    },
    /// The CRC over the block does not match the stored one.
    #[error("CRC mismatch: stored {stored:08X}, computed {computed:08X}")]
    Crc {
        /// As stored.
        stored: u32,
        /// Over the bytes.
        computed: u32,
    },
    /// Index and block header contradict each other.
    #[error("index and block header disagree on the {0}")]
    IndexMismatch(IndexField),
    /// The header's length field does not fit the bytes at hand.
    #[error("block length {0} is impossible")]
    Length(u32),
    /// More samples than this implementation decodes in one block.
    #[error("{0} samples in one block are more than the limit of {limit}", limit = super::red::MAX_BLOCK_SAMPLES)]
    TooManySamples(u32),
    /// `difference_bytes` cannot belong to the number of samples.
    #[error("difference stream of {difference_bytes} bytes cannot hold {samples} samples")]
    DifferenceBytes {
        /// As stored.
        difference_bytes: u32,
        /// As stored.
        samples: u32,
    },
    /// The statistics table is empty.
    #[error("statistics table is empty")]
    Statistics,
    /// The stream ended before all samples were rebuilt.
    #[error("difference stream ends before the last sample")]
    StreamEnd,
    /// Scale, slope or intercept is not a finite number.
    #[error("scale or trend is not a finite number")]
    NotFinite,
    /// The block's statistics are encrypted, and the password for them was not
    /// given.
    #[error("block is encrypted, and the level-{level} password was not given")]
    Encrypted {
        /// 1 or 2.
        level: i8,
    },
}

impl BlockError {
    /// Whether the block may read well the next time, though nobody has written to
    /// its file's known bytes.
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::OutsideFile { .. } | Self::Io(_) | Self::Memory { .. }
        )
    }
}

/// A fact that stands in the index and in the block header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
pub enum IndexField {
    /// Time of the first sample.
    #[error("start time")]
    StartTime,
    /// Number of samples.
    #[error("number of samples")]
    Samples,
    /// Length in bytes.
    #[error("block length")]
    Bytes,
}

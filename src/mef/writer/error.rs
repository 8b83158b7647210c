//! Why a session cannot be written.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::RecordFileFault;
use crate::mef::error::MefError;
use crate::mef::records::RecordRefusal;
use crate::mef::red::EncodeError;

/// A session, a channel or a run of samples that cannot be written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A session or channel stands there already; nothing is overwritten.
    #[error("{}: already exists", path.display())]
    Exists {
        /// The folder that was to be created.
        path: PathBuf,
    },
    /// The operating system refused. The channel takes no more samples.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder of the failed call.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A session path must end in `NAME.mefd`.
    #[error("{}: a session's folder is named NAME.mefd", path.display())]
    SessionPath {
        /// The path as it was given.
        path: PathBuf,
    },
    /// A session or channel name that the format or a file system cannot hold.
    #[error("name {name:?} {reason}")]
    Name {
        /// The name as it was given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A password that not all readers could use. It is not shown.
    #[error("the password of level {level} {reason}")]
    Password {
        /// 1 or 2.
        level: u8,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Metadata that have to be written anew are encrypted, and the password does
    /// not open all of them.
    #[error("{}: writing needs the level-2 password", path.display())]
    Locked {
        /// The metadata file.
        path: PathBuf,
    },
    /// Another program is renaming the session, or died while it did.
    #[error("{}: an operation on the session is unfinished", path.display())]
    Unfinished {
        /// The file that marks it.
        path: PathBuf,
    },
    /// There is no such channel, or no segment of it that new ones could be like.
    #[error("{}: no segment to go on after", path.display())]
    NothingToContinue {
        /// The channel's folder.
        path: PathBuf,
    },
    /// A text that does not fit its field, or that holds a NUL.
    #[error("{field} has a NUL or is longer than {limit} bytes")]
    Text {
        /// The field of the metadata.
        field: &'static str,
        /// Most bytes of UTF-8 that the field holds.
        limit: usize,
    },
    /// The sampling frequency must be a finite positive number.
    #[error("sampling frequency {0} Hz is not usable")]
    SamplingFrequency(f64),
    /// The conversion factor must be finite and not zero.
    #[error("units conversion factor {0} is not usable")]
    ConversionFactor(f64),
    /// Out of one sample to [`MAX_BLOCK_SAMPLES`](crate::mef::red::MAX_BLOCK_SAMPLES).
    #[error("{0} samples per block are not possible")]
    BlockSamples(u32),
    /// Before 1970, or so late that the end of the run is no 64-bit time.
    #[error("time {0} us cannot be stored")]
    StartTime(i64),
    /// The run starts before the channel's data end.
    #[error("run starts at {start} us, before the data end at {end} us")]
    Overlap {
        /// Start of the refused run, absolute uUTC.
        start: i64,
        /// End of the data written so far, absolute uUTC.
        end: i64,
    },
    /// Segment numbers have six digits.
    #[error("a channel cannot have more than 1000000 segments")]
    TooManySegments,
    /// Another writer holds the file.
    #[error("{}: another writer has the file open", path.display())]
    Busy {
        /// The locked file.
        path: PathBuf,
    },
    /// Somebody else wrote to the file, or replaced or removed it.
    #[error("{}: was changed by somebody else", path.display())]
    Changed {
        /// The file that this writer had open.
        path: PathBuf,
    },
    /// An earlier call failed while it wrote; opening the files anew makes sure of
    /// what they hold.
    #[error("unusable after an earlier write error")]
    Unusable,
    /// A record that cannot be stored. None of those given with it was written.
    #[error("record {position}: {reason}")]
    Record {
        /// Position of the record among those that were given.
        position: usize,
        /// What is wrong with it.
        reason: RecordRefusal,
    },
    /// A pair of record files that takes no records.
    #[error("{}: {fault}", path.display())]
    RecordFile {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong.
        fault: RecordFileFault,
    },
    /// A segment of the channel cannot be read, so that nobody knows how many samples
    /// come before the next.
    #[error("{}: a segment that cannot be read: {error}", path.display())]
    UnreadableSegment {
        /// The segment's folder.
        path: PathBuf,
        /// What is wrong with it.
        error: MefError,
    },
    /// An existing file that cannot be extended, since it breaks the format.
    #[error(transparent)]
    Unreadable(#[from] MefError),
    /// The samples cannot become a block.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl WriteError {
    /// For `map_err`: wraps a system error with the path that it concerns.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            path: path.into(),
            source,
        }
    }
}

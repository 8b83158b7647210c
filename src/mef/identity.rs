//! Which files a segment was read from, so that another file under the same
//! name is never taken for them.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use zerocopy::FromBytes;

use super::error::MefError;
use super::layout::{HEADER_BYTES, UniversalHeader};

/// Identity of the files whose blocks are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SegmentIdentity {
    /// The block index (`.tidx`).
    pub index: FileIdentity,
    /// The blocks (`.tdat`).
    pub data: FileIdentity,
}

impl SegmentIdentity {
    /// Whether these are the same files as `earlier`, possibly grown since.
    pub fn continues(&self, earlier: &Self) -> bool {
        self.index.continues(&earlier.index) && self.data.continues(&earlier.data)
    }
}

/// Identity of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i128,
    uuid: [u8; 16],
}

impl FileIdentity {
    /// The identity of an open file, from its status and its header.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        let status = file.metadata()?;
        let mut header = [0; HEADER_BYTES];
        let uuid = match file.read_exact_at(&mut header, 0) {
            Ok(()) => UniversalHeader::ref_from_bytes(&header).map_or([0; 16], |h| h.file_uuid),
            // Shorter than a header: the parser will say so.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => [0; 16],
            Err(error) => return Err(error),
        };
        Ok(Self {
            uuid,
            ..Self::from_status(&status)
        })
    }

    fn from_status(status: &Metadata) -> Self {
        Self {
            device: status.dev(),
            inode: status.ino(),
            size: status.len(),
            modified_ns: i128::from(status.mtime()) * 1_000_000_000
                + i128::from(status.mtime_nsec()),
            uuid: [0; 16],
        }
    }

    /// Length in bytes when the identity was taken.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn continues(&self, earlier: &Self) -> bool {
        let same =
            (self.device, self.inode, self.uuid) == (earlier.device, earlier.inode, earlier.uuid);
        same && self.size >= earlier.size
    }

    /// Whether the file at `path` is still this one, or this one grown: bytes
    /// before the known end of a recording never change (format section 13.2).
    ///
    /// One `stat` where nothing was touched; the header's UUID is read only
    /// where size or modification time moved.
    pub(crate) fn still_at(&self, path: &Path) -> Result<bool, MefError> {
        let status = std::fs::metadata(path).map_err(|error| MefError::io(path, &error))?;
        let now = Self {
            uuid: self.uuid,
            ..Self::from_status(&status)
        };
        if now == *self {
            return Ok(true);
        }
        if !now.continues(self) {
            return Ok(false);
        }
        let uuid = File::open(path)
            .and_then(|file| Self::of(&file))
            .map(|found| found.uuid);
        Ok(uuid.map_err(|error| MefError::io(path, &error))? == self.uuid)
    }
}

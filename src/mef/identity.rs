//! Which files a segment was read from, so that another file under the same
//! name is never taken for them.

use serde::{Deserialize, Serialize};
use zerocopy::FromBytes;

use super::error::MefError;
use super::layout::{HEADER_BYTES, UniversalHeader};
use super::store::{FileStatus, ReadAt, StoredFile};

/// Identity of a segment's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SegmentIdentity {
    /// The metadata (`.tmet`).
    pub metadata: FileIdentity,
    /// The block index (`.tidx`).
    pub index: FileIdentity,
    /// The blocks (`.tdat`).
    pub data: FileIdentity,
}

/// Identity of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i128,
    /// Length of the archive that the file is in.
    archive_bytes: Option<u64>,
    uuid: [u8; 16],
}

impl FileIdentity {
    /// The identity of an open file, from its status and its header.
    pub(crate) fn of(file: &StoredFile) -> Result<Self, MefError> {
        let status = file.status().map_err(|error| file.error(&error))?;
        let mut header = [0; HEADER_BYTES];
        let filled = file
            .read_at(&mut header, 0)
            .map_err(|error| file.error(&error))?;
        // Shorter than a header: the parser will say so.
        let header = header.get(..filled).unwrap_or_default();
        let uuid = UniversalHeader::ref_from_bytes(header).map_or([0; 16], |h| h.file_uuid);
        Ok(Self {
            uuid,
            ..Self::from_status(&status)
        })
    }

    fn from_status(status: &FileStatus) -> Self {
        Self {
            device: status.device,
            inode: status.inode,
            size: status.size,
            modified_ns: status.modified_ns,
            archive_bytes: status.archive_bytes,
            uuid: [0; 16],
        }
    }

    /// Whether a status is the one that the file had when its identity was
    /// taken.
    pub(crate) fn has_status(&self, status: &FileStatus) -> bool {
        let now = Self::from_status(status);
        now == Self {
            uuid: now.uuid,
            ..*self
        }
    }

    /// Names the file, whatever stands in it.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Length in bytes when the identity was taken.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether this is the same file as `earlier`, possibly grown since: bytes
    /// before the known end of a recording never change (format section 13.2).
    pub fn continues(&self, earlier: &Self) -> bool {
        let same_uuid = self.uuid == earlier.uuid;
        self.is_same_file(earlier) && same_uuid && self.size >= earlier.size
    }

    /// Whether both are one file, whatever stands in it. An archive does not
    /// grow: one that was touched is another.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        let untouched = self.archive_bytes.is_none() || self.modified_ns == other.modified_ns;
        (self.device, self.inode, self.archive_bytes)
            == (other.device, other.inode, other.archive_bytes)
            && untouched
    }

    /// Whether the file is in an archive, which does not grow.
    pub(crate) fn is_archived(&self) -> bool {
        self.archive_bytes.is_some()
    }

    /// Whether a file in an archive is in this one; `None` for other files.
    pub(crate) fn is_in_archive(&self, archive: &FileStatus) -> Option<bool> {
        let here = FileStatus {
            device: self.device,
            inode: self.inode,
            size: self.archive_bytes?,
            modified_ns: self.modified_ns,
            archive_bytes: None,
        };
        Some(here == *archive)
    }

    /// Whether the file under the name of `file` is still this one, or this one
    /// grown.
    ///
    /// One `stat` where nothing was touched; the header's UUID is read only
    /// where size or modification time moved.
    pub(crate) fn is_current(&self, file: &StoredFile) -> Result<bool, MefError> {
        let status = file.status_by_name().map_err(|error| file.error(&error))?;
        if self.has_status(&status) {
            return Ok(true);
        }
        let now = Self {
            uuid: self.uuid,
            ..Self::from_status(&status)
        };
        // The same inode is the file that is open.
        Ok(now.continues(self) && Self::of(file)?.uuid == self.uuid)
    }
}

//! One file of a session.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{Stat, fstat};

use super::archive::Extent;
use super::obstacle::{self, Call};
use super::{ReadAt, Roots};
use crate::mef::error::{Malformation, MefError};

/// An open file of a session.
#[derive(Clone, Debug)]
pub(crate) struct StoredFile {
    file: Arc<File>,
    roots: Roots,
    /// Where a reader is told that it is.
    path: PathBuf,
    /// The archive that the file is a piece of.
    archive: Option<(Arc<Path>, Extent)>,
}

/// What the system says of a file without looking into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStatus {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) modified_ns: i128,
    /// Length of the archive that the file is in; the other facts but the size
    /// are the archive's, too.
    pub(crate) archive_bytes: Option<u64>,
}

impl FileStatus {
    /// Of the file at a path.
    pub(crate) fn at(path: &Path, roots: &Roots) -> io::Result<Self> {
        obstacle::pass(path, Call::Status)?;
        Ok(Self::of(&roots.status(path)?))
    }

    fn of(status: &Stat) -> Self {
        Self {
            device: status.st_dev,
            inode: status.st_ino,
            size: u64::try_from(status.st_size).unwrap_or(0),
            modified_ns: i128::from(status.st_mtime) * 1_000_000_000
                + i128::from(status.st_mtime_nsec),
            archive_bytes: None,
        }
    }

    /// Of a piece of the file.
    fn within(self, extent: Option<Extent>) -> Self {
        match extent {
            None => self,
            Some(extent) => Self {
                size: extent.length,
                archive_bytes: Some(self.size),
                ..self
            },
        }
    }
}

impl StoredFile {
    /// Opens a regular file. Anything else under a file's name is refused, and
    /// never waited for: a FIFO without a writer would wait for ever.
    pub(super) fn open(path: PathBuf, roots: &Roots) -> Result<Self, MefError> {
        let opened = obstacle::pass(&path, Call::Open).and_then(|()| roots.open(&path));
        let file = opened.map_err(|error| MefError::io(&path, &error))?;
        let status = file
            .metadata()
            .map_err(|error| MefError::io(&path, &error))?;
        if !status.is_file() {
            return Err(MefError::malformed(&path, Malformation::NotAFile));
        }
        Ok(Self {
            file: Arc::new(file),
            roots: roots.clone(),
            path,
            archive: None,
        })
    }

    /// The file at a piece of this archive.
    pub(super) fn member(&self, path: PathBuf, extent: Extent) -> Self {
        Self {
            file: Arc::clone(&self.file),
            roots: self.roots.clone(),
            archive: Some((self.path.as_path().into(), extent)),
            path,
        }
    }

    fn extent(&self) -> Option<Extent> {
        self.archive.as_ref().map(|&(_, extent)| extent)
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Wraps an error of reading this file.
    pub(crate) fn error(&self, error: &io::Error) -> MefError {
        MefError::io(&self.path, error)
    }

    /// The status of the file that was opened.
    pub(crate) fn status(&self) -> io::Result<FileStatus> {
        obstacle::pass(&self.path, Call::Status)?;
        Ok(FileStatus::of(&fstat(&self.file)?).within(self.extent()))
    }

    /// The status of the file that has this one's name now.
    pub(crate) fn status_by_name(&self) -> io::Result<FileStatus> {
        match &self.archive {
            None => FileStatus::at(&self.path, &self.roots),
            Some((archive, extent)) => {
                let archive = FileStatus::at(archive, &self.roots)?;
                Ok(archive.within(Some(*extent)))
            }
        }
    }

    /// When the file was written to last.
    pub(crate) fn modified(&self) -> io::Result<SystemTime> {
        self.file.metadata()?.modified()
    }

    /// Reads up to `most` bytes from `offset` on into memory, as far as the file
    /// reaches.
    pub(crate) fn read(&self, offset: u64, most: u64) -> Result<Vec<u8>, MefError> {
        let size = self.size().map_err(|error| self.error(&error))?;
        let length = most.min(size.saturating_sub(offset));
        // A file of more bytes than addresses cannot be had in one piece.
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(length)
            .map_err(|_| self.error(&io::ErrorKind::OutOfMemory.into()))?;
        bytes.resize(length, 0);
        let filled = self
            .read_at(&mut bytes, offset)
            .map_err(|error| self.error(&error))?;
        bytes.truncate(filled);
        Ok(bytes)
    }
}

impl ReadAt for StoredFile {
    fn size(&self) -> io::Result<u64> {
        obstacle::pass(&self.path, Call::Status)?;
        match self.extent() {
            Some(extent) => Ok(extent.length),
            None => Ok(self.file.metadata()?.len()),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        obstacle::pass(&self.path, Call::Read)?;
        let (base, rest) = match self.extent() {
            Some(extent) => (extent.offset, extent.length.saturating_sub(offset)),
            None => (0, u64::MAX),
        };
        let most = usize::try_from(rest).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(most);
        let mut filled = 0;
        while let Some(rest) = buffer
            .get_mut(filled..wanted)
            .filter(|rest| !rest.is_empty())
        {
            let place = base.saturating_add(offset).saturating_add(filled as u64);
            match self.file.read_at(rest, place) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

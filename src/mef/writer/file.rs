//! A file that grows: its header, its body's CRC, and its lock.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::ops::Deref;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{I64, U32};

use super::WriteError;
use crate::mef::crc::{CRC_NOT_COMPUTED, CRC_START, crc32, crc32_continue};
use crate::mef::layout::{HEADER_BYTES, UniversalHeader};
use crate::mef::store::ReadAt;
use crate::mef::time;

/// Bytes that are read or written at a time where there may be many.
const PIECE_BYTES: usize = 64 * 1024;

/// An open file, whose lock ends with it.
///
/// The lock is given up in so many words: a child process that is just being
/// started holds the file for a moment, too, and would keep the lock.
pub(super) struct OpenFile(File);

impl OpenFile {
    /// Opens an existing file to read and write.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map(Self)
    }

    /// Keeps other writers out, where the file system has locks.
    pub(super) fn lock(&self, path: &Path) -> Result<(), WriteError> {
        match self.0.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(WriteError::Busy { path: path.into() }),
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            Err(TryLockError::Error(error)) => Err(WriteError::io(path)(error)),
        }
    }
}

impl Deref for OpenFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // A file that cannot be unlocked is unlocked by being closed.
        let _ = self.0.unlock();
    }
}

/// The file as the reader of records wants it.
impl ReadAt for OpenFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let place = offset.saturating_add(filled as u64);
            match FileExt::read_at(&self.0, rest, place) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// A file that is open to be extended.
pub(super) struct GrowingFile {
    path: PathBuf,
    pub(super) file: OpenFile,
    header: UniversalHeader,
    /// Length as we know it.
    size: u64,
    /// Byte offset behind the last whole entry.
    end: u64,
    /// CRC of the body up to `end`; `None` where the file never had one.
    crc: Option<u32>,
}

impl GrowingFile {
    /// Creates a file, which appears under its name when it is whole. The header's
    /// count and CRCs are set here.
    pub(super) fn create(
        path: PathBuf,
        mut header: UniversalHeader,
        entries: u64,
        body: &[u8],
    ) -> Result<Self, WriteError> {
        seal(&mut header, entries, crc32(body));
        let bytes = [header.as_bytes(), body].concat();
        let file = write_whole(&path, &bytes)?;
        Ok(Self::new(path, file, header, bytes.len() as u64))
    }

    /// A file whose entries all end where it ends.
    pub(super) fn new(path: PathBuf, file: OpenFile, header: UniversalHeader, size: u64) -> Self {
        let stored = header.body_crc.get();
        Self {
            path,
            file,
            header,
            size,
            end: size,
            crc: (stored != CRC_NOT_COMPUTED).then_some(stored),
        }
    }

    /// Keeps other writers out, where the file system has locks.
    pub(super) fn lock(&self) -> Result<(), WriteError> {
        self.file.lock(&self.path)
    }

    /// Computes the CRC anew, for a body that ends at `end` and of which the
    /// stored CRC says nothing.
    pub(super) fn recompute_crc(&mut self, end: u64) -> Result<(), WriteError> {
        self.end = end;
        if self.crc.is_none() {
            return Ok(());
        }
        let mut crc = CRC_START;
        let mut offset = HEADER_BYTES as u64;
        let mut buffer = vec![0; PIECE_BYTES];
        while offset < end {
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let (piece, _) = buffer.split_at_mut(left.min(PIECE_BYTES));
            let read = self.file.read_exact_at(piece, offset);
            read.map_err(WriteError::io(&self.path))?;
            crc = crc32_continue(crc, piece);
            offset += piece.len() as u64;
        }
        self.crc = Some(crc);
        Ok(())
    }

    /// Byte offset behind the last whole entry.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The folder of the file was renamed.
    pub(super) fn moved_to(&mut self, path: PathBuf) {
        self.path = path;
    }

    /// Fails where the file is not as this writer left it.
    pub(super) fn check_unchanged(&self) -> Result<(), WriteError> {
        let status = self.file.metadata().map_err(WriteError::io(&self.path))?;
        let same = fs::metadata(&self.path).is_ok_and(|named| {
            (named.dev(), named.ino(), named.len()) == (status.dev(), status.ino(), self.size)
        });
        if same {
            return Ok(());
        }
        Err(WriteError::Changed {
            path: self.path.clone(),
        })
    }

    /// Writes entries at `place`, where the last whole entry ends. Torn bytes that
    /// they do not cover become zeros, which no reader takes for an entry.
    pub(super) fn extend(&mut self, place: u64, bytes: &[u8]) -> Result<(), WriteError> {
        let end = place + bytes.len() as u64;
        // First the zeros: behind a whole entry nothing may look like another.
        zeros(end, self.size)
            .try_for_each(|(offset, zeros)| self.file.write_all_at(zeros, offset))
            .and_then(|()| self.file.write_all_at(bytes, place))
            .map_err(WriteError::io(&self.path))?;
        self.crc = self.crc.map(|crc| crc32_continue(crc, bytes));
        self.end = end;
        self.size = self.size.max(end);
        Ok(())
    }

    /// Lets the header's span of time include these stored times, which it takes
    /// over as they are.
    pub(super) fn include_times(
        &mut self,
        stored: impl IntoIterator<Item = I64>,
        recording_time_offset: i64,
    ) {
        include_times(&mut self.header, stored, recording_time_offset);
    }

    /// Lets the header's largest entry be at least so many bytes long.
    pub(super) fn include_size(&mut self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let largest = self.header.maximum_entry_size.get().max(bytes);
        self.header.maximum_entry_size = I64::new(largest);
    }

    /// Writes the header of a file with so many entries.
    pub(super) fn write_header(&mut self, entries: u64) -> Result<(), WriteError> {
        // The CRC is that of the whole body, with zeros that may follow it.
        let crc = self.crc.map_or(CRC_NOT_COMPUTED, |crc| {
            zeros(self.end, self.size).fold(crc, |crc, (_, zeros)| crc32_continue(crc, zeros))
        });
        seal(&mut self.header, entries, crc);
        self.file
            .write_all_at(self.header.as_bytes(), 0)
            .map_err(WriteError::io(&self.path))
    }
}

/// Lets a header's span of time include stored times.
pub(super) fn include_times(
    header: &mut UniversalHeader,
    stored: impl IntoIterator<Item = I64>,
    recording_time_offset: i64,
) {
    let absolute = |stored: I64| time::absolute(stored.get(), recording_time_offset);
    for stored in stored {
        let Some(time) = absolute(stored) else {
            continue;
        };
        if absolute(header.start_time).is_none_or(|start| time < start) {
            header.start_time = stored;
        }
        if absolute(header.end_time).is_none_or(|end| time > end) {
            header.end_time = stored;
        }
    }
}

/// Sets count and CRCs of a header.
pub(super) fn seal(header: &mut UniversalHeader, entries: u64, body_crc: u32) {
    header.number_of_entries = I64::new(i64::try_from(entries).unwrap_or(i64::MAX));
    header.body_crc = U32::new(body_crc);
    let (_, covered) = header.as_bytes().split_at(size_of::<U32>());
    header.header_crc = U32::new(crc32(covered));
}

/// Creates a file with these bytes; nobody sees it with less.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<OpenFile, WriteError> {
    let persisted = write_hidden(path, bytes)?.persist_noclobber(path);
    let persisted = persisted.map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => WriteError::Exists { path: path.into() },
        _ => WriteError::io(path)(error.error),
    });
    persisted.map(OpenFile)
}

/// Writes a file anew, if it exists; readers see either the old or the new one.
pub(super) fn replace_whole(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let persisted = write_hidden(path, bytes)?.persist(path);
    persisted.map_err(|error| WriteError::io(path)(error.error))?;
    Ok(())
}

/// Writes a file that goes under a name which readers skip, in the same folder.
fn write_hidden(path: &Path, bytes: &[u8]) -> Result<NamedTempFile, WriteError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut hidden = tempfile::Builder::new()
        .prefix(".")
        .suffix(".partial")
        // What the user's mask leaves of it, like any other file.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(WriteError::io(folder))?;
    hidden.write_all(bytes).map_err(WriteError::io(path))?;
    Ok(hidden)
}

/// Zeros for the bytes from `from` up to `until`, in pieces with their offsets.
fn zeros(from: u64, until: u64) -> impl Iterator<Item = (u64, &'static [u8])> {
    static ZEROS: [u8; PIECE_BYTES] = [0; PIECE_BYTES];
    let offsets = (from..until).step_by(PIECE_BYTES);
    offsets.map(move |offset| {
        let left = usize::try_from(until - offset).unwrap_or(usize::MAX);
        (offset, ZEROS.get(..left).unwrap_or(&ZEROS))
    })
}

//! Where a session's files are, and how their bytes are had.

mod access;
mod archive;
mod file;
pub(crate) mod obstacle;
mod read_at;
mod tar;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use access::Roots;
use archive::archive_stem;
pub(crate) use archive::{Archive, ItemKind};
pub(crate) use file::{FileStatus, StoredFile};
use obstacle::Call;
pub(crate) use read_at::ReadAt;
pub(crate) use tar::MAX_EXTENSION_BYTES;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::error::{ArchiveError, MefError};

/// The files of one session, in its folder or in an archive. Their names are
/// relative to the session.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    root: PathBuf,
    roots: Roots,
    archive: Option<Arc<OpenArchive>>,
}

#[derive(Debug)]
struct OpenArchive {
    file: StoredFile,
    status: FileStatus,
    directory: Archive,
}

/// What stands in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Item {
    pub(crate) name: OsString,
    pub(crate) is_folder: bool,
}

impl Store {
    /// The store at `path`, and the session's name by it. What lies outside of the
    /// roots is not read, whatever leads there.
    pub(crate) fn open(path: &Path, roots: &Roots) -> Result<(Self, String), MefError> {
        let is_folder = is_folder(roots, path).map_err(|error| MefError::io(path, &error))?;
        if !is_folder && archive_stem(path).is_some() {
            return Self::open_archive(path, roots);
        }
        let not_a_session = |reason: &str| MefError::NotASession {
            path: path.into(),
            reason: reason.into(),
        };
        if !is_folder {
            return Err(not_a_session("not a session directory"));
        }
        let name = path.file_name().and_then(|name| stem_of(name, "mefd"));
        let name = name.ok_or_else(|| not_a_session("session directory must end with .mefd"))?;
        let store = Self {
            root: path.into(),
            roots: roots.clone(),
            archive: None,
        };
        Ok((store, name.to_owned()))
    }

    fn open_archive(path: &Path, roots: &Roots) -> Result<(Self, String), MefError> {
        let file = StoredFile::open(path.into(), roots)?;
        // Before the walk: what changes meanwhile is seen later.
        let status = file.status().map_err(|error| file.error(&error))?;
        let directory = Archive::read(&file, path)?;
        if !directory.is_whole() {
            let archive_bytes = status.size;
            return Err(MefError::malformed(
                path,
                ArchiveError::NoEnd { archive_bytes }.into(),
            ));
        }
        let name = directory.session_name().to_string_lossy().into_owned();
        let archive = OpenArchive {
            file,
            status,
            directory,
        };
        let store = Self {
            root: path.into(),
            roots: roots.clone(),
            archive: Some(Arc::new(archive)),
        };
        Ok((store, name))
    }

    /// Whether this is an archive that nobody has touched since it was opened: a
    /// session in a folder is not read in one go, and never current.
    pub(crate) fn is_current_archive(&self) -> bool {
        self.archive.as_ref().is_some_and(|archive| {
            let status = FileStatus::at(&self.root, &self.roots);
            status.is_ok_and(|status| status == archive.status)
        })
    }

    /// Where a file or folder of the session is, for those who are told of it.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    /// What stands in a folder, by name; not what begins with a dot, and no link
    /// that leads nowhere.
    pub(crate) fn list(&self, folder: impl AsRef<Path>) -> Result<Vec<Item>, MefError> {
        let folder = folder.as_ref();
        if let Some(archive) = &self.archive {
            return Ok(archive.list(folder));
        }
        let path = self.path(folder);
        let io_error = |error: io::Error| MefError::io(&path, &error);
        let mut items = Vec::new();
        obstacle::pass(&path, Call::Open).map_err(io_error)?;
        for name in self.roots.names(&path).map_err(io_error)? {
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = path.join(&name);
            match is_folder(&self.roots, &path) {
                Ok(is_folder) => items.push(Item { name, is_folder }),
                Err(error) if leads_nowhere(&error) => {}
                // Whoever opens it is told that it leads out of the roots.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::XDEV) => {
                    let is_folder = true;
                    items.push(Item { name, is_folder });
                }
                // A channel must not vanish because the system is short of something.
                Err(error) => return Err(MefError::io(&path, &error)),
            }
        }
        items.sort();
        Ok(items)
    }

    /// The status of a file.
    pub(crate) fn status(&self, name: impl AsRef<Path>) -> Result<FileStatus, MefError> {
        let name = name.as_ref();
        if self.archive.is_some() {
            let file = self.file(name)?;
            return file.status().map_err(|error| file.error(&error));
        }
        let path = self.path(name);
        FileStatus::at(&path, &self.roots).map_err(|error| MefError::io(&path, &error))
    }

    /// Whether something stands under the name of a file.
    pub(crate) fn has_file(&self, name: impl AsRef<Path>) -> bool {
        match &self.archive {
            Some(archive) => archive.directory.file(name.as_ref()).is_some(),
            None => {
                let path = self.path(name);
                let status = obstacle::pass(&path, Call::Status);
                let status = status.and_then(|()| self.roots.look(&path));
                // What cannot be looked at is there, and whoever opens it is told why not.
                status.map_or_else(|error| !leads_nowhere(&error), |_| true)
            }
        }
    }

    /// Opens a regular file.
    pub(crate) fn file(&self, name: impl AsRef<Path>) -> Result<StoredFile, MefError> {
        let path = self.path(&name);
        let Some(archive) = &self.archive else {
            return StoredFile::open(path, &self.roots);
        };
        match archive.directory.file(name.as_ref()) {
            Some(extent) => Ok(archive.file.member(path, extent)),
            None => Err(MefError::NotFound { path }),
        }
    }
}

impl OpenArchive {
    fn list(&self, folder: &Path) -> Vec<Item> {
        let items = self.directory.list(folder).into_iter();
        let visible = items.filter(|(name, _)| !name.as_encoded_bytes().starts_with(b"."));
        let item = |(name, kind)| Item {
            name,
            is_folder: kind == ItemKind::Folder,
        };
        visible.map(item).collect()
    }
}

/// Whether a folder stands under a name, behind links.
fn is_folder(roots: &Roots, path: &Path) -> io::Result<bool> {
    obstacle::pass(path, Call::Status)?;
    let status = roots.status(path)?;
    Ok(FileType::from_raw_mode(status.st_mode) == FileType::Directory)
}

/// Whether an error says that there is nothing behind a name, or nothing for us.
fn leads_nowhere(error: &io::Error) -> bool {
    let nothing = [
        Errno::NOENT,
        Errno::NOTDIR,
        Errno::LOOP,
        Errno::ACCESS,
        Errno::PERM,
        Errno::NAMETOOLONG,
    ];
    Errno::from_io_error(error).is_some_and(|error| nothing.contains(&error))
}

/// The part of a name before `.extension`, if it ends so and is Unicode.
pub(crate) fn stem_of<'a>(name: &'a OsStr, extension: &str) -> Option<&'a str> {
    let stem = name.to_str()?.strip_suffix(extension)?.strip_suffix('.')?;
    (!stem.is_empty()).then_some(stem)
}

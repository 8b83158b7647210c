//! Sessions in a single file, `NAME.mefd.tar`, read in place
//! (format section 1.1).
//!
//! Nothing is unpacked: an [`Archive`] says where each file's bytes are, which
//! is one contiguous piece. Names in an archive are compared and never used as
//! paths.

mod walk;

use std::ffi::{OsStr, OsString};
use std::mem;
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use self::walk::{MAX_HEADERS, Walked, walk};
use super::ReadAt;
use crate::mef::error::MefError;

/// A contiguous piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Extent {
    /// Bytes before it.
    pub(crate) offset: u64,
    /// Its length in bytes.
    pub(crate) length: u64,
}

/// What stands in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ItemKind {
    /// A folder, which need not have a member of its own.
    Folder,
    /// A file.
    File,
}

/// The files of a session archive, by their paths below the session's root.
#[derive(Debug)]
pub(crate) struct Archive {
    session_name: OsString,
    /// All names, one after the other.
    names: Vec<u8>,
    /// In order of the names, each name once.
    members: Vec<Member>,
    is_whole: bool,
}

#[derive(Clone, Debug)]
struct Member {
    /// Where its name is in the names.
    name: Range<usize>,
    /// Where its bytes are; `None` for a folder.
    extent: Option<Extent>,
}

/// The session name of an archive's file name, `NAME` of `NAME.mefd.tar` with
/// its ending in any case; `None` for other names.
pub(crate) fn archive_stem(path: &Path) -> Option<&OsStr> {
    let name = path.file_name()?.as_bytes();
    without_ending(name, b".mefd.tar").map(OsStr::from_bytes)
}

fn without_ending<'a>(name: &'a [u8], ending: &[u8]) -> Option<&'a [u8]> {
    let (stem, end) = name.split_at_checked(name.len().checked_sub(ending.len())?)?;
    end.eq_ignore_ascii_case(ending).then_some(stem)
}

impl Archive {
    /// Reads the headers of the archive `data`, whose place is `path`: one
    /// small read for each, and no body but those of long names.
    ///
    /// # Errors
    /// [`MefError::NotASession`] where the file name does not end with
    /// `.mefd.tar`, [`MefError::Io`] where reading fails,
    /// [`MefError::Changed`] where the file shrinks meanwhile, and
    /// [`MefError::Malformed`] with an [`ArchiveError`] for all that the
    /// archive's bytes can do wrong. An archive that ends after a whole member,
    /// without the blocks that mark its end, is none of these
    /// ([`is_whole`](Self::is_whole)).
    pub(crate) fn read(data: &(impl ReadAt + ?Sized), path: &Path) -> Result<Self, MefError> {
        let Some(stem) = archive_stem(path) else {
            return Err(MefError::NotASession {
                path: path.into(),
                reason: "session archive must end with .mefd.tar".into(),
            });
        };
        Ok(Self::new(walk(data, path, MAX_HEADERS)?, stem))
    }

    fn new(walked: Walked, stem: &OsStr) -> Self {
        let Walked {
            mut names,
            mut members,
            is_whole,
        } = walked;
        let name = |member: &Member| names.get(member.name.clone()).unwrap_or_default();
        // Of equal names the last one counts, and sorting keeps their order.
        members.sort_by(|a, b| name(a).cmp(name(b)));
        members.dedup_by(|later, kept| {
            let same = name(later) == name(kept);
            if same {
                mem::swap(later, kept);
            }
            same
        });
        let mut session_name = stem.as_bytes();
        if let Some(root) = single_root(members.iter().map(|m| (name(m), m.extent.is_some()))) {
            session_name = without_ending(root, b".mefd").unwrap_or(root);
            members.retain_mut(|member| {
                let below = name(member)
                    .strip_prefix(root)
                    .is_some_and(|rest| rest.starts_with(b"/"));
                member.name.start += root.len() + 1;
                below
            });
        }
        let session_name = OsString::from_vec(session_name.to_vec());
        names.shrink_to_fit();
        members.shrink_to_fit();
        Self {
            session_name,
            names,
            members,
            is_whole,
        }
    }

    /// Whether the archive has an end. What was cut off between two members, as by
    /// a copy that is not complete, has none, and nobody knows what is missing.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The session's name: that of its root folder in the archive, or the
    /// archive's own where there is none.
    pub(crate) fn session_name(&self) -> &OsStr {
        &self.session_name
    }

    /// What stands in a folder, given by its path below the session's root,
    /// sorted by name; nothing, if there is no such folder. The empty path is
    /// the root itself.
    pub(crate) fn list(&self, folder: &Path) -> Vec<(OsString, ItemKind)> {
        let Some(mut prefix) = key(folder) else {
            return Vec::new();
        };
        if !prefix.is_empty() {
            prefix.push(b'/');
        }
        let mut items = Vec::new();
        let mut next = self.first_from(&prefix);
        while let Some(member) = self.members.get(next)
            && let Some(rest) = self.name(member).strip_prefix(prefix.as_slice())
        {
            let mut parts = rest.splitn(2, |&byte| byte == b'/');
            let child = parts.next().unwrap_or_default();
            let is_file = parts.next().is_none() && member.extent.is_some();
            let kind = if is_file {
                ItemKind::File
            } else {
                ItemKind::Folder
            };
            items.push((OsString::from_vec(child.to_vec()), kind));
            next = if child.len() == rest.len() {
                next + 1
            } else {
                // After all that is below the child: a zero follows the slash.
                self.first_from(&[prefix.as_slice(), child, b"0"].concat())
            };
        }
        // A folder may be there both by itself and by its files, and a file
        // that others are below counts as a folder.
        items.sort_unstable();
        items.dedup_by(|later, kept| later.0 == kept.0);
        items
    }

    /// Where the bytes of a file are, given by its path below the session's
    /// root; `None` if there is no such file.
    pub(crate) fn file(&self, path: &Path) -> Option<Extent> {
        let key = key(path)?;
        let member = self.members.get(self.first_from(&key))?;
        member.extent.filter(|_| self.name(member) == key)
    }

    /// Bytes that the table takes in memory.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn memory(&self) -> usize {
        self.names.capacity() + self.members.capacity() * size_of::<Member>()
    }

    /// The first member whose name is not before `key`.
    fn first_from(&self, key: &[u8]) -> usize {
        self.members
            .partition_point(|member| self.name(member) < key)
    }

    fn name(&self, member: &Member) -> &[u8] {
        self.names.get(member.name.clone()).unwrap_or_default()
    }
}

/// The name of a path in the table; `None` where it leaves the session.
fn key(path: &Path) -> Option<Vec<u8>> {
    let mut key = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => push_component(&mut key, 0, name.as_bytes()),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(key)
}

/// Adds a component to the path that begins at `start`.
fn push_component(path: &mut Vec<u8>, start: usize, name: &[u8]) {
    if path.len() > start {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// The one folder at the archive's top that holds all files, unless it is a
/// channel. Folders beside it that hold no file do not count.
fn single_root<'a>(members: impl Iterator<Item = (&'a [u8], bool)> + Clone) -> Option<&'a [u8]> {
    let any_file = members.clone().any(|(_, is_file)| is_file);
    let mut root = None;
    for (name, is_file) in members.filter(|&(_, is_file)| is_file || !any_file) {
        let top = name.split(|&byte| byte == b'/').next()?;
        let at_top = is_file && top.len() == name.len();
        if at_top || *root.get_or_insert(top) != top {
            return None;
        }
    }
    root.filter(|root| !root.ends_with(b".timd"))
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;

//! Finds the sessions below a folder, in the order of their paths.

use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::error::MefError;
use super::store::Roots;

/// Folders within folders are looked into to this depth.
const MOST_DEPTH: usize = 32;

/// What a look for sessions may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WalkLimits {
    /// Sessions that are found.
    pub(crate) sessions: usize,
    /// Names that are looked at.
    pub(crate) entries: usize,
}

/// A session, by its path below the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundSession {
    pub(crate) path: PathBuf,
    pub(crate) is_archive: bool,
    /// Of the folder or the archive, uUTC.
    pub(crate) modified_uutc: i64,
}

/// What a look for sessions has come to.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    pub(crate) found: Vec<FoundSession>,
    /// Folders that cannot be looked into.
    pub(crate) unreadable: Vec<MefError>,
    /// Where to go on, if there may be more: after this path below the folder.
    pub(crate) after: Option<PathBuf>,
}

/// Looks for sessions below `folder` whose path below it is accepted, after one such
/// path. Sessions are not looked into, and links only followed where they are called
/// like a session.
pub(crate) fn find_sessions(
    roots: &Roots,
    folder: &Path,
    after: Option<&Path>,
    accepts: &dyn Fn(&Path) -> bool,
    limits: WalkLimits,
) -> Walk {
    let mut walker = Walker {
        roots,
        folder,
        after,
        accepts,
        limits,
        looked_at: 0,
        last: after.map(Path::to_path_buf),
        walk: Walk::default(),
    };
    if !walker.look_into(Path::new(""), 0) {
        walker.walk.after = walker.last;
    }
    walker.walk
}

struct Walker<'a> {
    roots: &'a Roots,
    folder: &'a Path,
    after: Option<&'a Path>,
    accepts: &'a dyn Fn(&Path) -> bool,
    limits: WalkLimits,
    looked_at: usize,
    /// What was looked at last.
    last: Option<PathBuf>,
    walk: Walk,
}

impl Walker<'_> {
    /// Whether all of the folder was looked at.
    fn look_into(&mut self, within: &Path, depth: usize) -> bool {
        let folder = self.folder.join(within);
        let mut names = match self.roots.names(&folder) {
            Ok(names) => names,
            Err(error) => {
                self.walk.unreadable.push(MefError::io(&folder, &error));
                return true;
            }
        };
        names.sort();
        for name in names {
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = within.join(name);
            let was_looked_at = self.after.is_some_and(|after| path.as_path() <= after);
            if was_looked_at && !self.after.is_some_and(|after| after.starts_with(&path)) {
                continue;
            }
            if !was_looked_at {
                let is_full = self.walk.found.len() >= self.limits.sessions
                    || self.walk.unreadable.len() >= self.limits.sessions
                    || self.looked_at >= self.limits.entries;
                if is_full {
                    return false;
                }
                self.looked_at += 1;
                self.last = Some(path.clone());
            }
            if !self.look_at(path, was_looked_at, depth) {
                return false;
            }
        }
        true
    }

    fn look_at(&mut self, path: PathBuf, was_looked_at: bool, depth: usize) -> bool {
        let whole = self.folder.join(&path);
        let has_name_of_session = is_session_name(&path);
        if !has_name_of_session && !self.roots.is_folder_itself(&whole) {
            return true;
        }
        if has_name_of_session && (was_looked_at || !(self.accepts)(&path)) {
            return true;
        }
        let kind_and_time = self.roots.status(&whole).map(|status| {
            let kind = FileType::from_raw_mode(status.st_mode);
            (kind, status.st_mtime)
        });
        let (kind, modified_s) = match kind_and_time {
            Ok(known) => known,
            Err(error) => {
                self.walk.unreadable.push(MefError::io(&whole, &error));
                return true;
            }
        };
        let is_folder = kind == FileType::Directory;
        if !has_name_of_session {
            return !is_folder || depth >= MOST_DEPTH || self.look_into(&path, depth + 1);
        }
        let is_archive = path.extension().is_some_and(|it| it == "tar");
        let is_what_it_is_called = match is_archive {
            true => kind == FileType::RegularFile,
            false => is_folder,
        };
        if is_what_it_is_called {
            self.walk.found.push(FoundSession {
                path,
                is_archive,
                modified_uutc: modified_s.saturating_mul(1_000_000),
            });
        }
        true
    }
}

fn is_session_name(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.as_encoded_bytes());
    name.is_some_and(|name| name.ends_with(b".mefd") || name.ends_with(b".mefd.tar"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn all(root: &Path, limits: WalkLimits) -> (Vec<String>, usize, usize) {
        let (mut found, mut walks, mut unreadable) = (Vec::new(), 0, 0);
        let mut after = None;
        loop {
            let roots = Roots::new(&[root.into()]);
            let accepts = |path: &Path| !path.ends_with("not.mefd");
            let walk = find_sessions(&roots, root, after.as_deref(), &accepts, limits);
            assert!(walk.found.len() <= limits.sessions);
            let paths = walk.found.iter().map(|it| it.path.display().to_string());
            found.extend(paths);
            unreadable += walk.unreadable.len();
            walks += 1;
            after = walk.after;
            if after.is_none() {
                return (found, walks, unreadable);
            }
        }
    }

    #[test]
    fn every_session_is_found_once_however_the_walk_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        for session in [
            "b.mefd",
            "a/x.mefd",
            "a/y/z.mefd",
            "a.b/q.mefd",
            "c/not.mefd",
            "e/f/g/empty",
        ] {
            fs::create_dir_all(root.join(session)).unwrap();
        }
        fs::create_dir_all(root.join("b.mefd/inner.mefd")).unwrap();
        fs::write(root.join("c/t.mefd.tar"), "").unwrap();
        fs::write(root.join("c/file.mefd"), "").unwrap();
        symlink("..", root.join("a/loop")).unwrap();
        symlink("../b.mefd", root.join("a/linked.mefd")).unwrap();
        symlink("../../elsewhere", root.join("a/out.mefd")).unwrap();
        let expected = [
            "a/linked.mefd",
            "a/x.mefd",
            "a/y/z.mefd",
            "a.b/q.mefd",
            "b.mefd",
            "c/t.mefd.tar",
        ];
        for sessions in 1..8 {
            for entries in [1, 2, 3, 5, 100] {
                let (found, walks, unreadable) = all(&root, WalkLimits { sessions, entries });
                assert_eq!(found, expected, "{sessions}, {entries}");
                assert_eq!(unreadable, 1, "{sessions}, {entries}");
                assert_eq!(
                    walks > 1,
                    sessions < 7 || entries < 100,
                    "{sessions}, {entries}"
                );
            }
        }
    }
}

//! How files are reached: by their paths, or only below folders that nothing may lead
//! out of.
//!
//! Below such a folder each path is resolved by the kernel (openat2 with
//! RESOLVE_BENEATH): whatever `..`, links and files that change places meanwhile make of
//! it, what lies elsewhere is not opened. A check of the path's text could be outrun.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, stat};
use rustix::io::Errno;

/// How often a resolution is tried again that was disturbed by files that moved.
const TRIES: u32 = 16;

/// The folders below which files may be read: everywhere, where none is named.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roots(Arc<[PathBuf]>);

impl Roots {
    pub(crate) fn new(folders: &[PathBuf]) -> Self {
        Self(folders.into())
    }

    /// Opens a file for reading, and waits for nobody to write to it.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        Ok(self.descriptor(path, flags)?.into())
    }

    /// The status of what stands under a name, behind links.
    pub(in crate::mef) fn status(&self, path: &Path) -> io::Result<Stat> {
        Ok(match self.0.is_empty() {
            true => stat(path)?,
            false => fstat(self.descriptor(path, OFlags::PATH)?)?,
        })
    }

    /// Whether something stands under a name, be it a link that leads nowhere.
    pub(super) fn look(&self, path: &Path) -> io::Result<()> {
        match self.0.is_empty() {
            true => fs::symlink_metadata(path).map(|_| ()),
            false => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW;
                self.descriptor(path, flags).map(|_| ())
            }
        }
    }

    /// Whether a name is that of a folder, and of no link to one.
    pub(in crate::mef) fn is_folder_itself(&self, path: &Path) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY;
        self.descriptor(path, flags).is_ok()
    }

    /// The names in a folder, in no order.
    pub(in crate::mef) fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let folder = self.descriptor(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::new(folder)? {
            let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// EXDEV says that a path is below none of the folders.
    fn descriptor(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        if self.0.is_empty() {
            return Ok(openat(CWD, path, flags, Mode::empty())?);
        }
        match self.open_beneath(path, flags) {
            Err(Errno::XDEV) => {}
            opened => return Ok(opened?),
        }
        // A link by an absolute path, or into another of the folders, is taken for one
        // that leads out. Where it ends is only a proposal: the kernel looks again.
        // Without a slash at its end, which a confined process could not ask about.
        match fs::canonicalize(path.components().as_path()) {
            Ok(elsewhere) => Ok(self.open_beneath(&elsewhere, flags)?),
            // Whether there is anything out there is nobody's business.
            Err(_) => Err(Errno::XDEV.into()),
        }
    }

    fn open_beneath(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let root = self.0.iter().find(|root| path.starts_with(root));
        let root = root.ok_or(Errno::XDEV)?;
        let within = path.strip_prefix(root).map_err(|_| Errno::XDEV)?;
        let within = match within.as_os_str().is_empty() {
            true => Path::new("."),
            false => within,
        };
        let as_root = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, root, as_root, Mode::empty())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..TRIES {
            match openat2(&root, within, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                opened => return opened,
            }
        }
        Err(Errno::AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_leads_out_of_a_root() {
        let folder = tempfile::tempdir().unwrap();
        let (root, other) = (folder.path().join("root"), folder.path().join("other"));
        fs::create_dir_all(root.join("in")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("secret"), "secret").unwrap();
        fs::write(root.join("in/file"), "known").unwrap();
        symlink("../other/secret", root.join("out")).unwrap();
        symlink(other.join("secret"), root.join("far")).unwrap();
        symlink("../other", root.join("folder")).unwrap();
        symlink("in/file", root.join("near")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        symlink(root.join("in/file"), root.join("absolute")).unwrap();
        let roots = Roots::new(std::slice::from_ref(&root));
        let read = |name: &str| roots.open(&root.join(name)).and_then(io::read_to_string);
        for name in ["in/file", "near", "in/../in/file", "./near", "absolute"] {
            assert_eq!(read(name).unwrap(), "known", "{name}");
            assert!(roots.status(&root.join(name)).is_ok());
        }
        for name in [
            "out",
            "far",
            "folder/secret",
            "../other/secret",
            "in/../../other/secret",
            "magic/etc/passwd",
            "../other/not there",
        ] {
            let refused = read(name).unwrap_err();
            let is_refused = [Errno::XDEV, Errno::LOOP].map(|it| it.raw_os_error());
            let number = refused.raw_os_error().unwrap();
            assert!(is_refused.contains(&number), "{name}: {refused}");
            assert!(roots.status(&root.join(name)).is_err());
        }
        assert!(roots.names(&root.join("folder")).is_err());
        assert_eq!(roots.names(&root.join("in")).unwrap(), ["file"]);
        // The link itself is there; what it leads to is not.
        assert!(roots.look(&root.join("far")).is_ok());
        for path in [
            other.join("secret"),
            folder.path().join("rootless"),
            "x".into(),
        ] {
            let refused = roots.open(&path).unwrap_err();
            assert_eq!(Errno::from_io_error(&refused), Some(Errno::XDEV));
        }
        let both = Roots::new(&[root.clone(), other.clone()]);
        assert!(both.open(&root.join("out")).is_ok());
        assert!(Roots::default().open(&root.join("out")).is_ok());
    }

    #[test]
    fn a_link_that_changes_its_end_all_the_time_never_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let (root, other) = (folder.path().join("root"), folder.path().join("other"));
        for (folder, text) in [(&root, "known"), (&other, "secret")] {
            fs::create_dir_all(folder.join("deep")).unwrap();
            fs::write(folder.join("deep/file"), text).unwrap();
        }
        let stop = std::sync::atomic::AtomicBool::new(false);
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        let roots = Roots::new(std::slice::from_ref(&root));
        symlink("deep", root.join("link")).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for target in ["deep", "../other/deep"].iter().cycle() {
                    if stop.load(relaxed) {
                        break;
                    }
                    symlink(target, root.join("next")).unwrap();
                    fs::rename(root.join("next"), root.join("link")).unwrap();
                }
            });
            let (mut read, mut refused) = (0, 0);
            while (read < 500 || refused < 500) && read + refused < 1_000_000 {
                match roots.open(&root.join("link/file")) {
                    Ok(file) => {
                        assert_eq!(io::read_to_string(file).unwrap(), "known");
                        read += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
            stop.store(true, relaxed);
            assert!(read > 0 && refused > 0, "{read} read, {refused} refused");
        });
    }
}

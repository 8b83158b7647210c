//! Which recordings a token opens.

use std::fs;
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::tokens::Token;
use crate::error::Error;

/// Paths of one token that are looked up at a time: storage may not answer, and the
/// threads that wait for it are those of all.
const LOOKS: usize = 8;
/// How long a call waits for that.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// How long a path that was found inside is taken to be there still.
const VALID: Duration = Duration::from_secs(5);
/// Paths that are kept in mind so.
const KEPT: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// The looks of one token, and what they found.
pub(super) struct Checks {
    looks: Arc<Semaphore>,
    /// Paths that were inside, and when.
    inside: Mutex<LruCache<PathBuf, Instant>>,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            looks: Arc::new(Semaphore::new(LOOKS)),
            inside: Mutex::new(LruCache::new(KEPT)),
        }
    }
}

impl Checks {
    fn inside(&self) -> MutexGuard<'_, LruCache<PathBuf, Instant>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn knows(&self, path: &Path) -> bool {
        let found = self.inside().get(path).copied();
        found.is_some_and(|found| found.elapsed() < VALID)
    }
}

impl Token {
    /// Refuses what is not below the token's roots, by its path and by where the links
    /// in it lead. `name` is the path as the client has it.
    ///
    /// # Errors
    /// [`Error::OutsideRoots`], and [`Error::StuckStorage`] where the file system does
    /// not say where links lead.
    pub(in crate::grpc) async fn check(&self, path: &Path, name: &str) -> Result<(), Error> {
        let outside = || Error::OutsideRoots { path: name.into() };
        let stuck = || Error::StuckStorage { what: name.into() };
        let roots = self.roots_of(path);
        if roots.is_empty() {
            return Err(outside());
        }
        if roots.iter().any(|root| root == Path::new("/")) || self.checks.knows(path) {
            return Ok(());
        }
        let look = async {
            let looks = Arc::clone(&self.checks.looks);
            let permit = looks.acquire_owned().await.map_err(|_| Error::Stopped)?;
            let path = path.to_owned();
            let found = tokio::task::spawn_blocking(move || {
                let place = place_of(&path, &roots);
                // Until the file system has answered, whoever waits by then.
                drop(permit);
                place
            });
            found.await.map_err(|_| Error::Stopped)
        };
        match timeout(LOOK_LIMIT, look).await.map_err(|_| stuck())?? {
            Place::Inside => {
                self.checks.inside().put(path.into(), Instant::now());
                Ok(())
            }
            Place::Nowhere => Ok(()),
            Place::Outside => Err(outside()),
        }
    }

    /// The roots that a path is below of, as it is written.
    fn roots_of(&self, path: &Path) -> Vec<PathBuf> {
        if path.components().any(|part| part == Component::ParentDir) {
            return Vec::new();
        }
        let roots = self.roots.iter().filter(|root| path.starts_with(root));
        roots.cloned().collect()
    }
}

/// Where a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Inside,
    /// There is nothing, and it would be inside.
    Nowhere,
    Outside,
}

/// Follows a path to where it leads, and says whether that is below a root.
fn place_of(path: &Path, roots: &[PathBuf]) -> Place {
    let mut existing = path;
    let real = loop {
        match fs::canonicalize(existing) {
            Ok(real) => break real,
            Err(error) if is_missing(error.kind()) => {
                // A link to nothing may lead anywhere, once there is something.
                let is_link = fs::symlink_metadata(existing).is_ok_and(|it| it.is_symlink());
                match existing.parent() {
                    Some(parent) if !is_link => existing = parent,
                    _ => return Place::Outside,
                }
            }
            Err(_) => return Place::Outside,
        }
    };
    let is_inside = |root: &PathBuf| fs::canonicalize(root).is_ok_and(|it| real.starts_with(it));
    match roots.iter().any(is_inside) {
        true if existing == path => Place::Inside,
        true => Place::Nowhere,
        false => Place::Outside,
    }
}

fn is_missing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_to_where_they_lead() {
        let folder = tempfile::tempdir().unwrap();
        let (root, other) = (folder.path().join("root"), folder.path().join("other"));
        fs::create_dir_all(root.join("a.mefd")).unwrap();
        fs::create_dir_all(other.join("b.mefd")).unwrap();
        symlink(&other, root.join("out")).unwrap();
        symlink(root.join("a.mefd"), root.join("same.mefd")).unwrap();
        symlink(other.join("later"), root.join("dangling")).unwrap();
        fs::write(root.join("a.tar"), "").unwrap();
        let alias = folder.path().join("alias");
        symlink(&root, &alias).unwrap();
        for (path, expected) in [
            ("a.mefd", Place::Inside),
            ("same.mefd", Place::Inside),
            ("", Place::Inside),
            ("missing/c.mefd", Place::Nowhere),
            ("a.tar/inner", Place::Nowhere),
            ("out/b.mefd", Place::Outside),
            ("out/missing.mefd", Place::Outside),
            ("dangling", Place::Outside),
            ("dangling/c.mefd", Place::Outside),
        ] {
            let roots = std::slice::from_ref(&root);
            assert_eq!(place_of(&root.join(path), roots), expected, "{path}");
            let roots = std::slice::from_ref(&alias);
            assert_eq!(place_of(&alias.join(path), roots), expected, "{path}");
        }
        let gone = folder.path().join("gone");
        assert_eq!(place_of(&gone.join("x"), &[gone]), Place::Outside);
    }
}

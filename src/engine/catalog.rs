//! Which recordings there are below the data roots.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::Engine;
use crate::error::Error;
use crate::mef::{Roots, Walk, WalkLimits, find_sessions};

/// Room for looks at the same time. One that waits for dead storage keeps its place for
/// as long as that takes, and nobody else waits for it.
#[derive(Debug)]
pub(super) struct Listings(Arc<Semaphore>);

impl Listings {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS))))
    }
}

/// A look for sessions below a folder.
pub(crate) struct Listing<F> {
    pub(crate) folder: PathBuf,
    /// Goes on after this path below it.
    pub(crate) after: Option<PathBuf>,
    /// Which paths below it are wanted.
    pub(crate) accepts: F,
    /// Sessions that are found at most.
    pub(crate) most: usize,
}

impl Engine {
    /// Looks for sessions below a folder.
    ///
    /// # Errors
    /// [`Error::Busy`] where as many looks are under way as may be;
    /// [`Error::StuckStorage`] where the storage does not answer within the stall limit.
    pub(crate) async fn find_sessions(
        &self,
        listing: Listing<impl Fn(&std::path::Path) -> bool + Send + 'static>,
    ) -> Result<Walk, Error> {
        let settings = &self.inner.settings;
        let room = Arc::clone(&self.inner.listings.0).try_acquire_owned();
        let room = room.map_err(|_| Error::Busy {
            limit: "limits.listings",
            value: settings.listings as u64,
        })?;
        let limits = WalkLimits {
            sessions: listing.most,
            entries: settings.listing_entries,
        };
        let roots = Roots::new(&settings.worker.confines.roots);
        let what = listing.folder.display().to_string();
        let walk = tokio::task::spawn_blocking(move || {
            let Listing {
                folder,
                after,
                accepts,
                ..
            } = listing;
            let walk = find_sessions(&roots, &folder, after.as_deref(), &accepts, limits);
            drop(room);
            walk
        });
        match tokio::time::timeout(settings.stall_limit, walk).await {
            Ok(walk) => walk.map_err(|_| Error::Stopped),
            Err(_) => Err(Error::StuckStorage { what }),
        }
    }
}

//! What an engine has done.

use super::permits::Held;
use crate::actors::cache::CacheStatistics;
use crate::actors::coordinator::CoordinatorStatistics;
use crate::actors::file_manager::RecordingStatistics;
use crate::actors::prefetcher::PrefetchStatistics;
use crate::actors::supervisor::SupervisorStatistics;

/// Figures of all actors. Each part is consistent in itself; the parts are taken
/// one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Damaged blocks and segments that reads have masked, once for each message
    /// that they have left a gap in.
    pub masked_blocks: u64,
    /// What reads hold beside the cache.
    pub held: Held,
    /// Open recordings.
    pub recordings: RecordingStatistics,
    /// The page cache.
    pub cache: CacheStatistics,
    /// Pages in flight.
    pub coordinator: CoordinatorStatistics,
    /// Predictions.
    pub prefetch: PrefetchStatistics,
    /// Workers.
    pub supervisor: SupervisorStatistics,
}

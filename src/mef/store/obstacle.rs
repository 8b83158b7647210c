//! Where tests get between this program and the system: each call that looks at a
//! file asks here first. Without the feature `fault-injection` there is nothing here.

use std::io;
use std::path::Path;

/// What is about to be asked of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// A file or a folder is opened.
    Open,
    /// Bytes are read.
    Read,
    /// The status of a file.
    Status,
}

/// What stands in the way of a call: an error, in place of the system's answer.
#[cfg(feature = "fault-injection")]
pub(crate) type Obstacle = fn(&Path, Call) -> io::Result<()>;

#[cfg(feature = "fault-injection")]
static OBSTACLE: std::sync::OnceLock<Obstacle> = std::sync::OnceLock::new();

/// Puts an obstacle up, for the rest of this process's life; the first stays.
#[cfg(feature = "fault-injection")]
pub(crate) fn put_up(obstacle: Obstacle) {
    OBSTACLE.get_or_init(|| obstacle);
}

/// Passes the obstacle, if there is one.
#[cfg(feature = "fault-injection")]
pub(super) fn pass(path: &Path, call: Call) -> io::Result<()> {
    OBSTACLE
        .get()
        .map_or(Ok(()), |obstacle| obstacle(path, call))
}

/// Nothing is in the way.
#[cfg(not(feature = "fault-injection"))]
#[inline]
pub(super) fn pass(_: &Path, _: Call) -> io::Result<()> {
    Ok(())
}

//! What the actors are told at their start, in plain units.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Limits and sizes of the actor tree. The defaults are those of the
/// configuration file.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Messages that an actor's mailbox holds before senders wait.
    pub(crate) mailbox: usize,
    pub(crate) cache_bytes: usize,
    /// Pages that nobody asked for within this time are dropped.
    pub(crate) cache_idle_limit: Option<Duration>,
    /// Worker processes; none: everything is decoded in process.
    pub(crate) workers: usize,
    pub(crate) in_process_threads: usize,
    /// Segments that one worker keeps open.
    pub(crate) open_segments: NonZeroUsize,
    /// A worker with work that says nothing for this long is killed.
    pub(crate) stall_limit: Duration,
    /// A worker that does not report for this long after its start is given up.
    pub(crate) spawn_limit: Duration,
    pub(crate) restart_backoff_min: Duration,
    pub(crate) restart_backoff_max: Duration,
    /// Restarts of one slot within the window, after which it rests.
    pub(crate) restart_budget: usize,
    pub(crate) restart_window: Duration,
    pub(crate) rest: Duration,
    /// Samples that a page aims at.
    pub(crate) page_samples: u32,
    /// Windows of a segment grid that are predicted ahead.
    pub(crate) ahead_segments: u32,
    /// Windows of a time range that are predicted ahead.
    pub(crate) ahead_windows: u32,
    /// Windows of a time range that are predicted behind.
    pub(crate) behind_windows: u32,
    /// Decoded bytes of one prediction.
    pub(crate) prefetch_bytes: usize,
    pub(crate) open_recordings: usize,
    /// Pages in flight or waiting to be decoded, all requests together.
    pub(crate) queued_pages: usize,
    /// Decoded bytes that one read works ahead of its reader.
    pub(crate) read_ahead_bytes: usize,
    pub(crate) channels_per_read: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mailbox: 1024,
            cache_bytes: 512 << 20,
            cache_idle_limit: Some(Duration::from_secs(1800)),
            workers: 2,
            in_process_threads: 2,
            open_segments: NonZeroUsize::MIN.saturating_add(255),
            stall_limit: Duration::from_secs(30),
            spawn_limit: Duration::from_secs(5),
            restart_backoff_min: Duration::from_millis(20),
            restart_backoff_max: Duration::from_secs(2),
            restart_budget: 10,
            restart_window: Duration::from_secs(10),
            rest: Duration::from_secs(30),
            page_samples: 4096,
            ahead_segments: 3,
            ahead_windows: 1,
            behind_windows: 1,
            prefetch_bytes: 64 << 20,
            open_recordings: 1000,
            queued_pages: 65_536,
            read_ahead_bytes: 8 << 20,
            channels_per_read: 4096,
        }
    }
}

//! What the actors are told at their start, in plain units.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{Config, LogFormat, SandboxMode};
use crate::worker::{Confines, WorkerSettings};

/// File descriptors of a worker beside those of open segments: channels, archives,
/// and what a session that is being opened takes at a time.
const SPARE_DESCRIPTORS: u64 = 128;

/// How long the stretches are that a signal is reduced in, one by one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stretches {
    pub(crate) length: Duration,
    /// The length is rounded to whole blocks of the channel.
    pub(crate) whole_blocks: bool,
}

/// Limits and sizes of the actor tree; the configuration describes them.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Messages that an actor's mailbox holds before senders wait.
    pub(crate) mailbox: usize,
    pub(crate) cache_bytes: usize,
    /// Pages that nobody asked for within this time are dropped.
    pub(crate) cache_idle_limit: Option<Duration>,
    /// Worker processes that are always there; none: everything is decoded in
    /// process.
    pub(crate) workers: usize,
    /// Worker processes that there are at most.
    pub(crate) most_workers: usize,
    /// How long pages wait for a worker before another is started.
    pub(crate) grow_delay: Duration,
    /// How long a worker beyond the least has nothing to do before it is ended.
    pub(crate) shrink_idle: Duration,
    pub(crate) in_process_threads: usize,
    /// What every worker is told.
    pub(crate) worker: WorkerSettings,
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
    /// Abandoned workers that may be there before no other is started.
    pub(crate) most_stuck: usize,
    /// Samples that a page aims at.
    pub(crate) page_samples: u32,
    /// Windows of a segment grid that are predicted ahead.
    pub(crate) ahead_segments: usize,
    /// Windows of a time range that are predicted ahead.
    pub(crate) ahead_windows: usize,
    /// Windows of a time range that are predicted behind.
    pub(crate) behind_windows: usize,
    /// Decoded bytes of one prediction.
    pub(crate) prefetch_bytes: usize,
    pub(crate) open_recordings: usize,
    /// Pages in flight or waiting to be decoded, all requests together.
    pub(crate) queued_pages: usize,
    /// Requests that wait for pages or for one opening.
    pub(crate) waiters: usize,
    /// Decoded bytes that one read works ahead of its reader.
    pub(crate) read_ahead_bytes: usize,
    /// Decoded bytes that all reads hold beside the cache.
    pub(crate) in_flight_bytes: usize,
    /// Of these, those that one client's reads hold.
    pub(crate) client_bytes: usize,
    /// Bytes of samples that one request may have.
    pub(crate) request_bytes: u64,
    /// MiB of the points that reads are reduced to.
    pub(crate) points_mb: usize,
    /// Bytes that are kept of envelopes for the next.
    pub(crate) pyramid_bytes: usize,
    /// Where it is kept on disk, if it is, and how many bytes of it.
    pub(crate) envelope_folder: Option<PathBuf>,
    pub(crate) pyramid_disk_bytes: u64,
    /// Bytes of the indices of all open recordings.
    pub(crate) metadata_bytes: usize,
    pub(crate) channels_per_read: usize,
    /// Sessions of clients that have an id.
    pub(crate) client_sessions: NonZeroUsize,
    pub(crate) listings: usize,
    pub(crate) listing_entries: usize,
    /// Those that nobody used within this time are ended.
    pub(crate) session_idle_limit: Option<Duration>,
    /// Recordings that were opened in passing are closed when nobody used them for so
    /// long.
    pub(crate) passing_limit: Duration,
    /// How signals are reduced to the rate that a client wants.
    pub(crate) stretches: Stretches,
    /// How old what is known of a recording's files may be.
    pub(crate) staleness: Duration,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let Config {
            cache,
            workers,
            pages,
            prefetch,
            limits,
            live,
            legacy,
            paths,
            ..
        } = config;
        Self {
            mailbox: limits.mailbox,
            cache_bytes: cache.size_bytes(),
            cache_idle_limit: cache.idle_ttl(),
            workers: workers.min,
            most_workers: workers.most(),
            grow_delay: workers.grow_delay(),
            shrink_idle: workers.shrink_idle(),
            in_process_threads: workers.in_process_threads,
            worker: WorkerSettings {
                open_segments: NonZeroUsize::new(workers.open_segments)
                    .unwrap_or(NonZeroUsize::MIN),
                confines: Confines {
                    enabled: workers.sandbox != SandboxMode::Off,
                    roots: paths.read_roots(),
                    memory_bytes: workers.memory_bytes(),
                    descriptors: SPARE_DESCRIPTORS.saturating_add(workers.open_segments as u64),
                },
                sandbox_required: workers.sandbox == SandboxMode::Required,
                log_json: config.log.format == LogFormat::Json,
            },
            stall_limit: workers.stall_limit(),
            spawn_limit: workers.spawn_limit(),
            restart_backoff_min: workers.restart_backoff_min(),
            restart_backoff_max: workers.restart_backoff_max(),
            restart_budget: workers.restart_budget,
            restart_window: workers.restart_window(),
            rest: workers.rest(),
            most_stuck: workers.abandoned_limit,
            page_samples: u32::try_from(pages.target_samples).unwrap_or(u32::MAX),
            ahead_segments: prefetch.ahead_segments,
            ahead_windows: prefetch.ahead_windows,
            behind_windows: prefetch.behind_windows,
            prefetch_bytes: prefetch.max_bytes(),
            open_recordings: limits.open_recordings,
            queued_pages: limits.queued_pages,
            waiters: limits.waiters,
            read_ahead_bytes: limits.read_ahead_bytes(),
            in_flight_bytes: limits.in_flight_bytes(),
            client_bytes: limits.client_bytes(),
            request_bytes: limits.request_bytes(),
            points_mb: limits.points_mb,
            pyramid_bytes: limits.pyramid_bytes(),
            envelope_folder: paths.cache_folder().map(Into::into),
            pyramid_disk_bytes: limits.pyramid_disk_bytes(),
            metadata_bytes: limits.metadata_bytes(),
            channels_per_read: limits.channels_per_read,
            listings: limits.listings,
            listing_entries: limits.listing_entries,
            client_sessions: NonZeroUsize::new(limits.client_sessions).unwrap_or(NonZeroUsize::MIN),
            session_idle_limit: legacy.session_idle_limit(),
            passing_limit: live.passing(),
            stretches: Stretches {
                length: legacy.tile(),
                whole_blocks: legacy.respect_mef_blocks,
            },
            staleness: live.staleness(),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::from(&Config::default())
    }
}

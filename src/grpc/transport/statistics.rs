//! Figures of connections and calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counts what becomes of connections and calls. Clones share the counts: keep one
/// and give the other to [`serve`](crate::grpc::serve).
#[derive(Clone, Debug, Default)]
pub struct ConnectionCounters(Arc<Counts>);

/// What became of connections and calls, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStatistics {
    /// Connections that are open.
    pub connections: usize,
    /// Connections that were taken, in all.
    pub accepted: u64,
    /// Connections that were closed at once, since there were too many.
    pub refused: u64,
    /// Times that the system had no descriptor or memory for another connection.
    pub accept_failures: u64,
    /// Connections cut that did not begin to speak HTTP/2.
    pub cut_handshake: u64,
    /// Connections cut that gave no sign of life.
    pub cut_silent: u64,
    /// Connections cut that took nothing of what was ready for them.
    pub cut_stalled: u64,
    /// Connections cut by the end of the server.
    pub cut_shutdown: u64,
    /// Calls under way: until their reply has left, or was given up.
    pub streams: usize,
    /// Bytes of replies that were made and have not left.
    pub unsent_bytes: usize,
    /// Calls refused, since there were too many.
    pub streams_refused: u64,
    /// Replies given up, since nothing of them was taken.
    pub streams_stalled: u64,
    /// Replies that the client's deadline ended.
    pub streams_past_deadline: u64,
}

/// The counts, each as the field of [`ConnectionStatistics`].
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connections: AtomicUsize,
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) accept_failures: AtomicU64,
    pub(super) cut_handshake: AtomicU64,
    pub(super) cut_silent: AtomicU64,
    pub(super) cut_stalled: AtomicU64,
    pub(super) cut_shutdown: AtomicU64,
    pub(super) streams: AtomicUsize,
    pub(super) unsent_bytes: AtomicUsize,
    pub(super) streams_refused: AtomicU64,
    pub(super) streams_stalled: AtomicU64,
    pub(super) streams_past_deadline: AtomicU64,
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl ConnectionCounters {
    /// The figures of now.
    pub fn statistics(&self) -> ConnectionStatistics {
        let counts = &self.0;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ConnectionStatistics {
            connections: counts.connections.load(Ordering::Relaxed),
            accepted: read(&counts.accepted),
            refused: read(&counts.refused),
            accept_failures: read(&counts.accept_failures),
            cut_handshake: read(&counts.cut_handshake),
            cut_silent: read(&counts.cut_silent),
            cut_stalled: read(&counts.cut_stalled),
            cut_shutdown: read(&counts.cut_shutdown),
            streams: counts.streams.load(Ordering::Relaxed),
            unsent_bytes: counts.unsent_bytes.load(Ordering::Relaxed),
            streams_refused: read(&counts.streams_refused),
            streams_stalled: read(&counts.streams_stalled),
            streams_past_deadline: read(&counts.streams_past_deadline),
        }
    }

    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.0
    }
}

/// One of what there is at a time, until it is dropped.
pub(super) struct Place {
    counts: Arc<Counts>,
    gauge: fn(&Counts) -> &AtomicUsize,
}

impl Place {
    /// Takes one of `limit` places, if one is left.
    pub(super) fn take(
        counts: &Arc<Counts>,
        gauge: fn(&Counts) -> &AtomicUsize,
        limit: usize,
    ) -> Option<Self> {
        let more = |taken| (taken < limit).then_some(taken + 1);
        let order = Ordering::Relaxed;
        gauge(counts).fetch_update(order, order, more).ok()?;
        Some(Self {
            counts: Arc::clone(counts),
            gauge,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        (self.gauge)(&self.counts).fetch_sub(1, Ordering::Relaxed);
    }
}

//! What all connections of a server share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::limits::ConnectionLimits;
use super::log::Gate;
use super::statistics::{ConnectionCounters, Counts, Place, count};
use super::wire::Peer;
use crate::grpc::access::tokens::Tokens;
use crate::grpc::metrics::CallMetrics;

/// What all connections of a server share.
pub(super) struct Shared {
    pub(super) limits: ConnectionLimits,
    /// Those that calls need one of, if they do.
    pub(super) tokens: Option<Tokens>,
    pub(super) calls: CallMetrics,
    counters: ConnectionCounters,
    /// Numbers of calls.
    next_call: AtomicU64,
    /// Bytes of large messages that replies have room for.
    large: AtomicUsize,
    /// The log, by kind of line.
    pub(super) cuts: Gate,
    pub(super) stalls: Gate,
    refusals: Gate,
    call_refusals: Gate,
    failures: Gate,
    strangers: Gate,
}

impl Shared {
    pub(super) fn new(
        limits: ConnectionLimits,
        counters: ConnectionCounters,
        calls: CallMetrics,
        tokens: Option<Tokens>,
    ) -> Self {
        Self {
            limits,
            tokens,
            calls,
            counters,
            next_call: AtomicU64::new(0),
            large: AtomicUsize::new(0),
            cuts: Gate::default(),
            stalls: Gate::default(),
            refusals: Gate::default(),
            call_refusals: Gate::default(),
            failures: Gate::default(),
            strangers: Gate::default(),
        }
    }

    pub(super) fn counts(&self) -> &Arc<Counts> {
        self.counters.counts()
    }

    pub(super) fn next_call(&self) -> u64 {
        self.next_call.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes room for a large message, if there is any left.
    pub(super) fn take_large(&self, bytes: usize) -> bool {
        let more = |taken: usize| {
            let taken = taken.checked_add(bytes)?;
            (taken <= self.limits.large_bytes).then_some(taken)
        };
        let order = Ordering::Relaxed;
        self.large.fetch_update(order, order, more).is_ok()
    }

    /// Gives room for large messages back.
    pub(super) fn give_large(&self, bytes: usize) {
        self.large.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A place for a connection.
    pub(super) fn connection_place(&self, peer: Peer) -> Option<Place> {
        let limit = self.limits.connections;
        let counts = self.counts();
        let place = Place::take(counts, |counts| &counts.connections, limit);
        if place.is_some() {
            count(&counts.accepted);
        } else {
            count(&counts.refused);
            if let Some(suppressed) = self.refusals.pass() {
                tracing::warn!(%peer, limit, suppressed, "connection is refused");
            }
        }
        place
    }

    /// A place for a call.
    pub(super) fn stream_place(&self, peer: Peer) -> Option<Place> {
        let limit = self.limits.streams;
        let counts = self.counts();
        let place = Place::take(counts, |counts| &counts.streams, limit);
        if place.is_none() {
            count(&counts.streams_refused);
            if let Some(suppressed) = self.call_refusals.pass() {
                tracing::warn!(%peer, limit, suppressed, "call is refused");
            }
        }
        place
    }

    /// Notes that a call is not taken for want of a token, or a place for it.
    pub(super) fn note_stranger(&self, peer: Peer, refusal: &tonic::Status) {
        if let Some(suppressed) = self.strangers.pass() {
            let reason = refusal.message();
            tracing::info!(%peer, reason, suppressed, "call is not taken");
        }
    }

    /// Notes that the system did not hand out a connection.
    pub(super) fn note_accept_failure(&self, error: &std::io::Error) {
        count(&self.counts().accept_failures);
        if let Some(suppressed) = self.failures.pass() {
            tracing::error!(%error, suppressed, "no connection can be taken");
        }
    }
}

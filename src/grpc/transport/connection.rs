//! One connection of a client, and the looks at how it does.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use super::limits::ConnectionLimits;
use super::locked;
use super::reply::Reply;
use super::shared::Shared;
use super::statistics::{Place, count};
use super::wire::Peer;

/// Bytes that every HTTP/2 client sends first.
const PREFACE_BYTES: usize = 24;

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// It did not begin to speak HTTP/2.
    Handshake,
    /// It gave no sign of life.
    Silent,
    /// What it was sent stays where it is.
    Stalled,
}

impl Cut {
    /// The reason in words.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Handshake => "no HTTP/2 was spoken",
            Self::Silent => "no sign of life",
            Self::Stalled => "nothing is taken",
        }
    }
}

/// What is known of a connection, by its socket, its calls and whoever looks at it.
pub(super) struct Connection {
    pub(super) peer: Peer,
    /// Whether nobody can listen to it: it is encrypted, or stays on this machine.
    pub(super) is_private: bool,
    pub(super) shared: Arc<Shared>,
    begun: Instant,
    /// Bytes received, counted until the client has begun to speak.
    greeting: AtomicUsize,
    /// When the last bytes came, and when the last ones went, in microseconds since
    /// the beginning.
    received: AtomicU64,
    sent: AtomicU64,
    /// The calls under way. No more than HTTP/2 lets the client have, and those
    /// whose last bytes are leaving.
    replies: Mutex<HashMap<u64, Weak<Reply>>>,
    /// Whether it ended in the way of the protocol.
    ended: AtomicBool,
    /// Whether HTTP/1.1 is spoken, in which nobody can be asked whether he is there.
    http_1: AtomicBool,
    _place: Place,
}

impl Connection {
    pub(super) fn new(peer: Peer, is_encrypted: bool, shared: Arc<Shared>, place: Place) -> Self {
        Self {
            peer,
            is_private: is_encrypted || peer.is_near(),
            shared,
            begun: Instant::now(),
            greeting: AtomicUsize::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            replies: Mutex::default(),
            ended: AtomicBool::new(false),
            http_1: AtomicBool::new(false),
            _place: place,
        }
    }

    /// Whether the client has begun to speak HTTP/2, as far as its length says.
    pub(super) fn is_greeted(&self) -> bool {
        self.greeting.load(Ordering::Relaxed) >= PREFACE_BYTES
    }

    /// How long it may still take to begin to speak HTTP/2.
    pub(super) fn handshake_left(&self) -> Duration {
        let limit = self.shared.limits.handshake;
        limit.saturating_sub(self.begun.elapsed())
    }

    /// Notes bytes of what may be HTTP/2.
    pub(super) fn note_greeting(&self, bytes: usize) {
        if !self.is_greeted() {
            self.greeting.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Notes that bytes came.
    pub(super) fn note_received(&self) {
        self.received.store(self.now(), Ordering::Relaxed);
    }

    /// Notes that bytes went.
    pub(super) fn note_sent(&self) {
        self.sent.store(self.now(), Ordering::Relaxed);
    }

    /// Notes that HTTP/1.1 is spoken.
    pub(super) fn note_http_1(&self) {
        self.http_1.store(true, Ordering::Relaxed);
    }

    /// Notes a call.
    pub(super) fn add(&self, number: u64, reply: &Arc<Reply>) {
        locked(&self.replies).insert(number, Arc::downgrade(reply));
    }

    /// Forgets a call.
    pub(super) fn remove(&self, number: u64) {
        locked(&self.replies).remove(&number);
    }

    fn replies(&self) -> Vec<Arc<Reply>> {
        let replies = locked(&self.replies);
        replies.values().filter_map(Weak::upgrade).collect()
    }

    /// Gives up replies that nobody takes, and says whether the connection has to
    /// go.
    pub(super) fn look(&self, limits: &ConnectionLimits) -> Option<Cut> {
        let now = self.begun.elapsed();
        if !self.is_greeted() {
            return (now >= limits.handshake).then_some(Cut::Handshake);
        }
        let since = |moment: &AtomicU64| {
            now.saturating_sub(Duration::from_micros(moment.load(Ordering::Relaxed)))
        };
        // A slow link brings answers late, behind the data that it takes.
        let takes = since(&self.sent) < limits.keepalive;
        let replies = self.replies();
        // Over HTTP/1.1 nobody says anything while he waits; the system asks whether the
        // other one is there.
        let waits = self.http_1.load(Ordering::Relaxed) && !replies.is_empty();
        if since(&self.received) >= limits.silence() && !takes && !waits {
            return Some(Cut::Silent);
        }
        // They were given up a look ago, and their bytes are still here.
        if !replies.is_empty() && replies.iter().all(|reply| reply.is_given_up()) {
            return Some(Cut::Stalled);
        }
        for reply in replies {
            reply.look(limits);
        }
        None
    }

    /// Notes that both sides are done.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether both sides are done.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Ends all calls.
    pub(super) fn abandon(&self) {
        for reply in self.replies() {
            reply.abort();
        }
    }

    /// Notes in counts and log why the connection is cut.
    pub(super) fn note(&self, cut: Cut) {
        let counts = self.shared.counts();
        count(match cut {
            Cut::Handshake => &counts.cut_handshake,
            Cut::Silent => &counts.cut_silent,
            Cut::Stalled => &counts.cut_stalled,
        });
        if let Some(suppressed) = self.shared.cuts.pass() {
            let (peer, reason) = (self.peer, cut.reason());
            tracing::warn!(%peer, reason, suppressed, "connection is cut");
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

//! A reply on its way, from the handler to the socket.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status};

use super::connection::Connection;
use super::limits::ConnectionLimits;
use super::locked;
use super::statistics::{Place, count};
use crate::grpc::access::tokens::TokenPlace;
use crate::grpc::metrics::Call;
use crate::grpc::native::status::Refusal;
use crate::trace::Trace;

/// Most bytes of a piece: a message may be long, and a client that takes it slowly
/// and steadily is no stalled one. What a message of a long reply has beside its
/// samples fits in, so that no tiny piece follows each.
const PIECE_BYTES: usize = 144 << 10;
/// How long a reply stays where it is after its deadline.
const OVERDUE: Duration = Duration::from_secs(1);

/// The task of a call, once it runs.
pub(super) type Task = Arc<OnceLock<AbortHandle>>;

/// What is known of a call, until the last byte of its reply has left.
pub(super) struct Reply {
    connection: Arc<Connection>,
    number: u64,
    trace: Trace,
    task: Task,
    deadline: Option<Instant>,
    progress: Mutex<Progress>,
    /// Bytes of large messages that it may have, taken from those of all replies.
    large: AtomicUsize,
    /// Among all calls, and among those of its token.
    _places: (Place, Option<TokenPlace>),
}

/// Where a service asks for room to answer in one large message.
#[derive(Clone)]
pub(in crate::grpc) struct Room(pub(super) Arc<Reply>);

impl Room {
    /// Whether the reply may hold a message of so many bytes, until all of it has
    /// left.
    pub(in crate::grpc) fn take(&self, bytes: usize) -> bool {
        let shared = &self.0.connection.shared;
        let taken = shared.take_large(bytes);
        if taken {
            self.0.large.fetch_add(bytes, Ordering::Relaxed);
        }
        taken
    }
}

struct Progress {
    /// Pieces that were made and have not left.
    pieces: usize,
    /// When the last one left, or the only one was made.
    moved: Instant,
    /// Whether the task was ended, since nobody took the reply.
    given_up: bool,
    /// Whether it was counted as one past its deadline.
    past_deadline: bool,
}

impl Reply {
    /// Notes a call in its connection.
    pub(super) fn begin(
        connection: &Arc<Connection>,
        trace: Trace,
        task: Task,
        deadline: Option<Instant>,
        places: (Place, Option<TokenPlace>),
    ) -> Arc<Self> {
        let reply = Arc::new(Self {
            connection: Arc::clone(connection),
            number: connection.shared.next_call(),
            trace,
            task,
            deadline,
            progress: Mutex::new(Progress {
                pieces: 0,
                moved: Instant::now(),
                given_up: false,
                past_deadline: false,
            }),
            large: AtomicUsize::new(0),
            _places: places,
        });
        connection.add(reply.number, &reply);
        reply
    }

    /// When the call ends, at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Counts that the deadline has ended it.
    pub(super) fn note_past_deadline(&self) {
        self.count_past_deadline(&mut locked(&self.progress));
    }

    /// Ends the task of the call. What it did is dropped, the stream is reset, and
    /// the transport lets go of what was handed out.
    pub(super) fn abort(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// Whether the call was ended, since nobody took its reply.
    pub(super) fn is_given_up(&self) -> bool {
        locked(&self.progress).given_up
    }

    /// Ends the call where nobody takes its reply.
    pub(super) fn look(&self, limits: &ConnectionLimits) {
        let now = Instant::now();
        let mut progress = locked(&self.progress);
        // What the transport has in hand keeps it from asking for more, and so from
        // hearing of the deadline.
        if progress.pieces == 0 || progress.given_up {
            return;
        }
        if self.deadline.is_some_and(|deadline| {
            // One that is taken asks for more soon, and is told why it ends.
            now.saturating_duration_since(deadline.max(progress.moved)) >= OVERDUE
        }) {
            self.count_past_deadline(&mut progress);
        } else if now.saturating_duration_since(progress.moved) >= limits.write_stall {
            count(&self.connection.shared.counts().streams_stalled);
            if let Some(suppressed) = self.connection.shared.stalls.pass() {
                let _entered = self.trace.span().enter();
                let (peer, limit) = (self.connection.peer, limits.write_stall);
                tracing::warn!(%peer, ?limit, suppressed, "reply is given up: nothing is taken");
            }
        } else {
            return;
        }
        progress.given_up = true;
        drop(progress);
        self.abort();
    }

    /// It may end twice: nobody has taken it by then, nor what tells of that.
    fn count_past_deadline(&self, progress: &mut Progress) {
        if !std::mem::replace(&mut progress.past_deadline, true) {
            count(&self.connection.shared.counts().streams_past_deadline);
        }
    }

    /// A piece of all these bytes.
    fn piece(self: &Arc<Self>, bytes: Bytes) -> Piece {
        let mut progress = locked(&self.progress);
        if progress.pieces == 0 {
            progress.moved = Instant::now();
        }
        progress.pieces += 1;
        let unsent = &self.connection.shared.counts().unsent_bytes;
        unsent.fetch_add(bytes.len(), Ordering::Relaxed);
        Piece {
            length: bytes.len(),
            bytes,
            reply: Some(Arc::clone(self)),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.connection.remove(self.number);
        let large = *self.large.get_mut();
        self.connection.shared.give_large(large);
    }
}

/// A piece of a reply on its way to the transport, or in its hands: that drops it when
/// the last byte is in the socket.
pub(super) struct Piece {
    bytes: Bytes,
    /// Bytes at the beginning.
    length: usize,
    reply: Option<Arc<Reply>>,
}

impl Piece {
    /// As much of it as is handed out at a time, and the rest, if there is one.
    fn split(mut self) -> (Self, Option<Self>) {
        if self.length <= PIECE_BYTES {
            return (self, None);
        }
        self.length -= PIECE_BYTES;
        let first = Self {
            length: PIECE_BYTES,
            bytes: self.bytes.split_to(PIECE_BYTES),
            reply: self.reply.clone(),
        };
        if let Some(reply) = &self.reply {
            locked(&reply.progress).pieces += 1;
        }
        (first, Some(self))
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let Some(reply) = self.reply.take() else {
            return;
        };
        let unsent = &reply.connection.shared.counts().unsent_bytes;
        unsent.fetch_sub(self.length, Ordering::Relaxed);
        let mut progress = locked(&reply.progress);
        progress.pieces -= 1;
        progress.moved = Instant::now();
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, bytes: usize) {
        self.bytes.advance(bytes);
    }
}

/// The body of a reply: what the service makes, until the client's deadline.
#[derive(Default)]
pub(super) struct ReplyBody {
    /// Nothing where there is no body, or no more of it.
    running: Option<Running>,
    /// Counts the call, until the transport lets go of its reply.
    call: Option<Call>,
}

struct Running {
    body: tonic::body::Body,
    /// What is not handed out yet of the last message.
    rest: Option<Piece>,
    reply: Arc<Reply>,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl ReplyBody {
    /// The reply to a call of gRPC itself.
    pub(super) fn new(body: tonic::body::Body, reply: Arc<Reply>) -> Self {
        let deadline = reply.deadline.map(|at| Box::pin(sleep_until(at)));
        Self::of_parts(body, reply, deadline)
    }

    /// The reply to one that came by gRPC-Web, whose body ends at the deadline by itself,
    /// and counts itself.
    pub(super) fn of_web(body: tonic::body::Body, reply: Arc<Reply>) -> Self {
        Self::of_parts(body, reply, None)
    }

    fn of_parts(
        body: tonic::body::Body,
        reply: Arc<Reply>,
        deadline: Option<Pin<Box<Sleep>>>,
    ) -> Self {
        Self {
            running: Some(Running {
                body,
                rest: None,
                reply,
                deadline,
            }),
            call: None,
        }
    }

    /// The same, of a call that is counted.
    pub(super) fn of(mut self, call: Call) -> Self {
        self.call = Some(call);
        self
    }
}

impl Body for ReplyBody {
    type Data = Piece;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Status>>> {
        let Self {
            running: whole,
            call,
        } = &mut *self;
        let Some(running) = whole else {
            return Poll::Ready(None);
        };
        let span = running.reply.trace.span().clone();
        let _entered = span.enter();
        let deadline = running.deadline.as_mut();
        if deadline.is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            running.reply.note_past_deadline();
            // Nothing of the read goes on.
            *whole = None;
            let late = past_deadline();
            note(call, |call| call.note_code(late.code()));
            let mut trailers = HeaderMap::new();
            let added = late.add_header(&mut trailers);
            return Poll::Ready(Some(added.map(|()| Frame::trailers(trailers))));
        }
        let message = match running.rest.take() {
            Some(rest) => rest,
            None => {
                let Some(frame) = ready!(Pin::new(&mut running.body).poll_frame(cx)) else {
                    *whole = None;
                    return Poll::Ready(None);
                };
                let reply = &running.reply;
                let frame = frame.inspect_err(|status| {
                    note(call, |call| call.note_code(status.code()));
                });
                let frame = frame?.map_data(|bytes| reply.piece(bytes));
                match frame.into_data() {
                    Ok(message) => {
                        note(call, |call| call.note_bytes(message.length));
                        message
                    }
                    Err(frame) => {
                        if let Some(trailers) = frame.trailers_ref() {
                            note(call, |call| call.note_headers(trailers));
                        }
                        return Poll::Ready(Some(Ok(frame)));
                    }
                }
            }
        };
        let (piece, rest) = message.split();
        running.rest = rest;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.running
            .as_ref()
            .is_none_or(|running| running.rest.is_none() && running.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.running {
            None => SizeHint::with_exact(0),
            Some(running) if running.rest.is_none() => running.body.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}

/// Notes something of a call that is counted.
fn note(call: &mut Option<Call>, what: impl FnOnce(&mut Call)) {
    if let Some(call) = call {
        what(call);
    }
}

/// What a call ends with at the deadline that its client set.
pub(super) fn past_deadline() -> Status {
    let text = "the deadline of the call has passed";
    Refusal::new(Code::DeadlineExceeded, "DEADLINE_PASSED", text).into()
}

/// The time that a client gives a call, by its header `grpc-timeout`.
pub(in crate::grpc) fn timeout(header: &str) -> Option<Duration> {
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    // At most 8, as the protocol has it: no unit overflows.
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit())
    {
        return None;
    }
    let value = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_of_the_protocol() {
        for (header, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("0S", Some(Duration::ZERO)),
            ("100000000S", None),
            ("", None),
            ("S", None),
            ("5", None),
            ("5s", None),
            ("+5S", None),
            ("-5S", None),
            ("5 S", None),
            ("5ü", None),
        ] {
            assert_eq!(timeout(header), expected, "{header}");
        }
    }
}

//! The tasks that calls run in, and their threads.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tonic::Status;

use super::reply::{Piece, ReplyBody, Task};
use crate::trace;

tokio::task_local! {
    /// The task that a call runs in.
    static TASK: Task;
}

/// The task of the call that is running, for what ends it.
pub(super) fn task() -> Task {
    TASK.try_with(Task::clone).unwrap_or_default()
}

/// Runs each call of a connection in a task of its own, which can be ended.
///
/// Samples are placed and packed in these tasks, for milliseconds at a time. They have
/// threads of their own: a question after the server's health, and what connections
/// have to say, would have to wait until hundreds of them had their turn.
#[derive(Clone)]
pub(super) struct CallTasks {
    /// Where calls run, but for those that are urgent.
    threads: Handle,
    /// Whether the next call to run is urgent. HTTP/2 has each call run right after it
    /// was taken; if it did not, calls would run where others do, and be answered.
    is_urgent: Arc<AtomicBool>,
}

impl CallTasks {
    pub(super) fn new(threads: Handle) -> Self {
        Self {
            threads,
            is_urgent: Arc::default(),
        }
    }

    /// Says of the call that is taken now whether it is urgent.
    pub(super) fn note(&self, is_urgent: bool) {
        self.is_urgent.store(is_urgent, Ordering::Relaxed);
    }

    fn spawn<F>(&self, call: F, is_urgent: bool) -> AbortHandle
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let task = Task::default();
        let call = trace::in_task(TASK.scope(Arc::clone(&task), call));
        let running = match is_urgent {
            true => tokio::spawn(call),
            false => self.threads.spawn(call),
        };
        // It was empty, so that this cannot fail.
        let _ = task.set(running.abort_handle());
        running.abort_handle()
    }

    /// Runs a call of HTTP/1.1, which has calls run in the task of the connection, in one
    /// like those of HTTP/2. `None` where it ended without an answer.
    pub(super) async fn relay<F>(&self, call: F) -> Option<Response<CallBody>>
    where
        F: Future<Output = Response<ReplyBody>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let (frames, relayed) = mpsc::channel(1);
        let call = async move {
            let (head, mut body) = call.await.into_parts();
            if answer.send(head).is_err() {
                return;
            }
            while let Some(frame) = body.frame().await {
                if frames.send(frame).await.is_err() {
                    return;
                }
            }
        };
        let ends = EndOnDrop(self.spawn(call, false));
        let head = answered.await.ok()?;
        let body = CallBody::Relayed {
            frames: relayed,
            _ends: ends,
        };
        Some(Response::from_parts(head, body))
    }
}

impl<F> hyper::rt::Executor<F> for CallTasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, call: F) {
        self.spawn(call, self.is_urgent.swap(false, Ordering::Relaxed));
    }
}

/// Ends a task of which nobody takes the outcome.
pub(super) struct EndOnDrop(AbortHandle);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The body of a reply: made in the task that sends it, or in another one.
pub(super) enum CallBody {
    Own(ReplyBody),
    Relayed {
        frames: mpsc::Receiver<Result<Frame<Piece>, Status>>,
        _ends: EndOnDrop,
    },
}

impl Body for CallBody {
    type Data = Piece;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Status>>> {
        match &mut *self {
            Self::Own(body) => Pin::new(body).poll_frame(cx),
            Self::Relayed { frames, .. } => frames.poll_recv(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Relayed { .. } => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Relayed { .. } => SizeHint::default(),
        }
    }
}

//! A call that panics is a defect of the server: its client is told so, and the log.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use hyper::HeaderMap;
use hyper::body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::grpc::native::status::Refusal;
use crate::panics::panic_text;

/// What a future comes to, or the status of its panic.
pub(super) async fn caught<F: Future>(future: F) -> Result<F::Output, Status> {
    let outcome = AssertUnwindSafe(future).catch_unwind().await;
    outcome.map_err(|panic| defect(&*panic))
}

/// A body that ends with the status of its panic.
pub(super) struct Guarded(Option<Body>);

impl Guarded {
    pub(super) fn new(body: Body) -> Self {
        Self(Some(body))
    }
}

impl hyper::body::Body for Guarded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(body).poll_frame(cx)));
        polled.unwrap_or_else(|panic| {
            self.0 = None;
            let mut trailers = HeaderMap::new();
            let added = defect(&*panic).add_header(&mut trailers);
            Poll::Ready(Some(added.map(|()| Frame::trailers(trailers))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

fn defect(panic: &(dyn Any + Send)) -> Status {
    tracing::error!(panic = panic_text(panic), "a call has panicked");
    let text = "a defect of the server ended the call";
    Refusal::new(Code::Internal, "UNEXPECTED", text).into()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_status() {
        assert_eq!(caught(async { 1 }).await.ok(), Some(1));
        let ended = caught(async { panic!("for a test") }).await;
        let status = ended.map(|(): ()| ()).unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.details().is_empty());
    }

    #[tokio::test]
    async fn a_body_ends_with_its_panic() {
        let frames = [1, 2].map(|number| {
            assert_eq!(number % 3, number);
            Ok::<_, Status>(Frame::data(Bytes::from_static(b"x")))
        });
        let mut frames = frames.into_iter();
        let frames = futures_util::stream::poll_fn(move |_| match frames.next() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => panic!("for a test"),
        });
        let body = Body::new(http_body_util::StreamBody::new(frames));
        let mut body = Guarded::new(body);
        for _ in 0..2 {
            assert!(body.frame().await.unwrap().unwrap().is_data());
        }
        let last = body.frame().await.unwrap().unwrap();
        let trailers = last.into_trailers().ok().unwrap();
        assert_eq!(trailers[Status::GRPC_STATUS], "13");
        assert!(body.frame().await.is_none());
    }
}

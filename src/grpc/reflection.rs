//! Which services and messages there are, for clients that learn it as they go.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tonic_reflection::server::{Builder, Error};

use super::health::Health;
use super::proto::DESCRIPTOR_SET;

fn public_services() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Adds both versions of the reflection service.
pub(super) fn add_to(
    routes: &mut RoutesBuilder,
    request_message: usize,
    health: &Health,
) -> Result<(), Error> {
    let v1 = public_services().build_v1()?;
    let v1 = v1.max_decoding_message_size(request_message);
    let v1alpha = public_services().build_v1alpha()?;
    let v1alpha = v1alpha.max_decoding_message_size(request_message);
    routes
        .add_service(UntilTheEnd::new(v1, health))
        .add_service(UntilTheEnd::new(v1alpha, health));
    Ok(())
}

/// A service of conversations, which are over when the server is ending: one that is
/// merely open would keep it from that.
#[derive(Clone)]
struct UntilTheEnd<S> {
    service: S,
    health: Health,
}

impl<S> UntilTheEnd<S> {
    fn new(service: S, health: &Health) -> Self {
        Self {
            service,
            health: health.clone(),
        }
    }
}

impl<S: NamedService> NamedService for UntilTheEnd<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for UntilTheEnd<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> S::Future {
        let ending = Box::pin(self.health.clone().ending());
        self.service
            .call(request.map(|body| Body::new(Questions { body, ending })))
    }
}

/// The client's side of a conversation: nothing more comes once the server is ending.
struct Questions<F> {
    body: Body,
    ending: Pin<Box<F>>,
}

impl<F: Future<Output = ()>> hyper::body::Body for Questions<F> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(self.ending.as_mut().poll(cx));
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

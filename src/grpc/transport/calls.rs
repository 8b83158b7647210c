//! Calls: which are taken, and for how long.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{Request, Response, StatusCode, Version};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, timeout_at};
use tonic::codegen::Service as _;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};

use super::connection::Connection;
use super::reply::{Reply, ReplyBody, Room, Task, past_deadline, timeout};
use super::statistics::count;
use super::web::{Web, is_grpc_web, is_of_browser};
use super::wire::Peer;
use crate::grpc::access::tokens::{Token, TokenPlace};

/// How long a client that was refused should wait, in milliseconds.
const PUSHBACK_MS: &str = "1000";

tokio::task_local! {
    /// The task that a call runs in.
    static TASK: Task;
}

/// Runs each call in a task of its own, which can be ended.
#[derive(Clone)]
pub(super) struct CallTasks;

impl<F> hyper::rt::Executor<F> for CallTasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, call: F) {
        let task = Task::default();
        let running = tokio::spawn(TASK.scope(Arc::clone(&task), call));
        // It was empty, so that this cannot fail.
        let _ = task.set(running.abort_handle());
    }
}

/// The calls of one connection.
#[derive(Clone)]
pub(super) struct Calls {
    pub(super) routes: Routes,
    /// What answers pages in browsers, if they may call.
    pub(super) web: Option<Web>,
    pub(super) connection: Arc<Connection>,
    pub(super) draining: watch::Receiver<bool>,
}

impl hyper::service::Service<Request<Incoming>> for Calls {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let calls = self.clone();
        Box::pin(async move { Ok(calls.reply(request).await) })
    }
}

/// Why a body did not come wholly.
type Lost = Box<dyn std::error::Error + Send + Sync>;

impl Calls {
    /// Answers a request in the way of gRPC, or in that of gRPC-Web.
    async fn reply(self, request: Request<Incoming>) -> Response<ReplyBody> {
        if request.version() < Version::HTTP_2 {
            self.connection.note_http_1();
        }
        let web = self.web.clone();
        let (mut response, of) = match web.filter(|_| is_of_browser(&request)) {
            Some(web) => {
                let request = request.map(tonic::body::Body::new);
                let response = web.answer(self, request).await;
                (response, ReplyBody::of_web as fn(_, _) -> _)
            }
            None if is_grpc_web(request.headers()) => {
                let mut response = Status::unimplemented(
                    "server.web_origins: this server does not answer pages in browsers",
                )
                .into_http();
                *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                return response;
            }
            None => (self.answer(request).await, ReplyBody::new as fn(_, _) -> _),
        };
        // A refusal is all in its headers.
        match response.extensions_mut().remove::<Arc<Reply>>() {
            Some(reply) => response.map(|body| of(body, reply)),
            None => response.map(|_| ReplyBody::default()),
        }
    }

    /// Notes that a call is refused for whom it is of.
    pub(super) fn note_stranger(&self, refusal: &Status) {
        let connection = &self.connection;
        connection.shared.note_stranger(connection.peer, refusal);
    }

    /// The answer to a call. Where it is more than a refusal, its [`Reply`] is an
    /// extension.
    pub(super) async fn answer<B>(mut self, request: Request<B>) -> Response<tonic::body::Body>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Lost>,
    {
        // A client hears of the end a moment after it began.
        if *self.draining.borrow() {
            return Status::unavailable("the server is ending").into_http();
        }
        let connection = &self.connection;
        let shared = &connection.shared;
        let Some(place) = shared.stream_place(connection.peer) else {
            return too_many_calls(shared.limits.streams).into_http();
        };
        let token = match connection.token_of(&request) {
            Ok(token) => token,
            Err(refusal) => {
                shared.note_stranger(connection.peer, &refusal);
                return refusal.into_http();
            }
        };
        let header = request.headers().get("grpc-timeout");
        let given = header.and_then(|header| timeout(header.to_str().ok()?));
        let deadline = given.and_then(|given| Instant::now().checked_add(given));
        let task = TASK.try_with(Task::clone).unwrap_or_default();
        let (token, token_place) = token.unzip();
        let reply = Reply::begin(connection, task, deadline, (place, token_place));

        let limit = shared.limits.request;
        let mut request = request.map(|body| tonic::body::Body::new(RequestBody::new(body, limit)));
        if let Peer::Network(address) = connection.peer {
            // Where tonic looks for the client's address.
            request.extensions_mut().insert(TcpConnectInfo {
                local_addr: None,
                remote_addr: Some(address),
            });
        }
        request.extensions_mut().insert(Via {
            peer: connection.peer,
            is_private: connection.is_private,
            token,
        });
        request.extensions_mut().insert(Room(Arc::clone(&reply)));
        let answer = self.routes.call(request);
        let answered = match deadline {
            None => Ok(answer.await),
            Some(deadline) => timeout_at(deadline, answer).await,
        };
        match answered {
            Ok(Ok(mut response)) => {
                response.extensions_mut().insert(reply);
                response
            }
            Err(_) => {
                count(&shared.counts().streams_past_deadline);
                past_deadline().into_http()
            }
        }
    }
}

impl Connection {
    /// The token of a call, and a place among its calls: nothing where calls need none.
    fn token_of<B>(
        &self,
        request: &Request<B>,
    ) -> Result<Option<(Arc<Token>, TokenPlace)>, Status> {
        let Some(tokens) = &self.shared.tokens else {
            return Ok(None);
        };
        let path = request.uri().path();
        let Some(token) = tokens.of_call(path, request.headers(), self.is_private)? else {
            return Ok(None);
        };
        let place = token.call_place()?;
        Ok(Some((token, place)))
    }
}

/// How a call came, and with what: an extension of its request.
#[derive(Clone, Debug)]
pub(in crate::grpc) struct Via {
    pub(in crate::grpc) peer: Peer,
    /// Whether nobody can have listened.
    pub(in crate::grpc) is_private: bool,
    pub(in crate::grpc) token: Option<Arc<Token>>,
}

fn too_many_calls(limit: usize) -> Status {
    let mut metadata = MetadataMap::new();
    let pushback = MetadataValue::from_static(PUSHBACK_MS);
    metadata.insert("grpc-retry-pushback-ms", pushback);
    let message = format!("limits.streams: {limit} calls are under way, and no more are taken");
    Status::with_metadata(Code::ResourceExhausted, message, metadata)
}

/// The body of a request, for as long as it may take to come.
struct RequestBody<B> {
    body: B,
    limit: Duration,
    ends: Pin<Box<Sleep>>,
}

impl<B> RequestBody<B> {
    fn new(body: B, limit: Duration) -> Self {
        Self {
            body,
            limit,
            ends: Box::pin(sleep(limit)),
        }
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Lost>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            let lost = |error: B::Error| Status::from_error(error.into());
            return Poll::Ready(frame.map(|frame| frame.map_err(lost)));
        }
        ready!(self.ends.as_mut().poll(cx));
        let message = format!(
            "server.request_limit_s: the request has not come within {:?}",
            self.limit
        );
        Poll::Ready(Some(Err(Status::deadline_exceeded(message))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

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
use tonic::metadata::MetadataValue;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Status};
use tracing::Instrument;

use super::connection::Connection;
use super::panics::{Guarded, caught};
use super::reply::{Reply, ReplyBody, Room, past_deadline, timeout};
use super::statistics::count;
use super::tasks::{CallBody, CallTasks, task};
use super::web::{Form, Web, form_of, is_of_browser};
use super::wire::Peer;
use crate::grpc::access::tokens::{Token, TokenPlace};
use crate::grpc::metrics::Call;
use crate::grpc::native::status::{RETRY, Refusal};
use crate::grpc::request_id::{REQUEST_ID, header_of, trace_of};
use crate::trace::{self, Trace};

/// How long a client that was refused should wait, in milliseconds.
const PUSHBACK_MS: &str = "1000";

/// Calls that have to be answered whatever else there is to do.
const URGENT: &str = "/grpc.health.v1.Health/";

/// The calls of one connection.
#[derive(Clone)]
pub(super) struct Calls {
    pub(super) routes: Routes,
    /// What answers pages in browsers, if they may call.
    pub(super) web: Option<Web>,
    pub(super) connection: Arc<Connection>,
    pub(super) draining: watch::Receiver<bool>,
    pub(super) tasks: CallTasks,
}

impl hyper::service::Service<Request<Incoming>> for Calls {
    type Response = Response<CallBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let calls = self.clone();
        let tasks = self.tasks.clone();
        tasks.note(request.uri().path().starts_with(URGENT));
        Box::pin(async move {
            if request.version() >= Version::HTTP_2 {
                return Ok(calls.reply(request).await.map(CallBody::Own));
            }
            calls.connection.note_http_1();
            let relayed = tasks.relay(calls.reply(request)).await;
            // The task was ended, and so is the connection.
            let ended = || Status::unavailable("the call was ended").into_http();
            Ok(relayed.unwrap_or_else(|| ended().map(CallBody::Own)))
        })
    }
}

/// The answer to a call.
pub(super) struct Answer {
    pub(super) response: Response<tonic::body::Body>,
    /// Nothing of a refusal, which is all in its headers.
    pub(super) reply: Option<Arc<Reply>>,
    /// Counts it, until its end.
    pub(super) call: Call,
}

/// Why a body did not come wholly.
type Lost = Box<dyn std::error::Error + Send + Sync>;

impl Calls {
    /// Answers a request in the way of gRPC, or in that of gRPC-Web.
    async fn reply(self, request: Request<Incoming>) -> Response<ReplyBody> {
        let web = self.web.clone();
        if let Some(web) = web.filter(|_| is_of_browser(&request)) {
            let request = request.map(tonic::body::Body::new);
            let mut response = web.answer(self, request).await;
            // A refusal is all in its headers.
            return match response.extensions_mut().remove::<Arc<Reply>>() {
                Some(reply) => response.map(|body| ReplyBody::of_web(body, reply)),
                None => response.map(|_| ReplyBody::default()),
            };
        }
        let refused = match form_of(request.headers()) {
            Some(Form::Grpc) => None,
            Some(Form::Web(_)) => {
                Some("server.web_origins: this server does not answer pages in browsers")
            }
            None => Some("content-type: this is no call of gRPC"),
        };
        if let Some(text) = refused {
            let refusal = || Status::unimplemented(text);
            let mut response = self.refusal(&request, refusal);
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response.map(|_| ReplyBody::default());
        }
        let Answer {
            response,
            reply,
            call,
        } = self.answer(request).await;
        let body = |body| match reply {
            Some(reply) => ReplyBody::new(body, reply),
            None => ReplyBody::default(),
        };
        response.map(|it| body(it).of(call))
    }

    /// Refuses a request for whom it is of, or how it came. It is counted and has a name.
    pub(super) fn refusal<B>(
        &self,
        request: &Request<B>,
        refusal: impl FnOnce() -> Status,
    ) -> Response<tonic::body::Body> {
        let trace = trace_of(request.headers());
        trace::begin(&trace);
        let refusal = refusal();
        let shared = &self.connection.shared;
        shared.note_stranger(self.connection.peer, &refusal);
        let metrics = &shared.calls;
        let mut call = metrics.begin(request.uri().path(), request.headers(), &trace);
        call.note_code(refusal.code());
        named(refusal.into_http(), &trace)
    }

    /// The answer to a call, which is counted and has a name.
    pub(super) async fn answer<B>(self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Lost>,
    {
        let trace = trace_of(request.headers());
        trace::begin(&trace);
        let metrics = self.connection.shared.calls.clone();
        let mut call = metrics.begin(request.uri().path(), request.headers(), &trace);
        let answer = self.call(request, trace.clone());
        let answer = caught(answer).instrument(trace.span().clone());
        let answer = answer.await;
        let (response, reply) = answer.unwrap_or_else(|defect| (defect.into_http(), None));
        let response = named(response, &trace);
        call.note_headers(response.headers());
        Answer {
            response,
            reply,
            call,
        }
    }

    /// What the service says to a call, and its reply, where it is more than a refusal.
    async fn call<B>(
        mut self,
        request: Request<B>,
        trace: Trace,
    ) -> (Response<tonic::body::Body>, Option<Arc<Reply>>)
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Lost>,
    {
        // A client hears of the end a moment after it began.
        if *self.draining.borrow() {
            let ending = Refusal::new(Code::Unavailable, "SERVER_ENDING", "the server is ending");
            return (Status::from(ending.retry(RETRY)).into_http(), None);
        }
        let connection = &self.connection;
        let shared = &connection.shared;
        let Some(place) = shared.stream_place(connection.peer) else {
            return (too_many_calls(shared.limits.streams).into_http(), None);
        };
        let token = match connection.token_of(&request) {
            Ok(token) => token,
            Err(refusal) => {
                shared.note_stranger(connection.peer, &refusal);
                return (refusal.into_http(), None);
            }
        };
        let header = request.headers().get("grpc-timeout");
        let given = header.and_then(|header| timeout(header.to_str().ok()?));
        let deadline = given.and_then(|given| Instant::now().checked_add(given));
        let task = task();
        let (token, token_place) = token.unzip();
        let reply = Reply::begin(connection, trace, task, deadline, (place, token_place));

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
            Ok(Ok(response)) => {
                let guarded = response.map(|body| tonic::body::Body::new(Guarded::new(body)));
                (guarded, Some(reply))
            }
            Err(_) => {
                count(&shared.counts().streams_past_deadline);
                (past_deadline().into_http(), None)
            }
        }
    }
}

/// The response with the name of its request.
fn named<B>(mut response: Response<B>, trace: &Trace) -> Response<B> {
    if let Some(name) = header_of(trace) {
        response.headers_mut().insert(REQUEST_ID, name);
    }
    response
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
    let message = format!("limits.streams: {limit} calls are under way, and no more are taken");
    let refusal = Refusal::new(Code::ResourceExhausted, "BUSY", message);
    let mut status = Status::from(refusal.limit("limits.streams", limit as u64).retry(RETRY));
    let pushback = MetadataValue::from_static(PUSHBACK_MS);
    status
        .metadata_mut()
        .insert("grpc-retry-pushback-ms", pushback);
    status
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
        let late = Refusal::new(Code::DeadlineExceeded, "REQUEST_LATE", message);
        Poll::Ready(Some(Err(late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

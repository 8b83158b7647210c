//! gRPC-Web: calls of pages in browsers. Their scripts see no trailers, which therefore
//! come as the last part of the reply, and see an answer at all only where the server
//! says to the browser that the page may (CORS).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, ORIGIN, USER_AGENT};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};
use tokio::time::{Sleep, sleep_until};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Code, Status};
use tonic_web::GrpcWebLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_layer::Layer;

use super::calls::{Answer, Calls};
use super::reply::{Reply, past_deadline};
use crate::config::WebOrigin;
use crate::grpc::metrics::Call;
use crate::grpc::native::status::Refusal;
use crate::grpc::request_id::REQUEST_ID;

/// What the forms of gRPC-Web are called.
const WEB_FORMS: [&str; 4] = [
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
];
/// How long a browser need not ask again what a page may send.
const VALID: Duration = Duration::from_secs(2 * 3600);
/// What pages may send: what gRPC-Web needs, and the metadata that the services read.
const SENT: [HeaderName; 13] = [
    CONTENT_TYPE,
    AUTHORIZATION,
    USER_AGENT,
    HeaderName::from_static("x-grpc-web"),
    HeaderName::from_static("x-user-agent"),
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static(REQUEST_ID),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    // By which a proxy may choose the server.
    HeaderName::from_static("x-mef3-recording"),
    HeaderName::from_static("x-mef3io-client-id"),
    HeaderName::from_static("x-mef3-password"),
    HeaderName::from_static("x-mef3-password-bin"),
];
/// What pages may see: a refusal has its status in the headers.
const SEEN: [HeaderName; 5] = [
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("grpc-status-details-bin"),
    HeaderName::from_static("grpc-retry-pushback-ms"),
    HeaderName::from_static(REQUEST_ID),
];

/// What pages of some origins are answered by.
#[derive(Clone, Debug)]
pub(in crate::grpc) struct Web {
    origins: Arc<[HeaderValue]>,
    cors: CorsLayer,
}

impl Web {
    /// `None` where no page may call.
    pub(in crate::grpc) fn new(origins: &[WebOrigin]) -> Option<Self> {
        // All of them are in ASCII.
        let origins = origins.iter().map(|it| HeaderValue::from_str(it.as_str()));
        let origins: Vec<HeaderValue> = origins.filter_map(Result::ok).collect();
        if origins.is_empty() {
            return None;
        }
        let cors = CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins.clone()))
            .allow_methods([Method::POST])
            .allow_headers(SENT)
            .expose_headers(SEEN)
            .max_age(VALID);
        Some(Self {
            origins: origins.into(),
            cors,
        })
    }

    /// Answers a request of a browser, or one over HTTP/1.1: other than gRPC-Web, that is
    /// refused.
    pub(super) async fn answer(&self, calls: Calls, mut request: Request<Body>) -> Response<Body> {
        let origin = request.headers().get(ORIGIN);
        if let Some(origin) = origin.filter(|origin| !self.origins.contains(origin)) {
            let origin = String::from_utf8_lossy(origin.as_bytes());
            let text = format!("server.web_origins: pages of {origin:?} may not call");
            let refusal = Refusal::new(Code::PermissionDenied, "NOT_PERMITTED", text);
            let mut response = calls.refusal(&request, || refusal.into());
            *response.status_mut() = StatusCode::FORBIDDEN;
            return response;
        }
        match form_of(request.headers()) {
            // Without what may be said of the form beside its name.
            Some(Form::Web(form)) => {
                let form = HeaderValue::from_static(form);
                request.headers_mut().insert(CONTENT_TYPE, form);
            }
            _ if request.method() == Method::OPTIONS => {}
            _ => {
                let text = "content-type: this is no call of gRPC-Web";
                let mut response = calls.refusal(&request, || Status::unimplemented(text));
                *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                return response;
            }
        }
        let calls = GrpcWebLayer::new().layer(WebCalls(calls));
        let Ok(response) = self.cors.layer(calls).call(request).await;
        response
    }
}

/// Whether a request is one for [`Web`], and not of a client of gRPC itself.
pub(super) fn is_of_browser<B>(request: &Request<B>) -> bool {
    request.version() < Version::HTTP_2
        || request.method() == Method::OPTIONS
        || request.headers().contains_key(ORIGIN)
        || matches!(form_of(request.headers()), Some(Form::Web(_)))
}

/// What a call says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Grpc,
    /// One of the forms of gRPC-Web, by its name.
    Web(&'static str),
}

/// The form of a call; `None` where it is none.
pub(super) fn form_of(headers: &HeaderMap) -> Option<Form> {
    let form = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let form = form.split(';').next()?.trim().to_ascii_lowercase();
    let web = WEB_FORMS.into_iter().find(|it| **it == form);
    let is_grpc = form == "application/grpc" || form.starts_with("application/grpc+");
    web.map(Form::Web).or(is_grpc.then_some(Form::Grpc))
}

/// Calls whose replies have all they consist of in their bodies.
#[derive(Clone)]
struct WebCalls(Calls);

impl Service<Request<Body>> for WebCalls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let calls = self.0.clone();
        Box::pin(async move {
            let Answer {
                mut response,
                reply,
                call,
            } = calls.answer(request).await;
            let Some(reply) = reply else {
                return Ok(response);
            };
            response.extensions_mut().insert(Arc::clone(&reply));
            Ok(response.map(|body| Body::new(WebReply::new(body, reply, call))))
        })
    }
}

/// A reply until the deadline of its call, which ends it as a status does that the
/// service itself ends it with. Here its status can still be seen, and is counted.
struct WebReply {
    body: Body,
    reply: Arc<Reply>,
    call: Call,
    deadline: Option<Pin<Box<Sleep>>>,
    is_late: bool,
}

impl WebReply {
    fn new(body: Body, reply: Arc<Reply>, call: Call) -> Self {
        let deadline = reply.deadline().map(|at| Box::pin(sleep_until(at)));
        Self {
            body,
            reply,
            call,
            deadline,
            is_late: false,
        }
    }
}

impl hyper::body::Body for WebReply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_late {
            return Poll::Ready(None);
        }
        let deadline = self.deadline.as_mut();
        if deadline.is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready()) {
            self.is_late = true;
            // Nothing of the read goes on.
            self.body = Body::empty();
            self.reply.note_past_deadline();
            let late = past_deadline();
            self.call.note_code(late.code());
            let mut trailers = HeaderMap::new();
            let added = late.add_header(&mut trailers);
            return Poll::Ready(Some(added.map(|()| Frame::trailers(trailers))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    self.call.note_bytes(bytes.len());
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.call.note_headers(trailers);
                }
            }
            Some(Err(status)) => self.call.note_code(status.code()),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.is_late || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.is_late {
            true => SizeHint::with_exact(0),
            false => self.body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_browsers_send_is_told_from_grpc_itself() {
        for (version, method, form, expected) in [
            (Version::HTTP_2, Method::POST, "application/grpc", false),
            (
                Version::HTTP_2,
                Method::POST,
                "application/grpc+proto",
                false,
            ),
            (Version::HTTP_2, Method::POST, "application/grpc-web", true),
            (
                Version::HTTP_2,
                Method::POST,
                "application/grpc-web-text",
                true,
            ),
            (Version::HTTP_2, Method::OPTIONS, "", true),
            (Version::HTTP_11, Method::GET, "", true),
            (Version::HTTP_11, Method::POST, "application/grpc", true),
        ] {
            let request = Request::builder()
                .version(version)
                .method(method)
                .header(CONTENT_TYPE, form)
                .body(())
                .unwrap();
            assert_eq!(is_of_browser(&request), expected, "{request:?}");
        }
        let request = Request::builder().version(Version::HTTP_2);
        let request = request.header(ORIGIN, "https://elsewhere.example");
        assert!(is_of_browser(&request.body(()).unwrap()));
    }

    #[test]
    fn forms_are_known_by_their_names() {
        for (name, expected) in [
            ("application/grpc", Some(Form::Grpc)),
            ("application/grpc+proto", Some(Form::Grpc)),
            (
                "Application/gRPC-Web; charset=utf-8",
                Some(Form::Web(WEB_FORMS[0])),
            ),
            ("application/grpc-web-text;x", Some(Form::Web(WEB_FORMS[2]))),
            ("application/grpc-webs", None),
            ("application/json", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(name));
            assert_eq!(form_of(&headers), expected, "{name}");
        }
        assert_eq!(form_of(&HeaderMap::new()), None);
    }

    #[test]
    fn nobody_is_answered_where_nobody_is_named() {
        assert!(Web::new(&[]).is_none());
        let origin = WebOrigin::try_from("https://viewer.example".to_owned()).unwrap();
        assert_eq!(Web::new(&[origin]).unwrap().origins.len(), 1);
    }
}

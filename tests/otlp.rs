//! Spans of requests reach a collector, hang together, and tell of nobody.
//!
//! `cargo test --test otlp`

mod common;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use common::native::by_time;
use common::process::client::soon;
use common::process::session::KnownSession;
use common::process::{LIMIT, Launch, Server, until};
use http_body_util::BodyExt;
use mef3_server::grpc::proto::native::client::RecordingServiceClient;
use prost::Message;
use rustix::process::Signal;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Request;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

/// Messages of OTLP, as far as the test looks at them.
#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes, tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes, tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes, tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
    #[prost(bytes, repeated, tag = "11")]
    events: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
}

impl Span {
    fn attribute(&self, key: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|it| it.key == key)?;
        found.value.as_ref()?.text.as_deref()
    }
}

/// What has come to a collector: each message as it came.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Vec<u8>>>>);

impl NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl Service<http::Request<Body>> for Collector {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let messages = Arc::clone(&self.0);
        Box::pin(async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            messages.lock().unwrap().push(body[5..].to_vec());
            // An empty message, and that all is well.
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let answer = http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5]))
                .with_trailers(async move { Some(Ok(trailers)) });
            let mut response = http::Response::new(Body::new(answer));
            let form = "application/grpc".parse().unwrap();
            response.headers_mut().insert("content-type", form);
            Ok(response)
        })
    }
}

impl Collector {
    async fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tonic::transport::Server::builder()
            .add_service(collector.clone())
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serving);
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        let messages = self.0.lock().unwrap();
        let decoded = messages.iter().map(|it| Export::decode(&it[..]).unwrap());
        let resources = decoded.flat_map(|export| export.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    fn holds(&self, text: &str) -> bool {
        let messages = self.0.lock().unwrap();
        let mut windows = messages.iter().flat_map(|it| it.windows(text.len()));
        windows.any(|window| window == text.as_bytes())
    }
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn read(server: &Server, session: &KnownSession) {
    let url = format!("http://{}", server.address);
    let mut client = RecordingServiceClient::connect(url).await.unwrap();
    let all = session.all();
    let mut request = Request::new(by_time(&session.path, all.start(), all.end()));
    let parent = format!("00-{TRACE}-{CALLER}-01").parse().unwrap();
    request.metadata_mut().insert("traceparent", parent);
    let id = "night-7".parse().unwrap();
    request.metadata_mut().insert("x-request-id", id);
    let secret = "second-word-789".parse().unwrap();
    request.metadata_mut().insert("x-mef3-password", secret);
    let mut stream = client.read_signal(request).await.unwrap().into_inner();
    while soon("a message", stream.message()).await.unwrap().is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_a_request_hang_together_and_tell_of_nobody() {
    let (collector, address) = Collector::start().await;
    let session = KnownSession::write(2, 256, 40);
    // In either way; and whatever little is logged, spans are told.
    for name in [
        "MEF3_SERVER_TRACE_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ] {
        collector.0.lock().unwrap().clear();
        let mut server = Launch::new()
            .env(name, format!("http://{address}"))
            .env("MEF3_SERVER_PREFETCH_MAX_MB", "0")
            .start();
        server.workers_up(2);
        read(&server, &session).await;
        server.signal(Signal::TERM);
        assert_eq!(server.wait(LIMIT).code(), Some(0));
        let of_trace = || {
            let mut spans = collector.spans();
            spans.retain(|span| hex(&span.trace_id) == TRACE);
            spans
        };
        until("the call is told", LIMIT, || {
            of_trace().iter().any(|span| span.name == "call")
        });
        let spans = of_trace();
        let named = |name: &'static str| spans.iter().filter(move |span| span.name == name);
        let call = named("call").next().unwrap();
        assert_eq!(hex(&call.parent_span_id), CALLER);
        assert_eq!(call.attribute("request"), Some("night-7"));
        let rpc = call.attribute("rpc");
        assert_eq!(rpc, Some("mef3.v1.RecordingService/ReadSignal"));
        let below = |parent: &Span, name: &str| -> Vec<&Span> {
            let children = spans.iter();
            children
                .filter(|it| it.name == name && it.parent_span_id == parent.span_id)
                .collect()
        };
        let opening = below(call, "open");
        assert_eq!(opening.len(), 1);
        let job = below(opening[0], "job");
        assert_eq!(job[0].attribute("work"), Some("open"));
        let pages = below(call, "pages");
        assert!(!pages.is_empty());
        let decoded: usize = pages.iter().map(|it| below(it, "job").len()).sum();
        assert!(decoded > 0);
        for job in named("job") {
            assert_eq!(job.attribute("requests"), Some("night-7"));
        }
        assert!(spans.iter().all(|span| span.events.is_empty()));
        for private in [
            session.key().as_str(),
            "known.mefd",
            "ch 000",
            "second-word-789",
        ] {
            assert!(!collector.holds(private), "{private} is told");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_delays_nothing() {
    let session = KnownSession::write(2, 256, 40);
    let mut server = Launch::new()
        .env("MEF3_SERVER_TRACE_OTLP_ENDPOINT", "http://127.0.0.1:9")
        .start();
    server.workers_up(2);
    read(&server, &session).await;
    let began = std::time::Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(LIMIT).code(), Some(0));
    assert!(began.elapsed() < std::time::Duration::from_secs(8));
}

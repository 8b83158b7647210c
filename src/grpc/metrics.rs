//! Counts calls: how they ended, how long they took, how much they have sent.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::{Code, Status};

use super::proto::DESCRIPTOR_SET;
use super::transport::given_time;
use crate::trace::Trace;

/// Upper bounds of the latencies, in seconds. A stream may take long.
const LATENCY_BOUNDS_S: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0,
];
/// The name of every call that no service has.
const OTHER: &str = "other";
/// The transport notes the deadline of a call a moment before or after its beginning is
/// noted here.
const EARLIER: Duration = Duration::from_millis(1);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RpcLabel {
    /// Service and method, of those that there are.
    rpc: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    rpc: String,
    code: &'static str,
}

fn latency() -> Histogram {
    Histogram::new(LATENCY_BOUNDS_S)
}

#[derive(Default)]
struct Families {
    ended: Family<EndLabels, Counter>,
    bytes: Family<RpcLabel, Counter>,
    running: Family<RpcLabel, Gauge>,
}

/// Figures of calls, by the method that was called. Clones share them: keep one and
/// give the other to [`serve`](crate::grpc::serve).
///
/// Labels are the names of methods and of statuses, and nothing that a client sends.
#[derive(Clone)]
pub struct CallMetrics(Arc<Inner>);

struct Inner {
    families: Families,
    latencies: Family<RpcLabel, Histogram, fn() -> Histogram>,
    /// By path.
    rpcs: HashMap<String, Arc<Rpc>>,
    other: Arc<Rpc>,
}

/// The figures of one method.
struct Rpc {
    name: String,
    ended: Family<EndLabels, Counter>,
    latency: Histogram,
    bytes: Counter,
    running: Gauge,
}

impl Default for CallMetrics {
    fn default() -> Self {
        let families = Families::default();
        let latencies = Family::new_with_constructor(latency as fn() -> Histogram);
        let rpc = |name: &str| {
            let label = RpcLabel { rpc: name.into() };
            Arc::new(Rpc {
                name: name.into(),
                ended: families.ended.clone(),
                latency: latencies.get_or_create_owned(&label),
                bytes: families.bytes.get_or_create_owned(&label),
                running: families.running.get_or_create_owned(&label),
            })
        };
        let names = methods().map(|name| (format!("/{name}"), rpc(&name)));
        Self(Arc::new(Inner {
            rpcs: names.collect(),
            other: rpc(OTHER),
            latencies,
            families,
        }))
    }
}

impl fmt::Debug for CallMetrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rpcs = self.0.rpcs.keys();
        formatter.debug_set().entries(rpcs).finish()
    }
}

/// All methods that are served, as `service/method`.
fn methods() -> impl Iterator<Item = String> {
    let sets = [
        DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let sets = sets.into_iter();
    // They come with the program; what could not be read would be counted as others.
    let files = sets.flat_map(|set| FileDescriptorSet::decode(set).unwrap_or_default().file);
    files.flat_map(|file| {
        let package = file.package.clone().unwrap_or_default();
        file.service.into_iter().flat_map(move |service| {
            let name = service.name().to_owned();
            let service_name = match package.as_str() {
                "" => name,
                package => format!("{package}.{name}"),
            };
            let methods = service.method.into_iter();
            methods.map(move |method| format!("{service_name}/{}", method.name()))
        })
    })
}

impl CallMetrics {
    /// Makes the figures known to who tells them.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let Inner {
            families,
            latencies,
            ..
        } = &*self.0;
        registry.register(
            "calls",
            "Calls that have ended, by method and status. A reply that its client does not \
             take to the end is CANCELLED",
            families.ended.clone(),
        );
        registry.register(
            "calls_running",
            "Calls under way, by method",
            families.running.clone(),
        );
        registry.register_with_unit(
            "call_latency",
            "Time from the request to the end of the reply, by method",
            Unit::Seconds,
            latencies.clone(),
        );
        registry.register_with_unit(
            "call_sent",
            "Replies handed to the transport, by method",
            Unit::Bytes,
            families.bytes.clone(),
        );
    }

    /// Counts a call from its beginning on, also one that will be refused.
    pub(super) fn begin(&self, path: &str, headers: &HeaderMap, trace: &Trace) -> Call {
        let given = headers.get("grpc-timeout");
        let rpc = self.0.rpcs.get(path).unwrap_or(&self.0.other);
        rpc.running.inc();
        trace.span().record("rpc", rpc.name.as_str());
        Call {
            trace: trace.clone(),
            rpc: Arc::clone(rpc),
            begun: Instant::now(),
            given: given.and_then(|given| given_time(given.to_str().ok()?)),
            code: None,
        }
    }
}

/// A call under way; its end is counted when this is dropped.
pub(super) struct Call {
    trace: Trace,
    rpc: Arc<Rpc>,
    begun: Instant,
    /// The time that its client gives it.
    given: Option<Duration>,
    code: Option<Code>,
}

impl Call {
    /// Notes the status in the headers or the trailers of the reply, if it is there.
    pub(super) fn note_headers(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get(Status::GRPC_STATUS) {
            self.code = Some(Code::from_bytes(code.as_bytes()));
        }
    }

    /// Notes a status that is told in another way.
    pub(super) fn note_code(&mut self, code: Code) {
        self.code = Some(code);
    }

    /// Notes bytes of the reply that the transport has got.
    pub(super) fn note_bytes(&self, bytes: usize) {
        self.rpc.bytes.inc_by(bytes as u64);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let rpc = &self.rpc;
        rpc.running.dec();
        let took = self.begun.elapsed();
        rpc.latency.observe(took.as_secs_f64());
        // The transport drops what its client does not want, or not any more.
        let late = self.given.is_some_and(|given| took + EARLIER >= given);
        let dropped = match late {
            true => Code::DeadlineExceeded,
            false => Code::Cancelled,
        };
        let code = code_name(self.code.unwrap_or(dropped));
        self.trace
            .span()
            .in_scope(|| tracing::debug!(code, ?took, "call has ended"));
        let labels = EndLabels {
            rpc: rpc.name.clone(),
            code,
        };
        rpc.ended.get_or_create(&labels).inc();
    }
}

/// The name of a status as the protocol has it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace() -> Trace {
        Trace::new("a", tracing::Span::none())
    }

    #[test]
    fn methods_have_the_names_that_clients_call() {
        let names: Vec<String> = methods().collect();
        for name in [
            "gRPCMef3Server/OpenFile",
            "mef3.v1.RecordingService/ReadSignal",
            "grpc.health.v1.Health/Watch",
            "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ] {
            assert!(names.iter().any(|it| it == name), "{name} in {names:?}");
        }
    }

    #[test]
    fn what_is_dropped_was_cancelled_or_is_late() {
        let calls = CallMetrics::default();
        let mut headers = HeaderMap::new();
        for (given, code) in [
            (None, "CANCELLED"),
            (Some("1H"), "CANCELLED"),
            (Some("never"), "CANCELLED"),
            (Some("0m"), "DEADLINE_EXCEEDED"),
        ] {
            if let Some(given) = given {
                headers.insert("grpc-timeout", given.parse().unwrap());
            }
            let labels = EndLabels {
                rpc: OTHER.into(),
                code,
            };
            let ended = calls.0.families.ended.get_or_create_owned(&labels);
            let before = ended.get();
            drop(calls.begin("/", &headers, &trace()));
            assert_eq!(ended.get(), before + 1, "{given:?}");
        }
        // Whoever has got his answer is neither.
        headers.insert(Status::GRPC_STATUS, "0".parse().unwrap());
        let mut call = calls.begin("/", &headers, &trace());
        call.note_headers(&headers);
        assert_eq!(call.code, Some(Code::Ok));
    }

    #[test]
    fn paths_of_clients_make_no_labels() {
        let calls = CallMetrics::default();
        for number in 0..100 {
            let path = format!("/gRPCMef3Server/Guess{number}");
            drop(calls.begin(&path, &HeaderMap::new(), &trace()));
        }
        let mut registry = Registry::default();
        calls.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let running = text
            .lines()
            .filter(|line| line.starts_with("calls_running{"));
        assert_eq!(running.count(), methods().count() + 1);
        let labels = EndLabels {
            rpc: OTHER.into(),
            code: "CANCELLED",
        };
        assert_eq!(calls.0.families.ended.get_or_create(&labels).get(), 100);
        assert_eq!(calls.0.other.running.get(), 0);
    }
}

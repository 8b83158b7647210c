//! What the admin port answers.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::time::timeout;
use tracing::level_filters::LevelFilter;

use super::AdminOptions;
use super::exposition::{self, Figures};
use crate::WorkerStatus;
use crate::engine::Statistics;

/// How long the engine may take to give its figures.
const FIGURES_LIMIT: Duration = Duration::from_secs(2);
/// Bytes of a request's body, which is the name of a level.
const BODY_BYTES: usize = 64;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The level of a program's log, where it can be changed while the program runs.
pub trait LogSwitch: Send + Sync {
    /// What is logged now, as a level or as the filter that was given in its place.
    fn current(&self) -> String;

    /// Logs what is as important as `level`, or more, from now on.
    ///
    /// # Errors
    /// A text that says why it cannot be done.
    fn set(&self, level: LevelFilter) -> Result<(), String>;
}

type Answer = Response<Full<Bytes>>;

/// Makes the answers.
pub(super) struct Answers {
    options: AdminOptions,
}

impl Answers {
    pub(super) fn new(options: AdminOptions) -> Self {
        Self { options }
    }

    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Answer, Infallible> {
        let answer = match (request.uri().path(), request.method()) {
            ("/metrics", &Method::GET) => self.metrics().await,
            ("/livez", &Method::GET) => text(StatusCode::OK, "alive\n"),
            ("/readyz", &Method::GET) => self.readiness(),
            ("/workers", &Method::GET) => self.workers().await,
            ("/log-level", &Method::GET) => self.log_level(),
            ("/log-level", &Method::PUT) => self.set_log_level(request, peer).await,
            ("/log-level", _) => refused_method("GET, PUT"),
            ("/metrics" | "/livez" | "/readyz" | "/workers", _) => refused_method("GET"),
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /metrics, /livez, /readyz, /workers and /log-level\n",
            ),
        };
        Ok(answer)
    }

    /// The engine's figures; nothing where it does not answer in time.
    async fn figures(&self) -> Option<Statistics> {
        let figures = timeout(FIGURES_LIMIT, self.options.engine.statistics()).await;
        figures.ok()?.ok()
    }

    async fn metrics(&self) -> Answer {
        let engine = self.figures().await;
        let figures = Figures {
            engine: engine.as_ref(),
            connections: self.options.connections.statistics(),
            ready: self.options.health.readiness().is_ready(),
        };
        match exposition::text(&self.options.calls, &figures) {
            Ok(metrics) => respond(StatusCode::OK, OPEN_METRICS, metrics),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    fn readiness(&self) -> Answer {
        let readiness = self.options.health.readiness();
        let status = match readiness.is_ready() {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        text(status, format!("{readiness}\n"))
    }

    async fn workers(&self) -> Answer {
        let Some(figures) = self.figures().await else {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return text(status, "the engine does not answer\n");
        };
        let supervisor = &figures.supervisor;
        let workers: Vec<_> = supervisor.workers.iter().map(worker).collect();
        let all = json!({ "in_process": supervisor.in_process, "workers": workers });
        respond(StatusCode::OK, JSON, format!("{all:#}\n"))
    }

    fn log_level(&self) -> Answer {
        match &self.options.log {
            Some(log) => text(StatusCode::OK, format!("{}\n", log.current())),
            None => text(StatusCode::NOT_FOUND, "the log is not this server's\n"),
        }
    }

    async fn set_log_level(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        if !is_local(peer.ip()) {
            let why = "the level is changed from this machine only\n";
            return text(StatusCode::FORBIDDEN, why);
        }
        let Some(log) = &self.options.log else {
            return self.log_level();
        };
        let body = Limited::new(request.into_body(), BODY_BYTES);
        let Ok(body) = body.collect().await else {
            let why = format!("more than {BODY_BYTES} bytes, or cut\n");
            return text(StatusCode::PAYLOAD_TOO_LARGE, why);
        };
        let Some(level) = level(&body.to_bytes()) else {
            let why = "one of off, error, warn, info, debug, trace\n";
            return text(StatusCode::BAD_REQUEST, why);
        };
        match log.set(level) {
            Ok(()) => {
                tracing::info!(%level, "the level of the log was changed");
                self.log_level()
            }
            Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
        }
    }
}

/// The level of a name.
fn level(name: &[u8]) -> Option<LevelFilter> {
    match name.trim_ascii() {
        b"off" => Some(LevelFilter::OFF),
        b"error" => Some(LevelFilter::ERROR),
        b"warn" => Some(LevelFilter::WARN),
        b"info" => Some(LevelFilter::INFO),
        b"debug" => Some(LevelFilter::DEBUG),
        b"trace" => Some(LevelFilter::TRACE),
        _ => None,
    }
}

/// Whether an address is this machine's own.
fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn worker(status: &WorkerStatus) -> serde_json::Value {
    json!({
        "slot": status.slot,
        "pid": status.pid,
        "state": status.state.name(),
        "jobs": status.jobs,
        "memory_bytes": status.memory_bytes(),
        "restarts": status.restarts,
    })
}

fn refused_method(allowed: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, format!("{allowed}\n"));
    let allowed = HeaderValue::from_static(allowed);
    answer.headers_mut().insert(ALLOW, allowed);
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    respond(status, TEXT, body)
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_names_and_no_numbers() {
        assert_eq!(level(b"off"), Some(LevelFilter::OFF));
        assert_eq!(level(b" debug\n"), Some(LevelFilter::DEBUG));
        for nonsense in [&b""[..], b"5", b"DEBUG", b"mef3_server=debug", b"\xff"] {
            assert_eq!(level(nonsense), None);
        }
    }

    #[test]
    fn only_loopback_addresses_are_local() {
        for local in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        for other in ["10.0.0.1", "::ffff:10.0.0.1", "fe80::1", "0.0.0.0"] {
            assert!(!is_local(other.parse().unwrap()), "{other}");
        }
    }
}

//! Whether the server can do its work: found out by having a block decoded, told by
//! `grpc.health.v1`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthService, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

use super::proto;
use crate::ProbeFailure;
use crate::config::Config;
use crate::engine::Engine;

/// What `grpc.health.v1` calls the process itself: it serves as long as it answers.
pub const LIVENESS: &str = "liveness";
/// What it calls the ability to do work. The empty name and those of the services that
/// do the work are the same.
pub const READINESS: &str = "readiness";

/// All names of what is served only while the server is ready.
const READY_NAMES: [&str; 4] = [
    "",
    READINESS,
    proto::server::SERVICE_NAME,
    proto::native::server::SERVICE_NAME,
];
/// Readers that are tried within the time limit: one that is stuck is no reason to
/// call the server unable, where another can work.
const ATTEMPTS: u32 = 4;
/// Pause after an attempt that failed at once.
const PAUSE: Duration = Duration::from_millis(50);
/// How soon a server that was not ready is asked again, at the latest.
const RETRY: Duration = Duration::from_secs(1);

/// Whether the server can do its work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// Nobody has decoded anything yet.
    #[default]
    Starting,
    /// A block was decoded a short while ago.
    Ready,
    /// No block could be decoded, for this reason.
    Unable(String),
    /// The server is ending, and takes nothing new.
    Draining,
}

impl Readiness {
    /// Whether requests are best sent here.
    pub fn is_ready(&self) -> bool {
        *self == Self::Ready
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => formatter.write_str("no reader has answered yet"),
            Self::Ready => formatter.write_str("ready"),
            Self::Unable(reason) => write!(formatter, "nothing can be decoded: {reason}"),
            Self::Draining => formatter.write_str("the server is ending"),
        }
    }
}

/// What is known of the server's health. Clones share it: keep one and give the other
/// to [`serve`](crate::grpc::serve), which finds out and tells.
#[derive(Clone, Debug)]
pub struct Health {
    readiness: Arc<watch::Sender<Readiness>>,
    interval: Duration,
    limit: Duration,
}

impl Default for Health {
    fn default() -> Self {
        Self::from(&Config::default())
    }
}

impl From<&Config> for Health {
    fn from(config: &Config) -> Self {
        Self {
            readiness: Arc::new(watch::Sender::new(Readiness::Starting)),
            interval: config.health.probe_interval(),
            limit: config.health.probe_limit(),
        }
    }
}

impl Health {
    /// What is known now.
    pub fn readiness(&self) -> Readiness {
        self.readiness.borrow().clone()
    }

    /// Notes that the server is ending, which nothing changes any more.
    pub fn drain(&self) {
        self.note(Readiness::Draining);
    }

    /// Is ready when the server is ending.
    pub(super) async fn ending(self) {
        let mut readiness = self.readiness.subscribe();
        // This is one of those who could tell, so that it cannot fail.
        let _ = readiness
            .wait_for(|readiness| *readiness == Readiness::Draining)
            .await;
    }

    fn note(&self, found: Readiness) {
        let changed = self.readiness.send_if_modified(|readiness| {
            let changes = *readiness != Readiness::Draining && *readiness != found;
            if changes {
                readiness.clone_from(&found);
            }
            changes
        });
        match found {
            _ if !changed => {}
            Readiness::Unable(reason) => tracing::warn!(reason, "the server is not ready"),
            Readiness::Ready => tracing::info!("the server is ready"),
            Readiness::Starting | Readiness::Draining => {}
        }
    }

    /// Has a block decoded again and again, and notes the outcome.
    pub(super) async fn watch_readers(self, engine: Engine) {
        loop {
            let found = self.probe(&engine).await;
            let pause = match found.is_ready() {
                true => self.interval,
                false => self.interval.min(RETRY),
            };
            self.note(found);
            sleep(pause).await;
        }
    }

    async fn probe(&self, engine: &Engine) -> Readiness {
        let limit = self.limit;
        let deadline = Instant::now() + limit;
        let mut reason = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let late = || format!("no reader has answered within {limit:?}");
                return Readiness::Unable(reason.unwrap_or_else(late));
            }
            match timeout(left.min(limit / ATTEMPTS), engine.probe()).await {
                Ok(Ok(())) => return Readiness::Ready,
                Ok(Err(ProbeFailure::Nobody)) => {
                    return Readiness::Unable(ProbeFailure::Nobody.to_string());
                }
                Ok(Err(failure)) => {
                    reason = Some(failure.to_string());
                    sleep(PAUSE).await;
                }
                // The next one goes to another reader, if there is one.
                Err(_) => {}
            }
        }
    }

    /// The service, and what keeps it informed.
    pub(super) async fn service(&self) -> (HealthServer<impl HealthService>, Informing) {
        let (reporter, service) = health_reporter();
        reporter
            .set_service_status(LIVENESS, ServingStatus::Serving)
            .await;
        let mut informing = Informing {
            reporter,
            told: None,
            readiness: self.readiness.subscribe(),
        };
        // The reporter begins with the empty name as one that is served.
        informing.tell().await;
        (service, informing)
    }
}

/// Passes what is known of the readiness on to the service.
pub(super) struct Informing {
    reporter: HealthReporter,
    /// Whether the server was said to be ready.
    told: Option<bool>,
    readiness: watch::Receiver<Readiness>,
}

impl Informing {
    /// Tells what is known now, where it is another than before; whether there can be
    /// news.
    async fn tell(&mut self) -> bool {
        let readiness = self.readiness.borrow_and_update().clone();
        let ready = readiness.is_ready();
        if self.told.replace(ready) != Some(ready) {
            let status = match ready {
                true => ServingStatus::Serving,
                false => ServingStatus::NotServing,
            };
            for name in READY_NAMES {
                self.reporter.set_service_status(name, status).await;
            }
        }
        readiness != Readiness::Draining
    }

    /// Goes on until the server is ending. Then whoever watches hears of it, and his
    /// stream ends, so that nobody waits for it.
    pub(super) async fn run(mut self) {
        while self.tell().await {
            if self.readiness.changed().await.is_err() {
                return;
            }
        }
        for name in READY_NAMES.into_iter().chain([LIVENESS]) {
            self.reporter.clear_service_status(name).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_after_the_end() {
        let health = Health::default();
        assert_eq!(health.readiness(), Readiness::Starting);
        health.note(Readiness::Ready);
        assert!(health.readiness().is_ready());
        health.drain();
        health.note(Readiness::Ready);
        assert_eq!(health.readiness(), Readiness::Draining);
    }

    #[tokio::test]
    async fn the_server_itself_is_asked_where_there_are_no_workers() {
        let engine = Engine::builder().workers(0).start().unwrap();
        let health = Health::default();
        assert_eq!(health.probe(&engine).await, Readiness::Ready);
        engine.shutdown().await;
        let health = Health {
            limit: Duration::from_millis(200),
            ..health
        };
        assert!(matches!(health.probe(&engine).await, Readiness::Unable(_)));
    }
}

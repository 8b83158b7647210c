//! Engines in the test's own process, and what the system says of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mef3_server::config::Config;
use mef3_server::grpc::{self, ServiceOptions};
use mef3_server::{Engine, Error, ReadRequest, Recording, Statistics, WindowStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::process::LIMIT;
use super::process::client::soon;
use super::process::session::{KnownSession, Span, assert_same};

/// Settings under which only requests are decoded, each at most once.
pub fn without_prefetch() -> Config {
    let mut config = Config::default();
    config.prefetch.max_mb = 0;
    config
}

/// These, and so many workers.
pub fn with_workers(min: usize, max: usize) -> Config {
    let mut config = without_prefetch();
    config.workers.min = min;
    config.workers.max = max;
    config
}

/// Waits until something is so.
pub async fn reach(engine: &Engine, what: &str, is_so: impl Fn(&Statistics) -> bool) -> Statistics {
    let deadline = Instant::now() + LIMIT;
    loop {
        let now = statistics(engine).await;
        if is_so(&now) {
            return now;
        }
        assert!(Instant::now() < deadline, "{what}: {now:#?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub fn start(config: Config) -> Engine {
    mef3_server::worker::init();
    Engine::builder().config(config).start().unwrap()
}

pub async fn opened(engine: &Engine, session: &KnownSession) -> Recording {
    soon("open", engine.open(&session.path)).await.unwrap()
}

pub fn request(recording: &Recording, span: &Span) -> ReadRequest {
    ReadRequest::new(recording, span.start(), span.end()).channels(span.names())
}

/// What is left of a stream: row after row.
pub async fn rest_of(mut windows: WindowStream<f32>, rows: usize) -> Result<Vec<Vec<f32>>, Error> {
    let mut read = vec![Vec::new(); rows];
    while let Some(window) = soon("the next window", windows.next()).await {
        let window = window?;
        for (row, samples) in read.iter_mut().zip(window.samples.chunks(window.columns)) {
            row.extend_from_slice(samples);
        }
    }
    Ok(read)
}

pub async fn read_right(engine: &Engine, session: &KnownSession, span: &Span) {
    let recording = opened(engine, session).await;
    let windows = engine.read(&request(&recording, span)).unwrap();
    let rows = rest_of(windows, span.channels.len()).await.unwrap();
    assert_same(&rows, &session.expected(span));
}

pub async fn statistics(engine: &Engine) -> Statistics {
    soon("statistics", engine.statistics()).await.unwrap()
}

/// Waits until nothing is in flight.
pub async fn idle(engine: &Engine) -> Statistics {
    let deadline = Instant::now() + LIMIT;
    loop {
        let statistics = statistics(engine).await;
        if statistics.coordinator.in_flight == 0 {
            return statistics;
        }
        assert!(Instant::now() < deadline, "{statistics:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Pages that a fresh engine decodes for one reader of the span.
pub async fn pages_of(session: &KnownSession, span: &Span) -> u64 {
    let engine = start(without_prefetch());
    read_right(&engine, session, span).await;
    let pages = idle(&engine).await.coordinator.decoded;
    soon("shutdown", engine.shutdown()).await;
    assert!(pages >= span.channels.len() as u64);
    pages
}

/// The services of an engine in this process.
pub struct Served {
    pub address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Served {
    pub fn start(engine: &Engine) -> Self {
        let listener = grpc::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let engine = engine.clone();
        let serving = tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or_default() };
            let options = ServiceOptions::default();
            grpc::serve(engine, listener, options, stopped)
                .await
                .unwrap();
        });
        Self {
            address,
            stop,
            serving,
        }
    }

    pub async fn end(self) {
        self.stop.send(()).unwrap();
        soon("the end of serving", self.serving).await.unwrap();
    }
}

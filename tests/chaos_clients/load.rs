//! Clients that behave, and what they measure.

use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mef3_server::grpc::proto::client::LegacyClient;
use tokio::task::JoinHandle;
use tonic::transport::Endpoint;

use super::common::process::client::Client;
use super::common::process::session::{KnownSession, assert_same};

/// A client that takes so many bytes of a stream before it is asked for them.
pub async fn connect_narrowly(address: SocketAddr, session: &KnownSession, window: u32) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.initial_stream_window_size(window).connect().await;
    let mut client = Client::connect_by(LegacyClient::new(channel.unwrap()));
    client.open(&session.key()).await.unwrap();
    client
}

/// Time that all threads of a process have spent on a core.
pub fn cpu_time(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let spent = threads.filter_map(|thread| {
        // It may have ended.
        let schedstat = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}

/// Clients that read windows one after the other, and check every sample.
pub struct FastReaders {
    over: Arc<AtomicBool>,
    readers: Vec<JoinHandle<Vec<(Instant, Duration)>>>,
}

impl FastReaders {
    pub fn start(address: SocketAddr, session: &Arc<KnownSession>, count: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let reader = |number: usize| {
            let (session, over) = (Arc::clone(session), Arc::clone(&over));
            tokio::spawn(async move {
                let mut client = Client::with_open(address, &session).await;
                let mut latencies = Vec::new();
                for round in number.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let from = (round as i64 * 7) % (session.seconds - 10);
                    let span = session.span(0..session.channels(), from, from + 10);
                    let began = Instant::now();
                    let rows = client.read(&session, &span).await.unwrap();
                    latencies.push((began, began.elapsed()));
                    assert_same(&rows, &session.expected(&span));
                }
                latencies
            })
        };
        let readers = (0..count).map(reader).collect();
        Self { over, readers }
    }

    /// Ends the reading: when each read began, and how long it took.
    pub async fn finish(self) -> Vec<(Instant, Duration)> {
        self.over.store(true, Ordering::Relaxed);
        let mut latencies = Vec::new();
        for reader in self.readers {
            latencies.extend(reader.await.unwrap());
        }
        latencies
    }
}

/// The 99th percentile of what began within some phases.
pub fn p99(latencies: &[(Instant, Duration)], phases: &[Range<Instant>]) -> Duration {
    let within = |began| phases.iter().any(|phase| phase.contains(began));
    let chosen = latencies.iter().filter(|(began, _)| within(began));
    let mut chosen: Vec<Duration> = chosen.map(|(_, latency)| *latency).collect();
    assert!(chosen.len() >= 100, "only {} reads", chosen.len());
    chosen.sort_unstable();
    chosen[chosen.len() * 99 / 100]
}

//! What the server does and holds.

use std::time::Duration;

use crate::WorkerStatus;
use crate::engine::Statistics;
use crate::grpc::ConnectionStatistics;
use crate::grpc::proto::native::{CacheStats, GetStatsResponse, WorkerStats};

pub(super) fn answer(
    figures: &Statistics,
    connections: &ConnectionStatistics,
    cache_bytes: usize,
    uptime: Duration,
) -> GetStatsResponse {
    let cache = &figures.cache;
    GetStatsResponse {
        version: env!("CARGO_PKG_VERSION").into(),
        uptime_s: uptime.as_secs_f64(),
        recordings: figures.recordings.open,
        metadata_bytes: figures.recordings.metadata_bytes,
        cache: Some(CacheStats {
            bytes: cache.bytes,
            pages: cache.pages,
            hits: cache.hits,
            misses: cache.misses,
            capacity_bytes: cache_bytes as u64,
        }),
        workers: figures.supervisor.workers.iter().map(worker).collect(),
        pages_in_flight: figures.coordinator.in_flight,
        degraded: figures.supervisor.in_process,
        connections: connections.connections as u64,
        calls: connections.streams as u64,
    }
}

fn worker(status: &WorkerStatus) -> WorkerStats {
    WorkerStats {
        pid: status.pid.unwrap_or_default(),
        state: status.state.name().into(),
        jobs: status.jobs as u64,
        restarts: status.restarts,
        slot: u32::try_from(status.slot).unwrap_or(u32::MAX),
        memory_bytes: status.memory_bytes().unwrap_or_default(),
    }
}

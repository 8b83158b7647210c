//! The figures as text, as Prometheus reads it (OpenMetrics 1.0).

use std::fmt;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::actors::delays::Delays;
use crate::engine::Statistics;
use crate::grpc::{CallMetrics, ConnectionStatistics};
use crate::{SupervisorStatistics, WorkerState};

/// What all names begin with.
const PREFIX: &str = "mef3";

/// Figures of one moment.
pub(super) struct Figures<'a> {
    /// Nothing where the engine does not answer.
    pub(super) engine: Option<&'a Statistics>,
    pub(super) connections: ConnectionStatistics,
    pub(super) ready: bool,
}

/// All figures.
pub(super) fn text(calls: &CallMetrics, figures: &Figures<'_>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    calls.register(&mut registry);
    let mut sheet = Sheet(&mut registry);
    sheet.gauge(
        "ready",
        "Whether a block could be decoded of late",
        figures.ready.into(),
    );
    let answers = figures.engine.is_some();
    sheet.gauge(
        "engine_answers",
        "Whether the engine has given its figures",
        answers.into(),
    );
    connections(&mut sheet, &figures.connections);
    if let Some(engine) = figures.engine {
        cache(&mut sheet, engine);
        pages(&mut sheet, engine);
        holdings(&mut sheet, engine);
        workers(&mut sheet, &engine.supervisor);
    }
    let mut text = String::new();
    encode_registry(&mut text, &registry)?;
    encode_eof(&mut text)?;
    Ok(text)
}

/// What the figures are written into.
struct Sheet<'a>(&'a mut Registry);

impl Sheet<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.0.register(name, help, ConstCounter::new(value));
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.0.register(name, help, ConstGauge::new(value));
    }

    fn bytes(&mut self, name: &str, help: &str, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        let gauge = ConstGauge::new(value);
        self.0.register_with_unit(name, help, Unit::Bytes, gauge);
    }

    fn seconds(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.0.register_with_unit(name, help, Unit::Seconds, metric);
    }
}

fn connections(sheet: &mut Sheet<'_>, figures: &ConnectionStatistics) {
    let now = figures.connections as u64;
    sheet.gauge("connections", "Connections that are open", now);
    sheet.counter(
        "connections_accepted",
        "Connections taken",
        figures.accepted,
    );
    sheet.counter(
        "connections_refused",
        "Connections closed at once, since there were too many",
        figures.refused,
    );
    sheet.counter(
        "connections_cut",
        "Connections cut, since nothing was said or taken, or at the end of the server",
        figures.cut_handshake + figures.cut_silent + figures.cut_stalled + figures.cut_shutdown,
    );
    let streams = figures.streams as u64;
    sheet.gauge(
        "streams",
        "Calls until their reply has left the server",
        streams,
    );
    sheet.counter(
        "streams_refused",
        "Calls refused, since there were too many",
        figures.streams_refused,
    );
    sheet.counter(
        "streams_stalled",
        "Replies given up, since nothing of them was taken",
        figures.streams_stalled,
    );
    sheet.counter(
        "streams_past_deadline",
        "Replies that the client's deadline ended",
        figures.streams_past_deadline,
    );
    let unsent = figures.unsent_bytes as u64;
    sheet.bytes("unsent", "Replies that were made and have not left", unsent);
}

fn cache(sheet: &mut Sheet<'_>, engine: &Statistics) {
    let figures = &engine.cache;
    sheet.counter("cache_hits", "Pages that requests found", figures.hits);
    sheet.counter(
        "cache_misses",
        "Pages that requests did not find",
        figures.misses,
    );
    sheet.counter(
        "cache_evictions",
        "Pages dropped to stay within the budget",
        figures.evictions,
    );
    sheet.gauge("cache_pages", "Pages that are held", figures.pages);
    sheet.bytes("cache", "Memory of the pages that are held", figures.bytes);
    sheet.bytes(
        "cache_budget",
        "Memory that they may take",
        figures.budget_bytes,
    );
    sheet.counter(
        "prefetch_hits",
        "Pages brought by predictions that a request then found",
        figures.prefetch_hits,
    );
    sheet.counter(
        "prefetch_wasted",
        "Pages brought by predictions and dropped before any request wanted them",
        figures.prefetch_wasted,
    );
    sheet.counter(
        "predicted_windows",
        "Windows that were predicted",
        engine.prefetch.predicted_windows,
    );
}

fn pages(sheet: &mut Sheet<'_>, engine: &Statistics) {
    let figures = &engine.coordinator;
    sheet.counter("pages_decoded", "Pages that were decoded", figures.decoded);
    sheet.counter(
        "pages_decoded_for_predictions",
        "Of these, pages that only a prediction wanted",
        figures.decoded_for_predictions,
    );
    sheet.counter(
        "pages_joined",
        "Pages that were wanted while they were in flight already",
        figures.joined,
    );
    sheet.counter("pages_failed", "Pages that failed", figures.failed);
    sheet.gauge(
        "pages_in_flight",
        "Pages queued or in work",
        figures.in_flight,
    );
    sheet.gauge(
        "pages_quarantined",
        "Pages given up for now, since readers have ended over them",
        figures.quarantined,
    );
    sheet.counter(
        "fetches_refused",
        "Requests refused, since too many pages were in flight",
        figures.refused,
    );
    sheet.counter(
        "jobs_lost",
        "Jobs whose reader ended while it did them",
        figures.lost_jobs,
    );
    sheet.counter("jobs_cancelled", "Jobs taken back", figures.cancelled_jobs);
    sheet.counter(
        "blocks_masked",
        "Damaged blocks and segments masked, once for each message",
        engine.masked_blocks,
    );
    sheet.seconds(
        "queue_delay",
        "How long pages that requests want have waited for a reader",
        DelayMetric(figures.queue_delays),
    );
}

fn holdings(sheet: &mut Sheet<'_>, engine: &Statistics) {
    let held = &engine.held;
    sheet.bytes(
        "permits_awaited",
        "Decoded pages held for messages that clients wait for",
        held.awaited_bytes,
    );
    sheet.bytes(
        "permits_ahead",
        "Decoded pages held ahead of clients",
        held.ahead_bytes,
    );
    sheet.bytes(
        "permits_limit",
        "What may be held together",
        held.limit_bytes,
    );
    let recordings = &engine.recordings;
    sheet.gauge(
        "recordings_open",
        "Recordings that are open",
        recordings.open,
    );
    sheet.gauge(
        "client_sessions",
        "Sessions of clients that have given an id",
        recordings.client_sessions,
    );
    sheet.bytes(
        "metadata",
        "Indices of the open recordings",
        recordings.metadata_bytes,
    );
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

fn workers(sheet: &mut Sheet<'_>, figures: &SupervisorStatistics) {
    sheet.gauge(
        "degraded",
        "Whether reads are decoded in the server process",
        figures.in_process.into(),
    );
    let states = Family::<StateLabel, Gauge>::default();
    for state in WorkerState::ALL {
        let label = StateLabel {
            state: state.name(),
        };
        let with = figures.workers.iter().filter(|it| it.state == state);
        let number = i64::try_from(with.count()).unwrap_or(i64::MAX);
        states.get_or_create(&label).set(number);
    }
    let help = "Worker slots, by what they are doing";
    sheet.0.register("workers", help, states);
    let restarts = figures.workers.iter().map(|it| it.restarts).sum();
    sheet.counter("worker_restarts", "Workers that were replaced", restarts);
    sheet.counter(
        "workers_stalled",
        "Workers killed, since they made no progress",
        figures.stalled,
    );
    sheet.counter(
        "workers_abandoned",
        "Workers that could not be killed",
        figures.abandoned,
    );
    sheet.counter(
        "jobs_in_process",
        "Jobs done in the server process",
        figures.in_process_jobs,
    );
}

/// Delays that were counted elsewhere.
#[derive(Debug)]
struct DelayMetric(Delays);

impl EncodeMetric for DelayMetric {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let Self(delays) = self;
        // The library writes the last bound, +Inf, for this number.
        let finite = |(bound, count): (f64, u64)| (bound.min(f64::MAX), count);
        let buckets: Vec<(f64, u64)> = delays.buckets().map(finite).collect();
        encoder.encode_histogram::<NoLabelSet>(delays.sum_s(), delays.count(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn figures_are_told_with_their_units_and_the_end() {
        let mut engine = Statistics::default();
        engine.cache.hits = 7;
        engine.cache.budget_bytes = 1 << 20;
        engine
            .coordinator
            .queue_delays
            .note(Duration::from_millis(3));
        engine
            .coordinator
            .queue_delays
            .note(Duration::from_secs(60));
        let figures = Figures {
            engine: Some(&engine),
            connections: ConnectionStatistics::default(),
            ready: true,
        };
        let text = text(&CallMetrics::default(), &figures).unwrap();
        for line in [
            "mef3_ready 1",
            "mef3_cache_hits_total 7",
            "mef3_cache_budget_bytes 1048576",
            "mef3_queue_delay_seconds_count 2",
            "mef3_queue_delay_seconds_bucket{le=\"0.005\"} 1",
            "mef3_queue_delay_seconds_bucket{le=\"10.0\"} 1",
            "mef3_queue_delay_seconds_bucket{le=\"+Inf\"} 2",
            "mef3_workers{state=\"ready\"} 0",
            "mef3_calls_running{rpc=\"gRPCMef3Server/OpenFile\"} 0",
        ] {
            assert!(text.lines().any(|it| it == line), "no {line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn an_engine_that_is_silent_leaves_the_rest() {
        let figures = Figures {
            engine: None,
            connections: ConnectionStatistics::default(),
            ready: false,
        };
        let text = text(&CallMetrics::default(), &figures).unwrap();
        assert!(text.contains("\nmef3_engine_answers 0\n") && !text.contains("mef3_cache"));
    }
}

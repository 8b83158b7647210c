//! Spans of requests, sent to a collector of OpenTelemetry.

use std::env;
use std::io;
use std::time::Duration;

use mef3_server::config::Trace;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider,
};
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Layer;

/// Where the collector is, in the way of other programs that send spans.
const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Spans that wait to be sent; what is beyond is lost.
const MOST_WAITING: usize = 2048;
/// Spans of one message to the collector.
const MOST_OF_MESSAGE: usize = 256;
/// How long spans wait for others, and how long a collector may take.
const SEND_PERIOD: Duration = Duration::from_secs(1);
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// How long the end of the program waits for the last spans to be taken.
const END_LIMIT: Duration = Duration::from_millis(500);

/// Why spans cannot be sent.
#[derive(Debug, Error)]
pub(super) enum SpansError {
    /// There is no thread to send them from.
    #[error("no thread can be started to send spans: {0}")]
    Thread(#[from] io::Error),
    /// The collector's address makes no sense.
    #[error("spans cannot be sent: {0}")]
    Exporter(#[from] ExporterBuildError),
}

/// Sends spans until it is dropped; then the last ones, within a moment.
pub(super) struct Sending {
    provider: SdkTracerProvider,
    /// What the connection to the collector lives on.
    runtime: Option<Runtime>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        // A collector that is not there is no reason to stay.
        let _ = self.provider.shutdown_with_timeout(END_LIMIT);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What takes spans and sends them, if there is a collector to send them to.
///
/// Only spans are told, with the fields that they have in the log: no line of the log,
/// which may name recordings.
pub(super) type Spans = (Box<dyn Layer<Registry> + Send + Sync>, Sending);

/// Begins to send spans as the settings, or the environment, say.
pub(super) fn start(trace: &Trace) -> Result<Option<Spans>, SpansError> {
    let from_environment = env::var(ENDPOINT_VARIABLE).ok();
    let endpoint = trace
        .otlp_endpoint()
        .map(str::to_owned)
        .or(from_environment);
    let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.is_empty()) else {
        return Ok(None);
    };
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("mef3-spans")
        .enable_all()
        .build()?;
    let exporter = {
        let _entered = runtime.enter();
        let exporter = SpanExporter::builder().with_tonic();
        let exporter = exporter.with_endpoint(endpoint).with_timeout(SEND_LIMIT);
        exporter.build()?
    };
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(MOST_WAITING)
        .with_max_export_batch_size(MOST_OF_MESSAGE)
        .with_scheduled_delay(SEND_PERIOD)
        .build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches);
    let share = f64::from(trace.sample_percent) / 100.0;
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share)));
    let name = Resource::builder().with_service_name("mef3-server").build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(processor.build())
        .with_sampler(sampler)
        .with_resource(name)
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("mef3-server"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false);
    let ours = filter_fn(|data| data.is_span() && data.target().starts_with("mef3_server"))
        .with_max_level_hint(LevelFilter::DEBUG);
    let sending = Sending {
        provider,
        runtime: Some(runtime),
    };
    Ok(Some((layer.with_filter(ours).boxed(), sending)))
}

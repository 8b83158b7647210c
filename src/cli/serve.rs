//! `serve`: the server, until a signal ends it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mef3_server::Engine;
use mef3_server::config::{Config, Loaded, LogFormat, LogLevel, process_environment};
use mef3_server::grpc::{self, ConnectionCounters, ConnectionLimits, ServiceOptions};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::descriptors;
use super::failure::Failure;
use super::logging;
use super::password::PasswordArguments;

/// How long tasks that were cut may take to end. With what the engine takes to stop,
/// the end comes within a second of the grace.
const CUT_LIMIT: Duration = Duration::from_millis(200);

/// Serves recordings over gRPC, to the clients of brainmaze-mef3-server and
/// mef3io-server.
///
/// Flags go over environment variables, these over the configuration file, and
/// that over the defaults. SIGTERM and SIGINT end the server: it takes nothing
/// new, lets running replies finish within a few seconds, and exits with 0.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Worker processes; 0 decodes in the server's own process
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Page cache in MiB of decoded samples
    #[arg(long, value_name = "N")]
    cache_mb: Option<usize>,
    /// Look paths of clients up below this folder
    #[arg(long, value_name = "FOLDER")]
    host_root: Option<PathBuf>,
    /// Configuration file; config/mef3-server.toml documents every setting
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Form of the log on standard error
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Least important records of the log; RUST_LOG goes over it
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    #[command(flatten)]
    password: PasswordArguments,
}

const EXAMPLES: &str = "\
Examples:
  mef3-server serve
  mef3-server serve --listen 0.0.0.0:50051 --workers 4 --cache-mb 2048
  PORT=50051 N_PROCESS_WORKERS=4 mef3-server serve";

impl Arguments {
    /// The settings: file and environment, with the flags over them.
    fn load(&self) -> Result<Loaded, Failure> {
        let mut loaded = Config::load(self.config.as_deref(), process_environment())?;
        let config = &mut loaded.config;
        if let Some(listen) = self.listen {
            config.server.listen = listen;
        }
        if let Some(workers) = self.workers {
            config.workers.min = workers;
        }
        if let Some(size_mb) = self.cache_mb {
            config.cache.size_mb = size_mb;
        }
        if let Some(host_root) = &self.host_root {
            config.paths.host_root.clone_from(host_root);
        }
        if let Some(format) = self.log_format {
            config.log.format = format;
        }
        if let Some(level) = self.log_level {
            config.log.level = level;
        }
        config.validate()?;
        Ok(loaded)
    }
}

/// Serves until a signal comes.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Loaded {
        mut config,
        notices,
    } = arguments.load()?;
    logging::start(&config.log)?;
    for notice in notices {
        tracing::warn!("{notice}");
    }
    descriptors::provide(&mut config);
    // Before anything is started: a port in use is the commonest mistake.
    let listener = grpc::listen(config.server.listen)?;
    let address = listener.local_addr().map_err(Failure::Start)?;
    let runtime = Runtime::new().map_err(Failure::Start)?;
    let options = ServiceOptions {
        host_root: config.paths.host_root().map(Into::into),
        password: arguments.password.password()?,
        on_damage: config.legacy.on_damage,
        shutdown_grace: config.server.shutdown_grace(),
        limits: ConnectionLimits::from(&config),
        counters: ConnectionCounters::default(),
    };
    let counters = options.counters.clone();
    // Before the workers: what they leave behind when half started is removed
    // by an end in order only.
    let stop = stop_signal(&runtime).map_err(Failure::Start)?;
    let engine = Engine::builder().config(config).start()?;
    let served = runtime.block_on(async {
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening");
        let served = grpc::serve(engine.clone(), listener, options, stop).await;
        log_figures(&engine, &counters).await;
        engine.shutdown().await;
        served
    });
    runtime.shutdown_timeout(CUT_LIMIT);
    served?;
    tracing::info!("ended");
    Ok(())
}

/// Says what is held when all clients are gone: the cache, open recordings, and
/// otherwise nothing, or something has leaked.
async fn log_figures(engine: &Engine, counters: &ConnectionCounters) {
    let connections = counters.statistics();
    match engine.statistics().await {
        Ok(figures) => tracing::info!(
            cache_bytes = figures.cache.bytes,
            cache_pages = figures.cache.pages,
            metadata_bytes = figures.recordings.metadata_bytes,
            awaited_bytes = figures.held.awaited_bytes,
            ahead_bytes = figures.held.ahead_bytes,
            pages_in_flight = figures.coordinator.in_flight,
            unsent_bytes = connections.unsent_bytes,
            calls = connections.streams,
            connections = connections.connections,
            "held at the end"
        ),
        Err(error) => tracing::warn!(%error, "no figures at the end"),
    }
}

/// Is ready when SIGTERM or SIGINT comes, from this call on.
pub(super) fn stop_signal(runtime: &Runtime) -> std::io::Result<impl Future<Output = ()> + use<>> {
    let _entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "ending");
    })
}

//! `serve`: the server, until a signal ends it.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use mef3_server::Engine;
use mef3_server::config::{
    Config, ConfigError, Loaded, LogFormat, LogLevel, Origin, process_environment,
};
use mef3_server::grpc::{
    self, CallMetrics, ConnectionCounters, ConnectionLimits, Health, Listeners, LocalSocket,
    ServiceOptions,
};
use mef3_server::ops::{self, Admin, AdminOptions};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::BUILT_FOR_TESTS;
use super::descriptors;
use super::failure::Failure;
use super::logging::{self, Logging};
use super::notify;
use super::password::PasswordArguments;
use super::reload::Access;
use super::sockets::Passed;

/// How long the end waits for figures to log, for the engine, and for tasks that were
/// cut: one second after the grace all is over, whatever hangs.
const FIGURES_LIMIT: Duration = Duration::from_millis(100);
const ENGINE_LIMIT: Duration = Duration::from_millis(700);
const CUT_LIMIT: Duration = Duration::from_millis(200);

/// Serves recordings over gRPC, to the clients of brainmaze-mef3-server and
/// mef3io-server.
///
/// Flags go over environment variables, these over the configuration file, and
/// that over the defaults. SIGTERM and SIGINT end the server: it takes nothing
/// new, lets running replies finish within a few seconds, and exits with 0. A
/// second signal cuts these short.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Let other machines connect without encryption
    #[arg(long)]
    insecure: bool,
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
  mef3-server serve --listen 127.0.0.1:50051 --workers 4 --cache-mb 2048
  mef3-server serve --listen 0.0.0.0:50051 --config /etc/mef3-server.toml   # which names a certificate
  PORT=50051 N_PROCESS_WORKERS=4 mef3-server serve --insecure               # as the Python servers";

impl Arguments {
    /// The settings: file and environment, with the flags over them; judged for the
    /// sockets that were passed, if there are any to serve.
    fn load(&self, passed: &Passed) -> Result<Loaded, Failure> {
        let mut loaded = Config::load(self.config.as_deref(), process_environment())?;
        let config = &mut loaded.config;
        if let Some(listen) = self.listen {
            config.server.listen = listen;
        }
        config.server.insecure |= self.insecure;
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
        let checked = config.validate().and_then(|()| config.check_built());
        checked.map_err(|error| self.at_flag(error))?;
        if passed.has_some_for_clients() {
            for port in &passed.ports {
                let address = port.local_addr().map_err(Failure::Start)?;
                config.check_exposure_of(address)?;
            }
        } else {
            let checked = config.check_exposure();
            checked.map_err(|error| self.at_flag(error))?;
        }
        Ok(loaded)
    }

    /// The error with the flag that it comes from, if it comes from one.
    fn at_flag(&self, mut error: ConfigError) -> ConfigError {
        if let ConfigError::BadValue { key, origin, .. } = &mut error {
            match key.as_str() {
                "server.listen" if self.listen.is_some() => *origin = Origin::Flag("--listen"),
                "workers.min" if self.workers.is_some() => *origin = Origin::Flag("--workers"),
                "cache.size_mb" if self.cache_mb.is_some() => *origin = Origin::Flag("--cache-mb"),
                "paths.host_root" if self.host_root.is_some() => {
                    *origin = Origin::Flag("--host-root");
                }
                _ => {}
            }
        }
        error
    }
}

/// Serves until a signal comes.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    // Before there is any other thread.
    let mut passed = Passed::take()?;
    let Loaded {
        mut config,
        notices,
    } = arguments.load(&passed)?;
    let Logging { switch, .. } = &logging::start(&config)?;
    let log = Arc::clone(switch);
    for notice in notices {
        tracing::warn!("{notice}");
    }
    // Before anything is started: a port in use is the commonest mistake.
    let admin_listener = match passed.admin.take() {
        Some(admin) => Some(admin),
        None => admin_listener(&config)?,
    };
    let were_passed = passed.has_some_for_clients();
    let (listeners, places) = listeners(&config, passed)?;
    let addresses = listeners.addresses();
    let is_near = addresses
        .iter()
        .all(|it| it.ip().to_canonical().is_loopback());
    let access = Access::load(&config, is_near)?;
    descriptors::provide(&mut config);
    let runtime = Runtime::new().map_err(Failure::Start)?;
    let options = ServiceOptions {
        host_root: config.paths.host_root().map(Into::into),
        data_roots: config.paths.data_roots.clone(),
        password: arguments.password.password()?,
        passwords_in_clear: config.server.passwords_in_clear,
        on_damage: config.legacy.on_damage,
        shutdown_grace: config.server.shutdown_grace(),
        limits: ConnectionLimits::from(&config),
        counters: ConnectionCounters::default(),
        calls: CallMetrics::default(),
        health: Health::from(&config),
        tls: access.tls.clone(),
        tokens: access.tokens.clone(),
        web_origins: config.server.web_origins.clone(),
    };
    if let Some(root) = options.host_root.as_deref().filter(|root| !root.is_dir()) {
        tracing::warn!(host_root = %root.display(), "no such folder: clients will find nothing");
    }
    for root in options
        .data_roots
        .iter()
        .filter(|root| !root.path().is_dir())
    {
        let name = root.name();
        tracing::error!(
            root = name,
            "no such folder: once it is there, start the server again, whose workers are \
             confined to the folders that there were"
        );
    }
    let counters = options.counters.clone();
    let (calls, health) = (options.calls.clone(), options.health.clone());
    let told_health = health.clone();
    // Before the workers: what they leave behind when half started is removed
    // by an end in order only.
    let mut signals = StopSignals::new(&runtime).map_err(Failure::Start)?;
    let encrypted = access.tls.is_some();
    access.reload_on_signal(&runtime).map_err(Failure::Start)?;
    let engine = Engine::builder().config(config).start()?;
    // Answers until the end of this function.
    let _admin = match admin_listener {
        Some(listener) => Some(start_admin(
            listener,
            AdminOptions {
                engine: engine.clone(),
                health,
                connections: counters.clone(),
                calls,
                log: Some(log),
            },
        )?),
        None => None,
    };
    if let Some(warning) = BUILT_FOR_TESTS {
        tracing::error!("{warning}");
    }
    let served = runtime.block_on(async {
        let version = env!("CARGO_PKG_VERSION");
        for address in &places {
            // What stays on this machine by its kind is not.
            let encrypted = encrypted && !address.starts_with("unix:");
            tracing::info!(%address, encrypted, were_passed, version, "listening");
        }
        notify::ready();
        tokio::spawn(notify::keep_telling(engine.clone(), told_health));
        let (stop, stopped) = oneshot::channel();
        let serving = grpc::serve(engine.clone(), listeners, options, async {
            // The other end lives as long as this is waited for.
            let _: Result<(), _> = stopped.await;
        });
        let served = tokio::select! {
            served = serving => served,
            () = async {
                signals.next().await;
                notify::stopping();
                // Nobody listens where serving has just ended by itself.
                let _ = stop.send(());
                signals.next().await;
            } => {
                tracing::warn!("a second signal: the grace ends here");
                Ok(())
            }
        };
        log_figures(&engine, &counters).await;
        if timeout(ENGINE_LIMIT, engine.shutdown()).await.is_err() {
            tracing::error!("the engine does not end within {ENGINE_LIMIT:?}");
        }
        served
    });
    runtime.shutdown_timeout(CUT_LIMIT);
    served?;
    tracing::info!("ended");
    Ok(())
}

/// What clients connect to, and where: sockets that were passed, or else those of the
/// settings.
fn listeners(config: &Config, passed: Passed) -> Result<(Listeners, Vec<String>), Failure> {
    let (ports, local): (_, Vec<LocalSocket>) = if passed.has_some_for_clients() {
        let local = passed.local.into_iter().map(Into::into);
        (passed.ports, local.collect())
    } else {
        let port = grpc::listen(config.server.listen)?;
        let local = config.server.unix_socket().map(|path| {
            LocalSocket::bind(path).map_err(|error| Failure::UnixSocket {
                path: path.into(),
                error,
            })
        });
        (vec![port], local.transpose()?.into_iter().collect())
    };
    let paths = local.iter().map(|it| match it.path() {
        Some(path) => format!("unix:{}", path.display()),
        None => "unix:".into(),
    });
    let paths: Vec<String> = paths.collect();
    let listeners = Listeners::new(ports, local);
    let addresses = listeners.addresses();
    let places = addresses.iter().map(ToString::to_string).chain(paths);
    Ok((listeners, places.collect()))
}

/// Takes the address that operators ask at, if there is one.
fn admin_listener(config: &Config) -> Result<Option<TcpListener>, Failure> {
    // A bad address was refused with the settings.
    let address = config.admin.listen().ok().flatten();
    Ok(address.map(grpc::listen).transpose()?)
}

fn start_admin(listener: TcpListener, options: AdminOptions) -> Result<Admin, Failure> {
    let address = listener.local_addr().map_err(Failure::Start)?;
    let admin = ops::start(listener, options).map_err(Failure::Start)?;
    tracing::info!(%address, "admin port is open");
    Ok(admin)
}

/// Says what is held when all clients are gone: the cache, open recordings, and
/// otherwise nothing, or something has leaked.
async fn log_figures(engine: &Engine, counters: &ConnectionCounters) {
    let connections = counters.statistics();
    match timeout(FIGURES_LIMIT, engine.statistics()).await {
        Ok(Ok(figures)) => tracing::info!(
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
        Ok(Err(error)) => tracing::warn!(%error, "no figures at the end"),
        Err(_) => tracing::warn!("no figures at the end within {FIGURES_LIMIT:?}"),
    }
}

/// The signals that end a server, from the making of this on.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    pub(super) fn new(runtime: &Runtime) -> std::io::Result<Self> {
        let _entered = runtime.enter();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Is ready when SIGTERM or SIGINT comes.
    pub(super) async fn next(&mut self) {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "ending");
    }
}

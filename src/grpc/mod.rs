//! The gRPC services over an [`Engine`].

mod access;
mod health;
mod legacy;
mod metrics;
mod native;
mod peer;
pub mod proto;
mod reflection;
#[cfg(feature = "otlp")]
mod remote_parent;
mod request_id;
mod roots;
mod samples;
mod texts;
mod transport;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinSet;
use tonic::service::Routes;

pub use self::access::local::LocalSocket;
pub use self::access::tls::{Tls, TlsError};
pub use self::access::tokens::{TokenFileError, Tokens};
pub use self::health::{Health, LIVENESS, READINESS, Readiness};
pub use self::metrics::{CallMetrics, code_name};
pub use self::transport::{ConnectionCounters, ConnectionLimits, ConnectionStatistics, Listeners};

use self::legacy::Legacy;
use self::native::Native;
use self::proto::native::server::RecordingServiceServer;
use self::proto::server::LegacyServer;
use self::transport::{Serving, Web};
use crate::config::{DataRoot, OnDamage, WebOrigin};
use crate::engine::Engine;
use crate::mef::Password;

/// What the services need to know beside the engine.
#[derive(Clone, Debug, Default)]
pub struct ServiceOptions {
    /// Paths of clients are looked up below this folder.
    pub host_root: Option<PathBuf>,
    /// Folders that clients may name, and list the recordings of.
    pub data_roots: Vec<DataRoot>,
    /// The password of protected sessions, where clients cannot give one.
    pub password: Option<Password>,
    /// Passwords in the metadata of calls are taken over connections that anybody can
    /// listen to.
    pub passwords_in_clear: bool,
    /// What reads over damage are answered with.
    pub on_damage: OnDamage,
    /// How long streams may go on after a shutdown was asked for.
    pub shutdown_grace: Duration,
    /// How much clients may ask of the transport, and how long they may take.
    pub limits: ConnectionLimits,
    /// What counts connections and calls.
    pub counters: ConnectionCounters,
    /// What counts the calls of each method.
    pub calls: CallMetrics,
    /// What is known of the server's health.
    pub health: Health,
    /// What encrypts the connections to the port, if they are to be.
    pub tls: Option<Tls>,
    /// The tokens that calls need one of, if they do.
    pub tokens: Option<Tokens>,
    /// Where pages come from that may call (gRPC-Web), also over HTTP/1.1. None: no page.
    pub web_origins: Vec<WebOrigin>,
}

/// Why serving ended before it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        error: std::io::Error,
    },
    /// The threads that calls run on cannot be started.
    #[error("the threads of calls cannot be started: {0}")]
    Threads(std::io::Error),
}

/// Takes an address to listen on. It is not shared: a second server on the same
/// port is an error.
///
/// # Errors
/// [`ServeError::Listen`].
pub fn listen(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| ServeError::Listen { address, error })
}

/// Serves an engine on a port, or on what [`Listeners`] there are, until `shutdown` is ready; then
/// closes the listeners, takes nothing new on the connections that there are, and gives running
/// calls the grace of the options. What is not done by then is cut.
///
/// Needs a tokio runtime, with its timer and its sockets, for the connections and for
/// questions after the server's health; all other calls run on threads of their own,
/// "mef3-calls". The engine is not shut down.
///
/// # Errors
/// [`ServeError::Listen`] where the listener cannot be used, and
/// [`ServeError::Threads`].
pub async fn serve(
    engine: Engine,
    listeners: impl Into<Listeners>,
    options: ServiceOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let listeners = listeners.into();
    let address = listeners.addresses().first().copied();
    let listeners = listeners.start().map_err(|error| ServeError::Listen {
        address: address.unwrap_or_else(|| ([0, 0, 0, 0], 0).into()),
        error,
    })?;
    let ServiceOptions {
        limits,
        counters,
        calls,
        health,
        tls,
        tokens,
        web_origins,
        ..
    } = options.clone();
    let grace = options.shutdown_grace;
    let native = Native::new(engine.clone(), options.clone());
    let native =
        RecordingServiceServer::new(native).max_decoding_message_size(limits.request_message);
    let legacy = LegacyServer::new(Legacy::new(engine.clone(), options))
        .max_decoding_message_size(limits.request_message);
    let (health_service, informing) = health.service().await;
    let mut routes = Routes::builder();
    routes
        .add_service(legacy)
        .add_service(native)
        .add_service(health_service.max_decoding_message_size(limits.request_message));
    if let Err(error) = reflection::add_to(&mut routes, limits.request_message, &health) {
        tracing::error!(%error, "reflection is not served");
    }
    // Both end with this function, however it ends.
    let mut tasks = JoinSet::new();
    tasks.spawn(informing.run());
    tasks.spawn(health.clone().watch_readers(engine));
    let shutdown = async {
        shutdown.await;
        health.drain();
    };
    let serving = Serving {
        routes: routes.routes(),
        limits,
        counters,
        calls,
        tls,
        tokens,
        web: Web::new(&web_origins),
    };
    let served = transport::serve(listeners, serving, grace, shutdown).await;
    served.map_err(ServeError::Threads)
}

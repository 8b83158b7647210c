//! The gRPC services over an [`Engine`].

mod legacy;
pub mod proto;
mod texts;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use self::legacy::Legacy;
use self::proto::server::LegacyServer;
use crate::config::OnDamage;
use crate::engine::Engine;
use crate::mef::Password;

/// What the services need to know beside the engine.
#[derive(Clone, Debug, Default)]
pub struct ServiceOptions {
    /// Paths of clients are looked up below this folder.
    pub host_root: Option<PathBuf>,
    /// The password of protected sessions, where clients cannot give one.
    pub password: Option<Password>,
    /// What reads over damage are answered with.
    pub on_damage: OnDamage,
    /// How long streams may go on after a shutdown was asked for.
    pub shutdown_grace: Duration,
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
    /// The transport failed.
    #[error("serving failed: {0}")]
    Transport(#[from] tonic::transport::Error),
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

/// Serves an engine on a listener until `shutdown` is ready; then takes nothing
/// new, and gives running streams the grace of the options.
///
/// Needs a tokio runtime. What is still running after the grace ends with that
/// runtime. The engine is not shut down.
///
/// # Errors
/// [`ServeError`] where the listener cannot be used.
pub async fn serve(
    engine: Engine,
    listener: TcpListener,
    options: ServiceOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let address = listener.local_addr();
    let listen_error = |error| ServeError::Listen {
        address: address
            .as_ref()
            .map_or_else(|_| ([0, 0, 0, 0], 0).into(), Clone::clone),
        error,
    };
    let listener = tokio::net::TcpListener::from_std(listener).map_err(listen_error)?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let grace = options.shutdown_grace;
    let legacy = LegacyServer::new(Legacy::new(engine, options));
    let (stop, stopping) = tokio::sync::oneshot::channel::<()>();
    let serving = Server::builder()
        .add_service(legacy)
        .serve_with_incoming_shutdown(incoming, async {
            // An error says that the other end is gone, which is a stop too.
            let _ = stopping.await;
        });
    tokio::pin!(serving);
    tokio::select! {
        ended = &mut serving => return Ok(ended?),
        () = shutdown => {}
    }
    let _ = stop.send(());
    // One silent connection or one stalled stream would hold it for ever.
    match tokio::time::timeout(grace, serving).await {
        Ok(ended) => Ok(ended?),
        Err(_) => {
            tracing::warn!(?grace, "connections are cut at the end of the grace");
            Ok(())
        }
    }
}

//! The admin port: HTTP/1.1 on a thread and a runtime of its own, so that it answers
//! whatever keeps the server busy.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::answers::{Answers, LogSwitch};
use crate::engine::Engine;
use crate::grpc::{CallMetrics, ConnectionCounters, Health};

/// Connections at a time; more are closed at once.
const CONNECTIONS: usize = 16;
/// How long the headers of a request may take.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection may last, which is one request.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of a request's headers, and of what is read at a time. The least that hyper
/// takes.
const BUFFER_BYTES: usize = 8 << 10;
/// How long no connection is taken after the system had none to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin port tells of.
#[derive(Clone)]
pub struct AdminOptions {
    /// The engine that is served.
    pub engine: Engine,
    /// Its health, of which [`serve`](crate::grpc::serve) has a clone.
    pub health: Health,
    /// Its connections, in the same way.
    pub connections: ConnectionCounters,
    /// Its calls, in the same way.
    pub calls: CallMetrics,
    /// The level of the log, where it can be changed.
    pub log: Option<Arc<dyn LogSwitch>>,
}

/// A running admin port. Dropping it ends it.
#[derive(Debug)]
pub struct Admin {
    _stop: watch::Sender<()>,
}

/// Answers on a listener, of those that [`listen`](crate::grpc::listen) makes, from a
/// thread of its own.
///
/// # Errors
/// Where the thread, its runtime or the listener cannot be had.
pub fn start(listener: TcpListener, options: AdminOptions) -> io::Result<Admin> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let answers = Arc::new(Answers::new(options));
    let (stop, mut stopped) = watch::channel(());
    thread::Builder::new()
        .name("mef3-admin".into())
        .spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, answers) => {}
                    // Nothing is sent: this is the end of the sender.
                    _ = stopped.changed() => {}
                }
            });
        })?;
    Ok(Admin { _stop: stop })
}

/// Takes connections for ever.
async fn accept(listener: tokio::net::TcpListener, answers: Arc<Answers>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            // Those that have ended make room.
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) if connections.len() < CONNECTIONS => {
                let serving = serve(stream, peer, Arc::clone(&answers));
                connections.spawn(timeout(CONNECTION_LIMIT, serving));
            }
            Ok((_, peer)) => tracing::debug!(%peer, "admin connection is refused"),
            Err(error) => {
                tracing::debug!(%error, "no admin connection can be taken");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers the one request of a connection.
async fn serve(stream: TcpStream, peer: SocketAddr, answers: Arc<Answers>) {
    let service = service_fn(move |request| {
        let answers = Arc::clone(&answers);
        async move { answers.answer(request, peer).await }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_buf_size(BUFFER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "admin connection failed");
    }
}

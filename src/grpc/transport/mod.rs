//! HTTP/2 for clients of any kind: those that are slow, silent or too many, too. And
//! HTTP/1.1 for pages in browsers, where they may call.
//!
//! Connections are taken and served here, not by tonic's own server, since that one
//! cannot end a stream that its client does not take, does not say why a connection
//! ended, and spins where the system has no descriptors left.

mod calls;
mod connection;
mod limits;
mod listeners;
mod log;
mod panics;
mod reply;
mod shared;
mod statistics;
mod tasks;
mod web;
mod wire;

use std::io::ErrorKind;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::TcpKeepalive;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;

pub(super) use calls::Via;
pub use limits::ConnectionLimits;
pub(super) use listeners::Accepting;
pub use listeners::Listeners;
pub(super) use reply::{Room, timeout as given_time};
pub use statistics::{ConnectionCounters, ConnectionStatistics};
pub(super) use web::Web;

use self::calls::Calls;
use self::connection::{Connection, Cut};
use self::shared::Shared;
use self::tasks::CallTasks;
use self::wire::{Layer, Peer, Socket, Stream, Wire};
use super::access::tls::Tls;
use super::access::tokens::Tokens;
use super::metrics::CallMetrics;

/// How long no connection is taken after the system had none to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes that wait in the system for their turn to be sent. With more, a slow client
/// holds megabytes there, and hears of nothing else until it has taken them.
const UNSENT_BYTES: u32 = 256 << 10;
/// Bytes of one call's reply that HTTP/2 holds before it waits for the client, one
/// piece excepted.
const REPLY_BYTES: usize = 128 << 10;
/// Bytes of all headers of a request.
const HEADER_BYTES: usize = 16 << 10;
/// The looks at a connection judge how long it is silent. The protocol's own limit
/// would not: it waits behind the data that a slow client has yet to take, and it
/// cannot end a connection that takes nothing.
const NO_LIMIT: Duration = Duration::from_secs(366 * 24 * 3600);

/// How often the system asks a browser whether it is there before it gives it up.
const PROBES: u32 = 3;

/// What connections are served by.
pub(super) struct Serving {
    pub(super) routes: Routes,
    pub(super) limits: ConnectionLimits,
    pub(super) counters: ConnectionCounters,
    pub(super) calls: CallMetrics,
    /// What encrypts connections to the port, if they are to be.
    pub(super) tls: Option<Tls>,
    /// The tokens that calls need one of, if they do.
    pub(super) tokens: Option<Tokens>,
    /// What answers pages in browsers, if they may call.
    pub(super) web: Option<Web>,
}

/// The threads that calls run on.
struct CallThreads(Option<Runtime>);

impl CallThreads {
    fn start() -> std::io::Result<Self> {
        let mut threads = Builder::new_multi_thread();
        threads.thread_name("mef3-calls").enable_all();
        Ok(Self(Some(threads.build()?)))
    }

    fn handle(&self) -> Handle {
        // There are some until the end.
        let own = self.0.as_ref().map(Runtime::handle);
        own.map_or_else(Handle::current, Handle::clone)
    }
}

impl Drop for CallThreads {
    fn drop(&mut self) {
        if let Some(threads) = self.0.take() {
            // What runs there was cut, and this may be a task, which must not wait.
            threads.shutdown_background();
        }
    }
}

/// Serves on listeners until `shutdown` is ready. Then nothing new is
/// taken, and what runs gets `grace` to finish.
///
/// # Errors
/// Where there are no threads to be had.
pub(super) async fn serve(
    mut listeners: Accepting,
    serving: Serving,
    grace: Duration,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let server = Server {
        threads: CallThreads::start()?,
        shared: Arc::new(Shared::new(
            serving.limits,
            serving.counters,
            serving.calls,
            serving.tokens,
        )),
        routes: serving.routes.prepare(),
        tls: serving.tls,
        web: serving.web,
    };
    let mut connections = JoinSet::new();
    let (drain, draining) = watch::channel(false);
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            // Those that have ended would pile up.
            Some(_) = connections.join_next() => continue,
            accepted = listeners.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(serving) = server.connection(stream, peer, draining.clone()) {
                    connections.spawn(serving);
                }
            }
            // The client's own fault, and no reason to wait.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                server.shared.note_accept_failure(&error);
                tokio::select! {
                    () = &mut shutdown => break,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(listeners);
    drain.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if timeout(grace, drained).await.is_err() {
        let left = connections.len();
        tracing::warn!(
            ?grace,
            connections = left,
            "connections are cut at the end of the grace"
        );
        let cut = u64::try_from(left).unwrap_or(u64::MAX);
        let counter = &server.shared.counts().cut_shutdown;
        counter.fetch_add(cut, std::sync::atomic::Ordering::Relaxed);
        connections.shutdown().await;
    }
    Ok(())
}

type Http = auto::Builder<CallTasks>;

fn http(limits: &ConnectionLimits, for_browsers: bool, tasks: CallTasks) -> Http {
    let mut http = Http::new(tasks);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(HEADER_BYTES as u32)
        .max_send_buf_size(REPLY_BYTES)
        .keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(NO_LIMIT);
    if !for_browsers {
        return http.http2_only();
    }
    http.http1()
        .timer(TokioTimer::new())
        // Also until the next request of a connection that stays open.
        .header_read_timeout(limits.handshake)
        .max_buf_size(HEADER_BYTES);
    http
}

struct Server {
    shared: Arc<Shared>,
    routes: Routes,
    threads: CallThreads,
    tls: Option<Tls>,
    web: Option<Web>,
}

impl Server {
    /// What serves a connection, if there is room for it.
    fn connection(
        &self,
        stream: Stream,
        peer: Peer,
        draining: watch::Receiver<bool>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let place = self.shared.connection_place(peer)?;
        // It works without, only not as well.
        if let Stream::Network(stream) = &stream
            && let Err(error) = self.prepare(stream)
        {
            tracing::debug!(%peer, %error, "socket options are not set");
        }
        // What stays on this machine by its kind is not encrypted.
        let tls = self.tls.as_ref();
        let tls = tls.filter(|_| matches!(stream, Stream::Network(_)));
        let acceptor = tls.map(|tls| tls.acceptor(self.web.is_some()));
        let shared = Arc::clone(&self.shared);
        let connection = Connection::new(peer, acceptor.is_some(), shared, place);
        let tasks = CallTasks::new(self.threads.handle());
        let http = http(&self.shared.limits, self.web.is_some(), tasks.clone());
        let calls = Calls {
            routes: self.routes.clone(),
            web: self.web.clone(),
            connection: Arc::new(connection),
            draining,
            tasks,
        };
        Some(serve_connection(stream, acceptor, http, calls))
    }

    fn prepare(&self, stream: &TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let socket = socket2::SockRef::from(stream);
        socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
        if self.web.is_none() {
            return Ok(());
        }
        // HTTP/1.1 has no question whether the other one is there.
        let limits = &self.shared.limits;
        let keepalive = TcpKeepalive::new()
            .with_time(limits.keepalive_interval)
            .with_interval((limits.keepalive / PROBES).max(Duration::from_secs(1)))
            .with_retries(PROBES);
        socket.set_tcp_keepalive(&keepalive)?;
        // Nor are there probes while something is under way to it.
        socket.set_tcp_user_timeout(Some(limits.keepalive_interval + limits.keepalive))
    }
}

/// Ends the calls of a connection that is no more, however it ended.
struct Calling(Arc<Connection>);

impl Drop for Calling {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// Encrypts a connection, if it is to be. `None` where nothing comes of that.
async fn begin(
    stream: Stream,
    acceptor: Option<TlsAcceptor>,
    connection: &Arc<Connection>,
    draining: &mut watch::Receiver<bool>,
) -> Option<Socket> {
    let wire = Wire::new(stream, Arc::clone(connection));
    let layer = match acceptor {
        None => Layer::Plain(wire),
        Some(acceptor) => tokio::select! {
            begun = timeout(connection.handshake_left(), acceptor.accept(wire)) => match begun {
                Ok(Ok(encrypted)) => Layer::Encrypted(Box::new(encrypted)),
                Ok(Err(error)) => {
                    tracing::debug!(peer = %connection.peer, %error, "no encryption");
                    return None;
                }
                Err(_) => {
                    connection.note(Cut::Handshake);
                    return None;
                }
            },
            // An error says that the server is gone.
            _ = draining.wait_for(|&draining| draining) => return None,
        },
    };
    Some(Socket::new(layer, Arc::clone(connection)))
}

/// Serves a connection to its end.
async fn serve_connection(stream: Stream, acceptor: Option<TlsAcceptor>, http: Http, calls: Calls) {
    let connection = Arc::clone(&calls.connection);
    let mut draining = calls.draining.clone();
    let limits = connection.shared.limits;
    let _calling = Calling(Arc::clone(&connection));
    let Some(socket) = begin(stream, acceptor, &connection, &mut draining).await else {
        return;
    };
    let mut serving = pin!(http.serve_connection(TokioIo::new(socket), calls));
    let period = limits.look_interval();
    let mut looks = interval_at(Instant::now() + period, period);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut drained = false;
    loop {
        tokio::select! {
            ended = &mut serving => {
                match ended {
                    Ok(()) => connection.end(),
                    Err(error) => {
                        tracing::debug!(peer = %connection.peer, %error, "connection failed");
                    }
                }
                return;
            }
            // An error says that the server is gone.
            _ = draining.wait_for(|&draining| draining), if !drained => {
                if !connection.is_greeted() {
                    return;
                }
                drained = true;
                serving.as_mut().graceful_shutdown();
            }
            _ = looks.tick() => {
                if let Some(cut) = connection.look(&limits) {
                    connection.note(cut);
                    return;
                }
            }
        }
    }
}

/// Locks what no panic can leave half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

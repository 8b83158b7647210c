//! Sockets: of other machines and of this one, with encryption and without.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::connection::Connection;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::grpc) enum Peer {
    /// By address and port.
    Network(SocketAddr),
    /// Somebody on this machine, at the Unix domain socket: by number.
    Local(u64),
}

impl Peer {
    /// Whether what goes to and fro stays on this machine.
    pub(super) fn is_near(&self) -> bool {
        match self {
            Self::Network(address) => address.ip().to_canonical().is_loopback(),
            Self::Local(_) => true,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(formatter),
            Self::Local(number) => write!(formatter, "unix:{number}"),
        }
    }
}

/// A stream of a socket of either kind.
pub(super) enum Stream {
    Network(TcpStream),
    Local(UnixStream),
}

/// Does the same with a stream of either kind.
macro_rules! of_either {
    ($stream:expr, $it:ident => $action:expr) => {
        match $stream {
            Stream::Network($it) => $action,
            Stream::Local($it) => $action,
        }
    };
}

/// The socket of a connection, which notes when bytes come and go.
pub(super) struct Wire {
    stream: Stream,
    connection: Arc<Connection>,
}

impl Wire {
    pub(super) fn new(stream: Stream, connection: Arc<Connection>) -> Self {
        Self { stream, connection }
    }

    fn note_sent(&self, written: &io::Result<usize>) {
        if written.as_ref().is_ok_and(|&bytes| bytes > 0) {
            self.connection.note_sent();
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Stream::Network(stream) = &self.stream
            && !self.connection.has_ended()
        {
            // Otherwise the system keeps what was sent, and goes on with it at the
            // pace of a client that was cut for that. Where it fails, it does.
            let _ = stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(of_either!(&mut self.stream, it => Pin::new(it).poll_read(cx, buffer)))?;
        if buffer.filled().len() > before {
            self.connection.note_received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = of_either!(&mut self.stream, it => Pin::new(it).poll_write(cx, bytes));
        let written = ready!(written);
        self.note_sent(&written);
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = &mut self.stream;
        let written = of_either!(stream, it => Pin::new(it).poll_write_vectored(cx, slices));
        let written = ready!(written);
        self.note_sent(&written);
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        of_either!(&self.stream, it => it.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_either!(&mut self.stream, it => Pin::new(it).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_either!(&mut self.stream, it => Pin::new(it).poll_shutdown(cx))
    }
}

/// What HTTP/2 is spoken over.
pub(super) enum Layer {
    Plain(Wire),
    Encrypted(Box<TlsStream<Wire>>),
}

/// Does the same with and without encryption.
macro_rules! of_layer {
    ($layer:expr, $it:ident => $action:expr) => {
        match $layer {
            Layer::Plain($it) => $action,
            Layer::Encrypted($it) => $action,
        }
    };
}

/// What HTTP/2 is spoken over, which notes whether it has begun.
pub(super) struct Socket {
    layer: Layer,
    connection: Arc<Connection>,
}

impl Socket {
    pub(super) fn new(layer: Layer, connection: Arc<Connection>) -> Self {
        Self { layer, connection }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(of_layer!(&mut self.layer, it => Pin::new(it).poll_read(cx, buffer)))?;
        let came = buffer.filled().len() - before;
        self.connection.note_greeting(came);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        of_layer!(&mut self.layer, it => Pin::new(it).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        of_layer!(&mut self.layer, it => Pin::new(it).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        of_layer!(&self.layer, it => it.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_layer!(&mut self.layer, it => Pin::new(it).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_layer!(&mut self.layer, it => Pin::new(it).poll_shutdown(cx))
    }
}

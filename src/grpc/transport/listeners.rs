//! Where connections come from.

use std::io;
use std::net::TcpListener;

use tokio::net::UnixListener;

use super::wire::{Peer, Stream};
use crate::grpc::access::local::{LocalSocket, SocketFile};

/// What a server listens on: a port, and a Unix domain socket where there is to be one.
#[derive(Debug)]
pub struct Listeners {
    port: TcpListener,
    local: Option<LocalSocket>,
}

impl Listeners {
    /// Listens on a Unix domain socket, too.
    #[must_use]
    pub fn with_local(mut self, local: Option<LocalSocket>) -> Self {
        self.local = local;
        self
    }

    /// The port.
    pub(in crate::grpc) fn port(&self) -> &TcpListener {
        &self.port
    }

    pub(in crate::grpc) fn start(self) -> io::Result<Accepting> {
        Ok(Accepting {
            port: tokio::net::TcpListener::from_std(self.port)?,
            local: self.local.map(LocalSocket::into_parts).transpose()?,
            next_number: 0,
        })
    }
}

impl From<TcpListener> for Listeners {
    fn from(port: TcpListener) -> Self {
        Self { port, local: None }
    }
}

/// The listeners at work. Dropping it closes them, and removes the file of the socket.
pub(in crate::grpc) struct Accepting {
    port: tokio::net::TcpListener,
    local: Option<(UnixListener, SocketFile)>,
    /// Of the next client at the Unix domain socket.
    next_number: u64,
}

impl Accepting {
    /// The next connection.
    ///
    /// # Cancellation
    /// No connection is lost.
    pub(super) async fn accept(&mut self) -> io::Result<(Stream, Peer)> {
        let local = async {
            match &self.local {
                Some((listener, _)) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        // By chance which is first, so that neither keeps the other waiting.
        tokio::select! {
            accepted = self.port.accept() => {
                let (stream, address) = accepted?;
                Ok((Stream::Network(stream), Peer::Network(address)))
            }
            accepted = local => {
                let (stream, _) = accepted?;
                self.next_number += 1;
                Ok((Stream::Local(stream), Peer::Local(self.next_number)))
            }
        }
    }
}

//! Where connections come from.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::task::{Context, Poll};

use tokio::net::UnixListener;

use super::wire::{Peer, Stream};
use crate::grpc::access::local::{LocalSocket, SocketFile};

/// What a server listens on: ports, and Unix domain sockets.
#[derive(Debug, Default)]
pub struct Listeners {
    ports: Vec<TcpListener>,
    local: Vec<LocalSocket>,
}

impl Listeners {
    /// Those that there are. They must not block ([`TcpListener::set_nonblocking`]).
    pub fn new(ports: Vec<TcpListener>, local: Vec<LocalSocket>) -> Self {
        Self { ports, local }
    }

    /// The addresses of the ports, as far as the system says.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.ports.iter().map(TcpListener::local_addr);
        addresses.filter_map(Result::ok).collect()
    }

    pub(in crate::grpc) fn start(self) -> io::Result<Accepting> {
        let ports = self.ports.into_iter();
        let local = self.local.into_iter().map(LocalSocket::into_parts);
        Ok(Accepting {
            ports: ports
                .map(tokio::net::TcpListener::from_std)
                .collect::<io::Result<_>>()?,
            local: local.collect::<io::Result<_>>()?,
            turn: 0,
            next_number: 0,
        })
    }
}

impl From<TcpListener> for Listeners {
    fn from(port: TcpListener) -> Self {
        Self::new(vec![port], Vec::new())
    }
}

/// The listeners at work. Dropping it closes them, and removes the files of sockets that
/// the server has made.
pub(in crate::grpc) struct Accepting {
    ports: Vec<tokio::net::TcpListener>,
    local: Vec<(UnixListener, Option<SocketFile>)>,
    /// Which listener is asked first, so that none keeps the others waiting.
    turn: usize,
    /// Of the next client at a Unix domain socket.
    next_number: u64,
}

impl Accepting {
    /// The next connection.
    ///
    /// # Cancellation
    /// No connection is lost.
    pub(super) async fn accept(&mut self) -> io::Result<(Stream, Peer)> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>> {
        let count = self.ports.len() + self.local.len();
        for step in 0..count {
            let number = (self.turn + step) % count;
            if let Poll::Ready(accepted) = self.poll_one(number, cx) {
                self.turn = number + 1;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }

    fn poll_one(
        &mut self,
        number: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(Stream, Peer)>> {
        if let Some(port) = self.ports.get(number) {
            let accepted = port.poll_accept(cx);
            return accepted
                .map_ok(|(stream, address)| (Stream::Network(stream), Peer::Network(address)));
        }
        let Some((local, _)) = self.local.get(number - self.ports.len()) else {
            return Poll::Pending;
        };
        local.poll_accept(cx).map_ok(|(stream, _)| {
            self.next_number += 1;
            (Stream::Local(stream), Peer::Local(self.next_number))
        })
    }
}

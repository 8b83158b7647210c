//! How much clients may ask of the transport, and how long they may take.

use std::time::Duration;

use crate::config::Config;

/// Shortest and longest time from one look at a connection to the next.
const LOOKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(2500));

/// How much clients may ask of the transport, and how long they may take.
///
/// The defaults are those of the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections at a time; more are closed at once.
    pub connections: usize,
    /// Calls under way at a time in all connections; more are refused.
    pub streams: usize,
    /// Calls under way at a time in one connection, which HTTP/2 tells the client.
    pub streams_per_connection: u32,
    /// Bytes of the message of one request; a longer one is refused.
    pub request_message: usize,
    /// Bytes of large messages at a time in all connections; where there is no room,
    /// replies are made of small ones.
    pub large_bytes: usize,
    /// A connection must have begun to speak HTTP/2 within this time.
    pub handshake: Duration,
    /// A request must have come wholly within this time.
    pub request: Duration,
    /// How often clients are asked whether they are there.
    pub keepalive_interval: Duration,
    /// A client that gives no sign of life for so much longer is cut.
    pub keepalive: Duration,
    /// A reply of which not even 144 KiB are taken in so long is given up.
    pub write_stall: Duration,
}

impl ConnectionLimits {
    /// Time from one look at a connection to the next: short against each limit,
    /// and no burden where there are thousands of connections.
    pub(super) fn look_interval(&self) -> Duration {
        let shortest = self
            .handshake
            .min(self.keepalive_interval)
            .min(self.keepalive)
            .min(self.write_stall);
        (shortest / 4).clamp(LOOKS.0, LOOKS.1)
    }

    /// How long a client may say nothing.
    pub(super) fn silence(&self) -> Duration {
        self.keepalive_interval.saturating_add(self.keepalive)
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self::from(&Config::default())
    }
}

impl From<&Config> for ConnectionLimits {
    fn from(config: &Config) -> Self {
        let Config { server, limits, .. } = config;
        Self {
            connections: limits.connections,
            streams: limits.streams,
            streams_per_connection: limits.streams_per_connection,
            request_message: limits.request_message_bytes(),
            large_bytes: limits.large_messages_bytes(),
            handshake: server.handshake_limit(),
            request: server.request_limit(),
            keepalive_interval: server.keepalive_interval(),
            keepalive: server.keepalive_limit(),
            write_stall: server.write_stall_limit(),
        }
    }
}

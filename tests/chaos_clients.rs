//! Clients that are slow, silent, dead or too many: the others get what they ask
//! for, and what the bad ones held comes back.
//!
//! `MEF3_LONG=1` has the long forms, with the default limits and a measurement.

mod common;

#[path = "chaos_clients/calls.rs"]
mod calls;
#[path = "chaos_clients/connections.rs"]
mod connections;
#[path = "chaos_clients/ending.rs"]
mod ending;
#[path = "chaos_clients/load.rs"]
mod load;
#[path = "chaos_clients/peers.rs"]
mod peers;

use std::sync::{Arc, OnceLock};

use common::chaos::{end_cleanly, is_long};
use common::process::session::KnownSession;
use common::process::{Launch, Server};

/// A server whose streams hold little.
fn launch() -> Launch {
    Launch::new()
        .env("MEF3_SERVER_LIMITS_READ_AHEAD_MB", "1")
        .env("MEF3_SERVER_PREFETCH_MAX_MB", "0")
}

/// Eight megabytes as sent: 32 messages.
fn session() -> Arc<KnownSession> {
    static SESSION: OnceLock<Arc<KnownSession>> = OnceLock::new();
    Arc::clone(SESSION.get_or_init(|| Arc::new(KnownSession::write(16, 1000, 128))))
}

/// Why connections were cut, by the log.
fn cuts(server: &Server) -> Vec<String> {
    let cuts = server.records_of("connection is cut");
    let reason = |cut: &serde_json::Value| cut["reason"].as_str().unwrap().to_owned();
    cuts.iter().map(reason).collect()
}

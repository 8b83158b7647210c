//! What a worker process logs: lines on the standard error that it shares with its
//! server, in the form of the server's. Each is written in one piece.

use std::io;
use std::panic;
use std::sync::atomic::{AtomicU8, Ordering};

use tracing::Level;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::panics::panic_text;

/// How much is logged, as [`detail_of`] counts it: what the server wants, which each job
/// says.
static DETAIL: AtomicU8 = AtomicU8::new(3);

fn detail_of(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

/// How much this process, a server, logs of what workers do.
pub(super) fn detail() -> u8 {
    macro_rules! is_enabled {
        ($level:expr) => {
            tracing::enabled!(target: "mef3_server::worker", $level)
        };
    }
    let levels = [
        (Level::TRACE, is_enabled!(Level::TRACE)),
        (Level::DEBUG, is_enabled!(Level::DEBUG)),
        (Level::INFO, is_enabled!(Level::INFO)),
        (Level::WARN, is_enabled!(Level::WARN)),
        (Level::ERROR, is_enabled!(Level::ERROR)),
    ];
    let most = levels.into_iter().find(|(_, is_enabled)| *is_enabled);
    most.map_or(0, |(level, _)| detail_of(level))
}

/// Logs from now on, in a worker process; panics are lines, too.
pub(super) fn start(json: bool) {
    // A panic is told whatever is logged.
    let detail = || DETAIL.load(Ordering::Relaxed).max(1);
    let filter = || dynamic_filter_fn(move |data, _| detail_of(*data.level()) <= detail());
    let layer = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(io::stderr);
    let lines = tracing_subscriber::registry();
    // The process is new: nobody else has begun to log.
    let _ = match json {
        true => {
            let layer = layer.json().flatten_event(true).with_span_list(false);
            lines.with(layer.with_filter(filter())).try_init()
        }
        false => lines.with(layer.with_filter(filter())).try_init(),
    };
    panic::set_hook(Box::new(|info| {
        let reason = panic_text(info.payload());
        let at = info.location().map(ToString::to_string);
        let at = at.unwrap_or_default();
        tracing::error!(pid = std::process::id(), reason, at, "worker panicked");
    }));
}

/// Logs as much as the server wants now.
pub(super) fn set_detail(detail: u8) {
    DETAIL.store(detail, Ordering::Relaxed);
}

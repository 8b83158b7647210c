//! Signals that end a read, of which nothing is to stay.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that users, terminals and service managers end a program by, from the
/// making of this on.
pub(super) struct Interrupts(Vec<Signal>);

impl Interrupts {
    /// Signals that are ignored stay so: `nohup` has a read go on when its terminal
    /// is closed.
    pub(super) fn new(runtime: &Runtime) -> io::Result<Self> {
        let _entered = runtime.enter();
        let ignored = ignored(&fs::read_to_string("/proc/self/status").unwrap_or_default());
        let kinds = [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::terminate(),
        ];
        let kinds = kinds
            .into_iter()
            .filter(|kind| ignored >> (kind.as_raw_value() - 1) & 1 == 0);
        kinds.map(signal).collect::<io::Result<_>>().map(Self)
    }

    /// Is ready when one comes.
    pub(super) async fn next(&mut self) {
        poll_fn(|context| {
            let mut signals = self.0.iter_mut();
            match signals.any(|signal| signal.poll_recv(context).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

/// The signals that a process ignores, as bits, by what the system says of it.
fn ignored(status: &str) -> u64 {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .map(str::trim);
    line.and_then(|bits| u64::from_str_radix(bits, 16).ok())
        .unwrap_or_default()
}

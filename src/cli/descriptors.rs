//! File descriptors: as many as the settings may need, or fewer connections.

use mef3_server::config::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What is open beside connections, channels to workers and segments.
const OTHERS: usize = 64;
/// Most of the channels to one worker, and of what is open while it starts.
const PER_WORKER: usize = 16;

/// Has the system grant the descriptors that the settings may need. Where it grants
/// fewer, there are fewer connections: what serves those must not lack any.
pub(super) fn provide(config: &mut Config) {
    let workers = &config.workers;
    let segments = workers
        .in_process_threads
        .saturating_mul(workers.open_segments);
    let own = OTHERS
        .saturating_add(workers.most().saturating_mul(PER_WORKER))
        .saturating_add(segments);
    let wanted = own.saturating_add(config.limits.connections);
    let granted = raise(wanted as u64);
    let left = usize::try_from(granted).unwrap_or(usize::MAX);
    let left = left.saturating_sub(own).max(1);
    if left < config.limits.connections {
        tracing::warn!(
            descriptors = granted,
            connections = left,
            wanted = config.limits.connections,
            "fewer connections are taken: the system grants too few descriptors"
        );
        config.limits.connections = left;
    }
}

/// Raises the limit to `wanted`, as far as may be: what it is then.
fn raise(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let possible = limit.maximum.unwrap_or(u64::MAX).min(wanted);
    if current >= possible {
        return current;
    }
    let raised = Rlimit {
        current: Some(possible),
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => possible,
        Err(error) => {
            tracing::debug!(%error, "the limit of descriptors is not raised");
            current
        }
    }
}

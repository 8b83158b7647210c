//! What a service manager is told of the server, in systemd's way: that it serves, that
//! it ends, and, as long as its actors answer, that it is alive. Where no manager has
//! asked for it, nothing is sent.

use std::env;
use std::time::Duration;

use mef3_server::Engine;
use mef3_server::grpc::Health;
use sd_notify::NotifyState;

/// How often the state is told, where no watchdog wants it more often.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// Says that connections are taken.
pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// Says that the end has begun.
pub(super) fn stopping() {
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("finishing the replies under way"),
    ]);
}

/// Tells the state again and again, as long as the actors answer: a server whose actors
/// do not is restarted by its manager, if that watches it.
pub(super) async fn keep_telling(engine: Engine, health: Health) {
    if env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    // Twice in the time after which it is given up.
    let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
    let interval = watchdog.map_or(TELL_INTERVAL, |half| half.min(TELL_INTERVAL));
    let mut turns = tokio::time::interval(interval.max(Duration::from_millis(1)));
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let Ok(figures) = engine.statistics().await else {
            return;
        };
        let status = format!(
            "{}; {} recordings open, {} MiB cached, {} workers",
            match health.readiness().is_ready() {
                true => "ready",
                false => "not ready",
            },
            figures.recordings.open,
            figures.cache.bytes >> 20,
            figures.supervisor.workers.len(),
        );
        let mut states = vec![NotifyState::Status(&status)];
        if watchdog.is_some() {
            states.push(NotifyState::Watchdog);
        }
        tell(&states);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told of the server's state");
    }
}

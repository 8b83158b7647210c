//! Which values make sense.
//!
//! The upper limits only catch what nobody can mean, such as a time in
//! milliseconds where seconds are due.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::error::{ConfigError, Origin};
use super::knobs::{Config, SandboxMode};

/// MiB of one TiB.
const TIB_IN_MIB: usize = 1 << 20;
/// Seconds of one hour.
const HOUR_S: u64 = 3600;
/// Seconds of one day.
const DAY_S: u64 = 24 * HOUR_S;

/// A setting with a value it cannot have.
pub(super) struct Objection {
    /// The setting, as `section.key`.
    pub(super) key: &'static str,
    /// What is wrong with its value.
    pub(super) reason: String,
}

impl Objection {
    /// Adds where the value was written.
    pub(super) fn from(self, origin: Origin) -> ConfigError {
        ConfigError::BadValue {
            key: self.key.into(),
            origin,
            reason: self.reason,
        }
    }
}

impl Config {
    /// Checks every value, and what several of them must agree on.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BadValue`] for the first setting that makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check_each(self)
            .and_then(|()| check_together(self))
            .map_err(|objection| objection.from(Origin::Settings))
    }
}

/// Checks what can be said of each setting without looking at the others.
pub(super) fn check_each(config: &Config) -> Result<(), Objection> {
    let Config {
        server,
        tls,
        auth,
        cache,
        workers,
        pages,
        prefetch,
        limits,
        live,
        health,
        admin,
        legacy,
        paths,
        log: _, // its types admit no nonsense
        trace,
    } = config;

    within(
        "server.shutdown_grace_s",
        server.shutdown_grace_s,
        0..=HOUR_S,
    )?;
    within(
        "server.handshake_limit_s",
        server.handshake_limit_s,
        1..=HOUR_S,
    )?;
    within("server.request_limit_s", server.request_limit_s, 1..=HOUR_S)?;
    within(
        "server.keepalive_interval_s",
        server.keepalive_interval_s,
        1..=HOUR_S,
    )?;
    within(
        "server.keepalive_limit_s",
        server.keepalive_limit_s,
        1..=HOUR_S,
    )?;
    within(
        "server.write_stall_limit_s",
        server.write_stall_limit_s,
        1..=DAY_S,
    )?;

    within("cache.size_mb", cache.size_mb, 1..=64 * TIB_IN_MIB)?;
    within("cache.idle_ttl_s", cache.idle_ttl_s, 0..=366 * DAY_S)?;

    within("workers.min", workers.min, 0..=1024)?;
    within("workers.max", workers.max, 0..=1024)?;
    within(
        "workers.grow_delay_ms",
        workers.grow_delay_ms,
        1..=HOUR_S * 1000,
    )?;
    within("workers.shrink_idle_s", workers.shrink_idle_s, 1..=DAY_S)?;
    within(
        "workers.in_process_threads",
        workers.in_process_threads,
        1..=1024,
    )?;
    within("workers.open_segments", workers.open_segments, 1..=1 << 20)?;
    within("workers.stall_limit_s", workers.stall_limit_s, 1..=HOUR_S)?;
    within("workers.spawn_limit_s", workers.spawn_limit_s, 1..=HOUR_S)?;
    let pause_ms = 1..=HOUR_S * 1000;
    within(
        "workers.restart_backoff_min_ms",
        workers.restart_backoff_min_ms,
        pause_ms.clone(),
    )?;
    within(
        "workers.restart_backoff_max_ms",
        workers.restart_backoff_max_ms,
        pause_ms,
    )?;
    within(
        "workers.restart_budget",
        workers.restart_budget,
        1..=1_000_000,
    )?;
    within(
        "workers.restart_window_s",
        workers.restart_window_s,
        1..=DAY_S,
    )?;
    within("workers.rest_s", workers.rest_s, 1..=DAY_S)?;
    within(
        "workers.abandoned_limit",
        workers.abandoned_limit,
        1..=1 << 16,
    )?;
    // A block of the most samples that are decoded takes half a GiB.
    within(
        "workers.memory_mb",
        workers.memory_mb,
        256..=TIB_IN_MIB as u64,
    )?;

    within("pages.target_samples", pages.target_samples, 1..=1 << 24)?;

    within("prefetch.ahead_segments", prefetch.ahead_segments, 0..=1000)?;
    within("prefetch.ahead_windows", prefetch.ahead_windows, 0..=1000)?;
    within("prefetch.behind_windows", prefetch.behind_windows, 0..=1000)?;
    within("prefetch.max_mb", prefetch.max_mb, 0..=TIB_IN_MIB)?;

    within(
        "limits.open_recordings",
        limits.open_recordings,
        1..=1_000_000,
    )?;
    within("limits.mailbox", limits.mailbox, 1..=1 << 20)?;
    within("limits.queued_pages", limits.queued_pages, 1..=1 << 26)?;
    within("limits.waiters", limits.waiters, 1..=1 << 28)?;
    within("limits.read_ahead_mb", limits.read_ahead_mb, 1..=TIB_IN_MIB)?;
    within("limits.in_flight_mb", limits.in_flight_mb, 1..=TIB_IN_MIB)?;
    within("limits.client_mb", limits.client_mb, 1..=TIB_IN_MIB)?;
    within(
        "limits.large_messages_mb",
        limits.large_messages_mb,
        0..=TIB_IN_MIB,
    )?;
    within(
        "limits.request_mb",
        limits.request_mb,
        1..=1024 * TIB_IN_MIB as u64,
    )?;
    within("limits.points_mb", limits.points_mb, 1..=TIB_IN_MIB)?;
    within("limits.pyramid_mb", limits.pyramid_mb, 0..=TIB_IN_MIB)?;
    within(
        "limits.pyramid_disk_mb",
        limits.pyramid_disk_mb,
        1..=TIB_IN_MIB as u64,
    )?;
    within(
        "limits.request_message_kb",
        limits.request_message_kb,
        1..=1 << 20,
    )?;
    within("limits.metadata_mb", limits.metadata_mb, 1..=TIB_IN_MIB)?;
    within(
        "limits.channels_per_read",
        limits.channels_per_read,
        1..=1_000_000,
    )?;
    within(
        "limits.client_sessions",
        limits.client_sessions,
        1..=1_000_000,
    )?;
    within("limits.listings", limits.listings, 1..=1000)?;
    within(
        "limits.listing_entries",
        limits.listing_entries,
        1..=100_000_000,
    )?;
    within("limits.connections", limits.connections, 1..=1_000_000)?;
    within("limits.streams", limits.streams, 1..=1_000_000)?;
    within(
        "limits.streams_per_connection",
        limits.streams_per_connection,
        1..=1_000_000,
    )?;

    within(
        "legacy.session_ttl_s",
        legacy.session_ttl_s,
        0..=366 * DAY_S,
    )?;
    within("legacy.tile_ms", legacy.tile_ms, 1..=DAY_S * 1000)?;

    within("live.passing_s", live.passing_s, 1..=366 * DAY_S)?;
    within("live.staleness_ms", live.staleness_ms, 0..=HOUR_S * 1000)?;

    let most_s = 1..=HOUR_S;
    within(
        "health.probe_interval_s",
        health.probe_interval_s,
        most_s.clone(),
    )?;
    within("health.probe_limit_s", health.probe_limit_s, most_s)?;
    if let Err(error) = admin.listen() {
        return Err(Objection {
            key: "admin.listen",
            reason: format!("{error}: {:?}", admin.listen),
        });
    }
    for (key, path) in [
        ("server.unix_socket", &server.unix_socket),
        ("tls.certificate", &tls.certificate),
        ("tls.key", &tls.key),
        ("tls.client_ca", &tls.client_ca),
        ("auth.tokens", &auth.tokens),
    ] {
        if !path.as_os_str().is_empty() && !path.is_absolute() {
            return Err(Objection {
                key,
                reason: format!("{} is not an absolute path", path.display()),
            });
        }
    }

    // A relative root would depend on where the server was started.
    if paths.host_root().is_some_and(|root| !root.is_absolute()) {
        return Err(Objection {
            key: "paths.host_root",
            reason: format!("{} is not an absolute path", paths.host_root.display()),
        });
    }
    if paths
        .cache_folder()
        .is_some_and(|folder| !folder.is_absolute())
    {
        return Err(Objection {
            key: "paths.cache_folder",
            reason: format!("{} is not an absolute path", paths.cache_folder.display()),
        });
    }
    for (number, root) in paths.data_roots.iter().enumerate() {
        let before = paths.data_roots.iter().take(number);
        let reason = if !root.path().is_absolute() {
            format!("{} is not an absolute path", root.path().display())
        } else if !root.is_well_named() {
            format!(
                "a name is made of letters, digits, '-', '_' and '.': {}",
                root.name()
            )
        } else if before.into_iter().any(|other| other.name() == root.name()) {
            format!(
                "two folders are called {}: name one as in name=/path",
                root.name()
            )
        } else {
            continue;
        };
        let key = "paths.data_roots";
        return Err(Objection { key, reason });
    }
    trace.check()
}

/// Checks what several settings must agree on.
fn check_together(config: &Config) -> Result<(), Objection> {
    let workers = &config.workers;
    if workers.restart_backoff_min_ms > workers.restart_backoff_max_ms {
        return Err(Objection {
            key: "workers.restart_backoff_min_ms",
            reason: format!(
                "{} is more than workers.restart_backoff_max_ms ({})",
                workers.restart_backoff_min_ms, workers.restart_backoff_max_ms
            ),
        });
    }
    if workers.sandbox == SandboxMode::Required && workers.min == 0 {
        return Err(Objection {
            key: "workers.sandbox",
            reason: "only worker processes are confined, and workers.min is 0".into(),
        });
    }
    config.tls.check()
}

fn within<N: PartialOrd + Display>(
    key: &'static str,
    value: N,
    allowed: RangeInclusive<N>,
) -> Result<(), Objection> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let (least, most) = allowed.into_inner();
    Err(Objection {
        key,
        reason: format!("{value} is not between {least} and {most}"),
    })
}

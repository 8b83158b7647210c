//! The variables of the older servers, so that a deployment can switch by the name of
//! its image, and `server.insecure` where it listens without encryption.

use std::fmt;

use toml::Value;

use super::environment::Variables;
use super::error::{ConfigError, Origin};
use super::layers::{Layers, bad_value, whole_number};

/// A variable that was accepted and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The name of the variable.
    pub variable: String,
    /// Why it changes nothing.
    pub reason: String,
}

impl fmt::Display for Notice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variable, reason } = self;
        write!(formatter, "variable {variable} has no effect: {reason}")
    }
}

/// Reads the text of a variable as the value of a setting.
type Reading = fn(&str) -> Result<Value, String>;

/// Variables that are settings of ours under another name.
const RENAMED: [(&str, &str, Reading); 11] = [
    ("PORT", "server.listen", address_of_port),
    ("N_PREFETCH", "prefetch.ahead_segments", whole_number),
    ("MAX_WORKERS", "workers.in_process_threads", whole_number),
    ("TILE_CACHE_MB", "cache.size_mb", whole_number),
    ("CACHE_TTL_S", "cache.idle_ttl_s", seconds_rounded_up),
    (
        "PREFETCH_AHEAD_WINDOWS",
        "prefetch.ahead_windows",
        whole_number,
    ),
    (
        "PREFETCH_BEHIND_WINDOWS",
        "prefetch.behind_windows",
        whole_number,
    ),
    ("TILE_DURATION_S", "legacy.tile_ms", milliseconds),
    ("RESPECT_MEF_BLOCKS", "legacy.respect_mef_blocks", switch),
    ("SESSION_TTL_S", "legacy.session_ttl_s", seconds_rounded_up),
    ("MAX_SESSIONS", "limits.client_sessions", whole_number),
];

/// Variables without a counterpart here, and why there is none.
const WITHOUT_EFFECT: [(&str, Reading, &str); 3] = [
    (
        "CACHE_CAPACITY_MULTIPLIER",
        whole_number,
        "the cache is bounded in bytes, by cache.size_mb",
    ),
    (
        "PREFETCH_PROCESSES",
        whole_number,
        "all workers serve requests first and predictions when idle",
    ),
    (
        "MIN_PARALLEL_TILES",
        whole_number,
        "work of any size goes to the workers",
    ),
];

/// The number of worker processes, as the multi-process first generation had it.
const N_PROCESS_WORKERS: &str = "N_PROCESS_WORKERS";
/// Whether there are worker processes, as the later generations had it.
const USE_PROCESS_POOL: &str = "USE_PROCESS_POOL";
/// The number of worker processes, as the later generations had it.
const READER_PROCESSES: &str = "READER_PROCESSES";
/// What these three decide about.
const PROCESSES: &str = "workers.min";

/// Whether the older servers knew a variable of this name.
pub(super) fn is_known(name: &str) -> bool {
    [N_PROCESS_WORKERS, USE_PROCESS_POOL, READER_PROCESSES].contains(&name)
        || RENAMED.iter().any(|(known, ..)| *known == name)
        || WITHOUT_EFFECT.iter().any(|(known, ..)| *known == name)
}

/// Puts the variables of the older servers over the settings of `layers`, and
/// tells which of them changed nothing.
pub(super) fn apply(
    layers: &mut Layers,
    variables: &Variables,
) -> Result<Vec<Notice>, ConfigError> {
    let mut notices = Vec::new();
    for (name, key, read) in RENAMED {
        if let Some(value) = read_variable(variables, name, key, read)? {
            set(layers, variables, name, key, value, &mut notices)?;
        }
    }
    set_processes(layers, variables, &mut notices)?;
    for (name, read, reason) in WITHOUT_EFFECT {
        if read_variable(variables, name, name, read)?.is_some() {
            notices.push(notice(name, reason));
        }
    }
    Ok(notices)
}

/// Three variables decide about the worker processes: an outright number, then
/// the switch, then the number of the later generations.
fn set_processes(
    layers: &mut Layers,
    variables: &Variables,
    notices: &mut Vec<Notice>,
) -> Result<(), ConfigError> {
    let number = read_variable(variables, N_PROCESS_WORKERS, PROCESSES, whole_number)?;
    let pool = read_variable(variables, USE_PROCESS_POOL, PROCESSES, switch)?;
    let readers = read_variable(variables, READER_PROCESSES, PROCESSES, whole_number)?;

    let has_number = number.is_some();
    if let Some(number) = number {
        set(
            layers,
            variables,
            N_PROCESS_WORKERS,
            PROCESSES,
            number,
            notices,
        )?;
    }
    let is_off = pool == Some(Value::Boolean(false));
    match pool {
        Some(_) if has_number => notices.push(superseded(USE_PROCESS_POOL, N_PROCESS_WORKERS)),
        Some(_) if is_off => {
            let none = Value::Integer(0);
            set(
                layers,
                variables,
                USE_PROCESS_POOL,
                PROCESSES,
                none,
                notices,
            )?;
        }
        Some(_) => notices.push(notice(USE_PROCESS_POOL, "worker processes are the default")),
        None => {}
    }
    match readers {
        Some(_) if has_number => notices.push(superseded(READER_PROCESSES, N_PROCESS_WORKERS)),
        Some(_) if is_off => notices.push(superseded(READER_PROCESSES, USE_PROCESS_POOL)),
        Some(readers) => {
            set(
                layers,
                variables,
                READER_PROCESSES,
                PROCESSES,
                readers,
                notices,
            )?;
        }
        None => {}
    }
    Ok(())
}

fn read_variable(
    variables: &Variables,
    name: &str,
    key: &str,
    read: Reading,
) -> Result<Option<Value>, ConfigError> {
    let value = variables.legacy(name).map(read).transpose();
    value.map_err(|reason| bad_value(key, &Origin::Variable(name.into()), &reason))
}

fn set(
    layers: &mut Layers,
    variables: &Variables,
    name: &str,
    key: &str,
    value: Value,
    notices: &mut Vec<Notice>,
) -> Result<(), ConfigError> {
    if let Some(own) = variables.own_name(key) {
        notices.push(superseded(name, own));
    }
    layers.set(key, value, &Origin::Variable(name.into()))
}

fn superseded(name: &str, winner: &str) -> Notice {
    notice(name, &format!("{winner} is set and wins"))
}

fn notice(name: &str, reason: &str) -> Notice {
    Notice {
        variable: name.into(),
        reason: reason.into(),
    }
}

/// The older servers listen on all IPv4 addresses.
fn address_of_port(text: &str) -> Result<Value, String> {
    match text.trim().parse::<u16>() {
        Ok(port) => Ok(Value::String(format!("0.0.0.0:{port}"))),
        Err(_) => Err(format!("{text:?} is not a port number")),
    }
}

fn seconds(text: &str) -> Result<Value, String> {
    match text.trim().parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => Ok(Value::Float(seconds)),
        _ => Err(format!("{text:?} is not a number of seconds")),
    }
}

/// Whole seconds; never 0 for more than nothing, since 0 means no limit.
fn seconds_rounded_up(text: &str) -> Result<Value, String> {
    let seconds = seconds(text)?.as_float().unwrap_or_default();
    // Beyond the greatest i64 the conversion saturates, and the setting's limit
    // refuses the value.
    Ok(Value::Integer(seconds.ceil() as i64))
}

/// Seconds in milliseconds; never 0 for more than nothing.
fn milliseconds(text: &str) -> Result<Value, String> {
    let seconds = seconds(text)?.as_float().unwrap_or_default();
    Ok(Value::Integer((seconds * 1000.0).ceil() as i64))
}

pub(super) fn switch(text: &str) -> Result<Value, String> {
    match text.trim().to_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(Value::Boolean(true)),
        "0" | "false" | "no" | "off" => Ok(Value::Boolean(false)),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

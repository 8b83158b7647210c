//! The log of commands that run for long: records on standard error.

use std::env::{self, VarError};
use std::io::{self, IsTerminal};
use std::sync::Arc;

use mef3_server::config::{Log, LogFormat};
use mef3_server::ops::LogSwitch;
use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Level};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// The variable that has the last word on what is logged, as in other programs
/// of this kind: `RUST_LOG=mef3_server::worker=debug`.
const FILTER_VARIABLE: &str = "RUST_LOG";

/// A log that cannot be set up.
#[derive(Debug, Error)]
pub(super) enum LoggingError {
    /// The filter in the environment makes no sense.
    #[error("variable {FILTER_VARIABLE}: {0}")]
    Filter(#[from] ParseError),
    /// The filter in the environment is not text.
    #[error("variable {FILTER_VARIABLE}: {0}")]
    Variable(VarError),
    /// There is a log already.
    #[error(transparent)]
    Twice(#[from] TryInitError),
}

/// Starts the log as the settings say, for the rest of the process.
///
/// # Errors
/// [`LoggingError`] for a bad filter in the environment, and the second time.
pub(super) fn start(log: &Log) -> Result<Arc<dyn LogSwitch>, LoggingError> {
    let filter = match env::var(FILTER_VARIABLE) {
        Ok(filter) => Some(filter),
        Err(VarError::NotPresent) => None,
        Err(error) => return Err(LoggingError::Variable(error)),
    };
    // Escape sequences in a file are noise; https://no-color.org
    let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let colours = wanted && io::stderr().is_terminal();
    let (dispatch, switch) = subscriber(log, filter.as_deref(), io::stderr, colours)?;
    dispatch.try_init()?;
    Ok(switch)
}

/// Changes what is logged. The last word on it is now whoever uses this.
struct Switch<S>(Handle<EnvFilter, S>);

impl<S> LogSwitch for Switch<S> {
    fn current(&self) -> String {
        let current = self.0.with_current(ToString::to_string);
        current.unwrap_or_else(|error| error.to_string())
    }

    fn set(&self, level: LevelFilter) -> Result<(), String> {
        let filter = EnvFilter::default().add_directive(level.into());
        self.0.reload(filter).map_err(|error| error.to_string())
    }
}

/// What takes the records and writes them, and what changes which.
fn subscriber<W>(
    log: &Log,
    filter: Option<&str>,
    writer: W,
    colours: bool,
) -> Result<(Dispatch, Arc<dyn LogSwitch>), ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = match filter.map(str::trim).filter(|filter| !filter.is_empty()) {
        Some(filter) => EnvFilter::try_new(filter)?,
        None => EnvFilter::default().add_directive(Level::from(log.level).into()),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    Ok(match log.format {
        LogFormat::Human => {
            let builder = builder.with_ansi(colours).with_filter_reloading();
            let switch = Arc::new(Switch(builder.reload_handle()));
            (builder.into(), switch)
        }
        LogFormat::Json => {
            let builder = builder
                .json()
                .flatten_event(true)
                .with_span_list(false)
                .with_filter_reloading();
            let switch = Arc::new(Switch(builder.reload_handle()));
            (builder.into(), switch)
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use mef3_server::config::LogLevel;
    use tracing::dispatcher::with_default;

    use super::*;

    /// What two records, of different importance, leave in the log.
    fn logged(format: LogFormat, level: LogLevel, filter: Option<&str>) -> String {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        let log = Log { format, level };
        let writer = SharedBuffer(buffer.clone());
        let (dispatch, _) = subscriber(&log, filter, writer, false).unwrap();
        with_default(&dispatch, || {
            tracing::warn!(channel = "Fp1", "block is damaged");
            tracing::debug!("detail");
        });
        let bytes = buffer.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

    impl<'a> MakeWriter<'a> for SharedBuffer {
        type Writer = BufferWriter<'a>;

        fn make_writer(&'a self) -> BufferWriter<'a> {
            BufferWriter(&self.0)
        }
    }

    struct BufferWriter<'a>(&'a Mutex<Vec<u8>>);

    impl io::Write for BufferWriter<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_level_of_the_settings_holds_without_a_filter() {
        for filter in [None, Some(""), Some(" ")] {
            let text = logged(LogFormat::Human, LogLevel::Info, filter);
            assert!(text.contains("block is damaged") && text.contains("channel=\"Fp1\""));
            assert!(!text.contains("detail"));
        }
        assert_eq!(logged(LogFormat::Human, LogLevel::Error, None), "");
    }

    #[test]
    fn the_environment_wins() {
        let text = logged(LogFormat::Human, LogLevel::Error, Some("debug"));
        assert!(text.contains("detail"));
        assert_eq!(logged(LogFormat::Human, LogLevel::Trace, Some("off")), "");
    }

    #[test]
    fn the_level_can_be_changed_in_either_format() {
        for format in [LogFormat::Human, LogFormat::Json] {
            let buffer = Arc::new(Mutex::new(Vec::new()));
            let log = Log {
                format,
                level: LogLevel::Warn,
            };
            let writer = SharedBuffer(buffer.clone());
            let (dispatch, switch) = subscriber(&log, None, writer, false).unwrap();
            with_default(&dispatch, || {
                assert_eq!(switch.current(), "warn");
                for level in [LevelFilter::DEBUG, LevelFilter::OFF] {
                    switch.set(level).unwrap();
                    assert_eq!(switch.current(), level.to_string());
                    tracing::debug!(%level, "detail");
                    tracing::error!(%level, "trouble");
                }
            });
            let text = String::from_utf8(buffer.lock().unwrap().clone()).unwrap();
            assert_eq!(text.lines().count(), 2, "{text}");
        }
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = logged(LogFormat::Json, LogLevel::Info, None);
        let record: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!(record["level"], "WARN");
        assert_eq!(record["message"], "block is damaged");
        assert_eq!(record["channel"], "Fp1");
    }

    #[test]
    fn a_bad_filter_is_refused() {
        let outcome = subscriber(&Log::default(), Some("mef3=loud"), io::stderr, false);
        assert!(outcome.is_err());
    }
}

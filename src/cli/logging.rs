//! The log of commands that run for long: records on standard error.

use std::env::{self, VarError};
use std::io::{self, IsTerminal};
use std::sync::Arc;

use mef3_server::config::{Config, Log, LogFormat};
use mef3_server::ops::LogSwitch;
use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, ParseError, filter_fn};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Registry};

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
    /// Spans cannot be sent.
    #[cfg(feature = "otlp")]
    #[error(transparent)]
    Spans(#[from] super::spans::SpansError),
}

/// A log that was started.
pub(super) struct Logging {
    /// Changes what is logged.
    pub(super) switch: Arc<dyn LogSwitch>,
    /// Sends spans until it is dropped.
    #[cfg(feature = "otlp")]
    _spans: Option<super::spans::Sending>,
}

/// Starts the log as the settings say, for the rest of the process, and the sending of
/// spans, until what is returned is dropped.
///
/// # Errors
/// [`LoggingError`] for a bad filter in the environment, and the second time.
pub(super) fn start(config: &Config) -> Result<Logging, LoggingError> {
    let filter = match env::var(FILTER_VARIABLE) {
        Ok(filter) => Some(filter),
        Err(VarError::NotPresent) => None,
        Err(error) => return Err(LoggingError::Variable(error)),
    };
    // Escape sequences in a file are noise; https://no-color.org
    let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let colours = wanted && io::stderr().is_terminal();
    let (lines, switch) = lines(&config.log, filter.as_deref(), io::stderr, colours)?;
    #[cfg(feature = "otlp")]
    let (layers, _spans) = match super::spans::start(&config.trace)? {
        Some((spans, sending)) => (vec![lines, spans], Some(sending)),
        None => (vec![lines], None),
    };
    #[cfg(not(feature = "otlp"))]
    let layers = vec![lines];
    tracing_subscriber::registry().with(layers).try_init()?;
    Ok(Logging {
        switch,
        #[cfg(feature = "otlp")]
        _spans,
    })
}

/// Libraries that tell of every frame, below the level of information: that is for who
/// asks for it by a filter of his own.
const LOUD: [&str; 4] = ["h2::", "hyper", "rustls::", "tower::"];

fn is_loud(record: &Metadata<'_>) -> bool {
    let is_of = |name: &&str| record.target().starts_with(*name);
    *record.level() > Level::INFO && LOUD.iter().any(is_of)
}

/// Changes what is logged. The last word on it is now whoever uses this.
struct Switch(Handle<EnvFilter, Registry>);

impl LogSwitch for Switch {
    fn current(&self) -> String {
        let current = self.0.with_current(ToString::to_string);
        current.unwrap_or_else(|error| error.to_string())
    }

    fn set(&self, level: LevelFilter) -> Result<(), String> {
        let filter = EnvFilter::default().add_directive(level.into());
        self.0.reload(filter).map_err(|error| error.to_string())
    }
}

type AnyLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// What takes the records and writes them, and what changes which.
fn lines<W>(
    log: &Log,
    filter: Option<&str>,
    writer: W,
    colours: bool,
) -> Result<(AnyLayer, Arc<dyn LogSwitch>), ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let own = filter.map(str::trim).filter(|filter| !filter.is_empty());
    let with_loud = own.is_some();
    let filter = match own {
        Some(filter) => EnvFilter::try_new(filter)?,
        None => EnvFilter::default().add_directive(Level::from(log.level).into()),
    };
    // Of these lines alone: spans are told to others whatever is written.
    let (filter, handle) = reload::Layer::new(filter);
    let filter = filter.and(filter_fn(move |record| with_loud || !is_loud(record)));
    let lines = fmt::layer().with_writer(writer);
    let lines = match log.format {
        LogFormat::Human => lines.with_ansi(colours).with_filter(filter).boxed(),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_span_list(false);
            lines.with_filter(filter).boxed()
        }
    };
    Ok((lines, Arc::new(Switch(handle))))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use mef3_server::config::LogLevel;
    use tracing::subscriber::with_default;
    use tracing_subscriber::registry;

    use super::*;

    #[test]
    fn frames_are_told_to_who_asks_for_them() {
        let log = |filter| {
            let buffer = Arc::new(Mutex::new(Vec::new()));
            let log = Log {
                format: LogFormat::Json,
                level: LogLevel::Debug,
            };
            let writer = SharedBuffer(buffer.clone());
            let (lines, _) = lines(&log, filter, writer, false).unwrap();
            with_default(registry().with(lines), || {
                tracing::debug!(target: "h2::codec", "a frame");
                tracing::warn!(target: "h2::codec", "a bad frame");
                tracing::debug!("a call");
            });
            String::from_utf8(buffer.lock().unwrap().clone()).unwrap()
        };
        let usual = log(None);
        assert!(
            !usual.contains("a frame") && usual.contains("a bad frame"),
            "{usual}"
        );
        assert!(usual.contains("a call"), "{usual}");
        assert!(log(Some("debug")).contains("a frame"));
    }

    /// What two records, of different importance, leave in the log.
    fn logged(format: LogFormat, level: LogLevel, filter: Option<&str>) -> String {
        let buffer = Arc::new(Mutex::new(Vec::new()));
        let log = Log { format, level };
        let writer = SharedBuffer(buffer.clone());
        let (lines, _) = lines(&log, filter, writer, false).unwrap();
        with_default(registry().with(lines), || {
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
            let (lines, switch) = lines(&log, None, writer, false).unwrap();
            with_default(registry().with(lines), || {
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
        let outcome = lines(&Log::default(), Some("mef3=loud"), io::stderr, false);
        assert!(outcome.is_err());
    }
}

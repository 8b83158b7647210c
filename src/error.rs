//! What a request to the engine can end in.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use crate::mef::{MefError, ReadError, WindowError};

/// Why the engine did not answer with data.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The session or a file of it cannot be read.
    #[error(transparent)]
    Mef(#[from] MefError),
    /// Samples of the window cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Nobody has opened the path.
    #[error("File not open: {0}")]
    NotOpen(String),
    /// Names that are no channel of the recording.
    #[error("Unknown channels: {}", python_list(.0))]
    UnknownChannels(Vec<String>),
    /// The channel stands in the session and cannot be read.
    #[error("channel {channel} cannot be read: {error}")]
    UnreadableChannel {
        /// Name of the channel.
        channel: String,
        /// Why.
        error: MefError,
    },
    /// One grid cannot hold channels of different rates.
    #[error("Requested channels do not share a sampling rate: {}", python_set(.0))]
    MixedRates(Vec<f64>),
    /// No grid can be laid over the window.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The window has not a single sample.
    #[error("Requested window is shorter than one sample")]
    ShorterThanOneSample,
    /// The number of a segment that the grid does not have.
    #[error("segment {index} is not one of {count}")]
    NoSuchSegment {
        /// The number that was asked for.
        index: i64,
        /// Segments of the grid.
        count: u64,
    },
    /// A segment was asked for before a segment size was set.
    #[error("no segment size is set")]
    NoSegmentSize,
    /// A rate to be served at that is none.
    #[error("cache_fs must be a positive sampling rate (Hz), not {}", python_float(*.0))]
    ServedRate(f64),
    /// A rate to be served at that channels do not have.
    #[error(
        "cache_fs of {rate} Hz is more than these {} channels have: {}. \
         Choose a lower one, or allow mixed rates (allow_mixed_rates) to be served these \
         at their own",
        channels.len(),
        first_rates(channels)
    )]
    ServedRateTooHigh {
        /// The rate in Hz.
        rate: f64,
        /// Names and rates of the channels that have less.
        channels: Vec<(String, f64)>,
    },
    /// A number of points that makes no line.
    #[error("n_points must be positive")]
    NoPoints,
    /// A segment size that makes no grid.
    #[error("segment size must be positive, not {0} s")]
    SegmentSize(i64),
    /// The readers of a page died with it, one after another.
    #[error("{place}: reading them has ended {deaths} workers")]
    PoisonedPage {
        /// The page.
        place: PagePlace,
        /// Workers that died.
        deaths: u32,
    },
    /// Decoding ended in a panic, which was caught: a defect of this program.
    #[error("{place}: decoder panicked: {message}")]
    DecoderPanicked {
        /// The page.
        place: PagePlace,
        /// What the panic said.
        message: String,
    },
    /// The session could not be opened, because its reader died each time.
    #[error("{path}: opening it has ended {deaths} workers")]
    PoisonedSession {
        /// The session.
        path: String,
        /// Workers that died.
        deaths: u32,
    },
    /// Opening ended in a panic, which was caught: a defect of this program.
    #[error("{path}: opening it panicked: {message}")]
    OpeningPanicked {
        /// The session.
        path: String,
        /// What the panic said.
        message: String,
    },
    /// Only a worker may read it, because one has died of it or because
    /// `workers.sandbox` requires it, and none can be started at present.
    #[error("{what}: only a worker may read this, and none can be started now")]
    NoWorker {
        /// The page or the session.
        what: String,
    },
    /// The file system of a page's or a session's files has ended readers by not
    /// answering, and the one that tries it now has no answer. That may pass.
    #[error("{what}: the storage does not answer: try again in a minute")]
    StuckStorage {
        /// The page or the session.
        what: String,
    },
    /// The samples of one request are more than any may have.
    #[error(
        "the request has {} MiB of samples, and one may have {} (limits.request_mb)",
        bytes.div_ceil(1 << 20),
        limit_bytes >> 20
    )]
    RequestTooLarge {
        /// Bytes of the samples that were asked for.
        bytes: u64,
        /// Bytes that one request may have.
        limit_bytes: u64,
    },
    /// The path is not below the roots that the caller may use.
    #[error("{path}: outside of the roots of the token")]
    OutsideRoots {
        /// The path as the caller has it.
        path: String,
    },
    /// A limit of the server would be exceeded.
    #[error("{limit} is limited to {value}")]
    LimitExceeded {
        /// Name of the limit in the configuration.
        limit: &'static str,
        /// Its value.
        value: u64,
    },
    /// A limit of what may wait or be under way is reached, which passes.
    #[error("the server is busy ({limit} is {value}): try again in a second")]
    Busy {
        /// Name of the limit in the configuration.
        limit: &'static str,
        /// Its value.
        value: u64,
    },
    /// The engine was shut down, or its actors are being rebuilt.
    #[error("the engine is not running")]
    Stopped,
}

/// Blocks that are decoded together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagePlace {
    /// Folder of the session.
    pub session: PathBuf,
    /// Name of the channel.
    pub channel: String,
    /// Stem of the segment.
    pub segment: String,
    /// Position of the first block in the segment's index.
    pub first_block: u32,
}

impl fmt::Display for PagePlace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}: channel {}, segment {}, blocks from {}",
            self.session.display(),
            self.channel,
            self.segment,
            self.first_block
        )
    }
}

/// Names as Python shows a list of strings: existing clients compare the text.
pub(crate) fn python_list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| python_string(name)).collect();
    format!("[{}]", quoted.join(", "))
}

/// Python quotes with `'`, unless that would need escapes and `"` would not.
fn python_string(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut quoted = String::from(quote);
    for character in text.chars() {
        match character {
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\0'..' ' | '\x7f'..='\u{a0}' | '\u{ad}' => {
                quoted.push_str(&format!("\\x{:02x}", u32::from(character)));
            }
            _ => {
                if character == '\\' || character == quote {
                    quoted.push('\\');
                }
                quoted.push(character);
            }
        }
    }
    quoted.push(quote);
    quoted
}

/// Channels that are named in one text, at most.
const NAMED: usize = 10;

/// The first of some channels with their rates.
fn first_rates(channels: &[(String, f64)]) -> String {
    let first = channels.iter().take(NAMED);
    let first: Vec<String> = first
        .map(|(name, rate)| format!("{name} ({rate} Hz)"))
        .collect();
    let more = match channels.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", first.join(", "))
}

/// A number as Python shows it.
fn python_float(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    format!("{number:?}")
}

/// Numbers as Python shows a set of floats.
fn python_set(numbers: &[f64]) -> String {
    let shown: Vec<String> = numbers.iter().map(|number| format!("{number:?}")).collect();
    format!("{{{}}}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_the_python_servers() {
        let names = ["q".to_owned(), "it's".to_owned()];
        assert_eq!(
            Error::UnknownChannels(names.into()).to_string(),
            r#"Unknown channels: ['q', "it's"]"#
        );
        for (name, shown) in [
            ("Ω", "'Ω'"),
            ("it's \"x\"", r#"'it\'s "x"'"#),
            ("a\\b\t\r\n", r"'a\\b\t\r\n'"),
            ("\0\x1f\x7f\u{a0}\u{ad}", r"'\x00\x1f\x7f\xa0\xad'"),
        ] {
            assert_eq!(python_list(&[name.into()]), format!("[{shown}]"));
        }
        for (rate, shown) in [(0.0, "0.0"), (f64::NAN, "nan"), (f64::INFINITY, "inf")] {
            assert_eq!(
                Error::ServedRate(rate).to_string(),
                format!("cache_fs must be a positive sampling rate (Hz), not {shown}")
            );
        }
        assert_eq!(
            Error::MixedRates(vec![1000.0, 256.5]).to_string(),
            "Requested channels do not share a sampling rate: {1000.0, 256.5}"
        );
    }
}

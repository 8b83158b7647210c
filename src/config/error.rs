//! What can be wrong with the settings.

use std::path::PathBuf;
use std::{fmt, io};

use thiserror::Error;

/// Settings that the server does not start with.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file as it was named.
        path: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
    /// The configuration file is not TOML.
    #[error("{}, line {line}: {message}", path.display())]
    Syntax {
        /// The file as it was named.
        path: PathBuf,
        /// Line of the fault, from 1.
        line: usize,
        /// The rule it breaks.
        message: String,
    },
    /// A key, or a variable, that stands for no setting.
    #[error("{origin}: unknown key {key}, known are {}", known.join(", "))]
    UnknownKey {
        /// The key as written.
        key: String,
        /// Where it was written.
        origin: Origin,
        /// The keys that could have been meant.
        known: Vec<String>,
    },
    /// A value that its setting cannot have.
    #[error("{origin}: bad value for {key}: {reason}")]
    BadValue {
        /// The setting, as `section.key`.
        key: String,
        /// Where the value was written.
        origin: Origin,
        /// What is wrong with it.
        reason: String,
    },
}

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(&'static str),
    /// The settings as a whole, after all layers.
    Settings,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Variable(name) => write!(formatter, "variable {name}"),
            Self::Flag(name) => formatter.write_str(name),
            Self::Settings => formatter.write_str("settings"),
        }
    }
}

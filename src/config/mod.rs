//! Every setting of the server, and where its value comes from: a default, under
//! the configuration file, under the environment, under the command line.
//!
//! [`Config::load`] merges the first three. The command line then writes its
//! flags into the fields, and [`Config::validate`] has the last word.
//! A value is judged where it was written, also if a later layer would replace
//! it: a mistake in a file should not wait for the day a variable is removed.
//! `config/mef3-server.toml` documents every knob.

mod access;
mod environment;
mod error;
mod file;
mod knobs;
mod layers;
mod legacy;
mod roots;
mod trace;
mod validate;
mod web;

use std::path::Path;

pub use access::{Auth, Tls};
pub use environment::process_environment;
pub use error::{ConfigError, Origin};
pub use knobs::{
    Admin, Cache, Config, Health, Legacy, Limits, Live, Log, LogFormat, LogLevel, OnDamage, Pages,
    Paths, Prefetch, SandboxMode, Server, Workers,
};
pub use legacy::Notice;
pub use roots::DataRoot;
pub use trace::Trace;
pub use web::WebOrigin;

use environment::Variables;
use layers::Layers;

/// The outcome of [`Config::load`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The merged settings.
    pub config: Config,
    /// Variables of the older servers that were accepted and change nothing.
    /// Worth a line each in the log.
    pub notices: Vec<Notice>,
}

impl Config {
    /// Merges defaults, `file` and `environment`, each over the one before.
    ///
    /// Of the environment, all `MEF3_SERVER_*` variables are read, and below them
    /// the names that the older servers knew. Every single value is checked; call
    /// [`Config::validate`] afterwards for what several values must agree on.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, and for an unknown key or a bad value, with
    /// the name of the key and of the file or variable.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let mut layers = Layers::of_defaults();
        if let Some(path) = file {
            file::apply(&mut layers, path)?;
        }
        let variables = Variables::gather(&layers, environment)?;
        let notices = legacy::apply(&mut layers, &variables)?;
        variables.apply(&mut layers)?;
        Ok(Loaded {
            config: layers.into_config(),
            notices,
        })
    }
}

#[cfg(test)]
mod tests;

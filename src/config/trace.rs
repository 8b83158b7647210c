//! Where spans of requests are sent.

use serde::{Deserialize, Serialize};

use super::error::{ConfigError, Origin};
use super::knobs::Config;
use super::validate::Objection;

/// Spans of requests, for a collector of OpenTelemetry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trace {
    /// Where the collector is (OTLP over gRPC, without encryption); empty is nowhere.
    pub otlp_endpoint: String,
    /// Of a hundred requests that are not part of a trace yet, so many are told.
    pub sample_percent: u8,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            otlp_endpoint: String::new(),
            sample_percent: 100,
        }
    }
}

impl Trace {
    /// Where the collector is, if there is one.
    pub fn otlp_endpoint(&self) -> Option<&str> {
        (!self.otlp_endpoint.is_empty()).then_some(self.otlp_endpoint.as_str())
    }

    pub(super) fn check(&self) -> Result<(), Objection> {
        let endpoint = &self.otlp_endpoint;
        let host = endpoint.strip_prefix("http://");
        let is_sound = host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'));
        if !endpoint.is_empty() && !is_sound {
            return Err(Objection {
                key: "trace.otlp_endpoint",
                reason: format!("{endpoint:?} is no http://HOST:PORT"),
            });
        }
        if self.sample_percent > 100 {
            return Err(Objection {
                key: "trace.sample_percent",
                reason: format!("{} is not between 0 and 100", self.sample_percent),
            });
        }
        Ok(())
    }
}

impl Config {
    /// Checks that this program can do what is set.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BadValue`] of `trace.otlp_endpoint`, where it was built without the
    /// feature `otlp`.
    pub fn check_built(&self) -> Result<(), ConfigError> {
        if cfg!(feature = "otlp") || self.trace.otlp_endpoint().is_none() {
            return Ok(());
        }
        let key = "trace.otlp_endpoint";
        let reason = "this program is built without the feature otlp, and sends no spans: build \
                      it with `cargo build --release --features otlp`"
            .into();
        Err(Objection { key, reason }.from(Origin::Settings))
    }
}

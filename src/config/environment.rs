//! The environment: `MEF3_SERVER_<SECTION>_<KEY>` for every setting.

use std::collections::BTreeMap;
use std::env;

use super::error::{ConfigError, Origin};
use super::layers::{Layers, bad_value};
use super::legacy;

/// What the names of our own variables start with.
const PREFIX: &str = "MEF3_SERVER_";

/// The environment of this process, for [`Config::load`](super::Config::load).
///
/// What is not valid Unicode comes with replacement characters. Loading refuses
/// those in a variable that it reads, and does not care about the others.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    env::vars_os().map(|(name, value)| {
        (
            name.to_string_lossy().into_owned(),
            value.to_string_lossy().into_owned(),
        )
    })
}

/// The variables that concern the server.
pub(super) struct Variables {
    /// Name and text of our own, by setting.
    own: BTreeMap<String, (String, String)>,
    /// Text of those of the older servers, by name.
    legacy: BTreeMap<String, String>,
}

impl Variables {
    /// Picks from the environment what concerns the server.
    pub(super) fn gather(
        layers: &Layers,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let keys = layers.keys();
        let mut variables = Self {
            own: BTreeMap::new(),
            legacy: BTreeMap::new(),
        };
        for (name, text) in environment {
            if let Some(rest) = name.strip_prefix(PREFIX) {
                if is_service_link(rest, &text) {
                    continue;
                }
                let Some(key) = keys.iter().find(|key| name_of(key) == name) else {
                    return Err(ConfigError::UnknownKey {
                        origin: Origin::Variable(name.clone()),
                        key: name,
                        known: keys.iter().map(|key| name_of(key)).collect(),
                    });
                };
                check_unicode(key, &name, &text)?;
                variables.own.insert(key.clone(), (name, text));
            } else if legacy::is_known(&name) {
                check_unicode(&name, &name, &text)?;
                variables.legacy.insert(name, text);
            }
        }
        Ok(variables)
    }

    /// Puts our own variables over the settings of `layers`.
    pub(super) fn apply(&self, layers: &mut Layers) -> Result<(), ConfigError> {
        for (key, (name, text)) in &self.own {
            layers.set_text(key, text, &Origin::Variable(name.clone()))?;
        }
        Ok(())
    }

    /// The name of our own variable that sets `key`, if it is set.
    pub(super) fn own_name(&self, key: &str) -> Option<&str> {
        self.own.get(key).map(|(name, _)| name.as_str())
    }

    /// The text of a variable of the older servers, if it is set.
    pub(super) fn legacy(&self, name: &str) -> Option<&str> {
        self.legacy.get(name).map(String::as_str)
    }
}

/// The variable for a `section.key`.
fn name_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

/// Whether an orchestrator wrote this variable: Kubernetes tells every container
/// the address of each service, and a service is likely to be named after us.
///
/// `rest` is the name without our prefix.
fn is_service_link(rest: &str, text: &str) -> bool {
    let is_address = rest == "SERVICE_HOST" || rest == "SERVICE_PORT";
    let is_named_port = rest.starts_with("SERVICE_PORT_");
    let is_link = rest == "PORT" && text.contains("://");
    let is_part_of_link = rest
        .strip_prefix("PORT_")
        .is_some_and(|port| port.starts_with(|first: char| first.is_ascii_digit()));
    is_address || is_named_port || is_link || is_part_of_link
}

fn check_unicode(key: &str, name: &str, text: &str) -> Result<(), ConfigError> {
    if text.contains(char::REPLACEMENT_CHARACTER) {
        let origin = Origin::Variable(name.into());
        return Err(bad_value(key, &origin, "it is not valid Unicode"));
    }
    Ok(())
}

//! Merges one value after the other, each judged as it comes.

use toml::{Table, Value};

use super::error::{ConfigError, Origin};
use super::knobs::Config;
use super::validate::check_each;

/// The settings so far.
pub(super) struct Layers {
    /// As a tree of sections and keys; complete from the start.
    table: Table,
    /// As values; always the same as `table`.
    config: Config,
}

impl Layers {
    /// Starts with the defaults.
    pub(super) fn of_defaults() -> Self {
        let config = Config::default();
        Self {
            // Numbers and texts always make a table; the tests rely on it.
            table: Table::try_from(&config).unwrap_or_default(),
            config,
        }
    }

    /// The names of all sections.
    pub(super) fn sections(&self) -> Vec<String> {
        self.table.keys().cloned().collect()
    }

    /// All settings, as `section.key`.
    pub(super) fn keys(&self) -> Vec<String> {
        let sections = self.table.iter();
        let sections = sections.filter_map(|(name, section)| Some((name, section.as_table()?)));
        sections
            .flat_map(|(name, section)| section.keys().map(move |key| format!("{name}.{key}")))
            .collect()
    }

    /// Sets one `section.key`, or leaves everything as it was.
    pub(super) fn set(
        &mut self,
        key: &str,
        value: Value,
        origin: &Origin,
    ) -> Result<(), ConfigError> {
        let mut table = self.table.clone();
        let Some(place) = find(&mut table, key) else {
            return Err(ConfigError::UnknownKey {
                key: key.into(),
                origin: origin.clone(),
                known: self.keys(),
            });
        };
        *place = value;
        // Whole again at every step, so that a failure is this value's fault.
        let config: Config = table
            .clone()
            .try_into()
            .map_err(|error: toml::de::Error| bad_value(key, origin, error.message()))?;
        check_each(&config).map_err(|objection| objection.from(origin.clone()))?;
        *self = Self { table, config };
        Ok(())
    }

    /// Sets one `section.key` from a text, which is read as the setting's type.
    pub(super) fn set_text(
        &mut self,
        key: &str,
        text: &str,
        origin: &Origin,
    ) -> Result<(), ConfigError> {
        let value = match find(&mut self.table, key) {
            Some(Value::Integer(_)) => {
                whole_number(text).map_err(|reason| bad_value(key, origin, &reason))?
            }
            Some(Value::Boolean(_)) => {
                super::legacy::switch(text).map_err(|reason| bad_value(key, origin, &reason))?
            }
            Some(Value::Array(_)) => {
                let parts = text.split(separator_of(key));
                let parts = parts.filter(|part| !part.is_empty());
                Value::Array(parts.map(|part| Value::String(part.into())).collect())
            }
            _ => Value::String(text.into()),
        };
        self.set(key, value, origin)
    }

    /// The merged settings.
    pub(super) fn into_config(self) -> Config {
        self.config
    }
}

/// What is between the parts of a list: as in PATH, unless that is in the parts.
fn separator_of(key: &str) -> char {
    match key {
        "server.web_origins" => ',',
        _ => ':',
    }
}

/// Reads a whole number.
pub(super) fn whole_number(text: &str) -> Result<Value, String> {
    match text.trim().parse() {
        Ok(number) => Ok(Value::Integer(number)),
        Err(_) => Err(format!("{text:?} is not a whole number")),
    }
}

pub(super) fn bad_value(key: &str, origin: &Origin, reason: &str) -> ConfigError {
    ConfigError::BadValue {
        key: key.into(),
        origin: origin.clone(),
        reason: reason.into(),
    }
}

fn find<'table>(table: &'table mut Table, key: &str) -> Option<&'table mut Value> {
    let (section, key) = key.split_once('.')?;
    table.get_mut(section)?.get_mut(key)
}

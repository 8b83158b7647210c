//! The configuration file.

use std::fs;
use std::path::Path;

use toml::{Table, Value};

use super::error::{ConfigError, Origin};
use super::layers::{Layers, bad_value};

/// Puts the settings of the file at `path` over those of `layers`.
pub(super) fn apply(layers: &mut Layers, path: &Path) -> Result<(), ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.into(),
        source,
    })?;
    let table: Table = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
        path: path.into(),
        line: line_of(&text, &error),
        message: error.message().into(),
    })?;

    let origin = Origin::File(path.into());
    for (section, content) in table {
        if !layers.sections().contains(&section) {
            return Err(ConfigError::UnknownKey {
                key: section,
                origin,
                known: layers.sections(),
            });
        }
        let Value::Table(content) = content else {
            return Err(bad_value(&section, &origin, "it is a section, not a value"));
        };
        for (key, value) in content {
            layers.set(&format!("{section}.{key}"), value, &origin)?;
        }
    }
    Ok(())
}

fn line_of(text: &str, error: &toml::de::Error) -> usize {
    let fault = error.span().map_or(0, |span| span.start);
    let before = text.bytes().take(fault);
    1 + before.filter(|byte| *byte == b'\n').count()
}

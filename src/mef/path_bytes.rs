//! Paths for serde, as byte strings: its own form fails for a name that is not
//! Unicode, and such a name is no reason to fail. What people read gets text.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        return serializer.serialize_str(&path.to_string_lossy());
    }
    serializer.serialize_bytes(path.as_os_str().as_bytes())
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    if deserializer.is_human_readable() {
        return deserializer.deserialize_str(PathVisitor);
    }
    deserializer.deserialize_bytes(PathVisitor)
}

struct PathVisitor;

impl Visitor<'_> for PathVisitor {
    type Value = PathBuf;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a path")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<PathBuf, E> {
        Ok(OsString::from_vec(bytes.into()).into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<PathBuf, E> {
        Ok(text.into())
    }
}

/// The same for a path that there may be.
pub(super) mod option {
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct AsBytes(#[serde(with = "super")] PathBuf);

    pub(in crate::mef) fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        path.clone().map(AsBytes).serialize(serializer)
    }

    pub(in crate::mef) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<AsBytes>::deserialize(deserializer)?.map(|AsBytes(path)| path))
    }
}

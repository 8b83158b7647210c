//! Folders of recordings that have a name.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A folder below which recordings may be read, written as `name=/path` or `/path`. A
/// recording below it is also known as `name:path/below.mefd`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct DataRoot {
    name: String,
    path: PathBuf,
    is_named: bool,
}

impl DataRoot {
    /// What clients call it: the last part of its path, if it was given no name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the name can be part of a recording's.
    pub(super) fn is_well_named(&self) -> bool {
        let mut bytes = self.name.bytes();
        !self.name.is_empty()
            && (!self.is_named
                || bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)))
    }
}

impl From<String> for DataRoot {
    fn from(text: String) -> Self {
        if let Some((name, path)) = text.split_once('=')
            && !text.starts_with('/')
        {
            return Self {
                name: name.into(),
                path: path.into(),
                is_named: true,
            };
        }
        let path = PathBuf::from(text);
        let name = path.file_name().unwrap_or("root".as_ref());
        Self {
            name: name.to_string_lossy().into_owned(),
            path,
            is_named: false,
        }
    }
}

impl From<DataRoot> for String {
    fn from(root: DataRoot) -> Self {
        let path = root.path.display();
        match root.is_named {
            true => format!("{}={path}", root.name),
            false => path.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_named_by_its_setting_or_its_folder() {
        for (text, name, path) in [
            ("/data/eeg", "eeg", "/data/eeg"),
            ("/data/a=b", "a=b", "/data/a=b"),
            ("lab=/data/eeg", "lab", "/data/eeg"),
            ("/", "root", "/"),
        ] {
            let root = DataRoot::from(text.to_owned());
            assert_eq!((root.name(), root.path()), (name, Path::new(path)));
            assert!(root.is_well_named());
            assert_eq!(String::from(root), text);
        }
        for text in ["=/data", "a:b=/data", "a/b=/data"] {
            assert!(!DataRoot::from(text.to_owned()).is_well_named(), "{text}");
        }
    }
}

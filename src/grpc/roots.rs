//! Where the path of a client is on this machine. Whether its files may be read is
//! decided where they are opened.

use std::path::{Component, Path, PathBuf};

use super::ServiceOptions;

/// The path on this machine of what a client names: `name:path` is below the data root
/// of that name. Other paths are looked up below the host root, if there is one: below
/// it nothing may climb out by `..`.
pub(super) fn resolve(options: &ServiceOptions, path: &str) -> Result<PathBuf, String> {
    if path.contains('\0') {
        return Err("path must not contain NUL".into());
    }
    for root in options.data_roots.iter().filter(|_| !path.starts_with('/')) {
        let below = path.strip_prefix(root.name());
        if let Some(below) = below.and_then(|below| below.strip_prefix(':')) {
            return Ok(root.path().join(below.trim_start_matches('/')));
        }
    }
    let path = Path::new(path);
    let Some(root) = options.host_root.as_deref() else {
        return Ok(path.into());
    };
    let mut components = path.components();
    if components.any(|component| component == Component::ParentDir) {
        return Err(format!("path must not contain '..': {}", path.display()));
    }
    Ok(root.join(path.strip_prefix("/").unwrap_or(path)))
}

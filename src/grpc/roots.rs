//! Where the path of a client is on this machine. Whether its files may be read is
//! decided where they are opened.

use std::path::{Component, Path, PathBuf};

/// Looks a client's path up below the host root, if there is one: below it nothing may
/// climb out by `..`.
pub(super) fn resolve(host_root: Option<&Path>, path: &str) -> Result<PathBuf, String> {
    if path.contains('\0') {
        return Err("path must not contain NUL".into());
    }
    let path = Path::new(path);
    let Some(root) = host_root else {
        return Ok(path.into());
    };
    let mut components = path.components();
    if components.any(|component| component == Component::ParentDir) {
        return Err(format!("path must not contain '..': {}", path.display()));
    }
    Ok(root.join(path.strip_prefix("/").unwrap_or(path)))
}

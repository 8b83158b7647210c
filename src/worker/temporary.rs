//! The folder in which a worker's first socket is made.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Where procspawn tells a child the path of the socket that it is waited for at.
const SOCKET_VARIABLE: &str = "__PROCSPAWN_CONTENT_PROCESS_ID";
/// The name of that socket, in a folder of its own.
pub(super) const SOCKET_NAME: &str = "socket";

/// A socket's path must fit the kernel's 108 bytes with the part that is added
/// to the folder; beyond that it is cut without a word.
const MAX_PATH_BYTES: usize = 80;

/// The temporary folder cannot hold a socket.
#[derive(Debug, Error)]
pub(crate) enum TemporaryFolderError {
    #[error("temporary folder {} has a path of over {MAX_PATH_BYTES} bytes", .0.display())]
    TooLong(PathBuf),
    #[error("temporary folder {} cannot be written: {error}", folder.display())]
    Unwritable {
        folder: PathBuf,
        error: std::io::Error,
    },
}

/// Checks that a socket can be made in the temporary folder (`TMPDIR`):
/// ipc-channel would panic, or cut the path and leave the file behind.
pub(crate) fn check_temporary_folder() -> Result<(), TemporaryFolderError> {
    let folder = env::temp_dir();
    if folder.as_os_str().len() > MAX_PATH_BYTES {
        return Err(TemporaryFolderError::TooLong(folder));
    }
    match tempfile::tempdir_in(&folder) {
        Ok(_) => Ok(()),
        Err(error) => Err(TemporaryFolderError::Unwritable { folder, error }),
    }
}

/// The socket at which a starting worker is waited for. Its server removes it; where
/// the server is killed before that, the worker does so, which cannot begin then.
pub(crate) struct FirstSocket(Option<PathBuf>);

impl FirstSocket {
    /// That of this process, if it is a worker that starts.
    pub(crate) fn of_this_process() -> Self {
        let path = env::var_os(SOCKET_VARIABLE).map(PathBuf::from);
        Self(path.filter(|path| path.file_name() == Some(SOCKET_NAME.as_ref())))
    }
}

impl Drop for FirstSocket {
    /// A worker that has begun never gets here: its life ends with its process.
    fn drop(&mut self) {
        let Some(path) = &self.0 else {
            return;
        };
        // The server may have been faster, which is as good.
        let _ = fs::remove_file(path);
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let _ = folder.map(fs::remove_dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_removed_with_its_folder_and_nothing_else_is() {
        let outer = tempfile::tempdir().unwrap();
        let [own, other] = ["own", "other"].map(|name| outer.path().join(name));
        for folder in [&own, &other] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(SOCKET_NAME), "").unwrap();
        }
        fs::write(other.join("more"), "").unwrap();
        drop(FirstSocket(None));
        for folder in [&own, &other] {
            drop(FirstSocket(Some(folder.join(SOCKET_NAME))));
        }
        assert!(!own.exists());
        assert!(other.join("more").exists());
    }
}

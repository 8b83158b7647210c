//! The folder in which a worker's first socket is made.

use std::path::PathBuf;

use thiserror::Error;

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
    let folder = std::env::temp_dir();
    if folder.as_os_str().len() > MAX_PATH_BYTES {
        return Err(TemporaryFolderError::TooLong(folder));
    }
    match tempfile::tempdir_in(&folder) {
        Ok(_) => Ok(()),
        Err(error) => Err(TemporaryFolderError::Unwritable { folder, error }),
    }
}

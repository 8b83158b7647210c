//! A Unix domain socket, for clients on the same machine.

use std::fs::{self, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// User and group of the server may connect.
const MODE: u32 = 0o660;
/// Connections that wait to be taken.
const BACKLOG: i32 = 1024;

/// A Unix domain socket that listens. The file of one that was made here goes with it.
#[derive(Debug)]
pub struct LocalSocket {
    listener: UnixListener,
    file: Option<SocketFile>,
}

impl LocalSocket {
    /// Listens at a path. A socket there of a server that is gone makes way.
    ///
    /// # Errors
    /// The system's; [`ErrorKind::AddrInUse`] where somebody listens there, and
    /// [`ErrorKind::AlreadyExists`] where there is something that is no socket.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let address = SockAddr::unix(path)?;
        make_way(path, &address)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&address)?;
        let file = SocketFile::new(path)?;
        // Nobody can connect before it listens.
        fs::set_permissions(path, Permissions::from_mode(MODE))?;
        socket.set_nonblocking(true)?;
        socket.listen(BACKLOG)?;
        let listener = UnixListener::from(std::os::fd::OwnedFd::from(socket));
        Ok(Self {
            listener,
            file: Some(file),
        })
    }

    /// Where it listens, unless it has no name.
    pub fn path(&self) -> Option<PathBuf> {
        let address = self.listener.local_addr().ok()?;
        address.as_pathname().map(Into::into)
    }

    /// The listener for a runtime, and what removes the file when it is dropped.
    pub(in crate::grpc) fn into_parts(
        self,
    ) -> io::Result<(tokio::net::UnixListener, Option<SocketFile>)> {
        let listener = tokio::net::UnixListener::from_std(self.listener)?;
        Ok((listener, self.file))
    }
}

/// One that somebody else has made, and keeps. It must not block.
impl From<UnixListener> for LocalSocket {
    fn from(listener: UnixListener) -> Self {
        Self {
            listener,
            file: None,
        }
    }
}

/// Removes a socket that nobody listens at.
fn make_way(path: &Path, address: &SockAddr) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        let text = "there is something that is no socket";
        return Err(io::Error::new(ErrorKind::AlreadyExists, text));
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A server with many who wait is there, too, and not to be waited for.
    socket.set_nonblocking(true)?;
    match socket.connect(address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(()) => Err(ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
    }
}

/// The file of a socket, which goes when this is dropped, unless another one is in its
/// place.
#[derive(Debug)]
pub(in crate::grpc) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.into(),
            identity: identity(&found),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = fs::symlink_metadata(&self.path);
        if !found.is_ok_and(|found| identity(&found) == self.identity) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket stays behind");
        }
    }
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_is_for_user_and_group_and_goes_with_its_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mef3.sock");
        let socket = LocalSocket::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        UnixStream::connect(socket.path().unwrap()).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_socket_makes_way_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mef3.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = LocalSocket::bind(&path).unwrap();
        let error = LocalSocket::bind(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        UnixStream::connect(&path).unwrap();
        // Another one's is not removed.
        fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists());
        drop(other);

        let file = folder.path().join("file");
        fs::write(&file, "something").unwrap();
        let error = LocalSocket::bind(&file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&file).unwrap(), b"something");
        let long = folder.path().join("x".repeat(200));
        LocalSocket::bind(&long).unwrap_err();
    }
}

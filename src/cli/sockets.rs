//! Sockets that a service manager listens on, and passes (systemd's socket activation,
//! `sd_listen_fds(3)`).

use std::env;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process;

use listenfd::ListenFd;
use socket2::SockRef;
use thiserror::Error;

/// Most sockets that are taken: addresses of a port, and one or two for this machine.
const MOST: usize = 16;
/// What the sockets of clients are called, and that of operators.
const CLIENTS: &str = "grpc";
const OPERATORS: &str = "admin";

/// Sockets that were passed are not such as can be served.
#[derive(Debug, Error)]
pub(super) enum SocketsError {
    #[error(
        "socket {number} of those that were passed is called {name:?}, known are {CLIENTS} and {OPERATORS} (FileDescriptorName=)"
    )]
    Name { number: usize, name: String },
    #[error("{count} sockets were passed, {MOST} are taken at most (LISTEN_FDS)")]
    TooMany { count: usize },
    #[error("{count} sockets were passed with {names} names (LISTEN_FDNAMES)")]
    Names { count: usize, names: usize },
    #[error("socket {number} of those that were passed is none that listens for {what}: {reason}")]
    Kind {
        number: usize,
        what: &'static str,
        reason: String,
    },
    #[error("two sockets called {OPERATORS} were passed, and there is one admin port")]
    TwoForOperators,
}

/// Sockets that were passed to this process, ready to be served.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// For clients: ports.
    pub(super) ports: Vec<TcpListener>,
    /// For clients of this machine.
    pub(super) local: Vec<UnixListener>,
    /// The admin port.
    pub(super) admin: Option<TcpListener>,
}

impl Passed {
    /// Takes the sockets, if any were passed. No other thread may run yet: `LISTEN_PID` and
    /// `LISTEN_FDS` are removed, so that no child takes them for its own. `LISTEN_FDNAMES`
    /// stays, which without them means nothing; workers are started without it.
    pub(super) fn take() -> Result<Self, SocketsError> {
        let own = process::id().to_string();
        // Without this, or with another one's, they are not for this process.
        if env::var("LISTEN_PID").as_deref() != Ok(own.as_str()) {
            return Ok(Self::default());
        }
        let names = env::var("LISTEN_FDNAMES").ok();
        let mut passed = ListenFd::from_env();
        let count = passed.len();
        if count > MOST {
            return Err(SocketsError::TooMany { count });
        }
        let names = names_of(names.as_deref(), count)?;
        let mut sockets = Self::default();
        for (number, name) in names.iter().enumerate() {
            let port = passed.take_tcp_listener(number);
            match (Purpose::of(number, name)?, port) {
                (Purpose::Clients, Ok(Some(port))) => {
                    sockets
                        .ports
                        .push(ready(number, "TCP", port, TcpListener::set_nonblocking)?);
                }
                (Purpose::Clients, _) => {
                    let what = "TCP or at a Unix domain socket";
                    let local = passed.take_unix_listener(number);
                    let local = local.map_err(|error| kind(number, what, &error))?;
                    let local = local.ok_or_else(|| kind(number, what, &"it is not there"))?;
                    let local = ready(number, what, local, UnixListener::set_nonblocking)?;
                    sockets.local.push(local);
                }
                (Purpose::Operators, Ok(Some(port))) => {
                    let port = ready(number, "TCP", port, TcpListener::set_nonblocking)?;
                    if sockets.admin.replace(port).is_some() {
                        return Err(SocketsError::TwoForOperators);
                    }
                }
                (Purpose::Operators, Ok(None)) => {
                    return Err(kind(number, "TCP", &"it is not there"));
                }
                (Purpose::Operators, Err(error)) => return Err(kind(number, "TCP", &error)),
            }
        }
        Ok(sockets)
    }

    /// Whether clients are to connect to what was passed, and to nothing else.
    pub(super) fn has_some_for_clients(&self) -> bool {
        !self.ports.is_empty() || !self.local.is_empty()
    }
}

/// Whom a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Clients,
    Operators,
}

impl Purpose {
    fn of(number: usize, name: &str) -> Result<Self, SocketsError> {
        match name {
            OPERATORS => Ok(Self::Operators),
            // Where the unit gives no name, it is called after the unit, or not at all.
            CLIENTS | "" | "unknown" => Ok(Self::Clients),
            name if name.ends_with(".socket") => Ok(Self::Clients),
            name => Err(SocketsError::Name {
                number,
                name: name.into(),
            }),
        }
    }
}

/// The names of all sockets, of `LISTEN_FDNAMES`.
fn names_of(names: Option<&str>, count: usize) -> Result<Vec<String>, SocketsError> {
    let names: Vec<String> = match names {
        None => vec![String::new(); count],
        Some(_) if count == 0 => Vec::new(),
        Some(names) => names.split(':').map(Into::into).collect(),
    };
    match names.len() {
        number if number == count => Ok(names),
        names => Err(SocketsError::Names { count, names }),
    }
}

/// A socket that listens, and does not keep anybody waiting.
fn ready<S: std::os::fd::AsFd>(
    number: usize,
    what: &'static str,
    socket: S,
    set_nonblocking: fn(&S, bool) -> std::io::Result<()>,
) -> Result<S, SocketsError> {
    let listens = SockRef::from(&socket).is_listener();
    if !listens.map_err(|error| kind(number, what, &error))? {
        return Err(kind(number, what, &"it does not listen"));
    }
    set_nonblocking(&socket, true).map_err(|error| kind(number, what, &error))?;
    Ok(socket)
}

fn kind(number: usize, what: &'static str, reason: &dyn std::fmt::Display) -> SocketsError {
    SocketsError::Kind {
        number,
        what,
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_whom_a_socket_is_for() {
        for (name, purpose) in [
            ("grpc", Some(Purpose::Clients)),
            ("admin", Some(Purpose::Operators)),
            ("", Some(Purpose::Clients)),
            ("unknown", Some(Purpose::Clients)),
            ("mef3-server.socket", Some(Purpose::Clients)),
            ("grcp", None),
            ("Admin", None),
        ] {
            assert_eq!(Purpose::of(0, name).ok(), purpose, "{name}");
        }
    }

    #[test]
    fn there_are_as_many_names_as_sockets() {
        assert_eq!(names_of(None, 2).unwrap(), ["", ""]);
        assert_eq!(names_of(Some("grpc:admin"), 2).unwrap(), ["grpc", "admin"]);
        assert_eq!(names_of(Some(""), 1).unwrap(), [""]);
        assert!(names_of(Some(""), 0).unwrap().is_empty());
        names_of(Some("grpc"), 2).unwrap_err();
        names_of(Some("grpc:admin:"), 2).unwrap_err();
    }

    #[test]
    fn what_does_not_listen_is_no_socket_to_serve() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let socket = listener.try_clone().unwrap();
        let socket = ready(0, "TCP", socket, TcpListener::set_nonblocking).unwrap();
        assert_eq!(
            socket.accept().unwrap_err().kind(),
            std::io::ErrorKind::WouldBlock
        );
        let address = listener.local_addr().unwrap();
        let stream = std::net::TcpStream::connect(address).unwrap();
        let error = ready(3, "TCP", stream, std::net::TcpStream::set_nonblocking).unwrap_err();
        assert!(error.to_string().contains("does not listen"), "{error}");
    }
}

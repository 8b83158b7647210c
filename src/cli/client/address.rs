//! Where a server is: as users write it, and as connections are made to it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The port of a server whose address has none.
const PORT: u16 = 50_051;

const FORMS: &str = "an address is HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:PATH";

/// The address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// A port of a machine.
    Port {
        /// What the address says of encryption, if it does.
        encrypted: Option<bool>,
        /// A name or an address; one of IPv6 is in brackets.
        host: String,
        port: u16,
    },
    /// A Unix domain socket of this machine, by its path.
    Socket(String),
}

impl Address {
    /// Whether nobody else can listen to a connection that is not encrypted.
    pub(super) fn is_near(&self) -> bool {
        let Self::Port { host, .. } = self else {
            return true;
        };
        let ip = host.trim_start_matches('[').trim_end_matches(']');
        match ip.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        }
    }

    /// The address as a URL, encrypted or not.
    pub(super) fn url(&self, encrypted: bool) -> String {
        let scheme = if encrypted { "https" } else { "http" };
        match self {
            Self::Port { host, port, .. } => format!("{scheme}://{host}:{port}"),
            Self::Socket(path) => format!("unix:{path}"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { host, port, .. } => write!(formatter, "{host}:{port}"),
            Self::Socket(path) => write!(formatter, "unix:{path}"),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.is_empty() {
                true => Err(FORMS.into()),
                false => Ok(Self::Socket(path.into())),
            };
        }
        let (encrypted, place) = match text.split_once("://") {
            None => (None, text),
            Some(("http", place)) => (Some(false), place),
            Some(("https", place)) => (Some(true), place),
            Some(_) => return Err(FORMS.into()),
        };
        let (host, port) = host_and_port(place.strip_suffix('/').unwrap_or(place))?;
        Ok(Self::Port {
            encrypted,
            host: host.into(),
            port,
        })
    }
}

fn host_and_port(place: &str) -> Result<(&str, u16), String> {
    let (host, port) = match place
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((ip, port)) => {
            ip.parse::<Ipv6Addr>().map_err(|error| error.to_string())?;
            // The brackets stay.
            let host = place.get(..ip.len() + 2).unwrap_or(place);
            (host, port)
        }
        None => match place.find(':') {
            Some(at) => place.split_at(at),
            None => (place, ""),
        },
    };
    let is_name = |host: &str| {
        let mut bytes = host.bytes();
        !host.is_empty() && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if !(host.starts_with('[') || is_name(host)) {
        return Err(FORMS.into());
    }
    let port = match port.strip_prefix(':') {
        Some(port) => port
            .parse()
            .map_err(|_| format!("{port} is no port: {FORMS}"))?,
        None if port.is_empty() => PORT,
        None => return Err(FORMS.into()),
    };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_scheme_a_host_and_a_port_or_are_sockets() {
        for (text, url, is_near) in [
            ("127.0.0.1:7", "http://127.0.0.1:7", true),
            ("localhost", "http://localhost:50051", true),
            ("http://eeg.lab:7/", "http://eeg.lab:7", false),
            ("http://127.9.9.9:7", "http://127.9.9.9:7", true),
            ("[::1]:7", "http://[::1]:7", true),
            (
                "[::ffff:127.0.0.1]",
                "http://[::ffff:127.0.0.1]:50051",
                true,
            ),
            ("http://[fe80::1]:7", "http://[fe80::1]:7", false),
            ("10.0.0.1:7", "http://10.0.0.1:7", false),
            ("unix:/run/a b.sock", "unix:/run/a b.sock", true),
            ("unix:///run/a.sock", "unix:/run/a.sock", true),
            ("unix:a.sock", "unix:a.sock", true),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(
                (address.url(false).as_str(), address.is_near()),
                (url, is_near)
            );
        }
        let address: Address = "https://eeg.lab".parse().unwrap();
        assert_eq!(address.url(true), "https://eeg.lab:50051");
        assert!(matches!(
            address,
            Address::Port {
                encrypted: Some(true),
                ..
            }
        ));
    }

    #[test]
    fn what_is_no_address_is_told_so() {
        for text in [
            "",
            ":",
            ":7",
            "a:b",
            "a:70000",
            "ftp://a:7",
            "a/b",
            "a b:7",
            "user@a:7",
            "::1",
            "[::1",
            "[x]:7",
            "[::1]7",
            "unix:",
            "unix://",
            "http://",
        ] {
            text.parse::<Address>().expect_err(text);
        }
    }
}

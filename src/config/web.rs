//! Pages in browsers that may call.

use std::fmt;
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

/// Where a page comes from, as a browser says it in its header `origin`: scheme, host
/// and, where it is not that of the scheme, port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WebOrigin(String);

impl WebOrigin {
    /// As a browser writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WebOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for WebOrigin {
    type Error = String;

    /// Takes what browsers write only: another spelling would never be met.
    fn try_from(text: String) -> Result<Self, String> {
        if is_origin(&text) {
            return Ok(Self(text));
        }
        Err(format!(
            "{text:?} is not an origin as browsers write it, such as https://viewer.example or \
             http://localhost:5173: in lower case, without a path, and without the port that the \
             scheme has anyway"
        ))
    }
}

impl From<WebOrigin> for String {
    fn from(origin: WebOrigin) -> Self {
        origin.0
    }
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, place)) = text.split_once("://") else {
        return false;
    };
    let usual = match scheme {
        "https" => "443",
        "http" => "80",
        _ => return false,
    };
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    };
    let is_port =
        |port: &str| port != usual && !port.starts_with(['0', '+']) && port.parse::<u16>().is_ok();
    is_host(host) && port.is_none_or(is_port)
}

fn is_host(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    if let Some(address) = inner {
        // Any other spelling of it is not a browser's.
        let parsed = address.parse::<Ipv6Addr>();
        // Nor is ours of those that stand for IPv4, which nobody calls by.
        return parsed.is_ok_and(|parsed| {
            parsed.to_ipv4_mapped().is_none() && parsed.to_string() == address
        });
    }
    let is_fine =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    !host.is_empty() && host.bytes().all(is_fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_taken_as_browsers_write_them() {
        for text in [
            "https://viewer.example",
            "https://viewer.example:8443",
            "http://localhost:5173",
            "http://192.168.1.7:8080",
            "http://[::1]:3000",
            "http://[fd00::7]",
        ] {
            let origin = WebOrigin::try_from(text.to_owned()).unwrap();
            assert_eq!(origin.as_str(), text);
        }
        for text in [
            "",
            "*",
            "null",
            "viewer.example",
            "https://",
            "https://*",
            "https://viewer.example/",
            "https://viewer.example/path",
            "https://Viewer.example",
            "HTTPS://viewer.example",
            "https://viewer.example:443",
            "http://viewer.example:80",
            "https://viewer.example:",
            "https://viewer.example:+1",
            "https://viewer.example:99999",
            "https://user@viewer.example",
            "ftp://viewer.example",
            "http://[::0:1]",
            "http://[]",
            "https://bücher.example",
            "https://a.example https://b.example",
        ] {
            let refusal = WebOrigin::try_from(text.to_owned()).unwrap_err();
            assert!(
                refusal.starts_with(&format!("{text:?} is not")),
                "{refusal}"
            );
        }
    }
}

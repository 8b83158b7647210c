//! Who may connect and call, and over which connections.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::{ConfigError, Origin};
use super::knobs::{Config, Server, given};
use super::validate::Objection;

/// Encryption (TLS): off where there is no certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// File with the server's certificate, and those between it and the authority
    /// (PEM); empty is off.
    pub certificate: PathBuf,
    /// File with the key of the certificate (PEM).
    pub key: PathBuf,
    /// File with the certificates of the authorities of clients (PEM). Where there is
    /// one, clients need a certificate.
    pub client_ca: PathBuf,
}

impl Tls {
    /// The server's certificate, if connections are encrypted.
    pub fn certificate(&self) -> Option<&Path> {
        given(&self.certificate)
    }

    /// The authorities of clients, if clients need a certificate.
    pub fn client_ca(&self) -> Option<&Path> {
        given(&self.client_ca)
    }

    /// Certificates, keys and authorities need each other.
    pub(super) fn check(&self) -> Result<(), Objection> {
        let has_key = !self.key.as_os_str().is_empty();
        let objection = match (self.certificate(), has_key, self.client_ca()) {
            (Some(_), false, _) => ("tls.key", "tls.certificate is set and has no key"),
            (None, true, _) => ("tls.certificate", "tls.key is set and has no certificate"),
            (None, _, Some(_)) => ("tls.certificate", "tls.client_ca is set and needs one"),
            _ => return Ok(()),
        };
        Err(Objection {
            key: objection.0,
            reason: objection.1.into(),
        })
    }
}

/// Who may call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// File of the tokens that calls need one of; empty is off.
    pub tokens: PathBuf,
}

impl Auth {
    /// The file of the tokens, if calls need one.
    pub fn tokens(&self) -> Option<&Path> {
        given(&self.tokens)
    }
}

impl Config {
    /// Refuses to be reached by other machines over connections that anybody can listen
    /// to, unless `server.insecure` allows it. For who serves; an engine does not listen.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BadValue`] of `server.listen`, which says what to set.
    pub fn check_exposure(&self) -> Result<(), ConfigError> {
        self.check_exposure_of(self.server.listen)
    }

    /// The same for an address that is listened on already, in place of
    /// `server.listen`.
    ///
    /// # Errors
    ///
    /// As [`check_exposure`](Self::check_exposure).
    pub fn check_exposure_of(&self, listen: SocketAddr) -> Result<(), ConfigError> {
        let Server { insecure, .. } = &self.server;
        let is_near = listen.ip().to_canonical().is_loopback();
        if is_near || *insecure || self.tls.certificate().is_some() {
            return Ok(());
        }
        let reason = format!(
            "other machines reach {listen}, and connections are not encrypted: set \
             tls.certificate and tls.key, or listen on 127.0.0.1, or allow it by \
             server.insecure = true (--insecure, MEF3_SERVER_SERVER_INSECURE=true)"
        );
        let key = "server.listen";
        Err(Objection { key, reason }.from(Origin::Settings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_keys_and_authorities_need_each_other() {
        for (set, missing) in [
            (&["CERTIFICATE"][..], "tls.key"),
            (&["KEY"], "tls.certificate"),
            (&["CLIENT_CA"], "tls.certificate"),
            (&["CERTIFICATE", "CLIENT_CA"], "tls.key"),
            (&["CERTIFICATE", "KEY"], ""),
            (&["CERTIFICATE", "KEY", "CLIENT_CA"], ""),
        ] {
            let path = |key| if set.contains(&key) { "/a.pem" } else { "" };
            let mut config = Config::default();
            config.tls.certificate = path("CERTIFICATE").into();
            config.tls.key = path("KEY").into();
            config.tls.client_ca = path("CLIENT_CA").into();
            let outcome = config.validate();
            let text = outcome
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            let start = format!("settings: bad value for {missing}: ");
            assert_eq!(text.is_empty(), missing.is_empty(), "{set:?}: {text}");
            assert!(
                missing.is_empty() || text.starts_with(&start),
                "{set:?}: {text}"
            );
        }
    }

    #[test]
    fn only_what_is_encrypted_near_or_allowed_is_exposed() {
        let (tls, insecure) = (("tls", true), ("insecure", true));
        for (listen, setting, is_fine) in [
            ("127.0.0.1:1", None, true),
            ("127.9.9.9:1", None, true),
            ("[::1]:1", None, true),
            ("[::ffff:127.0.0.1]:1", None, true),
            ("0.0.0.0:1", None, false),
            ("[::]:1", None, false),
            ("192.168.1.7:1", None, false),
            ("0.0.0.0:1", Some(tls), true),
            ("0.0.0.0:1", Some(insecure), true),
        ] {
            let mut config = Config::default();
            config.server.listen = listen.parse().unwrap();
            config.server.insecure = setting == Some(insecure);
            if setting == Some(tls) {
                config.tls.certificate = "/a.pem".into();
                config.tls.key = "/b.pem".into();
            }
            config.validate().unwrap();
            let text = config.check_exposure().err().map(|error| error.to_string());
            assert_eq!(text.is_none(), is_fine, "{listen} {setting:?}: {text:?}");
            let Some(text) = text else { continue };
            for part in [
                listen,
                "server.listen",
                "tls.certificate",
                "server.insecure",
                "--insecure",
            ] {
                assert!(text.contains(part), "no {part} in {text}");
            }
        }
    }
}

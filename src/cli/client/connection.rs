//! The way to a server: encryption, who asks, and how long it is waited for.

use std::cell::Cell;
use std::error::Error;
use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use mef3_server::grpc::proto::native::client::RecordingServiceClient;
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, RootCertStore};
use tonic::metadata::{Ascii, Binary, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::address::Address;
use super::trouble::{ClientError, chain};
use crate::cli::failure::Failure;
use crate::cli::password::{PasswordArguments, secret};

/// The environment variable that a token may come in.
const TOKEN_VARIABLE: &str = "MEF3_TOKEN";
/// Longest token. The server takes 16 KiB of metadata in all.
const MOST_TOKEN_BYTES: usize = 8 << 10;
/// Longest name that goes into the metadata; no path is longer.
const MOST_RECORDING_BYTES: usize = 4096;
/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How often a connection that says nothing is asked whether it is alive, and how long
/// that may take.
const ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const ALIVE_LIMIT: Duration = Duration::from_secs(20);
/// Longest file of certificates.
const MOST_PEM_BYTES: u64 = 4 << 20;

/// How the server is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct ConnectionArguments {
    /// Trust the authorities in this file (PEM) alone, in place of the system's;
    /// HOST:PORT is then encrypted
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Show this certificate (PEM) to a server that asks for one (mutual TLS)
    #[arg(long, global = true, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, global = true, value_name = "FILE")]
    key: Option<PathBuf>,
    /// File with the token for the server in its first line; without it, the environment
    /// variable MEF3_TOKEN is used, if it is set
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Seconds to wait for an answer, and for each part of a long one
    #[arg(long, global = true, value_name = "S", default_value_t = 60,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

/// A client of the native service.
pub(super) type Client = RecordingServiceClient<Channel>;

/// A server that can be connected to, again and again, and who asks it.
pub(super) struct Server {
    endpoint: Endpoint,
    address: Address,
    token: Option<MetadataValue<Ascii>>,
    password: Option<MetadataValue<Binary>>,
    recording: Option<MetadataValue<Ascii>>,
    limit: Duration,
    is_encrypted: bool,
    /// Something of the server's was understood.
    has_answered: Cell<bool>,
}

impl Server {
    /// The server of the arguments, which is not asked yet. Calls have the password, if
    /// there is one, where the command takes any.
    pub(super) fn new(
        address: &Address,
        arguments: &ConnectionArguments,
        password: Option<&PasswordArguments>,
    ) -> Result<Self, Failure> {
        let is_encrypted = arguments.is_encrypted(address)?;
        let token_file = arguments.token_file.as_deref();
        let token = secret("token", token_file, TOKEN_VARIABLE, MOST_TOKEN_BYTES)?;
        let password = match password {
            Some(password) => password.text()?,
            None => None,
        };
        let secrets = [("token", &token), ("password", &password)];
        let given = secrets.iter().find(|(_, secret)| secret.is_some());
        if let Some((what, _)) = given
            && !is_encrypted
            && !address.is_near()
        {
            return Err(Failure::Arguments(format!(
                "anybody can listen on the way to {address}, so no {what} is sent: use https://"
            )));
        }
        let mut endpoint = Endpoint::from_shared(address.url(is_encrypted))
            .map_err(|error| connect_error(address, &error))?
            .connect_timeout(CONNECT_LIMIT)
            .http2_keep_alive_interval(ALIVE_INTERVAL)
            .keep_alive_timeout(ALIVE_LIMIT);
        if is_encrypted {
            endpoint = endpoint
                .tls_config(arguments.tls()?)
                .map_err(|error| connect_error(address, &error))?;
        }
        Ok(Self {
            endpoint,
            address: address.clone(),
            token: token.map(|it| bearer(&it, token_file)).transpose()?,
            password: password.map(hidden),
            recording: None,
            limit: Duration::from_secs(arguments.timeout),
            is_encrypted,
            has_answered: Cell::new(false),
        })
    }

    /// Says with each call which recording it is for, so that what stands before several
    /// servers can send it to the one that has the recording in its cache.
    pub(super) fn with_recording(mut self, recording: &str) -> Self {
        // What cannot be sent so is only not as fast.
        let short = Some(recording.trim()).filter(|it| it.len() <= MOST_RECORDING_BYTES);
        self.recording = short.and_then(|it| MetadataValue::try_from(it.as_bytes()).ok());
        self
    }

    /// What the server is called in messages.
    pub(super) fn name(&self) -> String {
        self.address.to_string()
    }

    /// Connects to it.
    pub(super) async fn connect(&self) -> Result<Client, ClientError> {
        // The limit of the endpoint is that of each address that a name has, and leaves
        // out encryption.
        let connecting = timeout(2 * CONNECT_LIMIT, self.endpoint.connect());
        let Ok(connected) = connecting.await else {
            return Err(ClientError::Connect {
                server: self.name(),
                reason: format!("nothing within {} s", 2 * CONNECT_LIMIT.as_secs()),
            });
        };
        match connected {
            Ok(channel) => Ok(RecordingServiceClient::new(channel)),
            Err(error) => {
                let is_garbled = self.is_encrypted && is_no_tls(&error);
                let error = connect_error(&self.address, &error);
                Err(self.maybe_garbled(is_garbled, error))
            }
        }
    }

    /// A message with what says who asks.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        if let Some(token) = &self.token {
            metadata.insert("authorization", token.clone());
        }
        if let Some(password) = &self.password {
            metadata.insert_bin("x-mef3-password-bin", password.clone());
        }
        if let Some(recording) = &self.recording {
            metadata.insert("x-mef3-recording", recording.clone());
        }
        request
    }

    /// Waits for the answer to a call.
    pub(super) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, ClientError> {
        Ok(self.in_time(call).await?.into_inner())
    }

    /// Waits for something of the server's, as long as the user lets us.
    pub(super) async fn in_time<T>(
        &self,
        coming: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, ClientError> {
        match timeout(self.limit, coming).await {
            Ok(Ok(come)) => {
                self.has_answered.set(true);
                Ok(come)
            }
            Ok(Err(status)) => {
                // What the server says has no error of ours behind it.
                let is_broken = status.source().is_some();
                if !is_broken {
                    self.has_answered.set(true);
                }
                let is_port = matches!(self.address, Address::Port { .. });
                let error = ClientError::Refused {
                    server: self.name(),
                    status: Box::new(status),
                };
                let is_garbled = is_broken && is_port && !self.is_encrypted;
                Err(self.maybe_garbled(is_garbled, error))
            }
            Err(_) => Err(ClientError::Silent {
                server: self.name(),
                seconds: self.limit.as_secs(),
            }),
        }
    }

    /// The error, with the question whether both sides encrypt where that may be it.
    fn maybe_garbled(&self, is_garbled: bool, error: ClientError) -> ClientError {
        match is_garbled && !self.has_answered.get() {
            true => ClientError::Garbled {
                is_encrypted: self.is_encrypted,
                source: Box::new(error),
            },
            false => error,
        }
    }

    /// What came of the server makes no sense.
    pub(super) fn nonsense(&self, what: impl Into<String>) -> ClientError {
        ClientError::Nonsense {
            server: self.name(),
            what: what.into(),
        }
    }
}

impl ConnectionArguments {
    /// Whether the connection is encrypted: as the address says, or else if anything is
    /// said of encryption.
    fn is_encrypted(&self, address: &Address) -> Result<bool, Failure> {
        let is_wanted = [&self.ca, &self.cert, &self.key]
            .iter()
            .any(|it| it.is_some());
        match address {
            Address::Port {
                encrypted: Some(true),
                ..
            } => Ok(true),
            Address::Port {
                encrypted: None, ..
            } => Ok(is_wanted),
            _ if is_wanted => Err(Failure::Arguments(format!(
                "--ca, --cert and --key are for encrypted connections, and {address} is none: \
                 use https://"
            ))),
            _ => Ok(false),
        }
    }

    fn tls(&self) -> Result<ClientTlsConfig, Failure> {
        let mut tls = ClientTlsConfig::new().timeout(CONNECT_LIMIT);
        tls = match &self.ca {
            Some(file) => tls.ca_certificate(Certificate::from_pem(&*authorities(file)?)),
            None => tls.with_native_roots(),
        };
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let key_text = pem(key)?;
                PrivateKeyDer::from_pem_slice(key_text.as_bytes())
                    .map_err(|_| no_pem(key, "private key"))?;
                let (cert_text, _) = certificates(cert)?;
                Ok(tls.identity(Identity::from_pem(&*cert_text, &*key_text)))
            }
            (None, None) => Ok(tls),
            _ => Err(Failure::Arguments(
                "--cert and --key need each other".into(),
            )),
        }
    }
}

/// The text of a file of certificates or of a key.
fn pem(file: &Path) -> Result<Zeroizing<String>, ClientError> {
    let failure = |reason: String| ClientError::File {
        file: file.into(),
        reason,
    };
    let length = fs::metadata(file)
        .map_err(|error| failure(error.to_string()))?
        .len();
    if length > MOST_PEM_BYTES {
        return Err(failure("is too long for certificates".into()));
    }
    let text = fs::read_to_string(file).map_err(|error| failure(error.to_string()))?;
    Ok(Zeroizing::new(text))
}

fn no_pem(file: &Path, wanted: &str) -> ClientError {
    ClientError::File {
        file: file.into(),
        reason: format!("holds no {wanted} in PEM"),
    }
}

/// The text of a file of certificates, and these, at least one.
fn certificates(
    file: &Path,
) -> Result<(Zeroizing<String>, Vec<CertificateDer<'static>>), ClientError> {
    let text = pem(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok((text, found)),
        _ => Err(no_pem(file, "certificate")),
    }
}

/// The text of a file of authorities. Nothing else would tell that one is not trusted.
fn authorities(file: &Path) -> Result<Zeroizing<String>, ClientError> {
    let (text, certificates) = certificates(file)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| ClientError::File {
            file: file.into(),
            reason: error.to_string(),
        })?;
    }
    Ok(text)
}

/// Whether a connection failed since the other side does not speak TLS, or hung up.
fn is_no_tls(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let within = error.get_ref().and_then(|it| it.downcast_ref());
            return match within {
                Some(rustls::Error::InvalidMessage(_)) => true,
                Some(_) => false,
                None => matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ),
            };
        }
        next = error.source();
    }
    false
}

fn connect_error(address: &Address, error: &tonic::transport::Error) -> ClientError {
    ClientError::Connect {
        server: address.to_string(),
        reason: chain(error),
    }
}

/// A token as it is sent.
fn bearer(token: &str, file: Option<&Path>) -> Result<MetadataValue<Ascii>, Failure> {
    let text = Zeroizing::new(format!("Bearer {token}"));
    let value = MetadataValue::try_from(text.as_str());
    let mut value = value.map_err(|_| Failure::Secret {
        what: "token",
        origin: file.map_or_else(|| TOKEN_VARIABLE.into(), |file| file.display().to_string()),
        reason: "has characters that cannot be sent".into(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A password as it is sent: bytes, since it may have any characters.
fn hidden(password: Zeroizing<String>) -> MetadataValue<Binary> {
    let mut value = MetadataValue::from_bytes(password.as_bytes());
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_name_the_recording_where_metadata_can() {
        let arguments = ConnectionArguments {
            ca: None,
            cert: None,
            key: None,
            token_file: None,
            timeout: 1,
        };
        let address: Address = "127.0.0.1:1".parse().unwrap();
        for (recording, expected) in [
            ("lab:night.mefd", Some("lab:night.mefd")),
            ("/data/5 \u{b5}V.mefd ", Some("/data/5 \u{b5}V.mefd")),
            ("a\nb.mefd", None),
            (&"a".repeat(MOST_RECORDING_BYTES + 1), None),
        ] {
            let server = Server::new(&address, &arguments, None).unwrap();
            let request = server.with_recording(recording).request(());
            let sent = request.metadata().get("x-mef3-recording");
            let sent = sent.map(|value| value.as_encoded_bytes());
            assert_eq!(sent, expected.map(str::as_bytes), "{recording}");
        }
    }
}

//! Encryption: certificates and keys from files, which may be replaced while the server
//! runs.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use crate::config;

/// Most bytes of a file of certificates or keys.
const MOST_BYTES: u64 = 1 << 20;
/// What is spoken over the connections, and what else where browsers may call.
const HTTP_2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// Why connections cannot be encrypted by the files that are named. No text has
/// anything of a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// A file is longer than any of its kind.
    #[error("{}: longer than {MOST_BYTES} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A file has nothing in PEM of what is looked for, or something broken.
    #[error("{}: no {wanted} in PEM: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is looked for.
        wanted: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Certificate and key are unusable, or not each other's.
    #[error("{} and {}: {error}", certificate.display(), key.display())]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong.
        error: rustls::Error,
    },
    /// A certificate of an authority of clients is unusable.
    #[error("{}: {reason}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// What encrypts connections. Clones share it, and what [`reload`](Self::reload) does.
#[derive(Clone)]
pub struct Tls {
    files: Arc<config::Tls>,
    current: Arc<ArcSwap<Current>>,
}

/// What the files held when they were read last.
struct Current {
    /// For HTTP/2.
    plain: Arc<ServerConfig>,
    /// For HTTP/1.1, too.
    browsers: Arc<ServerConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(formatter)
    }
}

impl Tls {
    /// Reads the files of the settings. `None` where there is to be no encryption.
    ///
    /// # Errors
    /// [`TlsError`] for the first file that does not serve.
    pub fn load(files: &config::Tls) -> Result<Option<Self>, TlsError> {
        if files.certificate().is_none() {
            return Ok(None);
        }
        Ok(Some(Self {
            current: Arc::new(ArcSwap::from_pointee(Current::read(files)?)),
            files: Arc::new(files.clone()),
        }))
    }

    /// Reads the files again. Connections from now on are encrypted by what they hold
    /// now; those that there are go on as they began. It waits for storage.
    ///
    /// # Errors
    /// [`TlsError`]. Then all is as it was before.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(Arc::new(Current::read(&self.files)?));
        Ok(())
    }

    /// What takes a new connection, also of a browser that speaks HTTP/1.1.
    pub(in crate::grpc) fn acceptor(&self, for_browsers: bool) -> TlsAcceptor {
        let current = self.current.load();
        let config = match for_browsers {
            true => &current.browsers,
            false => &current.plain,
        };
        Arc::clone(config).into()
    }
}

impl Current {
    fn read(files: &config::Tls) -> Result<Self, TlsError> {
        let plain = server_config(files)?;
        let mut browsers = plain.clone();
        browsers.alpn_protocols.push(HTTP_1_1.to_vec());
        Ok(Self {
            plain: Arc::new(plain),
            browsers: Arc::new(browsers),
        })
    }
}

fn server_config(files: &config::Tls) -> Result<ServerConfig, TlsError> {
    let certificates = certificates(&files.certificate)?;
    let key = key(&files.key)?;
    let unusable = |error| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        error,
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match files.client_ca() {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let authorities = Arc::new(authorities(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider);
            let verifier = verifier.build().map_err(|error: VerifierBuilderError| {
                let (path, reason) = (path.into(), error.to_string());
                TlsError::Authority { path, reason }
            })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(certificates, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![HTTP_2.to_vec()];
    Ok(config)
}

fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store
            .add(certificate)
            .map_err(|error| TlsError::Authority {
                path: path.into(),
                reason: error.to_string(),
            })?;
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(broken(path, "certificate", &pem::Error::NoItemsFound))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(broken(path, "certificate", &error)),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| broken(path, "private key", &error))
}

fn broken(path: &Path, wanted: &'static str, error: &pem::Error) -> TlsError {
    // Its own texts quote lines of the file, which may be a key.
    let reason = match error {
        pem::Error::NoItemsFound => "there is none",
        pem::Error::MissingSectionEnd { .. } => "its end is missing",
        pem::Error::Base64Decode(_) => "it is not in base 64",
        _ => "it is malformed",
    };
    TlsError::Pem {
        path: path.into(),
        wanted,
        reason: reason.into(),
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let unreadable = |error| TlsError::Unreadable {
        path: path.into(),
        error,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    // All at once, so that no copy of a key stays behind in a buffer that grew.
    let room = length.min(MOST_BYTES) as usize + 1;
    let mut text = Zeroizing::new(Vec::with_capacity(room));
    let mut limited = file.take(MOST_BYTES + 1);
    limited.read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(TlsError::TooLong { path: path.into() });
    }
    Ok(text)
}

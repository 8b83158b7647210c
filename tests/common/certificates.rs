//! Authorities and certificates of a test.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// An authority that nobody else knows.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for this machine, of a server or a client.
    pub fn issue(&self) -> Pair {
        self.sign(&CertificateParams::new(vec!["127.0.0.1".into()]).unwrap())
    }

    /// The same, of a year that is over.
    pub fn issue_expired(&self) -> Pair {
        let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A client that trusts the authority alone, and shows a certificate if it has one.
    pub fn client(&self, own: Option<&Pair>) -> ClientTlsConfig {
        let trusting = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.pem()));
        match own {
            Some(own) => trusting.identity(Identity::from_pem(&own.certificate, &own.key)),
            None => trusting,
        }
    }
}

/// The files that a server has its certificate and key in.
pub struct Files {
    folder: PathBuf,
}

impl Files {
    pub fn write(folder: &Path, pair: &Pair) -> Self {
        let files = Self {
            folder: folder.into(),
        };
        files.replace(pair);
        files
    }

    pub fn replace(&self, pair: &Pair) {
        std::fs::write(self.certificate(), &pair.certificate).unwrap();
        std::fs::write(self.key(), &pair.key).unwrap();
    }

    pub fn certificate(&self) -> PathBuf {
        self.folder.join("certificate.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.folder.join("key.pem")
    }
}

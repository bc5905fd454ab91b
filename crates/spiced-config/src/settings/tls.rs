//! Resolved `runtime.tls`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use spiced_secrets::SecretValue;
use tls_core::{Origin, Sourced};

/// TLS, switched on.
#[derive(Debug)]
pub struct Tls {
    /// What the server proves itself with.
    pub material: Material,
    /// More pairs, chosen by SNI.
    pub more: Vec<Pair>,
    /// Whether a client is refused that asks for no name of a certificate. Default false.
    pub strict_sni: bool,
    /// The lowest version. Default 1.2.
    pub min_version: TlsVersion,
    /// Whose client certificates are taken; `None` where clients are not asked.
    pub clients: Option<Clients>,
    /// From the accept to the end of the handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// Codes of findings that keep no reload from taking effect.
    pub accept_findings: Vec<String>,
}

/// Whose client certificates are taken.
#[derive(Debug)]
pub struct Clients {
    /// Whether there is no handshake without one.
    pub required: bool,
    /// The CA certificates.
    pub authority: Sourced<MaterialInput>,
    /// Revocation lists.
    pub lists: Vec<Sourced<PathBuf>>,
}

/// A TLS version that may be the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum TlsVersion {
    /// 1.2.
    #[serde(rename = "1.2")]
    Tls12,
    /// 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}

/// What the server proves itself with.
#[derive(Debug)]
pub enum Material {
    /// A certificate and its key, each from where it was chosen.
    Pair(Box<Pair>),
    /// A development CA and leaf, made on first use in this directory.
    SelfSigned {
        /// `.spice/tls` in the pod's directory.
        folder: PathBuf,
        /// Who asked for it.
        origin: Origin,
    },
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: Sourced<MaterialInput>,
    /// The key.
    pub key: Sourced<MaterialInput>,
    /// What opens an encrypted key.
    pub passphrase: Option<Sourced<MaterialInput>>,
}

impl Pair {
    /// All that it is made of, in the order of the fields.
    pub fn inputs(&self) -> impl Iterator<Item = &Sourced<MaterialInput>> {
        [&self.certificate, &self.key].into_iter().chain(&self.passphrase)
    }
}

/// Where PEM, or what opens it, is.
#[derive(Debug)]
pub enum MaterialInput {
    /// In a file.
    File(PathBuf),
    /// In the setting itself, or in the secrets that it refers to.
    Text(SecretValue),
}

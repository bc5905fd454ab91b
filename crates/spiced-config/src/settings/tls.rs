//! Resolved `runtime.tls`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use spiced_secrets::SecretValue;
use tls_core::{Origin, Sourced};

/// The settings of TLS, if it is on.
#[derive(Debug)]
pub struct Tls {
    /// The server's certificate and key.
    pub material: Material,
    /// Additional pairs, selected by SNI.
    pub more: Vec<Pair>,
    /// Whether a client that requests no name of a certificate is refused. Default false.
    pub strict_sni: bool,
    /// The lowest version. Default 1.2.
    pub min_version: TlsVersion,
    /// The accepted client certificates; `None` if none are requested.
    pub clients: Option<Clients>,
    /// From the accept to the end of the handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// Codes of findings that do not prevent a reload.
    pub accept_findings: Vec<String>,
}

/// The accepted client certificates.
#[derive(Debug)]
pub struct Clients {
    /// Whether the handshake fails without a certificate.
    pub required: bool,
    /// The CA certificates.
    pub authority: Sourced<MaterialInput>,
    /// Revocation lists.
    pub lists: Vec<Sourced<PathBuf>>,
}

/// A TLS version that can be the minimum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum TlsVersion {
    /// 1.2.
    #[serde(rename = "1.2")]
    Tls12,
    /// 1.3.
    #[serde(rename = "1.3")]
    Tls13,
}

/// The server's certificate and key.
#[derive(Debug)]
pub enum Material {
    /// A certificate and its key, each from its chosen source.
    Pair(Box<Pair>),
    /// A development CA and leaf, created in this directory on first use.
    SelfSigned {
        /// `.spice/tls` in the pod's directory.
        folder: PathBuf,
        /// The setting that requests it.
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
    /// The passphrase of an encrypted key.
    pub passphrase: Option<Sourced<MaterialInput>>,
}

impl Pair {
    /// Returns all inputs, in the order of the fields.
    pub fn inputs(&self) -> impl Iterator<Item = &Sourced<MaterialInput>> {
        [&self.certificate, &self.key].into_iter().chain(&self.passphrase)
    }
}

/// The location of PEM, or of its passphrase.
#[derive(Debug)]
pub enum MaterialInput {
    /// In a file.
    File(PathBuf),
    /// In the setting itself, or in the secrets that it refers to.
    Text(SecretValue),
}

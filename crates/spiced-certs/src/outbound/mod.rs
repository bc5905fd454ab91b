//! TLS for outgoing connections: which servers to trust, and which client certificate to present on request.
//!
//! Every component that connects to a server uses this module: the SQL prompt, and every data source that speaks TLS.
//! [`ClientTls`] describes the settings. [`ClientTls::config`] reads the material and returns a rustls configuration
//! with the shared provider: TLS 1.3 and 1.2, with the server's chain and name verified. [`Verify`] relaxes this for
//! servers that cannot be verified.
//!
//! [`Refusal`] explains why a handshake failed, and names the certificate that the server presented.

mod handshake_error;
mod observer;

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use tls_core::{Origin, Sourced, provider};

pub use handshake_error::Refusal;
pub use observer::HandshakeObserver;

use crate::handshake::AnyChain;
use crate::load::{LoadError, load};
use crate::pem;
use crate::source::{Input, Pair, read};

/// The TLS settings of an outgoing connection.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// The certificates to trust.
    pub trust: Trust,
    /// The client certificate for servers that request one.
    pub identity: Option<Pair>,
    /// How much of the server's certificate is verified.
    pub verify: Verify,
}

/// How much of a server's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// The chain, and that the certificate is valid for the name that was connected to (RFC 9525).
    #[default]
    Name,
    /// The chain only: anyone with a certificate of a trusted CA can impersonate the server.
    Chain,
    /// Nothing: an attacker on the network path can read and change all data. PostgreSQL's `require` means this, for
    /// example.
    Nothing,
}

impl ClientTls {
    /// Reads the material. `alpn` lists the protocols to offer, in order of preference (RFC 7301).
    ///
    /// # Errors
    /// Fails if a file cannot be read or used, if the key belongs to another certificate, or if there is nothing to
    /// trust.
    pub fn config(self, alpn: &[&str]) -> Result<Arc<ClientConfig>, ClientTlsError> {
        self.observed(alpn).map(|(config, _)| config)
    }

    /// As [`ClientTls::config`], with a [`HandshakeObserver`] from which [`Refusal`] learns why a handshake failed.
    ///
    /// # Errors
    /// Fails like [`ClientTls::config`].
    pub fn observed(self, alpn: &[&str]) -> Result<(Arc<ClientConfig>, HandshakeObserver), ClientTlsError> {
        let verifier: Arc<dyn ServerCertVerifier> = match self.verify {
            Verify::Nothing => Arc::new(AnyChain::new()),
            Verify::Name | Verify::Chain => {
                WebPkiServerVerifier::builder_with_provider(Arc::new(self.trust.roots()?), provider())
                    .build()
                    .map_err(|e| ClientTlsError::Unusable(e.to_string()))?
            }
        };
        let ours = match self.identity {
            None => None,
            Some(mut pair) => Some(Arc::clone(load(&mut pair)?.identity.certified_key())),
        };
        let observer = HandshakeObserver::new(ours);
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|e| ClientTlsError::Unusable(e.to_string()))?
            // This verifier calls rustls' own and records its result.
            .dangerous()
            .with_custom_certificate_verifier(observer.verifier(verifier, self.verify))
            .with_client_cert_resolver(observer.resolver());
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok((Arc::new(config), observer))
    }
}

/// The certificates to trust: CAs, or single self-signed certificates.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Whether to trust the system's store: the files that `SSL_CERT_FILE` and `SSL_CERT_DIR` name if set, or the
    /// operating system's own.
    pub system: bool,
    /// PEM with one or more certificates each.
    pub authorities: Vec<Sourced<Input>>,
}

impl Trust {
    /// Trusts the system's store only.
    pub fn system() -> Self {
        Self { system: true, authorities: Vec::new() }
    }

    /// Trusts these certificates only: a private CA replaces the system's store.
    pub fn only(authority: Sourced<Input>) -> Self {
        Self { system: false, authorities: vec![authority] }
    }

    /// Trusts these certificates as well.
    #[must_use]
    pub fn and(mut self, authority: Sourced<Input>) -> Self {
        self.authorities.push(authority);
        self
    }

    fn roots(self) -> Result<RootCertStore, ClientTlsError> {
        let mut roots = RootCertStore::empty();
        for mut authority in self.authorities {
            let refused = |authority: &Sourced<Input>, reason: String| ClientTlsError::Authority {
                place: crate::load::error::place(authority),
                origin: authority.origin.clone(),
                reason,
            };
            let certificates = pem::certificates(&read::read(&mut authority)?)
                .map_err(|reason| refused(&authority, reason.to_string()))?;
            for certificate in certificates {
                roots.add(certificate).map_err(|reason| refused(&authority, reason.to_string()))?;
            }
        }
        if self.system {
            let found = rustls_native_certs::load_native_certs();
            // One certificate among hundreds may be unreadable to rustls; the others are still used.
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let reason = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
                return Err(ClientTlsError::NoAuthority { reason });
            }
        }
        if roots.is_empty() {
            return Err(ClientTlsError::NoAuthority { reason: String::new() });
        }
        Ok(roots)
    }
}

/// Why there is no configuration. No variant contains any key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientTlsError {
    /// A file cannot be read, or the client certificate and its key do not match.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The CA certificate is invalid.
    #[error("{origin}: the CA certificate{place}: {reason}")]
    Authority {
        /// Where it was read from, for a message: ` in /etc/ca.pem`, or empty.
        place: String,
        /// The setting that provides it.
        origin: Origin,
        /// The reason.
        reason: String,
    },
    /// The system's store is empty, and nothing else is trusted.
    #[error("this system's trust store holds no certificate{reason}")]
    NoAuthority {
        /// The error of the store, for a message: `: …`, or empty.
        reason: String,
    },
    /// rustls rejects the settings.
    #[error("TLS cannot be set up: {0}")]
    Unusable(String),
}

impl ClientTlsError {
    /// Returns the fix, in one sentence.
    pub fn hint(&self) -> &str {
        match self {
            Self::Load(error) => error.hint(),
            Self::Authority { .. } => "it expects a PEM file with the certificate of the CA that issued the server's",
            Self::NoAuthority { .. } => {
                "install the system's CA certificates (Debian: ca-certificates), point SSL_CERT_FILE at a PEM file of them, or \
                 name a CA to trust"
            }
            Self::Unusable(_) => "this is a fault of spiced",
        }
    }
}

#[cfg(test)]
mod tests;

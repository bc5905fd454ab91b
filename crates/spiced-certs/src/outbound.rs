//! TLS for connections that go out: whom to trust, and who we are where the server asks.
//!
//! Everything of this product that connects to a server does it with this kit: the SQL prompt, and
//! every data source that speaks TLS. [`ClientTls`] says what is wanted, [`ClientTls::config`] reads
//! it and gives rustls' configuration on the one provider: TLS 1.3 and 1.2, the server's chain and
//! name verified. Who has to speak to a server that cannot be verified says so by [`Verify`].
//!
//! [`Refusal`] tells why a handshake failed, in words that name the certificate that was presented.

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

/// What a connection that goes out is to be secured with.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// Whose certificates are trusted.
    pub trust: Trust,
    /// What is shown to a server that asks for a certificate.
    pub identity: Option<Pair>,
    /// How much of the server's certificate is verified.
    pub verify: Verify,
}

/// How much of a server's certificate is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Its chain, and that it is for the name that was connected to (RFC 9525).
    #[default]
    Name,
    /// Its chain alone: whoever has a certificate of a trusted CA may pose as the server.
    Chain,
    /// Nothing: whoever is on the way may read and change all of it. PostgreSQL's `require`, for one, means this.
    Nothing,
}

impl ClientTls {
    /// Reads the material. `alpn` lists the protocols that are offered, the preferred first (RFC 7301).
    ///
    /// # Errors
    /// A file cannot be read or is not what it should be, the key is not the certificate's, or there
    /// is nobody to trust.
    pub fn config(self, alpn: &[&str]) -> Result<Arc<ClientConfig>, ClientTlsError> {
        self.witnessed(alpn).map(|(config, _)| config)
    }

    /// The same, with a [`HandshakeObserver`], which [`Refusal`] asks why a handshake failed.
    ///
    /// # Errors
    /// As [`ClientTls::config`].
    pub fn witnessed(self, alpn: &[&str]) -> Result<(Arc<ClientConfig>, HandshakeObserver), ClientTlsError> {
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
        let witness = HandshakeObserver::new(ours);
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|e| ClientTlsError::Unusable(e.to_string()))?
            // It asks rustls' own verifier and remembers the answer.
            .dangerous()
            .with_custom_certificate_verifier(witness.verifier(verifier, self.verify))
            .with_client_cert_resolver(witness.resolver());
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok((Arc::new(config), witness))
    }
}

/// Whose certificates are trusted: CAs, or single certificates that vouch for themselves.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// Whether the system's store is: what `SSL_CERT_FILE` and `SSL_CERT_DIR` name, where they are
    /// set, else the operating system's own.
    pub system: bool,
    /// PEM with one or more certificates each.
    pub authorities: Vec<Sourced<Input>>,
}

impl Trust {
    /// The system's store alone.
    pub fn system() -> Self {
        Self { system: true, authorities: Vec::new() }
    }

    /// These certificates and nothing else: who gives a CA of their own means no other.
    pub fn only(authority: Sourced<Input>) -> Self {
        Self { system: false, authorities: vec![authority] }
    }

    /// These certificates too.
    #[must_use]
    pub fn and(mut self, authority: Sourced<Input>) -> Self {
        self.authorities.push(authority);
        self
    }

    fn roots(self) -> Result<RootCertStore, ClientTlsError> {
        let mut roots = RootCertStore::empty();
        for mut authority in self.authorities {
            let refused = |authority: &Sourced<Input>, reason: String| ClientTlsError::Authority {
                place: crate::load::place(authority),
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
            // A store of hundreds may hold one that rustls cannot read; the others are good.
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

/// Why there is no configuration. Nothing of a key is in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientTlsError {
    /// A file cannot be read, or certificate and key of our own are no pair.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// What is to be trusted is no certificate.
    #[error("{origin}: the CA certificate{place}: {reason}")]
    Authority {
        /// Where it was read, for a message: ` in /etc/ca.pem`, or empty.
        place: String,
        /// The setting that gives it.
        origin: Origin,
        /// Why.
        reason: String,
    },
    /// The system's store is empty, and nothing else is trusted.
    #[error("this system's trust store holds no certificate{reason}")]
    NoAuthority {
        /// What the store said, for a message: `: …`, or empty.
        reason: String,
    },
    /// rustls refuses what it was given.
    #[error("TLS cannot be set up: {0}")]
    Unusable(String),
}

impl ClientTlsError {
    /// What to change, in one sentence.
    pub fn hint(&self) -> &str {
        match self {
            Self::Load(error) => error.hint(),
            Self::Authority { .. } => "it takes a PEM file with the certificate of the CA that issued the server's",
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

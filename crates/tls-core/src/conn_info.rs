//! Facts about a connection; an endpoint's handlers find them in the request's extensions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use x509_parser::prelude::GeneralName;

use crate::identity::parse;
use crate::{CertificateSummary, IdentityError};

/// A connection, as the accept loop saw it.
#[derive(Debug, Clone)]
pub struct ConnInfo {
    /// The endpoint: `http`, `flight`, `grpc`, `metrics` or `probe`.
    pub endpoint: &'static str,
    /// The remote address: of the client, or of a proxy that did not name the client.
    pub remote: SocketAddr,
    /// The local address.
    pub local: SocketAddr,
    /// The result of the TLS handshake; `None` on an endpoint without TLS.
    pub tls: Option<Arc<TlsInfo>>,
    /// Whether requests were admitted; set by the layer that decides it.
    pub standing: Standing,
}

/// Whether requests of a connection were admitted. Clones share the state.
///
/// When an endpoint has no capacity left, connections without any admitted request are closed first.
#[derive(Debug, Clone, Default)]
pub struct Standing(Arc<AtomicU8>);

impl Standing {
    const REFUSED: u8 = 1;
    const ADMITTED: u8 = 2;

    /// Records that a request was admitted.
    pub fn admit(&self) {
        if !self.is_admitted() {
            self.0.store(Self::ADMITTED, Ordering::Relaxed);
        }
    }

    /// Records that a request was refused, or that it needed no permission.
    pub fn refuse(&self) {
        self.0.fetch_max(Self::REFUSED, Ordering::Relaxed);
    }

    /// Returns true once a request has been admitted.
    pub fn is_admitted(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::ADMITTED
    }

    /// Returns true if requests were decided on and none was admitted.
    pub fn is_refused(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::REFUSED
    }
}

/// The result of a TLS handshake.
#[derive(Debug, Clone)]
pub struct TlsInfo {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The cipher suite: its IANA name, as rustls spells it.
    pub cipher: Option<String>,
    /// The key exchange group.
    pub group: Option<String>,
    /// The name that the client requested (RFC 6066 §3).
    pub server_name: Option<String>,
    /// The application protocol (RFC 7301): `h2`, `http/1.1`, or none.
    pub alpn: Option<Vec<u8>>,
    /// True if the session was resumed from a ticket.
    pub resumed: bool,
    /// The client's certificate, verified; `None` if the client presented none.
    pub client: Option<ClientCertificate>,
}

/// A client certificate, verified when the session began.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    summary: CertificateSummary,
    names: ClientNames,
    distrusted: Arc<watch::Sender<bool>>,
}

/// The names in a client certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientNames {
    /// Subject alternative names that are URIs (RFC 5280 §4.2.1.6), such as SPIFFE ids.
    pub uris: Vec<String>,
    /// Subject alternative names that are DNS names.
    pub dns: Vec<String>,
    /// The subject's common names; empty text for a name in an unsupported encoding.
    pub common: Vec<String>,
}

impl ClientCertificate {
    /// Reads the names in a chain, leaf first, without verifying it.
    ///
    /// # Errors
    /// Fails if the chain is empty or the leaf is not X.509.
    pub fn read(chain: Vec<CertificateDer<'static>>) -> Result<Self, IdentityError> {
        let leaf = chain.first().ok_or(IdentityError::Empty)?;
        let parsed = parse(leaf)?;
        let summary = CertificateSummary::of(&parsed, leaf);
        let mut names = ClientNames::default();
        for common in parsed.subject().iter_common_name() {
            // A name in an unsupported encoding stays in the list, so that the number of names is correct.
            names.common.push(common.as_str().unwrap_or_default().to_owned());
        }
        let alternative = parsed.subject_alternative_name().ok().flatten();
        for name in alternative.iter().flat_map(|san| &san.value.general_names) {
            match name {
                GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
                GeneralName::DNSName(dns) => names.dns.push((*dns).to_owned()),
                _ => {}
            }
        }
        Ok(Self { chain, summary, names, distrusted: Arc::default() })
    }

    /// Returns the subject, issuer, fingerprint and validity.
    pub fn summary(&self) -> &CertificateSummary {
        &self.summary
    }

    /// Returns the names in the certificate.
    pub fn names(&self) -> &ClientNames {
        &self.names
    }

    /// Returns true if `at` is within the validity period. A connection may outlive its certificate.
    pub fn is_in_date(&self, at: SystemTime) -> bool {
        self.summary.validity(at).is_in_date()
    }

    /// Returns true once a change of the client authentication policy has excluded the certificate.
    pub fn is_distrusted(&self) -> bool {
        *self.distrusted.borrow()
    }

    /// Waits until a change of the client authentication policy excludes the certificate.
    pub async fn distrusted(&self) {
        let mut distrusted = self.distrusted.subscribe();
        // The sender belongs to this certificate, so it is not dropped first.
        let _ = distrusted.wait_for(|distrusted| *distrusted).await;
    }

    #[cfg(feature = "serve")]
    pub(crate) fn mark_untrusted(&self) {
        self.distrusted.send_replace(true);
    }

    /// Returns the leaf, and the other certificates that the client sent.
    pub fn chain(&self) -> (&CertificateDer<'static>, &[CertificateDer<'static>]) {
        self.chain.split_first().expect("made with a leaf")
    }
}

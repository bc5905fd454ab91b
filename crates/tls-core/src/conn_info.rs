//! What is known of a connection; an endpoint's handlers find it in the request's extensions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use x509_parser::prelude::GeneralName;

use crate::identity::parse;
use crate::{CertificateSummary, IdentityError};

/// One connection, as the accept loop saw it.
#[derive(Debug, Clone)]
pub struct ConnInfo {
    /// The endpoint: `http`, `flight`, `grpc`, `metrics` or `probe`.
    pub endpoint: &'static str,
    /// The other end: the client, or a proxy that did not say for whom it speaks.
    pub remote: SocketAddr,
    /// This end.
    pub local: SocketAddr,
    /// What the handshake agreed on; `None` on an endpoint without TLS.
    pub tls: Option<Arc<TlsInfo>>,
    /// Whether its requests were admitted; whoever decides that says so here.
    pub standing: Standing,
}

/// Whether requests of a connection were admitted. Clones are of the same connection.
///
/// Where an endpoint has no place left, a connection none of whose requests was ever admitted is the first to go.
#[derive(Debug, Clone, Default)]
pub struct Standing(Arc<AtomicU8>);

impl Standing {
    const REFUSED: u8 = 1;
    const ADMITTED: u8 = 2;

    /// A request was admitted.
    pub fn admit(&self) {
        if !self.is_admitted() {
            self.0.store(Self::ADMITTED, Ordering::Relaxed);
        }
    }

    /// A request was refused, or asked for what is open to everyone.
    pub fn refuse(&self) {
        self.0.fetch_max(Self::REFUSED, Ordering::Relaxed);
    }

    /// True from the first request that was admitted.
    pub fn is_admitted(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::ADMITTED
    }

    /// True where there were requests to decide on, and none was admitted.
    pub fn is_refused(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::REFUSED
    }
}

/// What a handshake agreed on.
#[derive(Debug, Clone)]
pub struct TlsInfo {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The cipher suite, by its IANA name as rustls writes it.
    pub cipher: Option<String>,
    /// The key exchange group.
    pub group: Option<String>,
    /// The name the client asked for (RFC 6066 §3).
    pub server_name: Option<String>,
    /// The application protocol (RFC 7301): `h2`, `http/1.1`, or none.
    pub alpn: Option<Vec<u8>>,
    /// True where the session was resumed from a ticket.
    pub resumed: bool,
    /// The client's certificate, verified; `None` where it showed none.
    pub client: Option<ClientCertificate>,
}

/// A client's certificate that was verified when the session began.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    summary: CertificateSummary,
    names: ClientNames,
    distrusted: Arc<watch::Sender<bool>>,
}

/// What a client's certificate calls its holder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientNames {
    /// Subject alternative names that are URIs (RFC 5280 §4.2.1.6), such as SPIFFE ids.
    pub uris: Vec<String>,
    /// Subject alternative names that are DNS names.
    pub dns: Vec<String>,
    /// The subject's common names.
    pub common: Vec<String>,
}

impl ClientCertificate {
    /// Reads what a chain, leaf first, says of its holder. It verifies nothing.
    ///
    /// # Errors
    /// There is no leaf, or it is not X.509.
    pub fn read(chain: Vec<CertificateDer<'static>>) -> Result<Self, IdentityError> {
        let leaf = chain.first().ok_or(IdentityError::Empty)?;
        let parsed = parse(leaf)?;
        let summary = CertificateSummary::of(&parsed, leaf);
        let mut names = ClientNames::default();
        for common in parsed.subject().iter_common_name() {
            names.common.extend(common.as_str().ok().map(str::to_owned));
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

    /// Subject, issuer, fingerprint and validity.
    pub fn summary(&self) -> &CertificateSummary {
        &self.summary
    }

    /// What it calls its holder.
    pub fn names(&self) -> &ClientNames {
        &self.names
    }

    /// True from the start to the end of its validity. A connection may outlive its certificate.
    pub fn is_in_date(&self, at: SystemTime) -> bool {
        self.summary.validity(at).is_in_date()
    }

    /// True from when a change of whom the server trusts has left its holder out.
    pub fn is_distrusted(&self) -> bool {
        *self.distrusted.borrow()
    }

    /// Waits until that is so.
    pub async fn distrusted(&self) {
        let mut distrusted = self.distrusted.subscribe();
        // Its sender is this certificate's own, and stays as long.
        let _ = distrusted.wait_for(|distrusted| *distrusted).await;
    }

    #[cfg(feature = "serve")]
    pub(crate) fn mark_untrusted(&self) {
        self.distrusted.send_replace(true);
    }

    /// The leaf, and what the client sent with it.
    pub fn chain(&self) -> (&CertificateDer<'static>, &[CertificateDer<'static>]) {
        self.chain.split_first().expect("made with a leaf")
    }
}

//! Client authentication: whether an endpoint requests client certificates, and which it accepts (RFC 8446 §4.3.2,
//! §4.4.2).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use aws_lc_rs::digest;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ProducesTickets, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::identity::unix;
use crate::{CertificateSummary, ClientCertificate, Origin, provider};

/// Whether client certificates are requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// No certificate is requested.
    #[default]
    None,
    /// A certificate is requested but not required; if a client presents one, it must be valid.
    Request,
    /// The handshake fails without a valid certificate.
    Required,
}

/// Which client certificates a server trusts. A change invalidates all older session tickets.
#[derive(Debug)]
pub struct ClientAuthPolicy {
    mode: ClientAuth,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    authorities: Vec<CertificateSummary>,
    lists_until: Option<i64>,
    digest: Vec<u8>,
    origin: Origin,
}

impl ClientAuthPolicy {
    /// Creates a policy that requests no client certificates.
    pub fn nobody() -> Self {
        Self {
            mode: ClientAuth::None,
            verifier: None,
            authorities: Vec::new(),
            lists_until: None,
            digest: Vec::new(),
            origin: Origin::Program,
        }
    }

    /// Creates a policy that trusts clients with a certificate from `authorities`. If there are `crls`, every CA in a
    /// client's chain needs one that has not expired (RFC 5280 §6.3).
    ///
    /// # Errors
    /// Fails if there is no authority, if one cannot be a trust anchor, or if a revocation list cannot be read.
    pub fn new(
        mode: ClientAuth,
        authorities: &[CertificateDer<'static>],
        crls: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Self, ClientAuthError> {
        if mode == ClientAuth::None {
            return Ok(Self::nobody());
        }
        let mut roots = RootCertStore::empty();
        let mut summaries = Vec::new();
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&[u8::from(mode == ClientAuth::Required)]);
        for authority in authorities {
            let summary = CertificateSummary::read(authority).map_err(|e| ClientAuthError::Authority(e.to_string()))?;
            roots.add(authority.clone()).map_err(|e| ClientAuthError::Authority(e.to_string()))?;
            summaries.push(summary);
            context.update(digest::digest(&digest::SHA256, authority).as_ref());
        }
        let mut lists_until: Option<i64> = None;
        for crl in &crls {
            let parsed = CertificateRevocationList::from_der(crl).map(|(_, list)| list);
            let until = parsed.ok().and_then(|list| list.next_update()).map(|next| next.timestamp());
            lists_until = lists_until.into_iter().chain(until).min();
            context.update(digest::digest(&digest::SHA256, crl).as_ref());
        }
        let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .with_crls(crls)
            .enforce_revocation_expiration();
        if mode == ClientAuth::Request {
            verifier = verifier.allow_unauthenticated();
        }
        let verifier = verifier.build().map_err(|e| ClientAuthError::Unusable(e.to_string()))?;
        Ok(Self {
            mode,
            verifier: Some(verifier),
            authorities: summaries,
            lists_until,
            digest: context.finish().as_ref().to_vec(),
            origin: Origin::Program,
        })
    }

    /// Sets the origin of the authorities.
    #[must_use]
    pub fn sourced(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }

    /// Returns the origin of the authorities.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns whether client certificates are requested.
    pub fn mode(&self) -> ClientAuth {
        self.mode
    }

    /// Returns the certificate authorities, for status and metrics.
    pub fn authorities(&self) -> &[CertificateSummary] {
        &self.authorities
    }

    /// Returns when the first of the revocation lists expires, in Unix seconds: from then on, clients of its CA are
    /// refused.
    pub fn crl_next_update(&self) -> Option<i64> {
        self.lists_until
    }

    /// Returns true if `other` trusts the same clients.
    pub fn same(&self, other: &Self) -> bool {
        (self.mode, &self.digest) == (other.mode, &other.digest)
    }

    /// Returns the digest that session tickets are bound to.
    pub(crate) fn digest(&self) -> &[u8] {
        &self.digest
    }

    /// Returns whether the client of an open connection would still be accepted.
    pub fn still_trusted(&self, client: Option<&ClientCertificate>) -> bool {
        match (&self.verifier, client) {
            (None, _) => true,
            (Some(_), None) => self.mode != ClientAuth::Required,
            (Some(verifier), Some(client)) => {
                let (leaf, intermediates) = client.chain();
                verifier.verify_client_cert(leaf, intermediates, UnixTime::now()).is_ok()
            }
        }
    }

    pub(crate) fn verifier(&self) -> Option<&Arc<dyn ClientCertVerifier>> {
        self.verifier.as_ref()
    }
}

/// Why a [`ClientAuthPolicy`] cannot be created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientAuthError {
    /// A certificate cannot be a trust anchor.
    #[error("a certificate of the client CA cannot be used: {0}")]
    Authority(String),
    /// There is no authority, or a revocation list cannot be read.
    #[error("{0}")]
    Unusable(String),
}

/// The verifier of one connection: records when the client's certificate expires, so that its tickets expire as well.
#[derive(Debug)]
pub(crate) struct ExpiryTrackingVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
    end: Arc<AtomicI64>,
}

/// Wraps the verifier and the ticket producer of one connection. A ticket begins with the expiry of the client's
/// certificate, in Unix seconds, because a resumed session is not verified again.
pub(crate) fn tracking_expiry(
    verifier: Arc<dyn ClientCertVerifier>,
    tickets: Arc<dyn ProducesTickets>,
) -> (Arc<ExpiryTrackingVerifier>, Arc<CertBoundTickets>) {
    let end = Arc::new(AtomicI64::new(i64::MAX));
    (Arc::new(ExpiryTrackingVerifier { verifier, end: end.clone() }), Arc::new(CertBoundTickets { tickets, end }))
}

impl ClientCertVerifier for ExpiryTrackingVerifier {
    fn offer_client_auth(&self) -> bool {
        self.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verifier.verify_client_cert(leaf, intermediates, now)?;
        let summary = CertificateSummary::read(leaf).map_err(|e| Error::General(e.to_string()))?;
        self.end.store(summary.not_after, Ordering::Relaxed);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Tickets that expire with the client's certificate.
#[derive(Debug)]
pub(crate) struct CertBoundTickets {
    tickets: Arc<dyn ProducesTickets>,
    end: Arc<AtomicI64>,
}

impl ProducesTickets for CertBoundTickets {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut ending = self.end.load(Ordering::Relaxed).to_be_bytes().to_vec();
        ending.extend_from_slice(plain);
        self.tickets.encrypt(&ending)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let opened = self.tickets.decrypt(cipher)?;
        let (end, plain) = opened.split_first_chunk()?;
        let end = i64::from_be_bytes(*end);
        if end < unix(SystemTime::now()) {
            return None;
        }
        self.end.store(end, Ordering::Relaxed);
        Some(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyDeriver;
    use crate::tickets::{TicketKeys, Ticketer};

    #[test]
    fn a_ticket_ends_with_the_certificate_that_it_stands_for() {
        let tickets: Arc<dyn ProducesTickets> =
            Arc::new(Ticketer::new(TicketKeys::new(KeyDeriver::new(&"s".into())), Vec::new()));
        let ending = |end| CertBoundTickets { tickets: tickets.clone(), end: Arc::new(AtomicI64::new(end)) };
        let now = unix(SystemTime::now());
        let good = ending(now + 60).encrypt(b"state").unwrap();
        let resumed = ending(i64::MAX);
        assert_eq!(resumed.decrypt(&good).unwrap(), b"state");
        assert_eq!(resumed.end.load(Ordering::Relaxed), now + 60, "the next ticket ends then too");
        let over = ending(now - 1).encrypt(b"state").unwrap();
        assert!(resumed.decrypt(&over).is_none());
    }
}

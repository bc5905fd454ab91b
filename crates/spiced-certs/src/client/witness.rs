//! Remembers which certificate was refused: rustls' own errors tell why and not which.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use tls_core::CertificateSummary;

/// What a server presented, when it was last refused.
#[derive(Debug, Clone, Default)]
pub struct Witness(Arc<Mutex<Option<Presented>>>);

/// A chain as it was presented.
#[derive(Debug, Clone)]
pub(crate) struct Presented {
    /// The server's own certificate.
    pub(crate) leaf: CertificateSummary,
    /// Who issued the last certificate of the chain: whom to trust for it to be accepted.
    pub(crate) issuer: String,
    /// How many certificates came with the leaf.
    pub(crate) intermediates: usize,
}

impl Witness {
    /// The chain that was last refused. Each verification replaces or clears it, so where several
    /// connections share a configuration it may be another one's.
    pub(crate) fn refused(&self) -> Option<Presented> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn see(&self, presented: Option<Presented>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = presented;
    }
}

/// Lets `inner` decide, and remembers.
pub(super) fn witnessed(inner: Arc<WebPkiServerVerifier>) -> (Arc<dyn ServerCertVerifier>, Witness) {
    let witness = Witness::default();
    (Arc::new(Verifier { inner, witness: witness.clone() }), witness)
}

#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    witness: Witness,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verdict = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        self.witness.see(verdict.is_err().then(|| presented(end_entity, intermediates)).flatten());
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        self.inner.root_hint_subjects()
    }
}

fn presented(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Option<Presented> {
    let leaf = CertificateSummary::read(leaf).ok()?;
    let last = intermediates.last().and_then(|der| CertificateSummary::read(der).ok());
    let issuer = last.map_or_else(|| leaf.issuer.clone(), |last| last.issuer);
    Some(Presented { leaf, issuer, intermediates: intermediates.len() })
}

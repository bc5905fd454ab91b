//! Records facts about a handshake: which certificate was refused (the errors of rustls contain the reason but not the
//! certificate), and whether a client certificate was requested (a server that misses it may just close the
//! connection).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use tls_core::CertificateSummary;

use crate::outbound::Verify;

/// What was observed in the handshakes of one configuration.
#[derive(Debug, Clone)]
pub struct HandshakeObserver(Arc<Observed>);

#[derive(Debug)]
struct Observed {
    refused: Mutex<Option<Presented>>,
    asked: AtomicBool,
    ours: Option<Arc<CertifiedKey>>,
}

/// A chain as presented.
#[derive(Debug, Clone)]
pub(crate) struct Presented {
    /// The server's certificate.
    pub(crate) leaf: CertificateSummary,
    /// The issuer of the last certificate in the chain, which must be trusted for the chain to be accepted.
    pub(crate) issuer: String,
    /// The number of certificates after the leaf.
    pub(crate) intermediates: usize,
}

impl HandshakeObserver {
    /// Returns true if the server has requested a client certificate (RFC 8446 §4.3.2).
    pub fn certificate_asked(&self) -> bool {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// Returns true if there is a client certificate to present.
    pub(crate) fn has_certificate(&self) -> bool {
        self.0.ours.is_some()
    }

    /// Returns the chain that was last refused. Each verification replaces or clears it, so if several connections
    /// share a configuration, it may belong to another connection.
    pub(crate) fn refused(&self) -> Option<Presented> {
        self.0.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn see(&self, presented: Option<Presented>) {
        *self.0.refused.lock().unwrap_or_else(PoisonError::into_inner) = presented;
    }
}

impl HandshakeObserver {
    /// Creates an observer for handshakes with the client certificate `ours`, if any.
    pub(super) fn new(ours: Option<Arc<CertifiedKey>>) -> Self {
        Self(Arc::new(Observed { refused: Mutex::default(), asked: AtomicBool::new(false), ours }))
    }

    /// Wraps `inner` and records its result.
    pub(super) fn verifier(&self, inner: Arc<dyn ServerCertVerifier>, verify: Verify) -> Arc<dyn ServerCertVerifier> {
        Arc::new(Verifier { inner, verify, observer: self.clone() })
    }

    /// Presents the client certificate, and records that one was requested.
    pub(super) fn resolver(&self) -> Arc<dyn ResolvesClientCert> {
        Arc::new(Resolver(self.clone()))
    }
}

#[derive(Debug)]
struct Resolver(HandshakeObserver);

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let HandshakeObserver(seen) = &self.0;
        seen.asked.store(true, Ordering::Relaxed);
        seen.ours.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.has_certificate()
    }
}

#[derive(Debug)]
struct Verifier {
    inner: Arc<dyn ServerCertVerifier>,
    verify: Verify,
    observer: HandshakeObserver,
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
        let verdict = match verdict {
            // webpki checks the name last, once the chain is verified.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.verify == Verify::Chain => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        };
        self.observer.see(verdict.is_err().then(|| presented(end_entity, intermediates)).flatten());
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

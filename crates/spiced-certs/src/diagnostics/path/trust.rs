//! Finds who issued a certificate, as far as this is known here, and therefore which CA clients must trust.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use tls_core::{CertificateSummary, Identity, provider};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::diagnostics::facts::{Facts, Signed};

/// Who issued a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issued {
    /// A root in this system's trust store, directly or through the presented intermediates.
    BySystemRoot,
    /// A root that is presented too (it may be the certificate itself): a client that has the chain can trust it.
    ByPresentedRoot {
        /// The root's subject.
        root: String,
    },
    /// A CA whose certificate is not available.
    ByUnknown {
        /// The name of the CA.
        issuer: String,
    },
}

impl Issued {
    /// Determines the issuer of `identity` as of `now`. Reads the system's trust store.
    pub fn of(identity: &Identity, now: SystemTime) -> Self {
        let chain = &identity.certified_key().cert;
        if let Some((leaf, intermediates)) = chain.split_first()
            && Roots::default().verify(leaf, intermediates, now).is_ok()
        {
            return Self::BySystemRoot;
        }
        let last = chain.last().and_then(|last| CertificateSummary::read(last).ok());
        match last {
            Some(last) if last.self_signed => Self::ByPresentedRoot { root: last.subject },
            Some(last) => Self::ByUnknown { issuer: last.issuer },
            None => Self::ByUnknown { issuer: identity.leaf().issuer.clone() },
        }
    }
}

/// The number of certificates whose issuer is searched for in neighbouring files. Of thousands, the first are enough.
const MAX_SIBLINGS: usize = 16;

/// The roots that clients trust, as far as known here: the given ones, or this system's, which are read once, on first
/// use.
#[derive(Default)]
pub(crate) struct Roots {
    store: OnceLock<Store>,
    given: bool,
    /// For how many more certificates the neighbouring files may be searched; only a full check takes that time.
    looks_beside: AtomicUsize,
}

struct Store {
    certificates: Vec<CertificateDer<'static>>,
    /// The positions of certificates by subject name, in DER.
    by_subject: HashMap<Vec<u8>, Vec<usize>>,
    organisations: HashSet<String>,
}

impl Store {
    fn new(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut by_subject: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        let mut organisations = HashSet::new();
        for (at, root) in certificates.iter().enumerate() {
            if let Ok((_, parsed)) = X509Certificate::from_der(root) {
                by_subject.entry(parsed.subject().as_raw().to_vec()).or_default().push(at);
                organisations.extend(organisation(parsed.subject()));
            }
        }
        Self { certificates, by_subject, organisations }
    }

    fn called<'s>(&'s self, name: &X509Name<'_>) -> impl Iterator<Item = Facts<'s>> {
        let places = self.by_subject.get(name.as_raw()).map(Vec::as_slice).unwrap_or_default();
        places.iter().filter_map(|at| Facts::of(&self.certificates[*at]))
    }
}

impl Roots {
    /// Uses only the given roots.
    pub(crate) fn given(certificates: Vec<CertificateDer<'static>>) -> Self {
        Self { store: OnceLock::from(Store::new(certificates)), given: true, looks_beside: AtomicUsize::new(0) }
    }

    /// Uses this system's roots, and allows a search of neighbouring files.
    pub(crate) fn thorough() -> Self {
        Self { looks_beside: AtomicUsize::new(MAX_SIBLINGS), ..Self::default() }
    }

    /// Returns true if the neighbouring files may be searched once more, and counts the search.
    pub(crate) fn look_beside(&self) -> bool {
        self.looks_beside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    pub(crate) fn are_given(&self) -> bool {
        self.given
    }

    fn store(&self) -> &Store {
        self.store.get_or_init(|| Store::new(rustls_native_certs::load_native_certs().certs))
    }

    /// Returns true if a root belongs to the organisation `name`.
    pub(crate) fn are_of(&self, name: &str) -> bool {
        self.store().organisations.contains(name)
    }

    /// Returns true if `certificate` is one of the roots, by name and key.
    pub(crate) fn holds(&self, certificate: &Facts<'_>) -> bool {
        let key = certificate.x509.public_key().raw;
        self.store().called(certificate.x509.subject()).any(|root| root.x509.public_key().raw == key)
    }

    /// Returns the root that issued `certificate`.
    pub(crate) fn issuer_of<'s>(&'s self, certificate: &Facts<'_>) -> Option<Facts<'s>> {
        let mut named = self.store().called(certificate.x509.issuer());
        named.find(|root| certificate.signed_by(root) != Signed::No)
    }

    /// Verifies a server's certificate up to one of the roots.
    pub(crate) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<(), webpki::Error> {
        let anchors: Vec<TrustAnchor<'_>> =
            self.store().certificates.iter().filter_map(|root| anchor_from_trusted_cert(root).ok()).collect();
        verify(&anchors, leaf, intermediates, now)
    }
}

/// Verifies a server's certificate up to `anchor`, as rustls does.
pub(crate) fn verify_to(
    anchor: &CertificateDer<'_>,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<(), webpki::Error> {
    verify(&[anchor_from_trusted_cert(anchor)?], leaf, intermediates, now)
}

fn verify(
    anchors: &[TrustAnchor<'_>],
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<(), webpki::Error> {
    let time = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    let algorithms = provider().signature_verification_algorithms.all;
    let usage = KeyUsage::server_auth();
    EndEntityCert::try_from(leaf)?
        .verify_for_usage(algorithms, anchors, intermediates, time, usage, None, None)
        .map(|_| ())
}

/// Returns the organisation of a name.
pub(crate) fn organisation(name: &X509Name<'_>) -> Option<String> {
    name.iter_organization().next()?.as_str().ok().map(str::to_owned)
}

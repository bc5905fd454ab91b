//! Who issued a certificate, as far as it can be known here: what its clients have to trust.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use tls_core::{CertificateSummary, Identity, provider};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// Who issued a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Issued {
    /// A root of this system's trust store, directly or through the intermediates that are presented.
    BySystemRoot,
    /// A root that is itself presented (the certificate may be its own): whoever has the chain can trust it.
    ByPresentedRoot {
        /// The root's subject.
        root: String,
    },
    /// A CA whose certificate is not here.
    ByUnknown {
        /// Its name.
        issuer: String,
    },
}

impl Issued {
    /// Looks at `identity` as of `now`; reads the system's trust store.
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

/// The roots of this system's store, as they can be read: once, and only where somebody asks.
#[derive(Default)]
pub(crate) struct Roots(OnceLock<Store>);

struct Store {
    anchors: Vec<TrustAnchor<'static>>,
    organisations: HashSet<String>,
}

impl Roots {
    fn store(&self) -> &Store {
        self.0.get_or_init(|| {
            let certificates = rustls_native_certs::load_native_certs().certs;
            let anchors = certificates.iter().filter_map(|root| Some(anchor_from_trusted_cert(root).ok()?.to_owned()));
            let organisations = certificates.iter().filter_map(|root| {
                let (_, parsed) = X509Certificate::from_der(root).ok()?;
                organisation(parsed.subject())
            });
            Store { anchors: anchors.collect(), organisations: organisations.collect() }
        })
    }

    /// True where one of them is of the organisation called `name`.
    pub(crate) fn are_of(&self, name: &str) -> bool {
        self.store().organisations.contains(name)
    }

    /// Verifies a server's certificate up to one of them.
    pub(crate) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<(), webpki::Error> {
        let time = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        let algorithms = provider().signature_verification_algorithms.all;
        let usage = KeyUsage::server_auth();
        EndEntityCert::try_from(leaf)?
            .verify_for_usage(algorithms, &self.store().anchors, intermediates, time, usage, None, None)
            .map(|_| ())
    }
}

/// The organisation that a name is of.
pub(crate) fn organisation(name: &X509Name<'_>) -> Option<String> {
    name.iter_organization().next()?.as_str().ok().map(str::to_owned)
}

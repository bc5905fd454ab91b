//! The order of a chain: the leaf first, then whoever signed the one before (RFC 5246 §7.4.2, RFC
//! 8446 §4.4.2).

use rustls::sign::SigningKey;
use rustls_pki_types::CertificateDer;
use tls_core::Origin;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::diagnose::{Finding, Severity};

/// How a chain was written.
pub(crate) struct Writing {
    /// True where it was not in order.
    changed: bool,
    /// The subjects of certificates that signed none of the others.
    stray: Vec<String>,
}

impl Writing {
    /// What is to be said of how the chain of `subject` was written.
    pub(crate) fn findings(&self, origin: &Origin, subject: &str) -> Vec<Finding> {
        let finding = |code, severity, message: String, fix: &str| Finding {
            code,
            severity,
            origin: origin.to_string(),
            subject: subject.to_owned(),
            message,
            fix: fix.to_owned(),
        };
        let order = self.changed.then(|| {
            finding(
                "TLS-CHAIN-ORDER",
                Severity::Warning,
                "the chain is not in order; it is served in the right one".to_owned(),
                "put the server's certificate first, then each intermediate after the one it signed",
            )
        });
        let stray = (!self.stray.is_empty()).then(|| {
            finding(
                "TLS-CHAIN-STRAY",
                Severity::Info,
                format!("the file has certificates that are no part of the chain: {}", self.stray.join("; ")),
                "take them out of the file: they are sent with every handshake",
            )
        });
        order.into_iter().chain(stray).collect()
    }
}

/// Puts the certificate that `key` belongs to first, and the others after whom they signed. What
/// belongs to neither stays at the end, in its order. Where no certificate is the key's, nothing is
/// changed, so that the mismatch is reported of the chain as it was written.
pub(crate) fn order(
    chain: Vec<CertificateDer<'static>>,
    key: &dyn SigningKey,
) -> (Vec<CertificateDer<'static>>, Writing) {
    let unchanged = |chain| (chain, Writing { changed: false, stray: Vec::new() });
    let Some(spki) = key.public_key() else { return unchanged(chain) };
    let parsed: Vec<Option<X509Certificate<'_>>> =
        chain.iter().map(|der| X509Certificate::from_der(der).ok().map(|(_, c)| c)).collect();
    let is_leaf = |at: &usize| parsed[*at].as_ref().is_some_and(|c| c.public_key().raw == spki.as_ref());
    let Some(leaf) = (0..chain.len()).find(is_leaf) else { return unchanged(chain) };

    let mut order = vec![leaf];
    let mut rest: Vec<usize> = (0..chain.len()).filter(|at| *at != leaf).collect();
    while let Some(last) = order.last().and_then(|at| parsed[*at].as_ref()) {
        let issuer = rest
            .iter()
            .position(|at| parsed[*at].as_ref().is_some_and(|c| c.subject().as_raw() == last.issuer().as_raw()));
        match issuer {
            Some(found) => order.push(rest.remove(found)),
            None => break,
        }
    }
    let subject = |at: &usize| parsed[*at].as_ref().map_or_else(String::new, |c| c.subject().to_string());
    let stray = rest.iter().map(subject).collect();
    order.extend(rest);
    let changed = order.iter().enumerate().any(|(place, at)| place != *at);
    let chain = order.into_iter().map(|at| chain[at].clone()).collect();
    (chain, Writing { changed, stray })
}

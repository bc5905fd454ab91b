//! The order of a chain: the leaf first, then whoever signed the one before (RFC 5246 §7.4.2, RFC
//! 8446 §4.4.2).

use rustls::sign::SigningKey;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A chain brought into order.
pub(crate) struct Ordered {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// True where it was not in order.
    pub(crate) changed: bool,
}

/// Puts the certificate that `key` belongs to first, and the others after whom they signed. What
/// belongs to neither stays at the end, in its order. Where no certificate is the key's, nothing is
/// changed, so that the mismatch is reported of the chain as it was written.
pub(crate) fn order(chain: Vec<CertificateDer<'static>>, key: &dyn SigningKey) -> Ordered {
    let unchanged = |chain| Ordered { chain, changed: false };
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
    order.extend(rest);
    let changed = order.iter().enumerate().any(|(place, at)| place != *at);
    let chain = order.into_iter().map(|at| chain[at].clone()).collect();
    Ordered { chain, changed }
}

//! Orders a chain: the leaf first, then the issuer of each certificate (RFC 5246 §7.4.2, RFC 8446 §4.4.2).

use std::path::Path;

use rustls::sign::SigningKey;
use rustls_pki_types::CertificateDer;
use tls_core::Origin;

use crate::diagnostics::compatibility::Clients;
use crate::diagnostics::facts::{Facts, Signed};
use crate::diagnostics::report::{Finding, Severity};
use crate::pem::quoted;

/// The form in which a chain was written.
#[derive(Debug, Default)]
pub(crate) struct Writing {
    /// Whether the chain was out of order.
    changed: bool,
    /// The subjects of certificates that signed no other certificate of the chain.
    stray: Vec<String>,
    /// The subjects of certificates that occur more than once.
    doubled: Vec<String>,
    /// The positions of the chain's certificates in the file, leaf first and without a root.
    places: Vec<usize>,
}

impl Writing {
    /// Returns the findings about how the chain of `subject` was written. `root` is the root that ends it. `file` is
    /// the file it was read from, if no two certificates in it share a line.
    pub(crate) fn findings(
        &self,
        origin: &Origin,
        subject: &str,
        root: Option<&str>,
        file: Option<&Path>,
    ) -> Vec<Finding> {
        let finding = |code, severity, message: String, fix: String| Finding {
            code,
            severity,
            origin: origin.to_string(),
            subject: subject.to_owned(),
            message,
            fix,
            refused_by: Clients::NONE,
        };
        let rewrite = file.map(|file| self.command(file));
        let rewritten = |otherwise: &str| match &rewrite {
            Some(command) => format!("write the corrected chain, and use the new file: {command}"),
            None => otherwise.to_owned(),
        };
        let mut found = Vec::new();
        if self.changed {
            found.push(finding(
                "TLS-CHAIN-ORDER",
                Severity::Warning,
                format!("the chain is not in order; it is served in the right order, from {subject} up"),
                rewritten("put the server's certificate first, then each intermediate after the one it signed"),
            ));
        }
        if !self.doubled.is_empty() {
            found.push(finding(
                "TLS-CHAIN-DOUBLED",
                Severity::Info,
                format!(
                    "the file has the same certificate more than once: {}; it is sent once",
                    self.doubled.join("; ")
                ),
                rewritten("keep each certificate in the file once"),
            ));
        }
        if !self.stray.is_empty() {
            found.push(finding(
                "TLS-CHAIN-STRAY",
                Severity::Info,
                format!("the file has certificates that are not part of the chain: {}", self.stray.join("; ")),
                rewritten("remove them from the file: they are sent with every handshake"),
            ));
        }
        if let Some(root) = root {
            found.push(finding(
                "TLS-ROOT-SENT",
                Severity::Info,
                format!(
                    "the chain ends with the root {root}: clients that trust it have it already, so it need not be sent"
                ),
                rewritten(&format!("remove the certificate of {root} from the file")),
            ));
        }
        found
    }

    /// Returns the command that writes the chain's certificates, in order, into a file next to `file`.
    fn command(&self, file: &Path) -> String {
        let from = file.display().to_string();
        let places: Vec<String> = self.places.iter().map(|at| format!("c[{}]", at + 1)).collect();
        format!(
            "`awk '/-----BEGIN CERTIFICATE-----/{{n++; on=1}} on{{c[n]=c[n] $0 \"\\n\"}} /-----END CERTIFICATE-----/{{on=0}} \
             END{{printf \"%s\", {}}}' {} > {}`",
            places.join(" "),
            quoted(&from),
            quoted(&format!("{from}.pem"))
        )
    }
}

/// How to find the leaf of a chain.
#[derive(Clone, Copy)]
pub(crate) enum Leaf<'a> {
    /// It is the certificate of this key.
    OfKey(&'a dyn SigningKey),
    /// It is the first certificate that is not a CA's, because the key is unknown.
    Guessed,
}

/// Orders a chain: the leaf first, and each issuer after the certificate it signed. Certificates that are not part of
/// the chain stay at the end, in their order; duplicates are removed. If no leaf is found, the order is kept, so that
/// the mismatch is reported for the chain as it was written.
pub(crate) fn order(chain: Vec<CertificateDer<'static>>, leaf: Leaf<'_>) -> (Vec<CertificateDer<'static>>, Writing) {
    let parsed: Vec<Option<Facts<'_>>> = chain.iter().map(Facts::of).collect();
    let found = match leaf {
        Leaf::OfKey(key) => key.public_key().and_then(|spki| {
            parsed.iter().position(|c| c.as_ref().is_some_and(|c| c.x509.public_key().raw == spki.as_ref()))
        }),
        Leaf::Guessed => parsed.iter().position(|c| c.as_ref().is_some_and(|c| !c.is_ca())).or_else(|| {
            // Otherwise the first certificate that issued none of the others.
            let facts = || parsed.iter().flatten();
            let issued = |one: &Facts<'_>| facts().any(|other| other.der != one.der && other.names_as_issuer(one));
            parsed.iter().position(|c| c.as_ref().is_some_and(|c| !issued(c)))
        }),
    };
    let Some(leaf) = found else {
        drop(parsed);
        return (chain, Writing::default());
    };
    let subject = |at: &usize| parsed[*at].as_ref().map_or_else(String::new, Facts::subject);
    let is_double = |at: &usize| chain[..*at].contains(&chain[*at]);
    let mut doubled: Vec<String> = (0..chain.len()).filter(is_double).map(|at| subject(&at)).collect();
    doubled.dedup();

    let mut order = vec![leaf];
    let mut rest: Vec<usize> = (0..chain.len()).filter(|at| chain[*at] != chain[leaf] && !is_double(at)).collect();
    while let Some(last) = order.last().and_then(|at| parsed[*at].as_ref()) {
        let named = |at: &&usize| parsed[**at].as_ref().is_some_and(|c| last.names_as_issuer(c));
        let signed = |at: &&usize| parsed[**at].as_ref().is_some_and(|c| last.signed_by(c) == Signed::Yes);
        // If several certificates have the issuer's name, take the one that signed.
        let issuer = rest.iter().filter(named).find(signed).or_else(|| rest.iter().find(named)).copied();
        match issuer {
            Some(found) => {
                rest.retain(|at| *at != found);
                order.push(found);
            }
            None => break,
        }
    }
    let root = |at: &usize| parsed[*at].as_ref().is_some_and(Facts::is_self_signed);
    let places = order.iter().copied().filter(|at| *at == leaf || !root(at)).collect();
    let stray: Vec<String> = rest.iter().map(subject).collect();
    order.extend(rest);
    let mut sorted = order.clone();
    sorted.sort_unstable();
    let changed = order != sorted;
    drop(parsed);
    let chain = order.into_iter().map(|at| chain[at].clone()).collect();
    (chain, Writing { changed, stray, doubled, places })
}

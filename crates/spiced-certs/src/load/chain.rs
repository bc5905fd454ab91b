//! Reads a certificate chain, and collects the findings about it and about the files next to it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use tls_core::{CertificateSummary, IdentityError, Secret, Sourced};

use super::error::{LoadError, Unusable};
use crate::diagnostics::compatibility::Clients;
use crate::diagnostics::facts::{Facts, Signed};
use crate::diagnostics::path;
use crate::diagnostics::path::trust::Roots;
use crate::diagnostics::{self, Finding, Severity};
use crate::pem::{self, Expected};
use crate::source::{Input, read};

/// Returns the error for a certificate that rustls cannot use.
pub(super) fn unusable_certificate(from: &Sourced<Input>, reason: &IdentityError) -> LoadError {
    let file = from.value.file().map_or("FILE".to_owned(), |f| pem::quoted(&f.display().to_string()));
    let fix = format!(
        "copy it again from where it came; if that is the same text, have it issued again: `openssl x509 -text -noout -in \
         {file}` shows what it says"
    );
    Unusable::of(from, Expected::Certificate, "TLS-CERTIFICATE-UNUSABLE", reason.to_string(), fix)
}

/// A certificate chain that was loaded without its key.
pub(crate) struct LoadedChain {
    /// The chain, leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) unchecked: Vec<String>,
}

/// Reads a certificate chain without its key. The leaf is the first certificate that is not a CA's.
pub(crate) fn load_chain(certificate: &mut Sourced<Input>, roots: &Roots) -> Result<LoadedChain, LoadError> {
    let text = read::read(certificate)?;
    let certificates =
        pem::certificates_or_der(&text).map_err(|reason| Unusable::pem(certificate, Expected::Certificate, &reason))?;
    let plain = certificate.value.file().filter(|_| pem::is_plain(&text, certificates.len()));
    let (chain, writing) = path::order(certificates, path::Leaf::Guessed);
    let first = chain.first().expect("a text that holds no certificate is an error");
    let leaf = CertificateSummary::read(first).map_err(|reason| unusable_certificate(certificate, &reason))?;
    let ordered = Ordered { chain: &chain, leaf: &leaf, writing: &writing, plain };
    let (mut findings, unchecked) = ordered.findings(certificate, None, roots);
    if pem::certificates(&text).is_ok() {
        findings.extend(diagnostics::oddly_written(&text, certificate, "certificate", &leaf.subject));
    }
    if let Some(path) = certificate.value.file().filter(|_| pem::count_keys(&text) > 0) {
        findings.extend(diagnostics::key_file(path, &certificate.origin));
    }
    Ok(LoadedChain { chain, findings, unchecked })
}

/// A chain in order, leaf first, and the form it was written in.
pub(super) struct Ordered<'a> {
    pub(super) chain: &'a [CertificateDer<'static>],
    pub(super) leaf: &'a CertificateSummary,
    pub(super) writing: &'a path::Writing,
    /// The file, if no two certificates in it share a line.
    pub(super) plain: Option<&'a Path>,
}

impl Ordered<'_> {
    /// Returns the findings about the chain, except those about its names, and what could not be checked.
    pub(super) fn findings(
        &self,
        certificate: &Sourced<Input>,
        key: Option<&Sourced<Input>>,
        roots: &Roots,
    ) -> (Vec<Finding>, Vec<String>) {
        let origin = certificate.origin.to_string();
        let diagnosis = diagnostics::chain(self.chain, self.leaf, &origin, roots, &[], SystemTime::now());
        let mut findings = diagnosis.findings;
        let mut unchecked = diagnosis.unchecked;
        let is_missing = match (&diagnosis.open_end, certificate.value.file()) {
            (Some(top), Some(file)) if roots.look_beside() => {
                issuer_beside(top, file, &origin, &self.leaf.subject, &mut findings)
            }
            _ => false,
        };
        unchecked.extend(diagnosis.taken_for_root.filter(|_| !is_missing));
        if let Some(v1) = findings.iter_mut().find(|finding| finding.code == "TLS-X509-V1") {
            v1.fix = sign_again(self, certificate, key);
        }
        let root = diagnosis.root_sent.as_deref();
        findings.extend(self.writing.findings(&certificate.origin, &self.leaf.subject, root, self.plain));
        (findings, unchecked)
    }
}

/// The number of neighbouring files that are searched for an issuer, and the largest size of such a file.
const MAX_BESIDE: usize = 64;

const MAX_BESIDE_BYTES: u64 = 64 * 1024;

/// Searches the files next to `file` for the issuer of `top`, since certbot and CAs deliver it there. An intermediate
/// that is found is missing from the chain; a root that is found issued the certificate directly. Returns true if an
/// intermediate is missing.
fn issuer_beside(
    top: &CertificateDer<'_>,
    file: &Path,
    origin: &str,
    subject: &str,
    findings: &mut Vec<Finding>,
) -> bool {
    const MISSING: &str = "TLS-INTERMEDIATE-MISSING";
    let Some(top) = Facts::of(top) else { return false };
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut beside: Vec<PathBuf> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .take(MAX_BESIDE)
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path != file && path.extension().is_some_and(|end| ["pem", "crt", "cer"].iter().any(|e| end == *e))
        })
        .filter(|path| path.metadata().is_ok_and(|found| found.is_file() && found.len() <= MAX_BESIDE_BYTES))
        .collect();
    beside.sort();
    for path in beside {
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let Ok(certificates) = pem::certificates(&Secret::new(bytes)) else { continue };
        let facts: Vec<Facts<'_>> = certificates.iter().filter_map(Facts::of).collect();
        let signed = |one: &&Facts<'_>| top.names_as_issuer(one) && top.signed_by(one) == Signed::Yes;
        let Some(issuer) = facts.iter().find(signed) else { continue };
        findings.retain(|finding| finding.code != MISSING);
        if issuer.is_self_issued() {
            return false;
        }
        let [from, other, to] = [file.to_owned(), path.clone(), file.with_extension("chain.pem")]
            .map(|path| pem::quoted(&path.display().to_string()));
        let has_leaf = facts.iter().any(|one| one.der == top.der);
        findings.push(Finding {
            code: MISSING,
            severity: Severity::Error,
            origin: origin.to_owned(),
            subject: subject.to_owned(),
            message: format!(
                "the certificate of the issuer ({}) is missing: it is an intermediate, and is in {path:?}; clients \
                 cannot build the chain",
                issuer.subject()
            ),
            fix: match has_leaf {
                true => format!("use {other}, which has both"),
                false => format!("put them into one file and use that: `cat {from} {other} > {to}`"),
            },
            refused_by: Clients::ALL,
        });
        return true;
    }
    false
}

/// Returns the commands that turn an X.509 v1 certificate into one with names: create a request from it and its key,
/// then have it signed again.
fn sign_again(ordered: &Ordered<'_>, certificate: &Sourced<Input>, key: Option<&Sourced<Input>>) -> String {
    let file = |input: &Sourced<Input>, otherwise: &str| {
        input.value.file().map_or_else(|| otherwise.to_owned(), |file| file.display().to_string())
    };
    let (certificate, key) = (file(certificate, "CERT"), key.map_or_else(|| "KEY".to_owned(), |key| file(key, "KEY")));
    let [from, key_word, request, extensions, to] = [
        certificate.clone(),
        key,
        format!("{certificate}.csr"),
        format!("{certificate}.ext"),
        format!("{certificate}.pem"),
    ]
    .map(|path| pem::quoted(&path));
    let leaf = ordered.chain.first().and_then(Facts::of);
    let own = leaf.map(|leaf| crate::diagnostics::names::own(&leaf)).unwrap_or_default();
    let names = crate::diagnostics::names::alternative_names(&own, "NAME");
    let signer = match ordered.leaf.self_signed {
        true => format!("-signkey {key_word}"),
        false => "-CA CA.pem -CAkey CA.key -CAcreateserial".to_owned(),
    };
    format!(
        "sign its request again, with extensions: `openssl x509 -x509toreq -in {from} -signkey {key_word} -out {request} && \
         printf '{names}\\nbasicConstraints=CA:FALSE\\nextendedKeyUsage=serverAuth\\n' > {extensions} && openssl x509 -req -in \
         {request} {signer} -days 365 -sha256 -extfile {extensions} -out {to}`"
    )
}

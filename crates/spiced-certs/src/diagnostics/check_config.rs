//! Checks all of a server's material, and which clients would accept it. This is the check behind `spiced tls check`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tls_core::{CertificateSummary, Identity, Secret, SniCertResolver, Sourced, provider};

use crate::client_ca::load_clients;
use crate::diagnostics::compatibility::Clients;
use crate::diagnostics::facts::Facts;
use crate::diagnostics::names;
use crate::diagnostics::path;
use crate::diagnostics::path::trust::Roots;
use crate::diagnostics::report::{Finding, Severity};
use crate::load::chain::{LoadedChain, load_chain};
use crate::load::pairs::{self, IdentityCache};
use crate::load::{LoadError, Unusable};
use crate::pem::der;
use crate::pem::{self, Expected, FoundInstead, PemError};
use crate::source::{Input, Pair, Sources, read};

/// The result of a check.
#[derive(Debug)]
pub struct Examined {
    /// The findings, including errors.
    pub findings: Vec<Finding>,
    /// For each client, whether it would accept the certificate it receives, provided that it trusts the CA; empty if
    /// there is nothing to serve.
    pub accepted_by: Vec<(&'static str, bool)>,
    /// What could not be checked, one sentence each.
    pub unchecked: Vec<String>,
}

/// A certificate and its key in separate files, without a pod.
#[derive(Debug)]
pub struct Material {
    /// The certificate, followed by its intermediates.
    pub certificate: Sourced<Input>,
    /// The key, if it is given.
    pub key: Option<Sourced<Input>>,
    /// The passphrase of an encrypted key.
    pub passphrase: Option<Sourced<Input>>,
}

/// The contents of the files of a [`Material`], whether or not they can be served.
#[derive(Debug, Default)]
pub struct Contents {
    /// The certificates, leaf first.
    pub chain: Vec<CertificateContents>,
    /// The kind and size of the key, if it is given or in the certificate's file, and can be read.
    pub key: Option<String>,
    /// Whether the key belongs to the leaf, if both can be read.
    pub is_pair: Option<bool>,
    /// The file that the certificate was read from; the other one if the two are swapped.
    pub certificate_file: Option<PathBuf>,
    /// The file that the key was read from.
    pub key_file: Option<PathBuf>,
}

/// One certificate.
#[derive(Debug)]
pub struct CertificateContents {
    /// Its names, issuer and dates.
    pub summary: CertificateSummary,
    /// The kind and size of its key.
    pub key: String,
}

/// Checks a certificate, and its key if given, as [`check_config`] does for a server, and returns their contents too.
///
/// # Errors
/// Fails if `authority` cannot be read, or contains no certificate.
pub fn examine_material(
    material: Material,
    names: &[String],
    authority: Option<&mut Sourced<Input>>,
) -> Result<(Examined, Contents), LoadError> {
    let Material { mut certificate, mut key, mut passphrase } = material;
    // Wait only once for a FIFO without a writer.
    for input in [Some(&mut certificate), key.as_mut()].into_iter().flatten() {
        if is_fifo(input)
            && let Err(error) = read::read(input)
        {
            let findings = vec![error.finding()];
            let examined = Examined { findings, accepted_by: Vec::new(), unchecked: Vec::new() };
            return Ok((examined, Contents::default()));
        }
    }
    let text = read::read(&mut certificate).ok();
    let key_text = key.as_mut().and_then(|key| read::read(key).ok());
    let holds = |text: &Option<Secret>| {
        text.as_ref().map_or((false, false), |text| (pem::certificates(text).is_ok(), pem::count_keys(text) > 0))
    };
    let mut swapped = None;
    match (&mut key, holds(&text), holds(&key_text)) {
        // A file that contains both is the source of both.
        (None, (true, true), _) => key = Some(certificate.clone()),
        (Some(key), (false, true), (true, false)) => {
            let reason = PemError::NoCertificate { instead: FoundInstead::Key };
            swapped = Some(Unusable::pem(&certificate, Expected::Certificate, &reason).finding());
            std::mem::swap(&mut certificate.value, &mut key.value);
        }
        _ => {}
    }
    let contents = contents(&mut certificate, key.as_mut(), passphrase.as_mut());
    let mut examined = match key {
        Some(key) => check_config(&mut Sources::from(Pair { certificate, key, passphrase }), names, authority)?,
        None => {
            let roots = roots(authority)?;
            let mut examined = Examined { findings: Vec::new(), accepted_by: Vec::new(), unchecked: Vec::new() };
            let readable = read::read(&mut certificate).and_then(|text| {
                pem::certificates(&text).map_err(|reason| Unusable::pem(&certificate, Expected::Certificate, &reason))
            });
            match (readable, chain_alone(&mut certificate, names, &roots)) {
                (Err(error), chain) => {
                    examined.findings.push(error.finding());
                    examined.findings.extend(chain.into_iter().flat_map(|chain| chain.findings));
                }
                (Ok(_), Err(error)) => examined.findings.push(error.finding()),
                (Ok(_), Ok(chain)) => {
                    examined.accepted_by = refused(&chain.findings).accepted_by();
                    examined.findings = chain.findings;
                    examined.unchecked = chain.unchecked;
                }
            }
            examined.unchecked.push("no key was given, so it is unknown whether it matches the certificate".to_owned());
            examined
        }
    };
    examined.findings.splice(0..0, swapped);
    Ok((examined, contents))
}

fn is_fifo(input: &Sourced<Input>) -> bool {
    use std::os::unix::fs::FileTypeExt;
    input.value.file().and_then(|file| file.metadata().ok()).is_some_and(|found| found.file_type().is_fifo())
}

/// Returns the contents of the files, as far as they can be read.
fn contents(
    certificate: &mut Sourced<Input>,
    mut key: Option<&mut Sourced<Input>>,
    passphrase: Option<&mut Sourced<Input>>,
) -> Contents {
    let passphrase = passphrase.and_then(|passphrase| read::read(passphrase).ok());
    let certificates = read::read(certificate).ok().and_then(|text| pem::certificates_or_der(&text).ok());
    let key_text = key.as_mut().and_then(|key| read::read(key).ok());
    let read_key = key_text.and_then(|text| pem::private_key(&text, passphrase.as_ref()).ok());
    let signer = read_key.as_ref().and_then(|key| provider().key_provider.load_private_key(key.der.clone_key()).ok());
    let mut found = Contents {
        key: read_key.as_ref().map(|key| der::kind_of_key(&key.der)),
        certificate_file: certificate.value.file().map(Path::to_owned),
        key_file: key.as_ref().and_then(|key| key.value.file()).map(Path::to_owned),
        ..Contents::default()
    };
    let Some(certificates) = certificates else { return found };
    let spki = signer.as_ref().and_then(|signer| signer.public_key().map(|spki| spki.as_ref().to_vec()));
    let is_of_key = |one: &Facts<'_>| Some(one.x509.public_key().raw) == spki.as_deref();
    let matches = certificates.iter().filter_map(Facts::of).any(|one| is_of_key(&one));
    found.is_pair = spki.is_some().then_some(matches);
    let leaf = match &signer {
        Some(signer) if matches => path::Leaf::OfKey(signer.as_ref()),
        _ => path::Leaf::Guessed,
    };
    let (chain, _) = path::order(certificates, leaf);
    found.chain = chain
        .iter()
        .filter_map(|der| {
            Some(CertificateContents { summary: CertificateSummary::read(der).ok()?, key: Facts::of(der)?.key() })
        })
        .collect();
    found
}

/// Checks a certificate chain whose key is unknown or cannot be used.
fn chain_alone(certificate: &mut Sourced<Input>, names: &[String], roots: &Roots) -> Result<LoadedChain, LoadError> {
    let mut loaded = load_chain(certificate, roots)?;
    if let Some(leaf) = loaded.chain.first().and_then(Facts::of) {
        loaded.findings.extend(names::findings(&leaf, &certificate.origin.to_string(), names));
    }
    Ok(loaded)
}

/// Returns the clients that refuse because of one of `findings`.
fn refused(findings: &[Finding]) -> Clients {
    findings.iter().map(|finding| finding.refused_by).fold(Clients::NONE, Clients::or)
}

/// Returns the roots in `authority`, or this system's roots if it is `None`.
fn roots(authority: Option<&mut Sourced<Input>>) -> Result<Roots, LoadError> {
    let Some(authority) = authority else { return Ok(Roots::thorough()) };
    let certificates = pem::certificates(&read::read(authority)?)
        .map_err(|reason| Unusable::pem(authority, Expected::Authority, &reason))?;
    Ok(Roots::given(certificates))
}

/// Reads all of `sources` and returns the findings. `names` are the names that clients connect to, and `authority`
/// contains the roots that they trust, as PEM, if known.
///
/// # Errors
/// Fails if `authority` cannot be read, or contains no certificate.
pub fn check_config(
    sources: &mut Sources,
    names: &[String],
    authority: Option<&mut Sourced<Input>>,
) -> Result<Examined, LoadError> {
    let roots = roots(authority)?;
    let mut findings = Vec::new();
    let mut unchecked = Vec::new();
    let mut read = Vec::new();
    let mut whole = true;
    let is_single = sources.more.is_empty();
    let all = pairs::read_all(sources, &IdentityCache::default(), &roots);
    for (one, pair) in all.into_iter().zip(sources.pairs_mut()) {
        match one {
            Ok(mut one) => {
                findings.append(&mut one.findings);
                unchecked.append(&mut one.unchecked);
                read.push(one);
            }
            Err(errors) => {
                whole = false;
                findings.extend(errors.iter().map(LoadError::finding));
                // Report the other findings about the certificate in the same run.
                let names = if is_single { names } else { &[] };
                let chain = chain_alone(&mut pair.certificate, names, &roots);
                let chain = chain
                    .ok()
                    .filter(|chain| chain.chain.first().and_then(Facts::of).is_some_and(|leaf| !leaf.is_ca()));
                if let Some(mut chain) = chain {
                    findings.append(&mut chain.findings);
                    unchecked.append(&mut chain.unchecked);
                }
            }
        }
    }
    let mut accepted_by = Vec::new();
    if whole {
        let (set, doubled) = pairs::set(&read, sources.strict_sni);
        findings.extend(doubled);
        for (identity, names) in asked(&set, names, &mut findings) {
            findings.extend(names_of(&identity, &names));
        }
        accepted_by = refused(&findings).accepted_by();
    }
    if let Some(clients) = &mut sources.clients {
        match load_clients(clients) {
            Ok(loaded) => findings.extend(loaded.findings),
            Err(error) => findings.push(error.finding()),
        }
    }
    unchecked.sort();
    unchecked.dedup();
    Ok(Examined { findings, accepted_by, unchecked })
}

/// Returns the findings about the names of `identity`, for clients that connect to `names`, or to the certificate's own
/// names if `names` is empty.
pub(crate) fn names_of(identity: &Identity, names: &[String]) -> Vec<Finding> {
    let leaf = identity.certified_key().cert.first().and_then(Facts::of);
    leaf.map(|leaf| names::findings(&leaf, &identity.certificate_origin().to_string(), names)).unwrap_or_default()
}

/// Returns each identity with those of `names` that select it; every identity if `names` is empty.
fn asked(set: &SniCertResolver, names: &[String], findings: &mut Vec<Finding>) -> Vec<(Arc<Identity>, Vec<String>)> {
    if names.is_empty() {
        return set.iter().map(|identity| (identity.clone(), Vec::new())).collect();
    }
    let mut asked: Vec<(Arc<Identity>, Vec<String>)> = Vec::new();
    for name in names {
        // No client sends an address as its SNI (RFC 6066 §3).
        let asked_for = Some(name.as_str()).filter(|name| name.parse::<IpAddr>().is_err());
        let Some(identity) = set.answer(asked_for) else {
            findings.push(Finding {
                code: "TLS-NAME-NOT-COVERED",
                severity: Severity::Error,
                origin: "runtime.tls.strict_sni".to_owned(),
                subject: name.clone(),
                message: match asked_for {
                    Some(name) => {
                        format!("no certificate covers {name}, and strict_sni refuses clients that request it")
                    }
                    None => format!(
                        "clients that connect to the address {name} request no name, and strict_sni refuses them"
                    ),
                },
                fix: match asked_for {
                    Some(name) => format!("add a pair for {name} to runtime.tls.certificates"),
                    None => "let them connect by a name, or remove strict_sni".to_owned(),
                },
                refused_by: Clients::ALL,
            });
            continue;
        };
        match asked.iter_mut().find(|(one, _)| Arc::ptr_eq(one, identity)) {
            Some((_, names)) => names.push(name.clone()),
            None => asked.push((identity.clone(), vec![name.clone()])),
        }
    }
    asked
}

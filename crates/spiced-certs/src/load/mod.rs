//! Loads a [`Pair`] into an identity and collects the findings about it.

pub(crate) mod pairs;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aws_lc_rs::digest;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tls_core::{CertificateSummary, Identity, IdentityError, Origin, Secret, Sourced, provider};

use crate::diagnostics::compatibility::Clients;
use crate::diagnostics::facts::{Facts, Signed};
use crate::diagnostics::path;
use crate::diagnostics::path::trust::Roots;
use crate::diagnostics::{self, Finding, Severity};
use crate::handshake;
use crate::pem::der;
use crate::pem::{self, Expected, PemError};
use crate::source::{Input, Pair, read};

/// An identity, and what an operator should know about it.
#[derive(Debug)]
pub struct Loaded {
    /// The identity.
    pub identity: Identity,
    /// Findings that do not prevent the identity from being used.
    pub findings: Vec<Finding>,
    /// What could not be checked, one sentence each.
    pub unchecked: Vec<String>,
}

/// Reads a certificate and its key, and pairs them. A FIFO can be read only once, so its content replaces it in `pair`
/// as text.
///
/// # Errors
/// Fails if the certificate or the key cannot be read or used, or if the key belongs to another certificate.
pub fn load(pair: &mut Pair) -> Result<Loaded, LoadError> {
    let read = Read::of(pair).map_err(LoadError::all)?;
    read.pair(pair, &Roots::default()).map_err(LoadError::all)
}

/// The bytes of a pair, read once.
pub(crate) struct Read {
    certificate: Secret,
    key: Secret,
    passphrase: Option<Secret>,
}

impl Read {
    /// Reads every input of the pair; returns every error, not only the first.
    pub(crate) fn of(pair: &mut Pair) -> Result<Self, Vec<LoadError>> {
        let certificate = read::read(&mut pair.certificate);
        let key = read::read(&mut pair.key);
        let passphrase = pair.passphrase.as_mut().map(read::read).transpose();
        match (certificate, key, passphrase) {
            (Ok(certificate), Ok(key), Ok(passphrase)) => Ok(Self { certificate, key, passphrase }),
            (certificate, key, passphrase) => {
                // The inputs that were readable may be invalid as well: report both kinds of error together.
                let of_certificate = certificate.map(|text| pem::certificates(&text).err());
                let of_key = key.map(|text| match &passphrase {
                    Ok(passphrase) => pem::private_key(&text, passphrase.as_ref()).err(),
                    Err(_) => None,
                });
                let said = |reason: Option<PemError>, input, wanted| Some(Unusable::pem(input, wanted, &reason?));
                let certificate =
                    of_certificate.map_or_else(Some, |why| said(why, &pair.certificate, Expected::Certificate));
                let key = of_key.map_or_else(Some, |why| said(why, &pair.key, Expected::Key));
                Err(certificate.into_iter().chain(key).chain(passphrase.err()).collect())
            }
        }
    }

    /// Returns a digest that changes whenever the material or its origin changes.
    pub(crate) fn digest(&self, pair: &Pair) -> Digest {
        let mut context = digest::Context::new(&digest::SHA256);
        let origins = [&pair.certificate, &pair.key].map(|input| format!("{}{}", input.origin, place(input)));
        let parts = [&self.certificate, &self.key].map(Secret::expose);
        for part in parts.into_iter().chain(origins.iter().map(String::as_bytes)) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.update(self.passphrase.as_ref().map_or(&[], |passphrase| passphrase.expose()));
        context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// Builds an identity from the bytes; returns every error, not only the first.
    pub(crate) fn pair(self, pair: &Pair, roots: &Roots) -> Result<Loaded, Vec<LoadError>> {
        let certificates = pem::certificates(&self.certificate);
        let key = pem::private_key(&self.key, self.passphrase.as_ref());
        let (certificates, key) = match (certificates, key) {
            (Ok(certificates), Ok(key)) => (certificates, key),
            (certificates, key) => return Err(wrong_texts(pair, certificates.err(), key.err())),
        };
        let encrypted = key.encrypted;
        let plain = pair.certificate.value.file().filter(|_| pem::is_plain(&self.certificate, certificates.len()));
        let mut loaded = assemble(certificates, key.der, pair, plain, roots).map_err(|error| vec![error])?;
        let subject = loaded.identity.leaf().subject.clone();
        for (text, input, what) in
            [(&self.certificate, &pair.certificate, "certificate"), (&self.key, &pair.key, "key")]
        {
            loaded.findings.extend(diagnostics::oddly_written(text, input, what, &subject));
        }
        let key_file = pair.key.value.file();
        if let Some(path) = pair.certificate.value.file().filter(|path| Some(*path) != key_file)
            && pem::count_keys(&self.certificate) > 0
        {
            loaded.findings.extend(diagnostics::key_file(path, &pair.certificate.origin));
        }
        if let (false, Some(passphrase)) = (encrypted, &pair.passphrase) {
            loaded.findings.push(diagnostics::unused_passphrase(&passphrase.origin, &subject));
        }
        Ok(loaded)
    }
}

/// Converts the parse errors of a pair; a single mistake that affects both texts is reported once.
fn wrong_texts(pair: &Pair, certificate: Option<PemError>, key: Option<PemError>) -> Vec<LoadError> {
    let swapped = |error: &PemError| error.code() == "TLS-SWAPPED";
    let of_certificate = |reason: &PemError| Unusable::pem(&pair.certificate, Expected::Certificate, reason);
    let of_key = |reason: &PemError| Unusable::pem(&pair.key, Expected::Key, reason);
    match (certificate, key) {
        (Some(certificate), Some(key)) if swapped(&certificate) && swapped(&key) => vec![of_certificate(&certificate)],
        (Some(certificate), Some(key)) if certificate == key && certificate.is_container() => {
            let (first, second) = (of_certificate(&certificate), of_key(&key));
            match (first, second) {
                (LoadError::Unusable(mut both), LoadError::Unusable(second)) => {
                    both.place = format!("{} and the key{}", both.place, second.place);
                    both.fix = format!("{}; and for the key: {}", both.fix, second.fix);
                    vec![LoadError::Unusable(both)]
                }
                (first, second) => vec![first, second],
            }
        }
        (certificate, key) => certificate.iter().map(of_certificate).chain(key.iter().map(of_key)).collect(),
    }
}

/// A SHA-256 digest.
pub(crate) type Digest = [u8; 32];

fn assemble(
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    pair: &Pair,
    plain: Option<&Path>,
    roots: &Roots,
) -> Result<Loaded, LoadError> {
    let signer = provider().key_provider.load_private_key(key.clone_key()).map_err(|_| {
        let reason = format!("the key is {}, which is not supported here (rustls)", der::kind_of_key(&key));
        let fix = "have the certificate issued for another key: RSA of 2048 to 8192 bits, or ECDSA on P-256 or P-384";
        Unusable::of(&pair.key, Expected::Key, "TLS-KEY-UNUSABLE", reason, fix.to_owned())
    })?;
    let (chain, writing) = path::order(certificates, path::Leaf::OfKey(signer.as_ref()));
    let (certificate_origin, key_origin) = (pair.certificate.origin.clone(), pair.key.origin.clone());
    let kind = der::kind_of_key(&key);
    let note = mismatch_note(&chain, &kind, pair);
    let identity = Identity::new(chain, key, certificate_origin, key_origin).map_err(|reason| match reason {
        IdentityError::NotAPair { subject } => LoadError::NotAPair(Box::new(Mismatch {
            subject,
            certificate: place(&pair.certificate),
            certificate_origin: pair.certificate.origin.clone(),
            key: place(&pair.key),
            key_origin: pair.key.origin.clone(),
            note: note.0,
            fix: note.1,
        })),
        other => unusable_certificate(&pair.certificate, &other),
    })?;
    handshake::with_itself(&identity).map_err(|error| LoadError::NoHandshake {
        subject: identity.leaf().subject.clone(),
        origin: pair.certificate.origin.clone(),
        reason: error.to_string(),
    })?;
    let ordered = Ordered { chain: &identity.certified_key().cert, leaf: identity.leaf(), writing: &writing, plain };
    let (mut findings, unchecked) = ordered.findings(&pair.certificate, Some(&pair.key), roots);
    if let Input::File(path) = &pair.key.value {
        findings.extend(diagnostics::key_file(path, &pair.key.origin));
    }
    Ok(Loaded { identity, findings, unchecked })
}

/// Returns the error for a certificate that rustls cannot use.
fn unusable_certificate(from: &Sourced<Input>, reason: &IdentityError) -> LoadError {
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
struct Ordered<'a> {
    chain: &'a [CertificateDer<'static>],
    leaf: &'a CertificateSummary,
    writing: &'a path::Writing,
    /// The file, if no two certificates in it share a line.
    plain: Option<&'a Path>,
}

impl Ordered<'_> {
    /// Returns the findings about the chain, except those about its names, and what could not be checked.
    fn findings(
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

/// Returns the likely cause of a mismatch, if it can be recognized, and the fix.
fn mismatch_note(chain: &[CertificateDer<'_>], key: &str, pair: &Pair) -> (String, String) {
    let word = |input: &Sourced<Input>, otherwise: &str| {
        input.value.file().map_or_else(|| otherwise.to_owned(), |file| pem::quoted(&file.display().to_string()))
    };
    let compare = format!(
        "compare `openssl x509 -in {} -noout -pubkey` with `openssl pkey -in {} -pubout`: a renewal may have changed only \
         one of the files",
        word(&pair.certificate, "CERT"),
        word(&pair.key, "KEY")
    );
    let facts: Vec<Facts<'_>> = chain.iter().filter_map(Facts::of).collect();
    let Some(first) = facts.first() else { return (String::new(), compare) };
    if facts.len() >= 20 && facts.iter().all(Facts::is_self_issued) {
        let fix = "use the server's own certificate; a trust store is for clients".to_owned();
        return (format!("; it holds {} certificates, which are roots: a trust store", facts.len()), fix);
    }
    if first.is_ca() {
        let fullchain = pair.certificate.value.file().map(|file| file.with_file_name("fullchain.pem"));
        let which = match fullchain.filter(|file| file.is_file()) {
            Some(file) => format!("give {}", pem::quoted(&file.display().to_string())),
            None => "give fullchain.pem".to_owned(),
        };
        let fix = format!("{which}, which begins with the server's certificate: cert.pem, then chain.pem");
        return (
            "; the first certificate is a CA's: this looks like chain.pem, which has only the intermediates".to_owned(),
            fix,
        );
    }
    let other = first.key();
    let note = if other == key { String::new() } else { format!("; the key is {key}, and the certificate's {other}") };
    (note, compare)
}

/// Why a pair cannot be loaded. No variant contains any of the material that was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file cannot be read.
    #[error("{origin}: cannot read {path:?}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        origin: Origin,
        /// Why, and which file or directory is at fault.
        reason: String,
        /// The fix.
        fix: String,
    },
    /// The material is invalid, or not of the expected kind.
    #[error(transparent)]
    Unusable(Box<Unusable>),
    /// Certificate and key match, but a handshake with them fails.
    #[error("{origin}: no handshake succeeds with the certificate {subject}: {reason}")]
    NoHandshake {
        /// The leaf's subject.
        subject: String,
        /// The setting that provides the certificate.
        origin: Origin,
        /// The error that rustls returned.
        reason: String,
    },
    /// A reload found a certificate that is out of date, and the current one is better.
    #[error("{origin}: the certificate {subject} is out of date, and the current one is in date or expires later")]
    OutOfDate {
        /// The leaf's subject.
        subject: String,
        /// The setting that provides the certificate.
        origin: Origin,
    },
    /// A reload found a revocation list that is out of date, and the current one is not.
    #[error("{origin}: a revocation list is out of date, and those in force are not")]
    ListOutOfDate {
        /// The setting that provides the client CA.
        origin: Origin,
    },
    /// A reload found a certificate that is not valid yet, and the current one is in date. The new one must be read
    /// again once it is valid.
    #[error(
        "{origin}: the certificate {subject} is not valid yet; it is loaded when it becomes valid, in {starts_in} s"
    )]
    NotYet {
        /// The leaf's subject.
        subject: String,
        /// The setting that provides the certificate.
        origin: Origin,
        /// Seconds until it becomes valid.
        starts_in: i64,
    },
    /// The key belongs to another certificate.
    #[error(transparent)]
    NotAPair(Box<Mismatch>),
    /// Clients would refuse the new certificate, and they accept the current one.
    #[error(
        "{}: {} would refuse the new certificate, but accept the current one: {}",
        finding.origin,
        clients.listed(),
        finding.message
    )]
    Refused {
        /// The reason for the refusal.
        finding: Box<Finding>,
        /// The clients that would refuse it.
        clients: Clients,
    },
    /// Clients whose certificates are accepted now would be refused after the reload.
    #[error("{}: clients whose certificates are accepted now would be refused: {}", finding.origin, finding.message)]
    LocksOut {
        /// The reason for the refusal.
        finding: Box<Finding>,
    },
    /// A revocation list is older than the one in force.
    #[error("{}: {}", finding.origin, finding.message)]
    OlderList {
        /// The reason.
        finding: Box<Finding>,
    },
    /// Several errors.
    #[error("{} (and {} more; spiced tls check lists all)", errors[0], errors.len() - 1)]
    Several {
        /// The errors; at least two.
        errors: Vec<LoadError>,
    },
}

/// A key that belongs to another certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the key{key} (from {key_origin}) is not the key of the certificate {subject}{certificate} (from {certificate_origin}){note}"
)]
pub struct Mismatch {
    /// The leaf's subject.
    pub subject: String,
    /// Where the certificate was read from, for a message.
    pub certificate: String,
    /// The setting that provides the certificate.
    pub certificate_origin: Origin,
    /// Where the key was read from, for a message.
    pub key: String,
    /// The setting that provides the key.
    pub key_origin: Origin,
    /// The likely cause, to append to a message.
    pub note: String,
    /// The fix.
    pub fix: String,
}

/// Material that is invalid, or not of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: the {what}{place}: {reason}")]
pub struct Unusable {
    what: &'static str,
    place: String,
    origin: Origin,
    code: &'static str,
    reason: String,
    fix: String,
    may_be_torn: bool,
}

impl Unusable {
    /// Returns the error for PEM that does not contain what was expected.
    pub(crate) fn pem(from: &Sourced<Input>, wanted: Expected, reason: &PemError) -> LoadError {
        let code = match wanted {
            Expected::Certificate | Expected::Key => reason.code(),
            Expected::ClientCa => "TLS-CLIENT-CA",
            Expected::RevocationList => "TLS-CRL",
            Expected::Authority => "TLS-CA-FILE",
        };
        let mut fix = reason.fix(wanted, from.value.file());
        // The environment variable sets the passphrase of the default pair only, not of those in `certificates`.
        if *reason == PemError::Encrypted && !from.origin.to_string().contains("certificates[") {
            fix.push_str(", or SPICED_RUNTIME__TLS__KEY_PASSPHRASE");
        }
        let LoadError::Unusable(mut unusable) = Self::of(from, wanted, code, reason.to_string(), fix) else {
            unreachable!("made as such")
        };
        unusable.may_be_torn = reason.maybe_partial_write();
        LoadError::Unusable(unusable)
    }

    pub(crate) fn of(
        from: &Sourced<Input>,
        wanted: Expected,
        code: &'static str,
        reason: String,
        fix: String,
    ) -> LoadError {
        let what = match wanted {
            Expected::Certificate => "certificate",
            Expected::Key => "key",
            Expected::ClientCa => "client CA",
            Expected::RevocationList => "revocation list",
            Expected::Authority => "CA",
        };
        let (place, origin) = (place(from), from.origin.clone());
        LoadError::Unusable(Box::new(Self { what, place, origin, code, reason, fix, may_be_torn: false }))
    }
}

impl LoadError {
    /// Converts the error to a [`Finding`].
    pub fn finding(&self) -> Finding {
        let (code, origin, subject) = match self {
            Self::Unreadable { path, origin, .. } => ("TLS-UNREADABLE", origin, path.display().to_string()),
            Self::Unusable(unusable) => (unusable.code, &unusable.origin, String::new()),
            Self::NoHandshake { origin, subject, .. } => ("TLS-NO-HANDSHAKE", origin, subject.clone()),
            Self::OutOfDate { origin, subject } => ("TLS-OUT-OF-DATE", origin, subject.clone()),
            Self::ListOutOfDate { origin } => ("TLS-CRL-OUT-OF-DATE", origin, String::new()),
            Self::NotYet { origin, subject, .. } => ("TLS-NOT-YET-VALID", origin, subject.clone()),
            Self::Refused { finding, .. } | Self::LocksOut { finding } | Self::OlderList { finding } => {
                return Finding { message: self.to_string(), ..(**finding).clone() };
            }
            Self::Several { errors } => return Finding { message: self.to_string(), ..errors[0].finding() },
            Self::NotAPair(mismatch) => ("TLS-KEY-MISMATCH", &mismatch.key_origin, mismatch.subject.clone()),
        };
        Finding {
            code,
            severity: Severity::Error,
            origin: origin.to_string(),
            subject,
            message: self.to_string(),
            fix: self.hint().to_owned(),
            refused_by: Clients::NONE,
        }
    }

    /// Returns the fix, in one sentence.
    pub fn hint(&self) -> &str {
        match self {
            Self::Unreadable { fix, .. } => fix,
            Self::Unusable(unusable) => &unusable.fix,
            Self::NoHandshake { .. } => {
                "have it issued for another kind of key: RSA of 2048 bits or more, P-256 or P-384"
            }
            Self::OutOfDate { .. } => "put a certificate there that is in date, or check this machine's clock",
            Self::ListOutOfDate { .. } => "put the CA's current list there",
            Self::NotYet { .. } => "wait, or check this machine's clock",
            Self::Refused { finding, .. } | Self::LocksOut { finding } | Self::OlderList { finding } => &finding.fix,
            Self::Several { errors } => errors[0].hint(),
            Self::NotAPair(mismatch) => &mismatch.fix,
        }
    }

    /// Combines one or more errors into one.
    pub(crate) fn all(mut errors: Vec<Self>) -> Self {
        if errors.len() == 1 { errors.swap_remove(0) } else { Self::Several { errors } }
    }

    /// Returns true if the material may have been read in the middle of a write, so that reading again may succeed.
    pub(crate) fn maybe_partial_write(&self) -> bool {
        match self {
            Self::NotAPair(_) | Self::Unreadable { .. } => true,
            Self::Unusable(unusable) => unusable.may_be_torn,
            // A CA and its revocation list are written one after the other.
            Self::LocksOut { .. } => true,
            // A file that is being written contains the leaf first.
            Self::Refused { finding, .. } => finding.code == "TLS-INTERMEDIATE-MISSING",
            Self::Several { errors } => errors.iter().any(Self::maybe_partial_write),
            _ => false,
        }
    }

    /// Returns true if one of two secrets may have changed before the other: the certificate and the key do not match,
    /// or the passphrase does not decrypt the key.
    pub fn is_mid_rotation(&self) -> bool {
        match self {
            Self::NotAPair(_) => true,
            Self::Unusable(unusable) => ["TLS-KEY-PASSPHRASE", "TLS-KEY-ENCRYPTED"].contains(&unusable.code),
            Self::Several { errors } => errors.iter().any(Self::is_mid_rotation),
            _ => false,
        }
    }

    /// Returns the seconds until the certificate is valid, if it is not valid yet.
    pub fn starts_in(&self) -> Option<i64> {
        match self {
            Self::NotYet { starts_in, .. } => Some(*starts_in),
            _ => None,
        }
    }
}

/// Returns where the input is read from, for a message: ` in /etc/tls.crt`, or empty.
pub(crate) fn place(from: &Sourced<Input>) -> String {
    match &from.value {
        Input::File(path) => format!(" in {path:?}"),
        Input::Text(_) | Input::Watched(_) => String::new(),
    }
}

#[cfg(test)]
mod tests;

//! From a [`Pair`] to an identity, and what is to be said about it.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aws_lc_rs::digest;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tls_core::{CertificateSummary, Identity, IdentityError, Origin, Secret, Sourced, provider};

use crate::compatibility::Clients;
use crate::diagnostics::{self, Finding, Severity};
use crate::facts::{Facts, Signed};
use crate::pem::{self, Expected, PemError};
use crate::source::{Input, Pair, read};
use crate::trust::Roots;
use crate::{chain, der, handshake};

/// An identity, and what an operator should know of it.
#[derive(Debug)]
pub struct Loaded {
    /// The identity.
    pub identity: Identity,
    /// Findings, none of which keeps it from serving.
    pub findings: Vec<Finding>,
    /// What could not be checked, each a sentence.
    pub unchecked: Vec<String>,
}

/// Reads certificate and key and pairs them. A FIFO is read once: it becomes text in `pair`.
///
/// # Errors
/// Either cannot be read, is not what it should be, or they are no pair.
pub fn load(pair: &mut Pair) -> Result<Loaded, LoadError> {
    let read = Read::of(pair).map_err(LoadError::all)?;
    read.pair(pair, &Roots::default()).map_err(LoadError::all)
}

/// The bytes of a pair, as they were read, once.
pub(crate) struct Read {
    certificate: Secret,
    key: Secret,
    passphrase: Option<Secret>,
}

impl Read {
    /// Reads all of it; gives everything that cannot be read.
    pub(crate) fn of(pair: &mut Pair) -> Result<Self, Vec<LoadError>> {
        let certificate = read::read(&mut pair.certificate);
        let key = read::read(&mut pair.key);
        let passphrase = pair.passphrase.as_mut().map(read::read).transpose();
        match (certificate, key, passphrase) {
            (Ok(certificate), Ok(key), Ok(passphrase)) => Ok(Self { certificate, key, passphrase }),
            (certificate, key, passphrase) => {
                // What can be read may be wrong, too.
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

    /// What differs where the material does, or where it comes from.
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

    /// Makes an identity of it; gives everything that is wrong.
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

/// What is wrong with the texts of a pair: once for both where that is one mistake.
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

/// A SHA-256.
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
    let (chain, writing) = chain::order(certificates, chain::Leaf::OfKey(signer.as_ref()));
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

/// A certificate that rustls cannot use.
fn unusable_certificate(from: &Sourced<Input>, reason: &IdentityError) -> LoadError {
    let file = from.value.file().map_or("FILE".to_owned(), |f| pem::quoted(&f.display().to_string()));
    let fix = format!("have it issued again; `openssl x509 -text -noout -in {file}` shows what it says");
    Unusable::of(from, Expected::Certificate, "TLS-CERTIFICATE-UNUSABLE", reason.to_string(), fix)
}

/// A certificate chain that is examined without its key.
pub(crate) struct LoadedChain {
    /// The leaf first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) unchecked: Vec<String>,
}

/// Reads a certificate chain without its key: the first certificate that is no CA's is taken for the leaf.
pub(crate) fn load_chain(certificate: &mut Sourced<Input>, roots: &Roots) -> Result<LoadedChain, LoadError> {
    let text = read::read(certificate)?;
    let certificates =
        pem::certificates_or_der(&text).map_err(|reason| Unusable::pem(certificate, Expected::Certificate, &reason))?;
    let plain = certificate.value.file().filter(|_| pem::is_plain(&text, certificates.len()));
    let (chain, writing) = chain::order(certificates, chain::Leaf::Guessed);
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

/// A chain in its order, the leaf first, and how it was written.
struct Ordered<'a> {
    chain: &'a [CertificateDer<'static>],
    leaf: &'a CertificateSummary,
    writing: &'a chain::Writing,
    /// The file, where each certificate has lines of its own in it.
    plain: Option<&'a Path>,
}

impl Ordered<'_> {
    /// Returns the findings of the chain apart from its names, and what could not be checked.
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

/// Files that are looked at beside a certificate, and how large they may be.
const MAX_BESIDE: usize = 64;
const MAX_BESIDE_BYTES: u64 = 64 * 1024;

/// Looks for the issuer of `top` in the files beside `file`, as certbot and CAs deliver it: an intermediate there is
/// missing in the chain, and a root there issued the certificate itself. True where one is missing.
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
                "the certificate of the issuer ({}) is missing: it is an intermediate, and stands in {path:?}; clients cannot \
                 build the chain",
                issuer.subject()
            ),
            fix: match has_leaf {
                true => format!("give {other}, which has both"),
                false => format!("put them into one file and give that: `cat {from} {other} > {to}`"),
            },
            refused_by: Clients::ALL,
        });
        return true;
    }
    false
}

/// How a certificate of X.509 v1 becomes one with names: its request is made of it and its key, and signed again.
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
    let own = leaf.map(|leaf| crate::names::own(&leaf)).unwrap_or_default();
    let names = crate::names::alternative_names(&own, "NAME");
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

/// What a mismatch looks like, where that can be told, and what to do about it.
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
        let fix = "give the server's own certificate; a trust store is what clients have".to_owned();
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
            "; the first certificate is a CA's: this looks like chain.pem, the intermediates alone".to_owned(),
            fix,
        );
    }
    let other = first.key();
    let note = if other == key { String::new() } else { format!("; the key is {key}, and the certificate's {other}") };
    (note, compare)
}

/// Why a pair gives no identity. Nothing of what was read is in it.
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
        /// What to change.
        fix: String,
    },
    /// What was read is not what it should be.
    #[error(transparent)]
    Unusable(Box<Unusable>),
    /// Certificate and key are a pair, and no handshake comes about with them.
    #[error("{origin}: no handshake comes about with the certificate {subject}: {reason}")]
    NoHandshake {
        /// The leaf's subject.
        subject: String,
        /// The setting that gives it.
        origin: Origin,
        /// What rustls said.
        reason: String,
    },
    /// A reload found a certificate that is out of date, and what serves is better.
    #[error("{origin}: the certificate {subject} is out of date, and what serves is in date or ends later")]
    OutOfDate {
        /// The leaf's subject.
        subject: String,
        /// The setting that gives it.
        origin: Origin,
    },
    /// A reload found a revocation list that is out of date, and the one in force is not.
    #[error("{origin}: a revocation list is out of date, and those in force are not")]
    ListOutOfDate {
        /// The setting that gives the client CA.
        origin: Origin,
    },
    /// A reload found a certificate whose time has not come, and what serves is in date: it is to be read again then.
    #[error("{origin}: the certificate {subject} is not valid yet; it is taken when its time comes, in {starts_in} s")]
    NotYet {
        /// The leaf's subject.
        subject: String,
        /// The setting that gives it.
        origin: Origin,
        /// In how many seconds it is valid.
        starts_in: i64,
    },
    /// The key is another certificate's.
    #[error(transparent)]
    NotAPair(Box<Mismatch>),
    /// Clients would refuse what a reload found, and they take what serves.
    #[error(
        "{}: {} would refuse the new certificate, and accept what serves: {}",
        finding.origin,
        clients.listed(),
        finding.message
    )]
    Refused {
        /// What they would refuse it for.
        finding: Box<Finding>,
        /// Those that would.
        clients: Clients,
    },
    /// Clients whose certificates are accepted now would be refused for what a reload found.
    #[error("{}: clients whose certificates are accepted now would be refused: {}", finding.origin, finding.message)]
    LocksOut {
        /// What they would be refused for.
        finding: Box<Finding>,
    },
    /// Several things are wrong.
    #[error("{} (and {} more; spiced tls check lists all)", errors[0], errors.len() - 1)]
    Several {
        /// Each of them; at least two.
        errors: Vec<LoadError>,
    },
}

/// A key that is another certificate's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the key{key} (from {key_origin}) is not the key of the certificate {subject}{certificate} (from {certificate_origin}){note}"
)]
pub struct Mismatch {
    /// The leaf's subject.
    pub subject: String,
    /// Where the certificate was read, for a message.
    pub certificate: String,
    /// The setting that gives it.
    pub certificate_origin: Origin,
    /// Where the key was read, for a message.
    pub key: String,
    /// The setting that gives it.
    pub key_origin: Origin,
    /// What it looks like, to be appended to a message.
    pub note: String,
    /// What to do.
    pub fix: String,
}

/// Material that is not what it should be.
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
    /// PEM that does not hold what is wanted.
    pub(crate) fn pem(from: &Sourced<Input>, wanted: Expected, reason: &PemError) -> LoadError {
        let code = match wanted {
            Expected::Certificate | Expected::Key => reason.code(),
            Expected::ClientCa => "TLS-CLIENT-CA",
            Expected::RevocationList => "TLS-CRL",
            Expected::Authority => "TLS-CA-FILE",
        };
        let mut fix = reason.fix(wanted, from.value.file());
        // A variable reaches the pair above the list alone.
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
    /// As a finding of the doctor.
    pub fn finding(&self) -> Finding {
        let (code, origin, subject) = match self {
            Self::Unreadable { path, origin, .. } => ("TLS-UNREADABLE", origin, path.display().to_string()),
            Self::Unusable(unusable) => (unusable.code, &unusable.origin, String::new()),
            Self::NoHandshake { origin, subject, .. } => ("TLS-NO-HANDSHAKE", origin, subject.clone()),
            Self::OutOfDate { origin, subject } => ("TLS-OUT-OF-DATE", origin, subject.clone()),
            Self::ListOutOfDate { origin } => ("TLS-CRL-OUT-OF-DATE", origin, String::new()),
            Self::NotYet { origin, subject, .. } => ("TLS-NOT-YET-VALID", origin, subject.clone()),
            Self::Refused { finding, .. } | Self::LocksOut { finding } => {
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

    /// What to change, in one sentence.
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
            Self::Refused { finding, .. } | Self::LocksOut { finding } => &finding.fix,
            Self::Several { errors } => errors[0].hint(),
            Self::NotAPair(mismatch) => &mismatch.fix,
        }
    }

    /// One error of at least one.
    pub(crate) fn all(mut errors: Vec<Self>) -> Self {
        if errors.len() == 1 { errors.swap_remove(0) } else { Self::Several { errors } }
    }

    /// True where the material may be one that is being written: another look may find it whole.
    pub(crate) fn maybe_partial_write(&self) -> bool {
        match self {
            Self::NotAPair(_) | Self::Unreadable { .. } => true,
            Self::Unusable(unusable) => unusable.may_be_torn,
            // A CA and its list are written one after the other.
            Self::LocksOut { .. } => true,
            // A file that is written in parts has the leaf first.
            Self::Refused { finding, .. } => finding.code == "TLS-INTERMEDIATE-MISSING",
            Self::Several { errors } => errors.iter().any(Self::maybe_partial_write),
            _ => false,
        }
    }

    /// True where one of two secrets may have changed before the other: certificate and key are no pair, or a passphrase
    /// does not open its key.
    pub fn is_mid_rotation(&self) -> bool {
        match self {
            Self::NotAPair(_) => true,
            Self::Unusable(unusable) => ["TLS-KEY-PASSPHRASE", "TLS-KEY-ENCRYPTED"].contains(&unusable.code),
            Self::Several { errors } => errors.iter().any(Self::is_mid_rotation),
            _ => false,
        }
    }

    /// In how many seconds what was found is valid, where its time has not come.
    pub fn starts_in(&self) -> Option<i64> {
        match self {
            Self::NotYet { starts_in, .. } => Some(*starts_in),
            _ => None,
        }
    }
}

/// Where it is read, for a message: ` in /etc/tls.crt`, or empty.
pub(crate) fn place(from: &Sourced<Input>) -> String {
    match &from.value {
        Input::File(path) => format!(" in {path:?}"),
        Input::Text(_) | Input::Watched(_) => String::new(),
    }
}

#[cfg(test)]
mod tests;

//! A development CA and a leaf for this machine, created on first use and kept in a directory.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use tls_core::{CertificateSummary, Origin, Sourced};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use crate::pem;
use crate::source::{Input, Pair};

const CA_LIFE: Duration = Duration::from_secs(3650 * 86_400);
/// Browsers accept at most 398 days.
const LEAF_LIFE: Duration = Duration::from_secs(397 * 86_400);
/// A leaf that expires within this time is replaced.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);

const CA_KEY: &str = "ca-key.pem";
const LEAF: &str = "server.pem";
const LEAF_KEY: &str = "server-key.pem";
/// The common name of a development leaf.
const LEAF_NAME: &str = "localhost";
/// The prefix of a development CA's common name.
const CA_NAME: &str = "spiced development CA";

/// A development CA and leaf: `ca.pem`, `ca-key.pem`, `server.pem`, `server-key.pem`.
#[derive(Debug, Clone)]
pub struct SelfSigned {
    folder: PathBuf,
}

impl SelfSigned {
    /// Uses the given directory, which is created on first use.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Returns the path of the CA certificate, which clients must trust.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Returns true if `leaf` expires so soon that [`ensure`](Self::ensure) replaces it.
    pub fn is_due(leaf: &CertificateSummary) -> bool {
        ends_within(leaf, RENEW_BEFORE)
    }

    /// Returns the paths of certificate and key, without creating the files.
    pub fn pair(&self, origin: &Origin) -> Pair {
        let file = |name| Sourced::new(Input::File(self.folder.join(name)), origin.clone());
        Pair::new(file(LEAF), file(LEAF_KEY))
    }

    /// Returns true if the leaf exists.
    pub fn is_made(&self) -> bool {
        self.folder.join(LEAF).is_file()
    }

    /// Returns the development CA and leaf that `pair` refers to, if both were created here, so that the leaf can be
    /// replaced. Reads files.
    pub fn keeping(pair: &Pair) -> Option<Self> {
        let (certificate, key) = (pair.certificate.value.file()?, pair.key.value.file()?);
        let made = Self::new(certificate.parent()?);
        if certificate != made.folder.join(LEAF) || key != made.folder.join(LEAF_KEY) {
            return None;
        }
        let read = |path: &Path| -> Option<CertificateSummary> {
            let chain = pem::certificates(&fs::read_to_string(path).ok()?.into()).ok()?;
            CertificateSummary::read(chain.first()?).ok()
        };
        let (ca, leaf) = (read(&made.ca_file())?, read(certificate)?);
        // A certificate created by other means, perhaps signed with this CA, must not be replaced.
        let names = names();
        let ours = made.folder.join(CA_KEY).is_file()
            && ca.subject.contains(CA_NAME)
            && leaf.issuer == ca.subject
            && leaf.subject == format!("CN={LEAF_NAME}")
            && leaf.names.iter().all(|name| names.contains(name));
        ours.then_some(made)
    }

    /// Creates what is missing, and replaces a leaf that expires within 30 days or names another machine. Returns true
    /// if the leaf is new. The CA is kept, so that clients that trust it continue to. Keys have mode 0600.
    ///
    /// # Errors
    /// Fails if the directory cannot be written, or contains a CA that cannot be read.
    pub fn ensure(&self) -> Result<bool, SelfSignedError> {
        let fail = |cause| SelfSignedError::Write { folder: self.folder.clone(), cause };
        let folder = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        folder.map_err(fail)?;
        let (ca_file, ca_key_file) = (self.ca_file(), self.folder.join(CA_KEY));
        let (leaf_file, leaf_key_file) = (self.folder.join(LEAF), self.folder.join(LEAF_KEY));

        let issuer = match (fs::read_to_string(&ca_file), fs::read_to_string(&ca_key_file).map(Zeroizing::new)) {
            (Ok(certificate), Ok(key)) => issuer(&certificate, &key)
                .map_err(|reason| SelfSignedError::BrokenCa { folder: self.folder.clone(), reason })?,
            // Clients may trust the existing CA: never replace it silently.
            (certificate, key) if ca_file.exists() || ca_key_file.exists() => {
                // Nothing to report as a cause: the files appeared between the reads.
                let cause = certificate.err().or(key.err()).unwrap_or_else(|| io::ErrorKind::NotFound.into());
                let reason = BrokenCa::Unreadable(cause);
                return Err(SelfSignedError::BrokenCa { folder: self.folder.clone(), reason });
            }
            _ => {
                let key = KeyPair::generate().map_err(SelfSignedError::Generate)?;
                let certificate = ca_params().self_signed(&key).map_err(SelfSignedError::Generate)?.pem();
                // Write the key first: a certificate without its key would never be repaired.
                replace(&ca_key_file, 0o600, &key.serialize_pem()).map_err(fail)?;
                replace(&ca_file, 0o644, &certificate).map_err(fail)?;
                let _ = fs::remove_file(&leaf_file);
                Issuer::from_ca_cert_pem(&certificate, key).map_err(SelfSignedError::Generate)?
            }
        };
        let names = names();
        if !is_current(&leaf_file, &names) || crate::load(&mut self.pair(&Origin::Program)).is_err() {
            let key = KeyPair::generate().map_err(SelfSignedError::Generate)?;
            let leaf = leaf_params(names).map_err(SelfSignedError::Generate)?;
            let leaf = leaf.signed_by(&key, &issuer).map_err(SelfSignedError::Generate)?;
            replace(&leaf_key_file, 0o600, &key.serialize_pem()).map_err(fail)?;
            replace(&leaf_file, 0o644, &leaf.pem()).map_err(fail)?;
            return Ok(true);
        }
        Ok(false)
    }
}

/// Why there is no development certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelfSignedError {
    /// The directory cannot be written.
    #[error("cannot write the development certificate to {}: {cause}", folder.display())]
    Write {
        /// The directory.
        folder: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// A CA exists but cannot be read.
    #[error("the development CA in {} cannot be used: {reason}; remove the directory, and a new CA is created", folder.display())]
    BrokenCa {
        /// The directory.
        folder: PathBuf,
        /// The reason.
        #[source]
        reason: BrokenCa,
    },
    /// A certificate could not be created.
    #[error("cannot create a development certificate: {0}")]
    Generate(#[source] rcgen::Error),
}

/// What is wrong with a development CA.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokenCa {
    /// One of the files cannot be read.
    #[error("ca.pem and ca-key.pem cannot both be read ({0})")]
    Unreadable(#[source] io::Error),
    /// The certificate cannot be read.
    #[error("ca.pem: {0}")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The key cannot be read.
    #[error("ca-key.pem: {0}")]
    Key(#[source] rcgen::Error),
    /// The key belongs to another certificate.
    #[error("ca-key.pem is not the key of ca.pem")]
    NotAPair,
    /// The certificate expires before a leaf would.
    #[error("ca.pem ends soon")]
    EndsSoon,
}

impl BrokenCa {
    fn certificate(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Certificate(cause.into())
    }
}

fn issuer(certificate: &str, key: &str) -> Result<Issuer<'static, KeyPair>, BrokenCa> {
    let key = KeyPair::from_pem(key).map_err(BrokenCa::Key)?;
    let chain = pem::certificates(&certificate.into()).map_err(BrokenCa::certificate)?;
    let summary = CertificateSummary::read(&chain[0]).map_err(BrokenCa::certificate)?;
    let (_, parsed) = X509Certificate::from_der(&chain[0]).map_err(BrokenCa::certificate)?;
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err(BrokenCa::NotAPair);
    }
    if ends_within(&summary, LEAF_LIFE) {
        return Err(BrokenCa::EndsSoon);
    }
    Issuer::from_ca_cert_pem(certificate, key).map_err(BrokenCa::certificate)
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(&format!("{CA_NAME} ({})", host()));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, CA_LIFE);
    params
}

fn leaf_params(names: Vec<String>) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = distinguished_name(LEAF_NAME);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, LEAF_LIFE);
    Ok(params)
}

fn distinguished_name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Sets the validity period. It starts an hour ago, to allow for clock skew.
fn valid_for(params: &mut CertificateParams, life: Duration) {
    let start = SystemTime::now() - Duration::from_secs(3600);
    params.not_before = start.into();
    params.not_after = (start + life).into();
}

/// Returns the names that are used for this machine during development.
fn names() -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), host(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.dedup();
    names
}

fn host() -> String {
    let name = hostname::get().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let usable = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    if usable { name.to_ascii_lowercase() } else { "localhost".to_owned() }
}

fn is_current(leaf_file: &Path, names: &[String]) -> bool {
    let Ok(text) = fs::read_to_string(leaf_file) else { return false };
    let Ok(chain) = pem::certificates(&text.into()) else { return false };
    let Ok(leaf) = CertificateSummary::read(&chain[0]) else { return false };
    !SelfSigned::is_due(&leaf) && names.iter().all(|name| leaf.names.contains(name))
}

fn ends_within(certificate: &CertificateSummary, span: Duration) -> bool {
    certificate.seconds_left(SystemTime::now()) < span.as_secs() as i64
}

/// Writes a new file with the right mode and renames it over `path`, so that no reader sees a partial file.
fn replace(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_once_and_is_a_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let made = SelfSigned::new(folder.path().join("tls"));
        assert!(!made.is_made());
        made.ensure().unwrap();
        let pair = made.pair(&Origin::Default);
        assert!(made.is_made() && SelfSigned::keeping(&pair).is_some());
        let loaded = crate::load(&mut pair.clone()).unwrap();
        // A leaf signed directly by a private CA is reported as information only.
        assert!(loaded.findings.iter().all(|f| f.severity == crate::Severity::Info), "{:?}", loaded.findings);
        for name in ["localhost", "127.0.0.1", "::1"] {
            assert!(loaded.identity.leaf().names.contains(&name.to_owned()), "{name}");
        }
        for key in ["ca-key.pem", "server-key.pem"] {
            let mode = fs::metadata(folder.path().join("tls").join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
        let before = fs::read(made.ca_file()).unwrap();
        made.ensure().unwrap();
        let again = crate::load(&mut pair.clone()).unwrap();
        assert!(again.identity.same_chain(&loaded.identity));
        assert_eq!(fs::read(made.ca_file()).unwrap(), before);
    }

    #[test]
    fn a_lost_leaf_is_made_again_by_the_same_ca() {
        let folder = tempfile::tempdir().unwrap();
        let made = SelfSigned::new(folder.path());
        made.ensure().unwrap();
        let ca = fs::read(made.ca_file()).unwrap();
        for lost in ["server.pem", "server-key.pem"] {
            fs::remove_file(folder.path().join(lost)).unwrap();
            made.ensure().unwrap();
            crate::load(&mut made.pair(&Origin::Default)).unwrap();
            assert_eq!(fs::read(made.ca_file()).unwrap(), ca);
        }
        fs::remove_file(folder.path().join("ca-key.pem")).unwrap();
        assert!(matches!(made.ensure(), Err(SelfSignedError::BrokenCa { .. })));
        assert_eq!(fs::read(made.ca_file()).unwrap(), ca, "a CA that may be trusted is not replaced");
    }
}

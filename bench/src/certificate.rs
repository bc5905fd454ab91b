//! One CA and one leaf certificate, for all servers of a run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, NamedGroup, RootCertStore};

use crate::Outcome;

/// The name in the leaf certificate.
pub(crate) const NAME: &str = "localhost";

/// The chain and key files of a leaf certificate, and the CA for clients.
pub(crate) struct Certificate {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificate {
    /// Creates a CA and a P-256 leaf certificate in the given directory.
    pub(crate) fn make(folder: &Path) -> Outcome<Self> {
        let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "spiced-bench CA");
        let ca_key = KeyPair::generate().map_err(failed)?;
        let ca = params.self_signed(&ca_key).map_err(failed)?;
        let issuer = Issuer::new(params, ca_key);
        let (chain, key) = issue(&issuer, &[NAME, "127.0.0.1"], folder, "leaf")?;
        Ok(Self { chain, key, root: ca.der().clone(), issuer })
    }

    /// Creates the chain and key files of a leaf certificate for each of `names`, in the given directory.
    pub(crate) fn more(&self, names: &[String], folder: &Path) -> Outcome<Vec<(PathBuf, PathBuf)>> {
        names.iter().map(|name| issue(&self.issuer, &[name], folder, name)).collect()
    }

    /// Returns a client configuration that trusts the CA, offers `protocol` and X25519, and resumes sessions if
    /// `resumes`.
    pub(crate) fn client(&self, protocol: &str, resumes: bool) -> Outcome<Arc<ClientConfig>> {
        let mut provider = CryptoProvider::clone(&tls_core::provider());
        provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
        self.client_with(provider, protocol, resumes)
    }

    /// Returns a client configuration that offers X25519MLKEM768 first, as browsers and Go do.
    pub(crate) fn modern_client(&self, protocol: &str) -> Outcome<Arc<ClientConfig>> {
        self.client_with(CryptoProvider::clone(&tls_core::provider()), protocol, false)
    }

    fn client_with(&self, provider: CryptoProvider, protocol: &str, resumes: bool) -> Outcome<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).map_err(|e| format!("the CA: {e}"))?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        config.resumption = if resumes { Resumption::in_memory_sessions(256) } else { Resumption::disabled() };
        Ok(Arc::new(config))
    }
}

fn failed(error: rcgen::Error) -> String {
    format!("cannot make a certificate: {error}")
}

/// Issues a P-256 leaf certificate for `names`, as two files named after `file`.
fn issue(issuer: &Issuer<'_, KeyPair>, names: &[&str], folder: &Path, file: &str) -> Outcome<(PathBuf, PathBuf)> {
    let key = KeyPair::generate().map_err(failed)?;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let leaf = CertificateParams::new(names).map_err(failed)?.signed_by(&key, issuer).map_err(failed)?;
    let (chain, key_file) = (folder.join(format!("{file}.pem")), folder.join(format!("{file}-key.pem")));
    let write = |path: &Path, text: String| fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()));
    write(&chain, leaf.pem())?;
    write(&key_file, key.serialize_pem())?;
    Ok((chain, key_file))
}

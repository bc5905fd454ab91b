//! One CA and one leaf, for all servers of a run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use crate::Outcome;

/// The name in the leaf.
pub(crate) const NAME: &str = "localhost";

/// A leaf's chain and key as files, and what a client trusts.
pub(crate) struct Certificate {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    root: CertificateDer<'static>,
}

impl Certificate {
    /// Makes a CA and a P-256 leaf in `folder`.
    pub(crate) fn make(folder: &Path) -> Outcome<Self> {
        let failed = |e: rcgen::Error| format!("cannot make a certificate: {e}");
        let mut params = CertificateParams::new(Vec::new()).map_err(failed)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "spiced-bench CA");
        let ca_key = KeyPair::generate().map_err(failed)?;
        let ca = params.self_signed(&ca_key).map_err(failed)?;
        let key = KeyPair::generate().map_err(failed)?;
        let leaf = CertificateParams::new(vec![NAME.to_owned(), "127.0.0.1".to_owned()]).map_err(failed)?;
        let leaf = leaf.signed_by(&key, &Issuer::new(params, ca_key)).map_err(failed)?;

        let (chain, key_file) = (folder.join("leaf.pem"), folder.join("leaf-key.pem"));
        let write = |path: &Path, text: String| fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()));
        write(&chain, leaf.pem())?;
        write(&key_file, key.serialize_pem())?;
        Ok(Self { chain, key: key_file, root: ca.der().clone() })
    }

    /// A client that trusts the CA, offers `protocol`, and resumes sessions or does not.
    pub(crate) fn client(&self, protocol: &str, resumes: bool) -> Outcome<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).map_err(|e| format!("the CA: {e}"))?;
        let mut config = ClientConfig::builder_with_provider(tls_core::provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        config.resumption = if resumes { Resumption::in_memory_sessions(256) } else { Resumption::disabled() };
        Ok(Arc::new(config))
    }
}

//! Certificates: from a CA, and self-signed.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType,
    generate_simple_self_signed,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tls_core::{Identity, Origin};

/// A chain and its key.
pub type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A CA.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The certificate of the CA.
    pub der: CertificateDer<'static>,
}

impl Authority {
    /// Creates a CA with this common name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), der }
    }

    /// Issues a leaf for `localhost` with the common name `job` and the SPIFFE id of a job.
    pub fn issue(&self) -> Pair {
        let (leaf, key) = self.leaf();
        (vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    /// Issues such a leaf as PEM: the certificate and the key.
    pub fn issue_pem(&self) -> (String, String) {
        let (leaf, key) = self.leaf();
        (leaf.pem(), key.serialize_pem())
    }

    fn leaf(&self) -> (Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://test/job".try_into().unwrap()));
        params.distinguished_name.push(DnType::CommonName, "job");
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Issues the identity of a server named `localhost`.
    pub fn identity(&self) -> Identity {
        let (chain, key) = self.issue();
        Identity::new(chain, key, Origin::Program, Origin::Program).unwrap()
    }
}

/// Creates a self-signed identity for `name`, and its certificate, which is its own root.
pub fn self_signed(name: &str) -> (Identity, CertificateDer<'static>) {
    let made = generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let root = made.cert.der().clone();
    (Identity::new(vec![root.clone()], key, Origin::Program, Origin::Program).unwrap(), root)
}

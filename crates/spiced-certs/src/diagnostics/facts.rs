//! The properties of one certificate that decide whether a client accepts it.

use std::net::IpAddr;

use aws_lc_rs::signature as alg;
use aws_lc_rs::signature::{UnparsedPublicKey, VerificationAlgorithm};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::{AuthorityKeyIdentifier, GeneralName, NameConstraints, ParsedExtension};
use x509_parser::prelude::{ExtendedKeyUsage, FromDer, KeyUsage, X509Certificate, X509Version};
use x509_parser::public_key::PublicKey;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::signature_algorithm::RsaSsaPssParams;
use x509_parser::x509::AlgorithmIdentifier;

use crate::pem::der::key_name;

/// A parsed X.509 certificate.
pub(crate) struct Facts<'a> {
    pub(crate) der: &'a CertificateDer<'a>,
    pub(crate) x509: X509Certificate<'a>,
}

/// Whether a signature was made with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signed {
    Yes,
    No,
    /// Signatures of this kind cannot be verified here.
    Unknown,
}

impl<'a> Facts<'a> {
    /// Parses a certificate; `None` if it is not X.509.
    pub(crate) fn of(der: &'a CertificateDer<'a>) -> Option<Self> {
        X509Certificate::from_der(der).ok().map(|(_, x509)| Self { der, x509 })
    }

    pub(crate) fn subject(&self) -> String {
        match self.x509.subject().to_string() {
            empty if empty.is_empty() => "(no subject)".to_owned(),
            text => text,
        }
    }

    pub(crate) fn issuer(&self) -> String {
        match self.x509.issuer().to_string() {
            empty if empty.is_empty() => "(no name)".to_owned(),
            text => text,
        }
    }

    /// Returns true if issuer and subject have the same name.
    pub(crate) fn is_self_issued(&self) -> bool {
        self.x509.subject().as_raw() == self.x509.issuer().as_raw()
    }

    /// Returns true if the certificate is signed with its own key.
    pub(crate) fn is_self_signed(&self) -> bool {
        self.is_self_issued() && self.signed_by(self) != Signed::No
    }

    /// Returns true if the subject of `issuer` is the issuer name of this certificate.
    pub(crate) fn names_as_issuer(&self, issuer: &Facts<'_>) -> bool {
        self.x509.issuer().as_raw() == issuer.x509.subject().as_raw()
    }

    /// Verifies the signature with the key of `issuer`.
    pub(crate) fn signed_by(&self, issuer: &Facts<'_>) -> Signed {
        let signature = &self.x509.signature_value.data;
        issuer.signed(self.x509.tbs_certificate.as_ref(), &self.x509.signature_algorithm, signature)
    }

    /// Verifies the signature of `list` with the key of this certificate.
    pub(crate) fn signed_list(&self, list: &CertificateRevocationList<'_>) -> Signed {
        self.signed(list.tbs_cert_list.as_ref(), &list.signature_algorithm, &list.signature_value.data)
    }

    fn signed(&self, content: &[u8], algorithm: &AlgorithmIdentifier<'_>, signature: &[u8]) -> Signed {
        let Some(algorithm) = verification(algorithm, self) else { return Signed::Unknown };
        let key = UnparsedPublicKey::new(algorithm, &self.x509.public_key().subject_public_key.data);
        match key.verify(content, signature) {
            Ok(()) => Signed::Yes,
            Err(_) => Signed::No,
        }
    }

    pub(crate) fn is_v1(&self) -> bool {
        self.x509.version() != X509Version::V3
    }

    pub(crate) fn is_ca(&self) -> bool {
        self.x509.basic_constraints().ok().flatten().is_some_and(|constraints| constraints.value.ca)
    }

    /// Returns the number of intermediates that may follow below it.
    pub(crate) fn path_length(&self) -> Option<u32> {
        self.x509.basic_constraints().ok().flatten().and_then(|constraints| constraints.value.path_len_constraint)
    }

    pub(crate) fn key_usage(&self) -> Option<&KeyUsage> {
        self.x509.key_usage().ok().flatten().map(|usage| usage.value)
    }

    pub(crate) fn extended_key_usage(&self) -> Option<&ExtendedKeyUsage<'_>> {
        self.x509.extended_key_usage().ok().flatten().map(|usage| usage.value)
    }

    fn extension<T>(&self, pick: impl Fn(&ParsedExtension<'a>) -> Option<T>) -> Option<T> {
        self.x509.extensions().iter().find_map(|extension| pick(extension.parsed_extension()))
    }

    pub(crate) fn authority_key(&self) -> Option<AuthorityKeyIdentifier<'a>> {
        self.extension(|parsed| match parsed {
            ParsedExtension::AuthorityKeyIdentifier(id) => Some(id.clone()),
            _ => None,
        })
    }

    pub(crate) fn subject_key(&self) -> Option<&'a [u8]> {
        self.extension(|parsed| match parsed {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        })
    }

    /// Returns the name constraints, and whether they are critical.
    pub(crate) fn name_constraints(&self) -> Option<(&NameConstraints<'_>, bool)> {
        self.x509.name_constraints().ok().flatten().map(|constraints| (constraints.value, constraints.critical))
    }

    /// Returns the HTTP URLs at which the certificate says its issuer's certificate is available (RFC 5280 §4.2.2.1).
    pub(crate) fn issuer_urls(&self) -> Vec<&'a str> {
        const CA_ISSUERS: &str = "1.3.6.1.5.5.7.48.2";
        let urls = |parsed: &ParsedExtension<'a>| match parsed {
            ParsedExtension::AuthorityInfoAccess(access) => Some(
                access
                    .accessdescs
                    .iter()
                    .filter(|one| one.access_method.to_id_string() == CA_ISSUERS)
                    .filter_map(|one| match one.access_location {
                        GeneralName::URI(url) if url.starts_with("http") => Some(url),
                        _ => None,
                    })
                    .collect(),
            ),
            _ => None,
        };
        self.extension(urls).unwrap_or_default()
    }

    /// Returns true if the certificate has a policy of the CA/Browser Forum or proofs of a public log. No private CA
    /// issues either.
    pub(crate) fn is_public(&self) -> bool {
        self.x509.extensions().iter().any(|extension| match extension.parsed_extension() {
            ParsedExtension::SCT(_) => true,
            ParsedExtension::CertificatePolicies(policies) => {
                policies.iter().any(|policy| policy.policy_id.to_id_string().starts_with("2.23.140.1."))
            }
            _ => false,
        })
    }

    /// Returns the OID of a critical extension that is not supported.
    pub(crate) fn unknown_critical(&self) -> Option<String> {
        let unknown = |extension: &&x509_parser::extensions::X509Extension<'_>| {
            extension.critical && extension.parsed_extension().unsupported()
        };
        self.x509.extensions().iter().find(unknown).map(|extension| extension.oid.to_id_string())
    }

    pub(crate) fn has_extension(&self, oid: &str) -> bool {
        self.x509.extensions().iter().any(|extension| extension.oid.to_id_string() == oid)
    }

    pub(crate) fn has_critical(&self, oid: &str) -> bool {
        self.x509.extensions().iter().any(|extension| extension.critical && extension.oid.to_id_string() == oid)
    }

    /// Returns the alternative names that are neither host names nor addresses.
    pub(crate) fn other_names(&self) -> OtherNames<'_> {
        let mut names = OtherNames::default();
        let given = self.x509.subject_alternative_name().ok().flatten();
        for name in given.iter().flat_map(|given| &given.value.general_names) {
            match name {
                GeneralName::RFC822Name(mail) => names.mails.push(mail),
                GeneralName::URI(uri) => names.uris.push(uri),
                _ => {}
            }
        }
        names
    }

    pub(crate) fn alternative_names_are_critical(&self) -> bool {
        self.x509.subject_alternative_name().ok().flatten().is_some_and(|names| names.critical)
    }

    /// Returns the names that the certificate is valid for.
    pub(crate) fn names(&self) -> Names {
        let mut names = Names {
            common: self
                .x509
                .subject()
                .iter_common_name()
                .filter_map(|name| name.as_str().ok().map(str::to_owned))
                .collect(),
            ..Names::default()
        };
        let Some(given) = self.x509.subject_alternative_name().ok().flatten() else { return names };
        for name in &given.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.dns.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => names.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        names
    }

    /// Returns the kind and size of its key, for a message.
    pub(crate) fn key(&self) -> String {
        let key = self.x509.public_key();
        let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
        let bits = match key.parsed() {
            Ok(PublicKey::RSA(rsa)) => Some(rsa.key_size()),
            _ => None,
        };
        key_name(&key.algorithm.algorithm.to_id_string(), curve.map(|oid| oid.to_id_string()).as_deref(), bits)
    }

    pub(crate) fn rsa_bits(&self) -> Option<usize> {
        match self.x509.public_key().parsed().ok()? {
            PublicKey::RSA(key) => Some(key.key_size()),
            _ => None,
        }
    }

    pub(crate) fn hash(&self) -> Hash {
        Hash::of(&self.x509.signature_algorithm.algorithm.to_id_string())
    }
}

/// Mail addresses and URIs.
#[derive(Debug, Default)]
pub(crate) struct OtherNames<'a> {
    pub(crate) mails: Vec<&'a str>,
    pub(crate) uris: Vec<&'a str>,
}

/// Converts the address of an alternative name.
pub(crate) fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(Into::into),
        16 => <[u8; 16]>::try_from(bytes).ok().map(Into::into),
        _ => None,
    }
}

/// The hash of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Md5,
    Sha1,
    Sha224,
    Good,
}

impl Hash {
    fn of(algorithm: &str) -> Self {
        match algorithm {
            "1.2.840.113549.1.1.2" | "1.2.840.113549.1.1.4" => Self::Md5,
            "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" | "1.2.840.10040.4.3" | "1.3.14.3.2.29" => Self::Sha1,
            "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => Self::Sha224,
            _ => Self::Good,
        }
    }
}

fn verification(algorithm: &AlgorithmIdentifier<'_>, issuer: &Facts<'_>) -> Option<&'static dyn VerificationAlgorithm> {
    let key = &issuer.x509.public_key().algorithm;
    let curve = key.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok()).map(|oid| oid.to_id_string());
    Some(match (algorithm.algorithm.to_id_string().as_str(), curve.as_deref()) {
        ("1.2.840.113549.1.1.5" | "1.3.14.3.2.29", _) => &alg::RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
        ("1.2.840.113549.1.1.11", _) => &alg::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        ("1.2.840.113549.1.1.12", _) => &alg::RSA_PKCS1_2048_8192_SHA384,
        ("1.2.840.113549.1.1.13", _) => &alg::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        ("1.2.840.113549.1.1.10", _) => {
            let parameters = algorithm.parameters.as_ref()?;
            match RsaSsaPssParams::try_from(parameters).ok()?.hash_algorithm_oid().to_id_string().as_str() {
                "2.16.840.1.101.3.4.2.1" => &alg::RSA_PSS_2048_8192_SHA256,
                "2.16.840.1.101.3.4.2.2" => &alg::RSA_PSS_2048_8192_SHA384,
                "2.16.840.1.101.3.4.2.3" => &alg::RSA_PSS_2048_8192_SHA512,
                _ => return None,
            }
        }
        ("1.2.840.10045.4.1", Some("1.2.840.10045.3.1.7")) => &alg::ECDSA_P256_SHA1_ASN1,
        ("1.2.840.10045.4.3.2", Some("1.2.840.10045.3.1.7")) => &alg::ECDSA_P256_SHA256_ASN1,
        ("1.2.840.10045.4.3.3", Some("1.2.840.10045.3.1.7")) => &alg::ECDSA_P256_SHA384_ASN1,
        ("1.2.840.10045.4.3.4", Some("1.2.840.10045.3.1.7")) => &alg::ECDSA_P256_SHA512_ASN1,
        ("1.2.840.10045.4.3.2", Some("1.3.132.0.34")) => &alg::ECDSA_P384_SHA256_ASN1,
        ("1.2.840.10045.4.3.3", Some("1.3.132.0.34")) => &alg::ECDSA_P384_SHA384_ASN1,
        ("1.2.840.10045.4.3.4", Some("1.3.132.0.34")) => &alg::ECDSA_P384_SHA512_ASN1,
        ("1.2.840.10045.4.1", Some("1.3.132.0.35")) => &alg::ECDSA_P521_SHA1_ASN1,
        ("1.2.840.10045.4.3.1", Some("1.3.132.0.35")) => &alg::ECDSA_P521_SHA224_ASN1,
        ("1.2.840.10045.4.3.2", Some("1.3.132.0.35")) => &alg::ECDSA_P521_SHA256_ASN1,
        ("1.2.840.10045.4.3.3", Some("1.3.132.0.35")) => &alg::ECDSA_P521_SHA384_ASN1,
        ("1.2.840.10045.4.3.4", Some("1.3.132.0.35")) => &alg::ECDSA_P521_SHA512_ASN1,
        ("1.2.840.10045.4.3.2", Some("1.3.132.0.10")) => &alg::ECDSA_P256K1_SHA256_ASN1,
        ("1.3.101.112", _) => &alg::ED25519,
        _ => return None,
    })
}

/// The names that a certificate is valid for.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) dns: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
    /// The common names of the subject.
    pub(crate) common: Vec<String>,
}

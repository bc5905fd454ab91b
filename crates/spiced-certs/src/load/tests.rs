use std::fs;

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ED25519,
};
use tls_core::{Origin, Secret};

use super::*;
use crate::Severity;

struct Authority {
    root: String,
    intermediate: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let ca = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let root_key = KeyPair::generate().unwrap();
    let root = ca("root").self_signed(&root_key).unwrap();
    let root_issuer = Issuer::from_ca_cert_pem(&root.pem(), root_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let intermediate = ca("intermediate").signed_by(&key, &root_issuer).unwrap();
    Authority {
        root: root.pem(),
        intermediate: intermediate.pem(),
        issuer: Issuer::from_ca_cert_pem(&intermediate.pem(), key).unwrap(),
    }
}

fn leaf(authority: &Authority, key: &KeyPair) -> String {
    CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(key, &authority.issuer).unwrap().pem()
}

fn text(certificate: &str, key: &str) -> Pair {
    let input = |text: &str, name: &str| Sourced::new(Input::Text(Secret::from(text)), Origin::Flag(name.to_owned()));
    Pair::new(input(certificate, "--tls-certificate"), input(key, "--tls-key"))
}

#[test]
fn every_key_kind_pairs() {
    let authority = authority();
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let loaded = load(&mut text(&leaf(&authority, &key), &key.serialize_pem())).unwrap();
        assert_eq!(loaded.identity.leaf().names, ["localhost"]);
    }
}

#[test]
fn chains_are_brought_into_order() {
    let authority = authority();
    let key = KeyPair::generate().unwrap();
    let (leaf, mid, root) = (leaf(&authority, &key), &authority.intermediate, &authority.root);
    for (chain, out_of_order) in [
        (format!("{leaf}{mid}"), false),
        (format!("{leaf}{mid}{root}"), false),
        (format!("{root}{mid}{leaf}"), true),
        (format!("{leaf}{root}{mid}"), true),
        (format!("{mid}{leaf}"), true),
    ] {
        let loaded = load(&mut text(&chain, &key.serialize_pem())).unwrap();
        assert_eq!(loaded.identity.leaf().names, ["localhost"]);
        assert_eq!(loaded.findings.iter().any(|f| f.code == "TLS-CHAIN-ORDER"), out_of_order);
    }
}

#[test]
fn what_fails_names_the_setting_and_the_way_out() {
    let authority = authority();
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let leaf = leaf(&authority, &key);
    let mismatch = load(&mut text(&leaf, &other.serialize_pem())).unwrap_err();
    assert!(
        mismatch.to_string().contains("--tls-key") && mismatch.to_string().contains("--tls-certificate"),
        "{mismatch}"
    );
    let swapped = load(&mut text(&key.serialize_pem(), &leaf)).unwrap_err().to_string();
    assert!(swapped.starts_with("--tls-certificate: the certificate: ") && swapped.contains("swapped"), "{swapped}");
    let missing = Sourced::new(Input::File("/nowhere/tls.crt".into()), Origin::Flag("--tls-certificate-file".into()));
    let missing = load(&mut Pair { certificate: missing, ..text("", "") }).unwrap_err().to_string();
    let cause = "--tls-certificate-file: cannot read \"/nowhere/tls.crt\": there is no directory \"/nowhere\"";
    // The second error is about the key, which is empty.
    assert_eq!(missing, format!("{cause} (and 1 more; spiced tls check lists all)"));
}

#[test]
fn a_key_that_others_may_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    let authority = authority();
    let key = KeyPair::generate().unwrap();
    fs::write(&path, key.serialize_pem()).unwrap();
    let mut pair = text(&leaf(&authority, &key), "");
    pair.key.value = Input::File(path.clone());
    for (mode, expected) in [(0o644, Some(Severity::Warning)), (0o600, None), (0o400, None)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let found = load(&mut pair).unwrap().findings.into_iter().find(|f| f.code == "TLS-KEY-PERMISSIONS");
        assert_eq!(found.map(|f| f.severity), expected, "{mode:o}");
    }
}

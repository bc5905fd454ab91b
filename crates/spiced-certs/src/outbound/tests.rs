use std::fs;
use std::io;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use tls_core::{Origin, Secret, Sourced, provider};

use super::*;
use crate::source::{Input, Pair};

struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&made.pem(), key).unwrap();
    Authority { pem: made.pem(), der: made.der().clone(), issuer }
}

/// Returns a leaf for `localhost`, modified by `change`.
fn leaf(by: &Authority, change: impl FnOnce(&mut CertificateParams)) -> (String, CertificateDer<'static>, KeyPair) {
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "leaf");
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let made = params.signed_by(&key, &by.issuer).unwrap();
    (made.pem(), made.der().clone(), key)
}

fn text(pem: &str) -> Sourced<Input> {
    Sourced::new(Input::Text(Secret::from(pem)), Origin::Flag("--ca".into()))
}

fn server(chain: Vec<CertificateDer<'static>>, key: &KeyPair, clients: Option<&Authority>) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(ca.der.clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap()
}

/// Runs a complete handshake in memory; returns the client's result.
fn shake(config: Arc<ClientConfig>, server: ServerConfig, name: &str) -> Result<ClientConnection, rustls::Error> {
    let mut client = ClientConnection::new(config, ServerName::try_from(name.to_owned()).unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let carry = |from: &mut dyn FnMut(&mut Vec<u8>) -> io::Result<usize>| {
        let mut bytes = Vec::new();
        while from(&mut bytes).unwrap() > 0 {}
        bytes
    };
    while client.wants_write() || server.wants_write() {
        let sent = carry(&mut |to| if client.wants_write() { client.write_tls(to) } else { Ok(0) });
        let mut sent = sent.as_slice();
        while !sent.is_empty() {
            server.read_tls(&mut sent).unwrap();
            // The server reports its errors by an alert.
            let _ = server.process_new_packets();
        }
        let sent = carry(&mut |to| if server.wants_write() { server.write_tls(to) } else { Ok(0) });
        let mut sent = sent.as_slice();
        while !sent.is_empty() {
            client.read_tls(&mut sent).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking());
    Ok(client)
}

fn refusal(tls: ClientTls, server: ServerConfig, name: &str) -> Refusal {
    let (config, observer) = tls.observed(&["h2"]).unwrap();
    let error = shake(config, server, name).map(|_| ()).unwrap_err();
    Refusal::of_io(&io::Error::new(io::ErrorKind::InvalidData, error), &observer)
}

fn trusting(ca: &Authority) -> ClientTls {
    ClientTls { trust: Trust::only(text(&ca.pem)), ..ClientTls::default() }
}

#[test]
fn a_trusted_server_is_taken_on_the_preferred_terms() {
    let ca = authority("root");
    let (_, der, key) = leaf(&ca, |_| {});
    let mut config = server(vec![der], &key, None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connection = shake(trusting(&ca).config(&["h2"]).unwrap(), config, "localhost").unwrap();
    assert_eq!(connection.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(connection.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(connection.alpn_protocol(), Some(b"h2".as_slice()));
}

#[test]
fn each_reason_in_words() {
    let (ca, stranger) = (authority("root"), authority("Stranger"));
    let (_, der, key) = leaf(&ca, |_| {});
    let plain = || server(vec![der.clone()], &key, None);
    let with = |change: fn(&mut CertificateParams)| {
        let (_, der, key) = leaf(&ca, change);
        server(vec![der], &key, None)
    };
    let self_signed = {
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        server(vec![params.self_signed(&key).unwrap().der().clone()], &key, None)
    };
    let cases = [
        (
            refusal(trusting(&stranger), plain(), "localhost"),
            "its certificate (CN=leaf) was issued by CN=root, which is not trusted",
        ),
        (
            refusal(trusting(&authority("root")), plain(), "localhost"),
            "its certificate (CN=leaf) was issued by another CN=root than the one that is trusted: their keys differ",
        ),
        (
            refusal(trusting(&ca), self_signed, "localhost"),
            "its certificate (CN=rcgen self signed cert) is self-signed, and not trusted",
        ),
        (
            refusal(trusting(&ca), plain(), "db.example.com"),
            "its certificate is not for `db.example.com`: it is for localhost, 127.0.0.1",
        ),
        (
            refusal(trusting(&ca), with(|leaf| leaf.subject_alt_names.clear()), "localhost"),
            "its certificate is not for `localhost`: it names no host at all (no subject alternative name)",
        ),
        (
            refusal(trusting(&ca), with(|leaf| leaf.not_after = rcgen::date_time_ymd(2020, 2, 29)), "localhost"),
            "its certificate (CN=leaf) expired at 2020-02-29T00:00:00Z",
        ),
        (
            refusal(trusting(&ca), with(|leaf| leaf.not_before = rcgen::date_time_ymd(2999, 1, 1)), "localhost"),
            "its certificate (CN=leaf) is not valid before 2999-01-01T00:00:00Z",
        ),
        (
            refusal(trusting(&ca), with(|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), "localhost"),
            "its certificate (CN=leaf) is not one for a server: it is a CA's (CA:TRUE)",
        ),
        (
            refusal(
                trusting(&ca),
                with(|leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
                "localhost",
            ),
            "its certificate (CN=leaf) is not one for a server: its extended key usage leaves out server authentication",
        ),
    ];
    for (refusal, expected) in cases {
        assert_eq!(refusal.to_string(), expected);
    }
}

#[test]
fn a_client_certificate_is_shown_and_its_lack_is_told() {
    let ca = authority("root");
    let clients = authority("clients");
    let (_, der, key) = leaf(&ca, |_| {});
    let guarded = || server(vec![der.clone()], &key, Some(&clients));
    let holding = |by: &Authority| {
        let (pem, _, key) = leaf(by, |leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
        let identity = Pair::new(text(&pem), text(&key.serialize_pem()));
        ClientTls { identity: Some(identity), ..trusting(&ca) }
    };
    assert!(shake(holding(&clients).config(&[]).unwrap(), guarded(), "localhost").is_ok());
    assert_eq!(refusal(trusting(&ca), guarded(), "localhost"), Refusal::CertificateRequired);
    let refused = refusal(holding(&authority("other")), guarded(), "localhost");
    assert!(matches!(refused, Refusal::CertificateRefused(_)), "{refused:?}");
}

#[test]
fn what_is_no_tls_is_told() {
    let (config, observer) = trusting(&authority("root")).observed(&[]).unwrap();
    for answer in [b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), b"\0\0\x12\x04\0\0\0\0\0"] {
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::clone(&config), name).unwrap();
        client.read_tls(&mut &*answer).unwrap();
        let error = client.process_new_packets().unwrap_err();
        assert_eq!(Refusal::of(&error, &observer), Refusal::PlainText, "{error}");
    }
    let closed = io::Error::from(io::ErrorKind::UnexpectedEof);
    assert_eq!(Refusal::of_io(&closed, &observer), Refusal::Closed);
}

#[test]
fn the_kit_names_the_file_and_its_origin() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.pem");
    let wrong = folder.path().join("key.pem");
    fs::write(&wrong, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let reason = |path: &std::path::Path| {
        let authority = Sourced::new(Input::File(path.to_owned()), Origin::Flag("--tls-root-certificate-file".into()));
        let tls = ClientTls { trust: Trust::only(authority), ..ClientTls::default() };
        tls.config(&[]).unwrap_err().to_string().replace(&folder.path().display().to_string(), "DIR")
    };
    assert_eq!(reason(&missing), "--tls-root-certificate-file: cannot read \"DIR/none.pem\": there is no such file");
    assert_eq!(
        reason(&wrong),
        "--tls-root-certificate-file: the CA certificate in \"DIR/key.pem\": it holds no certificate, but a private key: are certificate \
         and key swapped?"
    );
    let nobody = ClientTls::default().config(&[]).unwrap_err();
    assert!(matches!(nobody, ClientTlsError::NoAuthority { .. }));
}

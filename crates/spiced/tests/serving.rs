//! The program as operators run it: it starts on free ports, answers over TLS, reloads, and stops.
#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;

use testkit::program::{self, Program};
use testkit::{Authority, PodDirectory, client, connect, post};

const SPICED: &str = env!("CARGO_BIN_EXE_spiced");

const POD: &str = "\
version: v1
kind: Spicepod
name: test
runtime:
  tls:
    certificate_file: tls.crt
    key_file: tls.key
";

/// Returns a pod that is served with a certificate of this CA.
fn pod(ca: &Authority) -> PodDirectory {
    let (certificate, key) = ca.issue_pem();
    PodDirectory::new(POD).with("tls.crt", certificate).with("tls.key", key)
}

/// Returns the arguments that serve a pod on free ports.
fn arguments(pod: &PodDirectory) -> Vec<&OsStr> {
    let fixed = ["--log-format=json", "--http=127.0.0.1:0", "--flight=127.0.0.1:0", "--grpc=127.0.0.1:0"];
    fixed.into_iter().map(OsStr::new).chain([pod.path().as_os_str()]).collect()
}

/// Runs `SELECT 6 * 7` over HTTPS, and returns the certificate that the server presents.
async fn query(address: std::net::SocketAddr, ca: &Authority) -> Vec<u8> {
    let mut stream = connect(address, &client(&ca.der)).await.unwrap();
    let presented = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let answer = post(&mut stream, "/v1/sql", "SELECT 6 * 7 AS answer").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains(r#"{"answer":42}"#), "{answer}");
    presented
}

#[tokio::test]
async fn it_answers_over_tls_and_uses_a_new_certificate_for_the_next_connection() {
    let ca = Authority::new("test CA");
    let pod = pod(&ca);
    let mut spiced = Program::start(SPICED, arguments(&pod));
    let address = spiced.address("http");
    spiced.logged("serving");
    let first = query(address, &ca).await;

    let (certificate, key) = ca.issue_pem();
    pod.write("tls.key", key);
    pod.write("tls.crt", certificate);
    spiced.logged("the TLS material was reloaded; the next handshake uses it");
    assert_ne!(query(address, &ca).await, first);

    spiced.signal("TERM");
    spiced.logged("stopped");
    assert_eq!(spiced.ended().code, Some(0));
}

#[tokio::test]
async fn a_pod_that_is_broken_changes_nothing() {
    let ca = Authority::new("test CA");
    let pod = pod(&ca);
    let mut spiced = Program::start(SPICED, arguments(&pod));
    let address = spiced.address("http");
    spiced.logged("serving");
    let first = query(address, &ca).await;

    pod.write("spicepod.yaml", POD.replace("tls.crt", "none.crt"));
    spiced.signal("HUP");
    let rejected = spiced.logged("the new TLS material is rejected; the current material stays in use");
    assert!(rejected["reason"].as_str().unwrap().contains("none.crt"), "{rejected}");
    assert_eq!(query(address, &ca).await, first);

    spiced.signal("TERM");
    assert_eq!(spiced.ended().code, Some(0));
}

#[test]
fn a_start_that_fails_has_one_report_and_opens_no_port() {
    let ca = Authority::new("test CA");
    let pod = pod(&ca);
    pod.write("tls.key", ca.issue_pem().1);
    let ended = program::run(SPICED, arguments(&pod));
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
    assert!(!ended.stderr.contains("listening"), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("is not the key of the certificate").count(), 1, "{}", ended.stderr);
}

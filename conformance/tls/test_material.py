"""Supported certificates and keys: kinds of keys, chains, deformed PEM, and the development certificate."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from harness import clients
from harness.certificates import DEFORMED, Authority, Pair, certificate_pem, key_pem, self_signed
from harness.clients import assert_serves
from harness.leak_scanner import LEDGER
from harness.pod import ENDPOINTS, Pod
from harness.server import Server
from harness.tables import reference

# Kinds of keys, and their encodings.

KEYS = [
    ("rsa2048", "pkcs8"),
    ("rsa2048", "pkcs1"),
    ("rsa3072", "pkcs8"),
    ("rsa3072", "pkcs1"),
    ("p256", "pkcs8"),
    ("p256", "sec1"),
    ("p256", "sec1-params"),
    ("p384", "pkcs8"),
    ("p384", "sec1"),
    ("p384", "sec1-params"),
    ("ed25519", "pkcs8"),
]


@reference("Key kinds: RSA, ECDSA, Ed25519")
@pytest.mark.parametrize("kind, form", KEYS, ids=lambda value: value)
def test_key(pod, kind, form):
    pair = pod.ca.issue(kind=kind)
    pod.yaml(
        tls={
            "certificate_file": str(pod.write("tls.crt", pair.certificate)),
            "key_file": str(pod.write("tls.key", key_pem(pair.key, form))),
        }
    )
    server = pod.serve()
    assert_serves(server, pair)
    said = clients.s_client(
        server.port("http"), "-CAfile", pod.ca_file, "-verify_return_error", "-verify_hostname", "localhost"
    )
    assert "Verify return code: 0 (ok)" in said, said


OPENSSL_KEYS = {
    "genrsa": ["genrsa", "2048"],
    "genrsa-traditional": ["genrsa", "-traditional", "2048"],
    "ecparam": ["ecparam", "-genkey", "-name", "prime256v1"],
    "ecparam-noout": ["ecparam", "-genkey", "-noout", "-name", "secp384r1"],
    "genpkey-ec": ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "genpkey-ed25519": ["genpkey", "-algorithm", "ed25519"],
}


@pytest.mark.parametrize("command", OPENSSL_KEYS.values(), ids=OPENSSL_KEYS.keys())
def test_key_made_by_openssl(pod, command):
    text = clients.openssl(*command).decode()
    key = load_pem_private_key(text[text.rindex("-----BEGIN") :].encode(), None)
    LEDGER.add_key(key)
    key_file = pod.write("key.pem", text)
    clients.openssl(
        "req",
        "-new",
        "-x509",
        "-key",
        str(key_file),
        "-out",
        str(pod.folder / "cert.pem"),
        "-days",
        "365",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
    )
    certificate = x509.load_pem_x509_certificate((pod.folder / "cert.pem").read_bytes())
    pod.yaml(tls={"certificate_file": "cert.pem", "key_file": "key.pem"})
    server = pod.serve()
    server.ca = str(pod.folder / "cert.pem")
    assert_serves(server, Pair(certificate, key))


# Chains.


@reference("Certificate types: self-signed, CA-signed, chains")
def test_self_signed_with_san(pod):
    pair = self_signed()
    pod.yaml(tls=pod.write_pair(pair))
    server = pod.serve()
    server.ca = str(pod.folder / "tls.crt")
    assert_serves(server, pair)
    assert not server.logged("WARN", match=r"\bSAN\b|subject alternative"), "this one has SANs"


@reference("Self-signed certificate")
def test_the_openssl_recipe_of_the_reference(pod):
    """It creates a certificate without SAN and with CA:TRUE: curl accepts it, and the log warns."""
    clients.openssl("genrsa", "-out", "key.pem", "2048", cwd=pod.folder)
    clients.openssl(
        "req",
        "-new",
        "-x509",
        "-key",
        "key.pem",
        "-out",
        "cert.pem",
        "-days",
        "365",
        "-subj",
        "/C=US/ST=State/L=City/O=Organization/CN=localhost",
        cwd=pod.folder,
    )
    key = load_pem_private_key((pod.folder / "key.pem").read_bytes(), None)
    LEDGER.add_key(key)
    pod.yaml(tls={"enabled": True, "certificate_file": "cert.pem", "key_file": "key.pem"})
    server = pod.serve()
    server.ca = str(pod.folder / "cert.pem")
    assert_serves(server, Pair(x509.load_pem_x509_certificate((pod.folder / "cert.pem").read_bytes()), key))
    assert server.logged("WARN", match=r"\bSANs?\b|subject alternative"), server.stderr


def _chain(pod: Pod, order) -> tuple[Server, Pair]:
    root = pod.ca
    middle = Authority("Conformance Intermediate", root)
    pair = middle.issue()
    parts = {"leaf": pair.leaf, "middle": middle.certificate, "root": root.certificate}
    pod.yaml(
        tls={
            "certificate_file": str(pod.write("tls.crt", certificate_pem(*(parts[p] for p in order)))),
            "key_file": str(pod.write("tls.key", pair.key_text)),
        }
    )
    return pod.serve(), pair


@reference("Certificate types: self-signed, CA-signed, chains")
@pytest.mark.parametrize("order", [("leaf", "middle"), ("leaf", "middle", "root")], ids="-".join)
def test_chain_in_order(pod, order):
    server, pair = _chain(pod, order)
    assert_serves(server, pair)
    assert not server.logged("WARN", match="order"), server.stderr
    said = clients.s_client(server.port("http"), "-showcerts", "-CAfile", pod.ca_file)
    assert "Verify return code: 0 (ok)" in said, said


@pytest.mark.parametrize(
    "order", [("middle", "leaf"), ("leaf", "root", "middle"), ("root", "middle", "leaf")], ids="-".join
)
def test_chain_out_of_order_is_served_with_a_warning(pod, order):
    server, pair = _chain(pod, order)
    assert_serves(server, pair)
    assert server.logged("WARN", match="order"), server.stderr


def test_certificate_without_its_intermediate_is_served(pod):
    server, pair = _chain(pod, ("leaf",))
    for endpoint in ENDPOINTS:
        assert clients.presented(server, endpoint) == pair.der
    assert server.logged("WARN", "ERROR", match="intermediate"), server.stderr


# PEM that was deformed in transit.


@pytest.mark.parametrize("carrier", ["file", "variable"])
@pytest.mark.parametrize("deform", DEFORMED.values(), ids=DEFORMED.keys())
def test_deformed_pem(pod, deform, carrier):
    certificate, key = deform(pod.pair.certificate), deform(pod.pair.key_text)
    env = {}
    if carrier == "file":
        pod.yaml(
            tls={"certificate_file": str(pod.write("tls.crt", certificate)), "key_file": str(pod.write("tls.key", key))}
        )
    else:
        env = {"CERT": certificate, "KEY": key}
        pod.yaml(tls={"certificate": "${env:CERT}", "key": "${env:KEY}"})
    assert_serves(pod.serve(env=env), pod.pair)


def test_deformed_chain(pod):
    """Several certificates whose newlines became spaces in an unquoted shell expansion."""
    middle = Authority("Conformance Intermediate", pod.ca)
    pair = middle.issue()
    pod.yaml(tls={"certificate": "${env:CERT}", "key": "${env:KEY}"})
    server = pod.serve(env={"CERT": " ".join(pair.certificate.split("\n")), "KEY": " ".join(pair.key_text.split("\n"))})
    assert_serves(server, pair)


def test_certificate_behind_openssl_text(pod):
    """`openssl x509 -text` prints a description before the PEM."""
    text = clients.openssl("x509", "-text", send=pod.pair.certificate.encode())
    pod.yaml(tls={"certificate_file": str(pod.write("tls.crt", text)), "key": pod.pair.key_text})
    assert_serves(pod.serve(), pod.pair)


# A development certificate, made on first use.


@pytest.mark.parametrize("how", ["flag", "pod"])
def test_self_signed_setting_makes_a_ca_and_a_leaf_and_keeps_them(pod, how):
    args = ["--tls-self-signed"] if how == "flag" else []
    pod.yaml(tls={"self_signed": True} if how == "pod" else None)
    first = pod.serve(*args)
    folder = pod.folder / ".spice/tls"
    authorities = [p for p in sorted(folder.rglob("*")) if p.is_file() and _is_ca(p)]
    assert len(authorities) == 1, f"one file of {folder} should hold only the CA: {list(folder.rglob('*'))}"
    for path in folder.rglob("*"):
        if path.is_file() and b"PRIVATE KEY" in path.read_bytes():
            assert path.stat().st_mode & 0o077 == 0, f"{path} is readable by others"
            text = path.read_text()
            LEDGER.add_key(load_pem_private_key(text[text.index("-----BEGIN") :].encode(), None))
    first.ca = str(authorities[0])
    for host in ("localhost", "127.0.0.1"):
        clients.curl(first.url("/health", host=host), ca=first.ca).ok()
    assert clients.query(clients.flight_client(first), "SELECT 1 AS x").to_pylist() == [{"x": 1}]
    leaf = x509.load_der_x509_certificate(clients.presented(first))
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca, "CA and leaf are one"
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    assert {"127.0.0.1", "::1"} <= {str(ip) for ip in names.get_values_for_type(x509.IPAddress)}
    authority = authorities[0].read_bytes()
    first.close()

    second = pod.serve(*args)
    assert authorities[0].read_bytes() == authority, "the second start made another CA"
    second.ca = first.ca
    clients.get(second, "/health").ok()


def _is_ca(path) -> bool:
    data = path.read_bytes()
    if b"BEGIN CERTIFICATE" not in data or data.count(b"BEGIN CERTIFICATE") != 1:
        return False
    certificate = x509.load_pem_x509_certificate(data)
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False

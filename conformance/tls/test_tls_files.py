"""`spiced tls check CERT [KEY]`: a pair without a pod, its contents and its problems."""

from __future__ import annotations

import base64
import datetime
import json
import os

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, pkcs12
from cryptography.x509.oid import NameOID

from harness.certificates import Authority, certificate_pem, key_pem
from harness.commands import run

DAY = datetime.timedelta(days=1)


def check(pod, *words, code: int, env: dict[str, str] | None = None) -> tuple[dict, str]:
    """The report as JSON and as text; both exit with the same code."""
    said = run(pod, "tls", "check", *words, code=code, env=env).stdout.decode()
    return json.loads(run(pod, "tls", "check", "--json", *words, code=code, env=env).stdout), said


def codes(report: dict) -> set[str]:
    return {finding["code"] for finding in report["findings"]}


@pytest.fixture
def files(pod):
    """A leaf below an intermediate, its key, and the root."""
    between = Authority("Between", pod.ca)
    pair = between.issue(("db.test", "192.0.2.7"), ends=100.5 * DAY)
    pod.write("tls.crt", certificate_pem(pair.leaf, *pair.intermediates))
    pod.write("tls.key", pair.key_text)
    os.chmod(pod.folder / "tls.key", 0o600)
    pod.write("ca.pem", pod.ca.pem)
    return pair


def at(pod, *names):
    return [pod.folder / name for name in names]


def test_a_good_pair_is_described(pod, files):
    report, said = check(pod, *at(pod, "tls.crt", "tls.key"), "--ca", pod.folder / "ca.pem", "--name", "db.test", code=0)
    assert report["findings"] == [] and all(report["accepted_by"].values()), report
    certificate = report["certificate"]
    assert certificate["names"] == ["db.test", "192.0.2.7"] and 98 <= certificate["days_left"] <= 100, certificate
    assert certificate["key"] == report["key"]["kind"] == "ECDSA on P-256" and report["key"]["matches"] is True
    assert [one["subject"] for one in report["chain"]] == [certificate["subject"], "CN=Between"]
    for line in ("subject:", "names:   db.test, 192.0.2.7", "issuer:  CN=Between", "key:     ECDSA", "nothing is wrong"):
        assert line in said, said
    assert f"(in {certificate['days_left']} days)" in said, said


def test_without_a_key(pod, files):
    report, said = check(pod, *at(pod, "tls.crt"), "--ca", pod.folder / "ca.pem", code=0)
    assert any("no key was given" in one for one in report["unchecked"]), report
    assert report["key"]["matches"] is None and "no key was given" in said


def test_swapped(pod, files):
    report, said = check(pod, *at(pod, "tls.key", "tls.crt"), code=1)
    assert codes(report) == {"TLS-SWAPPED"} and "swapped" in said
    assert report["findings"][0]["fix"].endswith(f"{pod.folder / 'tls.crt'} {pod.folder / 'tls.key'}`")
    assert report["certificate"]["names"] == ["db.test", "192.0.2.7"] and report["key"]["matches"] is True


def test_the_key_alone(pod, files):
    report, said = check(pod, *at(pod, "tls.key"), code=1)
    assert codes(report) == {"TLS-SWAPPED"} and report["certificate"] is None and "no certificate" in said


def test_certificate_and_key_in_one_file(pod, files):
    pod.write("both.pem", files.key_text + files.certificate)
    os.chmod(pod.folder / "both.pem", 0o644)
    report, _ = check(pod, *at(pod, "both.pem"), code=0)
    assert report["key"]["matches"] is True and codes(report) == {"TLS-KEY-PERMISSIONS"}, report


def _mismatch(pod, pair):
    pod.write("tls.key", pod.ca.issue().key_text)


def _expired_mismatch(pod, pair):
    pod.write("tls.crt", pod.ca.issue(("db.test",), starts=-3 * DAY, ends=-DAY).certificate)


def _order(pod, pair):
    pod.write("tls.crt", certificate_pem(*pair.intermediates, pair.leaf))


def _missing(pod, pair):
    pod.write("tls.crt", certificate_pem(pair.leaf))


def _der(pod, pair):
    (pod.folder / "tls.crt").write_bytes(pair.der)


def _pkcs12(pod, pair):
    made = pkcs12.serialize_key_and_certificates(b"x", pair.key, pair.leaf, None, BestAvailableEncryption(b"secret"))
    (pod.folder / "tls.crt").write_bytes(made)


def _encrypted(pod, pair):
    pod.write("tls.key", key_pem(pair.key, passphrase=b"secret"))


def _request(form):
    def make(pod, pair):
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "db.test")])
        made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(pair.key, hashes.SHA256())
        (pod.folder / "tls.crt").write_bytes(made.public_bytes(form))

    return make


def _bare(pod, pair):
    (pod.folder / "tls.crt").write_bytes(base64.encodebytes(pair.der))


def _store_in_base64(pod, pair):
    _pkcs12(pod, pair)
    (pod.folder / "tls.crt").write_bytes(base64.b64encode((pod.folder / "tls.crt").read_bytes()))


def text(content: str):
    return lambda pod, pair: pod.write("tls.crt", content)


# The replacement files, and the codes, one of which is an error.
BROKEN = {
    "another key": (_mismatch, {"TLS-KEY-MISMATCH"}),
    "another key, and expired": (_expired_mismatch, {"TLS-KEY-MISMATCH", "TLS-EXPIRED"}),
    "no intermediate": (_missing, {"TLS-INTERMEDIATE-MISSING"}),
    "DER": (_der, {"TLS-DER", "TLS-INTERMEDIATE-MISSING"}),
    "PKCS#12": (_pkcs12, {"TLS-PKCS12"}),
    "PKCS#12 in base64": (_store_in_base64, {"TLS-PKCS12"}),
    "an encrypted key": (_encrypted, {"TLS-KEY-ENCRYPTED"}),
    "a request": (_request(Encoding.PEM), {"TLS-NO-CERTIFICATE"}),
    "a request in DER": (_request(Encoding.DER), {"TLS-NO-CERTIFICATE"}),
    "base64 without its lines": (_bare, {"TLS-PEM-CUT"}),
    "a revocation list": (lambda pod, pair: pod.write("tls.crt", pod.ca.crl()), {"TLS-NO-CERTIFICATE"}),
    "a template": (text("{{ .Values.tls.crt }}\n"), {"TLS-NOT-PEM"}),
    "a variable": (text("$TLS_CERT\n"), {"TLS-NOT-PEM"}),
    "a Secret": (text("apiVersion: v1\nkind: Secret\ndata:\n  tls.crt: LS0t\n"), {"TLS-KUBERNETES-SECRET"}),
    "cert-manager's": (text("apiVersion: cert-manager.io/v1\nkind: Certificate\n"), {"TLS-KUBERNETES-SECRET"}),
    "a PGP key": (text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQEN\n-----END PGP PUBLIC KEY BLOCK-----\n"), {"TLS-NOT-PEM"}),
    "attributes": (text("-----BEGIN ATTRIBUTE CERTIFICATE-----\nMAEC\n-----END ATTRIBUTE CERTIFICATE-----\n"), {"TLS-NO-CERTIFICATE"}),
    "nothing": (text(""), {"TLS-EMPTY"}),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken(pod, files, name):
    make, wanted = BROKEN[name]
    make(pod, files)
    os.chmod(pod.folder / "tls.key", 0o600)
    report, said = check(pod, *at(pod, "tls.crt", "tls.key"), "--ca", pod.folder / "ca.pem", code=1)
    assert codes(report) == wanted, report
    assert all(finding["fix"] for finding in report["findings"])
    assert "swapped" not in said, said


def test_a_chain_in_the_wrong_order(pod, files):
    _order(pod, files)
    report, _ = check(pod, *at(pod, "tls.crt"), code=0)
    assert "TLS-CHAIN-ORDER" in codes(report)
    assert report["certificate"]["names"] == ["db.test", "192.0.2.7"], "the leaf is described"
    check(pod, *at(pod, "tls.crt"), "--strict", code=1)


def test_a_wrong_name(pod, files):
    report, said = check(pod, *at(pod, "tls.crt", "tls.key"), "--name", "other.test", code=1)
    assert codes(report) == {"TLS-NAME-NOT-COVERED"} and "other.test" in said


def test_the_passphrase_comes_from_the_variable(pod, files):
    _encrypted(pod, files)
    os.chmod(pod.folder / "tls.key", 0o600)
    env = {"SPICED_RUNTIME__TLS__KEY_PASSPHRASE": "secret"}
    report, _ = check(pod, *at(pod, "tls.crt", "tls.key"), "--ca", pod.folder / "ca.pem", code=0, env=env)
    assert report["key"]["matches"] is True


def test_a_pod_stays_a_pod(pod, files):
    pod.yaml(tls=pod.write_pair())
    for path in (pod.folder, pod.folder / "spicepod.yaml"):
        assert not run(pod, "tls", "check", path).stdout.startswith(b"certificate ")
    run(pod, "tls", "check", pod.folder, pod.folder / "tls.key", code=64)
    run(pod, "tls", "check", pod.folder / "tls.crt", "--http", "localhost:0", code=64)


def test_missing_files(pod, files):
    report, _ = check(pod, pod.folder / "no.crt", pod.folder / "no.key", code=1)
    assert [finding["code"] for finding in report["findings"]] == ["TLS-UNREADABLE"] * 2
    report, _ = check(pod, pod.folder / "tls.crt", pod.folder / "no.key", code=1)
    assert report["certificate"]["names"] == ["db.test", "192.0.2.7"]

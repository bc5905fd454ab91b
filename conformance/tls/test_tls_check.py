"""`spiced tls check`: the doctor's findings, by code, and whether the installed clients agree with them."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import socket
import ssl
import subprocess
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from harness import clients
from harness.certificates import Authority, Pair, certificate_pem, key_pem, self_signed
from harness.commands import run
from harness.drivers import At, Untrusted
from harness.drivers.programs import Go
from harness.server import binary
from harness.waiting import DEADLINE

DAY = datetime.timedelta(days=1)


def check(pod, *words, code: int = 0) -> dict:
    return json.loads(run(pod, "tls", "check", "--json", *words, pod.folder, code=code).stdout)


def codes(report: dict, *severities: str) -> set[str]:
    return {f["code"] for f in report["findings"] if not severities or f["severity"] in severities}


# Kinds of certificates: the doctor's findings at warning level or above, and whether it fails because of them.
KINDS = {
    "P-256": (lambda ca: ca.issue(), set(), 0),
    "RSA": (lambda ca: ca.issue(kind="rsa2048"), set(), 0),
    "P-384": (lambda ca: ca.issue(kind="p384"), set(), 0),
    "P-521": (lambda ca: ca.issue(kind="p521"), {"TLS-UNUSUAL-KEY"}, 1),
    "Ed25519": (lambda ca: ca.issue(kind="ed25519"), {"TLS-UNUSUAL-KEY"}, 1),
    "no SAN": (lambda ca: ca.issue(()), {"TLS-NO-SAN"}, 1),
    "wildcard": (lambda ca: ca.issue(("*.localdomain", "localhost")), set(), 0),
    "a CA's": (lambda ca: Authority("localhost", ca).as_leaf(), {"TLS-NO-SAN", "TLS-LEAF-IS-CA"}, 1),
    "a client's": (lambda ca: ca.issue(client=True), {"TLS-NO-SERVER-AUTH"}, 1),
    "expired": (lambda ca: ca.issue(starts=-3 * DAY, ends=-DAY), {"TLS-EXPIRED"}, 1),
    "not yet valid": (lambda ca: ca.issue(starts=DAY, ends=3 * DAY), {"TLS-NOT-YET-VALID"}, 1),
    "ends in 20 days": (lambda ca: ca.issue(ends=20 * DAY), {"TLS-ENDS-SOON"}, 0),
    "ends in 3 days": (lambda ca: ca.issue(ends=3 * DAY), {"TLS-ENDS-SOON"}, 1),
    "ten years": (lambda ca: ca.issue(ends=3650 * DAY), set(), 0),
}


def _curl(server, pod) -> bool:
    return clients.get(server, "/health").exit == 0


def _openssl(server, pod) -> bool:
    said = clients.s_client(
        server.port("http"), "-CAfile", server.ca, "-verify_return_error", "-verify_hostname", "localhost", "-brief"
    )
    return "Verification: OK" in said


def _go(server, pod) -> bool:
    try:
        Go().rows(At.of(server), "SELECT 1 AS x")
    except Untrusted:
        return False
    return True


def _grpcio(server, pod) -> bool:
    credentials = grpc.ssl_channel_credentials(open(server.ca, "rb").read())
    with grpc.secure_channel(f"localhost:{server.port('grpc')}", credentials) as channel:
        try:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
            return False
    return True


def _rustls(server, pod) -> bool:
    endpoint = f"grpc+tls://localhost:{server.port('flight')}"
    done = subprocess.run(
        [binary(), "sql", "--endpoint", endpoint, "--tls-root-certificate-file", server.ca, "SELECT 1"],
        env=pod.environment(),
        cwd=pod.cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DEADLINE,
    )
    return done.returncode == 0


REAL = {"curl": _curl, "openssl": _openssl, "go": _go, "grpcio": _grpcio, "rustls": _rustls}


@pytest.mark.parametrize("kind", KINDS)
def test_clients_agree_with_the_doctor(pod, kind):
    make, found, code = KINDS[kind]
    pod.yaml(tls=pod.write_pair(make(pod.ca)))
    report = check(pod, "--name", "localhost", code=code)
    assert codes(report, "warning", "error") - {"TLS-NAME-NOT-COVERED"} == found, report
    server = pod.serve()
    taken = {client: ask(server, pod) for client, ask in REAL.items()}
    without_name = check(pod, code=code)["accepted_by"]
    assert {client: without_name[client] for client in REAL} == taken


def _mismatch(pod):
    return pod.pair.certificate, pod.ca.issue().key_text


def _chain(*certificates):
    return certificate_pem(*certificates)


def _unordered(pod) -> tuple[str, str]:
    pair = Authority("Between", pod.ca).issue()
    return _chain(*pair.intermediates, pair.leaf), pair.key_text


def _without_intermediate(pod) -> tuple[str, str]:
    pair = Authority("Issuing CA", pod.ca).issue()
    return _chain(pair.leaf), pair.key_text


def _with_root(pod) -> tuple[str, str]:
    return pod.pair.certificate + pod.ca.pem, pod.pair.key_text


PEM = {
    "TLS-KEY-MISMATCH": (_mismatch, 1),
    "TLS-SWAPPED": (lambda pod: (pod.pair.key_text, pod.pair.certificate), 1),
    "TLS-CHAIN-ORDER": (_unordered, 0),
    "TLS-ROOT-SENT": (_with_root, 0),
    "TLS-INTERMEDIATE-MISSING": (_without_intermediate, 1),
    "TLS-EMPTY": (lambda pod: ("", pod.pair.key_text), 1),
    "TLS-HTML": (lambda pod: ("<!doctype html><html></html>", pod.pair.key_text), 1),
    "TLS-NOT-PEM": (lambda pod: ("a certificate", pod.pair.key_text), 1),
    "TLS-DER": (lambda pod: (pod.pair.der, pod.pair.key_text), 1),
    "TLS-PATH-AS-PEM": (lambda pod: ("/etc/tls/tls.crt", pod.pair.key_text), 1),
    "TLS-PEM-CUT": (lambda pod: (pod.pair.certificate[:200], pod.pair.key_text), 1),
    "TLS-SEVERAL-KEYS": (lambda pod: (pod.pair.certificate, pod.pair.key_text * 2), 1),
    "TLS-KEY-ENCRYPTED": (lambda pod: (pod.pair.certificate, key_pem(pod.pair.key, passphrase=b"secret")), 1),
    "TLS-NO-KEY": (lambda pod: (pod.pair.certificate, re.sub("PRIVATE KEY", "OTHER THING", pod.pair.key_text)), 1),
}


@pytest.mark.parametrize("code", PEM)
def test_problems_of_the_files(pod, code):
    make, exit_code = PEM[code]
    certificate, key = make(pod)
    pod.write("tls.crt", certificate)
    pod.write("tls.key", key)
    pod.yaml(tls={"certificate_file": "tls.crt", "key_file": "tls.key"})
    report = check(pod, code=exit_code)
    finding = next(f for f in report["findings"] if f["code"] == code)
    assert finding["fix"] and finding["message"] and finding["origin"].startswith("spicepod.yaml: runtime.tls"), finding
    assert finding["severity"] == "error" if exit_code else finding["severity"] != "error", finding


def test_permissions_clients_and_keys(pod):
    old = Authority("Old clients")
    pod.write("ca.pem", old.pem)
    pod.write("old.crl", old.crl(starts=-9 * DAY, ends=-DAY))
    files = pod.write_pair()
    pod.write("tls.key", pod.pair.key_text, mode=0o644)
    pod.yaml(
        tls={**files, "client_auth_mode": "required", "client_auth_ca_file": "ca.pem", "client_crl_files": ["old.crl"]},
        runtime={"auth": {"api_key": {"keys": ["sha256:12:ro"]}}},
    )
    report = check(pod, code=1)
    assert {"TLS-KEY-PERMISSIONS", "TLS-CRL-OUT-OF-DATE", "AUTH-KEYS"} <= codes(report), report
    assert [f["severity"] for f in report["findings"]] == sorted(
        (f["severity"] for f in report["findings"]), key=["error", "warning", "info"].index
    ), "the most severe finding is first"


def test_exit_codes_and_text(pod):
    pod.yaml(tls=pod.write_pair(self_signed(())))
    said = run(pod, "tls", "check", pod.folder, code=1).stdout.decode()
    assert "warning TLS-NO-SAN: spicepod.yaml: runtime.tls.certificate_file" in said and "\n  fix: " in said, said
    assert "these refuse the certificate: go, browsers, rustls" in said, said
    run(pod, "tls", "check", "--strict", pod.folder, code=1)
    pod.yaml(tls={"certificate": "${env:NOT_THERE}", "key": "x"})
    run(pod, "tls", "check", pod.folder, code=78)
    pod.yaml()
    assert codes(check(pod)) == {"TLS-OFF"}


# tls inspect


def inspect(pod, *words, code: int = 0) -> dict:
    return json.loads(run(pod, "tls", "inspect", "--json", *words, code=code).stdout)


def test_inspect_shows_what_a_server_presents(pod):
    pod.yaml(tls=pod.write_pair(Authority("Between", pod.ca).issue()))
    server = pod.serve()
    address = f"localhost:{server.port('http')}"
    seen = inspect(pod, address)
    assert seen["tls"]["version"] == "1.3" and seen["tls"]["versions"] == ["1.3", "1.2"], seen["tls"]
    assert (seen["tls"]["alpn"], seen["tls"]["group"], seen["tls"]["resumed"]) == ("h2", "X25519MLKEM768", True)
    assert [c["subject"] for c in seen["chain"]] == ["CN=localhost", "CN=Between"]
    assert not seen["trusted"] and all(seen["accepted_by"].values())
    assert "TLS-NAME-NOT-COVERED" in codes(inspect(pod, address, "--name", "db.example.com", code=1))
    text = run(pod, "tls", "inspect", address).stdout.decode()
    assert "speaks TLS 1.3 and 1.2" in text and "0 CN=localhost, for localhost" in text, text


def test_inspect_reports_problems(pod):
    pod.yaml(tls={**pod.write_pair(pod.ca.issue((), starts=-3 * DAY, ends=-DAY)), "min_version": "1.3"})
    server = pod.serve()
    seen = inspect(pod, f"127.0.0.1:{server.port('flight')}", code=1)
    assert {"TLS-EXPIRED", "TLS-NO-SAN"} <= codes(seen) and seen["tls"]["versions"] == ["1.3"]
    pod.yaml()
    plain = pod.serve()
    said = run(pod, "tls", "inspect", f"127.0.0.1:{plain.port('http')}", code=1)
    assert b"127.0.0.1" in said.stdout + said.stderr
    run(pod, "tls", "inspect", "https://localhost:3000/", code=64)


@pytest.mark.parametrize("answer", [b"S", b"N"])
def test_inspect_postgres(pod, answer):
    """Simulates the start of PostgreSQL's protocol (3.0, SSLRequest)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files = pod.write_pair()
    context.load_cert_chain(files["certificate_file"], files["key_file"])
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, contextlib.suppress(OSError):
                        assert connection.recv(8) == bytes([0, 0, 0, 8, 4, 210, 22, 47])
                        connection.sendall(answer)
                        if answer == b"S":
                            context.wrap_socket(connection, server_side=True).close()

        threading.Thread(target=serve, daemon=True).start()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        if answer == b"S":
            assert inspect(pod, address, "--starttls", "postgres")["chain"][0]["subject"] == "CN=localhost"
        else:
            done = run(pod, "tls", "inspect", address, "--starttls", "postgres", code=1)
            assert b"does not support TLS" in done.stdout + done.stderr

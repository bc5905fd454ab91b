"""The development certificate is maintained automatically: it is created when a start needs it, never by commands that
only check, and renewed before it expires, by the CA that clients trust."""

from __future__ import annotations

import datetime
import json

import pytest
from cryptography import x509

from harness import clients
from harness.clock import Clock
from harness.commands import run
from harness.leak_scanner import LEDGER
from harness.waiting import eventually


def _leaf(path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_check_creates_nothing(pod):
    pod.yaml(tls={"self_signed": True})
    report = json.loads(run(pod, "tls", "check", "--json", pod.folder).stdout)
    assert [f["code"] for f in report["findings"]] == ["TLS-DEVELOPMENT"], report
    assert not (pod.folder / ".spice").exists()


def test_a_dry_run_creates_nothing(pod):
    key = LEDGER.mark("an API key")
    keys = {"auth": {"api_key": {"keys": [f"{key}:rw"]}}}
    pod.yaml(tls=pod.write_pair(), runtime=keys)
    server = pod.serve()
    text = json.dumps({"runtime": {"tls": {"self_signed": True}, **keys}})
    pod.write("spicepod.yaml.next", text)
    # Rename instead of write, so that no poll sees an incomplete file.
    (pod.folder / "spicepod.yaml.next").rename(pod.folder / "spicepod.yaml")
    clients.get(server, "/v1/tls/reload?dry_run=true", "-X", "POST", "-H", f"X-API-Key: {key}").ok()


@pytest.mark.parametrize("how", ["self_signed", "tls init"])
def test_it_is_renewed_before_it_expires(pod, how):
    """Only the clock moves, to 20 days before the expiry: the next leaf is served, issued by the same CA, without a
    restart.
    """
    if how == "self_signed":
        folder = pod.folder / ".spice/tls"
        pod.yaml(tls={"self_signed": True})
    else:
        folder = pod.folder / "mine"
        run(pod, "tls", "init", "--dir", str(folder))
        pod.yaml(tls={"certificate_file": "mine/server.pem", "key_file": "mine/server-key.pem"})
    clock = Clock(pod)
    server = pod.serve(env=clock.environment)
    before, ca = _leaf(folder / "server.pem"), (folder / "ca.pem").read_bytes()
    days = (before.not_valid_after_utc - datetime.datetime.now(datetime.timezone.utc)).days - 20
    clock.go(datetime.timedelta(days=days))
    eventually(lambda: _leaf(folder / "server.pem").serial_number != before.serial_number, "a new leaf", 60)
    after = _leaf(folder / "server.pem")
    assert after.not_valid_after_utc > before.not_valid_after_utc + datetime.timedelta(days=300)
    for endpoint in ("http", "flight", "grpc"):
        eventually(lambda endpoint=endpoint: x509.load_der_x509_certificate(clients.presented(server, endpoint)) == after, f"it on {endpoint}")
    assert (folder / "ca.pem").read_bytes() == ca, "clients keep trusting the same CA"

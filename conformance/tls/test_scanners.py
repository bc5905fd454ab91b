"""TLS scanners: sslyze checks every endpoint against Mozilla's guidelines, testssl.sh finds nothing worse than LOW."""

from __future__ import annotations

import json
import subprocess

import pytest

from harness import clients
from harness.drivers.driver import program
from harness.pod import ENDPOINTS

# Findings of testssl.sh that cannot, or should not, be fixed here.
UNAVOIDABLE = {
    "engine_problem": "it speaks of the machine's own OpenSSL",
    "cert_revocation": "a private CA has no address where its revocations are asked for",
    "DNS_CAArecord": "localhost has no CAA record",
    # WARN means that it could not check; test_tls_wire.py checks it.
    "sessionresumption_ticket": "its s_client may leave before a TLS 1.3 ticket has come",
    # Version 3.0 reports this whatever the ciphers are. All supported ciphers are good, in which case Mozilla's
    # guidelines (5.x, `server_preferred_order: false`) leave the choice to the client, which knows whether it has AES
    # in hardware.
    "cipher_order": "the client chooses among good ciphers",
}
MILD = {"OK", "INFO", "LOW"}


def sslyze(server, config: str, *endpoints: str, path) -> str:
    """Requires that the endpoints comply; returns the output."""
    report = path / "sslyze.json"
    targets = [f"localhost:{server.port(endpoint)}" for endpoint in endpoints]
    trust = ["--certinfo", "--certinfo_ca_file", server.ca]
    done = subprocess.run(
        [program("SPICED_CLIENT_SSLYZE"), *trust, f"--mozilla_config={config}", "--json_out", str(report), *targets],
        capture_output=True,
        text=True,
        timeout=150,
    )
    said = done.stdout + done.stderr
    for target in targets:
        assert f"{target}: OK - Compliant" in said, said
    for result in json.loads(report.read_text())["server_scan_results"]:
        assert (result["connectivity_status"], result["scan_status"]) == ("COMPLETED", "COMPLETED"), said
    return said


@pytest.mark.timeout(180)
def test_sslyze_finds_every_endpoint_intermediate(over_tls, tmp_path):
    said = sslyze(over_tls, "intermediate", *ENDPOINTS, "metrics", path=tmp_path)
    assert "VULNERABLE -" not in said, said


@pytest.mark.timeout(180)
def test_sslyze_finds_an_rsa_certificate_intermediate(certified, tmp_path):
    sslyze(certified("RSA 2048"), "intermediate", "http", path=tmp_path)


@pytest.mark.timeout(180)
def test_sslyze_finds_the_modern_profile_modern(pod, tmp_path):
    pod.yaml(tls={**pod.write_pair(), "profile": "modern"})
    server = pod.serve()
    sslyze(server, "modern", *ENDPOINTS, path=tmp_path)


@pytest.mark.timeout(180)
def test_sslyze_distinguishes_the_profiles(over_tls, tmp_path):
    """Shows that sslyze reports an endpoint that is not modern."""
    with pytest.raises(AssertionError, match="FAILED - Not compliant"):
        sslyze(over_tls, "modern", "http", path=tmp_path)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("profile", ["intermediate", "modern"])
def test_testssl_finds_nothing_above_low(pod, tmp_path, profile):
    testssl = clients.optional_tool("testssl")
    pod.yaml(tls={**pod.write_pair(), "profile": profile})
    server = pod.serve()
    report = tmp_path / "testssl.json"
    # Protocols, ciphers, forward secrecy, preference, defaults, headers, vulnerabilities.
    looks = ["-p", "-s", "-f", "-P", "-S", "-h", "-U"]
    words = ["--quiet", "--color", "0", "--warnings", "batch", "--add-ca", server.ca, "--jsonfile", str(report)]
    done = subprocess.run(
        [testssl, *words, "--ip", "127.0.0.1", *looks, f"localhost:{server.port('http')}"],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=tmp_path,
    )
    findings = json.loads(report.read_text())
    assert len(findings) > 40, f"it checked too little: {done.stdout}{done.stderr}"
    bad = [f for f in findings if f["severity"] not in MILD and f["id"] not in UNAVOIDABLE]
    assert not bad, bad
    found = {finding["id"]: finding["finding"] for finding in findings}
    assert "offered" in found["TLS1_3"] and "not offered" not in found["TLS1_3"], found["TLS1_3"]
    assert found["cert_chain_of_trust"].startswith("passed") or "(--add-ca)" in found["cert_chain_of_trust"], found

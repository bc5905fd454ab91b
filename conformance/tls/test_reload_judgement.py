"""What a reload accepts and what it rejects, in the less obvious cases: names that move, clients that are revoked while
a server certificate is broken, dry runs that must change nothing, and files that another program creates."""

from __future__ import annotations

import datetime
import json
import os
import signal
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from harness import chains, clients
from harness.certificates import Authority, self_signed
from harness.clock import Clock
from harness.commands import run
from harness.leak_scanner import LEDGER
from harness.pod import ENDPOINTS
from harness.waiting import eventually

DAY = datetime.timedelta(days=1)


def named(server, name: str) -> bytes:
    """The leaf that the HTTP endpoint presents to a client that requests a name."""
    said = clients.openssl("s_client", "-connect", f"127.0.0.1:{server.port('http')}", "-servername", name)
    return x509.load_pem_x509_certificate(said[said.index(b"-----BEGIN") :]).public_bytes(Encoding.DER)


def test_every_name_of_a_new_certificate_counts(pod):
    """An outdated certificate does not take over `b.test`, although its first name is new."""
    good, old = pod.ca.issue(("b.test",)), pod.ca.issue(("new.test", "b.test"), starts=-3 * DAY, ends=-DAY)
    more = pod.write_pair(good, "more")
    pod.yaml(tls={**pod.write_pair(), "certificates": [more]})
    server = pod.serve()
    pod.write_pair(old, "more")
    server.wait_for_log("ERROR", match="is out of date")
    assert named(server, "b.test") == good.der


def test_a_pair_may_precede_an_expired_one(pod):
    old, fresh = pod.ca.issue(("old.test",), starts=-3 * DAY, ends=-DAY), pod.ca.issue(("fresh.test",))
    files = [pod.write_pair(fresh, "fresh"), pod.write_pair(old, "old")]
    pod.yaml(tls={**pod.write_pair(), "certificates": files[1:]})
    server = pod.serve()
    pod.yaml(tls={**pod.write_pair(), "certificates": files})
    eventually(lambda: named(server, "fresh.test") == fresh.der, "the new pair")
    assert named(server, "old.test") == old.der


def test_a_revocation_applies_although_a_certificate_is_broken(pod):
    mine = pod.ca.issue(names=(), common_name="a client", client=True)
    pod.write("ca.pem", pod.ca.pem)
    pod.write("clients.crl", pod.ca.crl())
    asks = {"client_auth_mode": "required", "client_auth_ca_file": "ca.pem", "client_crl_files": ["clients.crl"]}
    pod.yaml(tls={**pod.write_pair(), "certificates": [pod.write_pair(pod.ca.issue(("b.test",)), "more")], **asks})
    server = pod.serve()
    show = clients.showing(mine, pod.home)
    clients.get(server, "/health", *show).ok()
    pod.write("more.crt", "broken")
    pod.write("clients.crl", pod.ca.crl(mine, number=2))
    server.wait_for_log("WARN", match="were loaded anyway")
    assert clients.get(server, "/health", *show).exit != 0


def test_a_pod_with_a_broken_pair_lets_the_current_one_be_renewed(pod):
    """The current certificate must not expire because its replacement is broken."""
    mine = pod.ca.issue(names=(), common_name="a client", client=True)
    pod.write("ca.pem", pod.ca.pem)
    pod.write("clients.crl", pod.ca.crl())
    asks = {"client_auth_mode": "request", "client_auth_ca_file": "ca.pem", "client_crl_files": ["clients.crl"]}
    before = pod.write_pair()
    pod.yaml(tls={**before, **asks})
    server = pod.serve()
    show = clients.showing(mine, pod.home)
    clients.get(server, "/health", *show).ok()
    new = pod.write_pair(pod.ca.issue(common_name="new"), "new")
    pod.write("new.key", "broken")
    pod.yaml(tls={**new, **asks})
    server.wait_for_log("ERROR", match="is rejected")
    renewed = pod.ca.issue(common_name="renewed")
    pod.write_pair(renewed)
    eventually(lambda: clients.presented(server) == renewed.der, "the renewal of what serves")
    server.wait_for_log("WARN", match="the certificate at its previous source has changed, and was loaded anyway")
    pod.write("clients.crl", pod.ca.crl(mine, number=2))
    server.wait_for_log("WARN", match="revocation lists are valid, and were loaded anyway")
    assert clients.get(server, "/health", *show).exit != 0
    mended = pod.ca.issue(common_name="mended")
    pod.write_pair(mended, "new")
    server.signal(clients.signal.SIGHUP)
    eventually(lambda: clients.presented(server) == mended.der, "what the pod wants")


def test_a_dry_run_disarms_nothing(pod):
    """A refused pod is tried again, even after a dry run in between."""
    key = LEDGER.mark("an API key")
    keys = {"auth": {"api_key": {"keys": [f"{key}:rw"]}}}
    pod.yaml(tls=pod.write_pair(), runtime=keys)
    server = pod.serve()
    renewed = pod.ca.issue(common_name="renewed")
    pod.yaml(tls={"certificate_file": "new.crt", "key_file": "new.key"}, runtime=keys)
    server.wait_for_log("ERROR", match="new.crt")
    looked = clients.get(server, "/v1/tls/reload?dry_run=true", "-X", "POST", "-H", f"X-API-Key: {key}")
    assert looked.status == 409, looked
    pod.write("new.key", renewed.key_text)
    pod.write("new.crt", renewed.certificate)
    eventually(lambda: clients.presented(server) == renewed.der, "it is tried again by itself", 60)


def test_a_user_s_own_leaf_is_kept(pod):
    """A leaf that the user signed with the development CA, in place of the generated one, is never renewed."""
    run(pod, "tls", "init", "--dir", str(pod.folder / "d"))
    ca_key, ca = pod.folder / "d/ca-key.pem", pod.folder / "d/ca.pem"
    clients.openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", "mine.key", cwd=pod.folder)
    clients.openssl("req", "-new", "-key", "mine.key", "-subj", "/CN=db.example.com", "-out", "mine.csr", cwd=pod.folder)
    extensions = pod.write("extensions", "subjectAltName=DNS:db.example.com,DNS:localhost\n")
    words = ["x509", "-req", "-in", "mine.csr", "-CA", ca, "-CAkey", ca_key, "-days", "20", "-extfile", extensions]
    clients.openssl(*map(str, words), "-out", "d/server.pem", cwd=pod.folder)
    pod.write("d/server-key.pem", (pod.folder / "mine.key").read_bytes())
    before = (pod.folder / "d/server.pem").read_bytes(), (pod.folder / "d/server-key.pem").read_bytes()
    pod.yaml(tls={"certificate_file": "d/server.pem", "key_file": "d/server-key.pem"})
    clock = Clock(pod)
    server = pod.serve(env=clock.environment)

    def reminded():
        # The expiry timer may not have started when the clock is first moved.
        clock.go(DAY)
        return server.logged("ERROR", match="TLS-ENDS-SOON|TLS-EXPIRED")

    eventually(reminded, "the end is told")
    assert ((pod.folder / "d/server.pem").read_bytes(), (pod.folder / "d/server-key.pem").read_bytes()) == before


# What clients would refuse


def _files(chain: chains.Chain, folder) -> dict[str, bytes]:
    chain.lay(folder)
    return {name: (folder / name).read_bytes() for name in ("tls.crt", "tls.key")}


def _serving(pod, **tls):
    """A server with a good chain, and a key that may reload it."""
    pod.key = LEDGER.mark("an API key")
    for name, content in _files(chains.KINDS["good"].make(), pod.home / "good").items():
        pod.write(name, content)
    auth = {"auth": {"api_key": {"keys": [f"{pod.key}:rw"]}}}
    pod.yaml(tls={"certificate_file": "tls.crt", "key_file": "tls.key", **tls}, runtime=auth)
    return pod.serve()


def _ask(pod, server, query: str = ""):
    return clients.get(server, f"/v1/tls/reload{query}", "-k", "-X", "POST", "-H", f"X-API-Key: {pod.key}")


REFUSED = [
    "no intermediate",
    "intermediate of the same name",
    "another intermediate",
    "issuer is no CA",
    "issuer for clients",
    "path length",
    "names that are not permitted",
    "for mail",
    "key usage without digitalSignature",
    "SHA-1",
    "Ed25519",
    "X.509 v1",
    "no alternative names",
    "another name",
]


@pytest.mark.parametrize("name", REFUSED)
def test_a_certificate_that_clients_refuse_is_rejected(pod, name):
    """Unless it is forced; a forced certificate does not cause the next one to be refused."""
    server = _serving(pod)
    before = clients.presented(server)
    for file, content in _files(chains.KINDS[name].make(), pod.home / "bad").items():
        pod.write(file, content)
    said = server.wait_for_log("ERROR", match="would refuse the new certificate")["fields"]
    assert "force=true" in said["hint"] and "accept_findings" in said["hint"], said
    looked = _ask(pod, server, "?dry_run=true")
    assert looked.status == 409, looked
    answer = looked.json()
    assert answer["result"] == "rejected" and answer["findings"][0]["code"].startswith("TLS-"), answer
    assert answer["findings"][0]["refused_by"], answer
    for endpoint in ENDPOINTS:
        assert clients.presented(server, endpoint) == before
    forced = _ask(pod, server, "?force=true")
    assert forced.status == 200 and forced.json()["result"] == "swapped", forced.text
    assert clients.presented(server) != before
    assert _ask(pod, server).json()["result"] == "unchanged"


def test_a_finding_may_be_accepted(pod):
    server = _serving(pod, accept_findings=["TLS-UNUSUAL-KEY"])
    before = clients.presented(server)
    for file, content in _files(chains.KINDS["Ed25519"].make(), pod.home / "new").items():
        pod.write(file, content)
    eventually(lambda: clients.presented(server) not in (before, None), "it is taken")
    run(pod, "tls", "check", pod.folder)


def test_an_unknown_code_is_refused(pod):
    pod.yaml(tls={**pod.write_pair(), "accept_findings": ["TLS-UNUSUAL"]})
    pod.refuse().names("TLS-UNUSUAL", "TLS-UNUSUAL-KEY")


def test_more_names_and_other_keys_are_accepted(pod):
    """A good chain of another CA, with another kind of key and more names: no client loses access."""
    server = _serving(pod)
    before = clients.presented(server)
    new = chains.leaf(kind="rsa2048", names=("localhost", "127.0.0.1", "db.example.com"))()
    for file, content in _files(new, pod.home / "new").items():
        pod.write(file, content)
    eventually(lambda: clients.presented(server) not in (before, None), "it is taken")


def test_a_removed_pair_takes_its_names_with_it(pod):
    other = pod.write_pair(pod.ca.issue(("b.test",)), "more")
    pod.key = LEDGER.mark("an API key")
    auth = {"auth": {"api_key": {"keys": [f"{pod.key}:rw"]}}}
    pod.yaml(tls={**pod.write_pair(), "certificates": [other]}, runtime=auth)
    server = pod.serve()
    pod.yaml(tls=pod.write_pair(), runtime=auth)
    assert _ask(pod, server).json()["result"] in ("swapped", "unchanged")
    assert named(server, "b.test") == pod.pair.der


# Client CAs that a reload must not drop

def _forged(pod) -> dict[str, str]:
    """A list with the name of the CA, signed by another key."""
    other = Authority("another key")
    other.certificate = pod.ca.certificate
    return {"clients.crl": other.crl(number=2)}


LOCKED_OUT = {
    "TLS-CRL-SIGNATURE": _forged,
    "TLS-CRL-MISSING": lambda pod: {"clients.crl": Authority("another").crl()},
    "TLS-CLIENT-CA-NOT-CA": lambda pod: {"ca.pem": pod.ca.issue(names=(), common_name="a client", client=True).certificate},
}


@pytest.mark.parametrize("code", LOCKED_OUT)
def test_a_reload_locks_no_client_out(pod, code):
    mine = pod.ca.issue(names=(), common_name="a client", client=True)
    pod.write("ca.pem", pod.ca.pem)
    pod.write("clients.crl", pod.ca.crl())
    asks = {"client_auth_mode": "request", "client_auth_ca_file": "ca.pem", "client_crl_files": ["clients.crl"]}
    pod.yaml(tls={**pod.write_pair(), **asks})
    server = pod.serve()
    show = clients.showing(mine, pod.home)
    clients.get(server, "/health", *show).ok()
    for file, content in LOCKED_OUT[code](pod).items():
        pod.write(file, content)
    said = server.wait_for_log("ERROR", match="is rejected")["fields"]
    assert "would be refused" in said["reason"] and code in said["hint"], said
    clients.get(server, "/health", *show).ok()
    found = json.loads(run(pod, "tls", "check", "--json", pod.folder, code=None).stdout)["findings"]
    assert code in {finding["code"] for finding in found}, found
    pod.write("ca.pem", pod.ca.pem)
    pod.write("clients.crl", pod.ca.crl(mine, number=3))
    eventually(lambda: clients.get(server, "/health", *show).exit != 0, "the next good list is taken")


def test_an_older_revocation_list_is_rejected(pod):
    mine = pod.ca.issue(names=(), common_name="a client", client=True)
    pod.write("ca.pem", pod.ca.pem)
    pod.write("clients.crl", pod.ca.crl(mine, number=2))
    asks = {"client_auth_mode": "request", "client_auth_ca_file": "ca.pem", "client_crl_files": ["clients.crl"]}
    key = LEDGER.mark("an API key")
    pod.yaml(tls={**pod.write_pair(), **asks}, runtime={"auth": {"api_key": {"keys": [f"{key}:rw"]}}})
    server = pod.serve()
    show = clients.showing(mine, pod.home)
    assert clients.get(server, "/health", *show).exit != 0
    pod.write("clients.crl", pod.ca.crl(starts=-2 * DAY, number=1))
    said = server.wait_for_log("ERROR", match="is rejected")["fields"]
    assert "is older than the one in force" in said["reason"] and "TLS-CRL-OLDER" in said["hint"], said
    assert clients.get(server, "/health", *show).exit != 0
    ask = ["-X", "POST", "-H", f"X-API-Key: {key}"]
    assert clients.get(server, "/v1/tls/reload", *ask).json()["result"] == "rejected"
    assert clients.get(server, "/v1/tls/reload?force=true", *ask).json()["result"] == "swapped"
    clients.get(server, "/health", *show).ok()


def test_a_slow_pod_does_not_delay_a_renewal(pod):
    """A FIFO whose writer writes nothing replaces `.env`; meanwhile the new certificate is loaded."""
    env = pod.write(".env", "TICKETS=0123456789abcdef\n")
    pod.yaml(tls={**pod.write_pair(), "session_ticket_secret": "${env:TICKETS}"})
    server = pod.serve()
    before = clients.presented(server)
    env.unlink()
    os.mkfifo(env)
    with os.fdopen(os.open(env, os.O_RDWR), "wb"):
        server.signal(signal.SIGHUP)
        pod.write_pair(pod.ca.issue())
        eventually(lambda: clients.presented(server) not in (before, None), "the new certificate")
        assert not server.logged("ERROR", match="the new configuration is rejected"), "the pod is still being read"
        server.wait_for_log("ERROR", match="the new configuration is rejected")


def test_a_fifo_in_place_of_a_file_does_not_block_a_reload(pod):
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    before = clients.presented(server)
    (pod.folder / "tls.crt").unlink()
    os.mkfifo(pod.folder / "tls.crt")
    server.wait_for_log("ERROR", match="is rejected")
    (pod.folder / "tls.crt").unlink()
    pod.write_pair(pod.ca.issue())
    eventually(lambda: clients.presented(server) not in (before, None), "the good one that came after")


def test_a_self_signed_certificate_does_not_replace_an_issued_one(pod):
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    before = clients.presented(server)
    pod.write_pair(self_signed())
    said = server.wait_for_log("ERROR", match="is rejected")["fields"]
    assert "is self-signed" in said["reason"] and "TLS-OTHER-CA" in said["hint"], said
    assert clients.presented(server) == before


def test_an_intermediate_of_the_current_chain_is_not_a_root(pod):
    """The served chain shows that the new one lacks its upper intermediate."""
    upper = Authority("Upper", pod.ca)
    pod.yaml(tls=pod.write_pair(upper.issue()))
    server = pod.serve()
    before = clients.presented(server)
    pair = Authority("Lower", upper).issue()
    pod.write_pair(replace(pair, intermediates=pair.intermediates[:1]))
    said = server.wait_for_log("ERROR", match="is rejected")["fields"]
    assert "TLS-INTERMEDIATE-MISSING" in said["hint"], said
    assert clients.presented(server) == before

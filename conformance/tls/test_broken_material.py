"""Broken certificates and keys of every kind: at startup, with the doctor, and offered to a server that has valid ones.

The corpus is harness/broken.py. docs/doctor.md is generated from the reports: SPICED_WRITE_DOCS=1 rewrites the page.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex

import pytest

from harness import clients, doctor
from harness.broken import BROKEN, ODD, SET_UPS, lay
from harness.certificates import key_pem
from harness.doctor import broken_pod, check, finding
from harness.leak_scanner import LEDGER
from harness.metrics import total
from harness.pod import ENDPOINTS, Pod
from harness.waiting import eventually

@pytest.fixture
def pod(tmp_path):
    pod = Pod(tmp_path)
    pod.api_key = LEDGER.mark("an API key")
    yield pod
    pod.close()


def test_the_corpus_is_large_enough():
    assert len(BROKEN) >= 40 and {piece.code for piece in BROKEN.values()} | {code for code, _ in ODD.values()} == {
        *doctor.MEANS
    }


@pytest.mark.parametrize("name", BROKEN)
def test_at_start(pod, name):
    """One error, no open port, and the doctor reports the same under the code."""
    piece = BROKEN[name]
    broken_pod(pod, name)
    found = finding(check(pod, code=1), piece.code)
    assert found["severity"] == "error", found
    assert found["origin"].startswith("spicepod.yaml: runtime.tls."), found
    assert not re.search(r"Parsing Error|Tag\(|Some\(|Err\(|\bos error\b", found["message"]), "a message for programmers"
    if piece.serves:
        server = pod.serve(env=doctor.secrets(pod))
        said = server.logged("ERROR", match=piece.code)
        assert [record["fields"]["message"] for record in said] == [found["message"]], said
        for endpoint in ENDPOINTS:
            assert clients.presented(server, endpoint)
    else:
        refusal = pod.refuse(env=doctor.secrets(pod))
        refusal.names(found["message"], f"hint: {found['fix']}")


@pytest.mark.parametrize("name", BROKEN)
def test_offered_to_a_good_server(pod, name):
    """Rejected with the doctor's message; the current material stays in use, and valid material is loaded again."""
    piece = BROKEN[name]
    set_up = SET_UPS[piece.set_up]
    set_up.yaml(pod)
    lay(pod, set_up.good(pod))
    server = pod.serve("--metrics", "localhost:0", env=doctor.secrets(pod))
    before = clients.presented(server)
    seen = len(server.log)
    lay(pod, piece.make(pod))
    found = finding(check(pod, code=1), piece.code)
    # Files are written one after the other, so a poll in between may see only part of the change.
    expected = "is rejected" if piece.serves else re.escape(_flat(found["message"]))
    said = server.wait_for_log("ERROR", match=expected, since=seen)["fields"]
    assert "is rejected; the current material stays in use" in said["message"] and said["hint"], said
    if not piece.serves:
        assert (said["reason"], said["hint"]) == (found["message"], found["fix"])

    for endpoint in ENDPOINTS:
        assert clients.presented(server, endpoint) == before, f"the {endpoint} endpoint changed"
    assert total(server, "spiced_tls_reload_total", result="rejected") >= 1
    assert total(server, "spiced_tls_reload_total", result="swapped") == 0
    show = ["-H", f"X-API-Key: {pod.api_key}"]
    (certificate,) = clients.get(server, "/v1/status", *show).ok().json()["tls"]["certificates"]
    assert certificate["last_rejection"]["reason"] == said["reason"], certificate
    assert clients.sql(server, "SELECT 1 AS x", *show).ok().json() == [{"x": 1}]

    lay(pod, set_up.good(pod))
    eventually(lambda: clients.presented(server) not in (before, None), "the good one that came after")
    for endpoint in ENDPOINTS:
        assert clients.presented(server, endpoint) != before
    assert total(server, "spiced_tls_reload_total", result="swapped") >= 1


def _flat(text: str) -> str:
    """The text as it is inside a line of JSON."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


@pytest.mark.parametrize("name", ODD)
def test_odd_material_is_served_and_reported(pod, name):
    code, odd = ODD[name]
    if odd.root and os.geteuid() != 0:
        pytest.skip("only root can make it")
    odd.make(pod)
    found = finding(check(pod, *odd.words), code)
    assert found["severity"] == odd.level, found
    if not odd.starts:
        pod.refuse(env=doctor.secrets(pod)).names(found["message"], found["fix"])
        return
    server = pod.serve(env=doctor.secrets(pod))
    only_the_doctor = ("TLS-OFF", "CONFIG-WARNING", "TLS-NAME-NOT-COVERED", "TLS-DEVELOPMENT", "TLS-ROOT-EXPIRED", "TLS-OTHER-CA")
    if code not in only_the_doctor:
        logged = [r["fields"]["message"] for r in server.logged(match=code)]
        assert logged == [found["message"]], "the start logs the doctor's message"


# The commands of the fixes

CONVERTED = {"TLS-DER", "TLS-PKCS12", "TLS-JKS", "TLS-KEY-CIPHER", "TLS-PKCS7", "TLS-KUBERNETES-SECRET"}


def mend(pod, found: dict) -> None:
    """Runs the command of the fix, and configures the file that it writes in place of the broken one."""
    (command,) = doctor.commands(found["fix"])
    done = doctor.in_shell(pod, command)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    written = shlex.split(re.split(" -out | > ", command)[1])[0]
    assert written.endswith(".pem") and (pod.folder / written).is_file(), written
    setting = found["origin"].rpartition(".")[2]
    text = (pod.folder / "spicepod.yaml").read_text()
    pod.write("spicepod.yaml", re.sub(rf"^(\s+{setting}): .*$", rf"\1: {written!r}", text, flags=re.MULTILINE))


# Pieces with other codes whose fix is a command that writes a new file.
MENDED = {
    *("certificate: acme.json", "certificate: quoted in a mail", "certificate: a diff", "certificate: numbered lines"),
    *("certificate: lines of grep -n", "certificate: comments of a program", "certificate: strings of a program"),
    *("certificate: HTML entities", "certificate: git's conflict markers", "key: acme.json"),
}


@pytest.mark.parametrize(
    "name", [name for name, piece in BROKEN.items() if piece.code in CONVERTED or name in MENDED]
)
def test_the_command_of_the_fix_works(pod, name):
    broken_pod(pod, name)
    found = finding(check(pod, code=1), BROKEN[name].code)
    mend(pod, found)
    check(pod, code=0)
    for path in pod.folder.glob("*key*.pem"):
        assert path.stat().st_mode & 0o077 == 0, f"others can read {path.name} after the fix"
    pod.serve(env=doctor.secrets(pod))


@pytest.mark.parametrize("file", ["it's here.der", "two words.der", "$HOME;date.der"])
def test_a_command_is_quoted(pod, file):
    pod.write(file, pod.pair.der)
    pod.write("tls.key", pod.pair.key_text)
    pod.yaml(tls={"certificate_file": file, "key_file": "tls.key"})
    mend(pod, finding(check(pod, code=1), "TLS-DER"))
    check(pod, code=0)


def test_the_comparison_of_a_mismatch(pod):
    """Its two commands print different keys and, with the matching key, the same key."""
    broken_pod(pod, "pair: another's key")
    commands = doctor.commands(finding(check(pod, code=1), "TLS-KEY-MISMATCH")["fix"])
    assert len(commands) == 2, commands

    def shown() -> list[str]:
        filled = [re.sub(r"\bKEY\b", "tls.key", re.sub(r"\bCERT\b", "tls.crt", command)) for command in commands]
        done = [doctor.in_shell(pod, command) for command in filled]
        assert [d.returncode for d in done] == [0, 0], [d.stderr for d in done]
        return [d.stdout for d in done]

    one, other = shown()
    assert one != other and "PUBLIC KEY" in one and "PUBLIC KEY" in other
    pod.write("tls.key", pod.pair.key_text)
    one, other = shown()
    assert one == other
    check(pod, code=0)


@pytest.mark.parametrize("name", ["key: another passphrase, PKCS#8", "key: another passphrase, Proc-Type"])
def test_the_question_of_a_passphrase(pod, name):
    """`openssl pkey` opens it with the right passphrase, and not with the configured one."""
    broken_pod(pod, name)
    (command,) = doctor.commands(finding(check(pod, code=1), "TLS-KEY-PASSPHRASE")["fix"])
    assert doctor.in_shell(pod, f"{command} -passin pass:{doctor.passphrase(pod)}").returncode != 0
    pod.write("tls.key", key_pem(pod.pair.key, passphrase=doctor.passphrase(pod).encode()))
    assert doctor.in_shell(pod, f"{command} -passin pass:{doctor.passphrase(pod)}").returncode == 0
    check(pod, code=0)


def test_a_mode_is_fixed(pod):
    _, odd = ODD["a key that all may read"]
    odd.make(pod)
    (command,) = doctor.commands(finding(check(pod), "TLS-KEY-PERMISSIONS")["fix"])
    assert doctor.in_shell(pod, command).returncode == 0
    assert "TLS-KEY-PERMISSIONS" not in {f["code"] for f in check(pod)}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_an_owner_is_fixed(pod):
    _, odd = ODD["a key of somebody else's"]
    odd.make(pod)
    (command,) = doctor.commands(finding(check(pod), "TLS-KEY-OWNER")["fix"])
    assert doctor.in_shell(pod, command).returncode == 0
    assert "TLS-KEY-OWNER" not in {f["code"] for f in check(pod)}


def test_a_stray_root_is_not_the_chains_root(pod):
    ODD["a certificate too many"][1].make(pod)
    codes = [f["code"] for f in check(pod)]
    assert "TLS-CHAIN-STRAY" in codes and "TLS-ROOT-SENT" not in codes, codes


# The page


@pytest.mark.timeout(180)
def test_the_page(tmp_path):
    pods = itertools.count()

    def make_pod() -> Pod:
        pod = Pod(tmp_path / str(next(pods)))
        pod.api_key = LEDGER.mark("an API key")
        return pod

    if os.geteuid() != 0:
        pytest.skip("only root can make a key file of another user's")
    text = doctor.page(make_pod)
    LEDGER.assert_clean(text, "the page")
    if os.environ.get("SPICED_WRITE_DOCS"):
        doctor.PAGE.write_text(text)
    assert doctor.PAGE.read_text() == text, "docs/doctor.md is outdated: SPICED_WRITE_DOCS=1 rewrites it"

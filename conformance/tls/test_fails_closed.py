"""The server fails closed: exit code 78, no open port, a report that names the problem and its origin, and no secret in
it.

`Refusal.check` defines what every refusal must look like; the cases are here.
"""

from __future__ import annotations

import datetime
import os
import re
import socket
import subprocess

import pytest

from harness import clients
from harness.certificates import key_pem
from harness.leak_scanner import LEDGER
from harness.pod import ENDPOINTS, Pod
from harness.server import binary

HOUR, DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)
CERTIFICATE_FILE = "spicepod.yaml: runtime.tls.certificate_file"
KEY_FILE = "spicepod.yaml: runtime.tls.key_file"
CERTIFICATE = "spicepod.yaml: runtime.tls.certificate"
KEY = "spicepod.yaml: runtime.tls.key"


# Material that is missing or wrong. Each function writes into the pod and returns the names that the report must
# contain


def missing_variable(pod: Pod):
    pod.yaml(tls={"certificate": "${env:NO_SUCH_CERT}", "key": pod.pair.key_text})
    return ["NO_SUCH_CERT", CERTIFICATE]


def missing_secret(pod: Pod):
    pod.yaml(tls={"certificate": pod.pair.certificate, "key": "${secrets:NO_SUCH_KEY}"})
    return ["NO_SUCH_KEY", KEY]


def missing_in_file_store(pod: Pod):
    pod.write("mounted/CERT", pod.pair.certificate)
    pod.yaml(
        secrets=[{"name": "mount", "from": "file:mounted"}], tls={"certificate": "${mount:CERT}", "key": "${mount:KEY}"}
    )
    return ["mount:KEY", KEY]


def several_references_missing(pod: Pod):
    pod.yaml(
        tls={"certificate": "${env:FIRST_ONE}", "key": "${secrets:SECOND_ONE}"},
        datasets=[{"from": "file:${env:THIRD_ONE}", "name": "x"}],
    )
    return ["FIRST_ONE", "SECOND_ONE", "THIRD_ONE", CERTIFICATE, KEY]


def missing_file(pod: Pod):
    pod.yaml(tls={**pod.write_pair(), "certificate_file": "certs/nowhere.crt"})
    return ["nowhere.crt", CERTIFICATE_FILE]


def missing_key_file(pod: Pod):
    pod.yaml(tls={**pod.write_pair(), "key_file": "/nowhere/tls.key"})
    return ["/nowhere/tls.key", KEY_FILE]


def dangling_symlink(pod: Pod):
    (pod.folder / "link.crt").symlink_to("gone.crt")
    pod.yaml(tls={**pod.write_pair(), "certificate_file": "link.crt"})
    return ["link.crt", CERTIFICATE_FILE]


def folder_for_a_file(pod: Pod):
    (pod.folder / "certs").mkdir()
    pod.yaml(tls={**pod.write_pair(), "certificate_file": "certs"})
    return ["certs", CERTIFICATE_FILE]


def empty_certificate_file(pod: Pod):
    pod.yaml(tls={**pod.write_pair(), "certificate_file": str(pod.write("empty.crt", ""))})
    return ["empty.crt", CERTIFICATE_FILE]


def empty_key_file(pod: Pod):
    pod.yaml(tls={**pod.write_pair(), "key_file": str(pod.write("empty.key", "\n"))})
    return ["empty.key", KEY_FILE]


def empty_inline_text(pod: Pod):
    pod.yaml(tls={"certificate": "", "key": pod.pair.key_text})
    return [CERTIFICATE]


def garbage_certificate(pod: Pod):
    pod.yaml(tls={**pod.write_pair(), "certificate_file": str(pod.write("tls.crt", LEDGER.mark("garbage in a file")))})
    return ["tls.crt", CERTIFICATE_FILE]


def garbage_key(pod: Pod):
    pod.yaml(tls={**pod.write_pair(), "key_file": str(pod.write("tls.key", LEDGER.mark("garbage in a key file")))})
    return ["tls.key", KEY_FILE]


def key_with_broken_base64(pod: Pod):
    marked = LEDGER.mark("a damaged key")
    pod.yaml(
        tls={
            **pod.write_pair(),
            "key_file": str(
                pod.write("tls.key", f"-----BEGIN PRIVATE KEY-----\n{marked}!!\n-----END PRIVATE KEY-----\n")
            ),
        }
    )
    return ["tls.key", KEY_FILE]


def key_cut_short(pod: Pod):
    pod.yaml(tls={**pod.write_pair(), "key_file": str(pod.write("tls.key", pod.pair.key_text[:120]))})
    return ["tls.key", KEY_FILE]


def certificate_cut_short(pod: Pod):
    pod.yaml(tls={**pod.write_pair(), "certificate_file": str(pod.write("tls.crt", pod.pair.certificate[:300]))})
    return ["tls.crt", CERTIFICATE_FILE]


def certificate_without_key(pod: Pod):
    pod.yaml(tls={"certificate_file": pod.write_pair()["certificate_file"]})
    return [CERTIFICATE_FILE, "key_file"]


def key_without_certificate(pod: Pod):
    pod.yaml(tls={"key_file": pod.write_pair()["key_file"]})
    return [KEY_FILE, "certificate_file"]


def key_of_another_certificate(pod: Pod):
    pod.yaml(tls={**pod.write_pair(), "key_file": str(pod.write("other.key", pod.ca.issue().key_text))})
    return [CERTIFICATE_FILE, KEY_FILE]


def key_of_another_kind(pod: Pod):
    pod.yaml(tls={**pod.write_pair(), "key_file": str(pod.write("other.key", pod.ca.issue(kind="ed25519").key_text))})
    return [CERTIFICATE_FILE, KEY_FILE]


def swapped(pod: Pod):
    paths = pod.write_pair()
    pod.yaml(tls={"certificate_file": paths["key_file"], "key_file": paths["certificate_file"]})
    return [CERTIFICATE_FILE, "tls.key"]


def swapped_text(pod: Pod):
    pod.yaml(tls={"certificate": pod.pair.key_text, "key": pod.pair.certificate})
    return [CERTIFICATE]


def encrypted_pkcs8_key(pod: Pod):
    text = key_pem(pod.pair.key, "pkcs8", LEDGER.mark("a passphrase").encode())
    pod.yaml(tls={**pod.write_pair(), "key_file": str(pod.write("tls.key", text))})
    return ["tls.key", KEY_FILE, "encrypted"]


def encrypted_traditional_key(pod: Pod):
    text = key_pem(pod.pair.key, "sec1", LEDGER.mark("a passphrase").encode())
    assert "Proc-Type: 4,ENCRYPTED" in text
    pod.yaml(tls={**pod.write_pair(), "key_file": str(pod.write("tls.key", text))})
    return ["tls.key", KEY_FILE, "encrypted"]


def der_certificate(pod: Pod):
    pod.yaml(tls={**pod.write_pair(), "certificate_file": str(pod.write("tls.der", pod.pair.der))})
    return ["tls.der", CERTIFICATE_FILE, "DER"]


def path_given_as_text(pod: Pod):
    """A path in a setting for PEM text: a common mistake."""
    paths = pod.write_pair()
    pod.yaml(tls={"certificate": paths["certificate_file"], "key": paths["key_file"]})
    return [CERTIFICATE, "certificate_file"]


def text_given_as_path(pod: Pod):
    pod.yaml(tls={"certificate_file": pod.pair.certificate, "key_file": pod.pair.key_text})
    return [CERTIFICATE_FILE]


def dot_dot_in_the_file_store(pod: Pod):
    pod.write("mounted/CERT", pod.pair.certificate)
    pod.write("KEY", pod.pair.key_text)
    pod.yaml(
        secrets=[{"name": "mount", "from": "file:mounted"}],
        tls={"certificate": "${mount:CERT}", "key": "${mount:../KEY}"},
    )
    return ["mount", KEY]


def unknown_store_in_a_reference(pod: Pod):
    pod.yaml(tls={"certificate": "${vault:CERT}", "key": pod.pair.key_text})
    return ["vault", CERTIFICATE]


def unknown_kind_of_store(pod: Pod):
    pod.yaml(secrets=[{"name": "odd", "from": "sticky_note:monitor"}], tls=pod.write_pair())
    return ["sticky_note"]


MATERIAL = [
    missing_variable,
    missing_secret,
    missing_in_file_store,
    several_references_missing,
    missing_file,
    missing_key_file,
    dangling_symlink,
    folder_for_a_file,
    empty_certificate_file,
    empty_key_file,
    empty_inline_text,
    garbage_certificate,
    garbage_key,
    key_with_broken_base64,
    key_cut_short,
    certificate_cut_short,
    certificate_without_key,
    key_without_certificate,
    key_of_another_certificate,
    key_of_another_kind,
    swapped,
    swapped_text,
    encrypted_pkcs8_key,
    encrypted_traditional_key,
    der_certificate,
    path_given_as_text,
    text_given_as_path,
    dot_dot_in_the_file_store,
    unknown_store_in_a_reference,
    unknown_kind_of_store,
]


@pytest.mark.parametrize("case", MATERIAL, ids=lambda case: case.__name__)
def test_material(pod, case):
    names = case(pod)
    pod.refuse().names(*names)


def test_empty_secret(pod):
    """A secret that exists but is empty is not a certificate."""
    pod.yaml(tls={"certificate": "${env:EMPTY_CERT}", "key": pod.pair.key_text})
    pod.refuse(env={"EMPTY_CERT": ""}).names("EMPTY_CERT", CERTIFICATE, "empty")


def test_unreadable_file(pod):
    """Root can read files of any mode; /proc/self/mem fails at its first byte even for root."""
    path = "/proc/self/mem"
    pod.yaml(tls={**pod.write_pair(), "certificate_file": path})
    pod.refuse().names(path, CERTIFICATE_FILE)


def test_flags_and_variables_are_named_as_origins(pod):
    pod.refuse("--tls-certificate-file", "/nowhere/a.crt", "--tls-key-file", "/nowhere/a.key").names(
        "--tls-certificate-file", "/nowhere/a.crt"
    )
    pod.refuse(
        env={"SPICED_RUNTIME__TLS__CERTIFICATE": "garbage", "SPICED_RUNTIME__TLS__KEY": pod.pair.key_text}
    ).names("SPICED_RUNTIME__TLS__CERTIFICATE")


def test_value_of_a_variable_is_not_repeated(pod):
    marked = LEDGER.mark("a variable's value")
    pod.yaml(tls={"certificate": "${env:CERT}", "key": "${env:KEY}"})
    pod.refuse(env={"CERT": marked, "KEY": marked}).names(CERTIFICATE)


MALFORMED = ["${env}", "${env:}", "${:KEY}", "${env:KEY", "${env:K EY}", "${env:K*Y}", "${}"]


@pytest.mark.parametrize("reference", MALFORMED)
def test_malformed_reference(pod, reference):
    pod.yaml(tls={"certificate": reference, "key": pod.pair.key_text})
    pod.refuse(env={"KEY": "x", "K": "x"}).names(CERTIFICATE)


# The pod file itself.

HEAD = "version: v1\nkind: Spicepod\nname: odd\n"

YAML = {
    "misspelled-tls-key": (
        "runtime:\n  tls:\n    enabled: true\n    certificat_file: a.crt\n",
        7,
        ["certificat_file", "certificate_file"],
    ),
    "misspelled-section": ("runtme:\n  tls:\n    enabled: true\n", 4, ["runtme", "runtime"]),
    "misspelled-runtime-key": ("runtime:\n  shutdown_dely: 1s\n", 5, ["shutdown_dely", "shutdown_delay"]),
    "misspelled-data-set-key": ("datasets:\n  - frm: file:x.csv\n    name: x\n", 5, ["frm", "from"]),
    "bad-indentation": ("runtime:\n  tls:\n    enabled: true\n   key_file: x\n", 7, ["spicepod.yaml"]),
    "tab": ("runtime:\n\ttls: {}\n", 5, ["spicepod.yaml"]),
    "unclosed": ("runtime: { tls: { enabled: true }\n", None, ["spicepod.yaml"]),
    "same-key-twice": ("runtime:\n  tls:\n    enabled: true\n    enabled: false\n", 7, ["enabled"]),
    "wrong-type": ("runtime:\n  tls:\n    enabled: perhaps\n", 6, ["enabled"]),
    "list-for-map": ("runtime:\n  - tls\n", None, ["runtime"]),
    "bad-version-of-tls": ("runtime:\n  tls:\n    min_version: 1.1\n", 6, ["min_version", "1.2", "1.3"]),
    "bad-profile": ("runtime:\n  tls:\n    profile: ancient\n", 6, ["profile", "ancient", "intermediate", "modern"]),
    "bad-duration": ("runtime:\n  shutdown_timeout: soon\n", 5, ["shutdown_timeout", "soon"]),
    "bad-size": ("runtime:\n  sql:\n    memory_limit: plenty\n", 6, ["memory_limit", "plenty"]),
    "bad-access": ("datasets:\n  - from: file:x.csv\n    name: x\n    access: maybe\n", 7, ["access", "maybe"]),
    "not-a-map": ("- a list\n", None, ["spicepod.yaml"]),
}


@pytest.mark.parametrize("text, line, names", YAML.values(), ids=YAML.keys())
def test_pod_file(pod, text, line, names):
    pod.write("spicepod.yaml", text if text.startswith("- ") else HEAD + text)
    refusal = pod.refuse().names(*names)
    if line is not None:
        assert re.search(rf"(:|line |-> )\s*{line}\b", refusal.stderr), f"line {line} is not named:\n{refusal.stderr}"


def test_unknown_version_of_the_pod_file(pod):
    pod.write("spicepod.yaml", "version: v9\nkind: Spicepod\nname: odd\n")
    pod.refuse().names("v9")


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v2"])
def test_known_versions_of_the_pod_file(pod, version):
    pod.write("spicepod.yaml", f"version: {version}\nkind: Spicepod\nname: fine\n")
    clients.get(pod.serve(), "/health").ok()


def test_unknown_key_shown_next_to_a_secret_does_not_show_it(pod):
    """An error that quotes the YAML must not quote the key next to it."""
    pod.yaml(tls={"certificate": pod.pair.certificate, "keyy": pod.pair.key_text})
    pod.refuse().names("keyy")


def test_text_of_the_wrong_type_is_not_repeated(pod):
    marked = LEDGER.mark("a key of the wrong type")
    pod.write("spicepod.yaml", HEAD + f"runtime:\n  tls:\n    key: [ {marked} ]\n    certificate: x\n")
    pod.refuse().names("key")


def test_misspelled_variable(pod):
    pod.refuse(env={"SPICED_RUNTIME__TLS__CERTIFICAT_FILE": "/etc/a.crt"}).names("SPICED_RUNTIME__TLS__CERTIFICAT_FILE")


def test_keys_that_spice_knows_are_a_warning(pod):
    pod.yaml(
        models=[{"from": "openai:gpt-4o", "name": "m"}],
        embeddings=[{"from": "openai:text", "name": "e"}],
        dependencies=["spiceai/quickstart"],
    )
    server = pod.serve()
    for key in ("models", "embeddings", "dependencies"):
        assert server.logged("WARN", match=key), f"no warning for {key}:\n{server.stderr}"


# A setting that asks for an unavailable protection is refused too.

EMPTY = {
    "mtls": ({"auth": {"mtls": {"identities": [{"san_dns": "a.example", "role": "ro"}]}}}, "runtime.auth.mtls"),
    "require": ({"auth": {"require": "all"}}, "runtime.auth.require"),
    "client_auth_mode": ({"tls": {"client_auth_mode": "request"}}, "client_auth_ca_file"),
}


@pytest.mark.parametrize("what", EMPTY)
def test_unenforceable_settings_are_refused(pod, what):
    asked, named = EMPTY[what]
    pod.yaml(tls={**pod.write_pair(), **asked.get("tls", {})}, runtime={k: v for k, v in asked.items() if k != "tls"})
    pod.refuse().names(what, named)


def test_settings_that_ask_for_nothing_are_accepted(pod):
    pod.yaml(tls={**pod.write_pair(), "client_auth_mode": "none", "client_crl_files": [], "certificates": []})
    clients.get(pod.serve(), "/health").ok()


# Usage, ports, and the directory.


@pytest.mark.parametrize(
    "args",
    [["--no-such-flag"], ["--tls-enabled=maybe"], ["--http"], ["--log-format", "xml"], ["one", "two"]],
    ids=" ".join,
)
def test_usage(pod, args):
    pod.refuse(*args, code=64)


def test_help_and_version_are_no_errors(pod):
    for flag, word in (("--help", "--tls-certificate-file"), ("--version", "spiced")):
        done = subprocess.run([binary(), flag], capture_output=True, timeout=clients.DEADLINE, env=pod.environment())
        assert done.returncode == 0 and word in done.stdout.decode(), done


def test_directory_without_a_pod_file(pod):
    empty = pod.home / "empty"
    empty.mkdir()
    pod.refuse(path=empty).names("spicepod.yaml", str(empty))


def test_directory_that_does_not_exist(pod):
    pod.refuse(path="/no/such/folder").names("/no/such/folder")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_port_in_use(pod, endpoint):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "127.0.0.1:%d" % taken.getsockname()[1]
        others = [d for d in ENDPOINTS if d != endpoint]
        pod.yaml(tls=pod.write_pair())
        server = pod.serve(f"--{endpoint}", address, endpoints=others, wait=False)
        assert server.wait_for_exit() == 69, server.stderr
    report = [line for line in server.stderr.splitlines() if not line.startswith("{")]
    assert report and report[0].startswith("error: ") and report[-1].startswith("hint: "), server.stderr
    assert address in server.stderr, server.stderr
    assert '"serving"' not in server.stderr, "it reported that it serves before all ports were bound"


# Problems that only cause a log line.


def test_key_file_open_to_others_warns_and_serves(pod):
    paths = pod.write_pair()
    (pod.folder / "tls.key").chmod(0o644)
    pod.yaml(tls=paths)
    server = pod.serve()
    assert server.logged("WARN", match=r"tls\.key"), server.stderr
    clients.get(server, "/health").ok()


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400], ids=oct)
def test_key_file_of_the_right_mode_says_nothing(pod, mode):
    """PostgreSQL's rule: 0600, or 0640 owned by root."""
    if mode == 0o640 and os.geteuid() != 0:
        pytest.skip("0640 is right for a file that root owns, and the suite does not run as root")
    paths = pod.write_pair()
    (pod.folder / "tls.key").chmod(mode)
    pod.yaml(tls=paths)
    assert not pod.serve().logged("WARN", match=r"tls\.key")


@pytest.mark.parametrize(
    "starts, ends, word",
    [(-9 * DAY, -HOUR, "expired|out of date|no longer valid"), (DAY, 9 * DAY, "not yet valid|not valid (yet|before)")],
    ids=["expired", "not-yet-valid"],
)
def test_out_of_date_is_an_error_in_the_log_and_serves(pod, starts, ends, word):
    pair = pod.ca.issue(starts=starts, ends=ends)
    pod.yaml(tls=pod.write_pair(pair))
    server = pod.serve()
    assert server.logged("ERROR", match=word), server.stderr
    assert clients.presented(server) == pair.der
    clients.curl(server.url("/health"), "-k").ok()
    assert clients.get(server, "/health").exit == 60, "curl finds it out of date too"


@pytest.mark.parametrize("days, level", [(20, "WARN"), (5, "ERROR")])
def test_certificate_near_its_end(pod, days, level):
    pod.yaml(tls=pod.write_pair(pod.ca.issue(ends=days * DAY)))
    server = pod.serve()
    assert server.logged(level, match="expire|days|end"), server.stderr
    clients.get(server, "/health").ok()

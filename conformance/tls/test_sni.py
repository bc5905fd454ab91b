"""Several certificates, selected by the name that a client requests (SNI, RFC 6066 §3): `runtime.tls.certificates`."""

from __future__ import annotations

import datetime
import os
import re
import signal
import socket
import ssl
import subprocess
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from harness import clients, doctor
from harness.certificates import Authority, Pair, certificate_pem, key_pem
from harness.clients import tool
from harness.doctor import finding
from harness.leak_scanner import LEDGER
from harness.metrics import metrics, total
from harness.pod import ENDPOINTS
from harness.waiting import DEADLINE, eventually

DAY = datetime.timedelta(days=1)
EVERY_DOOR = (*ENDPOINTS, "metrics")


def shown(server, name: str | None, endpoint: str = "http", version: ssl.TLSVersion | None = None) -> bytes:
    """The leaf that a client sees if it requests this name, or none."""
    with (
        socket.create_connection(("127.0.0.1", server.port(endpoint)), timeout=DEADLINE) as raw,
        clients.context(version=version).wrap_socket(raw, server_hostname=name) as connection,
    ):
        return connection.getpeercert(binary_form=True)


def by_openssl(server, name: str, *words: str, endpoint: str = "http") -> bytes | str:
    """The same with `openssl s_client`, limited to what it can verify; without a certificate, its output."""
    done = subprocess.run(
        [tool("openssl"), "s_client", "-connect", f"127.0.0.1:{server.port(endpoint)}", "-servername", name, *words],
        input=b"",
        capture_output=True,
        timeout=DEADLINE,
    )
    found = re.search(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", done.stdout, re.DOTALL)
    if not found:
        return (done.stdout + done.stderr).decode()
    return x509.load_pem_x509_certificate(found[0]).public_bytes(serialization.Encoding.DER)


class Names:
    """A pair for each name, each in separate files, and the settings that refer to them."""

    def __init__(self, pod) -> None:
        self.pod = pod
        self.pairs: dict[str, Pair] = {}

    def add(self, *names: str, stem: str | None = None, **more) -> dict[str, str]:
        """Creates a pair; returns its entry for the list."""
        stem = stem or names[0].replace("*", "any")
        pair = self.pairs[stem] = self.pod.ca.issue(names, common_name=stem, **more)
        return self.pod.write_pair(pair, stem=stem)

    def renew(self, stem: str) -> Pair:
        """Replaces the files; the pair is not yet expected in answers."""
        old = self.pairs[stem]
        names = old.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        pair = self.pod.ca.issue(names.get_values_for_type(x509.DNSName), common_name=stem)
        for suffix, text in (("key", pair.key_text), ("crt", pair.certificate)):
            self.pod.write(f"{stem}.{suffix}.new", text)
            os.replace(self.pod.folder / f"{stem}.{suffix}.new", self.pod.folder / f"{stem}.{suffix}")
        return pair

    def who(self, server, name: str | None, endpoint: str = "http", **more) -> str:
        """The stem of the pair that the server presents."""
        der = shown(server, name, endpoint, **more)
        return next((stem for stem, pair in self.pairs.items() if pair.der == der), "default" if der == self.pod.pair.der else "?")


@pytest.fixture
def names(pod):
    return Names(pod)


# Selection


CHOICES = {
    "db.example.com": "db.example.com",
    "DB.Example.Com": "db.example.com",
    "web.example.com": "any.example.com",
    "WEB.EXAMPLE.COM": "any.example.com",
    "a.web.example.com": "default",  # a wildcard covers one label
    "example.com": "default",
    "other.org": "other.org",
    "also.other.org": "other.org",
    "xn--bcher-kva.example": "xn--bcher-kva.example",
    "localhost": "default",
    "nobody.example.org": "default",
    "no-san.example.net": "default",  # the common name is ignored: RFC 9525 §2
    None: "default",
}


def _choices(pod, names: Names) -> dict:
    return {
        **pod.write_pair(),
        "certificates": [
            names.add("*.example.com"),
            names.add("db.example.com"),
            names.add("other.org", "also.other.org"),
            names.add("xn--bcher-kva.example"),
            pod.write_pair(pod.ca.issue((), common_name="no-san.example.net"), stem="no-san"),
        ],
    }


def test_each_name_gets_its_own(pod, names):
    pod.yaml(tls=_choices(pod, names))
    server = pod.serve("--metrics", "localhost:0")
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        assert {name: names.who(server, name, version=version) for name in CHOICES} == CHOICES
    for endpoint in EVERY_DOOR:
        for name in ("db.example.com", "web.example.com", "nobody.example.org", None):
            assert names.who(server, name, endpoint) == CHOICES[name], (endpoint, name)


def test_clients_that_check_find_what_they_asked_for(pod, names):
    """curl and pyarrow, each by name, with full verification."""
    pod.yaml(tls=_choices(pod, names))
    server = pod.serve()
    port = server.port("http")
    for name in ("db.example.com", "web.example.com", "also.other.org"):
        url = f"https://{name}:{port}/health"
        clients.curl(url, "--resolve", f"{name}:{port}:127.0.0.1", ca=server.ca).ok()
        with clients.flight_client(server, override_hostname=name) as client:
            assert clients.query(client, "SELECT 1 AS x").to_pylist() == [{"x": 1}]
    refused = clients.curl(f"https://a.web.example.com:{port}/", "--resolve", f"a.web.example.com:{port}:127.0.0.1", ca=server.ca)
    assert refused.exit == 60, refused


def test_an_exact_name_in_any_position(pod, names):
    """An exact name takes precedence over a wildcard, whether that is in the list before it or in the top-level pair.
    """
    top = pod.ca.issue(("*.example.com",), common_name="top")
    names.pairs["top"] = top
    more = [names.add("b.example.com"), names.add("*.example.com", stem="list")]
    pod.yaml(tls={**pod.write_pair(top), "certificates": more})
    server = pod.serve()
    assert names.who(server, "b.example.com") == "b.example.com"
    assert names.who(server, "c.example.com") == "top", "the first of two wildcards"


def test_odd_wildcards_are_not_wildcards(pod, names):
    """A wildcard must be a whole label, and the first one: RFC 9525 §6.3."""
    more = [names.add("d*.example.com", stem="part"), names.add("a.*.example.com", stem="inner"), names.add("*", stem="all")]
    pod.yaml(tls={**pod.write_pair(), "certificates": more})
    server = pod.serve()
    for name in ("db.example.com", "a.b.example.com", "example", "example.com"):
        assert names.who(server, name) == "default", name


def test_without_a_top_level_pair_the_first_is_the_default(pod, names):
    pod.yaml(tls={"certificates": [names.add("a.example.com"), names.add("b.example.com")]})
    server = pod.serve()
    asked = ("a.example.com", "b.example.com", "c.example.com", None)
    assert [names.who(server, name) for name in asked] == ["a.example.com", "b.example.com", "a.example.com", "a.example.com"]


# strict_sni


def _refused(server, name: str | None, endpoint: str) -> str:
    try:
        return names_of(shown(server, name, endpoint))
    except ssl.SSLError as error:
        return error.reason or str(error)


def names_of(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).subject.rfc4514_string()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_strict_sni_refuses_unknown_and_missing_names(pod, names, version):
    pod.yaml(tls={**_choices(pod, names), "strict_sni": True})
    server = pod.serve()
    for endpoint in ENDPOINTS:
        for name in ("nobody.example.org", "a.web.example.com", None):
            with pytest.raises(ssl.SSLError) as refused:
                shown(server, name, endpoint, version)
            assert "UNRECOGNIZED_NAME" in str(refused.value), (endpoint, name, refused.value)
        assert names.who(server, "db.example.com", endpoint, version=version) == "db.example.com"
        assert names.who(server, "web.example.com", endpoint, version=version) == "any.example.com"
        assert names.who(server, "localhost", endpoint, version=version) == "default", "the names of the top-level pair count too"


def test_strict_sni_refuses_by_address(pod, names):
    """A client that connects to an address requests no name, and curl reports the refusal."""
    pod.yaml(tls={**pod.write_pair(), "strict_sni": True})
    server = pod.serve()
    answer = clients.get(server, "/health", host="127.0.0.1")
    assert answer.exit == 35 and "unrecognized name" in answer.trouble, answer
    clients.get(server, "/health").ok()


def test_strict_sni_comes_and_goes_by_reload(pod, names):
    tls = _choices(pod, names)
    pod.yaml(tls=tls)
    server = pod.serve()
    assert names.who(server, None) == "default"
    pod.yaml(tls={**tls, "strict_sni": True})
    eventually(lambda: "UNRECOGNIZED" in _refused(server, None, "http"), "strict")
    assert clients.get(server, "/v1/status").ok().json()["tls"]["strict_sni"] is True
    pod.yaml(tls=tls)
    eventually(lambda: names.who(server, None) == "default", "no longer strict")


# Settings without TLS


@pytest.mark.parametrize(
    "setting",
    [{"strict_sni": True}, {"min_version": "1.3"}, {"profile": "modern"}],
    ids=lambda setting: next(iter(setting)),
)
def test_a_tls_setting_without_tls_is_an_error(pod, setting):
    """Like `client_crl_files` without `client_auth_mode`: the setting shows that its author expects TLS."""
    pod.yaml(tls=setting)
    server = pod.serve()
    assert server.logged("WARN", match=next(iter(setting))), server.stderr


# One name, several keys


def _both_kinds(pod, names, *order: str) -> dict:
    return {**pod.write_pair(), "certificates": [names.add("db.example.com", stem=kind, kind=kind) for kind in order]}


@pytest.mark.parametrize("order", [("rsa2048", "p256"), ("p256", "rsa2048")], ids="-".join)
def test_one_name_with_keys_of_two_kinds(pod, names, order):
    """Each client gets the pair that it can verify; a client that can verify both gets the first."""
    pod.yaml(tls=_both_kinds(pod, names, *order))
    server = pod.serve()
    assert not server.logged(match="TLS-SNI-DOUBLED")
    name = "db.example.com"
    for endpoint in ENDPOINTS:
        only = {
            "rsa2048": [["-tls1_3", "-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"], ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"]],
            "p256": [["-tls1_3", "-sigalgs", "ECDSA+SHA256"], ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]],
        }
        for kind, ways in only.items():
            for words in ways:
                assert by_openssl(server, name, *words, endpoint=endpoint) == names.pairs[kind].der, (kind, words)
        assert names.who(server, name, endpoint) == order[0]


def test_one_name_with_keys_of_one_kind(pod, names):
    """The first is presented, and the doctor and the log report that the other never is."""
    more = [names.add("db.example.com", stem="first"), names.add("db.example.com", "own.example.com", stem="second")]
    pod.yaml(tls={**pod.write_pair(), "certificates": more})
    server = pod.serve()
    assert [names.who(server, n) for n in ("db.example.com", "own.example.com")] == ["first", "second"]
    (said,) = server.logged("WARN", match="TLS-SNI-DOUBLED")
    assert "certificates[1]" in said["fields"]["origin"] and "db.example.com" in said["fields"]["message"], said
    found = finding(_check(pod), "TLS-SNI-DOUBLED")
    assert found["severity"] == "warning" and "certificates[1]" in found["origin"], found


def test_the_default_too_is_one_that_the_client_can_verify(pod, names):
    """An unknown name has only one pair; a client that cannot verify its kind of key is refused."""
    pod.yaml(tls={**pod.write_pair(), "certificates": [names.add("rsa.example.com", kind="rsa2048")]})
    server = pod.serve()
    said = by_openssl(server, "nobody.example.org", "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256")
    assert isinstance(said, str) and "alert handshake failure" in said, said


# Sessions


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_a_session_is_resumed_only_for_its_own_name(pod, names, tmp_path, version):
    """RFC 6066 §3: a server must not resume for another name."""
    pod.yaml(tls=_choices(pod, names))
    server = pod.serve()
    session = tmp_path / "session.pem"
    clients.save_session(server, "http", version, session, "-servername", "db.example.com")
    said = {
        name: clients.s_client(server.port("http"), f"-{version}", "-alpn", "h2", "-sess_in", str(session), "-servername", name)
        for name in ("db.example.com", "other.org")
    }
    assert "Reused, " in said["db.example.com"], said["db.example.com"]
    assert "New, " in said["other.org"], said["other.org"]


# Reports


def _check(pod, *words, code: int | None = None) -> list[dict]:
    pod.api_key = pod.api_key if hasattr(pod, "api_key") else LEDGER.mark("an API key")
    return doctor.check(pod, *words, code=code)


def test_status_and_metrics_list_every_certificate(pod, names):
    pod.yaml(tls=_choices(pod, names))
    server = pod.serve("--metrics", "localhost:0")
    listed = clients.get(server, "/v1/status").ok().json()["tls"]["certificates"]
    origins = {c["fingerprint"]: (c["origin"], c["key_origin"]) for c in listed}
    expected = {pod.pair.fingerprint, *(pair.fingerprint for pair in names.pairs.values())}
    assert expected <= origins.keys() and len(listed) == 6
    assert origins[names.pairs["db.example.com"].fingerprint] == (
        "spicepod.yaml: runtime.tls.certificates[1].certificate_file",
        "spicepod.yaml: runtime.tls.certificates[1].key_file",
    )
    name = "spiced_tls_certificate_not_after_timestamp_seconds"
    series = [(labels["endpoint"], labels["fingerprint"]) for n, labels, _ in metrics(server) if n == name]
    assert sorted(series) == sorted((endpoint, fingerprint) for endpoint in EVERY_DOOR for fingerprint in origins)


def test_the_doctor_checks_the_pair_that_would_be_presented(pod, names):
    tls = _choices(pod, names)
    tls["certificates"].append(names.add("old.example.com", starts=-9 * DAY, ends=-DAY))
    pod.yaml(tls=tls)
    codes = {f["code"] for f in _check(pod, "--name", "db.example.com", "--name", "web.example.com")}
    assert "TLS-NAME-NOT-COVERED" not in codes
    found = finding(_check(pod, "--name", "nobody.example.org", code=1), "TLS-NAME-NOT-COVERED")
    assert "nobody.example.org" in found["message"] and found["subject"] == "CN=localhost", found
    found = finding(_check(pod, code=1), "TLS-EXPIRED")
    assert found["subject"] == "CN=old.example.com" and "certificates[5]" in found["origin"], found


WRONG = {
    "another's key": (lambda pod, entry: {**entry, "key_file": pod.write_pair(pod.ca.issue(), stem="x")["key_file"]}, "is not the key of"),
    "no key": (lambda pod, entry: {"certificate_file": entry["certificate_file"]}, "certificates[1]"),
    "no certificate": (lambda pod, entry: {"key_file": entry["key_file"]}, "certificates[1]"),
    "a file that is not there": (lambda pod, entry: {**entry, "certificate_file": "nowhere.crt"}, "nowhere.crt"),
    "a key that is unknown": (lambda pod, entry: {**entry, "key_flie": "x"}, "key_file"),
    "nothing": (lambda pod, entry: {}, "certificates[1]"),
    "a secret that is missing": (lambda pod, entry: {**entry, "key_file": "${env:NOT_THERE}"}, "NOT_THERE"),
}


@pytest.mark.parametrize("wrong, names_it", WRONG.values(), ids=WRONG.keys())
def test_one_that_is_wrong_stops_the_start(pod, names, wrong, names_it):
    good, bad = names.add("a.example.com"), names.add("b.example.com")
    pod.yaml(tls={**pod.write_pair(), "certificates": [good, wrong(pod, bad)]})
    pod.refuse().names("certificates[1]", names_it)


def test_a_file_overrides_inline_text_in_an_entry_too(pod, names):
    entry = names.add("a.example.com")
    pod.yaml(tls={**pod.write_pair(), "certificates": [{**entry, "certificate": "nothing", "key": "nothing"}]})
    assert names.who(pod.serve(), "a.example.com") == "a.example.com"


# Reload


def test_each_is_renewed_separately(pod, names):
    pod.yaml(tls=_choices(pod, names))
    server = pod.serve("--metrics", "localhost:0")
    renewed = names.renew("other.org")
    eventually(lambda: shown(server, "other.org") == renewed.der, "the renewed certificate")
    names.pairs["other.org"] = renewed
    for endpoint in ENDPOINTS:
        assert {name: names.who(server, name, endpoint) for name in CHOICES} == CHOICES
    assert total(server, "spiced_tls_reload_total", result="swapped") == 1
    name = "spiced_tls_certificate_not_after_timestamp_seconds"
    shown_now = {labels["fingerprint"] for n, labels, _ in metrics(server) if n == name}
    assert {p.fingerprint for p in names.pairs.values()} <= shown_now and len(shown_now) == 6


def test_one_broken_pair_rejects_the_whole(pod, names):
    pod.yaml(tls=_choices(pod, names))
    server = pod.serve("--metrics", "localhost:0")
    whole = (pod.folder / "db.example.com.key").read_text()
    seen = len(server.log)
    renewed = names.renew("other.org")
    pod.write("db.example.com.key", pod.ca.issue().key_text)
    said = server.wait_for_log("ERROR", match="is rejected", since=seen)["fields"]
    assert "certificates[1]" in said["reason"], said
    assert {name: names.who(server, name) for name in CHOICES} == CHOICES, "all certificates stay in use"
    rejections = {
        c["subject"]: c["last_rejection"]
        for c in clients.get(server, "/v1/status").ok().json()["tls"]["certificates"]
        if c["last_rejection"]
    }
    assert rejections, "the rejection is shown"
    pod.write("db.example.com.key", whole)
    eventually(lambda: shown(server, "other.org") == renewed.der, "what is whole again is taken")


def test_the_list_grows_and_shrinks_by_reload(pod, names):
    tls = _choices(pod, names)
    pod.yaml(tls=tls)
    server = pod.serve()
    added = names.add("new.example.org")
    pod.yaml(tls={**tls, "certificates": [added, *tls["certificates"]]})
    eventually(lambda: names.who(server, "new.example.org") == "new.example.org", "the one that was added")
    assert {name: names.who(server, name) for name in CHOICES} == CHOICES
    pod.yaml(tls={**tls, "certificates": tls["certificates"][:1]})
    eventually(lambda: names.who(server, "other.org") == "default", "the ones that are gone")
    assert names.who(server, "db.example.com") == "any.example.com"
    assert not server.logged("ERROR"), server.stderr


def test_references_in_the_list(pod, names):
    """Paths, text and passphrases from stores; they rotate like other material."""
    word = LEDGER.mark("a passphrase")
    a, b = names.add("a.example.com"), names.pairs.setdefault("b", pod.ca.issue(("b.example.com",), common_name="b"))
    folder = pod.folder / "secrets"

    def store(pair: Pair, passphrase: str) -> None:
        for name, text in (
            ("b.key", key_pem(pair.key, passphrase=passphrase.encode())),
            ("passphrase", passphrase),
            ("b.crt", pair.certificate),
        ):
            pod.write(folder / name, text)

    store(b, word)
    inline = {"certificate": "${mount:b.crt}", "key": "${mount:b.key}", "key_passphrase": "${mount:passphrase}"}
    pod.yaml(
        secrets=[{"from": f"file:{folder}", "name": "mount"}],
        tls={**pod.write_pair(), "certificates": [{"certificate_file": "${env:A_CRT}", "key_file": "${env:A_KEY}"}, inline]},
    )
    server = pod.serve(env={"A_CRT": a["certificate_file"], "A_KEY": a["key_file"]})
    assert [names.who(server, n) for n in ("a.example.com", "b.example.com")] == ["a.example.com", "b"]
    renewed = pod.ca.issue(("b.example.com",), common_name="b")
    store(renewed, LEDGER.mark("a new passphrase"))
    server.signal(signal.SIGHUP)
    eventually(lambda: shown(server, "b.example.com") == renewed.der, "the renewed secret")


# Ten thousand


THOUSANDS = int(os.environ.get("SPICED_PAIRS", "10000"))


def _many(pod, count: int) -> list[str]:
    """Certificates with the same key, each for a different name, as text of the pod."""
    first = pod.ca.issue()
    pod.write("many.key", first.key_text)
    folder = pod.folder / "many"
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.crt").write_text(_signed(pod.ca, first, f"n{number}.example.com"))
    pod.many_key = first.key
    return [f"      - {{ certificate_file: many/{number}.crt, key_file: many.key }}\n" for number in range(count)]


def _signed(ca: Authority, like: Pair, name: str) -> str:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(ca.name)
        .public_key(like.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(like.leaf.not_valid_before_utc)
        .not_valid_after(like.leaf.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
    )
    return certificate_pem(builder.sign(ca.key, hashes.SHA256()))


@pytest.mark.timeout(400)
def test_ten_thousand(pod, capsys):
    entries = _many(pod, THOUSANDS)
    files = pod.write_pair()
    pod.write(
        "spicepod.yaml",
        "version: v1\nkind: Spicepod\nname: many\nruntime:\n  tls:\n"
        f"    certificate_file: {files['certificate_file']}\n    key_file: {files['key_file']}\n    certificates:\n"
        + "".join(entries),
    )
    started = time.monotonic()
    server = pod.serve("--metrics", "localhost:0", wait=False)
    server.wait_for_log(match=r'"message": "serving"', deadline=180)
    loaded = time.monotonic() - started

    def for_(number: int) -> bytes:
        return x509.load_pem_x509_certificate((pod.folder / f"many/{number}.crt").read_bytes()).public_bytes(
            serialization.Encoding.DER
        )

    for number in (0, THOUSANDS // 2, THOUSANDS - 1):
        assert shown(server, f"n{number}.example.com") == for_(number)
    assert shown(server, "nobody.example.com") == pod.pair.der
    handshakes = time.monotonic()
    for number in range(0, THOUSANDS, max(1, THOUSANDS // 100)):
        shown(server, f"n{number}.example.com")
    handshakes = (time.monotonic() - handshakes) / 100

    number = THOUSANDS // 3
    new = _signed(pod.ca, Pair(pod.pair.leaf, pod.many_key), f"n{number}.example.com")
    pod.write(f"many/{number}.crt.new", new)
    os.replace(pod.folder / f"many/{number}.crt.new", pod.folder / f"many/{number}.crt")
    changed = time.monotonic()
    eventually(lambda: shown(server, f"n{number}.example.com") == for_(number), "the one that has changed", 120)
    changed = time.monotonic() - changed

    asked = time.monotonic()
    listed = clients.get(server, "/v1/status").ok().json()["tls"]["certificates"]
    asked = time.monotonic() - asked
    scraped = time.monotonic()
    series = sum(1 for name, _, _ in metrics(server) if name == "spiced_tls_certificate_not_after_timestamp_seconds")
    scraped = time.monotonic() - scraped
    idle = server.cpu_share(3)
    with capsys.disabled():
        print(
            f"\n{THOUSANDS} pairs: serving after {loaded:.1f} s, a changed one is there after {changed:.1f} s, a handshake takes "
            f"{handshakes * 1000:.1f} ms, status {asked:.1f} s, metrics {scraped:.1f} s, {server.memory() >> 20} MiB, "
            f"{idle:.0%} of a core when idle"
        )
    assert len(listed) == THOUSANDS + 1 and series == len(EVERY_DOOR) * (THOUSANDS + 1)
    assert loaded < 60 and changed < 60 and handshakes < 0.2
    assert not server.logged("ERROR"), server.logged("ERROR")[:3]
    assert server.memory() < 1 << 30

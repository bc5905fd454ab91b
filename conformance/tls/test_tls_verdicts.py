"""Which clients refuse a certificate: for every kind of chain the doctor, the table, and the clients themselves agree.

The clients connect to a Python server that presents any chain; each client connects once, for all kinds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from harness import browsers, chains, clients
from harness.chains import KINDS
from harness.commands import run
from harness.pod import Pod
from harness.server import binary
from harness.waiting import DEADLINE

OWN = Path(__file__).parents[1] / "clients" / "handshake"


def _is_address(name: str) -> bool:
    return name[0].isdigit()


class Presenting:
    """Servers that present each kind of chain, whatever its faults."""

    def __init__(self, root: Path) -> None:
        self.folders = {}
        self.ports = {}
        self.listening = []
        for number, (name, kind) in enumerate(KINDS.items()):
            folder = root / str(number)
            kind.make().lay(folder)
            self.folders[name] = folder
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            context.set_alpn_protocols(["h2", "http/1.1"])
            context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
            listening = socket.create_server(("127.0.0.1", 0), backlog=64)
            self.listening.append(listening)
            self.ports[name] = listening.getsockname()[1]
            threading.Thread(target=self._serve, args=(listening, context), daemon=True).start()

    def _serve(self, listening: socket.socket, context: ssl.SSLContext) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection, context), daemon=True).start()

    @staticmethod
    def _answer(connection: socket.socket, context: ssl.SSLContext) -> None:
        try:
            connection.settimeout(DEADLINE)
            with context.wrap_socket(connection, server_side=True) as tls:
                if tls.selected_alpn_protocol() == "h2":
                    tls.sendall(b"\0\0\0\4\0\0\0\0\0")  # SETTINGS: from then on grpcio counts the connection as made
                said = tls.recv(65536)
                if said.startswith(b"GET"):
                    tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                while said:
                    said = tls.recv(65536)
        except OSError:
            pass

    def lines(self) -> str:
        number = {name: at for at, name in enumerate(KINDS)}
        return "".join(
            f"{number[name]} {self.ports[name]} {KINDS[name].ask} {self.folders[name] / 'root.pem'}\n" for name in KINDS
        )

    def close(self) -> None:
        for listening in self.listening:
            listening.close()


@pytest.fixture(scope="module")
def presenting(tmp_path_factory):
    presenting = Presenting(tmp_path_factory.mktemp("chains"))
    yield presenting
    presenting.close()


def _command(presenting: Presenting, of_kind) -> set[str]:
    def taken(name: str) -> bool:
        words = of_kind(name, KINDS[name].ask, presenting.ports[name], presenting.folders[name] / "root.pem")
        return subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, timeout=DEADLINE).returncode == 0

    with ThreadPoolExecutor(4) as pool:
        return {name for name, was in zip(KINDS, pool.map(taken, KINDS)) if not was}


def _curl(presenting):
    def words(name, ask, port, root):
        resolve = [] if _is_address(ask) else ["--resolve", f"{ask}:{port}:127.0.0.1"]
        more = ["-sS", "--http1.1", "--noproxy", "*", "--cacert", root, *resolve]
        return [clients.tool("curl"), *map(str, more), f"https://{ask}:{port}/"]

    return _command(presenting, words)


def _openssl(presenting):
    def words(name, ask, port, root):
        how = ["-verify_ip", ask] if _is_address(ask) else ["-servername", ask, "-verify_hostname", ask]
        more = ["-connect", f"127.0.0.1:{port}", *how, "-CAfile", str(root), "-verify_return_error", "-brief"]
        return [clients.tool("openssl"), "s_client", *more]

    return _command(presenting, words)


def _python(presenting):
    refused = set()
    for name, kind in KINDS.items():
        context = ssl.create_default_context(cafile=presenting.folders[name] / "root.pem")
        # The default from Python 3.13 on; it refuses certificates without a key identifier.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        try:
            with socket.create_connection(("127.0.0.1", presenting.ports[name]), DEADLINE) as tcp:
                context.wrap_socket(tcp, server_hostname=kind.ask).close()
        except (OSError, ValueError):
            refused.add(name)
    return refused


def _grpcio(presenting):
    def taken(name: str) -> bool:
        ask = KINDS[name].ask
        options = [] if _is_address(ask) else [("grpc.ssl_target_name_override", ask)]
        options.append(("grpc.enable_http_proxy", 0))
        credentials = grpc.ssl_channel_credentials((presenting.folders[name] / "root.pem").read_bytes())
        with grpc.secure_channel(f"127.0.0.1:{presenting.ports[name]}", credentials, options) as channel:
            decided, seen = threading.Event(), []

            def note(state):
                if state in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
                    seen.append(state)
                    decided.set()

            channel.subscribe(note, try_to_connect=True)
            assert decided.wait(DEADLINE), name
            return seen[0] is grpc.ChannelConnectivity.READY

    with ThreadPoolExecutor(4) as pool:
        return {name for name, was in zip(KINDS, pool.map(taken, KINDS)) if not was}


def _lines(presenting, *words) -> set[str]:
    done = subprocess.run(words, input=presenting.lines(), capture_output=True, text=True, timeout=3 * DEADLINE)
    assert done.returncode == 0, done.stderr
    names = list(KINDS)
    verdicts = dict(line.split(" ") for line in done.stdout.splitlines())
    assert len(verdicts) == len(names), done.stdout
    return {names[int(number)] for number, verdict in verdicts.items() if verdict == "refused"}


def _java(presenting):
    return _lines(presenting, clients.optional_tool("java"), str(OWN / "Handshake.java"))


def _go(presenting):
    return _lines(presenting, clients.optional_tool("go"), "run", str(OWN / "handshake.go"))


def _in_browsers(presenting) -> set[str]:
    """The kinds that Chromium or Firefox refuses. Safari runs nowhere here: Apple publishes that it refuses RSA keys
    below 2048 bits in issuers, too (https://support.apple.com/en-us/103769).
    """
    roots = {(folder / "root.pem").read_text(): folder / "root.pem" for folder in presenting.folders.values()}
    urls = [f"https://{kind.ask}:{presenting.ports[name]}/" for name, kind in KINDS.items()]
    refused = {"intermediate with RSA 1024"}
    for browser in (browsers.Chromium, browsers.Firefox):
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            running = browser(Path(home) / "home", list(roots.values()))
            try:
                accepted = running.accepts(urls[list(KINDS).index("good")], urls)
            finally:
                running.close()
        refused |= {name for name, taken in zip(KINDS, accepted, strict=True) if not taken}
    return refused


REAL = {"browsers": _in_browsers, "curl": _curl, "openssl": _openssl, "python": _python, "grpcio": _grpcio, "java": _java, "go": _go}


@pytest.mark.parametrize("client", REAL)
def test_a_client_refuses_what_the_table_says(presenting, client):
    refused = REAL[client](presenting)
    assert refused == {name for name, kind in KINDS.items() if client in kind.refused.split()}


def _check(pod: Pod, *words: str) -> tuple[int, dict]:
    done = run(pod, "tls", "check", "--json", *map(str, words), pod.folder, code=None)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("name", KINDS)
def test_the_doctor_says_what_the_table_says(presenting, pod, name):
    kind, folder = KINDS[name], presenting.folders[name]
    pod.yaml(tls={"certificate_file": str(folder / "tls.crt"), "key_file": str(folder / "tls.key")})
    for words in [("--ca", folder / "root.pem", "--name", kind.ask), *([("--name", kind.ask)] if kind.code and not kind.ca else [])]:
        code, report = _check(pod, *words)
        refused = {client for client, takes in report["accepted_by"].items() if not takes}
        assert refused == set(kind.refused.split()), (words, report)
        told = {finding["code"] for finding in report["findings"] if finding.get("refused_by")}
        assert (kind.code in told) if kind.code else not told, (words, report)
        assert code == (1 if refused else 0), (words, code, report)
        by_findings = {client for finding in report["findings"] for client in finding.get("refused_by", [])}
        assert by_findings == refused, "each refusal has its finding"


def test_unchecked_properties_are_reported(presenting, pod):
    folder = presenting.folders["good"]
    pod.yaml(tls={"certificate_file": str(folder / "tls.crt"), "key_file": str(folder / "tls.key")})
    said = run(pod, "tls", "check", pod.folder).stdout.decode()
    assert "nothing is wrong" in said and re.search(r"not checked: .*CN=Verdict Root.*--ca", said), said
    said = run(pod, "tls", "check", "--ca", folder / "root.pem", pod.folder).stdout.decode()
    assert "nothing is wrong" in said and "not checked" not in said, said
    other = presenting.folders["self-signed"] / "root.pem"
    code, report = _check(pod, "--ca", other)
    assert code == 1 and not any(report["accepted_by"].values()), report


def test_a_neighbouring_file_shows_what_is_missing(pod):
    """The names reveal nothing: certbot's chain.pem shows that the issuer is an intermediate, a root next to it shows
    that it is not; and the command of the fix creates the whole chain.
    """
    between = chains.issue("Plain Name", chains.root(), ca=True, ends=800 * chains.DAY)
    leaf = chains.issue("db", between)
    pod.write("cert.pem", chains.certificate_pem(leaf.certificate))
    pod.write("privkey.pem", chains.key_pem(leaf.key))
    pod.yaml(tls={"certificate_file": "cert.pem", "key_file": "privkey.pem"})
    assert _check(pod)[0] == 0, "nothing shows that an intermediate is missing"
    pod.write("chain.pem", chains.certificate_pem(between.certificate))
    code, report = _check(pod)
    (found,) = [f for f in report["findings"] if f["code"] == "TLS-INTERMEDIATE-MISSING"]
    assert code == 1 and not report["unchecked"] and "chain.pem" in found["message"], report
    (command,) = re.findall(r"`([^`]+)`", found["fix"])
    subprocess.run(["sh", "-c", command], cwd=pod.folder, check=True)
    pod.yaml(tls={"certificate_file": command.split()[-1], "key_file": "privkey.pem"})
    assert _check(pod)[0] == 0
    direct = chains.issue("db", chains.root())
    pod.write("cert.pem", chains.certificate_pem(direct.certificate))
    pod.write("privkey.pem", chains.key_pem(direct.key))
    pod.write("chain.pem", chains.certificate_pem(chains.root().certificate))
    pod.yaml(tls={"certificate_file": "cert.pem", "key_file": "privkey.pem"})
    assert _check(pod)[0] == 0


def test_the_development_certificate_raises_no_alarm(pod):
    run(pod, "tls", "init", "--dir", str(pod.folder / "d"))
    pod.yaml(tls={"certificate_file": "d/server.pem", "key_file": "d/server-key.pem"})
    said = run(pod, "tls", "check", "--strict", "--ca", str(pod.folder / "d/ca.pem"), pod.folder).stdout.decode()
    assert said.startswith("nothing is wrong") and "not checked" not in said, said
    assert run(pod, "tls", "check", "--strict", pod.folder).stdout.startswith(b"nothing is wrong")


def _lines_of(fix: str) -> list[str]:
    return re.findall(r"`([^`]+)`", fix)


@pytest.mark.parametrize("kind", ["root first", "doubled", "stray", "not in order"])
def test_the_command_for_a_chain_works(pod, kind):
    """Also if the file contains the key, which the command leaves out."""
    inner = chains.issue("Inner", chains.between(), ca=True, ends=700 * chains.DAY)
    leaf = chains.issue("db", inner)
    stray = chains.issue("Stray", ca=True)
    one, two, three, root = (c.certificate for c in (leaf, inner, chains.between(), chains.root()))
    order = {
        "root first": [root, three, two, one],
        "doubled": [one, two, one, three, two],
        "stray": [one, stray.certificate, two, three],
        "not in order": [one, three, two],
    }[kind]
    pod.write("it's all.pem", "# comment\n" + chains.certificate_pem(*order) + chains.key_pem(leaf.key))
    pod.yaml(tls={"certificate_file": "it's all.pem", "key_file": "it's all.pem"})
    report = _check(pod)[1]
    commands = {c for f in report["findings"] if f["code"].startswith(("TLS-CHAIN", "TLS-ROOT")) for c in _lines_of(f["fix"])}
    assert len(commands) == 1, report
    subprocess.run(["sh", "-c", commands.pop()], cwd=pod.folder, check=True)
    written = (pod.folder / "it's all.pem.pem").read_text()
    assert written == chains.certificate_pem(one, two, three)


def test_a_key_in_the_certificate_file_is_private(pod):
    combined = pod.pair.certificate + pod.pair.key_text
    pod.write("tls.pem", combined, mode=0o644)
    pod.write("tls.key", pod.pair.key_text)
    pod.yaml(tls={"certificate_file": "tls.pem", "key_file": "tls.key"})
    (found,) = [f for f in _check(pod)[1]["findings"] if f["code"] == "TLS-KEY-PERMISSIONS"]
    assert "tls.pem" in found["fix"] and found["origin"].endswith("certificate_file"), found


def test_everything_is_reported_at_once(pod):
    """Certificate and key; names and dates."""
    pod.write("tls.crt", "nothing of the kind")
    pod.yaml(tls={"certificate_file": "tls.crt", "key_file": "none.key"})
    pod.refuse().names("tls.crt", "none.key")
    assert {f["code"] for f in _check(pod)[1]["findings"]} == {"TLS-NOT-PEM", "TLS-UNREADABLE"}
    pod.write("none.key", "nothing either")
    assert len(_check(pod)[1]["findings"]) == 2
    pod.yaml(tls=pod.write_pair(pod.ca.issue(("a.test",), starts=-3 * chains.DAY, ends=-chains.DAY)))
    codes = {f["code"] for f in _check(pod, "--name", "b.test")[1]["findings"]}
    assert {"TLS-EXPIRED", "TLS-NAME-NOT-COVERED"} <= codes, codes


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another user's place")
def test_the_directory_that_denies_is_named(pod, request):
    """certbot's archive belongs to root; another user runs the command, and the links in `live` point into it."""
    # Other users cannot enter pytest's own directories.
    open_to_all = Path(tempfile.mkdtemp())
    request.addfinalizer(lambda: shutil.rmtree(open_to_all))
    os.chmod(open_to_all, 0o755)
    home = open_to_all / "letsencrypt"
    for folder in ("live", "archive"):
        (home / folder).mkdir(parents=True)
    for name, text in [("fullchain.pem", pod.pair.certificate), ("privkey.pem", pod.pair.key_text)]:
        pod.write(str(home / "archive" / name), text)
        os.symlink(f"../archive/{name}", home / "live" / name)
    (home / "archive").chmod(0o700)
    path = home / "live" / "fullchain.pem"
    code = "import os, sys; os.setgid(65534); os.setuid(65534); os.execv(sys.argv[1], sys.argv[1:])"
    program = open_to_all / "spiced"
    shutil.copy(binary(), program)
    words = ["tls", "check", "--tls-certificate-file", path, "--tls-key-file", home / "live" / "privkey.pem"]
    (open_to_all / "spicepod.yaml").write_text("version: v1\nkind: Spicepod\nname: x\n")
    done = subprocess.run(
        [sys.executable, "-c", code, program, *map(str, words)], cwd=open_to_all, capture_output=True, text=True, timeout=DEADLINE
    )
    said = done.stdout + done.stderr
    assert f'may not enter the directory "{home / "archive"}" (mode 0700, of root (uid 0))' in said, said
    assert "(uid 65534)" in said, said


def test_x509_v1_is_signed_again_by_the_command(pod):
    """Self-signed, so that every file in the command exists."""
    clients.openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "v1.key", "-out", "v1.csr", "-subj", "/CN=db.example.com", cwd=pod.folder)
    clients.openssl("x509", "-req", "-in", "v1.csr", "-signkey", "v1.key", "-days", "60", "-out", "v1.crt", cwd=pod.folder)
    pod.yaml(tls={"certificate_file": "v1.crt", "key_file": "v1.key"})
    code, report = _check(pod)
    (found,) = [f for f in report["findings"] if f["code"] == "TLS-X509-V1"]
    assert code == 1 and "TLS-NO-SAN" not in {f["code"] for f in report["findings"]}, report
    subprocess.run(["sh", "-c", _lines_of(found["fix"])[0]], cwd=pod.folder, check=True, capture_output=True)
    pod.yaml(tls={"certificate_file": "v1.crt.pem", "key_file": "v1.key"})
    code, report = _check(pod)
    assert code == 0 and all(report["accepted_by"].values()), report


def test_infos_that_affect_a_client_are_strict(pod):
    import datetime

    pod.yaml(tls=pod.write_pair(pod.ca.issue(ends=datetime.timedelta(days=3650))))
    assert _check(pod)[0] == 0 and _check(pod, "--strict")[0] == 1

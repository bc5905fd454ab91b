"""docs/troubleshooting.md: each client of each table prints the message that the page shows for it."""

from __future__ import annotations

import datetime
import re
import ssl
import subprocess
import urllib.request
from pathlib import Path

import pyarrow.flight as flight
import pytest

from harness import clients, pages
from harness.certificates import Authority, Pair
from harness.pod import Pod
from harness.server import binary
from harness.waiting import DEADLINE

DAY = datetime.timedelta(days=1)
PROGRAMS = Path(__file__).parents[1] / "clients" / "message"
PAGE = (pages.DOCS / "troubleshooting.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+)\n\n\| client \| message \|\n.*\n((?:\|.*\n)+)", PAGE, re.M))
ROWS = [(title, *row) for title, table in SECTIONS.items() for row in re.findall(r"^\| (.+?) \| (.+) \|$", table, re.M)]


def _trusting_another(pod):
    pod.write("other.pem", Authority("somebody else").pem)
    return pod.write_pair(), str(pod.folder / "other.pem")


def _without_its_intermediate(pod):
    pair = Authority("Issuing CA", pod.ca).issue()
    return pod.write_pair(Pair(pair.leaf, pair.key)), pod.ca_file


def _without_names(pod):
    return pod.write_pair(pod.ca.issue(names=())), pod.ca_file


def _for_another_name(pod):
    return pod.write_pair(pod.ca.issue(names=("db.example.com",))), pod.ca_file


def _expired(pod):
    return pod.write_pair(pod.ca.issue(starts=-90 * DAY, ends=-2 * DAY)), pod.ca_file


def _asking_for_a_certificate(pod):
    asking = {"client_auth_mode": "required", "client_auth_ca": Authority("Client CA").pem}
    return {**pod.write_pair(), **asking}, pod.ca_file


SET_UPS = {
    "The client does not trust the CA": _trusting_another,
    "The server does not send its intermediate": _without_its_intermediate,
    "The certificate is not for this name": _for_another_name,
    "The certificate has no subject alternative name": _without_names,
    "The certificate has expired": _expired,
    "The server requires a client certificate": _asking_for_a_certificate,
    "TLS client, plain-text endpoint": lambda pod: (None, pod.ca_file),
    "Plain-text client, TLS endpoint": lambda pod: (pod.write_pair(), pod.ca_file),
    "401, UNAUTHENTICATED": lambda pod: (pod.write_pair(), pod.ca_file),
}


def _output(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=DEADLINE)
    return done.stdout + done.stderr


def _python(ca: str, url: str) -> str:
    try:
        with urllib.request.urlopen(url, context=ssl.create_default_context(cafile=ca), timeout=DEADLINE) as answer:
            return str(answer.status)
    except OSError as error:
        return str(error)


def _pyarrow(ca: str, address: str) -> str:
    trust = {"tls_root_certs": Path(ca).read_text()} if address.startswith("grpc+tls") else {}
    with flight.connect(address, **trust) as client:
        try:
            client.get_flight_info(clients.command("SELECT 1"), clients.call())
        except flight.FlightError as error:
            return str(error)
    return "an answer"


def _spiced_sql(ca: str, address: str) -> str:
    trust = ["--tls-root-certificate-file", ca] if address.startswith("grpc+tls") else []
    return _output(binary(), "sql", "--endpoint", address, *trust, "SELECT 1")


def _openssl(ca: str, port: int) -> str:
    checks = ["-CAfile", ca, "-verify_return_error", "-verify_hostname", "localhost"]
    return _output(clients.tool("openssl"), "s_client", "-connect", f"localhost:{port}", *checks)


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """One server for each section, started on first use."""

    pods, served = [], {}

    def serve(title: str):
        if title not in served:
            pod = Pod(tmp_path_factory.mktemp("trouble"))
            pods.append(pod)
            tls, ca = SET_UPS[title](pod)
            keys = {"auth": {"api_key": {"keys": [f"sha256:{'0' * 64}:ro"]}}} if title.startswith("401") else {}
            pod.yaml(tls=tls, runtime=keys)
            served[title] = pod.serve(), ca
        return served[title]

    yield serve
    for pod in pods:
        pod.close()


class Programs(dict):
    """The compiled clients, each built on first use."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> str:
        if name == "java":
            self[name] = clients.optional_tool("java")
        elif name == "classes":
            subprocess.run([clients.optional_tool("javac"), "-d", self.folder, PROGRAMS / "Message.java"], check=True)
            self[name] = str(self.folder)
        else:
            self[name] = str(self.folder / "message")
            source = PROGRAMS / "message.go"
            subprocess.run([clients.optional_tool("go"), "build", "-o", self[name], source], check=True)
        return self[name]


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    return Programs(tmp_path_factory.mktemp("programs"))


def test_every_section_has_a_set_up():
    assert SECTIONS.keys() == SET_UPS.keys() and len(ROWS) > 50


@pytest.mark.parametrize(("title", "client", "messages"), ROWS, ids=[f"{t}-{c}".replace("`", "") for t, c, _ in ROWS])
def test_the_message(servers, programs, title, client, messages):
    server, ca = servers(title)
    scheme, grpc = ("http", "grpc") if title.startswith("Plain-text client") else ("https", "grpc+tls")
    port, flight_port = server.port("http"), server.port("flight")
    url, address = f"{scheme}://localhost:{port}/health", f"{grpc}://localhost:{flight_port}"
    if title.startswith("401"):
        url = url.replace("/health", "/v1/datasets")
    said = {
        "curl": lambda: _output(*clients.curl_command(url, ca=ca)),
        "OpenSSL": lambda: _openssl(ca, port),
        "Python": lambda: _python(ca, url),
        "Go": lambda: _output(programs["go"], ca, url),
        "Java": lambda: _output(programs["java"], "-cp", programs["classes"], "Message", ca, url),
        "Node": lambda: _output(clients.optional_tool("node"), str(PROGRAMS / "message.js"), ca, url),
        "pyarrow": lambda: _pyarrow(ca, address),
        "`spiced sql`": lambda: _spiced_sql(ca, address),
    }[client]()
    # One of the messages in the cell; `…` matches anything.
    wanted = [".*".join(map(re.escape, re.split(" ?… ?", text))) for text in re.findall(r"`([^`]+)`", messages)]
    assert any(re.search(pattern, said, re.S) for pattern in wanted), said

"""docs/troubleshooting.md: the messages in its tables are what clients print. Java and Go are left out: starting a JVM or a
compiler for each message takes longer than the whole file (ADBC's driver is Go)."""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import pages
from harness.certificates import Authority

PAGE = (pages.DOCS / "troubleshooting.md").read_text()

PYTHON = """
import ssl, sys, urllib.request
urllib.request.urlopen(sys.argv[1], context=ssl.create_default_context(cafile=sys.argv[2]))
"""
PYARROW = """
import sys
from pyarrow import flight
trust = {"tls_root_certs": open(sys.argv[2]).read()} if "+tls" in sys.argv[1] else {}
list(flight.connect(sys.argv[1], **trust).list_flights())
"""
ADBC = """
import sys
from adbc_driver_flightsql import DatabaseOptions, dbapi
trust = {DatabaseOptions.TLS_ROOT_CERTS.value: open(sys.argv[2]).read()} if "+tls" in sys.argv[1] else {}
dbapi.connect(sys.argv[1], db_kwargs=trust, autocommit=True).cursor().execute("SELECT 1")
"""
NODE = "fetch(process.argv[1]).then(() => 0, error => { console.error(error.cause); process.exit(1) })"


def section(heading: str) -> dict[str, list[str]]:
    """The messages of a section, by client."""
    [text] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    messages: dict[str, list[str]] = {}
    for clients, cell in re.findall(r"^\| ([A-Z][\w., ]+|curl|pyarrow.*?) \| (.*) \|$", text, re.MULTILINE):
        for client in clients.split(", "):
            messages.setdefault(client, []).extend(re.findall(r"`([^`]+)`", cell))
    return messages


def pattern(message: str) -> str:
    """A message as a pattern: what differs each time stands for anything."""
    return re.sub(r"…|\bHOST\b|\bNAME\b", ".*", re.escape(message).replace("\\ ", " "))


def printed(client: str, http: str, flight: str, ca: str) -> str:
    commands = {
        "curl": ["curl", "-sS", "--cacert", ca, http],
        "Python": [sys.executable, "-c", PYTHON, http, ca],
        "pyarrow": [sys.executable, "-c", PYARROW, flight, ca],
        "ADBC": [sys.executable, "-c", ADBC, flight, ca],
        "Node.js": ["node", "-e", NODE, http],
    }
    done = subprocess.run(
        commands[client],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "NODE_EXTRA_CA_CERTS": ca},
    )
    return done.stdout + done.stderr


TLS, PLAIN = "tls", "plain"
DAY = datetime.timedelta(days=1)
# The section, the certificate (none: a server without TLS), whether clients speak TLS, and what else is set.
CASES = {
    "The CA is not trusted": (lambda ca: Authority("Another").issue(), TLS, {}),
    "The name does not match": (lambda ca: ca.issue(("db.example.com",)), TLS, {}),
    "The certificate has no subject alternative name": (lambda ca: ca.issue(()), TLS, {}),
    "The certificate has expired": (lambda ca: ca.issue(starts=-9 * DAY, ends=-DAY), TLS, {}),
    "TLS to a plain-text port": (None, TLS, {}),
    "Plain text to a TLS port": (lambda ca: ca.issue(), PLAIN, {}),
    "A client certificate is required": (lambda ca: ca.issue(), TLS, {"client_auth_mode": "required"}),
}
# What is in the page and not run here; `pyarrow` says one of several things once its connection is closed.
NOT_RUN = {"Go", "Java", "HTTP clients"}
CLOSED = {("A client certificate is required", client) for client in ("curl", "pyarrow", "ADBC", "Node.js")}


@pytest.mark.parametrize("heading", CASES)
def test_clients_print_what_the_page_says(pod, heading):
    issue, spoken, settings = CASES[heading]
    tls = None
    if issue is not None:
        tls = {**pod.write_pair(issue(pod.ca)), **settings}
        if settings:
            tls["client_auth_ca_file"] = str(pod.write("clients.pem", pod.ca.pem))
    pod.yaml(tls=tls)
    server = pod.serve()
    schemes = ("https", "grpc+tls") if spoken == TLS else ("http", "grpc")
    http, flight = (f"{s}://localhost:{server.port(door)}" for s, door in zip(schemes, ("http", "flight")))
    messages = section(heading)
    assert messages, heading
    run = [client for client in messages if client not in NOT_RUN and (heading, client) not in CLOSED]
    with ThreadPoolExecutor() as pool:
        outputs = pool.map(lambda client: printed(client, f"{http}/health", flight, pod.ca_file), run)
    for client, output in zip(run, outputs):
        for message in messages[client]:
            assert re.search(pattern(message), output, re.DOTALL), f"{client}: {message!r} is not in:\n{output}"


def test_a_section_for_each_case():
    headings = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert set(headings) == {*CASES, "Unauthenticated, forbidden", "Wrong port"}

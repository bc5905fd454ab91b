"""`spiced sql` with a third-party Flight server: the key and certificate that it presents, and how it cancels."""

from __future__ import annotations

import signal
import subprocess

import pytest

from harness import prompt
from harness.certificates import Authority
from harness.leak_scanner import LEDGER
from harness.prompt import ANSWER, QUERY, ca, refused, run
from harness.server import binary
from harness.stand_in import StandIn


@pytest.fixture
def home(tmp_path):
    return tmp_path


@pytest.fixture
def other_server():
    """Starts third-party servers; all are stopped at the end."""
    servers = []

    def start(location="grpc://127.0.0.1:0", **more) -> StandIn:
        servers.append(StandIn(location, **more))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()


def test_a_key(other_server, home):
    key = LEDGER.mark("an API key")
    server = other_server(key=key)
    place = ("--endpoint", f"127.0.0.1:{server.port}")
    assert run(home, *place, *QUERY, env={"SPICED_SQL_API_KEY": key}).ok() == ANSWER
    literal = run(home, *place, "--api-key", key, *QUERY)
    assert literal.ok() == ANSWER and literal.err == (
        "warning: --api-key shows the key to everybody who can list processes; SPICED_SQL_API_KEY does not\n"
    )
    message = "who are you?. Detail: Unauthenticated"
    assert refused(home, *place) == (
        f"error: {message}\nhint: give a key with SPICED_SQL_API_KEY, or a certificate with --client-certificate-file\n"
    )
    assert refused(home, *place, env={"SPICED_SQL_API_KEY": "wrong"}) == (
        f"error: {message}\nhint: the server does not accept the key of SPICED_SQL_API_KEY\n"
    )
    unfit = LEDGER.mark("an API key with a newline")
    assert refused(home, *place, env={"SPICED_SQL_API_KEY": unfit + "\n"}) == (
        "error: SPICED_SQL_API_KEY: the key holds what no header can: blanks at its ends, or more than ASCII\n"
    )


def test_a_client_certificate(other_server, home):
    root, clients = Authority("Server Root"), Authority("Client Root")
    for_clients = {"common_name": "me", "client": True}
    served, mine = root.issue(), clients.issue(**for_clients)
    other = Authority("Another Root").issue(**for_clients)
    server = other_server(
        "grpc+tls://127.0.0.1:0",
        tls_certificates=[(served.certificate.encode(), served.key_text.encode())],
        verify_client=True,
        root_certificates=clients.pem.encode(),
    )
    place = ("--endpoint", f"grpc+tls://127.0.0.1:{server.port}", "--tls-root-certificate-file", ca(home, root))
    for name, pair in (("mine", mine), ("other", other)):
        (home / f"{name}.crt").write_text(pair.certificate)
        (home / f"{name}.key").write_text(pair.key_text)
    show = lambda name: ("--client-certificate-file", f"{name}.crt", "--client-key-file", f"{name}.key")
    assert run(home, *place, *show("mine"), *QUERY).ok() == ANSWER
    no = f"error: no TLS connection to 127.0.0.1:{server.port}: "
    assert refused(home, *place) == (
        f"{no}it asks for a client certificate\nhint: give one: --client-certificate-file CERT.pem --client-key-file KEY.pem\n"
    )
    said = refused(home, *place, *show("other"))
    assert said.startswith(f"{no}it refuses the client certificate (") and said.endswith(
        "hint: check its end and that its CA is one the server trusts (runtime.tls.client_auth_ca_file)\n"
    )


def test_a_cancel_reaches_the_server(other_server, home):
    server = other_server(endless=True)
    process = subprocess.Popen(
        [binary(), "sql", "--endpoint", f"127.0.0.1:{server.port}", "--format", "ndjson", "SELECT 1 AS x"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=home,
        env=prompt.environment(home),
    )
    assert process.stdout.readline() == b'{"x":1}\n'
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=prompt.DEADLINE)[1] == b"error: cancelled\n"
    assert (process.returncode, server.actions) == (1, ["CancelFlightInfo"])

"""When a client certificate becomes invalid: expiry, a new CA, a revocation; for sessions and for open connections."""

from __future__ import annotations

import datetime
import http.client
import ssl
from pathlib import Path

import pytest

from harness import audit, clients, http2, wire
from harness.access import RW, Access, asking, replace
from harness.identities import Caller, ask, code
from harness.certificates import Pair
from harness.pod import ENDPOINTS
from harness.waiting import eventually

VERSIONS = {"tls1_2": ssl.TLSVersion.TLSv1_2, "tls1_3": ssl.TLSVersion.TLSv1_3}
every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS)
every_version = pytest.mark.parametrize("version", VERSIONS)


# Sessions


def _resumed(server, endpoint: str, version: str, session: Path) -> bool:
    """Whether the endpoint resumes the session; no certificate is presented this time."""
    said = clients.s_client(server.port(endpoint), f"-{version}", "-alpn", "h2", "-sess_in", str(session))
    return "Reused, TLSv1" in said


def _saved(server, endpoint: str, version: str, pair: Pair, tmp_path: Path) -> Path:
    path = tmp_path / f"{endpoint}-{version}.pem"
    _, certificate, _, key = Caller(pair=pair).curl_args(server)
    clients.save_session(server, endpoint, version, path, "-cert", certificate, "-key", key)
    return path


@every_version
@every_endpoint
def test_session_is_resumed(pod, tmp_path, endpoint, version):
    server = asking(pod)
    assert _resumed(server, endpoint, version, _saved(server, endpoint, version, server.access.pairs["rw"], tmp_path))


def _post(text: str) -> bytes:
    head = f"POST /v1/sql HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    return head.encode() + text.encode()


def _first(server, pair: Pair, version: str) -> tuple[ssl.SSLContext, ssl.SSLSession]:
    """A connection that makes a request, and its session."""
    context = clients.context(version=VERSIONS[version], pair=pair)
    status, session, _ = _next(server, context, None)
    assert status == "200" and session is not None
    return context, session


def _next(server, context: ssl.SSLContext, session: ssl.SSLSession | None, text: str = "SELECT 1 AS x"):
    """Sends a request on a connection that offers the session: the status, the new session, and whether it was resumed.
    """
    try:
        raw = clients.socket.create_connection(("127.0.0.1", server.port("http")), timeout=clients.DEADLINE)
        with context.wrap_socket(raw, server_hostname="localhost", session=session) as connection:
            connection.sendall(_post(text))
            answer = http2.read_to_end(connection)
            return answer[9:12].decode() or "closed", connection.session, connection.session_reused
    except (ssl.SSLError, OSError):
        return "UNAVAILABLE", None, False


@every_version
def test_resumed_session_has_its_role(pod, version):
    server = asking(pod)
    for who, wanted in (("rw", "200"), ("ro", "403"), ("unmapped", "403")):
        context = clients.context(version=VERSIONS[version], pair=server.access.pairs[who])
        _, session, _ = _next(server, context, None)
        status, _, reused = _next(server, context, session, "INSERT INTO notes VALUES (1, 'x')")
        assert (status, reused) == (wanted, True), who
    assert audit.line(server, outcome="done")["principal"] == f"san_uri:{RW}"


@every_version
@pytest.mark.parametrize("change", ["another CA", "revoked"])
def test_session_from_before_a_change_is_refused(pod, tmp_path, change, version):
    access = Access(pod)
    leaver, stays = access.certificate(RW), access.certificate(RW)
    server = asking(pod, access=access, crls=[access.clients.crl()])
    saved = {endpoint: _saved(server, endpoint, version, leaver, tmp_path) for endpoint in ENDPOINTS}
    assert all(_resumed(server, endpoint, version, path) for endpoint, path in saved.items())
    context, session = _first(server, leaver, version)
    if change == "revoked":
        replace(pod, server, **{"0.crl": access.clients.crl(leaver, number=2)})
    else:
        replace(pod, server, **{"clients-ca.pem": access.strangers.pem, "0.crl": access.strangers.crl()})
        stays = access.certificate(RW, by=access.strangers)
    eventually(lambda: (ask(server, leaver), ask(server, stays)) == ("UNAVAILABLE", "200"), "the change")
    for endpoint, path in saved.items():
        assert not _resumed(server, endpoint, version, path), f"the {endpoint} endpoint resumed an old session"
    assert _next(server, context, session)[0] == "UNAVAILABLE"


@every_version
def test_session_from_before_a_change_is_not_resumed_by_accepted_clients(pod, version):
    """With an additional CA, accepted clients are still accepted, by a full handshake."""
    server = asking(pod)
    access = server.access
    context, session = _first(server, access.pairs["rw"], version)
    assert _next(server, context, session)[2]
    newcomer = access.certificate(RW, by=access.strangers)
    replace(pod, server, **{"clients-ca.pem": access.clients.pem + access.strangers.pem})
    eventually(lambda: ask(server, newcomer) == "200", "the second CA")
    status, _, reused = _next(server, context, session)
    assert (status, reused) == ("200", False)


@every_version
def test_session_ends_with_its_certificate(pod, version):
    server = asking(pod)
    pair = server.access.certificate(RW, ends=datetime.timedelta(seconds=5))
    context, session = _first(server, pair, version)
    eventually(lambda: ask(server, pair) == "UNAVAILABLE", "the certificate's end")
    assert _next(server, context, session)[0] in ("UNAVAILABLE", "closed")


# Open connections


def _open(server, pair: Pair) -> http.client.HTTPSConnection:
    """An HTTP/1 connection that does not reopen itself."""
    connection = http.client.HTTPSConnection(
        "localhost", server.port("http"), context=clients.context(pair=pair), timeout=clients.DEADLINE
    )
    connection.connect()
    connection.auto_open = 0
    return connection


def _on(connection: http.client.HTTPSConnection, text: str = "SELECT 1 AS x", **headers: str) -> str:
    """Sends a query on an open connection; returns its status, or `closed`."""
    try:
        connection.request("POST", "/v1/sql", text, headers)
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)
    except (http.client.HTTPException, OSError):
        return "closed"


def _open_h2(server, endpoint: str, pair: Pair) -> ssl.SSLSocket:
    connection = clients.handshake(server.port(endpoint), alpn=("h2",), pair=pair)
    connection.sendall(http2.PREFACE + http2.frame(http2.SETTINGS))
    assert http2.read_frames(connection, until=http2.SETTINGS)[-1].kind == http2.SETTINGS
    return connection


def test_certificate_that_ends_on_an_open_connection(pod):
    """Each request checks the expiry, on every endpoint."""
    server = asking(pod)
    pair = server.access.certificate(RW, ends=datetime.timedelta(seconds=5))
    connection = _open(server, pair)
    with Caller(pair=pair).wire(server) as calls, Caller(pair=pair).wire(server, "grpc") as grpc:
        reflection = wire.REFLECTION, wire.message(f7="*")
        assert _on(connection) == "200"
        calls.query("SELECT 1 AS x").ok(), grpc.ask(*reflection).ok()
        last = eventually(lambda: (got := _on(connection)) != "200" and got, "a refusal on the open connection")
        assert last in ("401", "403", "closed"), last
        assert datetime.datetime.now(datetime.timezone.utc) >= pair.leaf.not_valid_after_utc
        refused = ("UNAUTHENTICATED", "PERMISSION_DENIED", "UNAVAILABLE")
        assert calls.query("SELECT 1 AS x").code in refused
        assert calls.put(wire.update("INSERT INTO notes VALUES (1, 'x')")).code in refused
        assert grpc.ask(*reflection).code in refused
    connection.close()
    eventually(lambda: ask(server, pair) == "UNAVAILABLE", "handshakes that fail")


def test_certificate_that_ends_while_a_key_is_shown_too(pod):
    """If both are required, the key alone is not enough."""
    server = asking(pod, "required", keys=True, require="all")
    pair = server.access.certificate(RW, ends=datetime.timedelta(seconds=5))
    connection = _open(server, pair)
    key = {"X-API-Key": server.access.keys["plain:rw"]}
    assert _on(connection, **key) == "200"
    assert eventually(lambda: (got := _on(connection, **key)) != "200" and got, "a refusal") in ("401", "403", "closed")


@pytest.mark.parametrize("change", ["revoked", "another CA"])
def test_open_connections_after_a_change(pod, change):
    """HTTP/2 connections get GOAWAY, HTTP/1 connections are closed; connections of valid clients continue."""
    access = Access(pod)
    leaver, stays = access.certificate(RW), access.certificate(RW)
    if change == "another CA":
        stays = access.certificate(RW, by=access.strangers)
    pod.write("both.pem", access.clients.pem + access.strangers.pem)
    both = {"client_auth_mode": "required", "client_auth_ca_file": "both.pem"}
    server = asking(pod, access=access, tls=both, crls=[access.clients.crl(), access.strangers.crl()])
    left, kept = _open(server, leaver), _open(server, stays)
    assert _on(left) == _on(kept) == "200"
    going = {endpoint: _open_h2(server, endpoint, leaver) for endpoint in ENDPOINTS}
    with Caller(pair=stays).flight(server) as staying:
        clients.query(staying, "SELECT 1 AS x")
        sock = kept.sock
        if change == "revoked":
            replace(pod, server, **{"0.crl": access.clients.crl(leaver, number=2)})
        else:
            replace(pod, server, **{"both.pem": access.strangers.pem})
        for endpoint, connection in going.items():
            frames = http2.read_frames(connection, until=http2.GOAWAY)
            assert frames and frames[-1].kind == http2.GOAWAY, f"no GOAWAY on the {endpoint} endpoint: {frames}"
            connection.close()
        eventually(lambda: _on(left) == "closed", "the end of the HTTP/1 connection")
        assert ask(server, leaver) == "UNAVAILABLE"
        assert _on(kept) == "200" and kept.sock is sock, "the connection of a valid client was disturbed"
        assert code(lambda: clients.query(staying, "SELECT 1 AS x")) == "OK"
    kept.close()


def test_writes_of_the_revoked_end(pod):
    """Once new connections are refused, an open one writes nothing more."""
    access = Access(pod)
    pair = access.certificate(RW)
    server = asking(pod, access=access, crls=[access.clients.crl()])
    connection = _open(server, pair)
    assert _on(connection, "INSERT INTO notes VALUES (1, 'x')") == "200"
    replace(pod, server, **{"0.crl": access.clients.crl(pair, number=2)})
    eventually(lambda: ask(server, pair) == "UNAVAILABLE", "the revocation")
    _on(connection, "INSERT INTO notes VALUES (2, 'x')")
    eventually(lambda: _on(connection) == "closed", "the end of the connection")
    other = access.certificate(RW)
    answer = Caller(pair=other).curl(server, "/v1/sql", "-d", "SELECT count(*) AS n FROM notes")
    assert answer.ok().json() == [{"n": 1}]


def test_list_that_goes_out_of_date(pod):
    """While the server runs: without a current list, revocation is unknown, until a new list arrives."""
    access = Access(pod)
    server = asking(pod, access=access, crls=[access.clients.crl(ends=datetime.timedelta(seconds=5))])
    assert ask(server, access.pairs["rw"]) == "200"
    eventually(lambda: ask(server, access.pairs["rw"]) == "UNAVAILABLE", "handshakes that fail")
    replace(pod, server, **{"0.crl": access.clients.crl(number=2)})
    eventually(lambda: ask(server, access.pairs["rw"]) == "200", "handshakes that succeed with the new list")


def test_broken_list_keeps_the_current_list(pod):
    access = Access(pod)
    server = asking(pod, access=access, crls=[access.clients.crl(access.pairs["revoked"])])
    since = len(server.log)
    replace(pod, server, **{"0.crl": "nothing that is a list"})
    server.wait_for_log("WARN", "ERROR", match=r"crl", since=since)
    assert ask(server, access.pairs["rw"]) == "200"
    assert ask(server, access.pairs["revoked"]) == "UNAVAILABLE"

"""The PROXY protocol, version 2: which address counts, and which connections an endpoint refuses that requires the
header."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pyarrow import flight

from harness import audit, clients, data, http2, wire
from harness.access import PATIENT, Access
from harness.identities import Caller, code
from harness.leak_scanner import LEDGER
from harness.proxy_protocol import SIGNATURE, Forwarder, header

ADDRESS, ADDRESS_6 = "192.0.2.1", "2001:db8::1"
TLV = b"\x04\x00\x03abc"  # PP2_TYPE_NOOP


def proxied(pod, tls: bool = True, endpoints=("http",), **runtime):
    """A server with keys; `endpoints` require the header."""
    access = Access(pod)
    pod.yaml(
        tls=pod.write_pair() if tls else None,
        runtime={"auth": {"api_key": access.api_key}, "listen": {"proxy_protocol": list(endpoints)}, **PATIENT, **runtime},
        datasets=[data.MEMORY],
    )
    server = pod.serve(env=access.environment)
    server.access = access
    return server


def _through(server, first: bytes, key: str, pieces: int = 0) -> str:
    """Sends a query on a connection that begins with these bytes; returns its status, or `closed`."""
    request = f"POST /v1/sql HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nContent-Length: 8\r\nConnection: close\r\n\r\nSELECT 1"
    raw = clients.socket.create_connection(("127.0.0.1", server.port("http")), timeout=clients.DEADLINE)
    try:
        raw.setsockopt(clients.socket.IPPROTO_TCP, clients.socket.TCP_NODELAY, 1)
        for part in [first] if not pieces else [first[at : at + pieces] for at in range(0, len(first), pieces)]:
            raw.sendall(part)
        if server.tls("http"):
            raw = clients.context().wrap_socket(raw, server_hostname="localhost")
        raw.sendall(request.encode())
        answer = http2.read_to_end(raw)
        return answer[9:12].decode() if answer.startswith(b"HTTP/1.1 ") else "closed"
    except (ssl.SSLError, OSError):
        return "closed"
    finally:
        raw.close()


HEADERS = {
    "IPv4": (header(ADDRESS), ADDRESS),
    "IPv6": (header(ADDRESS_6), ADDRESS_6),
    "with more": (header(ADDRESS, more=TLV), ADDRESS),
    "the proxy itself": (header(None), "127.0.0.1"),
    "the proxy itself, with more": (header(None, more=TLV), "127.0.0.1"),
}


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "clear"])
@pytest.mark.parametrize("first, address", HEADERS.values(), ids=HEADERS.keys())
def test_proxy_header(pod, first, address, tls):
    server = proxied(pod, tls)
    for pieces in (0, 1):
        since = len(server.log)
        assert _through(server, first, server.access.wrong, pieces) == "401"
        assert address in audit.line(server, since, outcome="denied", endpoint="http")["address"]
        assert _through(server, first, server.access.keys["plain:ro"], pieces) == "200"


BAD_HEADERS = {
    "none": b"",
    "version 1": b"PROXY TCP4 192.0.2.1 127.0.0.1 40000 443\r\n",
    "another version": header(ADDRESS).replace(b"QUIT\n\x21", b"QUIT\n\x31"),
    "an unknown command": header(ADDRESS).replace(b"QUIT\n\x21", b"QUIT\n\x22"),
    "signature alone, then the request": SIGNATURE,
    "too short for its family": SIGNATURE + b"\x21\x11\x00\x04\xc0\x00\x02\x01",
    "a changed signature": b"\r\n\r\n\0\r\nQUIT\r" + header(ADDRESS)[12:],
}


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "clear"])
@pytest.mark.parametrize("first", BAD_HEADERS.values(), ids=BAD_HEADERS.keys())
def test_connection_without_a_proxy_header_is_refused(pod, first, tls):
    server = proxied(pod, tls)
    assert _through(server, first, server.access.keys["plain:ro"]) in ("closed", "400")
    assert _through(server, header(ADDRESS), server.access.keys["plain:ro"]) == "200", "the server still answers"


def test_guesses_are_counted_by_the_address_in_the_header(pod):
    server = proxied(pod, limits={"auth_failures": 3})
    statuses = [_through(server, header(ADDRESS), server.access.wrong) for _ in range(5)]
    assert statuses[:3] == ["401"] * 3 and statuses[-1] == "429", statuses
    assert _through(server, header("192.0.2.2"), server.access.wrong) == "401"
    assert _through(server, header("192.0.2.2"), server.access.keys["plain:ro"]) == "200"


@pytest.mark.parametrize("first", [b"", header(ADDRESS)[:20]], ids=["silent", "half a header"])
def test_connection_that_sends_no_header_ends(pod, first):
    """At the handshake deadline, without delaying other connections until then."""
    access = Access(pod)
    pod.yaml(
        tls={**pod.write_pair(), "handshake_timeout": "1s"},
        runtime={"auth": {"api_key": access.api_key}, "listen": {"proxy_protocol": ["http"]}},
    )
    server = pod.serve(env=access.environment)
    with clients.socket.create_connection(("127.0.0.1", server.port("http")), timeout=clients.DEADLINE) as waiting:
        waiting.sendall(first)
        assert _through(server, header(ADDRESS), access.keys["plain:ro"]) == "200"
        assert http2.read_to_end(waiting) == b""


def test_unlisted_endpoints_need_no_header(pod):
    server = proxied(pod)
    with server.access.ro.wire(server) as calls, server.access.ro.wire(server, "grpc") as grpc:
        calls.query("SELECT 1 AS x").ok()
        grpc.ask(wire.HEALTH, b"").ok()


def test_flight_and_grpc_behind_a_proxy(pod):
    server = proxied(pod, endpoints=("flight", "grpc"))
    assert server.access.ro.curl(server, "/v1/status").status == 200
    pem = Path(server.ca).read_bytes()
    forwarders = {endpoint: Forwarder(server.port(endpoint), ADDRESS) for endpoint in ("flight", "grpc")}
    try:
        location = f"grpc+tls://localhost:{forwarders['flight'].port}"
        with flight.FlightClient(location, tls_root_certs=pem) as client:
            assert clients.query(client, "SELECT 1 AS x", server.access.ro.call()).num_rows == 1
            assert (
                code(lambda: clients.query(client, "SELECT 1 AS x", Caller(server.access.wrong).call()))
                == "UNAUTHENTICATED"
            )
        assert ADDRESS in audit.line(server, outcome="denied", endpoint="flight")["address"]
        with clients.channel_at(f"localhost:{forwarders['grpc'].port}", pem) as channel:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=clients.DEADLINE)
    finally:
        for forwarder in forwarders.values():
            forwarder.close()


def test_no_caller_behind_a_proxy_is_local(pod):
    """Without keys, a loopback endpoint accepts every caller, unless a proxy's connections arrive at it."""
    pod.yaml(tls=pod.write_pair(), runtime={"listen": {"proxy_protocol": ["http"]}})
    server = pod.serve()
    assert _through(server, header(ADDRESS), LEDGER.mark("a key that nobody asked for")) == "401"
    assert _through(server, header("127.0.0.1"), LEDGER.mark("a key that nobody asked for")) == "401"


@pytest.mark.parametrize("endpoints", [["ftp"], ["http", "probes"]], ids=str)
def test_invalid_proxied_endpoints_are_refused(pod, endpoints):
    pod.yaml(runtime={"listen": {"proxy_protocol": endpoints}})
    pod.refuse().names("proxy_protocol")

"""What a web page in a developer's browser must not reach: other origins, sites and hosts are refused."""

from __future__ import annotations

import pytest

from harness import clients


def _asked(server, *headers: str, path="/v1/sql", protocol="--http1.1") -> clients.Answer:
    extra = [part for header in headers for part in ("-H", header)]
    if path == "/v1/sql":
        extra += ["-d", "SELECT 1 AS x"]
    if protocol == "--http2" and not server.tls():
        protocol = "--http2-prior-knowledge"
    return clients.get(server, path, protocol, *extra)


REFUSED = {
    "foreign-origin": "Origin: https://evil.example",
    "null-origin": "Origin: null",
    "origin-that-starts-like-ours": "Origin: http://localhost.evil.example",
    "origin-of-another-port": "Origin: http://localhost:1",
    "cross-site": "Sec-Fetch-Site: cross-site",
    "foreign-host": "Host: evil.example",
    "foreign-host-with-port": "Host: evil.example:3000",
    "host-that-starts-like-ours": "Host: localhost.evil.example",
    "host-that-names-our-address": "Host: 127.0.0.1.nip.io",
    "host-of-the-network": "Host: 192.168.0.7",
}


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
@pytest.mark.parametrize("header", REFUSED.values(), ids=REFUSED.keys())
def test_web_page_is_refused(served, header, protocol):
    for path in ("/v1/sql", "/v1/status", "/v1/datasets"):
        answer = _asked(served, header, path=path, protocol=protocol)
        assert answer.status in (403, 421), f"{path}: {answer}"
        assert b'"x":1' not in answer.body
        assert "access-control-allow-origin" not in answer.headers


TAKEN = {
    "host-localhost": "Host: localhost",
    "host-127": "Host: 127.0.0.1",
    "host-ipv6": "Host: [::1]",
    "host-upper-case": "Host: LOCALHOST:1234",
    "same-origin": "Sec-Fetch-Site: same-origin",
    "no-site": "Sec-Fetch-Site: none",
}


@pytest.mark.parametrize("header", TAKEN.values(), ids=TAKEN.keys())
def test_local_client_is_accepted(served, header):
    assert _asked(served, header).ok().json() == [{"x": 1}]


def test_own_origin_is_accepted(served):
    origin = served.url("").rstrip("/")
    assert _asked(served, f"Origin: {origin}", "Sec-Fetch-Site: same-origin").ok().json() == [{"x": 1}]


def test_rebound_name_is_refused(in_clear):
    """DNS rebinding as in a browser: a foreign name that resolves to this server."""
    port = in_clear.port("http")
    answer = clients.curl(
        f"http://evil.example:{port}/v1/sql", "--resolve", f"evil.example:{port}:127.0.0.1", "-d", "SELECT 1"
    )
    assert answer.status in (403, 421), answer


def test_preflight_allows_nothing(served):
    answer = clients.get(
        served,
        "/v1/sql",
        "-X",
        "OPTIONS",
        "-H",
        "Origin: https://evil.example",
        "-H",
        "Access-Control-Request-Method: POST",
        "-H",
        "Access-Control-Request-Headers: content-type",
    )
    assert not any(name.startswith("access-control-allow") for name in answer.headers), answer


def test_no_hsts_for_localhost(over_tls):
    assert "strict-transport-security" not in clients.get(over_tls, "/health").ok().headers

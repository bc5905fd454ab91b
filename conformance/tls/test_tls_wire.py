"""TLS on the wire: versions, suites, ALPN, resumption, plain text on a TLS port, clients that misbehave."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import time

import pytest

from harness import clients, http2
from harness.pod import ENDPOINTS
from harness.waiting import DEADLINE, eventually

every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS)


def connect(server, endpoint="http") -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port(endpoint)), timeout=DEADLINE)


# Versions and suites


@every_endpoint
@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_version_is_spoken(over_tls, endpoint, version):
    said = clients.s_client(over_tls.port(endpoint), f"-{version}", "-CAfile", over_tls.ca, "-alpn", "h2")
    assert "Verify return code: 0 (ok)" in said, said
    assert f"New, {version.upper().replace('TLS1_', 'TLSv1.')}" in said, said


@every_endpoint
@pytest.mark.parametrize("version", ["tls1", "tls1_1"])
def test_old_version_is_refused_by_the_server(over_tls, endpoint, version):
    said = clients.s_client(over_tls.port(endpoint), f"-{version}", "-cipher", "DEFAULT@SECLEVEL=0")
    # rustls checks the suites first, and shares none with the old versions.
    assert "alert protocol version" in said or "alert handshake failure" in said, said


def _only_1_3(server):
    for endpoint in ENDPOINTS:
        said = clients.s_client(server.port(endpoint), "-tls1_2")
        assert "alert protocol version" in said, said
        assert "New, TLSv1.3" in clients.s_client(server.port(endpoint), "-tls1_3")


ONLY_1_3 = {
    "quoted": '    min_version: "1.3"\n',
    "not-quoted": "    min_version: 1.3\n",
    "profile-modern": "    profile: modern\n",
}


@pytest.mark.parametrize("line", ONLY_1_3.values(), ids=ONLY_1_3.keys())
def test_only_tls_1_3(pod, line):
    pod.write_pair()
    pod.write(
        "spicepod.yaml",
        "version: v1\nkind: Spicepod\nname: x\nruntime:\n  tls:\n"
        "    certificate_file: tls.crt\n    key_file: tls.key\n" + line,
    )
    _only_1_3(pod.serve())


def test_only_tls_1_3_by_variable(pod):
    pod.yaml(tls=pod.write_pair())
    _only_1_3(pod.serve(env={"SPICED_RUNTIME__TLS__MIN_VERSION": "1.3"}))


@pytest.mark.parametrize("quote", ["", '"'], ids=["not-quoted", "quoted"])
def test_min_version_1_2_leaves_both(pod, quote):
    pod.write_pair()
    pod.write(
        "spicepod.yaml",
        "version: v1\nkind: Spicepod\nname: x\nruntime:\n  tls:\n    profile: intermediate\n"
        f"    certificate_file: tls.crt\n    key_file: tls.key\n    min_version: {quote}1.2{quote}\n",
    )
    server = pod.serve()
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        clients.handshake(server.port("http"), version=version).close()


SUITES = {
    "ECDHE-ECDSA-AES128-GCM-SHA256": True,
    "ECDHE-ECDSA-AES256-GCM-SHA384": True,
    "ECDHE-ECDSA-CHACHA20-POLY1305": True,
    "ECDHE-ECDSA-AES128-SHA256": False,  # CBC
    "ECDHE-ECDSA-AES256-SHA": False,
}


@pytest.mark.parametrize("suite, taken", SUITES.items(), ids=SUITES.keys())
def test_suites_of_tls_1_2(over_tls, suite, taken):
    said = clients.s_client(over_tls.port("http"), "-tls1_2", "-cipher", f"{suite}@SECLEVEL=0")
    if taken:
        assert f"Cipher is {suite}" in said, said
    else:
        assert "alert handshake failure" in said, said


@pytest.mark.parametrize("suite, taken", [("ECDHE-RSA-AES128-GCM-SHA256", True), ("AES128-GCM-SHA256", False)])
def test_no_suite_without_forward_secrecy(pod, suite, taken):
    pod.yaml(tls=pod.write_pair(pod.ca.issue(kind="rsa2048")))
    said = clients.s_client(pod.serve().port("http"), "-tls1_2", "-cipher", suite)
    assert (f"Cipher is {suite}" in said) if taken else ("alert handshake failure" in said), said


ALPN = [("h2", "h2"), ("http/1.1", "http/1.1"), ("http/1.1,h2", "h2"), ("h2,http/1.1", "h2")]


@pytest.mark.parametrize("offered, chosen", ALPN)
def test_alpn_of_the_http_endpoint(over_tls, offered, chosen):
    said = clients.s_client(over_tls.port("http"), "-alpn", offered)
    assert f"ALPN protocol: {chosen}" in said, said


@pytest.mark.parametrize("endpoint", ["flight", "grpc"])
def test_alpn_of_the_grpc_endpoints(over_tls, endpoint):
    assert "ALPN protocol: h2" in clients.s_client(over_tls.port(endpoint), "-alpn", "h2")


def test_without_alpn_http_1_is_spoken(over_tls):
    answer = clients.get(over_tls, "/health", "--no-alpn")
    assert (answer.version, answer.text.strip()) == ("HTTP/1.1", "ok"), answer


# Resumption


@every_endpoint
@pytest.mark.parametrize("version, name", [("tls1_2", "TLSv1.2"), ("tls1_3", "TLSv1.3")])
def test_session_is_resumed(over_tls, tmp_path, endpoint, version, name):
    path = tmp_path / "session.pem"
    clients.save_session(over_tls, endpoint, version, path)
    said = clients.s_client(over_tls.port(endpoint), f"-{version}", "-alpn", "h2", "-sess_in", str(path))
    assert f"Reused, {name}" in said, said


# Plain text on a TLS port


def _in_pieces(connection, data: bytes, size: int) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(0, len(data), size):
        connection.sendall(data[at : at + size])


@every_endpoint
@pytest.mark.parametrize(
    "request_line", [b"GET /health", b"POST /v1/sql", b"OPTIONS *", b"HEAD /"], ids=lambda b: b.split()[0].decode()
)
def test_plain_http_1_on_a_tls_port(over_tls, endpoint, request_line):
    with connect(over_tls, endpoint) as connection:
        connection.sendall(request_line + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = http2.read_to_end(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 "), answer
    assert b"tls" in answer.lower() or b"https" in answer.lower(), answer
    if not request_line.startswith(b"HEAD"):
        assert 0 < len(body) < 1000, answer


@every_endpoint
def test_plain_http_1_on_a_tls_port_by_curl(over_tls, endpoint):
    answer = clients.curl(f"http://localhost:{over_tls.port(endpoint)}/v1/sql", "-d", "SELECT 1")
    assert answer.exit == 0 and answer.status == 400, answer
    assert any(word in answer.text.lower() for word in ("https", "tls")), answer


@every_endpoint
@pytest.mark.parametrize("size", [1, 7, 10_000], ids=["byte-by-byte", "in-pieces", "at-once"])
def test_plain_http_2_on_a_tls_port(over_tls, endpoint, size):
    """A gRPC client without TLS reads the reason in a GOAWAY."""
    with connect(over_tls, endpoint) as connection:
        _in_pieces(connection, http2.PREFACE + http2.frame(http2.SETTINGS), size)
        frames = http2.read_frames(connection, until=http2.GOAWAY)
    assert frames and frames[0].kind == http2.SETTINGS and not frames[0].flags & 1, frames
    assert frames[-1].kind == http2.GOAWAY, frames
    code, reason = frames[-1].goaway
    assert "tls" in reason.lower(), f"GOAWAY {code} says {reason!r}"


def test_plain_http_1_that_comes_byte_by_byte(over_tls):
    with connect(over_tls) as connection:
        _in_pieces(connection, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 1)
        assert http2.read_to_end(connection).startswith(b"HTTP/1.1 400 ")


def test_curl_without_tls_over_h2_gets_no_answer_from_behind(over_tls):
    answer = clients.curl(f"http://localhost:{over_tls.port('http')}/health", "--http2-prior-knowledge")
    assert answer.status == 400 and "speaks TLS" in answer.headers["grpc-message"], answer
    assert b"ok" not in answer.body, answer


@every_endpoint
def test_tls_on_a_plain_port_fails_and_harms_no_other_client(in_clear, endpoint):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        clients.handshake(in_clear.port(endpoint))
    clients.get(in_clear, "/health").ok()


# Garbage

GARBAGE = {
    "zeros": bytes(64),
    "random": bytes((i * 197 + 91) % 256 for i in range(4096)),
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "postgres-ssl-request": bytes.fromhex("0000000804d2162f"),
    "proxy-protocol": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n",
    "record-of-length-zero": bytes.fromhex("1603010000"),
    "record-too-long": bytes.fromhex("160301ffff") + b"x" * 70_000,
    "alert-first": bytes.fromhex("15030300020228"),
    "hello-cut-short": bytes.fromhex("16030100c8010000c40303"),
    "ssl-2-hello": bytes.fromhex("802e0100020015001000000010"),
    "application-data-first": bytes.fromhex("1703030005") + b"hello",
    "newline": b"\n",
}


@every_endpoint
@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_closed_and_harms_no_other_client(over_tls, endpoint, data):
    with connect(over_tls, endpoint) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has closed already, which is correct
        http2.read_to_end(connection)  # a timeout here is a failure: the server kept it open
    clients.handshake(over_tls.port(endpoint)).close()


def test_garbage_on_a_plain_port_harms_no_other_client(in_clear):
    for endpoint in ENDPOINTS:
        for data in GARBAGE.values():
            with connect(in_clear, endpoint) as connection:
                try:
                    connection.sendall(data)
                    connection.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
                http2.read_to_end(connection)
    clients.get(in_clear, "/health").ok()


def test_garbage_after_the_handshake(over_tls):
    for endpoint in ENDPOINTS:
        connection = clients.handshake(over_tls.port(endpoint), alpn=("h2",))
        connection.sendall(b"this is no HTTP/2 preface at all\r\n\r\n")
        try:
            http2.read_to_end(connection)
        except ssl.SSLError:
            pass  # closed without close_notify
        connection.close()
    clients.get(over_tls, "/health").ok()


# Clients that are slow, or silent


def _half_open(server, endpoint: str, count: int) -> list[socket.socket]:
    """Connections that stop in the middle of a ClientHello; every other one sends nothing."""
    connections = [connect(server, endpoint) for _ in range(count)]
    for connection in connections[::2]:
        connection.sendall(bytes.fromhex("16030100c8010000c40303"))
    return connections


def test_half_open_handshakes_delay_no_other_client(pod):
    """With the default deadline of 10 s, so that waiting for it would be noticeable."""
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    waiting = [c for endpoint in ENDPOINTS for c in _half_open(server, endpoint, 50)]
    try:
        for endpoint in ENDPOINTS:
            started = time.monotonic()
            clients.handshake(server.port(endpoint)).close()
            assert time.monotonic() - started < 3, f"a handshake on the {endpoint} endpoint was held up"
        clients.get(server, "/health").ok()
    finally:
        for connection in waiting:
            connection.close()


@every_endpoint
def test_half_open_handshakes_are_closed_at_the_deadline(pod, endpoint):
    pod.yaml(tls={**pod.write_pair(), "handshake_timeout": "1s"})
    server = pod.serve()
    started = time.monotonic()
    waiting = _half_open(server, endpoint, 50)
    for connection in waiting:
        connection.settimeout(10)
        http2.read_to_end(connection)  # returns when the server closes
        connection.close()
    took = time.monotonic() - started
    assert 0.8 < took < 6, f"a deadline of 1 s took {took:.1f} s"
    clients.handshake(server.port(endpoint)).close()


def test_more_half_open_handshakes_than_are_allowed(pod):
    """The limit delays new handshakes, and the deadline frees slots."""
    pod.yaml(tls={**pod.write_pair(), "handshake_timeout": "1s"}, runtime={"limits": {"handshakes": 4}})
    server = pod.serve()
    waiting = _half_open(server, "http", 20)
    eventually(lambda: clients.get(server, "/health", deadline=10).status == 200, "a handshake after the deadline")
    for connection in waiting:
        connection.close()


def test_more_connections_than_are_allowed(pod):
    """A connection with a request in progress keeps its slot; an idle one is closed for a new one."""
    pod.yaml(tls=pod.write_pair(), runtime={"limits": {"connections": 4}})
    server = pod.serve()
    busy = [clients.handshake(server.port("http"), alpn=("http/1.1",)) for _ in range(4)]
    for connection in busy:
        connection.sendall(b"POST /v1/sql HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nSELECT")
    with pytest.raises((OSError, ssl.SSLError)):
        clients.handshake(server.port("http"), timeout=1)
    for connection in busy:
        connection.close()
    eventually(lambda: clients.get(server, "/health").status == 200, "room after others left")


@pytest.mark.parametrize("state", ["silent", "handshake", "h2", "h1", "h1 kept alive"])
def test_inactive_connections_make_room(pod, state):
    """Whatever the state of the connections without a request, a new client is served within about a second."""
    pod.yaml(tls=pod.write_pair(), runtime={"limits": {"connections": 8}})
    server = pod.serve()
    held = []
    for _ in range(8):
        if state in ("silent", "handshake"):
            connection = socket.create_connection(("127.0.0.1", server.port("http")))
            connection.sendall(b"\x16\x03\x01\x02\x00" if state == "handshake" else b"")
        else:
            connection = clients.handshake(server.port("http"), alpn=("h2" if state == "h2" else "http/1.1",))
            if state == "h2":
                connection.sendall(http2.PREFACE + http2.frame(http2.SETTINGS))
            if state == "h1 kept alive":
                connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        held.append(connection)
    for _ in range(4):
        started = time.monotonic()
        clients.get(server, "/health").ok()
        assert time.monotonic() - started < 5
    for connection in held:
        connection.close()


def descriptors(pid: int) -> list[str]:
    """The targets of the process' descriptors, from /proc."""
    kinds = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            kinds.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            pass  # closed meanwhile
    return kinds


def test_descriptors_run_out_and_come_back(pod):
    """The accept loop backs off instead of spinning, and accepts again once descriptors are free."""
    pod.yaml(
        tls={**pod.write_pair(), "handshake_timeout": "60s"},
        runtime={"limits": {"connections": 1000, "handshakes": 1000}},
    )
    server = pod.serve(wrap=["bash", "-c", 'ulimit -n 128; exec "$0" "$@"'])
    waiting = []
    for _ in range(200):
        connection = socket.socket()
        connection.settimeout(5)
        connection.connect(("127.0.0.1", server.port("http")))  # the backlog holds connections that are not accepted
        waiting.append(connection)
    # The endpoints limit their connections, so that data files and secrets can still be opened.
    eventually(
        lambda: len([c for c in descriptors(server.process.pid) if c.startswith("socket:")]) >= 40,
        "all descriptors that connections may have taken: the endpoint's own, and what all endpoints share",
        deadline=10,
    )
    share = server.cpu_share(1.0)
    assert share < 0.5, f"it uses {share:.2f} cores while it has no descriptors"
    for endpoint in ("flight", "grpc"):
        clients.handshake(server.port(endpoint)).close()  # they have slots of their own
    for connection in waiting:
        connection.close()
    eventually(lambda: clients.get(server, "/health", deadline=5).status == 200, "an answer once there is room")


BURDEN = "SELECT count(*) AS n FROM generate_series(1, 300000) a, generate_series(1, 300000) b WHERE (a.value * b.value) % 7 = 3"


def test_a_full_cpu_delays_no_handshake_and_no_health_check(pod):
    pod.yaml(tls=pod.write_pair(), runtime={"sql": {"timeout": "60s"}})
    server = pod.serve()
    command = clients.curl_command(server.url("/v1/sql"), "-d", BURDEN, ca=server.ca, deadline=60)
    busy = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(4)]
    try:
        eventually(lambda: server.cpu_share(0.3) > 0.6, "queries that use the CPU")
        times = []
        for _ in range(10):
            started = time.monotonic()
            clients.get(server, "/health").ok()
            times.append(time.monotonic() - started)
        assert sorted(times)[5] < 1.0, f"health checks took {times}"
    finally:
        for process in busy:
            process.kill()
            process.wait()
    eventually(lambda: server.cpu_share(0.3) < 0.3, "queries that end when their clients went away")


def test_connections_that_come_and_go_leave_nothing_behind(pod):
    pod.yaml(tls={**pod.write_pair(), "handshake_timeout": "1s"})
    server = pod.serve()
    clients.get(server, "/health").ok()
    before = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    for endpoint in ENDPOINTS:
        for _ in range(50):
            connect(server, endpoint).close()
        for _ in range(20):
            clients.handshake(server.port(endpoint)).close()
    eventually(
        lambda: len(os.listdir(f"/proc/{server.process.pid}/fd")) <= before + 2, "descriptors given back", deadline=15
    )

"""How a handshake failed, by class, in `spiced_tls_handshakes_total`: operators see it before users report it."""

from __future__ import annotations

import datetime
import socket
import ssl
import struct

import pytest

from harness import clients
from harness.certificates import Authority
from harness.metrics import metrics
from harness.waiting import eventually

DAY = datetime.timedelta(days=1)


def results(server) -> dict[str, float]:
    """The counters of the HTTP endpoint, by result."""
    counted: dict[str, float] = {}
    for name, labels, value in metrics(server):
        if name == "spiced_tls_handshakes_total" and labels["endpoint"] == "http":
            counted[labels["result"]] = counted.get(labels["result"], 0) + value
    return counted


def _raw(server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port("http")), timeout=clients.DEADLINE)


def _old_version(pod, server):
    clients.s_client(server.port("http"), "-tls1_2")


def _old_cipher(pod, server):
    clients.s_client(server.port("http"), "-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0")


def _curve(pod, server):
    clients.s_client(server.port("http"), "-tls1_3", "-groups", "ffdhe2048")


def _show(pair):
    def shake(pod, server):
        shown = clients.showing(pair(pod), pod.home) if pair else []
        clients.get(server, "/health", *shown)

    return shake


def _distrusts(pod, server):
    other = Authority("somebody else")
    pod.write("other.pem", other.pem)
    answer = clients.curl(server.url("/health"), ca=str(pod.folder / "other.pem"))
    assert answer.exit == 60, answer


def _reset(pod, server):
    """After the server's first flight, in the middle of its handshake."""
    flight = ssl.MemoryBIO()
    half = clients.context().wrap_bio(ssl.MemoryBIO(), flight, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        half.do_handshake()
    with _raw(server) as connection:
        connection.sendall(flight.read())
        assert connection.recv(5)[0] == 22
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _plain(pod, server):
    with _raw(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400")


def _silent(pod, server):
    _raw(server).close()


def _slow(pod, server):
    with _raw(server) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert connection.recv(1) == b"", "the server closes it at the deadline"


def _client(**more):
    return lambda pod: pod.ca.issue(names=(), common_name="a client", client=True, **more)


REVOKED: dict[int, object] = {}


def _revoked(pod):
    return REVOKED[id(pod)]


# By result: the TLS settings, and a client that fails in that way.
REQUIRED = {"client_auth_mode": "required"}
FAILURES = {
    "no_shared_version": ({"min_version": "1.3"}, _old_version),
    "no_shared_cipher": ({}, _old_cipher),
    "no_client_certificate": (REQUIRED, _show(None)),
    "client_certificate_expired": (REQUIRED, _show(_client(starts=-3 * DAY, ends=-DAY))),
    "client_certificate_revoked": (REQUIRED, _show(_revoked)),
    "bad_client_certificate": (REQUIRED, _show(lambda pod: Authority("elsewhere").issue(names=(), client=True))),
    "unknown_name": ({"strict_sni": True}, lambda pod, server: clients.s_client(server.port("http"), "-servername", "nobody.test")),
    "refused_by_client": ({}, _distrusts),
    "reset": ({}, _reset),
    "plaintext": ({}, _plain),
    "closed": ({}, _silent),
    "timeout": ({"handshake_timeout": "300ms"}, _slow),
}


@pytest.mark.parametrize("result", FAILURES)
def test_a_failure_is_counted_by_its_cause(pod, result):
    settings, fail = FAILURES[result]
    if settings.get("client_auth_mode"):
        REVOKED[id(pod)] = pod.ca.issue(names=(), common_name="revoked", client=True)
        pod.write("ca.pem", pod.ca.pem)
        pod.write("clients.crl", pod.ca.crl(REVOKED[id(pod)]))
        settings = {**settings, "client_auth_ca_file": "ca.pem"}
        if result == "client_certificate_revoked":
            settings["client_crl_files"] = ["clients.crl"]
        # The metrics endpoint requires a client certificate too.
        show = clients.as_client(pod.ca, pod.home)
    else:
        show = []
    pod.yaml(tls={**pod.write_pair(), **settings})
    server = pod.serve("--metrics", "localhost:0")
    fail(pod, server)

    def counted() -> float:
        answer = clients.get(server, "/metrics", *show, endpoint="metrics").ok()
        wanted = f'spiced_tls_handshakes_total{{endpoint="http",result="{result}"'
        return sum(float(line.split()[-1]) for line in answer.text.splitlines() if line.startswith(wanted))

    eventually(lambda: counted() >= 1, f"one more of {result}")


def test_no_group_in_common(over_tls):
    before = results(over_tls).get("no_shared_cipher", 0)
    _curve(None, over_tls)
    eventually(lambda: results(over_tls).get("no_shared_cipher", 0) == before + 1, "a client with no group of ours")

"""Proxies in front of `spiced` that verify its certificate: every endpoint through each of them."""

from __future__ import annotations

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from harness import clients
from harness.certificates import Authority
from harness.drivers import At
from harness.drivers.python import Adbc, PyArrow
from harness.proxies import PROXIES, Upstream

PEOPLE = [{"id": 1, "name": "Ada"}, {"id": 2, "name": "Grace"}, {"id": 3, "name": "Edsger"}]
ASKED = "SELECT id, name FROM people ORDER BY id"
ROWS = 100_000
LARGE = f"SELECT value, repeat('x', 1000) AS filler FROM generate_series(1, {ROWS})"


def each(column: str):
    return pytest.mark.parametrize(
        "kind",
        [pytest.param(k, id=k.name, marks=pytest.mark.feature("proxies", k.name, column)) for k in PROXIES],
    )


@pytest.fixture(scope="session")
def in_front(over_tls, tmp_path_factory):
    """A proxy of each kind in front of the shared server, started on first use."""
    started = {}

    def start(kind):
        if kind not in started:
            started[kind] = kind(tmp_path_factory.mktemp(kind.name), Upstream(over_tls, over_tls.ca))
        return started[kind]

    yield start
    for proxy in started.values():
        proxy.close()


@each("HTTP")
@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
def test_http(in_front, kind, protocol):
    assert clients.rows(in_front(kind), ASKED) == PEOPLE
    answer = clients.sql(in_front(kind), "SELEC")
    assert answer.status == 400 and "SELEC" in answer.text, answer


@each("large HTTP answer")
def test_large_answer_over_http(in_front, kind):
    answer = clients.sql(in_front(kind), LARGE, accept="text/csv").ok()
    assert answer.body.count(b"xxx\n") == ROWS


@each("gRPC health")
def test_health(in_front, kind):
    with clients.channel(in_front(kind)) as channel:
        status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=clients.DEADLINE)
    assert status.status == health_pb2.HealthCheckResponse.SERVING


@each("Flight")
def test_flight(in_front, kind):
    at = At.of(in_front(kind))
    assert PyArrow().rows(at, ASKED) == PEOPLE
    assert Adbc().rows(at, "SELECT name FROM people WHERE id = $1", (2,)) == [{"name": "Grace"}], "DoPut binds"


@each("large Flight answer")
def test_large_answer_over_flight(in_front, kind):
    assert PyArrow().count(At.of(in_front(kind)), LARGE) == ROWS


# Connections that must fail: a server with another identity


def _no_answer(proxy) -> None:
    """502 or 503 over HTTP (over HTTP/2, curl 7.88 fails if the answer arrives before its request is sent), and no
    health.
    """
    answer = clients.sql(proxy, "SELECT 1 AS x", "--http1.1")
    assert answer.status in (502, 503), answer
    with clients.channel(proxy) as channel:
        with pytest.raises(clients.grpc.RpcError) as caught:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=clients.DEADLINE)
    assert caught.value.code() is clients.grpc.StatusCode.UNAVAILABLE, caught.value


@each("refuses a wrong CA")
def test_wrong_authority(over_tls, tmp_path, kind):
    stranger = tmp_path / "stranger.pem"
    stranger.write_text(Authority("Stranger").pem)
    proxy = kind(tmp_path, Upstream(over_tls, str(stranger)))
    _no_answer(proxy)
    proxy.close()


@each("refuses a wrong name")
def test_wrong_name(over_tls, tmp_path, kind):
    proxy = kind(tmp_path, Upstream(over_tls, over_tls.ca, name="spice.internal"))
    _no_answer(proxy)
    proxy.close()


@each("checks client certificates")
def test_client_certificate(over_tls, tmp_path, kind):
    """The setup that the reference suggests while `spiced` itself does not request client certificates."""
    trusted, stranger = Authority("Clients"), Authority("Stranger")
    ca = tmp_path / "clients.pem"
    ca.write_text(trusted.pem)
    proxy = kind(tmp_path, Upstream(over_tls, over_tls.ca), str(ca))
    assert clients.get(proxy, "/health", *clients.as_client(trusted, tmp_path)).ok().text.strip() == "ok"
    for args in ([], clients.as_client(stranger, tmp_path)):
        answer = clients.get(proxy, "/health", *args)
        assert answer.exit != 0 or answer.status == 400, answer
    proxy.close()

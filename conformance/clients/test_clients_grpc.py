"""gRPC clients at the gRPC endpoint: health and reflection with grpcio and with Go as in the reference, and the CA that
they trust.
"""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from harness import clients
from harness.certificates import Authority
from harness.drivers import At, Untrusted
from harness.drivers.programs import Go
from harness.cert_kinds import KINDS

HEALTH = "grpc.health.v1.Health"


class Grpcio:
    name = "grpcio"
    refuses = {"Ed25519": "BoringSSL does not offer Ed25519"}

    def health(self, at: At) -> str:
        with self._channel(at) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=clients.DEADLINE
                )
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE, error
                raise Untrusted(error.details()) from error
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

    def services(self, at: At) -> list[str]:
        with self._channel(at) as channel:
            return list(ProtoReflectionDescriptorDatabase(channel).get_services())

    def _channel(self, at: At) -> grpc.Channel:
        return clients.channel_at(at.address("grpc"), at.pem.encode() if at.ca else None)


class GoDoor(Go):
    def health(self, at: At) -> str:
        return self.ask(at, "grpc", "health").decode().strip()

    def services(self, at: At) -> list[str]:
        return self.ask(at, "grpc", "reflect").decode().split()


CLIENTS = [Grpcio(), GoDoor()]


def each(column: str):
    marked = [pytest.param(c, id=c.name, marks=pytest.mark.feature("grpc", c.name, column)) for c in CLIENTS]
    return pytest.mark.parametrize("client", marked)


@each("health over TLS")
def test_health_over_tls(over_tls, client):
    assert client.health(At.of(over_tls)) == "SERVING"


@each("health in plain text")
def test_health_in_the_clear(in_clear, client):
    assert client.health(At.of(in_clear)) == "SERVING"


@each("reflection")
def test_reflection(served, client):
    assert HEALTH in client.services(At.of(served))


@each("refuses a wrong CA")
def test_wrong_authority(over_tls, tmp_path: Path, client):
    stranger = tmp_path / "ca.pem"
    stranger.write_text(Authority("Stranger").pem)
    with pytest.raises(Untrusted, match="(?i)certificate"):
        client.health(At(over_tls, str(stranger)))


@each("refuses a wrong name")
def test_wrong_name(certified, client):
    with pytest.raises(Untrusted, match="(?i)hostname|not localhost"):
        client.health(At.of(certified("another name")))


@each("reports that the endpoint speaks TLS")
def test_plain_text_to_a_tls_endpoint(over_tls, client):
    with pytest.raises(Untrusted, match="speaks TLS and got plain"):
        client.health(At(over_tls, None))


def _certificate(kind: str):
    """Go's row is filled by the tests over Flight."""
    why = Grpcio.refuses.get(kind)
    more = {"answer": "refuses", "why": why} if why else {}
    return pytest.param(kind, marks=pytest.mark.feature("certificates", Grpcio.name, kind, **more))


@pytest.mark.parametrize("kind", [_certificate(kind) for kind in KINDS])
def test_certificate(certified, kind):
    at = At.of(certified(kind))
    if kind in Grpcio.refuses:
        with pytest.raises(Untrusted):
            Grpcio().health(at)
    else:
        assert Grpcio().health(at) == "SERVING"

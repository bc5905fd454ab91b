"""The gRPC endpoint (health, reflection), the metrics endpoint and the probe endpoint."""

from __future__ import annotations

import math
import re

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from harness import clients
from harness.metrics import metrics, total
from harness.waiting import eventually

SERVING = health_pb2.HealthCheckResponse.SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.fixture
def channel(served):
    with clients.channel(served) as channel:
        yield channel


# Health


def _check(channel, service: str = ""):
    request = health_pb2.HealthCheckRequest(service=service)
    return health_pb2_grpc.HealthStub(channel).Check(request, timeout=clients.DEADLINE).status


def test_health_overall(channel):
    assert _check(channel) == SERVING


def test_health_by_service(channel):
    """At least one service that reflection lists has a status of its own, and all statuses are SERVING."""
    statuses = {}
    for service in _services(channel, "v1"):
        try:
            statuses[service] = _check(channel, service)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.NOT_FOUND, error
    assert statuses and set(statuses.values()) == {SERVING}, statuses


def test_health_of_an_unknown_service(channel):
    with pytest.raises(grpc.RpcError) as caught:
        _check(channel, "no.such.Service")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_watch_begins_with_the_state(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service, wanted in (("", SERVING), ("no.such.Service", SERVICE_UNKNOWN)):
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=clients.DEADLINE)
        try:
            assert next(watch).status == wanted
        except grpc.RpcError as error:
            assert service and error.code() is grpc.StatusCode.NOT_FOUND, error
        watch.cancel()


def test_unknown_method(channel):
    call = channel.unary_unary("/grpc.health.v1.Health/Nope", lambda b: b, lambda b: b)
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=clients.DEADLINE)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_health_changes_with_a_data_set_that_cannot_load(pod):
    """The health status follows readiness."""
    pod.yaml(tls=pod.write_pair(), datasets=[{"from": "file:nowhere.csv", "name": "late"}])
    with clients.channel(pod.serve()) as channel:
        assert _check(channel) == health_pb2.HealthCheckResponse.NOT_SERVING


# Reflection: grpcio's stubs are for v1alpha, whose messages equal those of v1


def _reflect(channel, version: str, **request):
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    return next(call(iter([reflection_pb2.ServerReflectionRequest(**request)]), timeout=clients.DEADLINE))


def _services(channel, version: str) -> set[str]:
    return {s.name for s in _reflect(channel, version, list_services="*").list_services_response.service}


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_services(channel, version):
    services = _services(channel, version)
    assert "grpc.health.v1.Health" in services, services
    assert any(service.startswith("grpc.reflection.") for service in services), services


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_describes_a_symbol(channel, version):
    answer = _reflect(channel, version, file_containing_symbol="grpc.health.v1.Health")
    assert any(b"grpc.health.v1" in file for file in answer.file_descriptor_response.file_descriptor_proto)
    # The protocol defines an error_response for this case; tonic's service ends the call with the same code.
    try:
        code = _reflect(channel, version, file_containing_symbol="no.such.Thing").error_response.error_code
    except grpc.RpcError as error:
        code = error.code().value[0]
    assert code == grpc.StatusCode.NOT_FOUND.value[0]


def test_reflection_by_grpcio(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    assert "grpc.health.v1.Health" in database.get_services()
    described = database.FindFileContainingSymbol("grpc.health.v1.Health")
    assert {method.name for service in described.service for method in service.method} >= {"Check", "Watch"}


# Metrics


@pytest.fixture
def counted(pod):
    """A server that only this test uses, so that no other requests are counted."""
    pod.yaml(tls=pod.write_pair())
    return pod.serve("--metrics", "localhost:0")


def test_metrics_speak_tls_as_the_others(served):
    assert served.tls("metrics") == served.tls("http")
    assert metrics(served)


def test_handshakes_are_counted(counted):
    clients.get(counted, "/health", "--tlsv1.3").ok()
    clients.get(counted, "/health", "--tls-max", "1.2").ok()
    handshakes = [
        l for n, l, v in metrics(counted) if n == "spiced_tls_handshakes_total" and l["endpoint"] == "http" and v >= 1
    ]
    assert all({"endpoint", "result", "version", "resumed"} <= labels.keys() for labels in handshakes), handshakes
    assert {re.sub(r"[^0-9]", "", labels["version"]) for labels in handshakes} == {"13", "12"}, handshakes
    before = total(counted, "spiced_tls_handshakes_total", endpoint="http")
    for _ in range(3):
        clients.get(counted, "/health").ok()
    assert total(counted, "spiced_tls_handshakes_total", endpoint="http") == before + 3
    assert (
        total(counted, "spiced_tls_handshake_seconds_count", endpoint="http") >= 5
        or total(counted, "spiced_tls_handshake_seconds_count") >= 5
    )


def test_plain_text_on_a_tls_port_is_counted(counted):
    clients.get(counted, "/health").ok()

    def results():
        return {
            l["result"]
            for n, l, v in metrics(counted)
            if n == "spiced_tls_handshakes_total" and l["endpoint"] == "http" and v
        }

    good = results()
    clients.curl(f"http://localhost:{counted.port('http')}/")
    assert results() - good, "plain text on a TLS port left no trace"


def test_certificate_ends_are_shown(counted, pod):
    for name, wanted in (
        ("not_after", pod.pair.leaf.not_valid_after_utc),
        ("not_before", pod.pair.leaf.not_valid_before_utc),
    ):
        samples = [(l, v) for n, l, v in metrics(counted) if n == f"spiced_tls_certificate_{name}_timestamp_seconds"]
        assert {labels["endpoint"] for labels, _ in samples} >= {"http", "flight", "grpc"}, samples
        for labels, value in samples:
            assert math.isclose(value, wanted.timestamp()), (name, value)
            assert labels["fingerprint"].replace(":", "").lower() == pod.pair.fingerprint
            assert "localhost" in labels["subject"] and "runtime.tls.certificate_file" in labels["origin"], labels


def test_requests_are_counted(counted):
    clients.sql(counted, "SELECT 1").ok()
    assert clients.sql(counted, "SELEC").status == 400
    clients.query(clients.flight_client(counted), "SELECT 1")
    with clients.channel(counted) as channel:
        _check(channel)
    name = "spiced_requests_total"
    assert total(counted, name, endpoint="http", code="200") >= 1
    assert total(counted, name, endpoint="http", code="400") == 1
    assert total(counted, name, endpoint="flight") >= 2
    assert total(counted, name, endpoint="grpc") >= 1
    assert all({"endpoint", "method", "code"} <= l.keys() for n, l, _ in metrics(counted) if n == name)
    assert total(counted, "spiced_request_seconds_count") >= 4


def test_statements_are_counted(counted):
    name = "spiced_statements_total"
    outcomes = ("done", "refused", "denied")
    before = {outcome: total(counted, name, outcome=outcome) for outcome in outcomes}
    clients.sql(counted, "SELECT 1").ok()
    assert clients.sql(counted, "SELECT nothing").status == 400
    assert clients.sql(counted, "COPY (SELECT 1) TO '/tmp/never.csv'").status == 403
    clients.query(clients.flight_client(counted), "SELECT 1")

    def grown(outcome):
        return total(counted, name, outcome=outcome) - before[outcome]

    # A statement ends once its answer has been sent.
    eventually(lambda: grown("done") >= 2, "two statements that are done")
    assert grown("refused") == 1 and grown("denied") == 1
    assert all(labels["role"] in ("ro", "rw") for found, labels, _ in metrics(counted) if found == name)
    for times in ("spiced_statement_seconds_count", "spiced_statement_queue_seconds_count"):
        assert total(counted, times) == total(counted, name), times


def test_unknown_paths_and_methods_make_no_new_series(counted):
    """A scanner must not be able to fill the memory with label values."""
    clients.get(counted, "/path-0")
    clients.get(counted, "/health", "-X", "METHOD0")
    metrics(counted)  # the first scrape creates the series about scrapes
    before = len({(n, tuple(sorted(l.items()))) for n, l, _ in metrics(counted)})
    for number in range(1, 15):
        clients.get(counted, f"/path-{number}")
        clients.get(counted, "/health", "-X", f"METHOD{number}")
    after = len({(n, tuple(sorted(l.items()))) for n, l, _ in metrics(counted)})
    assert after - before < 10, f"{after - before} new series"


def test_open_connections_are_shown(counted):
    with clients.handshake(counted.port("flight"), alpn=("h2",)):
        eventually(
            lambda: total(counted, "spiced_tls_connections", endpoint="flight") == 1, "one connection in the gauge"
        )
    eventually(lambda: total(counted, "spiced_tls_connections", endpoint="flight") == 0, "none in the gauge")


def test_metrics_are_off_by_default(pod):
    server = pod.serve()
    assert not server.addresses("metrics") and not server.addresses("probe")


@pytest.mark.parametrize("path", ["/v1/sql", "/v1/status", "/v1/datasets"])
def test_metrics_endpoint_serves_nothing_else(served, path):
    assert clients.get(served, path, endpoint="metrics").status == 404
    assert clients.get(served, path, "-d", "SELECT 1", endpoint="metrics").status == 404


# Probe


def test_probe_speaks_plain_text(served):
    assert served.tls("probe") is False
    assert clients.get(served, "/health", endpoint="probe").ok().text.strip() == "ok"
    assert clients.get(served, "/v1/ready", endpoint="probe").ok().text.strip() == "ready"
    with clients.channel(served, "probe") as channel:
        assert _check(channel) == SERVING


@pytest.mark.parametrize(
    "path", ["/v1/sql", "/v1/status", "/v1/datasets", "/metrics", "/", "/openapi.json", "/v1/tls/reload"]
)
def test_probe_serves_nothing_else(served, path):
    assert clients.get(served, path, endpoint="probe").status == 404
    assert clients.get(served, path, "-d", "SELECT 1", endpoint="probe").status == 404


@pytest.mark.parametrize(
    "method",
    [
        "/arrow.flight.protocol.FlightService/GetFlightInfo",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ],
)
def test_probe_serves_no_other_grpc(served, method):
    with clients.channel(served, "probe") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(method, lambda b: b, lambda b: b)(b"", timeout=clients.DEADLINE)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_flight_endpoint_and_grpc_endpoint_are_apart(served):
    """Neither endpoint serves the services of the other."""
    with clients.channel(served, "grpc") as channel:
        call = channel.unary_unary("/arrow.flight.protocol.FlightService/GetFlightInfo", lambda b: b, lambda b: b)
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=clients.DEADLINE)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

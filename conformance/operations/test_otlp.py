"""Telemetry ingestion: data that the OpenTelemetry SDK exports over gRPC can be queried by SQL, within its limits and
the caller's rights."""

from __future__ import annotations

import gzip
import logging
import re
from pathlib import Path

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Observation
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from harness import audit, clients
from harness.waiting import eventually

READER, WRITER = "a-reader-of-telemetry", "a-sender-of-telemetry"
RESOURCE = Resource({"service.name": "checkout", "service.instance.id": "7"})


def serve(pod, **otel):
    keys = [f"{READER}:ro", f"{WRITER}:rw"]
    pod.yaml(tls=pod.write_pair(), runtime={"auth": {"api_key": {"keys": keys}}, "otel": otel})
    return pod.serve()


def rows(server, text: str, *args: str) -> list[dict]:
    return clients.sql(server, text, "-H", f"X-API-Key: {READER}", *args).ok().json()


def exporter(kind, server, key: str = WRITER, compression=grpc.Compression.NoCompression):
    return kind(
        endpoint=f"localhost:{server.port('grpc')}",
        credentials=grpc.ssl_channel_credentials(Path(server.ca).read_bytes()),
        headers={"x-api-key": key} if key else {},
        compression=compression,
    )


def channel_of(server):
    return clients.channel(server)


def told(key: str = WRITER):
    return (("x-api-key", key),)


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_spans(pod, compression):
    server = serve(pod)
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(BatchSpanProcessor(exporter(OTLPSpanExporter, server, compression=compression)))
    tracer = provider.get_tracer("shop", "1.2")
    with tracer.start_as_current_span("order", kind=trace.SpanKind.SERVER, attributes={"items": 3, "paid": True}) as order:
        order.add_event("packed", {"boxes": ["a", "b"]})
        with tracer.start_as_current_span("charge", links=[trace.Link(order.get_span_context(), {"why": "retry"})]) as charge:
            charge.set_status(trace.StatusCode.ERROR, "no money")
        headers = {}
        TraceContextTextMapPropagator().inject(headers)
        rows(server, "SELECT 1 AS asked", "-H", f"traceparent: {headers['traceparent']}")
    assert provider.force_flush()
    trace_id = f"{order.get_span_context().trace_id:032x}"
    charged, ordered = rows(server, "SELECT * FROM otel.traces ORDER BY name")
    assert {charged["trace_id"], ordered["trace_id"]} == {trace_id}
    assert charged["parent_span_id"] == ordered["span_id"] == f"{order.get_span_context().span_id:016x}"
    assert ordered["kind"] == "server" and ordered.get("parent_span_id") is None
    assert ordered["attributes"] == {"items": "3", "paid": "true"}
    assert ordered["service_name"] == "checkout" and ordered["resource_attributes"]["service.instance.id"] == "7"
    assert (ordered["scope_name"], ordered["scope_version"]) == ("shop", "1.2")
    assert [(event["name"], event["attributes"]) for event in ordered["events"]] == [("packed", {"boxes": '["a","b"]'})]
    assert [(link["span_id"], link["attributes"]) for link in charged["links"]] == [(ordered["span_id"], {"why": "retry"})]
    assert (charged["status"], charged["status_message"], ordered["status"]) == ("error", "no money", "unset")
    assert 0 < charged["duration_ms"] < ordered["duration_ms"]
    # The statement that ran inside the span can be joined to it.
    joined = "SELECT q.statement FROM runtime.queries q JOIN otel.traces t ON q.parent_span_id = t.span_id"
    assert rows(server, joined) == [{"statement": "SELECT 1 AS asked"}]
    # Ingested telemetry does not appear in the history.
    assert rows(server, "SELECT count(*) AS n FROM runtime.queries WHERE statement LIKE 'INGEST%'") == [{"n": 0}]
    provider.shutdown()


def test_metrics(pod):
    server = serve(pod)
    reader = PeriodicExportingMetricReader(exporter(OTLPMetricExporter, server), export_interval_millis=1e9)
    view = View(instrument_type=Histogram, instrument_name="fine", aggregation=ExponentialBucketHistogramAggregation())
    provider = MeterProvider([reader], RESOURCE, views=[view])
    meter = provider.get_meter("shop")
    meter.create_counter("orders", "1", "Orders so far").add(2**60 + 1, {"city": "Oslo"})
    meter.create_up_down_counter("open").add(-1.5)
    meter.create_observable_gauge("heat", [lambda _: [Observation(21.5, {"room": "1"})]], "Cel")
    for value in (1, 12, 700):
        meter.create_histogram("wait", "ms").record(value)
        meter.create_histogram("fine").record(value)
    assert provider.force_flush()
    found = {row["name"]: row for row in rows(server, "SELECT * FROM otel.metrics")}
    assert set(found) == {"orders", "open", "heat", "wait", "fine"}
    orders = found["orders"]
    assert (orders["kind"], orders["monotonic"], orders["temporality"]) == ("sum", True, "cumulative")
    assert (orders["int_value"], orders["description"], orders["unit"]) == (2**60 + 1, "Orders so far", "1")
    assert orders["attributes"] == {"city": "Oslo"} and orders["service_name"] == "checkout"
    assert (found["open"]["kind"], found["open"]["monotonic"], found["open"]["value"]) == ("sum", False, -1.5)
    assert (found["heat"]["kind"], found["heat"]["value"], found["heat"]["unit"]) == ("gauge", 21.5, "Cel")
    wait, fine = found["wait"], found["fine"]
    assert (wait["kind"], wait["count"], wait["sum"], wait["min"], wait["max"]) == ("histogram", 3, 713, 1, 700)
    assert sum(wait["bucket_counts"]) == 3 and len(wait["bucket_counts"]) == len(wait["explicit_bounds"]) + 1
    assert (fine["kind"], fine["count"], sum(fine["positive_bucket_counts"])) == ("exponential_histogram", 3, 3)
    assert rows(server, "SELECT attributes['city'] AS city FROM otel.metrics WHERE name = 'orders'") == [{"city": "Oslo"}]
    provider.shutdown()


def test_logs(pod):
    server = serve(pod)
    provider = LoggerProvider(RESOURCE)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter(OTLPLogExporter, server)))
    logger = logging.getLogger("of the shop")
    logger.addHandler(LoggingHandler(logging.INFO, provider))
    logger.error("it broke %d times", 3, extra={"order": 17})
    assert provider.force_flush()
    (row,) = rows(server, "SELECT *, time > now() - INTERVAL '1 minute' AS recent FROM otel.logs")
    assert (row["body"], row["severity_text"], row["severity_number"]) == ("it broke 3 times", "ERROR", 17)
    assert row["attributes"]["order"] == "17" and row["recent"] is True and row["service_name"] == "checkout"
    provider.shutdown()


def metrics(points: int = 1, size: int = 0, name: str = "m"):
    """An export of a gauge whose resource has an attribute of `size` bytes."""
    request = metrics_service_pb2.ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    if size:
        resource.resource.attributes.add(key="filler").value.string_value = "x" * size
    gauge = resource.scope_metrics.add().metrics.add(name=name).gauge
    for value in range(points):
        gauge.data_points.add(as_int=value, time_unix_nano=1)
    return request


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
REASONS = {grpc.StatusCode.PERMISSION_DENIED: "role", grpc.StatusCode.UNAUTHENTICATED: "wrong_key"}


def test_it_needs_the_right_to_write(pod):
    server = serve(pod)
    with channel_of(server) as channel:
        stub = metrics_service_pb2_grpc.MetricsServiceStub(channel)
        for key, code in ((READER, grpc.StatusCode.PERMISSION_DENIED), ("nobody's", grpc.StatusCode.UNAUTHENTICATED)):
            with pytest.raises(grpc.RpcError) as caught:
                traced = ("traceparent", f"00-{TRACE}-{SPAN}-01")
                stub.Export(metrics(), metadata=(*told(key), traced), timeout=clients.DEADLINE)
            assert caught.value.code() is code, caught.value
            assert audit.line(server, outcome="denied", endpoint="grpc", reason=REASONS[code])["trace"] == TRACE
    assert rows(server, "SELECT count(*) AS n FROM otel.metrics") == [{"n": 0}]
    denied = rows(server, "SELECT statement, trace_id, parent_span_id FROM runtime.queries WHERE outcome = 'denied'")
    assert denied == [{"statement": "INGEST INTO otel.metrics", "trace_id": TRACE, "parent_span_id": SPAN}]


def test_the_oldest_row_is_evicted_when_the_table_is_full(pod):
    server = serve(pod, memory_limit="512KiB")
    with channel_of(server) as channel:
        stub = metrics_service_pb2_grpc.MetricsServiceStub(channel)
        for part in range(60):
            stub.Export(metrics(200, name=f"{part:02}"), metadata=told(), timeout=clients.DEADLINE)
    names = [row["name"] for row in rows(server, "SELECT DISTINCT name FROM otel.metrics ORDER BY name")]
    assert names and names[-1] == "59" and names[0] > "30", names
    assert rows(server, "SELECT count(*) AS n FROM otel.metrics WHERE name = '59'") == [{"n": 200}]


def test_old_rows_expire(pod):
    server = serve(pod, retention="2s")
    with channel_of(server) as channel:
        stub = metrics_service_pb2_grpc.MetricsServiceStub(channel)
        stub.Export(metrics(3), metadata=told(), timeout=clients.DEADLINE)
    assert rows(server, "SELECT count(*) AS n FROM otel.metrics") == [{"n": 3}]
    eventually(lambda: rows(server, "SELECT count(*) AS n FROM otel.metrics") == [{"n": 0}], "what is old has gone")


def counted(server) -> dict[str, float]:
    """The counters of `otel.metrics` by result, and its bytes."""
    text = clients.get(server, "/metrics", endpoint="metrics").ok().text
    found = re.findall(r'^spiced_telemetry_(?:rows_total|bytes)\{table="otel.metrics"(?:,result="(\w+)")?\} (\S+)$', text, re.M)
    return {result or "bytes": float(value) for result, value in found}


def test_rows_are_counted_by_outcome(pod):
    pod.yaml(tls=pod.write_pair(), runtime={"auth": {"api_key": {"keys": [f"{WRITER}:rw"]}}, "otel": {"memory_limit": "1MiB"}})
    server = pod.serve("--metrics", "localhost:0")
    assert counted(server) == {}
    with channel_of(server) as channel:
        stub = metrics_service_pb2_grpc.MetricsServiceStub(channel)
        stub.Export(metrics(2), metadata=told(), timeout=clients.DEADLINE)
        assert counted(server).keys() == {"kept", "bytes"} and counted(server)["kept"] == 2
        for _ in range(20):
            stub.Export(metrics(1_000), metadata=told(), timeout=clients.DEADLINE)
    now = counted(server)
    (left,) = clients.sql(server, "SELECT count(*) AS n FROM otel.metrics", "-H", f"X-API-Key: {WRITER}").ok().json()
    assert now["kept"] == 20_002 and now["evicted"] == 20_002 - left["n"] > 0
    assert 0 < now["bytes"] <= 1 << 20


def test_an_export_that_would_grow_beyond_bounds(pod):
    """A large resource attribute would be repeated in each row; a compressed message must not expand without bound."""
    server = serve(pod)
    with channel_of(server) as channel:
        stub = metrics_service_pb2_grpc.MetricsServiceStub(channel)
        stub.Export(metrics(), metadata=told(), timeout=clients.DEADLINE)
        server.forget_peak()
        idle = server.memory()
        with pytest.raises(grpc.RpcError) as caught:
            stub.Export(metrics(50_000, 1 << 20), metadata=told(), timeout=clients.DEADLINE)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT and "smaller batches" in caught.value.details()

        method = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
        bomb = channel.unary_unary(method, request_serializer=lambda _: b"\0" * (1 << 30))
        with pytest.raises(grpc.RpcError) as caught:
            bomb(None, metadata=told(), timeout=60, compression=grpc.Compression.Gzip)
        # gRPC's code for a message over the limit.
        assert caught.value.code() in (grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.RESOURCE_EXHAUSTED), caught.value
        assert server.memory("VmHWM") - idle < 200 << 20
        stub.Export(metrics(), metadata=told(), timeout=clients.DEADLINE)
    assert rows(server, "SELECT count(*) AS n FROM otel.metrics") == [{"n": 2}]


def test_garbage_is_refused(pod):
    server = serve(pod)
    with channel_of(server) as channel:
        method = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
        export = channel.unary_unary(method, request_serializer=lambda sent: sent)
        for sent in (b"\xff\xff\xff", gzip.compress(b"x"), b"\x0a\xff\xff\xff\xff\x0f"):
            with pytest.raises(grpc.RpcError) as caught:
                export(sent, metadata=told(), timeout=clients.DEADLINE)
            assert caught.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT), caught.value
        empty = logs_service_pb2.ExportLogsServiceRequest()
        answer = logs_service_pb2_grpc.LogsServiceStub(channel).Export(empty, metadata=told(), timeout=clients.DEADLINE)
        assert not answer.HasField("partial_success")
    assert rows(server, "SELECT count(*) AS n FROM otel.logs") == [{"n": 0}]


def test_the_tables_are_the_pods(pod):
    """SQL can insert into the tables but not delete or drop; a data set cannot have their names."""
    server = serve(pod)
    write = ("-H", f"X-API-Key: {WRITER}")
    assert clients.sql(server, "INSERT INTO otel.logs (body, flags) VALUES ('by hand', 0)", *write).status == 200
    for text in ("DROP TABLE otel.logs", "CREATE OR REPLACE TABLE otel.logs AS SELECT 1 AS x"):
        refused = clients.sql(server, text, *write)
        assert refused.status == 403 and "otel.logs" in refused.text, refused
    assert rows(server, "SELECT body FROM otel.logs") == [{"body": "by hand"}]
    server.close()
    pod.yaml(tls=pod.write_pair(), datasets=[{"from": "file:x.csv", "name": "otel.logs"}])
    assert "another table has the same" in pod.refuse().stderr


@pytest.mark.parametrize("key", ["retention", "memory_limit"])
def test_a_limit_of_zero_is_refused(pod, key):
    pod.yaml(tls=pod.write_pair(), runtime={"otel": {key: "0s" if key == "retention" else 0}})
    assert f"runtime.otel.{key}" in pod.refuse().stderr

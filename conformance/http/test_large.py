"""Large results: half a gigabyte in every format, in bounded memory; clients that read slowly or disconnect.

`SPICED_LARGE_ROWS` sets the number of rows of a kilobyte each (default: a million); with ten million it is a soak test.
"""

from __future__ import annotations

import os
import subprocess

import pyarrow as pa
import pyarrow.compute
import pyarrow.ipc
import pytest

from harness import clients, data
from harness.waiting import eventually

ROWS = int(os.environ.get("SPICED_LARGE_ROWS", "1000000"))
PATIENCE = 170 + ROWS // 10_000
TEXT = f"SELECT value, repeat('x', 1000) AS filler FROM generate_series(1, {ROWS})"
ENDLESS = "SELECT value, repeat('x', 1000) AS filler FROM generate_series(1, 1000000000)"
ALLOWED = 300 << 20  # above idle

MARKS = {  # text that each row contains once
    "application/json": b'"value":',
    "application/x-ndjson": b'"value":',
    "application/vnd.spiceai.sql.v1+json": b'"value":',
    "text/csv": b"xxx\n",
    "text/plain": b"xxx ",
}

pytestmark = pytest.mark.timeout(PATIENCE + 10)


@pytest.fixture
def server(pod):
    """A warmed-up server whose peak memory is reset."""
    data.write(data.PEOPLE, pod.folder / "people.parquet")
    limit = {"sql": {"timeout": f"{PATIENCE}s"}}
    pod.yaml(tls=pod.write_pair(), datasets=[{"from": "file:people.parquet", "name": "people"}], runtime=limit)
    server = pod.serve("--allow-core-dumps")  # without it only root may reset the peak memory
    clients.rows(server, "SELECT * FROM people")
    clients.query(clients.flight_client(server), "SELECT * FROM people")
    server.idle = server.memory()
    server.forget_peak()
    return server


def assert_bounded(server) -> None:
    grown = server.memory("VmHWM") - server.idle
    assert grown < ALLOWED, f"memory grew by {grown >> 20} MiB above the idle {server.idle >> 20} MiB"


def _curl(server, text: str, accept: str, *args: str) -> subprocess.Popen:
    command = clients.curl_command(
        server.url("/v1/sql"), "-d", text, "-H", f"Accept: {accept}", "--fail", *args, ca=server.ca, deadline=PATIENCE
    )
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _count(stream, mark: bytes) -> tuple[int, int]:
    """The number of occurrences of the mark in the stream, across its chunks, and the stream's length."""
    count, size, rest = 0, 0, b""
    while part := stream.read(1 << 20):
        size += len(part)
        part = rest + part
        count += part.count(mark)
        rest = part[len(part) - len(mark) + 1 :]
    return count, size


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
@pytest.mark.parametrize("accept, mark", MARKS.items(), ids=MARKS.keys())
def test_large_answer(server, accept, mark, protocol):
    if protocol == "--http2" and accept not in ("application/json", "text/plain"):
        pytest.skip("HTTP/2 is tried with two of the five forms, to save time")
    process = _curl(server, TEXT, accept, protocol)
    count, size = _count(process.stdout, mark)
    assert process.wait() == 0, process.stderr.read()
    assert count == ROWS and size > ROWS * 1000
    assert_bounded(server)


def test_large_answer_arrow(server):
    process = _curl(server, TEXT, "application/vnd.apache.arrow.stream")
    with pa.ipc.open_stream(process.stdout) as reader:
        rows = sum(batch.num_rows for batch in reader)
    assert process.wait() == 0, process.stderr.read()
    assert rows == ROWS
    assert_bounded(server)


def test_large_answer_over_flight(server):
    client = clients.flight_client(server)
    info = client.get_flight_info(clients.flight.FlightDescriptor.for_command(TEXT.encode()), clients.call())
    reader = client.do_get(info.endpoints[0].ticket, clients.call(PATIENCE))
    assert sum(chunk.data.num_rows for chunk in reader) == ROWS
    assert_bounded(server)


def test_large_answer_of_many_small_rows(server):
    rows = 5_000_000
    client = clients.flight_client(server)
    info = client.get_flight_info(
        clients.flight.FlightDescriptor.for_command(f"SELECT value FROM generate_series(1, {rows})".encode()),
        clients.call(),
    )
    total = count = 0
    for chunk in client.do_get(info.endpoints[0].ticket, clients.call(PATIENCE)):
        count += chunk.data.num_rows
        total += pa.compute.sum(chunk.data.column(0)).as_py()
    assert (count, total) == (rows, rows * (rows + 1) // 2)
    assert_bounded(server)


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
def test_client_that_stops_reading_stops_the_query(server, protocol):
    """Back-pressure: rows that the client does not read are not computed."""
    process = _curl(server, ENDLESS, "application/x-ndjson", protocol)
    try:
        assert process.stdout.read(1 << 20)
        eventually(lambda: server.cpu_share(0.5) < 0.1, "a server at rest while its client does not read")
        assert_bounded(server)
        clients.get(server, "/health").ok()
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
def test_client_that_goes_away_ends_the_query(server, protocol):
    process = _curl(server, ENDLESS, "application/x-ndjson", protocol)
    assert process.stdout.read(1 << 20)
    process.kill()
    process.stdout.close()
    process.wait()
    eventually(lambda: server.cpu_share(0.5) < 0.1, "a server at rest once its client is gone")
    assert clients.rows(server, "SELECT count(*) AS n FROM people") == [{"n": 3}]
    assert_bounded(server)


def test_client_that_goes_away_before_the_first_row(server):
    """No response has been sent, so only the closed connection can end the query."""
    heavy = "SELECT count(*) FROM generate_series(1, 300000) a, generate_series(1, 300000) b WHERE (a.value * b.value) % 7 = 3"
    process = _curl(server, heavy, "application/json")
    eventually(lambda: server.cpu_share(0.3) > 0.5, "a query that uses the CPU")
    process.kill()
    process.wait()
    eventually(lambda: server.cpu_share(0.5) < 0.1, "a server at rest once its client is gone")


def test_flight_client_that_cancels(server):
    client = clients.flight_client(server)
    info = client.get_flight_info(clients.flight.FlightDescriptor.for_command(ENDLESS.encode()), clients.call())
    reader = client.do_get(info.endpoints[0].ticket, clients.call())
    assert reader.read_chunk().data.num_rows > 0
    reader.cancel()
    eventually(lambda: server.cpu_share(0.5) < 0.1, "a server at rest after the cancel")
    assert clients.query(client, "SELECT 1 AS x").to_pylist() == [{"x": 1}]
    assert_bounded(server)

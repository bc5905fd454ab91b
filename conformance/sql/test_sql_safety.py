"""SQL does not reach the host's files, does not run without limit, and does not exhaust the machine."""

from __future__ import annotations

import time

import adbc_driver_manager
import pyarrow as pa
import pytest
from pyarrow import flight

from harness import clients, data
from harness.waiting import eventually

HEAVY = "SELECT count(*) AS n FROM generate_series(1, 300000) a, generate_series(1, 300000) b WHERE (a.value * b.value) % 7 = 3"

# `{dir}` is a directory of the test that contains `secret.csv`.
REACHES = {
    "copy-csv": "COPY (SELECT 1 AS x) TO '{dir}/out.csv' STORED AS CSV",
    "copy-parquet": "COPY (SELECT 1 AS x) TO '{dir}/out.parquet' STORED AS PARQUET",
    "copy-url": "COPY (SELECT 1 AS x) TO 'file://{dir}/out.csv' STORED AS CSV",
    "copy-upper-case-url": "COPY (SELECT 1 AS x) TO 'FILE://{dir}/out.csv' STORED AS CSV",
    "copy-relative": "COPY (SELECT 1 AS x) TO 'out.csv' STORED AS CSV",
    "explain-analyze-copy": "EXPLAIN ANALYZE COPY (SELECT 1 AS x) TO '{dir}/out.csv' STORED AS CSV",
    "external-table": "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{dir}/secret.csv' OPTIONS ('has_header' 'true')",
    "external-table-url": "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'file://{dir}/secret.csv'",
    "external-table-folder": "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{dir}/'",
    "unbounded-external-table": "CREATE UNBOUNDED EXTERNAL TABLE t (a VARCHAR) STORED AS CSV LOCATION '{dir}/secret.csv'",
    "prepare-copy": "PREPARE p AS COPY (SELECT 1 AS x) TO '{dir}/out.csv' STORED AS CSV",
    "select-from-path": "SELECT * FROM '{dir}/secret.csv'",
    "select-from-url": "SELECT * FROM 'file://{dir}/secret.csv'",
    "select-from-passwd": "SELECT * FROM '/etc/passwd'",
    "select-from-identifier": 'SELECT * FROM "{dir}/secret.csv"',
    "read-csv": "SELECT * FROM read_csv('{dir}/secret.csv')",
    "external-table-http": "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'http://127.0.0.1:1/x.csv'",
    "create-function": "CREATE FUNCTION f(BIGINT) RETURNS BIGINT RETURN $1",
}
SECRET = "word\nopen-sesame\n"


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.csv").write_text(SECRET)
    return folder


def assert_untouched(pod, folder) -> None:
    assert [path.name for path in folder.iterdir()] == ["secret.csv"], "a file was written"
    for place in (pod.folder, pod.cwd):
        assert not list(place.glob("out*")), f"a file was written into {place}"


@pytest.mark.parametrize("statement", REACHES.values(), ids=REACHES.keys())
def test_host_is_out_of_reach(pod, outside, statement):
    server = pod.serve()
    text = statement.format(dir=outside)
    answer = clients.sql(server, text)
    assert answer.status in (400, 403, 501), answer
    assert "open-sesame" not in answer.text
    client = clients.flight_client(server)
    with pytest.raises((pa.ArrowInvalid, pa.ArrowNotImplementedError, KeyError, flight.FlightUnauthorizedError)):
        clients.query(client, text)
    with clients.adbc(server) as connection, connection.cursor() as cursor:
        with pytest.raises(adbc_driver_manager.Error):
            cursor.execute(text)
            cursor.fetchall()
    assert_untouched(pod, outside)
    assert clients.sql(server, "SELECT * FROM t").status == 400


def test_prepared_copy_stays_out_of_reach(pod, outside):
    """PREPARE hides the inner plan from EXECUTE: neither may write, whether in one request or in two."""
    server = pod.serve()
    copy = f"COPY (SELECT 1 AS x) TO '{outside}/out.csv' STORED AS CSV"
    for text in (f"PREPARE p AS {copy}; EXECUTE p", f"PREPARE p AS {copy}", "EXECUTE p", f"SELECT 1; {copy}"):
        assert clients.sql(server, text).status in (400, 403), text
    assert_untouched(pod, outside)


@pytest.fixture
def allowed(pod, tmp_path):
    """A server that may access one directory of the host."""
    folder = tmp_path / "allowed"
    folder.mkdir()
    pod.yaml(runtime={"sql": {"host_paths": [str(folder)]}})
    return pod.serve(), folder


def test_copy_inside_a_host_path(allowed):
    server, folder = allowed
    for suffix in ("csv", "parquet"):
        target = folder / f"out.{suffix}"
        clients.sql(server, f"COPY (SELECT 1 AS x UNION ALL SELECT 2) TO '{target}' STORED AS {suffix.upper()}").ok()
        assert target.exists()


def test_external_table_inside_a_host_path(allowed):
    """The table exists only in its caller's session, so over HTTP only its creation is visible."""
    server, folder = allowed
    data.write(data.PEOPLE, folder / "people.parquet")
    clients.sql(server, f"CREATE EXTERNAL TABLE mine STORED AS PARQUET LOCATION '{folder}/people.parquet'").ok()


ESCAPES = {
    "beside": "{outside}/out.csv",
    "dot-dot": "{folder}/../outside/out.csv",
    "url-dot-dot": "file://{folder}/../outside/out.csv",
    "encoded-dot-dot": "file://{folder}/%2e%2e/outside/out.csv",
    "same-beginning": "{folder}-not/out.csv",
    "symlink": "{folder}/link/out.csv",
    "symlinked-file": "{folder}/linked.csv",
}


@pytest.mark.parametrize("target", ESCAPES.values(), ids=ESCAPES.keys())
def test_no_way_out_of_a_host_path(pod, allowed, outside, target):
    server, folder = allowed
    beside = folder.with_name("allowed-not")
    beside.mkdir()
    (folder / "link").symlink_to(outside)
    (folder / "linked.csv").symlink_to(outside / "secret.csv")
    path = target.format(folder=folder, outside=outside)
    answer = clients.sql(server, f"COPY (SELECT 1 AS x) TO '{path}' STORED AS CSV")
    assert answer.status in (400, 403), answer
    reading = clients.sql(
        server, f"CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{path.replace('out.csv', 'secret.csv')}'"
    )
    assert reading.status in (400, 403), reading
    assert_untouched(pod, outside)
    assert (outside / "secret.csv").read_text() == SECRET
    assert not list(beside.iterdir())


# Time


@pytest.fixture
def hurried(pod):
    pod.yaml(tls=pod.write_pair(), runtime={"sql": {"timeout": "1s"}})
    return pod.serve()


def test_timeout_over_http(hurried):
    started = time.monotonic()
    answer = clients.sql(hurried, HEAVY)
    assert answer.status == 503, answer
    assert time.monotonic() - started < 10
    assert answer.media_type == "application/problem+json"
    eventually(lambda: hurried.cpu_share(0.3) < 0.2, "a query that is over")
    assert clients.rows(hurried, "SELECT 1 AS x") == [{"x": 1}]


def test_timeout_over_flight(hurried):
    client = clients.flight_client(hurried)
    with pytest.raises(flight.FlightTimedOutError):
        clients.query(client, HEAVY)
    eventually(lambda: hurried.cpu_share(0.3) < 0.2, "a query that is over")
    assert clients.query(client, "SELECT 1 AS x").num_rows == 1


def test_timeout_over_adbc(hurried):
    with clients.adbc(hurried) as connection, connection.cursor() as cursor:
        with pytest.raises(adbc_driver_manager.Error) as caught:
            cursor.execute(HEAVY)
            cursor.fetchall()
    assert caught.value.status_code == adbc_driver_manager.AdbcStatusCode.TIMEOUT, caught.value


def test_timeout_in_mid_stream_is_no_complete_answer(hurried):
    """The rows are incomplete: the client must see the connection break off."""
    text = "SELECT value, repeat('x', 100) AS f FROM generate_series(1, 1000000000)"
    answer = clients.sql(hurried, text, "--output", "/dev/null", accept="application/x-ndjson")
    assert answer.exit != 0 or answer.status == 503, answer


# Memory

GREEDY = {
    "one-long-list": "SELECT cardinality(array_agg(value || repeat('x', 200))) AS n FROM generate_series(1, 5000000)",
    "many-groups": "SELECT count(*) AS n FROM (SELECT DISTINCT value || repeat('x', 200) FROM generate_series(1, 3000000))",
}


@pytest.mark.parametrize("text", GREEDY.values(), ids=GREEDY.keys())
def test_memory_limit(pod, text):
    pod.yaml(runtime={"sql": {"memory_limit": "64MiB", "timeout": "60s"}})
    server = pod.serve("--allow-core-dumps")  # without it only root may reset the peak memory
    clients.rows(server, "SELECT 1 AS x")
    idle = server.memory()
    server.forget_peak()
    answer = clients.sql(server, text, deadline=70)
    grown = (server.memory("VmHWM") - idle) >> 20
    # The pool counts memory that operators hold, not batches in flight or memory that the allocator keeps.
    assert grown < 700, f"a limit of 64 MiB let it grow by {grown} MiB"
    assert answer.status in (200, 503), answer  # 200 if it could spill to disk
    assert clients.rows(server, "SELECT 1 AS x") == [{"x": 1}]

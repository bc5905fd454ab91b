"""Queries that exceed the memory limit or the result limit: they spill, or fail with their own code, and other clients
are not affected."""

from __future__ import annotations

import re
import signal
import threading

import numpy
import pyarrow as pa
import pytest

from harness import clients, data, wire
from harness.waiting import eventually

MIB = 1 << 20
LIMIT = 32 * MIB
WIDTH = 800
ROWS = 4 * LIMIT // WIDTH
LETTERS = pa.array([letter * WIDTH for letter in "abcdefgh"])
GREEDY = "SELECT cardinality(array_agg(value || repeat('x', 200))) AS n FROM generate_series(1, 5000000)"


def numbered(k: numpy.ndarray) -> pa.Table:
    """Rows with these numbers, each with a text that depends on its number."""
    return pa.table({"k": k, "filler": LETTERS.take(pa.array(k % len(LETTERS)))})


def session(server, **options: object) -> list[tuple[bytes, bytes]]:
    """Returns the cookie of a session with these settings, as metadata of a call."""
    body = b"".join(wire.message(f1=wire.message(f1=name, f2=wire.message(f1=str(value)))) for name, value in options.items())
    with wire.Wire(server) as flight:
        told = flight.act("SetSessionOptions", body).ok()
    return [(b"cookie", told.headers["set-cookie"].partition(";")[0].encode())]


def test_sort_that_spills(pod, tmp_path):
    """The result is four times the memory limit; it is complete and in order, and no file remains on disk."""
    spilled = tmp_path / "spilled"
    spilled.mkdir()
    data.write(numbered(numpy.arange(ROWS) * 7919 % ROWS), pod.folder / "t.parquet")
    pod.yaml(
        tls=pod.write_pair(),
        runtime={"sql": {"memory_limit": f"{LIMIT // MIB}MiB"}},
        datasets=[{"from": "file:t.parquet", "name": "t"}],
    )
    server = pod.serve(env={"TMPDIR": str(spilled)})
    # One partition on any machine: each sort reserves 10 MB before it holds a row.
    settings = {"datafusion.execution.target_partitions": 1, "datafusion.execution.batch_size": 1024}
    options = clients.call(headers=session(server, **settings))
    client = clients.flight_client(server)
    text = "SELECT k, filler FROM t ORDER BY k"
    found = clients.query(client, text, options)
    assert found.nbytes > 4 * LIMIT
    assert found.equals(numbered(numpy.arange(ROWS)))

    plan = str(clients.query(client, f"EXPLAIN ANALYZE {text}", options).to_pylist())
    (count,) = re.findall(r"SortExec[^\n]*?spill_count=(\d+)", plan.replace("\\n", "\n"))
    assert int(count) > 0, plan
    (directory,) = spilled.iterdir()
    assert directory.stat().st_mode & 0o777 == 0o700, "spilled data is readable only by its owner"
    eventually(lambda: [path.name for path in spilled.rglob("*") if path.is_file()] == ["lock"], "what was spilled is removed")
    # Files that a killed process leaves behind are removed at the next start.
    server.signal(signal.SIGKILL)
    server.wait_for_exit()
    assert directory.exists()
    pod.serve(env={"TMPDIR": str(spilled)})
    assert not directory.exists() and len(list(spilled.iterdir())) == 1


SORTS = {
    "one column": "SELECT k, filler FROM t ORDER BY k",
    "two columns": "SELECT k, filler FROM t ORDER BY filler, k",
    "a window": "SELECT k, row_number() OVER (PARTITION BY filler ORDER BY k) AS n FROM t",
    "groups": "SELECT filler, k, count(*) AS n FROM t GROUP BY filler, k",
}


@pytest.mark.parametrize("text", SORTS.values(), ids=SORTS)
def test_what_spills_under_a_small_limit(pod, text):
    """The memory of a small container: neither of a statement's two partitions takes what the other one needs."""
    width, rows = 200, 400_000
    k = numpy.arange(rows) * 7919 % rows
    filler = pa.array([letter * width for letter in "abcdefgh"]).take(pa.array(k % 8))
    whole = pa.table({"k": k, "filler": filler})
    for part in range(2):
        data.write(whole.slice(part * rows // 2, rows // 2), pod.folder / f"t/{part}.parquet")
    described = {"from": "file:t/", "name": "t", "params": {"file_format": "parquet"}}
    pod.yaml(tls=pod.write_pair(), runtime={"sql": {"memory_limit": "64MiB"}}, datasets=[described])
    server = pod.serve()
    options = clients.call(headers=session(server, **{"datafusion.execution.target_partitions": 2}))
    with clients.flight_client(server) as client:
        assert clients.query(client, text, options).num_rows == rows


# Small queries, each on a separate connection, so that a failing endpoint does not hide another.


def by_http(server) -> None:
    assert clients.rows(server, "SELECT id, name FROM notes WHERE id > 1") == [{"id": 2, "name": "b"}]


def by_flight(server) -> None:
    with clients.flight_client(server) as client:
        assert clients.query(client, "SELECT id, name FROM notes WHERE id > 1").to_pylist() == [{"id": 2, "name": "b"}]


def by_health(server) -> None:
    with wire.Wire(server, endpoint="grpc") as grpc:
        assert wire.read(grpc.ask(wire.HEALTH, b"").ok().answers[0], 1) == 1


SMALL = {"http": by_http, "flight": by_flight, "grpc": by_health}


def greedy_by_http(server) -> str:
    return str(clients.sql(server, GREEDY).status)


def greedy_by_flight(server) -> str:
    with wire.Wire(server) as flight:
        return flight.query(wire.sql_any("CommandStatementQuery", f1=GREEDY)).code


@pytest.mark.parametrize("greedy, code", [(greedy_by_http, "503"), (greedy_by_flight, "RESOURCE_EXHAUSTED")], ids=["http", "flight"])
def test_others_are_served_while_some_exceed_a_limit(pod, greedy, code):
    """They fail with their endpoint's code, one after the other, while small queries on every endpoint succeed."""
    pod.yaml(tls=pod.write_pair(), runtime={"sql": {"memory_limit": "64MiB"}}, datasets=[data.MEMORY])
    server = pod.serve()
    clients.sql(server, "INSERT INTO notes VALUES (1, 'a'), (2, 'b')").ok()
    over, codes = threading.Event(), []
    served, troubles = dict.fromkeys(SMALL, 0), []

    def want():
        while not over.is_set():
            codes.append(greedy(server))

    def ask(endpoint):
        while not over.is_set():
            try:
                SMALL[endpoint](server)
                served[endpoint] += 1
            except Exception as trouble:
                troubles.append((endpoint, trouble))

    threads = [threading.Thread(target=want), *(threading.Thread(target=ask, args=(endpoint,)) for endpoint in SMALL)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: troubles or (len(codes) >= 10 and min(served.values()) >= 10), f"ten of each: {codes}, {served}")
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not troubles, troubles[:3]
    assert set(codes) == {code}, codes


SERIES = "SELECT value FROM generate_series(1, {})"
TOO_LARGE = {
    "a row too many": (SERIES.format(1001), "1000 rows"),
    "many rows": (SERIES.format(1_000_000), "1000 rows"),
    "a row too wide": ("SELECT repeat('x', 70000) AS x", "65536 bytes"),
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_code_of_an_answer_that_is_too_large(pod, what):
    """On every endpoint; a result just below the limit is answered."""
    pod.yaml(tls=pod.write_pair(), runtime={"sql": {"max_result_rows": 1000, "max_result_bytes": "64KiB"}})
    server = pod.serve()
    text, words = TOO_LARGE[what]
    with wire.Wire(server) as flight:
        handle = wire.handle_of(flight.prepare(text))
        for command in (text, wire.sql_any("CommandStatementQuery", f1=text), wire.sql_any("CommandPreparedStatementQuery", f1=handle)):
            told = flight.query(command)
            assert told.code == "RESOURCE_EXHAUSTED" and f"more than {words}" in told.details, told
        flight.query(SERIES.format(1000)).ok()
        flight.query("SELECT repeat('x', 60000) AS x").ok()
    assert clients.sql(server, text).status == 503

"""Bulk ingestion into PostgreSQL over Flight: either all rows are stored, or none."""

from __future__ import annotations

import threading

import adbc_driver_manager
import grpc
import pyarrow as pa
import pytest
from test_hostile_streams import BATCH, ENDS, SCHEMA, ByHand, flight_data, opened

from harness import clients, wire
from harness.waiting import eventually

ROWS = 5000  # more than one message to PostgreSQL holds, and more than one batch
NAMES = ["Ada", None, "", "\\N", "a\tb\nc\\d", "Größe ✓", "'; DROP TABLE t; --"]
OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'spiced' AND "


def serve(pod, postgres, table: str, columns: str, rows: str = ""):
    """A server whose only data set `t` is this table, which is created here."""
    postgres.sql(f"CREATE TABLE {table} ({columns}); GRANT ALL ON {table} TO app")
    if rows:
        postgres.sql(f"INSERT INTO {table} VALUES {rows}")
    pod.yaml(
        tls=pod.write_pair(),
        datasets=[{"from": f"postgres:{table}", "name": "t", "access": "read_write", "params": postgres.params()}],
        runtime={"auth": {"allow_anonymous": "rw"}},
    )
    server = pod.serve(env={"PG_PASSWORD": postgres.password})
    eventually(lambda: clients.get(server, "/v1/ready").status == 200, "it is loaded")
    return server


def at_rest(postgres) -> None:
    """Waits until no statement of the server runs there, no transaction is open, and no lock is held."""
    eventually(lambda: postgres.sql(OURS + "(state <> 'idle' OR xact_start IS NOT NULL)") == "0", "no transaction is left open")
    held = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE application_name = 'spiced' AND relation IS NOT NULL"
    assert postgres.sql(held) == "0"


def table_of(ids, names=None) -> pa.Table:
    ids = list(ids)
    return pa.table({"id": pa.array(ids, pa.int64()), "name": pa.array(names or [f"name {n}" for n in ids])})


def ingest(server, rows: pa.Table | pa.RecordBatchReader) -> int:
    with clients.adbc(server) as connection, connection.cursor() as cursor:
        return cursor.adbc_ingest("t", rows, mode="append")


def test_append(pod, postgres):
    """Appends to existing rows, twice; text of every kind is unchanged."""
    server = serve(pod, postgres, "appended", "id bigint PRIMARY KEY, name text", "(0, 'kept')")
    rows = table_of(range(1, ROWS + 1), [NAMES[n % len(NAMES)] for n in range(1, ROWS + 1)])
    assert ingest(server, rows) in (ROWS, -1)
    assert postgres.sql("SELECT count(*), sum(id), count(name) FROM appended WHERE id > 0") == "%d|%d|%d" % (
        ROWS,
        ROWS * (ROWS + 1) // 2,
        ROWS - rows["name"].null_count,
    )
    for at, name in enumerate(NAMES):
        is_it = "name IS NULL" if name is None else f"name = $text${name}$text$"
        assert postgres.sql(f"SELECT bool_and({is_it}) FROM appended WHERE id > 0 AND id % {len(NAMES)} = {at}") == "t", name
    batches = [batch for n in (ROWS + 1, ROWS + 2, ROWS + 3) for batch in table_of([n]).to_batches()]
    assert ingest(server, pa.RecordBatchReader.from_batches(rows.schema, batches)) in (3, -1)
    assert postgres.sql("SELECT string_agg(name, ',' ORDER BY id) FROM appended WHERE id = 0 OR id > 5000") == (
        "kept,name 5001,name 5002,name 5003"
    )
    assert clients.rows(server, "SELECT count(*) AS n FROM t") == [{"n": ROWS + 4}]
    at_rest(postgres)


# The last of many rows, and the error that the client gets.
LATE = {
    "not_null": (ROWS, None, "non-nullable"),  # detected by the server, from the table's schema
    "check": (ROWS, "forbidden", "23514"),
    "unique": (1, "twice", "23505"),
    "already_there": (0, "again", "23505"),
    "too_long": (ROWS, "x" * 100, "22001"),
}
GUARDED = "id bigint PRIMARY KEY, name varchar(50) NOT NULL CHECK (name <> 'forbidden')"


@pytest.mark.parametrize("what", LATE)
def test_late_row_that_is_refused(pod, postgres, what):
    """No earlier row is kept; the client gets the reason, and may send the valid rows."""
    last, name, told = LATE[what]
    table = f"late_{what}"
    server = serve(pod, postgres, table, GUARDED, "(0, 'kept')")
    good = table_of(range(1, ROWS))
    bad = table_of([last], pa.array([name], pa.string()))
    batches = [*good.to_batches(max_chunksize=1000), *bad.to_batches()]
    with pytest.raises(adbc_driver_manager.Error, match=told) as refused:
        ingest(server, pa.RecordBatchReader.from_batches(good.schema, batches))
    assert refused.value.status_code == adbc_driver_manager.AdbcStatusCode.INVALID_ARGUMENT, refused.value
    at_rest(postgres)
    assert postgres.sql(f"SELECT count(*), min(name) FROM {table}") == "1|kept"
    assert ingest(server, good) in (ROWS - 1, -1)
    assert postgres.sql(f"SELECT count(*) FROM {table}") == str(ROWS)


@pytest.mark.parametrize("way", ["ingest", "insert"])
def test_rows_refused_at_the_end_of_the_transaction(pod, postgres, way):
    """A deferred constraint is checked once all rows are sent: its error also reaches the client."""
    table = f"deferred_{way}"
    columns = f"id bigint PRIMARY KEY, name text, parent bigint REFERENCES {table} DEFERRABLE INITIALLY DEFERRED"
    server = serve(pod, postgres, table, columns, "(0, 'kept', NULL)")
    rows = pa.table({"id": pa.array([1, 2], pa.int64()), "name": ["a", "b"], "parent": pa.array([2, 9], pa.int64())})
    told = ""
    if way == "ingest":
        try:
            ingest(server, rows)
        except adbc_driver_manager.Error as refused:
            told = str(refused)
    else:
        answer = clients.sql(server, "INSERT INTO t VALUES (1, 'a', 2), (2, 'b', 9)")
        told = answer.text if answer.status != 200 else ""
    at_rest(postgres)
    kept = postgres.sql(f"SELECT string_agg(id::text, ',' ORDER BY id) FROM {table}")
    assert kept == "0"
    assert "23503" in told, f"the client got success, and the table has rows {kept}"
    assert ingest(server, rows.set_column(2, "parent", pa.array([2, 0], pa.int64()))) in (2, -1)
    assert postgres.sql(f"SELECT count(*) FROM {table}") == "3"


def copying(postgres, table: str) -> bool:
    return postgres.sql(OURS + f"state = 'active' AND query LIKE 'COPY%{table}%'") == "1"


def assert_nothing_came(server, postgres, table: str) -> None:
    at_rest(postgres)
    assert postgres.sql(f"SELECT count(*), min(name) FROM {table}") == "1|kept"
    assert ingest(server, table_of([1])) in (1, -1)
    assert clients.rows(server, "SELECT id FROM t ORDER BY id") == [{"id": 0}, {"id": 1}]


@pytest.mark.parametrize("end", ENDS)
def test_client_that_vanishes(pod, postgres, end):
    """In the middle of a batch, after one that PostgreSQL has started to receive."""
    table = f"vanished_{end}"
    server = serve(pod, postgres, table, "id bigint PRIMARY KEY, name text", "(0, 'kept')")
    batch = pa.RecordBatch.from_arrays([pa.array(range(1, 1001), pa.int64()), pa.array(["x"] * 1000)], names=["id", "name"])
    messages = wire.put(wire.ingest("t"), batch)
    by_hand = ByHand(server).send(*messages, *messages[1:], cut=1000).arrived()
    eventually(lambda: copying(postgres, table), "PostgreSQL takes rows")
    assert clients.rows(server, "SELECT name FROM t") == [{"name": "kept"}]
    getattr(by_hand, end)()
    by_hand.socket.close()
    assert_nothing_came(server, postgres, table)


def test_call_that_is_cancelled(pod, postgres):
    """As ADBC cancels on Ctrl-C."""
    server = serve(pod, postgres, "cancelled", "id bigint PRIMARY KEY, name text", "(0, 'kept')")
    over = threading.Event()

    def stalling():
        yield from wire.put(wire.ingest("t"), table_of(range(1, 1001)).to_batches()[0])
        over.wait()

    with clients.channel(server, "flight") as channel:
        call = channel.stream_stream(f"{wire.FLIGHT}/DoPut", lambda b: b, lambda b: b)(stalling(), timeout=clients.DEADLINE)
        eventually(lambda: copying(postgres, "cancelled"), "PostgreSQL takes rows")
        call.cancel()
        over.set()
        with pytest.raises(grpc.RpcError):
            list(call)
    assert_nothing_came(server, postgres, "cancelled")


def test_server_that_loses_its_connection(pod, postgres):
    """The opposite case: PostgreSQL ends the session mid-stream, and the client gets an error."""
    server = serve(pod, postgres, "ended", "id bigint PRIMARY KEY, name text", "(0, 'kept')")
    more = threading.Event()

    def stalling():
        messages = wire.put(wire.ingest("t"), table_of(range(1, 1001)).to_batches()[0])
        yield from messages
        more.wait()
        yield from messages[1:]

    with clients.channel(server, "flight") as channel:
        call = channel.stream_stream(f"{wire.FLIGHT}/DoPut", lambda b: b, lambda b: b)(stalling(), timeout=clients.DEADLINE)
        try:
            eventually(lambda: copying(postgres, "ended"), "PostgreSQL takes rows")
            ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'spiced' AND query LIKE 'COPY%'"
            assert postgres.sql(ended) == "1"
        finally:
            more.set()
        with pytest.raises(grpc.RpcError) as told:
            list(call)
    assert told.value.code() == grpc.StatusCode.UNAVAILABLE, told.value
    assert_nothing_came(server, postgres, "ended")


def test_batch_of_bindings_with_a_failing_row(pod, postgres):
    """The client gets the reason; rows after the failing one are not inserted."""
    server = serve(pod, postgres, "late", GUARDED, "(0, 'kept')")
    rows = [(n, "forbidden" if n == 6 else f"name {n}") for n in range(1, 11)]
    with clients.adbc(server) as connection, connection.cursor() as cursor:
        with pytest.raises(adbc_driver_manager.Error, match="23514"):
            cursor.executemany("INSERT INTO t VALUES ($1, $2)", rows)
        found = postgres.sql("SELECT string_agg(id::text, ',' ORDER BY id) FROM late")
        assert found in ("0", "0,1,2,3,4,5"), found
        at_rest(postgres)
        cursor.executemany("INSERT INTO t VALUES ($1, $2)", [(20, "a"), (21, "b")])
    assert postgres.sql("SELECT count(*) FROM late WHERE id >= 20") == "2"

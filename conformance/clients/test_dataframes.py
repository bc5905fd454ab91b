"""Data frames: polars and pandas over ADBC, in both directions; the data read equals the data written."""

from __future__ import annotations

import datetime
import os
import subprocess
import sys
from decimal import Decimal

import adbc_driver_manager
import pandas
import polars
import polars.testing
import pyarrow as pa
import pytest

from harness import clients, data
from harness.access import PATIENT, Access
from harness.pod import Pod

DAY = datetime.date(2024, 2, 29)
MOMENT = datetime.datetime(2024, 2, 29, 23, 59, 59, 123456)

# One column for each: values with a NULL among them, and the Arrow type.
COLUMNS = {
    "int64": ([1, None, -(2**63)], pa.int64()),
    "int8": ([1, None, -128], pa.int8()),
    "uint64": ([1, None, 2**64 - 1], pa.uint64()),
    "float64": ([0.1, None, -1e300], pa.float64()),
    "float32": ([0.5, None, -2.0], pa.float32()),
    "text": (["a", None, "a long text of Größe ✓"], pa.large_string()),
    "bool": ([True, None, False], pa.bool_()),
    "date": ([DAY, None, datetime.date(1, 1, 1)], pa.date32()),
    "time": ([datetime.time(1, 2, 3, 456), None, datetime.time(0)], pa.time64("ns")),
    "timestamp": ([MOMENT, None, datetime.datetime(1969, 12, 31)], pa.timestamp("us")),
    "timestamp-ms": ([MOMENT.replace(microsecond=0), None, datetime.datetime(1969, 12, 31)], pa.timestamp("ms")),
    "timestamp-utc": ([MOMENT, None, datetime.datetime(1969, 12, 31)], pa.timestamp("us", "UTC")),
    "timestamp-zone": ([MOMENT, None, datetime.datetime(1969, 12, 31)], pa.timestamp("us", "Europe/Berlin")),
    "duration": ([datetime.timedelta(1, 2, 3), None, datetime.timedelta(-1)], pa.duration("us")),
    "decimal": ([Decimal("1.25"), None, Decimal("-99999999.99")], pa.decimal128(10, 2)),
    "binary": ([b"\0\xff", None, b""], pa.large_binary()),
    "list": ([[1, None], None, []], pa.large_list(pa.int64())),
    "struct": ([{"a": 1, "b": 0.5}, None, {"a": None, "b": None}], pa.struct([("a", pa.int64()), ("b", pa.float64())])),
    "nothing": ([None] * 3, pa.null()),
}
each = pytest.mark.parametrize("column", COLUMNS)
SAMPLE = pa.table({"id": [1, 2, None], "x": [0.5, None, -2.0], "day": pa.array([DAY, None, DAY])})


def table_of(column: str) -> pa.Table:
    values, kind = COLUMNS[column]
    return pa.table({"n": pa.array(range(3), pa.int64()), "x": pa.array(values, kind)})


class Polars:
    """`write_database` and `read_database`."""

    refusal = adbc_driver_manager.Error

    def frame(self, table: pa.Table) -> polars.DataFrame:
        return polars.from_arrow(table)

    def write(self, frame, table: str, connection, mode: str) -> int:
        return frame.write_database(table, connection, engine="adbc", if_table_exists=mode)

    def read(self, text: str, connection):
        return polars.read_database(text, connection)

    def same(self, one, other) -> None:
        polars.testing.assert_frame_equal(one, other)


class Pandas:
    """`to_sql` and `read_sql`, with Arrow types, because numpy's have no NULL."""

    refusal = (ValueError, pandas.errors.DatabaseError, adbc_driver_manager.Error)

    def frame(self, table: pa.Table) -> pandas.DataFrame:
        return table.to_pandas(types_mapper=pandas.ArrowDtype)

    def write(self, frame, table: str, connection, mode: str) -> int:
        try:
            return frame.to_sql(table, connection, index=False, if_exists=mode)
        except pandas.errors.DatabaseError as error:  # the server's message is the cause
            raise error.__cause__ or error from None

    def read(self, text: str, connection):
        return pandas.read_sql(text, connection, dtype_backend="pyarrow")

    def same(self, one, other) -> None:
        pandas.testing.assert_frame_equal(one, other)


both = pytest.mark.parametrize("frames", [Polars(), Pandas()], ids=["polars", "pandas"])


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    """A server that accepts readers and writers, with `people` to read and `notes` to write."""
    pod = Pod(tmp_path_factory.mktemp("frames"))
    access = Access(pod)
    data.write(data.PEOPLE, pod.folder / "people.parquet")
    pod.yaml(
        tls=pod.write_pair(),
        runtime={"auth": {"api_key": access.api_key}, **PATIENT},
        datasets=[{"from": "file:people.parquet", "name": "people"}, data.MEMORY],
    )
    access.server = pod.serve(env=access.environment)
    with access.rw.adbc(access.server) as access.writer, access.ro.adbc(access.server) as access.reader:
        yield access
    pod.close()


@pytest.fixture
def name(request):
    """The name of a table that only this test uses."""
    return "".join(letter if letter.isalnum() else "_" for letter in request.node.name.lower())


def count(access, table: str) -> int:
    with access.writer.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        return cursor.fetchone()[0]


# Round trips


@both
@each
def test_round_trip(access, frames, column, name):
    if column == "nothing" and isinstance(frames, Polars):
        pytest.skip("ADBC's driver does not take the column as polars hands it over")
    table = table_of(column)
    frame = frames.frame(table)
    assert frames.write(frame, name, access.writer, "fail") in (3, -1)
    text = f"SELECT * FROM {name} ORDER BY n"
    found = frames.read(text, access.writer)
    frames.same(found, frame)
    rows = clients.query(access.rw.flight(access.server), text, access.rw.call())  # read by another client
    assert rows.column("x").to_pylist() == table.column("x").to_pylist()


@both
def test_round_trip_through_a_table_created_by_sql(access, frames, name):
    columns = "n BIGINT, t VARCHAR, d DECIMAL(10, 2), b BYTEA, day DATE, at TIMESTAMP, x DOUBLE, yes BOOLEAN"
    with access.writer.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {name} ({columns})")
    table = pa.table(
        {
            "n": pa.array([1, None], pa.int64()),
            "t": ["Größe", None],
            "d": pa.array([Decimal("1.25"), None], pa.decimal128(10, 2)),
            "b": pa.array([b"\0\xff", None]),
            "day": pa.array([DAY, None]),
            "at": pa.array([MOMENT, None], pa.timestamp("us")),
            "x": [0.1, None],
            "yes": [True, None],
        }
    )
    frames.write(frames.frame(table), name, access.writer, "append")
    found = frames.read(f"SELECT * FROM {name} ORDER BY n NULLS LAST", access.writer)
    assert pa.table(found.to_arrow() if isinstance(found, polars.DataFrame) else found).to_pylist() == table.to_pylist()


@both
def test_columns_are_matched_by_name(access, frames, name):
    """Columns may have any order; a missing column is NULL, and an unknown one is reported."""
    frames.write(frames.frame(SAMPLE), name, access.writer, "fail")
    frames.write(frames.frame(SAMPLE.select(["x", "id"])), name, access.writer, "append")
    with access.writer.cursor() as cursor:
        cursor.execute(f"SELECT count(*), count(id), count(x), count(day) FROM {name}")
        assert cursor.fetchone() == (6, 4, 4, 2)
    with pytest.raises(frames.refusal, match="nope"):
        frames.write(frames.frame(SAMPLE.rename_columns(["id", "nope", "day"])), name, access.writer, "append")
    assert count(access, name) == 6


@both
def test_append_replace_fail(access, frames, name):
    frame = frames.frame(SAMPLE)
    frames.write(frame, name, access.writer, "append")
    frames.write(frame, name, access.writer, "append")
    assert count(access, name) == 6
    with pytest.raises(frames.refusal, match="already exists"):
        frames.write(frame, name, access.writer, "fail")
    assert count(access, name) == 6
    other = frames.frame(pa.table({"y": [7]}))
    frames.write(other, name, access.writer, "replace")
    frames.same(frames.read(f"SELECT * FROM {name}", access.writer), other)


@both
def test_append_to_a_data_set(access, frames):
    frame = frames.frame(pa.table({"id": [1, 2], "name": ["Ada", None]}))
    before = count(access, "notes")
    frames.write(frame, "notes", access.writer, "append")
    assert count(access, "notes") == before + 2
    for mode, word in (("replace", "defined by the pod"), ("fail", "already exists")):
        with pytest.raises(frames.refusal, match=word):
            frames.write(frame, "notes", access.writer, mode)
    assert count(access, "notes") == before + 2


def test_no_rows(access, name):
    """A frame without rows creates a table, and reading it returns its columns."""
    frame = polars.from_arrow(SAMPLE.slice(0, 0))
    frame.write_database(name, access.writer, engine="adbc")
    polars.testing.assert_frame_equal(polars.read_database(f"SELECT * FROM {name}", access.writer), frame)


def test_no_rows_of_pandas(access, name):
    """pandas passes no batch, and then ADBC's driver sends nothing (arrow-adbc#2071): no rows, and no table."""
    frames = Pandas()
    assert frames.write(frames.frame(SAMPLE.slice(0, 0)), name, access.writer, "fail") in (0, -1)
    with pytest.raises(adbc_driver_manager.Error, match="not found"):
        count(access, name)


@both
def test_many_rows(access, frames, name):
    """More rows than one message holds."""
    rows = 200_000
    table = pa.table({"n": range(rows), "x": pa.array((float(n) for n in range(rows)), pa.float64())})
    assert frames.write(frames.frame(table), name, access.writer, "fail") in (rows, -1)
    frames.same(frames.read(f"SELECT * FROM {name} ORDER BY n", access.writer), frames.frame(table))


def test_polars_table_of_a_schema(access, name):
    frame = polars.from_arrow(SAMPLE)
    for full in (f"public.{name}", f"spice.public.{name}"):
        frame.write_database(full, access.writer, engine="adbc", if_table_exists="append")
    assert count(access, name) == 6
    with pytest.raises(adbc_driver_manager.Error, match="nowhere"):
        frame.write_database(f"nowhere.{name}", access.writer, engine="adbc", if_table_exists="append")


def test_polars_in_batches(access, name):
    polars.from_arrow(SAMPLE).write_database(name, access.writer, engine="adbc")
    batches = polars.read_database(f"SELECT * FROM {name}", access.writer, iter_batches=True, batch_size=2)
    assert sum(batch.height for batch in batches) == 3


def test_polars_by_uri(pod):
    """polars opens the connection itself; the CA comes from the system's store."""
    pod.yaml(tls=pod.write_pair(), datasets=[data.MEMORY])
    server = pod.serve()
    uri = f"flightsql://localhost:{server.port('flight')}"
    script = f"""
import polars
polars.DataFrame({{"a": [1, 2]}}).write_database("made", {uri!r}, engine="adbc")
assert polars.read_database_uri("SELECT sum(a) AS n FROM made", {uri!r}, engine="adbc").rows() == [(3,)]
"""
    environment = {**os.environ, "SSL_CERT_FILE": server.ca}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert clients.rows(server, "SELECT count(*) AS n FROM made") == [{"n": 2}]


def test_pandas_index(access, name):
    """The index is a column like others, under its own name."""
    frame = pandas.DataFrame({"x": [0.5, 1.5]}, index=pandas.Index([7, 8], name="key"))
    frame.to_sql(name, access.writer)
    found = pandas.read_sql(f"SELECT key, x FROM {name} ORDER BY key", access.writer, index_col="key")
    pandas.testing.assert_frame_equal(found, frame)


def test_pandas_of_numpy(access, name):
    """The types that pandas has without Arrow; NaN becomes NULL."""
    frame = pandas.DataFrame(
        {
            "n": [1, 2],
            "x": [0.5, None],
            "t": ["a", None],
            "yes": [True, False],
            "at": pandas.to_datetime(["2024-02-29T12:00:00.000000001", None]),
            "zoned": pandas.to_datetime(["2024-02-29T12:00:00", None]).tz_localize("Europe/Berlin"),
            "kind": pandas.Categorical(["u", "v"]),
        }
    )
    frame.to_sql(name, access.writer, index=False)
    with access.writer.cursor() as cursor:
        cursor.execute(f"SELECT count(x), count(t), count(at), count(zoned) FROM {name}")
        assert cursor.fetchone() == (1, 1, 1, 1)
    found = pandas.read_sql(f"SELECT * FROM {name} ORDER BY n", access.writer)
    assert found["kind"].tolist() == ["u", "v"] and found["yes"].tolist() == [True, False]
    assert found["at"][0] == frame["at"][0] and found["zoned"][0] == frame["zoned"][0]


def test_pandas_by_table(access):
    found = pandas.read_sql("people", access.writer).sort_values("id", ignore_index=True)
    assert found["name"].tolist() == ["Ada", "Grace", "Edsger"]
    with pytest.raises((ValueError, pandas.errors.DatabaseError, adbc_driver_manager.Error)):
        pandas.read_sql("no_such_table", access.writer)


def test_pandas_delete_rows(access, name):
    """The rows are replaced, and the table is kept."""
    frame = pandas.DataFrame({"x": [1, 2]})
    frame.to_sql(name, access.writer, index=False)
    pandas.DataFrame({"x": [3]}).to_sql(name, access.writer, index=False, if_exists="delete_rows")
    assert pandas.read_sql(f"SELECT x FROM {name}", access.writer)["x"].tolist() == [3]


# Callers that may only read


@both
@pytest.mark.parametrize("mode", ["append", "replace", "fail"])
def test_reader_writes_nothing(access, frames, mode, name):
    frame = frames.frame(SAMPLE)
    frames.write(frame, name, access.writer, "fail")
    before = count(access, "notes")
    one = pa.table({"id": [1]})
    for table, rows in ((name, SAMPLE), ("notes", one), ("people", one), (f"new_{name}", SAMPLE)):
        told = "(?i)read-only|may not|unauthorized|permission"
        if isinstance(frames, Pandas) and mode == "fail" and not table.startswith("new_"):
            told += "|already exists"  # pandas checks whether the table exists first
        with pytest.raises(frames.refusal, match=told):
            frames.write(frames.frame(rows), table, access.reader, mode)
    text = f"SELECT * FROM {name}"
    frames.same(frames.read(text, access.reader), frame)
    assert count(access, "notes") == before and count(access, "people") == 3
    with pytest.raises(adbc_driver_manager.Error, match=f"new_{name}"):
        count(access, f"new_{name}")


@both
def test_read_only_data_set_is_never_written(access, frames):
    frame = frames.frame(pa.table({"id": [9], "name": ["Eve"]}))
    for mode in ("append", "replace"):
        with pytest.raises(frames.refusal, match="people"):
            frames.write(frame, "people", access.writer, mode)
    assert count(access, "people") == 3

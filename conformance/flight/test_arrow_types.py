"""Every type of Arrow: written by Flight SQL or read from Parquet, and queried over Flight, ADBC and HTTP."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal

import adbc_driver_manager
import pyarrow as pa
import pytest
from pyarrow import flight, parquet

from harness import clients, data, wire
from harness.pod import Pod

LONG = "longer than the twelve bytes of a view"
NINES = {scale: Decimal("9" * scale + ".99") for scale in (36, 74)}


def dictionary(values, index=pa.int32()) -> pa.Array:
    return values.dictionary_encode().cast(pa.dictionary(index, values.type))


TEXT = pa.array(["a", LONG, None, "a"])
TEXTS = pa.array(["a", None, "b", "a", "b", "é"])
_PAIR = pa.struct([("a", pa.int32()), ("b", pa.string())])
_OFFSETS = pa.array([0, 2, None, 2, 6], pa.int32())
_IN_A_LIST = [["a", None], [], None, ["b", "a", "b", "é"]]

# Four values of each type, and their JSON.
KINDS = {
    "dictionary": (dictionary(TEXT), ["a", LONG, None, "a"]),
    "dictionary-int8": (dictionary(TEXT, pa.int8()), ["a", LONG, None, "a"]),
    "dictionary-of-int": (dictionary(pa.array([7, 8, None, 7])), [7, 8, None, 7]),
    "dictionary-of-large": (dictionary(TEXT.cast(pa.large_string())), ["a", LONG, None, "a"]),
    "list": (pa.array([[1, None], [], None, [3]]), [[1, None], [], None, [3]]),
    "large-list": (pa.array([["a", None], [], None, ["c"]], pa.large_list(pa.string())), [["a", None], [], None, ["c"]]),
    "list-view": (pa.array([[1, None], [], None, [3]], pa.list_view(pa.int64())), [[1, None], [], None, [3]]),
    "fixed-list": (pa.array([[1, 2], [None, 4], None, [5, 6]], pa.list_(pa.int16(), 2)), [[1, 2], [None, 4], None, [5, 6]]),
    "struct": (
        pa.array([{"a": 1, "b": "x"}, {"a": None, "b": None}, None, {"a": 3, "b": "z"}], _PAIR),
        [{"a": 1, "b": "x"}, {"a": None, "b": None}, None, {"a": 3, "b": "z"}],
    ),
    "list-of-struct": (
        pa.array([[{"a": 1, "b": "x"}], [None], None, []], pa.list_(_PAIR)),
        [[{"a": 1, "b": "x"}], [None], None, []],
    ),
    "list-of-list": (pa.array([[[1], None], [[]], None, []], pa.list_(pa.list_(pa.int32()))), [[[1], None], [[]], None, []]),
    "map": (
        pa.array([[("k", 1)], [], None, [("x", None), ("y", 2)]], pa.map_(pa.string(), pa.int32())),
        [{"k": 1}, {}, None, {"x": None, "y": 2}],
    ),
    "list-of-dictionary": (pa.ListArray.from_arrays(_OFFSETS, dictionary(TEXTS)), _IN_A_LIST),
    "large-list-of-dictionary": (pa.LargeListArray.from_arrays(_OFFSETS.cast(pa.int64()), dictionary(TEXTS)), _IN_A_LIST),
    "struct-of-dictionary": (
        pa.StructArray.from_arrays([dictionary(TEXT)], names=["d"]),
        [{"d": "a"}, {"d": LONG}, {"d": None}, {"d": "a"}],
    ),
    "map-to-dictionary": (
        pa.MapArray.from_arrays(_OFFSETS, pa.array(list("uvwxyz")), dictionary(TEXTS)),
        [{"u": "a", "v": None}, {}, None, {"w": "b", "x": "a", "y": "b", "z": "é"}],
    ),
    "fixed-list-of-dictionary": (
        pa.FixedSizeListArray.from_arrays(dictionary(pa.array(["a", "b", None, "a", "b", "b", "é", "a"])), 2),
        [["a", "b"], [None, "a"], ["b", "b"], ["é", "a"]],
    ),
    "string-view": (TEXT.cast(pa.string_view()), ["a", LONG, None, "a"]),
    "binary-view": (pa.array([b"a", LONG.encode(), None, b"\xff"], pa.binary_view()), ["61", LONG.encode().hex(), None, "ff"]),
    "list-of-string-view": (
        pa.ListArray.from_arrays(_OFFSETS, TEXTS.cast(pa.string_view())),
        _IN_A_LIST,
    ),
    "struct-of-string-view": (
        pa.StructArray.from_arrays([TEXT.cast(pa.string_view())], names=["v"]),
        [{"v": "a"}, {"v": LONG}, {"v": None}, {"v": "a"}],
    ),
    "large-string": (TEXT.cast(pa.large_string()), ["a", LONG, None, "a"]),
    "large-binary": (pa.array([b"a", b"\0", None, b""], pa.large_binary()), ["61", "00", None, ""]),
    "fixed-binary": (pa.array([b"abcd", b"\0\1\2\3", None, b"    "], pa.binary(4)), ["61626364", "00010203", None, "20202020"]),
    "run-end-encoded": (
        pa.RunEndEncodedArray.from_arrays(pa.array([2, 3, 4], pa.int32()), pa.array(["a", None, "b"])),
        ["a", "a", None, "b"],
    ),
    **{
        f"decimal{bits}": (
            pa.array([Decimal("1.25"), Decimal("-3.00"), None, largest], kind),
            [Decimal("1.25"), Decimal("-3.00"), None, largest],
        )
        for bits, kind, largest in (
            (32, pa.decimal32(7, 2), Decimal("99999.99")),
            (64, pa.decimal64(16, 2), Decimal("99999999999999.99")),
            (128, pa.decimal128(38, 2), NINES[36]),
            (256, pa.decimal256(76, 2), NINES[74]),
        )
    },
    "time32-s": (pa.array([0, 1, None, 86_399], pa.time32("s")), ["00:00:00", "00:00:01", None, "23:59:59"]),
    "time32-ms": (pa.array([0, 1, None, 86_399_999], pa.time32("ms")), ["00:00:00", "00:00:00.001", None, "23:59:59.999"]),
    "time64-us": (pa.array([0, 1, None, 60_000_000], pa.time64("us")), ["00:00:00", "00:00:00.000001", None, "00:01:00"]),
    "time64-ns": (pa.array([0, 1000, None, 10**9], pa.time64("ns")), ["00:00:00", "00:00:00.000001", None, "00:00:01"]),
    "duration-s": (pa.array([0, -1, None, 86_400], pa.duration("s")), ["P0D", "-PT1S", None, "PT86400S"]),
    "duration-us": (pa.array([0, -1, None, 10**6], pa.duration("us")), ["P0D", "-PT0.000001S", None, "PT1S"]),
    "interval": (
        pa.array([(1, 2, 3), (-1, 0, -5), None, (0, 0, 0)], pa.month_day_nano_interval()),
        ["1 mons 2 days 0.000000003 secs", "-1 mons -0.000000005 secs", None, "0 secs"],
    ),
    "timestamp-s": (
        pa.array([0, 1, None, -1], pa.timestamp("s")),
        ["1970-01-01T00:00:00", "1970-01-01T00:00:01", None, "1969-12-31T23:59:59"],
    ),
    "timestamp-zone": (
        pa.array([0, 1, None, -1], pa.timestamp("ms", "Asia/Kolkata")),
        ["1970-01-01T05:30:00+05:30", "1970-01-01T05:30:00.001+05:30", None, "1970-01-01T05:29:59.999+05:30"],
    ),
    "half-float": (pa.array([0.5, 1.0, None, -2.0], pa.float16()), [0.5, 1, None, -2]),
    "unsigned": (pa.array([0, 2**64 - 1, None, 1], pa.uint64()), [0, 2**64 - 1, None, 1]),
    "null": (pa.nulls(4), [None] * 4),
}
each = pytest.mark.parametrize("kind", KINDS)


def rows_of(kind: str) -> pa.RecordBatch:
    return pa.record_batch({"n": pa.array(range(4), pa.int64()), "x": KINDS[kind][0]})


def plain(kind: pa.DataType) -> pa.DataType:
    """The type with the same values, without a dictionary or views."""
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if kind in (pa.string_view(), pa.binary_view()):
        return pa.string() if kind == pa.string_view() else pa.binary()
    if pa.types.is_map(kind):
        return pa.map_(plain(kind.key_type), plain(kind.item_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(plain(field.type)) for field in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(plain(kind.value_type), kind.list_size)
    for is_it, make in ((pa.types.is_list, pa.list_), (pa.types.is_large_list, pa.large_list)):
        if is_it(kind):
            return make(plain(kind.value_type))
    return kind


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with a `file:` data set for each type that Parquet supports, and the writable `notes`."""
    pod = Pod(tmp_path_factory.mktemp("types"))
    datasets = [data.MEMORY]
    for kind in KINDS:
        try:
            parquet.write_table(pa.table(rows_of(kind)), pod.folder / f"{kind}.parquet")
        except pa.ArrowNotImplementedError:
            (pod.folder / f"{kind}.parquet").unlink(missing_ok=True)
        else:
            datasets.append({"from": f"file:{kind}.parquet", "name": f"of_{kind.replace('-', '_')}"})
    pod.yaml(tls=pod.write_pair(), datasets=datasets)
    server = pod.serve()
    server.folder = pod.folder
    with clients.adbc(server) as server.adbc:
        yield server
    pod.close()


# Ways in and out


def by_adbc(server, table: str, schema: pa.Schema, batches, mode: str) -> None:
    with server.adbc.cursor() as cursor:
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        assert cursor.adbc_ingest(table, reader, mode=mode) in (sum(b.num_rows for b in batches), -1)


def by_pyarrow(server, table: str, schema: pa.Schema, batches, mode: str) -> None:
    command = wire.ingest(table, *{"create": (1, 1), "append": (2, 2)}[mode])
    writer, reader = clients.flight_client(server).do_put(
        flight.FlightDescriptor.for_command(command), schema, clients.call()
    )
    with writer:
        for batch in batches:
            writer.write_batch(batch)
        writer.done_writing()
        told = reader.read()
    rows = sum(batch.num_rows for batch in batches)
    assert told.to_pybytes() == (wire.message(f1=rows) if rows else b"")



WAYS = {"adbc": by_adbc, "pyarrow": by_pyarrow}
ways = pytest.mark.parametrize("way", WAYS)


def over_flight(server, text: str) -> pa.Table:
    """With pyarrow; checks that GetFlightInfo, GetSchema and preparing announce the schema of the rows."""
    client = clients.flight_client(server)
    info = client.get_flight_info(clients.command(text), clients.call())
    table = client.do_get(info.endpoints[0].ticket, clients.call()).read_all()
    table.validate(full=True)
    assert table.schema.equals(info.schema, check_metadata=True), info.schema
    assert table.schema.equals(client.get_schema(clients.command(text), clients.call()).schema, check_metadata=True)
    with wire.Wire(server) as flight_sql:
        prepared = flight_sql.prepare(text).ok()
    schema = wire.read(wire.read(wire.read(prepared.answers[0], 1), 2), 2)
    assert table.schema.equals(pa.ipc.read_schema(pa.py_buffer(schema)), check_metadata=True), "the schema as prepared"
    return table


def over_adbc(server, text: str) -> pa.Table:
    with server.adbc.cursor() as cursor:
        announced = cursor.adbc_execute_schema(text)
        cursor.execute(text)
        table = cursor.fetch_arrow_table()
    table.validate(full=True)
    assert table.schema == announced
    return table


def over_http(server, text: str) -> pa.Table:
    answer = clients.sql(server, text, accept="application/vnd.apache.arrow.stream").ok()
    table = pa.ipc.open_stream(answer.body).read_all()
    table.validate(full=True)
    return table


def over_json(server, text: str) -> list:
    rows = json.loads(clients.sql(server, text).ok().body, parse_float=Decimal)
    return [row["x"] for row in rows]


def assert_holds(server, table: str, wanted: pa.Array, kind: str | None = None) -> None:
    """Reads the column in every way; its type is the one that was written, or the plain type with the same values."""
    text = f"SELECT n, x FROM {table} ORDER BY n"
    for way in (over_flight, over_adbc, over_http):
        found = way(server, text)
        assert found.column("x").to_pylist() == wanted.to_pylist(), way.__name__
        assert_kind(found, way, wanted.type, *([KINDS[kind][0].type] if kind else []))
    if kind:
        assert over_json(server, text) == KINDS[kind][1]
        assert_csv(clients.sql(server, text, accept="text/csv").ok().text, KINDS[kind][1])


def assert_kind(found: pa.Table, way, *kinds: pa.DataType) -> None:
    kind, known = found.schema.field("x").type, [*kinds, *map(plain, kinds)]
    assert kind in known, f"{way.__name__}: {kind} is not among {known}"


def assert_csv(text: str, wanted: list) -> None:
    """Nested values are JSON text (docs/http.md), and NULL is empty."""
    head, *lines = csv.reader(io.StringIO(text))
    assert head == ["n", "x"] and len(lines) == len(wanted)
    for (_, field), value in zip(lines, wanted):
        if value is None:
            assert field == ""
        elif isinstance(value, (list, dict)):
            assert json.loads(field) == value
        elif isinstance(value, str):
            assert field == value
        else:
            assert Decimal(field) == value


def of_file(server, kind: str) -> pa.Array:
    """The column as pyarrow reads it; Parquet has no seconds."""
    path = server.folder / f"{kind}.parquet"
    if not path.exists():
        pytest.skip("pyarrow writes no such Parquet")
    return parquet.read_table(path)["x"].combine_chunks()


# Types


@each
@ways
def test_written_over_flight(server, way, kind):
    rows, table = rows_of(kind), f"{way}_{kind.replace('-', '_')}"
    WAYS[way](server, table, rows.schema, [rows], "create")
    assert_holds(server, table, KINDS[kind][0], kind)


@each
def test_read_from_a_file(server, kind):
    assert_holds(server, f"of_{kind.replace('-', '_')}", of_file(server, kind), kind)


@each
def test_created_from_a_file(server, kind):
    """CREATE TABLE AS keeps the type of the column."""
    wanted, name = of_file(server, kind), kind.replace("-", "_")
    clients.sql(server, f"CREATE TABLE as_{name} AS SELECT * FROM of_{name}").ok()
    assert_holds(server, f"as_{name}", wanted, kind)


LIKE_TEXT = ["dictionary", "dictionary-int8", "dictionary-of-large", "string-view", "large-string", "run-end-encoded"]


@pytest.mark.parametrize("kind", LIKE_TEXT)
@ways
def test_text_types_can_be_appended_to_a_text_column(server, way, kind):
    table = f"text_{way}_{kind.replace('-', '_')}"
    clients.sql(server, f"CREATE TABLE {table} (n BIGINT, x VARCHAR)").ok()
    rows = rows_of(kind)
    WAYS[way](server, table, rows.schema, [rows], "append")
    assert_holds(server, table, pa.array(KINDS[kind][1], pa.string()), kind)


def test_other_types_are_refused_by_a_numeric_column(server):
    rows = pa.record_batch({"id": TEXT.cast(pa.string_view())})
    with wire.Wire(server) as flight_sql:
        refused = flight_sql.put(wire.ingest("notes"), pa.record_batch({"id": pa.array(["a"])}))
    assert refused.code == "INVALID_ARGUMENT" and "cannot cast string" in refused.details, refused
    with pytest.raises(adbc_driver_manager.Error, match="a"):
        by_adbc(server, "notes", rows.schema, [rows], "append")
    assert clients.rows(server, "SELECT count(*) AS n FROM notes") == [{"n": 0}]


# Batches


def batches_of(kind: str) -> dict[str, list[pa.RecordBatch]]:
    whole = rows_of(kind)
    none = whole.slice(0, 0)
    twice = pa.concat_batches([whole, whole]) if kind != "run-end-encoded" else whole
    return {
        "empty-between": [none, whole.slice(0, 1), none, none, whole.slice(1), none],
        "sliced": [whole.slice(3, 1), whole.slice(1, 2), whole.slice(0, 1)],
        "sliced-of-more": [twice.slice(1, 3), twice.slice(4 if twice.num_rows > 4 else 0, 1)],
        "one-by-one": [whole.slice(at, 1) for at in range(4)],
    }


CUT = ["dictionary", "list", "large-list", "list-view", "fixed-list", "struct", "list-of-struct", "map", "list-of-dictionary"]
CUT += ["large-string", "fixed-binary", "run-end-encoded", "decimal256", "interval", "half-float", "null"]


@pytest.mark.parametrize("cut", ["empty-between", "sliced", "sliced-of-more", "one-by-one"])
@pytest.mark.parametrize("kind", CUT)
def test_cut_into_batches(server, kind, cut):
    table = f"cut_{cut}_{kind}".replace("-", "_")
    batches = batches_of(kind)[cut]
    by_pyarrow(server, table, batches[0].schema, batches, "create")
    text = f"SELECT n, x FROM {table} ORDER BY n"
    for found in (over_flight(server, text), over_http(server, text)):
        assert found.column("x").to_pylist() == KINDS[kind][0].to_pylist()


@ways
def test_dictionaries_that_change(server, way):
    """Each batch has a dictionary of its own."""
    parts = [pa.array(["a", "b"]), pa.array(["c", None, "a"]), pa.array(["é"])]
    batches = [pa.record_batch({"x": part.dictionary_encode()}) for part in parts]
    WAYS[way](server, f"changing_{way}", batches[0].schema, batches, "create")
    assert sorted(over_json(server, f"SELECT x FROM changing_{way} WHERE x IS NOT NULL")) == ["a", "a", "b", "c", "é"]


@each
def test_no_rows(server, kind):
    """The schema alone creates the table, and queries return it."""
    table, schema = f"none_{kind.replace('-', '_')}", rows_of(kind).schema
    by_pyarrow(server, table, schema, [], "create")
    by_pyarrow(server, table, schema, [rows_of(kind).slice(0, 0)], "append")
    text = f"SELECT n, x FROM {table}"
    for way in (over_flight, over_adbc, over_http):
        found = way(server, text)
        assert found.num_rows == 0
        assert_kind(found, way, schema.field("x").type)
    assert over_json(server, text) == []
    assert clients.sql(server, text, accept="text/csv").ok().text.strip() in ("n,x", "")


def test_no_columns_are_written(server):
    with pytest.raises(pa.ArrowInvalid, match="no schema|no column"):
        by_pyarrow(server, "nothing", pa.schema([]), [], "create")
    assert clients.sql(server, "SELECT * FROM nothing").status == 400


def test_no_columns_are_answered(server):
    """Rows without columns are counted, or the statement is refused."""
    text = "SELECT FROM generate_series(1, 3)"
    answer = clients.sql(server, text)
    if answer.status == 400:
        return
    assert answer.ok().json() == [{}, {}, {}]
    assert over_flight(server, text).num_columns == over_http(server, text).num_columns == 0


def test_column_names_that_are_odd(server):
    names = ["", "a b", 'a"b', "SELECT", "Größe", "x.y", "A", "a"]
    rows = pa.record_batch([pa.array([number]) for number in range(len(names))], names=names)
    by_pyarrow(server, "odd_names", rows.schema, [rows], "create")
    for found in (over_flight(server, "SELECT * FROM odd_names"), over_http(server, "SELECT * FROM odd_names")):
        assert found.to_pylist() == rows.to_pylist()
    assert clients.rows(server, 'SELECT "x.y", "A", a, "a""b" FROM odd_names') == [{"x.y": 5, "A": 6, "a": 7, 'a"b': 2}]


def test_two_columns_with_one_name_are_refused(server):
    rows = pa.record_batch([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(pa.ArrowInvalid, match="a"):
        by_pyarrow(server, "twins", rows.schema, [rows], "create")
    assert clients.sql(server, "SELECT * FROM twins").status == 400


def test_schema_metadata_is_kept(server):
    """NOT NULL, and the metadata of a field."""
    schema = pa.schema([pa.field("n", pa.int64(), nullable=False, metadata={"unit": "m"})])
    by_pyarrow(server, "noted", schema, [pa.record_batch([pa.array([1])], schema=schema)], "create")
    for found in (over_flight(server, "SELECT * FROM noted"), over_http(server, "SELECT * FROM noted")):
        assert found.schema.field("n").metadata == {b"unit": b"m"}
        assert not found.schema.field("n").nullable

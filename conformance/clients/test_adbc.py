"""ADBC's Flight SQL driver: queries, prepared statements, metadata; and writing, with every Flight client."""

from __future__ import annotations

import adbc_driver_manager
import pyarrow as pa
import pytest

from harness import clients, data
from harness.clients import REFUSALS, command


@pytest.fixture
def cursor(served):
    with clients.adbc(served) as connection, connection.cursor() as cursor:
        yield cursor


def test_adbc_query(cursor):
    cursor.execute("SELECT id, name FROM people ORDER BY id")
    assert cursor.fetch_arrow_table().to_pylist() == data.PEOPLE.to_pylist()


def test_adbc_rows(cursor):
    cursor.execute("SELECT id, name FROM people ORDER BY id")
    assert cursor.fetchone() == (1, "Ada")
    assert cursor.fetchall() == [(2, "Grace"), (3, "Edsger")]
    assert [column[0] for column in cursor.description] == ["id", "name"]


ADBC_PARAMETERS = {
    "integer": ("SELECT name FROM people WHERE id = $1", (2,), [("Grace",)]),
    "text": ("SELECT id FROM people WHERE name = $1", ("Ada",), [(1,)]),
    "two": ("SELECT name FROM people WHERE id >= $1 AND name <> $2 ORDER BY id", (2, "Grace"), [("Edsger",)]),
    "cast": ("SELECT $1::bigint + $2::bigint AS x", (40, 2), [(42,)]),
    "null": ("SELECT count(*) FROM people WHERE name = $1", (None,), [(0,)]),
    "a fraction beside an integer": ("SELECT name FROM people WHERE id > $1 ORDER BY id", (1.5,), [("Grace",), ("Edsger",)]),
    "a fraction that equals no integer": ("SELECT name FROM people WHERE id = $1", (2.5,), []),
    "arithmetic": ("SELECT id * $1 AS x FROM people WHERE id = 2", (2.5,), [(5.0,)]),
    "alone": ("SELECT $1 AS x, $2 AS y", (1, "a"), [(1, "a")]),
    "in values": ("SELECT * FROM (VALUES ($1), ($2)) AS v(x)", (1, 2), [(1,), (2,)]),
    "in a case": ("SELECT CASE WHEN id = 1 THEN $1 ELSE $2 END AS v FROM people WHERE id < 3 ORDER BY id", ("a", "b"), [("a",), ("b",)]),
    "one name twice": ("SELECT $1, $1, name, name FROM people WHERE id = 1", (7,), [(7, 7, "Ada", "Ada")]),
}


@pytest.mark.parametrize("text, parameters, wanted", ADBC_PARAMETERS.values(), ids=ADBC_PARAMETERS.keys())
def test_adbc_prepared_with_parameters(cursor, text, parameters, wanted):
    cursor.execute(text, parameters)
    assert cursor.fetchall() == wanted


def test_adbc_prepared_again_and_again(cursor):
    for number, name in ((1, "Ada"), (2, "Grace"), (3, "Edsger")):
        cursor.execute("SELECT name FROM people WHERE id = $1", (number,))
        assert cursor.fetchall() == [(name,)]


def test_adbc_parameter_schema(cursor):
    schema = cursor.adbc_prepare("SELECT name FROM people WHERE id = $1 AND name = $2")
    assert schema is None or len(schema) == 2


def test_adbc_schema_of_a_statement(cursor):
    assert cursor.adbc_execute_schema("SELECT id, name FROM people").names == ["id", "name"]


def test_adbc_partitions(cursor):
    partitions, schema = cursor.adbc_execute_partitions("SELECT id, name FROM people ORDER BY id")
    assert schema.names == ["id", "name"]
    rows = []
    for partition in partitions:
        cursor.adbc_read_partition(partition)
        rows += cursor.fetch_arrow_table().to_pylist()
    assert rows == data.PEOPLE.to_pylist()


def test_adbc_objects(served):
    with clients.adbc(served) as connection:
        found = connection.adbc_get_objects(depth="all", table_name_filter="people").read_all().to_pylist()
    tables = [
        table
        for catalog in found
        for schema in catalog["catalog_db_schemas"] or []
        for table in schema["db_schema_tables"] or []
    ]
    assert [table["table_name"] for table in tables] == ["people"]
    assert [column["column_name"] for column in tables[0]["table_columns"]] == ["id", "name"]


@pytest.mark.parametrize("depth", ["catalogs", "db_schemas", "tables"])
def test_adbc_objects_to_a_depth(served, depth):
    with clients.adbc(served) as connection:
        assert connection.adbc_get_objects(depth=depth).read_all().num_rows > 0


def test_adbc_objects_that_match_no_filter(served):
    with clients.adbc(served) as connection:
        found = connection.adbc_get_objects(depth="tables", table_name_filter="no_such%").read_all().to_pylist()
    assert not [t for c in found for s in c["catalog_db_schemas"] or [] for t in s["db_schema_tables"] or []]


def test_adbc_table_types(served):
    with clients.adbc(served) as connection:
        types = connection.adbc_get_table_types()
        assert types and len(types) == len(set(types))
        (table,) = [
            table
            for catalog in connection.adbc_get_objects(depth="tables", table_name_filter="people")
            .read_all()
            .to_pylist()
            for schema in catalog["catalog_db_schemas"]
            for table in schema["db_schema_tables"]
        ]
        assert table["table_type"] in types


def test_adbc_table_schema(served):
    with clients.adbc(served) as connection:
        schema = connection.adbc_get_table_schema("people")
        assert schema.names == ["id", "name"] and schema.field("id").type == pa.int64()
        with pytest.raises(adbc_driver_manager.Error):
            connection.adbc_get_table_schema("no_such_table")


def test_adbc_info(served):
    with clients.adbc(served) as connection:
        info = connection.adbc_get_info()
    assert "spice" in str(info.get("vendor_name", "")).lower(), info
    assert info.get("vendor_version"), info


BAD = ["SELEC 1", "SELECT * FROM no_such_table", "SELECT nope FROM people"]


@pytest.mark.parametrize("text", BAD)
def test_adbc_bad_sql(cursor, text):
    with pytest.raises(adbc_driver_manager.Error) as caught:
        cursor.execute(text)
        cursor.fetchall()
    assert caught.value.status_code in (
        adbc_driver_manager.AdbcStatusCode.INVALID_ARGUMENT,
        adbc_driver_manager.AdbcStatusCode.NOT_FOUND,
    ), caught.value
    cursor.execute("SELECT 1 AS x")  # the connection is still usable
    assert cursor.fetchall() == [(1,)]


# Writing


@pytest.fixture(params=["tls", "clear"])
def writable(pod, request):
    """A server with `people`, which is read-only, and `notes`, which is writable."""
    data.write(data.PEOPLE, pod.folder / "people.parquet")
    pod.yaml(
        tls=pod.write_pair() if request.param == "tls" else None,
        datasets=[{"from": "file:people.parquet", "name": "people"}, data.MEMORY],
    )
    return pod.serve()


def test_adbc_insert(writable):
    with clients.adbc(writable) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO notes VALUES (1, 'a'), (2, 'b')")
        assert cursor.rowcount in (2, -1)
        cursor.execute("INSERT INTO notes VALUES ($1, $2)", (3, "c"))
        cursor.executemany("INSERT INTO notes VALUES ($1, $2)", [(4, "d"), (5, "e")])
        cursor.execute("SELECT id, name FROM notes ORDER BY id")
        assert cursor.fetchall() == [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")]
    assert clients.rows(writable, "SELECT count(*) AS n FROM notes") == [{"n": 5}]


def test_adbc_update_returns_its_count(writable):
    with clients.adbc(writable) as connection, connection.cursor() as cursor:
        assert cursor.adbc_statement.set_sql_query("INSERT INTO notes VALUES (1, 'a'), (2, 'b')") is None
        assert cursor.adbc_statement.execute_update() == 2


def test_asking_for_information_writes_nothing(writable):
    """GetFlightInfo, GetSchema and preparing only plan a statement; DoGet or DoPut runs it, and only once."""
    text = "INSERT INTO notes VALUES (1, 'a')"
    client = clients.flight_client(writable)
    for ask in (client.get_flight_info, client.get_schema):
        try:
            ask(command(text), clients.call())
        except REFUSALS:
            pass  # the server may require the update RPC for updates
    with clients.adbc(writable) as connection, connection.cursor() as cursor:
        cursor.adbc_prepare(text)
    assert clients.rows(writable, "SELECT count(*) AS n FROM notes") == [{"n": 0}]


def test_adbc_insert_into_a_read_data_set_is_refused(writable):
    with clients.adbc(writable) as connection, connection.cursor() as cursor:
        with pytest.raises(adbc_driver_manager.Error):
            cursor.execute("INSERT INTO people VALUES (9, 'Eve')")
        cursor.execute("SELECT count(*) FROM people")
        assert cursor.fetchall() == [(3,)]


def test_flight_insert_into_a_read_data_set_is_refused(writable):
    client = clients.flight_client(writable)
    with pytest.raises(REFUSALS):
        clients.query(client, "INSERT INTO people VALUES (9, 'Eve')")
    assert clients.query(client, "SELECT id FROM people").num_rows == 3


def test_set_does_not_leak(writable):
    text = "SELECT VALUE FROM generate_series(1, 3)"
    client = clients.flight_client(writable)
    for _ in range(4):
        try:
            clients.query(client, "SET datafusion.sql_parser.enable_ident_normalization = false")
        except REFUSALS:
            pass  # refusing it is acceptable too
        with clients.adbc(writable) as connection, connection.cursor() as cursor:
            try:
                cursor.execute("SET datafusion.sql_parser.enable_ident_normalization = false")
            except adbc_driver_manager.Error:
                pass
    for _ in range(4):
        assert clients.query(client, text).num_rows == 3
        assert len(clients.rows(writable, text)) == 3

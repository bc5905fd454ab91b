"""The Flight door: pyarrow with raw SQL, ADBC, and raw gRPC calls where the exact status code counts."""

from __future__ import annotations

from pathlib import Path

import adbc_driver_manager
import grpc
import pyarrow as pa
import pytest
from pyarrow import flight

from harness import clients, data
from harness.certificates import Authority

# What pyarrow raises for INVALID_ARGUMENT, UNAUTHENTICATED, PERMISSION_DENIED and NOT_FOUND.
REFUSALS = (pa.ArrowInvalid, flight.FlightUnauthenticatedError, flight.FlightUnauthorizedError, KeyError)


def command(text: str) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_command(text.encode())


def info_of(server, text: str) -> tuple[flight.FlightClient, flight.FlightInfo]:
    client = clients.flight_client(server)
    return client, client.get_flight_info(command(text), clients.call())


# pyarrow


def test_raw_sql(served):
    client, info = info_of(served, "SELECT id, name FROM people ORDER BY id")
    assert info.schema.names == ["id", "name"]
    table = client.do_get(info.endpoints[0].ticket, clients.call()).read_all()
    assert table.to_pylist() == data.PEOPLE.to_pylist()
    assert table.schema == info.schema


def test_no_location_that_would_leak(served):
    """None (reuse the connection), or `grpc+tls://`."""
    _, info = info_of(served, "SELECT 1 AS x")
    for endpoint in info.endpoints:
        for location in endpoint.locations:
            assert location.uri.startswith((b"grpc+tls://", b"arrow-flight-reuse-connection:")), location


def test_schema_of_a_statement(served):
    client = clients.flight_client(served)
    schema = client.get_schema(command("SELECT id, name FROM people"), clients.call()).schema
    assert schema.names == ["id", "name"] and schema.field("id").type == pa.int64()


def test_result_without_rows_keeps_its_schema(served):
    table = clients.query(clients.flight_client(served), "SELECT id, name FROM people WHERE id < 0")
    assert table.num_rows == 0 and table.schema.names == ["id", "name"]


TYPES = {
    "decimal": "CAST(12.5 AS DECIMAL(10,2))",
    "dictionary": "arrow_cast('x', 'Dictionary(Int32, Utf8)')",
    "view": "arrow_cast('a text longer than twelve bytes', 'Utf8View')",
    "list": "make_array(1, 2, NULL)",
    "struct": "named_struct('a', 1, 'b', make_array('x'))",
    "timestamp": "arrow_cast('2024-02-29T12:00:00', 'Timestamp(Nanosecond, Some(\"+02:00\"))')",
    "interval": "INTERVAL '1 month 2 days'",
    "null": "NULL",
    "map": "map(['a', 'b'], [1, 2])",
}


@pytest.mark.parametrize("expression", TYPES.values(), ids=TYPES.keys())
def test_type(served, expression):
    table = clients.query(clients.flight_client(served), f"SELECT {expression} AS x FROM generate_series(1, 3)")
    table.validate(full=True)
    assert table.num_rows == 3 and len({repr(row) for row in table.to_pylist()}) == 1


def test_many_queries_on_one_connection(served):
    client = clients.flight_client(served)
    for number in range(50):
        assert clients.query(client, f"SELECT {number} AS x").to_pylist() == [{"x": number}]


def test_many_streams_at_once(served):
    """Interleaved, so that each waits for the others."""
    client = clients.flight_client(served)
    readers = []
    for _ in range(8):
        info = client.get_flight_info(command("SELECT value FROM generate_series(1, 100000)"), clients.call())
        readers.append(client.do_get(info.endpoints[0].ticket, clients.call()))
    counts = [0] * len(readers)
    open_ones = set(range(len(readers)))
    while open_ones:
        for index in sorted(open_ones):
            try:
                counts[index] += readers[index].read_chunk().data.num_rows
            except StopIteration:
                open_ones.discard(index)
    assert counts == [100_000] * len(readers)


def test_ticket_answers_twice(served):
    """A ticket is stateless: it stays good for its time."""
    client, info = info_of(served, "SELECT 7 AS x")
    for _ in range(2):
        assert client.do_get(info.endpoints[0].ticket, clients.call()).read_all().to_pylist() == [{"x": 7}]


def test_ticket_is_good_on_another_connection(served):
    _, info = info_of(served, "SELECT 7 AS x")
    other = clients.flight_client(served)
    assert other.do_get(info.endpoints[0].ticket, clients.call()).read_all().to_pylist() == [{"x": 7}]


@pytest.mark.parametrize("header", [b"Bearer ", b"Bearer"], ids=["empty-token", "no-token"])
def test_empty_bearer_is_anonymous(served, header):
    """The JavaScript SDK sends this where it has no key."""
    client = clients.flight_client(served)
    options = flight.FlightCallOptions(timeout=clients.DEADLINE, headers=[(b"authorization", header)])
    info = client.get_flight_info(command("SELECT 1 AS x"), options)
    assert client.do_get(info.endpoints[0].ticket, options).read_all().to_pylist() == [{"x": 1}]


# pyarrow and trust


def _ask(client: flight.FlightClient):
    return clients.query(client, "SELECT 1 AS x").to_pylist()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_trusted(over_tls, host):
    assert _ask(clients.flight_client(over_tls, host=host)) == [{"x": 1}]


def test_verification_off(over_tls):
    assert _ask(clients.flight_client(over_tls, disable_server_verification=True)) == [{"x": 1}]


def test_wrong_authority(over_tls):
    client = clients.flight_client(over_tls, ca=Authority("Stranger").pem)
    with pytest.raises(flight.FlightUnavailableError):
        _ask(client)


def test_wrong_name(pod):
    pod.yaml(tls=pod.write_pair(pod.ca.issue(names=("spice.internal",), common_name="spice.internal")))
    server = pod.serve()
    with pytest.raises(flight.FlightUnavailableError):
        _ask(clients.flight_client(server))
    assert _ask(clients.flight_client(server, override_hostname="spice.internal")) == [{"x": 1}]


def test_plain_client_on_a_tls_port(over_tls):
    client = flight.FlightClient(f"grpc://localhost:{over_tls.port('flight')}")
    with pytest.raises(flight.FlightUnavailableError):
        _ask(client)


def test_tls_client_on_a_plain_port(in_clear):
    client = flight.FlightClient(f"grpc+tls://localhost:{in_clear.port('flight')}", disable_server_verification=True)
    with pytest.raises(flight.FlightUnavailableError):
        _ask(client)


@pytest.mark.parametrize("kind", ["rsa2048", "rsa3072", "p256", "p384"])
def test_key_kind(pod, kind):
    """BoringSSL's kinds: it refuses Ed25519."""
    pod.yaml(tls=pod.write_pair(pod.ca.issue(kind=kind)))
    assert _ask(clients.flight_client(pod.serve())) == [{"x": 1}]


def test_chain_with_an_intermediate(pod):
    pod.yaml(tls=pod.write_pair(Authority("Conformance Intermediate", pod.ca).issue()))
    assert _ask(clients.flight_client(pod.serve())) == [{"x": 1}]


# Status codes, as they are on the wire


def _raw(server, method: str, request: bytes) -> grpc.StatusCode:
    """Calls a method of the Flight service with these bytes; the status it ends with."""
    with clients.channel(server, "flight") as channel:
        call = channel.unary_stream if method in ("DoGet", "DoAction", "ListActions", "ListFlights") else channel.unary_unary
        stub = call(f"/arrow.flight.protocol.FlightService/{method}", lambda b: b, lambda b: b)
        try:
            answer = stub(request, timeout=clients.DEADLINE)
            if call == channel.unary_stream:
                list(answer)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


def _descriptor(text: bytes) -> bytes:
    return b"\x08\x02" + b"\x12" + _length(len(text)) + text  # type CMD, cmd


def _length(number: int) -> bytes:
    out = b""
    while True:
        number, low = number >> 7, number & 0x7F
        out += bytes([low | (0x80 if number else 0)])
        if not number:
            return out


CODES = {
    "syntax": (b"SELEC 1", {"INVALID_ARGUMENT"}),
    "unknown-table": (b"SELECT * FROM no_such_table", {"INVALID_ARGUMENT", "NOT_FOUND"}),
    "unknown-column": (b"SELECT nope FROM people", {"INVALID_ARGUMENT"}),
    "empty": (b"", {"INVALID_ARGUMENT"}),
    "not-utf-8": (b"SELECT '\xff'", {"INVALID_ARGUMENT"}),
    "deep": (b"SELECT " + b"(" * 5000 + b"1" + b")" * 5000, {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}),
    "unbound-parameter": (b"SELECT id FROM people WHERE id = $1", {"INVALID_ARGUMENT"}),
}


@pytest.mark.parametrize("text, codes", CODES.values(), ids=CODES.keys())
def test_code_of_bad_sql(served, text, codes):
    code = _raw(served, "GetFlightInfo", _descriptor(text))
    if code is grpc.StatusCode.OK:  # it may find out only when it runs
        client, info = info_of(served, text.decode())
        with pytest.raises(REFUSALS):
            client.do_get(info.endpoints[0].ticket, clients.call()).read_all()
    else:
        assert code.name in codes


def test_code_of_a_path_descriptor(served):
    assert _raw(served, "GetFlightInfo", b"\x08\x01\x1a\x06people").name in ("INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED", "OK")


def test_code_of_bytes_that_are_no_protobuf(served):
    assert _raw(served, "GetFlightInfo", b"\xff\xff\xff").name in ("INTERNAL", "INVALID_ARGUMENT")
    clients.get(served, "/health").ok()


def test_code_of_an_unknown_method(served):
    assert _raw(served, "NoSuchMethod", b"") is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("action", ["NoSuchAction", "DropDatabase"])
def test_code_of_an_unknown_action(served, action):
    request = b"\x0a" + _length(len(action)) + action.encode()
    assert _raw(served, "DoAction", request).name in ("INVALID_ARGUMENT", "UNIMPLEMENTED", "NOT_FOUND")


# Tickets that somebody made up


FORGED = {
    "empty": b"",
    "text": b"SELECT 1",
    "garbage": bytes(range(256)),
    "any-of-nothing": b"\x0a\x07type/no\x12\x03abc",
}


@pytest.mark.parametrize("ticket", FORGED.values(), ids=FORGED.keys())
def test_made_up_ticket_is_refused(served, ticket):
    client = clients.flight_client(served)
    with pytest.raises(REFUSALS):
        client.do_get(flight.Ticket(ticket), clients.call()).read_all()


def test_every_changed_ticket_is_refused(served):
    client, info = info_of(served, "SELECT id FROM people")
    ticket = info.endpoints[0].ticket.ticket
    changed = [ticket[:-1], ticket + b"\0", ticket[:-32], ticket.replace(b"id", b"42")]
    for at in range(0, len(ticket), max(1, len(ticket) // 24)):
        changed.append(ticket[:at] + bytes([ticket[at] ^ 0x01]) + ticket[at + 1 :])
    for other in (t for t in changed if t != ticket):
        with pytest.raises(REFUSALS):
            client.do_get(flight.Ticket(other), clients.call()).read_all()
    assert client.do_get(flight.Ticket(ticket), clients.call()).read_all().num_rows == 3


def test_ticket_of_another_server_is_refused(over_tls, in_clear):
    """They share no secret."""
    _, info = info_of(in_clear, "SELECT 1 AS x")
    with pytest.raises(REFUSALS):
        clients.flight_client(over_tls).do_get(info.endpoints[0].ticket, clients.call()).read_all()


# ADBC


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


def test_adbc_objects_that_no_filter_meets(served):
    with clients.adbc(served) as connection:
        found = connection.adbc_get_objects(depth="tables", table_name_filter="no_such%").read_all().to_pylist()
    assert not [t for c in found for s in c["catalog_db_schemas"] or [] for t in s["db_schema_tables"] or []]


def test_adbc_table_types(served):
    with clients.adbc(served) as connection:
        types = connection.adbc_get_table_types()
        assert types and len(types) == len(set(types))
        (table,) = [
            table
            for catalog in connection.adbc_get_objects(depth="tables", table_name_filter="people").read_all().to_pylist()
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
    cursor.execute("SELECT 1 AS x")  # the connection is as good as before
    assert cursor.fetchall() == [(1,)]


def test_adbc_wrong_authority(over_tls):
    stranger = {clients.DatabaseOptions.TLS_ROOT_CERTS.value: Authority("Stranger").pem}
    with pytest.raises(adbc_driver_manager.Error) as caught:
        with clients.adbc(over_tls, **stranger) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    assert "certificate" in str(caught.value).lower(), caught.value


# Writing


@pytest.fixture(params=["tls", "clear"])
def writable(pod, request):
    """A server with `people` to read and `notes` to write."""
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


def test_adbc_update_tells_its_count(writable):
    with clients.adbc(writable) as connection, connection.cursor() as cursor:
        assert cursor.adbc_statement.set_sql_query("INSERT INTO notes VALUES (1, 'a'), (2, 'b')") is None
        assert cursor.adbc_statement.execute_update() == 2


def test_asking_for_information_writes_nothing(writable):
    """GetFlightInfo, GetSchema and preparing plan a statement; only DoGet or DoPut runs it, and once."""
    text = "INSERT INTO notes VALUES (1, 'a')"
    client = clients.flight_client(writable)
    for ask in (client.get_flight_info, client.get_schema):
        try:
            ask(command(text), clients.call())
        except REFUSALS:
            pass  # it may want updates to come as updates
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
            pass  # refusing it is as good
        with clients.adbc(writable) as connection, connection.cursor() as cursor:
            try:
                cursor.execute("SET datafusion.sql_parser.enable_ident_normalization = false")
            except adbc_driver_manager.Error:
                pass
    for _ in range(4):
        assert clients.query(client, text).num_rows == 3
        assert len(clients.rows(writable, text)) == 3


# The trust that the reference shows


def test_reference_example_with_a_root_certificate(over_tls):
    client = flight.FlightClient(
        f"grpc+tls://localhost:{over_tls.port('flight')}", tls_root_certs=Path(over_tls.ca).read_bytes()
    )
    assert _ask(client) == [{"x": 1}]

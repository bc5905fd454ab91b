"""The Flight endpoint: pyarrow with plain SQL, and raw gRPC calls where the exact status code matters."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyarrow import flight

from harness import clients, data, wire
from harness.clients import REFUSALS, command


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
    """Either none (reuse the connection) or `grpc+tls://`."""
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
    """Interleaved, so that each stream waits for the others."""
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
    """A ticket is stateless and remains valid until it expires."""
    client, info = info_of(served, "SELECT 7 AS x")
    for _ in range(2):
        assert client.do_get(info.endpoints[0].ticket, clients.call()).read_all().to_pylist() == [{"x": 7}]


def test_ticket_is_good_on_another_connection(served):
    _, info = info_of(served, "SELECT 7 AS x")
    other = clients.flight_client(served)
    assert other.do_get(info.endpoints[0].ticket, clients.call()).read_all().to_pylist() == [{"x": 7}]


@pytest.mark.parametrize("header", [b"Bearer ", b"Bearer"], ids=["empty-token", "no-token"])
def test_empty_bearer_is_anonymous(served, header):
    """The JavaScript SDK sends an empty bearer token if it has no key."""
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


def test_wrong_name(pod):
    pod.yaml(tls=pod.write_pair(pod.ca.issue(names=("spice.internal",), common_name="spice.internal")))
    server = pod.serve()
    with pytest.raises(flight.FlightUnavailableError):
        _ask(clients.flight_client(server))
    assert _ask(clients.flight_client(server, override_hostname="spice.internal")) == [{"x": 1}]


# Status codes on the wire


def _raw(server, method: str, request: bytes) -> str:
    """Calls a method of the Flight service with these bytes; returns the status code."""
    with wire.Wire(server) as calls:
        return calls.ask(method, request).code


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
    code = _raw(served, "GetFlightInfo", wire.descriptor(text))
    if code == "OK":  # the error may only appear when it runs
        client, info = info_of(served, text.decode())
        with pytest.raises(REFUSALS):
            client.do_get(info.endpoints[0].ticket, clients.call()).read_all()
    else:
        assert code in codes


def test_code_of_a_path_descriptor(served):
    assert _raw(served, "GetFlightInfo", wire.message(f1=1, f3="people")) in (
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "UNIMPLEMENTED",
        "OK",
    )


def test_code_of_invalid_protobuf(served):
    assert _raw(served, "GetFlightInfo", b"\xff\xff\xff") in ("INTERNAL", "INVALID_ARGUMENT")
    clients.get(served, "/health").ok()


def test_code_of_an_unknown_method(served):
    assert _raw(served, "NoSuchMethod", b"") == "UNIMPLEMENTED"


@pytest.mark.parametrize("action", ["NoSuchAction", "DropDatabase"])
def test_code_of_an_unknown_action(served, action):
    assert _raw(served, "DoAction", wire.message(f1=action)) in ("INVALID_ARGUMENT", "UNIMPLEMENTED", "NOT_FOUND")


# Forged tickets


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
    """The two servers share no secret."""
    _, info = info_of(in_clear, "SELECT 1 AS x")
    with pytest.raises(REFUSALS):
        clients.flight_client(over_tls).do_get(info.endpoints[0].ticket, clients.call()).read_all()

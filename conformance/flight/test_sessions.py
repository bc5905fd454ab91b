"""Session options over Flight SQL, in a signed cookie, and the metadata that drivers request from the server."""

from __future__ import annotations

import adbc_driver_manager
import pyarrow as pa
import pytest
from pyarrow import flight

from harness import clients
from harness.waiting import eventually

COOKIES = {"adbc.flight.sql.rpc.with_cookie_middleware": "true"}


@pytest.fixture
def server(pod):
    columns = [{"name": "x", "type": "BIGINT"}]
    sets = [{"from": "memory:", "name": "sales.orders", "columns": columns}, {"from": "memory:", "name": "orders2", "columns": columns}]
    pod.yaml(tls=pod.write_pair(), datasets=sets)
    return pod.serve()


def test_adbc_sets_the_default_schema(server):
    with clients.adbc(server, **COOKIES) as connection:
        with connection.cursor() as cursor, pytest.raises(adbc_driver_manager.Error, match="orders"):
            cursor.execute("SELECT count(*) FROM orders")
        connection.adbc_connection.set_options(**{"adbc.connection.db_schema": "sales"})
        assert connection.adbc_current_db_schema == "sales"
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM orders")
            assert cursor.fetchall() == [(0,)]
        with pytest.raises(adbc_driver_manager.Error):
            connection.adbc_connection.set_options(**{"adbc.connection.db_schema": "no_such_schema"})
    with clients.adbc(server) as other, other.cursor() as cursor, pytest.raises(adbc_driver_manager.Error):
        cursor.execute("SELECT count(*) FROM orders")


OPTION = "adbc.flight.sql.session.option"
TYPED = {
    "a text": ("datafusion.execution.time_zone", {f"{OPTION}.": "+05:00"}, "+05:00"),
    "a number": ("datafusion.execution.batch_size", {f"{OPTION}.": 1024}, "1024"),
    "a truth": ("datafusion.optimizer.prefer_hash_join", {f"{OPTION}bool.": "false"}, "false"),
}


@pytest.mark.parametrize("name, given, shown", TYPED.values(), ids=TYPED)
def test_adbc_sets_options_of_every_type(server, name, given, shown):
    """With its type in the protocol: a string, an int64, a bool; after an erase it has its previous value."""
    ((kind, value),) = given.items()

    def now(connection) -> str:
        with connection.cursor() as cursor:
            cursor.execute(f"SHOW {name}")
            return cursor.fetchone()[1]

    with clients.adbc(server, **COOKIES) as connection:
        before = now(connection)
        assert before != shown
        connection.adbc_connection.set_options(**{kind + name: value})
        assert now(connection) == shown
        connection.adbc_connection.set_options(**{f"{OPTION}erase.{name}": ""})
        assert now(connection) == before
        with pytest.raises(adbc_driver_manager.Error, match="batch_size|INVALID"):
            connection.adbc_connection.set_options(**{f"{OPTION}.datafusion.execution.batch_size": "many"})


def test_adbc_without_autocommit(server):
    """There are no transactions: the driver learns this from SqlInfo and warns callers that ask for one, and each
    statement stands alone.
    """
    with pytest.warns(Warning, match="autocommit"), clients.adbc(server, autocommit=False) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)
        with pytest.raises(adbc_driver_manager.Error):
            connection.adbc_connection.set_autocommit(False)


class Cookies(flight.ClientMiddlewareFactory):
    """Stores the server's cookie and sends it back."""

    def __init__(self):
        super().__init__()
        self.cookie = None

    def start_call(self, info):
        outer = self

        class Call(flight.ClientMiddleware):
            def sending_headers(self):
                return {"cookie": outer.cookie} if outer.cookie else {}

            def received_headers(self, headers):
                for value in headers.get("set-cookie", []):
                    outer.cookie = value.split(";")[0]

        return Call()


def act(client, name: str, body: bytes = b"") -> bytes:
    return b"".join(result.body.to_pybytes() for result in client.do_action(flight.Action(name, body), clients.call()))


def option(name: str, value: str) -> bytes:
    """One entry of SetSessionOptionsRequest."""
    text = bytes([0x0A, len(value)]) + value.encode()
    entry = bytes([0x0A, len(name)]) + name.encode() + bytes([0x12, len(text)]) + text
    return bytes([0x0A, len(entry)]) + entry


def test_options_by_hand(server):
    """Valid options are set, invalid ones are reported by name; CloseSession clears all; a forged session is refused.
    """
    kept = Cookies()
    pem = open(server.ca, "rb").read()
    with flight.connect(f"grpc+tls://localhost:{server.port('flight')}", tls_root_certs=pem, middleware=[kept]) as client:
        told = act(client, "SetSessionOptions", option("datafusion.execution.time_zone", "+05:00") + option("no.such.thing", "1"))
        assert b"no.such.thing" in told and b"time_zone" not in told
        assert b"time_zone" in act(client, "GetSessionOptions") and b"no.such" not in act(client, "GetSessionOptions")
        shown = clients.query(client, "SHOW datafusion.execution.time_zone").to_pylist()
        assert shown[0]["value"] == "+05:00"
        assert kept.cookie.startswith("arrow_flight_session_id=")
        forged, kept.cookie = kept.cookie, kept.cookie[:-4] + "AAAA"
        with pytest.raises((flight.FlightError, pa.ArrowException)):
            act(client, "GetSessionOptions")
        kept.cookie = forged
        assert act(client, "CloseSession") == b"\x08\x01"
        assert kept.cookie == "arrow_flight_session_id="
        assert act(client, "GetSessionOptions") == b""


# The codes that ArrowDatabaseMetadata of Arrow's JDBC driver reads, by the member of the union that it expects: string,
# bool, bigint, bitmask, list of strings, map.
JDBC = {
    0: [0, 1, 504, 513, 514, 529, 530, 531],
    1: [3, 515, 516, *range(518, 522), 523, 524, 527, 532, 536, 537, 539, 556, 563, 565, 566, *range(572, 577)],
    2: [*range(541, 556), *range(557, 563)],
    3: [522, 525, 526, 528, 533, 534, 535, 538, 540, 564, 567],
    4: range(508, 513),
    5: [517],
}


def test_values_that_drivers_request(server):
    with clients.adbc(server) as connection:
        assert connection.adbc_get_info()["vendor_name"] == "spiced"
    # CommandGetSqlInfo without a list returns everything.
    name = b"type.googleapis.com/arrow.flight.protocol.sql.CommandGetSqlInfo"
    command = bytes([0x0A, len(name)]) + name
    client = clients.flight_client(server)
    info = client.get_flight_info(flight.FlightDescriptor.for_command(command), clients.call())
    table = client.do_get(info.endpoints[0].ticket, clients.call()).read_all().combine_chunks()
    told = {row["info_name"]: row["value"] for row in table.to_pylist()}
    kinds = dict(zip(told, table["value"].chunk(0).type_codes.to_pylist(), strict=True))
    wrong = {code: kinds.get(code) for kind, codes in JDBC.items() for code in codes if kinds.get(code) != kind}
    assert not wrong, f"Arrow's JDBC driver expects another type for these: {wrong}"
    assert told[562] == 0 and told[522] == 3 and told[528] == 6 and "SELECT" in told[508]
    assert 19 in dict(told[517])[7], "an INTEGER can be cast to a VARCHAR"
    assert told[504] == '"' and told[507] == 0 and told[503] == 3
    assert "abs" in told[509] and "upper" in told[510] and "date_trunc" in told[512]
    eventually(lambda: clients.get(server, "/health").status == 200, "it is well")

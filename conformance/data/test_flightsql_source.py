"""Data sets from another Flight SQL server: a second spiced with its own CA, accessed with a key or a client
certificate."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest
from flightsql import flightsql_pb2
from google.protobuf import any_pb2
from pyarrow import flight

from harness import clients, data
from harness.certificates import Authority
from harness.leak_scanner import LEDGER
from harness.pod import Pod
from harness.waiting import eventually

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def peer(tmp_path):
    """The other server: `people`, `sales.wide`, and a key with read access."""
    server = other(tmp_path / "peer", people=data.PEOPLE)
    yield server
    server.pod.close()


def other(folder, **tables):
    pod = Pod(folder)
    key = LEDGER.mark("a key of the peer")
    for name, table in tables.items():
        data.write(table, pod.folder / f"{name}.parquet")
    sets = [{"from": f"file:{name}.parquet", "name": name} for name in tables]
    views = [{"name": "sales.wide", "sql": "SELECT value AS \"Id\", repeat('x', 100) AS filler FROM generate_series(1, 300000)"}]
    pod.yaml(
        tls=pod.write_pair(), datasets=sets, views=views, runtime={"auth": {"api_key": {"keys": [f"{key}:rw"]}}}
    )
    server = pod.serve()
    server.key, server.pod = key, pod
    return server


def described(pod, peer, table: str, name: str = "t", **params) -> dict:
    pod.write("peer.pem", peer.pod.ca.pem)
    endpoint = f"grpc+tls://localhost:{peer.port('flight')}"
    params = {"flightsql_endpoint": endpoint, "flightsql_token": peer.key, "tls_ca_file": "peer.pem", **params}
    return {"from": f"flightsql:{table}", "name": name, "params": {k: v for k, v in params.items() if v is not None}}


def trouble(server) -> str:
    def told():
        (found,) = clients.get(server, "/v1/datasets").ok().json()
        return found.get("error")

    return eventually(told, "it says what is wrong")


def test_rows_of_another_server(pod, peer):
    sets = [described(pod, peer, "people"), described(pod, peer, "spice.sales.wide", "wide")]
    sets.append(described(pod, peer, "people", "by_name", flightsql_token=None, flightsql_username="any", flightsql_password=peer.key))
    pod.yaml(tls=pod.write_pair(), datasets=sets)
    server = pod.serve()
    for name in ("t", "by_name"):
        assert clients.rows(server, f"SELECT id, name FROM {name} ORDER BY id") == data.PEOPLE.to_pylist()
    assert clients.rows(server, 'SELECT count(*) AS n FROM wide') == [{"n": 300_000}]
    assert clients.rows(server, 'SELECT sum("Id") AS s, max(length(filler)) AS l FROM wide') == [{"s": 45_000_150_000, "l": 100}]
    assert clients.rows(server, 'SELECT "Id" FROM wide WHERE "Id" > 299999') == [{"Id": 300_000}]
    assert clients.rows(server, "SELECT w.\"Id\", t.name FROM wide w JOIN t ON w.\"Id\" = t.id ORDER BY 1 LIMIT 1") == [{"Id": 1, "name": "Ada"}]
    assert clients.sql(server, "INSERT INTO t VALUES (1, 'x')").status == 403


ASKED = {
    "SELECT name FROM t LIMIT 2": 'SELECT "name" FROM people LIMIT 2',
    "SELECT name FROM t WHERE id = 1": 'SELECT "id", "name" FROM people WHERE ("id" = 1)',
    "SELECT id FROM t WHERE id > 1 AND length(name) = 3": 'SELECT "id", "name" FROM people WHERE ("id" > 1)',
    # The filter is applied again here, so the limit cannot be pushed down.
    "SELECT id FROM t WHERE name = 'Ada' LIMIT 1": 'SELECT "id", "name" FROM people WHERE ("name" = \'Ada\')',
    "SELECT id FROM t WHERE name > 'Ada'": 'SELECT "id", "name" FROM people',
    "SELECT id FROM columns_alone WHERE id = 1": 'SELECT "id" FROM people',
}


@pytest.mark.parametrize("query", ASKED)
def test_statements_sent_to_the_peer(pod, peer, query):
    """Columns, the limit and plain filters are pushed down, and the caller's trace is propagated."""
    sets = [described(pod, peer, "people"), described(pod, peer, "people", "columns_alone", flightsql_pushdown="columns")]
    pod.yaml(tls=pod.write_pair(), datasets=sets)
    server = pod.serve()
    clients.sql(server, query, "-H", f"traceparent: 00-{TRACE}-{SPAN}-01").ok()
    told = clients.sql(
        peer, f"SELECT statement FROM runtime.queries WHERE trace_id = '{TRACE}'", "-H", f"X-API-Key: {peer.key}"
    )
    assert {row["statement"] for row in told.ok().json()} == {ASKED[query]}
    plan = "\n".join(row["plan"] for row in clients.rows(server, f"EXPLAIN {query}"))
    assert f"Flight SQL: {ASKED[query]}" in plan


class Seen(flight.ServerMiddlewareFactory):
    """The headers of every call."""

    def __init__(self):
        super().__init__()
        self.headers = []

    def start_call(self, _info, headers):
        self.headers.append(headers)


class DuckDb(flight.FlightServerBase):
    """A third-party engine that answers Flight SQL statements, in plain text."""

    def __init__(self, table: pa.Table):
        self.seen = Seen()
        super().__init__("grpc://127.0.0.1:0", middleware={"seen": self.seen})
        self.database, self.asked, self.announces = duckdb.connect(), [], True
        self.database.execute("SET TimeZone = 'UTC'")
        self.database.register("given", table)
        # A type that the protocol carries as text.
        self.database.execute("CREATE TABLE edges AS SELECT * REPLACE (CAST(own AS UUID) AS own) FROM given")

    def described(self, name: str) -> dict:
        """Its table as a data set."""
        return {"from": "flightsql:edges", "name": name, "params": {"flightsql_endpoint": f"grpc://127.0.0.1:{self.port}"}}

    def _answer(self, sql: str) -> pa.Table:
        return self.database.cursor().sql(sql).to_arrow_table()

    def get_flight_info(self, _context, descriptor):
        wrapped, query = any_pb2.Any.FromString(descriptor.command), flightsql_pb2.CommandStatementQuery()
        assert wrapped.Unpack(query)
        self.asked.append(query.query)
        schema = self._answer(query.query).schema
        parts = [flight.FlightEndpoint(flight.Ticket(f"{part}{query.query}".encode()), []) for part in range(3)]
        return flight.FlightInfo(schema if self.announces else None, descriptor, parts, -1, -1)

    def do_get(self, _context, ticket):
        """Returns three parts, the middle one with two rows."""
        part, sql = int(ticket.ticket[:1]), ticket.ticket[1:].decode()
        begin, length = ((0, 1), (1, 2), (3, None))[part]
        return flight.RecordBatchStream(self._answer(sql).slice(begin, length))


OWN = "00000000-0000-4000-8000-000000000001"


def edges() -> pa.Table:
    """Values on which engines might disagree, and a row of NULLs."""
    hour = dt.datetime(2026, 3, 29, 1, 0, 0)
    rows = {
        "n": pa.array([1, 2, 3, 4, None], pa.int64()),
        "small": pa.array([-128, 0, 127, None, None], pa.int8()),
        "big": pa.array([2**64 - 1, 0, 2**53 + 1, 5, None], pa.uint64()),
        "t": pa.array(["it's", "", "A", "a", None]),
        "b": pa.array([True, False, True, None, None]),
        "f": pa.array([float("nan"), -0.0, 1.5, float("-inf"), None]),
        "d": pa.array([dt.date(1, 1, 1), dt.date(1969, 12, 31), dt.date(2026, 1, 1), dt.date(9999, 12, 31), None]),
        "price": pa.array([Decimal("-1.50"), Decimal("0.00"), Decimal("99999999.99"), Decimal("1.50"), None], pa.decimal128(10, 2)),
        "at": pa.array([hour, hour + dt.timedelta(microseconds=1), hour + dt.timedelta(seconds=1), None, None], pa.timestamp("us")),
        "ms": pa.array([hour, hour + dt.timedelta(milliseconds=1), hour - dt.timedelta(milliseconds=1), None, None], pa.timestamp("ms")),
        "far": pa.array([hour, dt.datetime(9999, 12, 31), dt.datetime(1, 1, 1), None, None], pa.timestamp("us")),
        "own": pa.array([OWN, OWN.replace("0", "1"), None, None, None]),
        "zoned": pa.array([hour, hour + dt.timedelta(hours=1), None, None, hour], pa.timestamp("us", "UTC")),
    }
    return pa.table(rows)


FILTERS = [
    "n = 1",
    "n IN (1, 3, 7)",
    "n NOT IN (1, 3)",
    "n BETWEEN 2 AND 3",
    "n NOT BETWEEN 2 AND 3",
    "2 < n",
    "NOT n = 2",
    "small < 0",
    "small <> 0",
    "small = -128",
    "big > 5",
    "big = 18446744073709551615",
    "big >= 9007199254740993",
    "t = 'it''s'",
    "t = ''",
    "t <> 'a'",
    "t IN ('A', 'nobody')",
    "t LIKE 'i%'",
    "t LIKE '%'",
    "t > 'A'",
    "b",
    "NOT b",
    "b IS NOT TRUE",
    "b <> true",
    "f > 1",
    "f = 0",
    "f IS NULL",
    "f IS NOT NULL",
    "d < DATE '1970-01-01'",
    "d = DATE '0001-01-01'",
    "d BETWEEN DATE '2026-01-01' AND DATE '9999-12-31'",
    "price < 0",
    "price = 1.5",
    "price > 1.49999",
    "price >= 99999999.99",
    "at = TIMESTAMP '2026-03-29 01:00:00'",
    "at > TIMESTAMP '2026-03-29 01:00:00'",
    "at > TIMESTAMP '2026-03-29 01:00:00.000000500'",
    "at < TIMESTAMP '2026-03-29 01:00:00.000000500'",
    "at <= TIMESTAMP '2026-03-29 01:00:00.000001'",
    "at < now()",
    "ms = TIMESTAMP '2026-03-29 01:00:00.001'",
    "ms > TIMESTAMP '2026-03-29 01:00:00.000000500'",
    "ms < TIMESTAMP '2026-03-29 01:00:00.000500'",
    "ms >= TIMESTAMP '2026-03-29 00:59:59.999000001'",
    "ms IN (TIMESTAMP '2026-03-29 01:00:00', TIMESTAMP '2026-03-29 01:00:00.000001')",
    "far > TIMESTAMP '2026-03-29 00:00:00'",
    "far < arrow_cast('9999-12-31T00:00:00', 'Timestamp(Microsecond, None)')",
    "far = arrow_cast('0001-01-01T00:00:00', 'Timestamp(Microsecond, None)')",
    f"own = '{OWN}'",
    "own = 'none of its own'",
    "own LIKE '0%' AND n > 0",
    "own IS NOT NULL",
    " OR ".join(f"n = {n} OR (b AND small = {n})" for n in range(100)),
    "zoned > TIMESTAMP '2026-03-29 01:30:00'",
    "n > 1 AND (t = 'a' OR small = 127)",
    "n > 1 AND f > 0 AND (t = 'A' OR f < 0)",
    "n IS NULL OR t IS NULL",
    "n + 1 = 2",
]


@pytest.fixture(scope="module")
def edged(tmp_path_factory):
    """The same rows in a file, in DuckDB and in another spiced."""
    pod, table = Pod(tmp_path_factory.mktemp("edges")), edges()
    peer = other(tmp_path_factory.mktemp("peer"), edges=table)
    with DuckDb(table) as engine:
        data.write(table, pod.folder / "edges.parquet")
        sets = [{"from": "file:edges.parquet", "name": "here"}, engine.described("duckdb")]
        sets.append(described(pod, peer, "edges", "spiced"))
        pod.yaml(tls=pod.write_pair(), datasets=sets)
        server = pod.serve()
        server.engine = engine
        yield server
        pod.close()
    peer.pod.close()


@pytest.mark.parametrize("words", FILTERS)
@pytest.mark.parametrize("engine", ["duckdb", "spiced"])
def test_filters_over_another_engine(edged, engine, words):
    query = "SELECT * EXCEPT (f), f IS NULL AS f FROM {} WHERE {} ORDER BY n NULLS LAST, zoned"
    there, here = (clients.rows(edged, query.format(table, words)) for table in (engine, "here"))
    assert there == here


def test_filters_are_pushed_down(edged):
    """Shows that the test above exercises the pushdown."""
    edged.engine.asked.clear()
    for words in FILTERS:
        clients.rows(edged, f"SELECT count(*) AS n FROM duckdb WHERE {words}")
    with_filter = [sql for sql in edged.engine.asked if " WHERE " in sql]
    assert len(with_filter) >= 30, edged.engine.asked


def test_a_server_that_does_not_announce_its_columns(pod):
    """Columns are read from an answer without rows, and no row of another answer is lost."""
    with DuckDb(edges()) as engine:
        engine.announces = False
        pod.yaml(tls=pod.write_pair(), datasets=[engine.described("t")])
        server = pod.serve()
        assert clients.rows(server, "SELECT n FROM t ORDER BY n") == [{"n": n} for n in (1, 2, 3, 4, None)]
        assert clients.rows(server, "SELECT n FROM t WHERE n > 2 ORDER BY n") == [{"n": 3}, {"n": 4}]


TRACED = {
    "one state": (["a=1,b@c=x y"], ["a=1,b@c=x y"]),
    "two headers": (["a=1", "b=2 "], ["a=1,b=2"]),
    "none": ([], None),
    "malformed": (["a"], None),
    "too long": (["a=" + "x" * 511], None),
}


@pytest.mark.parametrize("given, passed", TRACED.values(), ids=TRACED)
@pytest.mark.parametrize("flags", ["00", "01"])
def test_trace_is_propagated(pod, flags, given, passed):
    """W3C Trace Context: `traceparent` unchanged, sampled or not, and `tracestate` if it is valid."""
    with DuckDb(edges()) as engine:
        pod.yaml(tls=pod.write_pair(), datasets=[engine.described("t")])
        server = pod.serve()
        clients.rows(server, "SELECT n FROM t WHERE n > 2")
        engine.seen.headers.clear()
        parent = f"00-{TRACE}-{SPAN}-{flags}"
        more = [option for state in given for option in ("-H", f"tracestate: {state}")]
        answer = clients.sql(server, "SELECT n FROM t WHERE n > 3", "-H", f"traceparent: {parent}", *more)
        assert answer.ok().json() == [{"n": 4}]
        assert len(engine.seen.headers) == 4, "a statement and its three parts"
        for headers in engine.seen.headers:
            assert headers["traceparent"] == [parent] and headers.get("tracestate") == passed, headers


def test_a_filter_that_the_peer_refuses(edged):
    """The query is sent again without the filter, and the log reports it."""
    edged.engine.asked.clear()
    assert clients.rows(edged, "SELECT n FROM duckdb WHERE own = 'none of its own'") == []
    filtered, plain = edged.engine.asked
    assert filtered == f"{plain} WHERE (\"own\" = 'none of its own')"
    (told,) = edged.logged("WARN", match="asked again without")
    assert "none of its own" not in edged.stderr and edged.logged("WARN", match="flightsql_pushdown: columns")


WRONG = {
    "no CA that issued it": ({"tls_ca_file": None}, r"was issued by .* not trusted"),
    "a key that is none": ({"flightsql_token": "not-the-key"}, "key"),
    "plain text": ({}, "."),
    "no table": ({}, "no_such_table"),
}


@pytest.mark.parametrize("what", WRONG)
def test_errors_of_an_unreadable_peer(pod, peer, what):
    params, words = WRONG[what]
    if what == "plain text":
        params = {"flightsql_endpoint": f"grpc://localhost:{peer.port('flight')}"}
    pod.yaml(tls=pod.write_pair(), datasets=[described(pod, peer, "no_such_table" if what == "no table" else "people", **params)])
    said = trouble(pod.serve())
    assert re.search(words, said) and said.startswith("Flight SQL at localhost:") and "\n" not in said, said


PARAMS = {
    "no endpoint": ({"flightsql_endpoint": None}, "missing"),
    "an endpoint that is none": ({"flightsql_endpoint": "localhost:1"}, "grpc+tls://HOST:PORT"),
    "two ways": ({"flightsql_username": "a"}, "exclude"),
    "a pushdown that is none": ({"flightsql_pushdown": "queries"}, "one of filters, columns"),
    "half an identity": ({"tls_key_file": "a"}, "belong together"),
    "a key in plain text": ({"flightsql_endpoint": "grpc://db.example.com:1"}, "plain text"),
}


@pytest.mark.parametrize("what", PARAMS)
def test_invalid_params(pod, peer, what):
    params, words = PARAMS[what]
    pod.yaml(datasets=[described(pod, peer, "people", **params)])
    assert words in pod.refuse().stderr


def test_a_client_certificate_is_shown(pod, tmp_path):
    """To a peer that requires a client certificate."""
    other, machines = Pod(tmp_path / "peer"), Authority("machines")
    try:
        data.write(data.PEOPLE, other.folder / "people.parquet")
        other.write("machines.pem", machines.pem)
        tls = {**other.write_pair(), "client_auth_mode": "required", "client_auth_ca_file": "machines.pem"}
        other.yaml(tls=tls, datasets=[{"from": "file:people.parquet", "name": "people"}])
        served = other.serve(wait=False)
        served.wait_for_log(match="serving")
        mine = machines.issue(names=(), common_name="front", client=True)
        pod.write("peer.pem", other.ca.pem)
        pod.write("me.crt", mine.certificate)
        pod.write("me.key", mine.key_text)
        params = {
            "flightsql_endpoint": f"grpc+tls://localhost:{served.port('flight')}",
            "tls_ca_file": "peer.pem",
            "tls_certificate_file": "me.crt",
            "tls_key_file": "me.key",
        }
        pod.yaml(tls=pod.write_pair(), datasets=[{"from": "flightsql:people", "name": "t", "params": params}])
        server = pod.serve()
        assert clients.rows(server, "SELECT count(*) AS n FROM t") == [{"n": 3}]
    finally:
        other.close()


def test_a_peer_that_restarts(pod, peer):
    pod.yaml(tls=pod.write_pair(), datasets=[described(pod, peer, "people")])
    server = pod.serve()
    port = peer.port("flight")
    assert clients.rows(server, "SELECT count(*) AS n FROM t") == [{"n": 3}]
    peer.close()
    gone = clients.sql(server, "SELECT count(*) AS n FROM t")
    assert gone.status == 503 and "Flight SQL at localhost" in gone.text, gone
    peer.pod.serve("--flight", f"localhost:{port}", endpoints=("http", "grpc"))
    eventually(lambda: clients.sql(server, "SELECT count(*) AS n FROM t").status == 200, "it is asked again", 30)

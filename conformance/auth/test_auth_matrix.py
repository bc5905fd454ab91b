"""Access matrix: every way to configure access, every credential, every client, every operation."""

from __future__ import annotations

import itertools
import json

import adbc_driver_manager
import pyarrow as pa
import pytest

from harness import identities, clients, data, wire
from harness.access import PATIENT, Access
from harness.identities import Caller, code
from harness.drivers import DRIVERS, At, Refused, Untrusted
from harness.pod import Pod
from harness.waiting import eventually

# The answers to operations that are open to all, that read, and that write.
OPEN, READ, WRITE = 0, 1, 2
ANSWERS = {
    "rw": ("OK", "OK", "OK"),
    "ro": ("OK", "OK", "PERMISSION_DENIED"),
    "stranger": ("OK", "PERMISSION_DENIED", "PERMISSION_DENIED"),  # authenticated, but without a role
    "nobody": ("OK", "UNAUTHENTICATED", "UNAUTHENTICATED"),
    "no handshake": ("UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE"),
}
HTTP = {"OK": "200", "UNAUTHENTICATED": "401", "PERMISSION_DENIED": "403"}

# The role that each server gives to a caller. `-`: a certificate cannot be presented in plain text.
SETUPS = ("keys", "clear", "request", "required", "certificates", "all")
TABLE = """
nobody                        | nobody | nobody | nobody       | no handshake | no handshake | nobody
wrong key                     | nobody | nobody | nobody       | no handshake | no handshake | nobody
ro key                        | ro     | ro     | ro           | no handshake | no handshake | nobody
rw key                        | rw     | rw     | rw           | no handshake | no handshake | nobody
ro key, x-api-key             | ro     | ro     | ro           | no handshake | no handshake | nobody
rw key, x-api-key             | rw     | rw     | rw           | no handshake | no handshake | nobody
ro sha256 key                 | ro     | ro     | ro           | no handshake | no handshake | nobody
rw sha256 key                 | rw     | rw     | rw           | no handshake | no handshake | nobody
ro argon2id key               | ro     | ro     | ro           | no handshake | no handshake | nobody
rw argon2id key               | rw     | rw     | rw           | no handshake | no handshake | nobody
ro certificate                | nobody | -      | ro           | ro           | ro           | nobody
rw certificate                | nobody | -      | rw           | rw           | rw           | nobody
unmapped certificate          | nobody | -      | stranger     | stranger     | stranger     | stranger
certificate of a wrong CA     | nobody | -      | no handshake | no handshake | no handshake | no handshake
expired certificate           | nobody | -      | no handshake | no handshake | no handshake | no handshake
revoked certificate           | nobody | -      | no handshake | no handshake | no handshake | no handshake
ro certificate + rw key       | rw     | -      | rw           | rw           | ro           | ro
rw certificate + ro key       | ro     | -      | ro           | ro           | rw           | ro
rw certificate + rw key       | rw     | -      | rw           | rw           | rw           | rw
rw certificate + wrong key    | nobody | -      | nobody       | nobody       | rw           | nobody
unmapped certificate + rw key | rw     | -      | rw           | rw           | stranger     | stranger
revoked certificate + rw key  | rw     | -      | no handshake | no handshake | no handshake | no handshake
"""

# Go withholds a certificate whose CA the server does not list; if none is required, the handshake completes without it.
GO_KEEPS = "certificate of a wrong CA"


def _rows():
    for line in TABLE.strip().splitlines():
        who, *taken = (cell.strip() for cell in line.split("|"))
        for setup, verdict in zip(SETUPS, taken, strict=True):
            if verdict != "-":
                yield setup, who, verdict


class World:
    """A server and all its callers."""

    def __init__(self, root, setup: str) -> None:
        self.pod = Pod(root)
        self.access = access = Access(self.pod)
        auth = {}
        if setup != "certificates":
            auth["api_key"] = access.api_key
        if setup not in ("keys", "clear"):
            auth["mtls"] = access.mtls
        if setup == "all":
            auth["require"] = "all"
        modes = {"request": "request", "required": "required", "certificates": "required", "all": "request"}
        tls = access.tls(modes[setup], crl=True) if setup in modes else self.pod.write_pair()
        self.pod.yaml(
            tls=None if setup == "clear" else tls,
            runtime={"auth": auth, **PATIENT},
            datasets=[{"from": "file:people.parquet", "name": "people"}, data.MEMORY],
        )
        data.write(data.PEOPLE, self.pod.folder / "people.parquet")
        self.server = self.pod.serve(env=access.environment)
        self.viewer = access.callers["rw key" if setup in ("keys", "clear") else "rw certificate + rw key"]
        eventually(lambda: self.viewer.curl(self.server, "/v1/ready").status == 200, "all data sets are loaded")
        self.view = self.viewer.flight(self.server)
        self.numbers = itertools.count(1)

    def notes(self, *numbers: int) -> set[int]:
        """Returns those of these numbers that are in `notes`."""
        text = f"SELECT id FROM notes WHERE id IN ({', '.join(map(str, numbers))})"
        return set(clients.query(self.view, text, self.viewer.call())["id"].to_pylist())

    def has(self, table: str, caller: Caller) -> bool:
        return caller.curl(self.server, "/v1/sql", "-d", f"SELECT x FROM {table}").status == 200

    def close(self) -> None:
        self.view.close()
        self.pod.close()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """One server for each set-up, started on first use."""
    made: dict[str, World] = {}

    def world(setup: str) -> World:
        if setup not in made:
            made[setup] = World(tmp_path_factory.mktemp(setup), setup)
        return made[setup]

    yield world
    for each in made.values():
        each.close()


# The clients. Each yields an operation, the right it needs, its outcome and, if it wrote, the row or table to look for


def by_curl(world: World, caller: Caller):
    """One curl process for all requests, over one connection if possible."""
    one, two, table = next(world.numbers), next(world.numbers), f"t{next(world.numbers)}"

    def with_parameters(text: str, *parameters) -> tuple[str, ...]:
        return "-H", "Content-Type: application/json", "-d", json.dumps({"sql": text, "parameters": parameters})

    sql = "/v1/sql"
    asked = [
        ("health", OPEN, "/health", (), None),
        ("ready", OPEN, "/v1/ready", (), None),
        ("query", READ, sql, ("-d", "SELECT id FROM people"), None),
        ("parameters", READ, sql, with_parameters("SELECT name FROM people WHERE id = $1", 2), None),
        ("metadata", READ, "/v1/datasets", (), None),
        ("status", READ, "/v1/status", (), None),
        ("insert", WRITE, sql, ("-d", f"INSERT INTO notes VALUES ({one}, 'a')"), one),
        ("insert, parameters", WRITE, sql, with_parameters("INSERT INTO notes VALUES ($1, $2)", two, "a"), two),
        ("create", WRITE, sql, ("-d", f"CREATE TABLE {table} AS SELECT 1 AS x"), table),
        ("reload", WRITE, "/v1/tls/reload", ("-X", "POST"), None),
    ]
    requests = [(path, (*caller.curl_args(world.server), *more)) for _, _, path, more, _ in asked]
    for (name, needs, _, _, made), status in zip(asked, clients.statuses(world.server, requests), strict=True):
        yield name, needs, str(status or "UNAVAILABLE"), made


def by_pyarrow(world: World, caller: Caller):
    with caller.flight(world.server) as client:
        options, number, table = caller.call(), next(world.numbers), f"t{next(world.numbers)}"

        def query(text: str) -> str:
            return code(lambda: clients.query(client, text, options))

        yield "query", READ, query("SELECT id FROM people"), None
        yield "schema", READ, code(lambda: client.get_schema(clients.command("SELECT id FROM people"), options)), None
        yield "insert", WRITE, query(f"INSERT INTO notes VALUES ({number}, 'a')"), number
        yield "create", WRITE, query(f"CREATE TABLE {table} AS SELECT 1 AS x"), table


def by_adbc(world: World, caller: Caller):
    try:
        connection = caller.adbc(world.server)
    except adbc_driver_manager.Error as error:
        refused = code(lambda error=error: (_ for _ in ()).throw(error))
        yield from ((name, needs, refused, None) for name, needs in (("query", READ), ("insert", WRITE)))
        return

    def run(text: str, parameters=None) -> str:
        def ask():
            cursor.execute(text, parameters)
            cursor.fetchall()

        return code(ask)

    with connection, connection.cursor() as cursor:
        one, two, three = (next(world.numbers) for _ in range(3))
        table = f"t{next(world.numbers)}"
        rows = pa.table({"id": pa.array([three], pa.int64()), "name": ["a"]})
        yield "query", READ, run("SELECT id FROM people"), None
        yield "prepared", READ, run("SELECT name FROM people WHERE id = $1", (2,)), None
        yield "metadata", READ, code(lambda: connection.adbc_get_objects(depth="tables").read_all()), None
        yield "insert", WRITE, run(f"INSERT INTO notes VALUES ({one}, 'a')"), one
        yield "prepared insert", WRITE, run("INSERT INTO notes VALUES ($1, $2)", (two, "a")), two
        yield "create", WRITE, run(f"CREATE TABLE {table} AS SELECT 1 AS x"), table
        yield "ingest", WRITE, code(lambda: cursor.adbc_ingest("notes", rows, mode="append")), three


def by_raw_flight(world: World, caller: Caller):
    one, two, three = (next(world.numbers) for _ in range(3))
    table = f"t{next(world.numbers)}"
    with caller.wire(world.server) as flight:

        def prepared(text: str, command: str, rows: pa.RecordBatch) -> str:
            """Prepares, binds and, for a query, executes; returns the first code other than OK."""
            made = flight.prepare(text)
            if made.code != "OK":
                return made.code
            message = wire.sql_any(command, f1=wire.handle_of(made))
            bound = flight.put(message, rows)
            query = command == "CommandPreparedStatementQuery"
            return flight.query(message).code if bound.code == "OK" and query else bound.code

        number = pa.record_batch({"$1": pa.array([2], pa.int64())})
        both = pa.record_batch({"$1": pa.array([two], pa.int64()), "$2": ["a"]})
        fresh = pa.record_batch({"id": pa.array([three], pa.int64()), "name": ["a"]})
        select, insert = "SELECT name FROM people WHERE id = $1", "INSERT INTO notes VALUES ($1, $2)"
        yield "health", OPEN, flight.ask(wire.HEALTH, b"").code, None
        yield "query", READ, flight.query("SELECT id FROM people").code, None
        yield "metadata", READ, flight.query(wire.tables()).code, None
        yield "prepared", READ, prepared(select, "CommandPreparedStatementQuery", number), None
        yield "update", WRITE, flight.put(wire.update(f"INSERT INTO notes VALUES ({one}, 'a')")).code, one
        yield "prepared update", WRITE, prepared(insert, "CommandPreparedStatementUpdate", both), two
        yield "create", WRITE, flight.put(wire.update(f"CREATE TABLE {table} AS SELECT 1 AS x")).code, table
        yield "ingest", WRITE, flight.put(wire.ingest("notes"), fresh).code, three


def by_grpc(world: World, caller: Caller):
    with caller.wire(world.server, "grpc") as grpc:
        yield "health", OPEN, grpc.ask(wire.HEALTH, b"").code, None
        yield "reflection", READ, grpc.ask(wire.REFLECTION, wire.message(f7="*")).code, None


CLIENTS = {"curl": by_curl, "pyarrow": by_pyarrow, "adbc": by_adbc, "raw flight": by_raw_flight, "grpcio": by_grpc}


def _wanted(client: str, verdict: str, name: str, needs: int) -> set[str]:
    answer = ANSWERS[verdict][needs]
    wanted = {HTTP.get(answer, answer) if client == "curl" else answer}
    if name == "reload" and verdict == "rw":
        wanted.add("429")  # reloads are rate-limited
    return wanted


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("setup, who, verdict", [pytest.param(*row, id=f"{row[0]}: {row[1]}") for row in _rows()])
def test_row(worlds, setup, who, verdict, client):
    """All operations of one caller by one client: the answer, and whether the operation took effect."""
    if client == "adbc" and who == GO_KEEPS and setup in ("request", "all"):
        verdict = "nobody"
    world = worlds(setup)
    caller = world.access.callers[who]
    if client == "adbc" and who == "certificate of a wrong CA" and setup in ("request", "all"):
        # Go withholds a certificate from a CA that the server does not list (RFC 8446 §4.2.4).
        verdict = "nobody"
    wrong, rows, tables = [], {}, {}
    for name, needs, got, made in CLIENTS[client](world, caller):
        wanted = _wanted(client, verdict, name, needs)
        if got not in wanted:
            wrong.append(f"{name}: {got}, not {' or '.join(sorted(wanted))}")
        if made is not None:
            (rows if isinstance(made, int) else tables)[made] = (name, got in ("OK", "200"))
    found = world.notes(*rows) if rows else set()
    for number, (name, done) in rows.items():
        if done != (number in found):
            wrong.append(f"{name}: answered as {'done' if done else 'refused'}, and the row is {'not ' * done}there")
    for table, (name, done) in tables.items():
        if done != world.has(table, caller if done else world.viewer):
            wrong.append(f"{name}: answered as {'done' if done else 'refused'}, and the table is {'not ' * done}there")
    assert not wrong, f"{who} at {setup} with the role {verdict}, by {client}:\n" + "\n".join(wrong)


def test_every_caller_has_a_row(worlds):
    """The table covers every caller."""
    assert {who for _, who, _ in _rows()} == set(worlds("keys").access.callers)


# Every client of docs/clients.md, with keys over TLS

CLIENT_ROWS = {
    "nobody": "nobody",
    "wrong key": "nobody",
    "ro key": "ro",
    "rw key": "rw",
    "rw sha256 key": "rw",
    "ro argon2id key": "ro",
}


# Clients that only read: polars itself refuses an INSERT, and flight_sql_client asks for a schema before it asks for
# rows.
READERS = {"polars (ADBC)", "flight_sql_client"}


@pytest.mark.parametrize("driver", DRIVERS, ids=repr)
@pytest.mark.parametrize("who, verdict", CLIENT_ROWS.items(), ids=CLIENT_ROWS.keys())
def test_client(worlds, driver, who, verdict):
    """Each client sends the key in its own way: the SDKs by a handshake and X-API-Key, the others as a bearer token."""
    world = worlds("keys")
    at = At.of(world.server, world.access.callers[who].key)
    number = next(world.numbers)
    asked = {
        "query": (READ, "SELECT name FROM people WHERE id = 2", ()),
        "parameters": (READ, "SELECT name FROM people WHERE id = $1", (2,)),
        "insert": (WRITE, f"INSERT INTO notes VALUES ({number}, 'a')", ()),
    }
    for lacking in [*driver.lacks, *(["insert"] if driver.name in READERS else [])]:
        asked.pop(lacking, None)  # the client lacks the feature, with any server
    for name, (needs, text, parameters) in asked.items():
        try:
            rows = driver.rows(at, text, parameters)
            got = "OK"
            assert needs is WRITE or rows == [{"name": "Grace"}]
        except (Refused, Untrusted) as error:
            got = identities.told(error)
        assert got == ANSWERS[verdict][needs], f"{name}: {got}"
    assert bool(world.notes(number)) == (verdict == "rw" and "insert" in asked)

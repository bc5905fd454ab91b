"""A read-only key stays read-only: every way to write through SQL, HTTP and Flight SQL fails, and nothing changes."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from harness import clients, data, wire
from harness.access import PATIENT, Access
from harness.identities import NOBODY, Caller, code, of_http
from harness.leak_scanner import LEDGER
from harness.pod import Pod
from harness.waiting import eventually

# The rights of a read-write caller. `{dir}` is a directory that `runtime.sql.host_paths` lists; `extra`, `seen` and
# `spare` were created by SQL beforehand. With this role, each statement must succeed once, in this order.
WRITES = {
    "update": "UPDATE notes SET name = 'x'",
    "update-where": "UPDATE notes SET name = 'x' WHERE id IN (SELECT id FROM people)",
    "delete-where": "DELETE FROM notes WHERE id = 8",
    "explain-analyze-delete": "EXPLAIN ANALYZE DELETE FROM notes",
    "delete": "DELETE FROM notes",
    "truncate": "TRUNCATE TABLE notes",
    "insert": "INSERT INTO notes VALUES (7, 'x')",
    "insert-select": "INSERT INTO notes SELECT id, name FROM people",
    "insert-columns": "INSERT INTO notes (name, id) VALUES ('x', 7)",
    "insert-qualified": "INSERT INTO public.notes VALUES (7, 'x')",
    "insert-quoted": 'INSERT INTO "spice"."public"."notes" VALUES (7, \'x\')',
    "insert-after-with": "INSERT INTO notes WITH a AS (SELECT 7, 'x') SELECT * FROM a",
    "insert-after-union": "INSERT INTO notes SELECT 7, 'x' UNION ALL SELECT 8, 'y'",
    "insert-of-nothing": "INSERT INTO notes SELECT id, name FROM people WHERE id < 0",
    "insert-in-odd-case": "iNsErT iNtO notes vAlUeS (7, 'x')",
    "insert-behind-a-comment": "/* SELECT 1 */ INSERT /* a */ INTO notes -- SELECT\n VALUES (7, 'x')",
    "insert-behind-a-line-comment": "-- SELECT 1\nINSERT INTO notes VALUES (7, 'x')",
    "insert-behind-blanks": "\r\n\t  INSERT\tINTO\r\nnotes VALUES (7, 'x')\n;\n",
    "insert-no-break-space": "INSERT\u00a0INTO\u00a0notes VALUES (7, 'x')",
    "insert-em-space": "INSERT\u2003INTO notes VALUES (7, 'x')",
    "explain-analyze-insert": "EXPLAIN ANALYZE INSERT INTO notes VALUES (7, 'x')",
    "explain-analyze-verbose-insert": "eXplain /**/ aNalyze VERBOSE INSERT INTO notes VALUES (7, 'x')",
    "create-table-as": "CREATE TABLE made AS SELECT 1 AS x",
    "create-table-if-not-exists": "CREATE TABLE IF NOT EXISTS made2 (x BIGINT)",
    "create-table": "CREATE TABLE made3 (x BIGINT, y VARCHAR)",
    "create-table-values": "CREATE TABLE made4 AS VALUES (1, 'a')",
    "create-or-replace-table": "CREATE OR REPLACE TABLE extra AS SELECT 2 AS x",
    "select-into": "SELECT * INTO made5 FROM people",
    "create-view": "CREATE VIEW made6 AS SELECT 1 AS x",
    "create-or-replace-view": "CREATE OR REPLACE VIEW seen AS SELECT 2 AS x",
    "create-schema": "CREATE SCHEMA made7",
    "create-database": "CREATE DATABASE made8",
    "create-external-table": "CREATE EXTERNAL TABLE made9 STORED AS CSV LOCATION '{dir}/here.csv' OPTIONS ('has_header' 'true')",
    "copy-csv": "COPY (SELECT 1 AS x) TO '{dir}/out.csv' STORED AS CSV",
    "copy-parquet": "COPY people TO '{dir}/out.parquet' STORED AS PARQUET",
    "explain-analyze-copy": "EXPLAIN ANALYZE COPY people TO '{dir}/out2.csv' STORED AS CSV",
    "drop-view": "DROP VIEW seen",
    "drop-table": "DROP TABLE extra",
    "drop-table-if-exists": "DROP TABLE IF EXISTS spare",
}

# Statements that no role may run, or that are not supported: the reason does not matter, nothing may happen.
HOPELESS = {
    "insert-byte-order-mark": "\ufeff\ufeffINSERT INTO notes VALUES (7, 'x')",
    "update-from": "UPDATE notes SET name = 'x' FROM people WHERE notes.id = people.id",
    "merge": "MERGE INTO notes USING people ON notes.id = people.id WHEN MATCHED THEN UPDATE SET name = 'x'",
    "replace": "REPLACE INTO notes VALUES (7, 'x')",
    "insert-overwrite": "INSERT OVERWRITE notes VALUES (7, 'x')",
    "insert-returning": "INSERT INTO notes VALUES (7, 'x') RETURNING id",
    "insert-into-a-read-data-set": "INSERT INTO people VALUES (7, 'x')",
    "insert-into-the-schema": "INSERT INTO information_schema.schemata SELECT * FROM information_schema.schemata",
    "with-insert": "WITH a AS (SELECT 7 AS id, 'x' AS name) INSERT INTO notes SELECT * FROM a",
    "insert-in-parentheses": "(INSERT INTO notes VALUES (7, 'x'))",
    "insert-as-a-subquery": "SELECT * FROM (INSERT INTO notes VALUES (7, 'x') RETURNING id) a",
    "insert-as-a-cte": "WITH a AS (INSERT INTO notes VALUES (7, 'x') RETURNING id) SELECT * FROM a",
    "two-statements": "SELECT 1; INSERT INTO notes VALUES (7, 'x')",
    "two-statements-turned": "INSERT INTO notes VALUES (7, 'x'); SELECT 1",
    "two-statements-behind-a-comment": "SELECT 1; -- \n INSERT INTO notes VALUES (7, 'x');",
    "prepare-and-execute": "PREPARE p AS INSERT INTO notes VALUES (7, 'x'); EXECUTE p",
    "prepare-typed-and-execute": "PREPARE p(BIGINT) AS INSERT INTO notes VALUES ($1, 'x'); EXECUTE p(7)",
    "execute-immediate": "EXECUTE IMMEDIATE 'INSERT INTO notes VALUES (7, ''x'')'",
    "transaction": "BEGIN; INSERT INTO notes VALUES (7, 'x'); COMMIT",
    "explain-analyze-create": "EXPLAIN ANALYZE CREATE TABLE made AS SELECT 1 AS x",
    "redefine-a-data-set": "CREATE OR REPLACE TABLE notes AS SELECT 1 AS x",
    "redefine-as-a-view": "CREATE OR REPLACE VIEW people AS SELECT 1 AS x",
    "create-temporary-table": "CREATE TEMPORARY TABLE made AS SELECT 1 AS x",
    "create-materialized-view": "CREATE MATERIALIZED VIEW made AS SELECT 1 AS x",
    "create-index": "CREATE INDEX made ON notes (id)",
    "create-function": "CREATE FUNCTION made(BIGINT) RETURNS BIGINT RETURN $1",
    "create-external-table-outside": "CREATE EXTERNAL TABLE made STORED AS CSV LOCATION '/etc/passwd'",
    "copy-outside": "COPY (SELECT 1 AS x) TO 'out.csv' STORED AS CSV",
    "drop-a-data-set": "DROP TABLE notes",
    "drop-a-data-set-cascade": "DROP TABLE IF EXISTS people CASCADE",
    "drop-schema": "DROP SCHEMA public CASCADE",
    "drop-function": "DROP FUNCTION IF EXISTS abs",
    "alter-table": "ALTER TABLE notes ADD COLUMN more BIGINT",
    "rename-table": "ALTER TABLE notes RENAME TO gone",
    "grant": "GRANT ALL ON notes TO PUBLIC",
    "set-role": "SET ROLE rw",
    "unload": "UNLOAD ('SELECT 1') TO '{dir}/out.csv'",
    "load": "LOAD DATA INPATH '{dir}/here.csv' INTO TABLE notes",
    "copy-from": "COPY notes FROM '{dir}/here.csv'",
    "comment-on": "COMMENT ON TABLE notes IS 'x'",
}
REFUSED_HTTP, REFUSED_GRPC = {"400", "403", "501"}, {"INVALID_ARGUMENT", "PERMISSION_DENIED", "UNIMPLEMENTED"}


STATE = {
    "notes": "SELECT id, name FROM notes ORDER BY id, name",
    "people": "SELECT id, name FROM people ORDER BY id",
    "extra": "SELECT x FROM extra",
    "seen": "SELECT x FROM seen",
    "tables": "SELECT table_catalog, table_schema, table_name, table_type FROM information_schema.tables ORDER BY 1, 2, 3",
    "schemas": "SELECT catalog_name, schema_name FROM information_schema.schemata ORDER BY 1, 2",
    "columns": "SELECT column_name FROM information_schema.columns WHERE table_name = 'notes' ORDER BY 1",
}


class Guarded:
    """A server with data to protect, and its callers."""

    def __init__(self, root) -> None:
        self.pod = pod = Pod(root)
        self.access = access = Access(pod)
        other = {"OTHER_RO": LEDGER.mark("another ro key"), "OTHER_RW": LEDGER.mark("another rw key")}
        self.ro, self.rw = access.ro, access.rw
        self.other_ro, self.other_rw = Caller(other["OTHER_RO"]), Caller(other["OTHER_RW"])
        self.folder = pod.home / "allowed"
        self.folder.mkdir()
        (self.folder / "here.csv").write_text("id,name\n9,Eve\n")
        data.write(data.PEOPLE, pod.folder / "people.parquet")
        keys = [*access.api_key["keys"], "${env:OTHER_RO}:ro", "${env:OTHER_RW}:rw"]
        pod.yaml(
            tls=pod.write_pair(),
            runtime={"auth": {"api_key": {"keys": keys}}, "sql": {"host_paths": [str(self.folder)]}, **PATIENT},
            datasets=[{"from": "file:people.parquet", "name": "people"}, data.MEMORY],
        )
        self.server = pod.serve(env={**access.environment, **other})
        eventually(lambda: clients.get(self.server, "/v1/ready").status == 200, "all data sets are loaded")
        self.viewer = self.rw.flight(self.server)
        for text in (
            "INSERT INTO notes VALUES (1, 'kept')",
            "CREATE TABLE extra AS SELECT 1 AS x",
            "CREATE TABLE spare AS SELECT 1 AS x",
            "CREATE VIEW seen AS SELECT 1 AS x",
        ):
            self.sql(self.rw, text).ok()

    def sql(self, caller: Caller, text: str, *args: str) -> clients.Answer:
        return clients.sql(self.server, text, *caller.curl_args(self.server), *args)

    def rows(self, text: str) -> list[dict]:
        """The rows as the writer sees them."""
        return clients.query(self.viewer, text, self.rw.call()).to_pylist()

    def close(self) -> None:
        self.viewer.close()
        self.pod.close()

    def state(self) -> dict:
        """Returns everything that a statement could have changed."""
        seen = {}
        for name, text in STATE.items():
            try:
                seen[name] = self.rows(text)
            except clients.REFUSALS as error:
                seen[name] = str(error)
        for folder in (self.folder, self.pod.folder, self.pod.cwd):
            seen[folder.name] = sorted(path.name for path in folder.iterdir())
        return seen


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A server at which every write must fail."""
    guarded = Guarded(tmp_path_factory.mktemp("kept"))
    guarded.before = guarded.state()
    yield guarded
    guarded.close()


@pytest.fixture
def unchanged(kept):
    """Requires that nothing has changed since the start of the test."""
    yield kept
    before, kept.before = kept.before, kept.state()
    assert kept.before == before


# The ways to send a statement: each returns the outcome of one statement


def over_http(guarded: Guarded, caller: Caller, text: str) -> str:
    return of_http(guarded.sql(caller, text))


def as_http_json(guarded: Guarded, caller: Caller, text: str) -> str:
    body = json.dumps({"sql": text, "parameters": []})
    return of_http(guarded.sql(caller, body, "-H", "Content-Type: application/json"))


def as_raw_sql(guarded: Guarded, caller: Caller, text: str) -> str:
    with caller.wire(guarded.server) as flight:
        return flight.query(text).code


def as_a_query(guarded: Guarded, caller: Caller, text: str) -> str:
    with caller.wire(guarded.server) as flight:
        return flight.query(wire.sql_any("CommandStatementQuery", f1=text)).code


def as_an_update(guarded: Guarded, caller: Caller, text: str) -> str:
    with caller.wire(guarded.server) as flight:
        return flight.put(wire.update(text)).code


def _prepared(guarded: Guarded, caller: Caller, text: str, command: str) -> str:
    with caller.wire(guarded.server) as flight:
        made = flight.prepare(text)
        if made.code != "OK":
            return made.code
        message = wire.sql_any(command, f1=wire.handle_of(made))
        return (flight.put(message) if "Update" in command else flight.query(message)).code


def as_a_prepared_update(guarded, caller, text: str) -> str:
    return _prepared(guarded, caller, text, "CommandPreparedStatementUpdate")


def as_a_prepared_query(guarded, caller, text: str) -> str:
    return _prepared(guarded, caller, text, "CommandPreparedStatementQuery")


WAYS = {
    "http": over_http,
    "http-json": as_http_json,
    "raw-sql": as_raw_sql,
    "query": as_a_query,
    "update": as_an_update,
    "prepared-update": as_a_prepared_update,
    "prepared-query": as_a_prepared_query,
}


def outcomes(guarded: Guarded, caller: Caller, text: str) -> dict[str, str]:
    """Returns the outcome of the statement for each way."""
    return {name: way(guarded, caller, text.format(dir=guarded.folder)) for name, way in WAYS.items()}


DENIED = {name: "403" if name.startswith("http") else "PERMISSION_DENIED" for name in WAYS}


@pytest.mark.parametrize("name", WRITES)
def test_read_only_key_may_not(unchanged, name):
    assert outcomes(unchanged, unchanged.ro, WRITES[name]) == DENIED


@pytest.mark.parametrize("name", HOPELESS)
def test_read_only_key_may_not_what_no_role_may(unchanged, name):
    for way, got in outcomes(unchanged, unchanged.ro, HOPELESS[name]).items():
        assert got in (REFUSED_HTTP if way.startswith("http") else REFUSED_GRPC), f"{way}: {got}"


@pytest.mark.parametrize("way", ["http", "raw-sql", "update", "prepared-update"])
def test_read_write_key_may(tmp_path, way):
    """Runs the same statements, which shows that the refusals above are due to the role."""
    guarded = Guarded(tmp_path)
    try:
        before, wrong = guarded.state(), []
        for name, text in WRITES.items():
            got = WAYS[way](guarded, guarded.rw, text.format(dir=guarded.folder))
            if got not in ("200", "OK"):
                wrong.append(f"{name}: {got}")
        assert not wrong, "\n".join(wrong)
        assert len(guarded.rows("SELECT id FROM notes")) > len(before["notes"])
        assert {path.name for path in guarded.folder.iterdir()} >= {"out.csv", "out.parquet", "out2.csv"}
        made = {row["table_name"] for row in guarded.rows("SELECT table_name FROM information_schema.tables")}
        assert made >= {"made", "made2", "made3", "made4", "made5", "made6"} and not made & {"extra", "seen", "spare"}
    finally:
        guarded.close()


def test_read_write_key_may_not_write_a_read_only_data_set(unchanged):
    assert outcomes(unchanged, unchanged.rw, "INSERT INTO people VALUES (7, 'x')") == DENIED


READS = {
    "select": "SELECT id FROM people",
    "explain": "EXPLAIN SELECT id FROM people",
    "explain-analyze": "EXPLAIN ANALYZE SELECT id FROM people",
    "show-tables": "SHOW TABLES",
    "describe": "DESCRIBE people",
    "with": "WITH a AS (SELECT 1 AS x) SELECT x FROM a",
    "values": "VALUES (1, 'INSERT INTO notes VALUES (7)')",
    "schema": "SELECT table_name FROM information_schema.tables",
}


@pytest.mark.parametrize("name", READS)
def test_read_only_key_may_read(unchanged, name):
    for way, got in outcomes(unchanged, unchanged.ro, READS[name]).items():
        # An update that returns rows is a mistake of the client; its answer does not depend on rights.
        assert got in ("200", "OK") or ("update" in way and got == "INVALID_ARGUMENT"), f"{way}: {got}"


def test_explaining_a_write_writes_nothing(unchanged):
    """Whether a reader may see the plan of a write is unspecified."""
    for way, got in outcomes(unchanged, unchanged.ro, "EXPLAIN INSERT INTO notes VALUES (7, 'x')").items():
        assert got in ("200", "OK", DENIED[way]), f"{way}: {got}"


# Over several requests


def test_prepare_and_execute_over_requests(unchanged):
    """SQL's own PREPARE: a reader can EXECUTE neither its own statements nor a writer's."""
    text = "PREPARE stolen AS INSERT INTO notes VALUES (7, 'x')"
    assert of_http(unchanged.sql(unchanged.ro, text)) in REFUSED_HTTP
    unchanged.sql(unchanged.rw, text)
    for execute in ("EXECUTE stolen", "EXECUTE stolen()"):
        assert of_http(unchanged.sql(unchanged.ro, execute)) in REFUSED_HTTP
    with unchanged.ro.wire(unchanged.server) as flight:
        assert flight.query(text).code in REFUSED_GRPC
        assert flight.query("EXECUTE stolen").code in REFUSED_GRPC
        assert flight.put(wire.update("EXECUTE stolen")).code in REFUSED_GRPC


def test_parameters_do_not_become_sql(unchanged):
    body = json.dumps(
        {"sql": "SELECT id FROM people WHERE name = $1", "parameters": ["x'; INSERT INTO notes VALUES (7, 'x'); --"]}
    )
    assert unchanged.sql(unchanged.ro, body, "-H", "Content-Type: application/json").ok().json() == []


def test_json_with_parameters_of_a_write(unchanged):
    # DataFusion does not accept named parameters in VALUES: the statement is invalid for every caller.
    for parameters, names, status in (([7, "x"], ("$1", "$2"), "403"), ({"id": 7, "name": "x"}, ("$id", "$name"), "400")):
        body = json.dumps({"sql": f"INSERT INTO notes VALUES ({', '.join(names)})", "parameters": parameters})
        assert of_http(unchanged.sql(unchanged.ro, body, "-H", "Content-Type: application/json")) == status


METHODS = {"put": "PUT", "patch": "PATCH", "delete": "DELETE", "get": "GET"}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_other_methods_write_nothing(unchanged, method):
    answer = unchanged.sql(unchanged.ro, "INSERT INTO notes VALUES (7, 'x')", "-X", method)
    assert answer.status in (400, 403, 405), answer


def test_headers_that_claim_a_role(unchanged):
    """Headers in which a caller claims a role have no effect."""
    for header in ("X-Role: rw", "X-Forwarded-User: admin", "X-HTTP-Method-Override: PUT", "X-Spice-Role: rw"):
        answer = unchanged.sql(unchanged.ro, "INSERT INTO notes VALUES (7, 'x')", "-H", header)
        assert answer.status == 403, f"{header}: {answer}"


def test_each_request_is_authorized_separately(unchanged):
    """Earlier callers on the same connection do not matter."""
    insert = "INSERT INTO notes VALUES (7, 'x')"
    with clients.flight_client(unchanged.server) as client:
        clients.query(client, "SELECT 1 AS x", unchanged.rw.call())
        for caller, wanted in ((unchanged.ro, "PERMISSION_DENIED"), (NOBODY, "UNAUTHENTICATED")):
            assert code(lambda caller=caller: clients.query(client, insert, caller.call())) == wanted
    for protocol in ("--http1.1", "--http2"):
        callers = (unchanged.rw, unchanged.ro, NOBODY, unchanged.rw)
        texts = ("SELECT 1 AS x", insert, insert, "SELECT 1 AS x")
        requests = [
            ("/v1/sql", (protocol, *caller.curl_args(unchanged.server), "-d", text))
            for caller, text in zip(callers, texts)
        ]
        assert clients.statuses(unchanged.server, requests) == [200, 403, 401, 200]


# Handles and tickets of others


def _insert_rows() -> pa.RecordBatch:
    return pa.record_batch({"$1": pa.array([7], pa.int64()), "$2": ["x"]})


def test_prepared_update_of_a_writer_is_not_the_readers(unchanged):
    with unchanged.rw.wire(unchanged.server) as writer, unchanged.ro.wire(unchanged.server) as reader:
        for text, rows in (
            ("INSERT INTO notes VALUES (7, 'x')", None),
            ("INSERT INTO notes VALUES ($1, $2)", _insert_rows()),
        ):
            handle = wire.handle_of(writer.prepare(text))
            update = wire.sql_any("CommandPreparedStatementUpdate", f1=handle)
            assert reader.put(update, rows).code == "PERMISSION_DENIED"
            query = wire.sql_any("CommandPreparedStatementQuery", f1=handle)
            assert reader.query(query).code == "PERMISSION_DENIED"
            assert reader.put(query, rows).code == "PERMISSION_DENIED"


def test_prepared_update_works_for_its_maker(tmp_path):
    """Shows that the refusal above depends on the caller."""
    guarded = Guarded(tmp_path)
    try:
        with guarded.rw.wire(guarded.server) as writer:
            handle = wire.handle_of(writer.prepare("INSERT INTO notes VALUES ($1, $2)"))
            writer.put(wire.sql_any("CommandPreparedStatementUpdate", f1=handle), _insert_rows()).ok()
        assert {"id": 7, "name": "x"} in guarded.rows("SELECT id, name FROM notes")
    finally:
        guarded.close()


def test_prepared_query_of_another_is_refused(unchanged):
    with unchanged.rw.wire(unchanged.server) as maker, unchanged.ro.wire(unchanged.server) as thief:
        handle = wire.handle_of(maker.prepare("SELECT id FROM people"))
        query = wire.sql_any("CommandPreparedStatementQuery", f1=handle)
        assert thief.query(query).code == "PERMISSION_DENIED"
        maker.query(query).ok()


TICKETS = {
    "select": "SELECT id FROM people",
    "insert": "INSERT INTO notes VALUES (7, 'x')",
    "ddl": "CREATE TABLE made AS SELECT 1 AS x",
}


@pytest.mark.parametrize("name", TICKETS)
def test_ticket_of_another_is_refused(unchanged, name):
    """A writer's ticket is not valid for a reader, another writer or an anonymous caller."""
    with unchanged.rw.wire(unchanged.server) as maker:
        info = maker.ask("GetFlightInfo", wire.descriptor(TICKETS[name]))
    if name != "select" and info.code != "OK":
        assert info.code in ("INVALID_ARGUMENT", "UNIMPLEMENTED")  # the server may require the update RPC for updates
        return
    ticket = wire.ticket_of(info.ok())
    others = {unchanged.ro: "PERMISSION_DENIED", unchanged.other_rw: "PERMISSION_DENIED", NOBODY: "UNAUTHENTICATED"}
    for other, wanted in others.items():
        with other.wire(unchanged.server) as flight:
            assert flight.ask("DoGet", ticket).code == wanted, other


def test_ticket_of_another_reader_is_refused(unchanged):
    with unchanged.ro.wire(unchanged.server) as maker, unchanged.other_ro.wire(unchanged.server) as thief:
        ticket = wire.ticket_of(maker.ask("GetFlightInfo", wire.descriptor("SELECT id FROM people")).ok())
        assert thief.ask("DoGet", ticket).code == "PERMISSION_DENIED"
        maker.ask("DoGet", ticket).ok()


def test_ticket_is_the_principals_however_it_shows_its_key(unchanged):
    with unchanged.ro.wire(unchanged.server) as maker:
        ticket = wire.ticket_of(maker.ask("GetFlightInfo", wire.descriptor("SELECT id FROM people")).ok())
    for header in ("x-api-key", "basic"):
        with Caller(unchanged.ro.key, header=header).wire(unchanged.server) as flight:
            flight.ask("DoGet", ticket).ok()


CANCELS = {
    "flight": lambda info: ("CancelFlightInfo", wire.message(f1=info)),
    "flight sql": lambda info: ("CancelQuery", wire.sql_any("ActionCancelQueryRequest", f1=info)),
}


@pytest.mark.parametrize("cancel", CANCELS.values(), ids=CANCELS.keys())
def test_query_of_another_is_not_cancelled(unchanged, cancel):
    with unchanged.rw.wire(unchanged.server) as maker:
        info = maker.ask("GetFlightInfo", wire.descriptor("SELECT id FROM people")).ok()
        for other, wanted in ((unchanged.ro, "PERMISSION_DENIED"), (NOBODY, "UNAUTHENTICATED")):
            with other.wire(unchanged.server) as flight:
                assert flight.act(*cancel(info.answers[0])).code == wanted
        maker.ask("DoGet", wire.ticket_of(info)).ok()
        assert maker.act(*cancel(info.answers[0])).code in ("OK", "NOT_FOUND"), "the query has already ended"


# Flight SQL's commands other than statements

INGESTS = {"append": (2, 2), "create": (1, 1), "replace": (1, 3), "create-or-append": (1, 2)}


@pytest.mark.parametrize("modes", INGESTS.values(), ids=INGESTS.keys())
@pytest.mark.parametrize("table", ["notes", "people", "made"])
def test_read_only_key_may_not_ingest(unchanged, table, modes):
    rows = pa.record_batch({"id": pa.array([7], pa.int64()), "name": ["x"]})
    with unchanged.ro.wire(unchanged.server) as flight:
        assert flight.put(wire.ingest(table, *modes), rows).code == "PERMISSION_DENIED"


# Not supported, or refused; a Substrait plan is opaque to the server.
_PLAN = wire.message(f1=b"\x12\x02\x08\x01", f2="0.54.0")
NOT_STATEMENTS = {
    "substrait-query": lambda f: f.query(wire.sql_any("CommandStatementSubstraitPlan", f1=_PLAN)),
    "substrait-update": lambda f: f.put(wire.sql_any("CommandStatementSubstraitPlan", f1=_PLAN)),
    "prepared-substrait": lambda f: f.act(
        "CreatePreparedSubstraitPlan", wire.sql_any("ActionCreatePreparedSubstraitPlanRequest", f1=_PLAN)
    ),
    "begin-transaction": lambda f: f.act("BeginTransaction", wire.sql_any("ActionBeginTransactionRequest")),
    "raw-sql-in-a-put": lambda f: f.put(b"INSERT INTO notes VALUES (7, 'x')"),
    "a-path-in-a-put": lambda f: f.ask("DoPut", wire.message(f1=wire.message(f1=1, f3="notes"))),
    "update-in-an-info": lambda f: f.query(wire.update("INSERT INTO notes VALUES (7, 'x')")),
    "ingest-in-an-info": lambda f: f.query(wire.ingest("notes")),
    "exchange": lambda f: f.ask(
        "DoExchange", wire.message(f1=wire.descriptor(wire.update("INSERT INTO notes VALUES (7, 'x')")))
    ),
    "made-up-ticket": lambda f: f.ask(
        "DoGet", wire.message(f1=wire.sql_any("TicketStatementQuery", f1="INSERT INTO notes VALUES (7, 'x')"))
    ),
    "sql-as-a-ticket": lambda f: f.ask("DoGet", wire.message(f1="INSERT INTO notes VALUES (7, 'x')")),
    "sql-as-a-handle": lambda f: f.put(
        wire.sql_any("CommandPreparedStatementUpdate", f1="INSERT INTO notes VALUES (7, 'x')")
    ),
    "action-of-no-name": lambda f: f.act("", wire.update("INSERT INTO notes VALUES (7, 'x')")),
}


@pytest.mark.parametrize("name", NOT_STATEMENTS)
def test_no_other_message_writes(unchanged, name):
    with unchanged.ro.wire(unchanged.server) as flight:
        outcome = NOT_STATEMENTS[name](flight)
    assert outcome.code in REFUSED_GRPC | {"NOT_FOUND"}, outcome


def test_schema_and_information_of_a_write_do_not_write(unchanged):
    with unchanged.ro.wire(unchanged.server) as flight:
        for method in ("GetFlightInfo", "GetSchema"):
            for text in ("INSERT INTO notes VALUES (7, 'x')", "CREATE TABLE made AS SELECT 1 AS x"):
                assert flight.ask(method, wire.descriptor(text)).code == "PERMISSION_DENIED", (method, text)


# Settings of a caller apply to that caller only

SETTINGS = {
    "datafusion.execution.batch_size": "7",
    "datafusion.sql_parser.enable_ident_normalization": "false",
    "datafusion.catalog.default_schema": "'elsewhere'",
    "datafusion.execution.time_zone": "'+05:00'",
}


@pytest.mark.parametrize("name, value", SETTINGS.items(), ids=SETTINGS.keys())
def test_setting_does_not_reach_another_caller(unchanged, name, value):
    """Whether the setting is accepted is unspecified."""
    question = f"SELECT value FROM information_schema.df_settings WHERE name = '{name}'"
    before = unchanged.rows(question)
    for way, got in outcomes(unchanged, unchanged.ro, f"SET {name} = {value}").items():
        assert got in {"200", "OK"} | REFUSED_HTTP | REFUSED_GRPC, f"{way}: {got}"
    for other in (unchanged.rw, unchanged.other_ro):
        for _ in range(4):
            assert unchanged.sql(other, question).ok().json() == before
            assert unchanged.sql(other, "SELECT ID FROM People WHERE id = 1").ok().json() == [{"id": 1}]


def test_certificates_of_both_roles(pod):
    """The same rule for certificates: a reader's cannot write, a writer's can."""
    access = Access(pod)
    pod.yaml(tls=access.tls("required"), runtime={"auth": {"mtls": access.mtls}, **PATIENT}, datasets=[data.MEMORY])
    server = pod.serve()
    for who, (http, grpc), rows in (
        ("ro", ("403", "PERMISSION_DENIED"), []),
        ("rw", ("200", "OK"), [{"id": 7}, {"id": 7}]),
    ):
        caller = Caller(pair=access.pairs[who])
        text = "INSERT INTO notes VALUES (7, 'x')"
        assert of_http(caller.curl(server, "/v1/sql", "-d", text)) == http
        with caller.wire(server) as flight:
            assert flight.put(wire.update(text)).code == grpc
        seen = caller.curl(server, "/v1/sql", "-d", "SELECT id FROM notes")
        assert seen.ok().json() == rows


def test_anonymous_readers_stay_readers(pod):
    """`allow_anonymous: ro` together with a key that may write."""
    access = Access(pod)
    auth = {"api_key": access.api_key, "allow_anonymous": "ro"}
    pod.yaml(tls=pod.write_pair(), runtime={"auth": auth, **PATIENT}, datasets=[data.MEMORY])
    server = pod.serve(env=access.environment)
    insert = ("-d", "INSERT INTO notes VALUES (7, 'x')")
    assert NOBODY.curl(server, "/v1/sql", *insert).status == 403
    with NOBODY.wire(server) as flight:
        assert flight.put(wire.update(insert[1])).code == "PERMISSION_DENIED"
        flight.query("SELECT 1 AS x").ok()
    access.rw.curl(server, "/v1/sql", *insert).ok()
    assert clients.rows(server, "SELECT id FROM notes") == [{"id": 7}]

"""PostgreSQL as a data set: every sslmode with right and wrong certificates, types, pushdown of queries, writes."""

from __future__ import annotations

import contextlib
import datetime
import json
import socket
import socketserver
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import clients
from harness.certificates import Authority
from harness.waiting import eventually

TABLE = "people"


@pytest.fixture(scope="module")
def filled(postgres):
    postgres.sql(
        f"CREATE TABLE {TABLE} (id integer PRIMARY KEY, name text, born date);"
        f"INSERT INTO {TABLE} SELECT n, 'name ' || n, DATE '2000-01-01' + n FROM generate_series(1, 1000) n;"
        f"GRANT ALL ON {TABLE} TO app, in_the_clear, by_certificate;"
    )
    return postgres


def serve(pod, postgres, source: str = TABLE, **more):
    return postgres.serve(pod, source, **more)


def state(server) -> dict:
    return clients.get(server, "/v1/datasets").ok().json()["datasets"][0] if isinstance(
        clients.get(server, "/v1/datasets").json(), dict
    ) else clients.get(server, "/v1/datasets").json()[0]


# TLS

WORKS = {
    "verify-full": {},
    "verify-ca": {"pg_sslmode": "verify-ca"},
    "verify-ca by an address": {"pg_sslmode": "verify-ca", "pg_host": "127.0.0.1"},
    "the default is verify-full": {"pg_sslmode": ""},
    "require verifies nothing without a CA": {"pg_sslmode": "require", "pg_sslrootcert": ""},
    "prefer": {"pg_sslmode": "prefer", "pg_sslrootcert": ""},
    "disable": {"pg_sslmode": "disable", "pg_user": "in_the_clear", "pg_sslrootcert": ""},
}


@pytest.mark.parametrize("how", WORKS)
def test_modes_that_work(pod, filled, how):
    server = serve(pod, filled, **WORKS[how])
    assert clients.rows(server, "SELECT name FROM t WHERE id = 7") == [{"name": "name 7"}]


FAILS = {
    "disable": ({"pg_sslmode": "disable", "pg_sslrootcert": ""}, "pg_hba.conf"),
    "another CA": ({"ca": "other"}, "is not trusted"),
    "another CA, verify-ca": ({"ca": "other", "pg_sslmode": "verify-ca"}, "is not trusted"),
    "another CA, require with a CA": ({"ca": "other", "pg_sslmode": "require"}, "is not trusted"),
    "the system's store": ({"pg_sslrootcert": ""}, "is not trusted"),
    "another name": ({"pg_host": "127.0.0.1"}, "is not for"),
    "no client certificate": ({"pg_user": "by_certificate"}, "certificate"),
    "a wrong password": ({"pg_pass": "wrong"}, "SQLSTATE 28P01"),
    "no such database": ({"pg_db": "nowhere"}, "SQLSTATE 3D000"),
    "no such table": ({"source": "nowhere"}, "SQLSTATE 42P01"),
    "nobody listens": ({"pg_port": "1"}, "refused"),
}


@pytest.mark.parametrize("how", FAILS)
def test_modes_that_fail_report_why(pod, filled, how):
    params, words = FAILS[how]
    params = dict(params)
    if params.pop("ca", None):
        params["pg_sslrootcert"] = str(pod.write("other.pem", Authority("another").pem))
    server = serve(pod, filled, params.pop("source", TABLE), **params)
    eventually(lambda: words in json.dumps(state(server)), f"{words!r} in {json.dumps(state(server))}")
    answer = clients.sql(server, "SELECT * FROM t")
    assert answer.status == 404 and words in answer.text, answer
    assert clients.get(server, "/v1/ready").status == 503


def test_a_client_certificate_that_is_renewed(pod, filled):
    """The files are read again for each connection."""
    mine = filled.ca.issue(names=(), common_name="by_certificate", client=True, ends=datetime.timedelta(days=1))
    stranger = Authority("another").issue(names=(), common_name="by_certificate", client=True)
    pod.write("me.crt", stranger.certificate)
    pod.write("me.key", stranger.key_text)
    server = serve(pod, filled, pg_user="by_certificate", pg_pass="", pg_sslcert="me.crt", pg_sslkey="me.key")
    eventually(lambda: "certificate" in json.dumps(state(server)), "it is refused")
    pod.write("me.crt", mine.certificate)
    pod.write("me.key", mine.key_text)
    eventually(lambda: clients.sql(server, "SELECT count(*) AS n FROM t").status == 200, "the next one is taken", 60)


def test_a_root_that_is_renewed(pod, filled):
    """The CA for PostgreSQL's certificate is read again too."""
    pod.write("root.pem", Authority("another").pem)
    server = serve(pod, filled, pg_sslrootcert="root.pem")
    eventually(lambda: "is not trusted" in json.dumps(state(server)), "it is refused")
    pod.write("root.pem", filled.ca.pem)
    eventually(lambda: clients.sql(server, "SELECT count(*) AS n FROM t").status == 200, "the next one is taken", 60)


@pytest.mark.parametrize("mode", ["prefer", "require", "verify-ca", "verify-full"])
def test_a_client_certificate_in_every_mode(pod, filled, mode):
    mine = filled.ca.issue(names=(), common_name="by_certificate", client=True)
    pod.write("me.crt", mine.certificate)
    pod.write("me.key", mine.key_text)
    server = serve(pod, filled, pg_sslmode=mode, pg_user="by_certificate", pg_pass="", pg_sslcert="me.crt", pg_sslkey="me.key")
    assert clients.rows(server, "SELECT name FROM t WHERE id = 7") == [{"name": "name 7"}]


@pytest.mark.parametrize("mode, works", [("prefer", True), ("require", False), ("verify-full", False)])
def test_a_server_that_has_no_tls(pod, filled, mode, works):
    """`prefer` falls back to plain text; no other mode does."""
    with WithoutTls(filled.port) as front:
        root = {} if mode == "verify-full" else {"pg_sslrootcert": ""}
        server = serve(pod, filled, pg_sslmode=mode, pg_user="in_the_clear", pg_port=str(front.port), **root)
        if works:
            assert clients.rows(server, "SELECT name FROM t WHERE id = 7") == [{"name": "name 7"}]
        else:
            eventually(lambda: "TLS" in json.dumps(state(server)), f"it says why: {state(server)}")
        assert front.asked


class WithoutTls(socketserver.ThreadingTCPServer):
    """A proxy to PostgreSQL without TLS: it answers `SSLRequest` with `N`, as a server without TLS does (PostgreSQL,
    "Message Flow").
    """

    daemon_threads = True

    def __init__(self, port: int) -> None:
        self.behind, self.asked = port, 0
        super().__init__(("127.0.0.1", 0), Forward)
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()


class Forward(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        first = self.request.recv(8, socket.MSG_WAITALL)
        with socket.create_connection(("127.0.0.1", self.server.behind)) as behind:
            if first == struct.pack("!II", 8, 80877103):
                self.server.asked += 1
                self.request.sendall(b"N")
            else:
                behind.sendall(first)
            back = threading.Thread(target=self._pass, args=(behind, self.request), daemon=True)
            back.start()
            self._pass(self.request, behind)
            back.join()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


PARAMS = {
    "pg_sslmode": ({"pg_sslmode": "on"}, "verify-full"),
    "pg_port": ({"pg_port": "many"}, "5432"),
    "pg_user": ({"pg_user": ""}, "missing"),
    "pg_sslkey": ({"pg_sslcert": "a"}, "belong together"),
    "connection_pool_size": ({"connection_pool_size": "0"}, "1 to 100"),
    "pg_sslrootcert": ({"pg_sslmode": "disable"}, "uses none"),
    "pg_pushdown": ({"pg_pushdown": "all"}, "queries, filters"),
    "pg_hots": ({"pg_hots": "x"}, "pg_host"),
}


@pytest.mark.parametrize("param", PARAMS)
def test_invalid_params(pod, filled, param):
    params, words = PARAMS[param]
    pod.yaml(datasets=[{"from": f"postgres:{TABLE}", "name": "t", "params": filled.params(**params)}])
    pod.refuse(env={"PG_PASSWORD": filled.password}).names("t", words)


# Types

TYPES = {
    "boolean": ("true", True),
    "smallint": ("-32768", -32768),
    "integer": ("2147483647", 2147483647),
    "bigint": ("-9223372036854775808", -9223372036854775808),
    "real": ("1.5", 1.5),
    "double precision": ("-0.1", -0.1),
    "numeric(10,2)": ("12345678.9", 12345678.90),
    "numeric": ("0.0000000001", 0.0000000001),
    "text": ("'é \\ \" '''", "é \\ \" '"),
    "varchar(10)": ("'abc'", "abc"),
    "char(5)": ("'abc'", "abc"),
    "date": ("'1999-12-31'", "1999-12-31"),
    "time": ("'23:59:59.000001'", "23:59:59.000001"),
    "timestamp": ("'1969-07-20 20:17:40.5'", "1969-07-20T20:17:40.500"),
    "timestamptz": ("'2000-01-01 00:00:00+02'", "1999-12-31T22:00:00Z"),
    "uuid": ("'00112233-4455-6677-8899-aabbccddeeff'", "00112233-4455-6677-8899-aabbccddeeff"),
    "json": ("""'{"a": [1]}'""", '{"a": [1]}'),
    "jsonb": ("""'{"a":  1}'""", '{"a": 1}'),
    "inet": ("'10.0.0.1/8'", "10.0.0.1/8"),
    "int4range": ("'[1,3)'", "[1,3)"),
    "integer[]": ("'{1,NULL,3}'", [1, None, 3]),
    "text[]": ("'{a,\"b,c\"}'", ["a", "b,c"]),
    "numeric(5,1)[]": ("'{1.5}'", [1.5]),
    "mood": ("'glad'", "glad"),
}


def test_types(pod, postgres):
    postgres.sql("CREATE TYPE mood AS ENUM ('sad', 'glad')")
    columns = ", ".join(f"c{at} {kind}" for at, kind in enumerate(TYPES))
    values = ", ".join(value for value, _ in TYPES.values())
    postgres.sql(
        f"CREATE TABLE kinds ({columns}); INSERT INTO kinds VALUES ({values}); INSERT INTO kinds (c0) VALUES (NULL);"
        "GRANT ALL ON kinds TO app"
    )
    server = serve(pod, postgres, "public.kinds")
    one, nulls = clients.rows(server, "SELECT * FROM t ORDER BY c0 NULLS LAST")
    for at, (kind, (_, expected)) in enumerate(TYPES.items()):
        seen = one[f"c{at}"]
        if kind.startswith("numeric"):
            seen = [float(n) for n in seen] if isinstance(seen, list) else float(seen)
        if kind.startswith("time"):
            seen, expected = seen.rstrip("Z0"), expected.rstrip("Z0")
        assert seen == expected, kind
        assert nulls.get(f"c{at}") is None, kind
    # A filter is correct for every type, whether PostgreSQL or this server applies it.
    for at, kind in enumerate(TYPES):
        assert clients.rows(server, f"SELECT count(*) AS n FROM t WHERE c{at} IS NULL") == [{"n": 1}], kind
    for text in ("c7 = 0.0000000001", "c10 = 'abc'", "c23 = 'glad'", "c15 = '00112233-4455-6677-8899-aabbccddeeff'"):
        assert clients.rows(server, f"SELECT count(*) AS n FROM t WHERE {text}") == [{"n": 1}], text


# Conditions on types that PostgreSQL compares by their own rules: case-insensitive text, several spellings of a value,
# another order. Each gives PostgreSQL's answer, or is refused.
OWN_RULES = [
    "ci = 'hello'", "ci = 'HELLO' OR ci = 'x'", "ci IN ('HELLO', 'world')", "ci <> 'hello'", "NOT ci = 'hello'", "ci LIKE 'h%'",
    "ci NOT LIKE 'h%'", "ci > 'HZ'", "ci BETWEEN 'h' AND 'HZ'", "mail = 'a@b.c'", "'HELLO' = ci AND id > 1", "ci::text = 'hello'",
    "ip = '10.0.0.1'", "ip = '10.0.0.1/32'", "ip < '9.5.0.0'", "ip IN ('9.0.0.1', '::1')", "ip::text = '10.0.0.1/32'", "net = '10/8'",
    "mac = '08-00-2B-01-02-03'", "feeling < 'ok'", "feeling >= 'ok'", "feeling = 'sad'", "cash = '12.34'", "cash > '9.5'",
    "span = '[1,4]'", "span = 'empty'", "doc = '{\"b\": 1, \"a\": 2}'", "padded = 'ab'", "padded = 'ab   '", "padded <> 'ab '",
    "padded IN ('ab  ', 'x')", "bits = '101'", "clock = '11:00:00+01'", "lsn = '0/01'", "folded = 'STRASSE'", "folded <> 'X'",
    "folded IN ('x', 'STRASSE')", "ci IS NULL OR ip IS NULL", "ci = 'hello' OR ip = '::1' OR id = 2",
]  # fmt: skip


def test_types_with_their_own_rules(pod, postgres):
    postgres.sql(
        "CREATE EXTENSION citext; CREATE DOMAIN address AS citext; CREATE TYPE feeling AS ENUM ('sad', 'ok', 'happy');"
        "CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
        "CREATE TABLE own_rules (id int, ci citext, mail address, ip inet, net cidr, mac macaddr, feeling feeling, cash money,"
        " span int4range, doc jsonb, padded char(5), bits varbit, clock timetz, lsn pg_lsn, folded text COLLATE folded);"
        "INSERT INTO own_rules VALUES (1, 'Hello', 'A@b.C', '10.0.0.1', '10.0.0.0/8', '08:00:2b:01:02:03', 'sad', '12.34', '[1,5)',"
        " '{\"a\": 2, \"b\": 1}', 'ab', '101', '12:00:00+02', '0/1', 'Strasse'),"
        "(2, 'hello', 'a@b.c', '9.0.0.1', '9.0.0.0/8', '08:00:2b:01:02:04', 'ok', '9', '[10,20)', '[]', 'ab   ', '11',"
        " '11:00:00+01', '0/2', 'strasse'),"
        "(3, 'WORLD', 'x@y.z', '::1', '10.0.0.0/8', '08:00:2b:01:02:05', 'happy', '100', 'empty', '1', 'b', '1', '12:00:00', '0/10', 'x'),"
        "(4" + ", NULL" * 14 + "); GRANT ALL ON own_rules TO app"
    )
    server = serve(pod, postgres, "own_rules", access="read_write")
    for condition in OWN_RULES:
        wanted = [int(id) for id in postgres.sql(f"SELECT id FROM own_rules WHERE {condition} ORDER BY id").split()]
        seen = [row["id"] for row in clients.rows(server, f"SELECT id FROM t WHERE {condition} ORDER BY id")]
        assert seen == wanted, condition
    # A condition that cannot be pushed down as a whole is refused, unless it compares the text.
    refused = clients.sql(server, "SELECT id FROM t WHERE ci = 'hello' OR sqrt(id) > 9")
    assert refused.status == 501 and "`ci`" in refused.text and "ci::text" in refused.text, refused
    assert clients.rows(server, "SELECT id FROM t WHERE ci::text = 'hello' OR sqrt(id) > 9") == [{"id": 2}]
    unlike = clients.sql(server, "SELECT id FROM t WHERE ip = 'no address'")
    assert unlike.status == 400, unlike
    assert clients.sql(server, "DELETE FROM t WHERE ci = 'HELLO'").ok().json() == [{"count": 2}]
    assert postgres.sql("SELECT id FROM own_rules ORDER BY id") == "3\n4"


BEYOND = {
    "a decimal too many": ("numeric", "1.00000000001", "decimals"),
    "NaN": ("numeric", "'NaN'", "NaN"),
    "infinity": ("timestamp", "'infinity'", "infinity"),
    "two dimensions": ("integer[]", "'{{1},{2}}'", "several dimensions"),
}


@pytest.mark.parametrize("what", BEYOND)
def test_values_that_have_no_counterpart_are_an_error(pod, postgres, what):
    kind, value, words = BEYOND[what]
    table = f"beyond_{list(BEYOND).index(what)}"
    postgres.sql(f"CREATE TABLE {table} (c {kind}); INSERT INTO {table} VALUES ({value}); GRANT ALL ON {table} TO app")
    server = serve(pod, postgres, table)
    answer = clients.sql(server, "SELECT c FROM t")
    assert words in answer.text or answer.exit != 0, answer
    assert answer.status in (400, 200), answer


# Pushdown

LEFT = {
    "SELECT name FROM t WHERE id = 7": 'SELECT "name" FROM "people" WHERE ("id" = (7))',
    "SELECT id FROM t WHERE id BETWEEN 3 AND 5 AND name = 'it''s'": "'it''s'",
    "SELECT id FROM t LIMIT 3": "LIMIT 3",
    "SELECT id FROM t WHERE born > DATE '2002-01-01' LIMIT 2": "2002-01-01",
    "SELECT id FROM t WHERE name IN ('a', 'b')": "OR",
}


@pytest.mark.parametrize("query", LEFT)
def test_statements_sent_to_postgresql(pod, filled, query):
    server = serve(pod, filled)
    before = len(filled.heard())
    clients.sql(server, query).ok()
    heard = [line for line in filled.heard()[before:].splitlines() if '"people"' in line and "execute" in line]
    assert any(LEFT[query] in line for line in heard), heard


def test_answers_are_those_of_postgresql(pod, filled):
    server = serve(pod, filled)
    for text in (
        "SELECT count(*) AS n, min(id) AS a, max(id) AS b FROM {t} WHERE id > 10 AND id <> 20",
        "SELECT count(*) AS n FROM {t} WHERE name < 'name 5' OR name = 'name 999'",
        "SELECT count(*) AS n FROM {t} WHERE born >= DATE '2001-01-01' AND NOT (id = 500)",
        "SELECT count(*) AS n FROM {t} WHERE name LIKE '%99'",
    ):
        ours = list(clients.rows(server, text.format(t="t"))[0].values())
        theirs = filled.sql(text.format(t=TABLE)).split("|")
        assert [str(value) for value in ours] == theirs, text


def test_settings_of_a_role_do_not_change_results(pod, filled):
    """Backslashes that escape would let a literal end early; another time zone would shift timestamps."""
    filled.sql(
        "CREATE ROLE odd LOGIN PASSWORD '" + filled.password + "'; ALTER ROLE odd SET standard_conforming_strings = off;"
        "ALTER ROLE odd SET TimeZone = 'Asia/Tokyo'; ALTER ROLE odd SET DateStyle = 'German';"
        "CREATE TABLE odd_ones (name text, at timestamptz, seen timestamp, day date);"
        r"INSERT INTO odd_ones VALUES (E'a\\', '2024-01-01 00:00:00+00', '2024-01-01 00:00:00', '2024-02-03');"
        "GRANT ALL ON odd_ones TO odd"
    )
    server = serve(pod, filled, "odd_ones", pg_user="odd")
    for condition, rows in (
        (r"name = 'a\'", 1),
        (r"name = '\'' OR 1=1 --'", 0),
        ("at = TIMESTAMP '2024-01-01T00:00:00Z'", 1),
        ("at < TIMESTAMP '2024-01-01T00:00:01Z' AND at > TIMESTAMP '2023-12-31T23:59:59Z'", 1),
        ("at = arrow_cast('2024-01-01T00:00:00Z', 'Timestamp(Microsecond, Some(\"UTC\"))')", 1),
        ("seen = TIMESTAMP '2024-01-01T00:00:00'", 1),
        ("day = DATE '2024-02-03'", 1),
        ("day > DATE '2024-02-03'", 0),
    ):
        assert clients.rows(server, f"SELECT count(*) AS n FROM t WHERE {condition}") == [{"n": rows}], condition


def test_a_large_answer_streams_and_an_abandoned_one_ends(pod, filled):
    filled.sql("CREATE VIEW endless AS SELECT n, repeat('x', 1000) AS filler FROM generate_series(1, 100000000) n; GRANT SELECT ON endless TO app")
    server = serve(pod, filled, "endless")
    assert len(clients.rows(server, "SELECT n FROM t LIMIT 5")) == 5
    clients.curl(
        server.url("/v1/sql"), "--data-binary", "SELECT * FROM t", "-H", "Accept: text/csv", "-o", "/dev/null", ca=server.ca, deadline=2
    )
    running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%endless%' AND query NOT LIKE '%pg_stat%'"
    eventually(lambda: filled.sql(running) == "0", "the query is ended on the server")


# Writes


def test_insert(pod, postgres):
    postgres.sql("CREATE TABLE written (id bigint PRIMARY KEY, name text, at timestamptz, n numeric(10,2), b bytea, f float8)")
    postgres.sql("GRANT ALL ON written TO app")
    server = serve(pod, postgres, "written", access="read_write")
    values = "(1, 'tab\t back\\slash \nline', TIMESTAMP '2024-02-03T04:05:06.789Z', 1.5, X'00ff', 0.1), (2, NULL, NULL, NULL, NULL, NULL), (3, '', NULL, -7, NULL, 'NaN')"
    assert clients.sql(server, f"INSERT INTO t VALUES {values}").ok().json() == [{"count": 3}]
    seen = postgres.sql("SELECT id, name IS NULL, n, encode(b, 'hex'), f, at AT TIME ZONE 'UTC' FROM written ORDER BY id")
    assert seen.splitlines() == ["1|f|1.50|00ff|0.1|2024-02-03 04:05:06.789", "2|t||||", "3|f|-7.00||NaN|"], seen
    assert postgres.sql("SELECT name = E'tab\\t back\\\\slash \\nline' FROM written WHERE id = 1") == "t"
    # All rows or none.
    answer = clients.sql(server, "INSERT INTO t (id) SELECT * FROM (VALUES (10), (11), (1))")
    assert answer.status == 400 and "SQLSTATE 23505" in answer.text, answer
    assert postgres.sql("SELECT count(*) FROM written") == "3"


LEFT_OUT = {
    "serial": ("id serial, a text, at timestamptz NOT NULL DEFAULT now(), n int DEFAULT 7", "(a) VALUES ('x')", "id, a, n", "1|x|7"),
    "identity": ("id int GENERATED BY DEFAULT AS IDENTITY, a text", "(a) VALUES ('x')", "id, a", "1|x"),
    "identity always": ("id int GENERATED ALWAYS AS IDENTITY, a text", "(a) SELECT 'x'", "id, a", "1|x"),
    "generated": ("a int, b int GENERATED ALWAYS AS (a * 2) STORED", "(a) VALUES (1)", "a, b", "1|2"),
    "nothing": ("a int, b text", "(b) VALUES ('x')", "a IS NULL, b", "t|x"),
    "what is given counts": ("a int DEFAULT 7, b text", "(b, a) VALUES ('x', NULL)", "a IS NULL, b", "t|x"),
}


@pytest.mark.parametrize("how", LEFT_OUT)
def test_postgresql_fills_omitted_columns(pod, postgres, how):
    columns, rows, shown, wanted = LEFT_OUT[how]
    name = "left_out_" + how.replace(" ", "_")
    postgres.sql(f"CREATE TABLE {name} ({columns}); GRANT ALL ON {name} TO app; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO app")
    server = serve(pod, postgres, name, access="read_write")
    assert clients.sql(server, f"INSERT INTO t {rows}").ok().json() == [{"count": 1}]
    assert postgres.sql(f"SELECT {shown} FROM {name}") == wanted


def test_a_parameter_matches_the_rows_that_the_literal_does(pod, postgres):
    postgres.sql("DROP TABLE IF EXISTS bound; CREATE TABLE bound (id int, n int); INSERT INTO bound VALUES (1, 2), (2, 3); GRANT ALL ON bound TO app")
    server = serve(pod, postgres, "bound", access="read_write")

    def ask(sql: str, *parameters):
        body = json.dumps({"sql": sql, "parameters": parameters})
        return clients.sql(server, body, "-H", "Content-Type: application/json").ok().json()

    assert ask("SELECT id FROM t WHERE n = $1", 2.5) == []
    assert ask("SELECT id FROM t WHERE n > $1", 2.5) == [{"id": 2}]
    assert ask("DELETE FROM t WHERE n = $1", 2.5) == [{"count": 0}]
    assert ask("UPDATE t SET id = 9 WHERE n < $1", 2.5) == [{"count": 1}]
    assert postgres.sql("SELECT * FROM bound ORDER BY n") == "9|2\n2|3"


def test_a_column_that_changes_its_type(pod, postgres):
    """Its values are not misread: the data set is loaded again, and answers with the new type."""
    postgres.sql("CREATE TABLE changing (n int); INSERT INTO changing VALUES (1); GRANT ALL ON changing TO app")
    server = serve(pod, postgres, "changing")
    assert clients.rows(server, "SELECT n FROM t") == [{"n": 1}]
    for kind, wanted in (("real", 1.0), ("text", "1"), ("bigint USING n::bigint", 1)):
        postgres.sql(f"ALTER TABLE changing ALTER n TYPE {kind}")
        answer = clients.sql(server, "SELECT n FROM t")
        if answer.status != 200:
            assert answer.status == 503 and "loaded again" in answer.text, answer
        eventually(lambda: clients.sql(server, "SELECT n FROM t").status == 200, "it answers again")
        (row,) = clients.rows(server, "SELECT n FROM t")
        assert row == {"n": wanted} and type(row["n"]) is type(wanted), (kind, row)
    postgres.sql("ALTER TABLE changing RENAME n TO m")
    assert clients.sql(server, "SELECT n FROM t").status != 200
    eventually(lambda: clients.sql(server, "SELECT m FROM t").status == 200, "its new name is known")


def test_no_start_up_parameters_for_a_pooler(pod, filled):
    """PgBouncer refuses `options` in the startup packet; with `pg_options: none` there are no options in it, and the
    settings apply nevertheless.
    """
    filled.sql("CREATE VIEW settled AS SELECT current_setting('TimeZone') AS zone, current_setting('default_transaction_read_only') AS only")
    filled.sql("GRANT ALL ON settled TO app")
    server = serve(pod, filled, "settled", pg_options="none")
    assert clients.rows(server, "SELECT * FROM t") == [{"zone": "UTC", "only": "on"}]


def test_read_only_data_sets_write_nothing(pod, filled):
    server = serve(pod, filled)
    assert clients.sql(server, "INSERT INTO t VALUES (5000, 'x', NULL)").status == 403
    assert clients.rows(server, "SELECT count(*) AS n FROM t") == [{"n": 1000}]


def test_the_server_restarts(pod, filled):
    """A lost connection is opened again, without a restart of the server."""
    server = serve(pod, filled)
    assert clients.rows(server, "SELECT count(*) AS n FROM t") == [{"n": 1000}]
    filled.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'spiced'")
    eventually(lambda: clients.sql(server, "SELECT count(*) AS n FROM t").status == 200, "it answers again")


def test_connections_are_bounded(pod, postgres):
    """At most `connection_pool_size` connections, however many callers there are; a caller that waits ten seconds gets
    an error, and others are not affected.
    """
    postgres.sql("CREATE TABLE busy (n integer); INSERT INTO busy VALUES (1); GRANT ALL ON busy TO app")
    server = serve(pod, postgres, "busy", connection_pool_size="2")
    assert clients.rows(server, "SELECT n FROM t") == [{"n": 1}]
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'spiced' AND wait_event_type = 'Lock' AND query LIKE '%busy%'"
    with postgres.session() as other, ThreadPoolExecutor(5) as all_at_once:
        other("BEGIN; LOCK TABLE busy IN ACCESS EXCLUSIVE MODE;")
        asked = [all_at_once.submit(clients.sql, server, f"SELECT n + {number} AS n FROM t") for number in range(5)]
        eventually(lambda: postgres.sql(waiting) == "2", "two wait for the table")
        eventually(lambda: sum(one.done() for one in asked) == 3, "the others have given up")
        assert postgres.sql(waiting) == "2"
        assert clients.rows(server, "SELECT 1 AS n") == [{"n": 1}]
        for one in asked:
            if one.done():
                assert one.result().status == 503 and "was free within 10s" in one.result().text, one.result()
        other("COMMIT;")
        assert sum(one.result().status == 200 for one in asked) == 2
    assert clients.rows(server, "SELECT n FROM t") == [{"n": 1}]

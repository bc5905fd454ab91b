"""UPDATE, DELETE and TRUNCATE, on a table in memory and on a table in PostgreSQL, compared with DuckDB."""

from __future__ import annotations

import json
import threading

import duckdb
import pytest

from harness import clients
from harness.pod import Pod
from harness.waiting import eventually

COLUMNS = {"id": "BIGINT", "name": "VARCHAR", "born": "DATE", "n": "NUMERIC(10,2)", "x": "DOUBLE PRECISION"}
ROWS = """
    (1, 'Ada', DATE '1815-12-10', 1.50, 0.5), (2, 'grace', DATE '1906-12-09', -2.25, -0.0), (3, NULL, NULL, NULL, NULL),
    (4, 'it''s', DATE '1930-05-11', 0.00, 1e300), (5, '', DATE '1970-01-01', 99999999.99, 3), (6, 'Zoë \\ "q"', NULL, 7, NULL)
"""
OTHERS = "(2, 'two'), (4, 'four'), (NULL, 'none'), (9, 'nine')"

STATEMENTS = {
    "nothing": "DELETE FROM {t} WHERE false",
    "not even NULL": "DELETE FROM {t} WHERE NULL",
    "all": "DELETE FROM {t}",
    "all that is": "DELETE FROM {t} WHERE true",
    "one": "DELETE FROM {t} WHERE id = 3",
    "a condition that PostgreSQL has": "DELETE FROM {t} WHERE id > 2 AND born IS NOT NULL",
    "a condition that it orders in another way": "DELETE FROM {t} WHERE name > 'a'",
    "a number's own": "DELETE FROM {t} WHERE n * 2 = 3 OR n IS NULL",
    "a function": "DELETE FROM {t} WHERE upper(name) = 'GRACE'",
    "quotes": "DELETE FROM {t} WHERE name = 'it''s'",
    "among others": "DELETE FROM {t} WHERE id IN (SELECT id FROM {o})",
    "not among others, where one is NULL": "DELETE FROM {t} WHERE id NOT IN (SELECT id FROM {o})",
    "not among those that are": "DELETE FROM {t} WHERE id NOT IN (SELECT id FROM {o} WHERE id IS NOT NULL)",
    "that there is": "DELETE FROM {t} WHERE EXISTS (SELECT 1 FROM {o} WHERE {o}.id = {t}.id)",
    "that there is not": "DELETE FROM {t} WHERE NOT EXISTS (SELECT 1 FROM {o} WHERE {o}.id = {t}.id)",
    "above its own mean": "DELETE FROM {t} WHERE n > (SELECT avg(n) FROM {t})",
    "truncate": "TRUNCATE TABLE {t}",
    "a constant": "UPDATE {t} SET name = 'x'",
    "a constant, somewhere": "UPDATE {t} SET name = 'a\\b ''c'' {{d}}' WHERE id IN (1, 3)",
    "nowhere": "UPDATE {t} SET name = 'x' WHERE false",
    "from itself": "UPDATE {t} SET n = n - 1, x = x * 2",
    "turn about": "UPDATE {t} SET id = 10 - id, n = id WHERE n IS NOT NULL AND n < 100",
    "NULL": "UPDATE {t} SET name = NULL, born = NULL, n = NULL, x = NULL WHERE id < 4",
    "a function of it": "UPDATE {t} SET name = upper(name) WHERE name LIKE '%a%'",
    "each": "UPDATE {t} SET id = 7, name = 'q', born = DATE '2001-02-03', n = 1.25, x = 0.1 WHERE id = 6",
    "a day": "UPDATE {t} SET born = DATE '0001-01-01' WHERE born < DATE '1900-01-01'",
    "by a name of its own": "UPDATE {t} AS this SET n = this.id WHERE this.id % 2 = 0",
    "a value of another": "UPDATE {t} SET name = (SELECT max(name) FROM {o}) WHERE id = 1",
    "a value of its own of another": "UPDATE {t} SET name = (SELECT max({o}.name) FROM {o} WHERE {o}.id = {t}.id)",
    "where another is": "UPDATE {t} SET name = 'x', n = n + id WHERE id IN (SELECT id FROM {o}) AND n < 1",
    "a choice": "UPDATE {t} SET name = CASE WHEN id < 3 THEN 'low' ELSE name END WHERE id <> 4",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory, postgres):
    """A server on which each test creates its tables; those in PostgreSQL are data sets from the start."""
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    for at in range(len(STATEMENTS)):
        postgres.sql(
            f"CREATE TABLE change_{at} ({columns}); INSERT INTO change_{at} VALUES {ROWS}; GRANT ALL ON change_{at} TO app"
        )
    pod = Pod(tmp_path_factory.mktemp("changes"))
    datasets = [
        {"from": f"postgres:change_{at}", "name": f"pg_{at}", "access": "read_write", "params": postgres.params(connection_pool_size="1")}
        for at in range(len(STATEMENTS))
    ]
    pod.yaml(tls=pod.write_pair(), datasets=datasets, runtime={"auth": {"allow_anonymous": "rw"}})
    server = pod.serve(env={"PG_PASSWORD": postgres.password})
    eventually(lambda: clients.get(server, "/v1/ready").status == 200, "every table is loaded")
    clients.sql(server, f"CREATE TABLE others AS SELECT * FROM (VALUES {OTHERS}) AS t(id, name)").ok()
    yield server
    pod.close()


def expected(statement: str) -> tuple[int, list]:
    """DuckDB's result: the number of changed rows, and the table's content afterwards."""
    base = duckdb.connect()
    base.execute(f"CREATE TABLE t ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})")
    base.execute(f"INSERT INTO t VALUES {ROWS}")
    base.execute(f"CREATE TABLE others AS SELECT * FROM (VALUES {OTHERS}) AS t(id, name)")
    count = base.execute(statement.format(t="t", o="others")).fetchone()[0]
    return count, base.execute("SELECT * FROM t ORDER BY ALL").fetchall()


def seen(server, table: str) -> list:
    with clients.flight_client(server) as client:
        found = clients.query(client, f"SELECT * FROM {table} ORDER BY 1 ASC NULLS LAST, 2, 3, 4, 5")
    return [tuple(row[name] for name in COLUMNS) for row in found.to_pylist()]


@pytest.mark.parametrize("where", ["memory", "postgres"])
@pytest.mark.parametrize("what", STATEMENTS)
def test_as_duckdb_does_it(served, what, where):
    at = list(STATEMENTS).index(what)
    table = f"pg_{at}"
    if where == "memory":
        table = f"m_{at}"
        types = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
        clients.sql(served, f"CREATE TABLE {table} ({types})").ok()
        clients.sql(served, f"INSERT INTO {table} VALUES {ROWS}").ok()
    statement = STATEMENTS[what].format(t=table, o="others")
    clients.sql(served, f"EXPLAIN {statement}").ok()
    assert len(seen(served, table)) == 6
    count, rows = expected(STATEMENTS[what])
    answer = clients.sql(served, statement).ok().json()
    assert seen(served, table) == rows
    if what != "truncate":
        assert answer == [{"count": count}]


def serve(pod, postgres, table: str):
    server = postgres.serve(pod, table, access="read_write")
    eventually(lambda: clients.get(server, "/v1/ready").status == 200, "it is loaded")
    return server


KINDS = {
    "text[]": r"""ARRAY['a', NULL, '', 'NULL', 'with "quotes"', 'back\slash', 'a,b', '{c}', E'\t\n']""",
    "integer[]": "'{1,NULL,-3}'",
    "numeric(6,2)[]": "'{1.5,NULL,-3}'",
    "bytea[]": r"""'{"\\x00ff",NULL,"\\x"}'""",
    "boolean[]": "'{t,f,NULL}'",
    "timestamptz[]": "'{2024-01-02 03:04:05.678+00}'",
    "double precision[]": "'{NaN,-Infinity,0.1}'",
    "date[]": "'{}'",
    "uuid": "'4b1b9a4e-8f6c-4d0e-9f5b-0c1d2e3f4a5b'",
    "jsonb": """'{"a": [1, "x"]}'""",
    "json": """'{"a":  1}'""",
    "bytea": r"'\x00ff'",
    "interval": "'1 year 2 days 03:04:05.678'",
    "time": "'23:59:59.999999'",
    "inet": "'10.0.0.1/8'",
    "char(5)": "'ab'",
    "varchar(5)": "'abcde'",
    "real": "'1e-38'",
    "timestamp": "'0044-03-15 12:00:00.5 BC'",
    "timestamp(0)": "'12345-01-01 00:00:00'",
    "date": "'0001-12-31 BC'",
    "point": "'(0.1,1e-300)'",
    "oid": "4294967295",
    '"an odd kind"': "'b'",
}


def test_every_type_comes_back_as_it_was(pod, postgres):
    """Rows copied by INSERT and by UPDATE, through the server, equal PostgreSQL's originals."""
    postgres.sql("CREATE TYPE \"an odd kind\" AS ENUM ('a', 'b')")
    columns = ", ".join(f"c{at} {kind}" for at, kind in enumerate(KINDS))
    postgres.sql(
        f"CREATE TABLE kinds_changed (id integer, {columns});"
        f"INSERT INTO kinds_changed VALUES (1, {', '.join(KINDS.values())}); INSERT INTO kinds_changed (id) VALUES (2);"
        "GRANT ALL ON kinds_changed TO app"
    )
    server = serve(pod, postgres, "kinds_changed")
    names = [f"c{at}" for at in range(len(KINDS))]
    assert clients.sql(server, f"INSERT INTO t SELECT id + 2, {', '.join(names)} FROM t").ok().json() == [{"count": 2}]
    given = ", ".join(f"{name} = CASE WHEN id > 0 THEN {name} END" for name in names)
    assert clients.sql(server, f"UPDATE t SET {given} WHERE id = 3").ok().json() == [{"count": 1}]
    for one, other in ((1, 3), (2, 4)):
        for name, kind in zip(names, KINDS):
            same = f"SELECT a.{name}::text IS NOT DISTINCT FROM b.{name}::text FROM kinds_changed a, kinds_changed b WHERE a.id = {one} AND b.id = {other}"
            assert postgres.sql(same) == "t", (kind, postgres.sql(f"SELECT {name} FROM kinds_changed"))


def test_what_postgresql_refuses_changes_nothing(pod, postgres):
    postgres.sql(
        "CREATE DOMAIN code AS varchar(3);"
        "CREATE TABLE guarded (id bigint PRIMARY KEY, name varchar(5) NOT NULL, n integer CHECK (n < 3000), code code);"
        "INSERT INTO guarded SELECT n, 'n' || n, n, 'abc' FROM generate_series(1, 2999) n; GRANT ALL ON guarded TO app"
    )
    server = serve(pod, postgres, "guarded")
    for text, state in (
        ("UPDATE t SET n = n + 1", "23514"),
        ("UPDATE t SET name = NULL WHERE id = 2", "23502"),
        ("UPDATE t SET name = 'too long'", "22001"),
        ("UPDATE t SET id = 7 WHERE id = 8", "23505"),
        ("UPDATE t SET code = 'abcd'", "22001"),
    ):
        answer = clients.sql(server, text)
        assert answer.status == 400 and state in answer.text, answer
        assert postgres.sql("SELECT count(*), sum(n), sum(id) FROM guarded WHERE name = 'n' || id") == "2999|4498500|4498500"
    # Several rows at once; more than one message holds.
    assert clients.sql(server, "UPDATE t SET n = -n").ok().json() == [{"count": 2999}]
    assert postgres.sql("SELECT sum(n) FROM guarded") == "-4498500"
    assert clients.sql(server, "DELETE FROM t WHERE n % 2 = 0").ok().json() == [{"count": 1499}]
    assert postgres.sql("SELECT count(*) FROM guarded") == "1500"


def test_constraints_are_those_of_one_statement(pod, postgres):
    """Rows that depend on each other change together, whatever their number."""
    postgres.sql(
        "CREATE TABLE chained (id integer PRIMARY KEY, parent integer REFERENCES chained, at integer UNIQUE DEFERRABLE);"
        "INSERT INTO chained SELECT n, nullif(n - 1, 0), n FROM generate_series(1, 3000) n; GRANT ALL ON chained TO app"
    )
    server = serve(pod, postgres, "chained")
    assert clients.sql(server, "UPDATE t SET at = 3001 - at").ok().json() == [{"count": 3000}]
    assert clients.sql(server, "DELETE FROM t WHERE id < 2").status == 400
    assert clients.sql(server, "DELETE FROM t").ok().json() == [{"count": 3000}]


def test_a_table_that_is_rewritten_meanwhile(pod, postgres):
    """VACUUM FULL between the read and the change: the row ids then belong to other rows."""
    postgres.sql(
        "CREATE TABLE moved (n integer, name text); INSERT INTO moved SELECT n, 'a' FROM generate_series(1, 3) n;"
        "DELETE FROM moved WHERE n = 1; CREATE TABLE slow (n integer); INSERT INTO slow VALUES (2);"
        "CREATE FUNCTION slowly() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN true; END $$;"
        "CREATE VIEW slow_view AS SELECT n FROM slow WHERE slowly(); GRANT ALL ON moved, slow_view TO app"
    )
    pod.yaml(
        datasets=[
            {"from": f"postgres:{source}", "name": name, "access": access, "params": postgres.params()}
            for source, name, access in (("moved", "t", "read_write"), ("slow_view", "s", "read"))
        ],
        runtime={"auth": {"allow_anonymous": "rw"}},
    )
    server = pod.serve(env={"PG_PASSWORD": postgres.password})
    eventually(lambda: clients.get(server, "/v1/ready").status == 200, "they are loaded")
    answers = []
    with postgres.session() as other:
        other("SELECT pg_advisory_lock(7);")
        # The rows of `t` have been read, and the query of `s` is blocked.
        text = "UPDATE t SET name = 'b' WHERE n IN (SELECT n FROM s)"
        asking = threading.Thread(target=lambda: answers.append(clients.sql(server, text)))
        asking.start()
        running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{}%' AND state = '{}' AND application_name = 'spiced'"
        eventually(lambda: postgres.sql(running.format("slow_view", "active")) == "1", "the condition is asked for")
        eventually(lambda: postgres.sql(running.format("FROM \"moved\"", "idle")) != "0", "the rows have been read")
        postgres.sql("VACUUM FULL moved")
        other("SELECT pg_advisory_unlock(7);")
        asking.join()
    assert answers[0].status == 503 and "try it again" in answers[0].text, answers
    assert postgres.sql("SELECT string_agg(n || name, ',' ORDER BY n) FROM moved") == "2a,3a"
    assert clients.sql(server, text).ok().json() == [{"count": 1}]
    assert postgres.sql("SELECT string_agg(n || name, ',' ORDER BY n) FROM moved") == "2b,3a"


def test_a_table_named_like_the_temporary_one(pod, postgres):
    postgres.sql("CREATE TABLE spiced_changes (a0 integer, v0 text); INSERT INTO spiced_changes VALUES (1, 'a'), (2, 'b')")
    postgres.sql("GRANT ALL ON spiced_changes TO app")
    server = serve(pod, postgres, "public.spiced_changes")
    assert clients.sql(server, "UPDATE t SET v0 = 'c' WHERE a0 = 2").ok().json() == [{"count": 1}]
    assert postgres.sql("SELECT string_agg(v0, ',' ORDER BY a0) FROM spiced_changes") == "a,c"


def test_foreign_parts(pod, postgres):
    """Rows of a foreign server have no row id, so no row of the table is changed."""
    postgres.sql(
        "CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;"
        "CREATE TABLE mixed (id integer, name text) PARTITION BY LIST (id); CREATE TABLE mixed_1 PARTITION OF mixed FOR VALUES IN (1);"
        "CREATE FOREIGN TABLE mixed_2 PARTITION OF mixed FOR VALUES IN (2) SERVER files OPTIONS (program 'echo 2,b', format 'csv');"
        "INSERT INTO mixed_1 VALUES (1, 'a'); GRANT ALL ON mixed, mixed_1, mixed_2 TO app; GRANT pg_execute_server_program TO app"
    )
    server = serve(pod, postgres, "mixed")
    answer = clients.sql(server, "UPDATE t SET name = 'c' WHERE name < 'b'")
    assert answer.status == 501 and "foreign parts" in answer.text, answer
    assert clients.rows(server, "SELECT name FROM t ORDER BY id") == [{"name": "a"}, {"name": "b"}]


def test_partitions_and_views(pod, postgres):
    postgres.sql(
        "CREATE TABLE parted (id integer, name text) PARTITION BY LIST (id); CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);"
        "CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2); INSERT INTO parted VALUES (1, 'a'), (2, 'b');"
        "CREATE VIEW seen_through AS SELECT * FROM parted; GRANT ALL ON parted, parted_1, parted_2, seen_through TO app"
    )
    server = serve(pod, postgres, "parted")
    # Both rows have the same row id, each in its own partition.
    assert clients.sql(server, "UPDATE t SET name = 'c' WHERE id = 2").ok().json() == [{"count": 1}]
    assert clients.sql(server, "UPDATE t SET id = 1 WHERE id = 2").ok().json() == [{"count": 1}]
    assert postgres.sql("SELECT string_agg(name, ',' ORDER BY name) FROM parted_1") == "a,c"
    answer = clients.sql(serve(pod, postgres, "seen_through"), "DELETE FROM t")
    assert answer.status == 501 and "a view" in answer.text, answer


def test_a_row_that_is_changed_concurrently(pod, postgres):
    """A concurrent change is not overwritten: the server's change waits for it, and then fails."""
    postgres.sql("CREATE TABLE counted (n integer); INSERT INTO counted VALUES (0); GRANT ALL ON counted TO app")
    server = serve(pod, postgres, "counted")
    done, failed = [], []

    def count():
        while len(done) < 60:
            answer = clients.sql(server, "UPDATE t SET n = n + 1")
            (done if answer.status == 200 else failed).append(answer)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answer.status == 503 and "try it again" in answer.text for answer in failed), failed[:1]
    assert postgres.sql("SELECT n FROM counted") == str(len(done))


def test_an_abandoned_change_is_undone(pod, postgres):
    """The client disconnects while PostgreSQL works: nothing is changed, and no session or lock remains."""
    postgres.sql("CREATE TABLE held (n integer); INSERT INTO held VALUES (1); GRANT ALL ON held TO app")
    server = serve(pod, postgres, "held")
    with postgres.session() as other:
        other("BEGIN; SELECT * FROM held FOR UPDATE;")
        answer = clients.sql(server, "UPDATE t SET n = 2", "-H", "Prefer: wait=1")
        assert answer.status != 200, answer
        other("COMMIT;")
    waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'spiced' AND state <> 'idle'"
    eventually(lambda: postgres.sql(waits) == "0", "it is ended on the server")
    assert postgres.sql("SELECT n FROM held") == "1"
    assert clients.sql(server, "UPDATE t SET n = 3").ok().json() == [{"count": 1}]


def test_by_adbc(pod):
    """`adbc_execute_update` returns the number of rows."""
    pod.yaml(tls=pod.write_pair(), runtime={"auth": {"allow_anonymous": "rw"}})
    server = pod.serve()
    with clients.adbc(server) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t AS SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS t(id, name)")
        cursor.execute("UPDATE t SET name = ? WHERE id = ?", ("x", 2))
        assert cursor.rowcount in (-1, 1)
        cursor.executemany("DELETE FROM t WHERE id = ?", [(1,), (5,)])
        cursor.execute("SELECT * FROM t")
        assert cursor.fetchall() == [(2, "x")]
    assert json.loads(clients.sql(server, "SELECT count(*) AS n FROM t").ok().body) == [{"n": 1}]

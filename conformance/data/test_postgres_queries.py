"""Joins and aggregates that PostgreSQL executes: the same results as over the same rows in memory, in one statement."""

from __future__ import annotations

import json

import pytest

from harness import clients
from harness.pod import Pod

# Nulls on both sides of a join, a key without a match, texts that are equal under other collations, halves that round,
# zeros of both signs, NaN, years before the first.
SETUP = """
CREATE TABLE parts (id int PRIMARY KEY, name text, kind varchar(10), price numeric(10,2), weight float8, made date, sold timestamp,
                    seen timestamptz, big int8, small int2, is_new bool, tags text[], half float4, loose numeric,
                    key uuid, code char(4), heat heat);
INSERT INTO parts
    SELECT n, CASE WHEN n % 11 = 0 THEN NULL WHEN n % 3 = 0 THEN 'Part ' || n % 5 ELSE 'part ' || n % 5 END, 'k' || n % 4,
           ((n % 17) - 8) * 1.37, CASE n % 7 WHEN 0 THEN '-0'::float8 WHEN 1 THEN 0 ELSE n / 8.0 END, DATE '1999-12-25' + n,
           TIMESTAMP '2024-02-28 23:30:00' + n * INTERVAL '7 hours', TIMESTAMPTZ '2024-02-28 23:30:00+05' + n * INTERVAL '7 hours',
           n::int8 * 1000000007, n % 100 - 50, n % 2 = 0, ARRAY['a', 'b'], n / 4.0, n * 0.125,
           ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'c' || n % 6, (ARRAY['cold', 'hot'])[n % 2 + 1]::heat
    FROM generate_series(1, 300) n;
INSERT INTO parts (id, weight, made, price) VALUES (1001, 'NaN', '0044-03-15 BC', NULL), (1002, NULL, NULL, 99999999.99);
CREATE TABLE orders (no int PRIMARY KEY, part int, amount int8, at date, note text COLLATE "lax", discount numeric(4,2), key uuid);
INSERT INTO orders
    SELECT n, CASE WHEN n % 13 = 0 THEN NULL ELSE n % 350 END, n % 9, DATE '2024-01-01' + n % 40,
           CASE WHEN n % 2 = 0 THEN 'a' ELSE 'A' END, (n % 10) / 100.0,
           ('00000000-0000-4000-8000-' || lpad(to_hex(n % 50), 12, '0'))::uuid
    FROM generate_series(1, 2000) n;
CREATE TABLE odd (id int, c0 int, c1 int, o oid, n name, long text, a text COLLATE "C", b text COLLATE "POSIX", nan float8, low float8);
INSERT INTO odd
    SELECT k, -k, k % 3, k, repeat('x', 63), repeat('x', 60 + k % 5), 'a' || k % 2, 'a' || k % 3,
           CASE k % 4 WHEN 0 THEN 'Infinity'::float8 - 'Infinity'::float8 WHEN 1 THEN 'NaN' ELSE k END, '-0'::float8
    FROM generate_series(1, 40) k;
CREATE TABLE elders (x int NOT NULL);
CREATE TABLE younger () INHERITS (elders);
ALTER TABLE younger ALTER x DROP NOT NULL;
INSERT INTO younger VALUES (NULL), (1);
GRANT ALL ON parts, orders, odd, elders TO app, in_the_clear;
"""


TABLES = ("parts", "orders", "odd", "elders")


@pytest.fixture(scope="module")
def server(tmp_path_factory, postgres):
    postgres.sql("CREATE TYPE heat AS ENUM ('hot', 'cold')")
    postgres.sql("CREATE COLLATION lax (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    postgres.sql(SETUP)
    pod = Pod(tmp_path_factory.mktemp("queries"))
    sets = [{"from": f"postgres:{table}", "name": f"pg.{table}", "params": postgres.params()} for table in TABLES]
    other = postgres.params(pg_user="in_the_clear")
    sets.append({"from": "postgres:orders", "name": "elsewhere.orders", "params": other})
    other = postgres.params(pg_pushdown="filters")
    sets.append({"from": "postgres:orders", "name": "filters.orders", "params": other})
    other = postgres.params(connection_pool_size="1")
    sets.append({"from": "postgres:orders", "name": "pg.orders_again", "params": other})
    pod.yaml(datasets=sets, runtime={"auth": {"allow_anonymous": "rw"}})
    server = pod.serve(env={"PG_PASSWORD": postgres.password})
    for table in TABLES:
        clients.sql(server, f"CREATE TABLE {table} AS SELECT * FROM pg.{table}").ok()
    clients.sql(server, "CREATE TABLE orders_again AS SELECT * FROM pg.orders").ok()
    yield server
    pod.close()


def _asked(server, text: str) -> list[str]:
    """The statements that would be sent to PostgreSQL."""
    rows = clients.rows(server, f"EXPLAIN {text}")
    plan = next(row["plan"] for row in rows if row["plan_type"] == "physical_plan")
    return [line.split("PostgreSQL: ", 1)[1] for line in plan.splitlines() if "PostgreSQL: " in line]


def _sorted(rows: list[dict]) -> list[str]:
    return sorted(json.dumps(_near(row)) for row in rows)


def _near(row: dict) -> dict:
    """A float's last digits depend on the order of the additions."""
    return {name: float(f"{value:.12g}") if isinstance(value, float) else value for name, value in row.items()}


WHOLE = {
    "counts": "SELECT count(*) AS a, count(name) AS b, count(DISTINCT kind) AS c FROM pg.parts",
    "no rows": "SELECT count(*) AS a, sum(id) AS b, avg(price) AS c, min(made) AS d FROM pg.parts WHERE id < 0",
    "no groups of no rows": "SELECT kind, count(*) AS n FROM pg.parts WHERE id < 0 GROUP BY kind",
    "sums": "SELECT sum(id) AS a, sum(big) AS b, sum(small) AS c, sum(price) AS d, sum(half) AS e FROM pg.parts",
    "means": "SELECT avg(id) AS a, avg(big) AS b, avg(price) AS c, avg(half) AS d FROM pg.parts GROUP BY kind",
    "means of negative ones": "SELECT small, avg(price) AS c FROM pg.parts WHERE price < 0 GROUP BY small",
    "ends": "SELECT min(id) AS a, max(price) AS b, min(made) AS c, max(sold) AS d, min(seen) AS e, max(small) AS f FROM pg.parts",
    "truths": "SELECT kind, bool_and(is_new) AS a, bool_or(id > 297) AS b FROM pg.parts GROUP BY kind",
    "groups with a null": "SELECT name, count(*) AS n FROM pg.parts GROUP BY name",
    "groups of several": "SELECT kind, is_new, made > DATE '2000-06-01' AS late, sum(price) AS n FROM pg.parts GROUP BY kind, is_new, late",
    "distinct": "SELECT DISTINCT kind, is_new FROM pg.parts",
    "having": "SELECT name, count(*) AS n FROM pg.parts GROUP BY name HAVING count(*) > 30",
    "having a mean": "SELECT name, count(*) AS n FROM pg.parts GROUP BY name HAVING sum(price) > 3 AND name LIKE 'P%'",
    "filters of their own": "SELECT count(*) FILTER (WHERE name LIKE 'part%') AS a, sum(id) FILTER (WHERE is_new) AS b FROM pg.parts",
    "arithmetic": "SELECT kind, sum(price * (1 - price)) AS a, sum(price + 2) AS b, sum(price - price) AS c FROM pg.parts GROUP BY kind",
    "arithmetic in groups": "SELECT price * 2 AS twice, count(*) AS n FROM pg.parts GROUP BY twice",
    "choices": "SELECT sum(CASE WHEN kind = 'k1' THEN price ELSE 0 END) AS a, sum(CASE WHEN id > 5 THEN 1 END) AS b FROM pg.parts",
    "constants": "SELECT 'x' AS x, 7 AS y, count(*) AS n FROM pg.parts GROUP BY kind",
    "years and months": "SELECT extract(year FROM made) AS y, date_part('month', sold) AS m, count(*) AS n FROM pg.parts GROUP BY y, m",
    "days": "SELECT date_trunc('day', sold) AS d, count(*) AS n FROM pg.parts GROUP BY d",
    "weeks": "SELECT date_trunc('week', seen) AS d, count(*) AS n FROM pg.parts GROUP BY d",
    "distinct sums": "SELECT sum(DISTINCT small) AS a FROM pg.parts",
    "an aggregate of aggregates": "SELECT n, count(*) AS m FROM (SELECT kind, name, count(*) AS n FROM pg.parts GROUP BY kind, name) GROUP BY n",
    "a join": "SELECT p.id, o.no, p.tags, o.note FROM pg.parts p JOIN pg.orders o ON p.id = o.part WHERE o.amount > 6",
    "a join of three": "SELECT count(*) AS n FROM pg.parts p JOIN pg.orders o ON p.id = o.part JOIN pg.orders_again q ON q.no = o.part WHERE q.amount = o.amount",
    "a join with itself": "SELECT count(*) AS n, min(a.id) AS m FROM pg.parts a JOIN pg.parts b ON a.name = b.name AND a.id < b.id",
    "a left join": "SELECT p.kind, count(o.no) AS n, count(*) AS m FROM pg.parts p LEFT JOIN pg.orders o ON p.id = o.part AND o.amount > 7 GROUP BY p.kind",
    "a left join, then a condition": "SELECT p.id FROM pg.parts p LEFT JOIN pg.orders o ON p.id = o.part WHERE o.no IS NULL",
    "a right join": "SELECT o.no, p.id FROM pg.parts p RIGHT JOIN pg.orders o ON p.id = o.part AND p.is_new",
    "in a subquery": "SELECT count(*) AS n FROM pg.parts WHERE id IN (SELECT part FROM pg.orders WHERE amount = 3)",
    "exists": "SELECT kind, count(*) AS n FROM pg.parts p WHERE EXISTS (SELECT 1 FROM pg.orders o WHERE o.part = p.id AND o.no > p.id) GROUP BY kind",
    "exists not": "SELECT id FROM pg.parts p WHERE NOT EXISTS (SELECT 1 FROM pg.orders o WHERE o.part = p.id)",
    "a scalar within": "SELECT p.id FROM pg.parts p WHERE p.price < (SELECT avg(o.discount) FROM pg.orders o WHERE o.part = p.id)",
    "a join of groups": "SELECT p.kind, sum(g.n) AS n FROM pg.parts p JOIN (SELECT part, sum(amount) AS n FROM pg.orders GROUP BY part) g ON g.part = p.id GROUP BY p.kind",
    "a quote": "SELECT kind, count(*) AS n FROM pg.parts WHERE name <> 'it''s \\' GROUP BY kind",
    "the first": "SELECT id, name, tags FROM pg.parts ORDER BY price DESC NULLS LAST, id LIMIT 5",
    "the first by a column that is called as ours": "SELECT id, c1, c0 FROM pg.odd ORDER BY c0 LIMIT 3",
    "sums of zeros below zero": "SELECT sum(low) AS a, avg(low) AS b FROM pg.odd",
    "names": "SELECT n, count(*) AS k FROM pg.odd WHERE n <> repeat('x', 64) GROUP BY n",
    "two collations": "SELECT count(*) AS k FROM pg.odd x JOIN pg.odd y ON x.a = y.b AND x.n = y.long AND x.a <> 'a0'",
    "the first behind some": "SELECT id, price FROM pg.parts ORDER BY made NULLS FIRST, id DESC LIMIT 5 OFFSET 3",
    "the first groups": "SELECT kind, sum(price) AS s FROM pg.parts GROUP BY kind ORDER BY s DESC LIMIT 2",
    "more digits than fit": "SELECT sum(loose * price * (1 - price) * loose) AS a, avg(loose) AS b FROM pg.parts",
    "uuids": "SELECT key, count(*) AS n FROM pg.orders WHERE key <> '00000000-0000-4000-8000-000000000003' GROUP BY key",
    "a join by uuids": "SELECT count(*) AS n FROM pg.parts p JOIN pg.orders o ON p.key = o.key AND p.key > '00000000-0000-4000-8000-000000000010'",
    "uuids in order": "SELECT id, key FROM pg.parts ORDER BY key DESC NULLS LAST LIMIT 3",
    "texts with blanks": "SELECT code, count(*) AS n FROM pg.parts WHERE code IN ('c1', 'c2', 'c3') GROUP BY code",
    "enums": "SELECT heat, count(*) AS n FROM pg.parts WHERE heat <> 'hot' GROUP BY heat",
    "a join by what is text here": "SELECT count(*) AS n FROM pg.parts a JOIN pg.parts b ON a.code = b.code AND a.heat = b.heat",
}
# Expressions that differ in PostgreSQL, or may differ, as a whole or in part.
PARTLY = {
    "floats": "SELECT kind, sum(weight) AS a, count(*) AS n FROM pg.parts WHERE weight > 1.0 AND weight < 30.5 GROUP BY kind",
    "a limit within": "SELECT count(*) AS n FROM (SELECT id FROM pg.parts LIMIT 7)",
    "floats beside decimals": "SELECT sum(price + 1.5) AS n FROM pg.parts",
    "floats are not told apart as they are here": "SELECT weight, count(*) AS n FROM pg.parts GROUP BY weight",
    "ends of floats": "SELECT min(weight) AS a, max(weight) AS b FROM pg.parts",
    "zero": "SELECT count(*) AS n FROM pg.parts WHERE weight >= 0",
    "below zero": "SELECT count(*) AS n FROM pg.parts WHERE weight < 0",
    "an end of texts": "SELECT min(name) AS a, max(name) AS b FROM pg.parts",
    "oids": "SELECT count(*) AS k FROM pg.odd WHERE o > -1 AND o BETWEEN -5 AND 30 AND o < 5000000000",
    "an oid or a number": "SELECT CASE WHEN id = 2 THEN id ELSE o END AS x, count(*) AS k FROM pg.odd GROUP BY x",
    "a name and a longer text": "SELECT count(*) AS k FROM pg.odd WHERE n = repeat('x', 64) OR n IN (repeat('x', 70), 'y')",
    "a name or a longer text": "SELECT CASE WHEN id = 2 THEN n ELSE long END AS x, count(*) AS k FROM pg.odd GROUP BY x",
    "NaN above": "SELECT id FROM pg.odd WHERE nan > 1.0",
    "NaN below": "SELECT id FROM pg.odd WHERE nan <= 0 OR nan < 20.5",
    "NaN between": "SELECT id FROM pg.odd WHERE nan BETWEEN 1.5 AND 20.5",
    "what the optimizer makes of a filter": "SELECT id FROM (SELECT id, c0 AS x, c0 AS y FROM pg.odd) WHERE x = y",
    "a filter with its own column": "SELECT count(*) AS k FROM pg.odd WHERE c0 IN (c0, c1) OR NOT (nan NOT IN (nan, low))",
    "a child that may be null": "SELECT x FROM pg.elders",
    "an order of enums": "SELECT id FROM pg.parts WHERE heat <> 'cold' ORDER BY heat, id LIMIT 5",
    "an end of uuids": "SELECT min(key) AS a FROM pg.parts",
    "an order of texts": "SELECT id, name FROM pg.parts ORDER BY name, id LIMIT 5",
    "a lax collation in groups": "SELECT note, count(*) AS n FROM pg.orders GROUP BY note",
    "a lax collation in a join": "SELECT count(*) AS n FROM pg.orders a JOIN pg.orders b ON a.note = b.note AND a.no = b.no + 1",
    "functions": "SELECT upper(kind) AS k, count(*) AS n FROM pg.parts GROUP BY k",
    "arrays": "SELECT tags, count(*) AS n FROM pg.parts GROUP BY tags",
    "division": "SELECT sum(price / 3) AS n FROM pg.parts",
    "integers may be too large": "SELECT sum(id * 2) AS n FROM pg.parts",
    "deviation": "SELECT stddev(price) AS n FROM pg.parts",
    "as text": "SELECT count(*) AS n FROM pg.parts WHERE CAST(id AS text) LIKE '1%'",
    "not in, with nulls": "SELECT count(*) AS n FROM pg.parts WHERE id NOT IN (SELECT part FROM pg.orders)",
    # PostgreSQL would plan the rest as if it returned almost no rows.
    "exists not, by more than keys": "SELECT id FROM pg.parts p WHERE NOT EXISTS (SELECT 1 FROM pg.orders o WHERE o.part = p.id AND o.no <> p.id)",
    "another user": "SELECT count(*) AS n FROM pg.parts p JOIN elsewhere.orders o ON p.id = o.part",
    "filters alone": "SELECT amount, count(*) AS n FROM filters.orders WHERE no > 5 GROUP BY amount",
    "rollup": "SELECT kind, is_new, count(*) AS n FROM pg.parts GROUP BY ROLLUP (kind, is_new)",
    "a full join": "SELECT count(*) AS n FROM pg.parts p FULL JOIN pg.orders o ON p.id = o.part",
    "all with all": "SELECT count(*) AS n FROM pg.parts p, pg.orders o WHERE p.id < o.no",
    "in order": "SELECT array_agg(id ORDER BY id) AS n FROM pg.parts WHERE id < 9",
    "in a window": "SELECT id, sum(id) OVER (ORDER BY id) AS n FROM pg.parts ORDER BY id LIMIT 5",
    "an escaped pattern": "SELECT count(*) AS n FROM pg.parts WHERE name LIKE 'part\\_1'",
    "within a union": "SELECT kind, count(*) AS n FROM pg.parts GROUP BY kind UNION ALL SELECT note, count(*) FROM pg.orders GROUP BY note",
    "a sort of groups": "SELECT name, count(*) AS n FROM pg.parts GROUP BY name ORDER BY name",
    "no decimals too many": "SELECT count(*) AS n, sum(loose) AS s FROM pg.parts",
}


def _in_memory(text: str) -> str:
    return text.replace("elsewhere.", "").replace("filters.", "").replace("pg.", "")


@pytest.mark.parametrize("what", [*WHOLE, *PARTLY])
def test_answers_equal_those_in_memory(server, what):
    text = {**WHOLE, **PARTLY}[what]
    ours, theirs = (_sorted(clients.rows(server, text)) for text in (text, _in_memory(text)))
    assert ours == theirs
    schemas = [
        json.loads(clients.sql(server, text, accept="application/vnd.spiceai.sql.v1+json").ok().body)["schema"]
        for text in (text, _in_memory(text))
    ]
    assert [field["data_type"] for field in schemas[0]["fields"]] == [field["data_type"] for field in schemas[1]["fields"]]


@pytest.mark.parametrize("what", WHOLE)
def test_it_is_one_statement(server, what):
    asked = _asked(server, WHOLE[what])
    assert len(asked) == 1, asked
    assert any(word in asked[0] for word in ("GROUP BY", "JOIN", "EXISTS", "ORDER BY", "count(", "sum(", "min(")), asked


def test_a_lax_collation_in_a_filter(server, postgres):
    """The answer is PostgreSQL's, not that of a text comparison."""
    for condition in ("note = 'a'", "note <> 'a'", "note IN ('A', 'b')"):
        wanted = int(postgres.sql(f"SELECT count(*) FROM orders WHERE {condition}"))
        assert clients.rows(server, f"SELECT count(*) AS n FROM pg.orders WHERE {condition}") == [{"n": wanted}], condition


APART = (
    "floats are not told apart as they are here",
    "exists not, by more than keys",
    "another user",
    "filters alone",
    "rollup",
)


@pytest.mark.parametrize("what", APART)
def test_it_is_not(server, what):
    asked = _asked(server, PARTLY[what])
    assert not any(word in statement for statement in asked for word in ("GROUP BY", "JOIN", "EXISTS", "'a'", "count(")), asked

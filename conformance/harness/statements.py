"""Generates unusual statements: every function with extreme arguments of every type, every operator between any two
types, every production of the grammar repeated and nested. The same seed gives the same statements."""

from __future__ import annotations

import random
from collections.abc import Iterator

WHOLE = """NULL 0 1 -1 2 3 255 -128 65536 2147483647 -2147483648 2147483648 4294967296 10000000000 1000000000000000
 9223372036854775807 -9223372036854775808 18446744073709551615""".split()
BROKEN = ["0.5", "-0.0", "1e308", "-1e-308", "'NaN'::double", "'Infinity'::double", "arrow_cast(1, 'Float16')"]
BROKEN += ["arrow_cast('NaN', 'Float32')", "99999999999999999999999999999999999999", "arrow_cast(1.5, 'Decimal128(38, 30)')"]
BROKEN += ["arrow_cast(1, 'Decimal256(76, 0)')", "arrow_cast('-9.9', 'Decimal32(9, 8)')", "arrow_cast(7, 'Decimal64(18, 1)')"]
SIZED = [f"arrow_cast({n}, '{t}')" for t, n in [("Int8", -128), ("Int16", 32767), ("Int32", -1), ("UInt8", 255)]]
SIZED += [f"arrow_cast({n}, '{t}')" for t, n in [("UInt16", 65535), ("UInt32", 4294967295), ("UInt64", 5)]]
TEXTS = ["", "a", "ü€😀", "abc", "(", "[", "*", "(?P<n>a", "a{1000}{1000}", "\\1\\1$1${n}", "%c%Q%!%9f", "%Y-%m-%d", "g", "gimsx"]
TEXTS += ["2020-02-30", "2020-01-01", "9999-12-31T23:59:59.999999999Z", "NaN", "1e400", "sha256", "md5", "hex", "base64", "utf-8"]
TEXTS += ["year", "month", "nanosecond", "Europe/Berlin", "+99:99", "Int64", "List(Int64)", "FixedSizeBinary(2147483647)"]
TEXTS += ["FixedSizeList(2147483647, Int64)", "Dictionary(Int8, Utf8)", "Decimal128(38, -127)", "Timestamp(ns, \"x\")", "Map(", "ROW"]
TEXTS = [f"'{text}'" for text in TEXTS] + [
    "repeat('a', 1000)", "repeat('ab', 500000)", "repeat('(', 300)", "repeat('%c', 5000)", "repeat('a', 20000000)",
    "arrow_cast('a', 'LargeUtf8')", "arrow_cast('a long text in a view', 'Utf8View')", "arrow_cast('a', 'Dictionary(Int32, Utf8)')",
    "arrow_cast(NULL, 'LargeUtf8')", "lpad('x', 100000, 'ü')",
]  # fmt: skip
BYTES = ["x''", "x'ff00'", "arrow_cast(x'ff', 'LargeBinary')", "arrow_cast(x'ff', 'BinaryView')", "arrow_cast(x'ffff', 'FixedSizeBinary(2)')"]
BYTES += ["arrow_cast(repeat('a', 100000), 'Binary')"]
TIMES = ["date '0001-01-01'", "date '9999-12-31'", "arrow_cast(2147483647, 'Date32')", "arrow_cast(-9223372036854775808, 'Date64')"]
TIMES += ["arrow_cast(0, 'Date64')", "time '23:59:59.999'", "now()", "timestamp '1677-09-21T00:12:44'", "timestamp '2262-04-11'"]
TIMES += [f"arrow_cast(9223372036854775807, 'Timestamp({u}, {z})')" for u in ("s", "ms", "us", "ns") for z in ("None", '"+14:00"')]
TIMES += [f"arrow_cast({n}, '{t}')" for n in (0, -1) for t in ("Time32(s)", "Time64(ns)", "Duration(s)", "Duration(ns)")]
TIMES += [f"interval '{i}'" for i in ("1 day", "1 month -31 days 1 nanosecond", "100000000 years", "-1 nanosecond", "0 days", "2147483647 days")]
TIMES += ["arrow_cast(5, 'Interval(YearMonth)')", "arrow_cast('1 day', 'Interval(DayTime)')"]
LISTS = ["[]", "[NULL]", "[1, 2, 3]", "[[1], [2, NULL]]", "['a', '', NULL]", "[1.5, -0.0]", "range(1, 100000)", "array_repeat('ab', 1000)"]
LISTS += ["arrow_cast([1, 2], 'LargeList(Int64)')", "arrow_cast([1, 2], 'FixedSizeList(2, Int64)')", "arrow_cast(NULL, 'List(Utf8)')"]
LISTS += ["[repeat('x', 100000), 'y']", "[{a: 1}, {a: 2}]", "arrow_cast(['a'], 'List(Utf8View)')", "array_repeat([1, 2], 1000)"]
OTHERS = ["true", "false", "{a: 1, b: 'x'}", "named_struct('a', [1], 'b', NULL)", "map(['a', 'b'], [1, 2])", "MAP {}", "struct(1, 'x')"]
COLUMNS = ["i", "l", "f", "s", "d", "ts", "b", "a", "g", "w"]
EVERY = [WHOLE, BROKEN, SIZED, TEXTS, BYTES, TIMES, LISTS, OTHERS, COLUMNS]

TABLE = """(SELECT column1 AS i, arrow_cast(column1, 'Int64') AS l, column1 / 3.0 AS f, column2 AS s, date '2020-01-01' AS d,
 arrow_cast(column1, 'Timestamp(ns, None)') AS ts, column1 > 1 AS b, [column1, NULL] AS a, column1 % 2 AS g,
 arrow_cast(column2, 'Utf8View') AS w FROM (VALUES (1, 'a'), (NULL, NULL), (3, 'banana'), (-9, 'ü'))) t"""
MANY = "(SELECT value AS i, value AS l, value / 3.0 AS f, 'x' || value AS s, date '2020-01-01' AS d, to_timestamp(value) AS ts,"
MANY += " value % 3 = 0 AS b, [value] AS a, value % 7 AS g, arrow_cast('w', 'Utf8View') AS w FROM generate_series(1, 9000)) t"

SQL_TYPES = """BOOLEAN TINYINT SMALLINT INT BIGINT REAL DOUBLE VARCHAR TEXT DATE TIME TIMESTAMP TIMESTAMPTZ BYTEA INTERVAL
 DECIMAL(38,10) DECIMAL(5,2) BIGINT[] VARCHAR[][] INT[2147483647] INT[3] STRUCT<x:INT>""".replace(":", " ")
SQL_TYPES = [t for t in SQL_TYPES.replace("STRUCT<x INT>", "").split()] + ["STRUCT<x INT>", "INT UNSIGNED"]
ARROW_TYPES = """Boolean Int8 Int64 UInt8 UInt64 Float16 Float64 Utf8 LargeUtf8 Utf8View Binary LargeBinary BinaryView Date32 Date64
 FixedSizeBinary(1) FixedSizeBinary(2147483647) Decimal128(38,0) Decimal128(1,-100) Decimal256(76,76) Time32(s) Time64(us) Timestamp(s,None)
 Duration(ms) Interval(MonthDayNano) List(Utf8) LargeList(Int8) FixedSizeList(3,Int64) Dictionary(Int8,Utf8)
 Dictionary(UInt64,List(Int8)) FixedSizeList(2147483647,Null) List(FixedSizeBinary(1000000000)) Null""".split()
BINARY = "+ - * / % || = <> < >= AND OR LIKE ILIKE ~ ~* !~ & | # << >> <@ @> -> ->>".split()
BINARY += ["IS DISTINCT FROM", "SIMILAR TO", "NOT LIKE", "AT TIME ZONE", "IN", "NOT IN", "^"]
FRAMES = ["", "ORDER BY l", "PARTITION BY g ORDER BY s", "ORDER BY l ROWS BETWEEN 9223372036854775807 PRECEDING AND CURRENT ROW"]
FRAMES += ["ORDER BY l ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING", "ORDER BY f RANGE BETWEEN 1e308 PRECEDING AND 1 FOLLOWING"]
FRAMES += ["ORDER BY d RANGE BETWEEN INTERVAL '100000000 years' PRECEDING AND CURRENT ROW", "ORDER BY s GROUPS BETWEEN 1 PRECEDING AND 2 FOLLOWING"]
FRAMES += ["ROWS BETWEEN 18446744073709551615 PRECEDING AND 18446744073709551615 FOLLOWING", "ORDER BY i ROWS -1 PRECEDING"]
HIGHER = ["array_transform", "array_filter", "array_any_match", "array_first"]
SOURCES = ["", "", f" FROM {TABLE}", f" FROM {TABLE}", f" FROM {MANY}"]

# The text before, between and after `n` parts, in sequence or nested.
CHAINS = {
    "+": ("SELECT 1", "+1", ""), "||": ("SELECT 'a'", "||'a'", ""), "and": ("SELECT true", " AND true", ""),
    "or": ("SELECT 1 FROM (SELECT 1 AS x) t WHERE x=0", " OR x>1", ""), "cast": ("SELECT 1", "::int", ""),
    "case": ("SELECT 1", "+CASE WHEN true THEN 1 END", ""), "brace": ("SELECT 1", "={a:1,b:2}", ""), "comma": ("SELECT 1", ",1", ""),
    "struct": ("SELECT 1", "::STRUCT<a INT,b INT>", ""), "index": ("SELECT a", "[1]", f" FROM {TABLE}"), "is": ("SELECT 1", " IS NULL", ""),
    "like": ("SELECT 'a'", " LIKE 'a'", ""), "between": ("SELECT 1", " BETWEEN 0 AND 1", ""), "not": ("SELECT ", "NOT ", "true"),
    "minus": ("SELECT ", "- ", "1"), "in": ("SELECT 1 IN (1", ",1", ")"), "values": ("VALUES (1)", ",(1)", ""),
    "union": ("SELECT 1", " UNION ALL SELECT 1", ""), "except": ("SELECT 1", " EXCEPT SELECT 1", ""), "join": ("SELECT 1 FROM (SELECT 1) t", " CROSS JOIN (SELECT 1) u", ""),
    "order": ("SELECT 1 ORDER BY 1", ",1", ""), "group": (f"SELECT 1 FROM {TABLE} GROUP BY i", ",i+1", ""), "cube": (f"SELECT 1 FROM {TABLE} GROUP BY CUBE(i", ",l", ")"),
    "rollup": (f"SELECT 1 FROM {TABLE} GROUP BY ROLLUP(i", ",l", ")"), "sets": (f"SELECT 1 FROM {TABLE} GROUP BY GROUPING SETS((i)", ",(l)", ")"),
    "cubes": (f"SELECT 1 FROM {TABLE} GROUP BY ROLLUP(i,l)", ",ROLLUP(i,l)", ""), "dot": ("SELECT a", ".a", ""), "when": ("SELECT CASE", " WHEN true THEN 1", " END"),
    "zone": ("SELECT now()", " AT TIME ZONE 'UTC'", ""), "concat": ("SELECT concat('a'", ",'a'", ")"), "array": ("SELECT make_array(1", ",1", ")"),
    "coalesce": ("SELECT coalesce(NULL", ",NULL", ")"), "spaces": ("SELECT 1", " ", ""), "text": ("SELECT '", "a", "'"), "semicolons": ("SELECT 1", ";", ""),
}  # fmt: skip
NESTS = {
    "parens": ("(", "1", ")"), "abs": ("abs(", "1", ")"), "case": ("CASE WHEN true THEN ", "1", " END"), "list": ("[", "1", "]"), "brace": ("{a: ", "1", "}"),
    "query": ("(SELECT ", "1", ")"), "exists": ("EXISTS (SELECT ", "1", ")"), "in": ("1 IN (SELECT ", "1", ")"), "concat": ("concat('a', ", "'b'", ")"),
    "array": ("make_array(", "1", ")"), "struct": ("struct(", "1", ")"), "coalesce": ("coalesce(NULL, ", "1", ")"), "cast": ("CAST(", "1", " AS BIGINT)"),
    "not": ("(NOT ", "true", ")"), "extract": ("EXTRACT(year FROM ", "now()", ")"), "map": ("map(['a'], [", "1", "])"), "nullif": ("nullif(2, ", "1", ")"),
    "upper": ("upper(", "'a'", ")"), "repeat": ("repeat(", "'abcdefghij'", ", 10)"), "range": ("cardinality(range(", "10", "))"), "flatten": ("flatten([", "[1]", "])"),
    "replace": ("replace(", "'aaaaaaaaaa'", ", 'a', 'aaaaaaaaaa')"),
}  # fmt: skip


class Statements:
    """An endless sequence of statements."""

    def __init__(self, seed: int, functions: dict[str, list[str]]) -> None:
        self.random = random.Random(seed)
        self.functions = {kind: sorted(set(names)) for kind, names in functions.items()}

    def __iter__(self) -> Iterator[str]:
        # Every function and every production occurs before any is repeated.
        while True:
            rounds = [lambda name=name: self.scalar(name) for name in self.functions["SCALAR"] for _ in range(4)]
            rounds += [lambda name=name: self.aggregate(name) for name in self.functions["AGGREGATE"] for _ in range(4)]
            rounds += [lambda name=name: self.window(name) for name in self.functions["WINDOW"] for _ in range(4)]
            rounds += [lambda name=name: self.chain(name) for name in CHAINS]
            rounds += [lambda name=name: self.nest(name) for name in NESTS]
            rounds += [self.operator] * 150 + [self.cast] * 80 + [self.table] * 20 + [self.higher] * 12 + [self.doubling] * 8
            self.random.shuffle(rounds)
            for make in rounds:
                yield make()

    def pick(self, *of):
        return self.random.choice(self.random.choice(of or EVERY))

    def argument(self, depth: int = 0) -> str:
        if depth < 2 and self.random.random() < 0.15:
            return self.call(self.random.choice(self.functions["SCALAR"]), depth + 1)
        return self.pick()

    def call(self, name: str, depth: int = 0) -> str:
        count = self.random.choice([0, 1, 1, 2, 2, 2, 3, 3, 3, 4])
        return f"{name}({', '.join(self.argument(depth) for _ in range(count))})"

    def likely(self, name: str) -> str:
        """Arguments that most functions accept: first a text, a list or a number, then numbers and texts."""
        first = self.pick(self.random.choice([TEXTS, LISTS, WHOLE, TIMES, BROKEN, ["s", "a", "l", "ts", "f"]]))
        rest = [self.pick(self.random.choice([WHOLE, TEXTS, ["l", "s"]])) for _ in range(self.random.choice([0, 1, 1, 2, 2, 3]))]
        return f"{name}({', '.join([first, *rest])})"

    def scalar(self, name: str) -> str:
        call = self.likely(name) if self.random.random() < 0.7 else self.call(name)
        source = self.random.choice(SOURCES[2:] if any(f in call for f in ("(s", "(a", "(l", ", l", ", s", "(i", "(g", "(w", "(d", "(f", "(b", "(ts", " ts", " w", " g", " a", " b", " d", " f", " i")) else SOURCES)
        form = self.random.choice(["SELECT {}", "SELECT {}", "SELECT {}", "SELECT arrow_typeof({})", "SELECT count(*) FROM {t} WHERE {} IS NULL"])
        form = self.random.choice([form, form, "SELECT count(*) FROM {t} GROUP BY {}", "SELECT 1 FROM {t} ORDER BY {}", "SELECT CASE WHEN false THEN {} END"])
        if "{t}" in form:
            return form.replace("{t}", TABLE).replace("{}", call)
        return form.replace("{}", call) + source

    def aggregate(self, name: str) -> str:
        arguments = [self.random.choice([self.pick(COLUMNS), self.pick(COLUMNS), self.argument(1)]) for _ in range(self.random.choice([0, 1, 1, 1, 2, 2, 3]))]
        distinct = self.random.choice(["", "", "DISTINCT "])
        order = self.random.choice(["", "", f" ORDER BY {self.pick(COLUMNS)}"])
        more = self.random.choice(["", "", " FILTER (WHERE b)", f" WITHIN GROUP (ORDER BY {self.pick(COLUMNS)})", " IGNORE NULLS", " OVER ({frame})"])
        more = more.replace("{frame}", self.random.choice(FRAMES))
        group = self.random.choice(["", "", " GROUP BY g", " GROUP BY CUBE(g, s, l)", f" GROUP BY {self.argument(1)}", " GROUP BY g HAVING count(*) > 1"])
        source = self.random.choice([TABLE, TABLE, MANY, f"{TABLE} WHERE false"])
        return f"SELECT {name}({distinct}{', '.join(arguments)}{order}){more} FROM {source}{'' if 'OVER' in more else group}"

    def window(self, name: str) -> str:
        arguments = [self.random.choice([self.pick(COLUMNS), self.pick(WHOLE), self.argument(1)]) for _ in range(self.random.choice([0, 0, 1, 1, 2, 3]))]
        nulls = self.random.choice(["", "", "", " IGNORE NULLS"])
        return f"SELECT {name}({', '.join(arguments)}){nulls} OVER ({self.random.choice(FRAMES)}) FROM {self.random.choice([TABLE, TABLE, MANY])}"

    def operator(self) -> str:
        left, right, operator = self.argument(), self.argument(), self.random.choice(BINARY)
        if operator.endswith("IN"):
            right = f"({right}, {self.argument()})"
        form = self.random.choice(["SELECT {} FROM {t}", "SELECT {} FROM {t}", "SELECT count(*) FROM {t} WHERE {}", "SELECT i FROM {t} JOIN (SELECT 1 AS j) u ON {}"])
        return form.replace("{t}", TABLE).replace("{}", f"({left}) {operator} {right}")

    def cast(self) -> str:
        value = self.argument()
        cast = self.random.choice([
            f"CAST({value} AS {self.random.choice(SQL_TYPES)})", f"TRY_CAST({value} AS {self.random.choice(SQL_TYPES)})",
            f"arrow_cast({value}, '{self.random.choice(ARROW_TYPES)}')", f"arrow_try_cast({value}, '{self.random.choice(ARROW_TYPES)}')",
        ])  # fmt: skip
        return f"SELECT {cast} FROM {TABLE}"

    def table(self) -> str:
        name = self.random.choice(["range", "generate_series"])
        arguments = ", ".join(self.pick(WHOLE, TIMES) for _ in range(self.random.choice([1, 2, 3])))
        form = self.random.choice(["SELECT * FROM {} LIMIT 3", "SELECT count(*) FROM {}", "SELECT * FROM {} t(v) ORDER BY v LIMIT 1", "SELECT unnest({})"])
        return form.replace("{}", f"{name}({arguments})")

    def higher(self) -> str:
        body = self.random.choice(["x", "x + 1", "x = 1", "repeat('a', 1000)", "NULL", "[x, x]", "repeat(s, 100000)", "x || x", self.argument(1)])
        return f"SELECT {self.random.choice(HIGHER)}({self.pick(LISTS, ['a'])}, x -> {body}) FROM {TABLE}"

    def doubling(self) -> str:
        """A short text that doubles in length at each level."""
        levels, inner = self.random.choice([5, 12, 30]), f"SELECT s AS x FROM {TABLE}"
        step = self.random.choice(["x || x", "concat(x, x)", "replace(x, 'a', x)", "repeat(x, 2)", "array_to_string([x, x], x)"])
        for _ in range(levels):
            inner = f"SELECT {step} AS x FROM ({inner})"
        return self.random.choice([inner, f"SELECT max(length(x)) FROM ({inner})"])

    def chain(self, name: str) -> str:
        before, part, after = CHAINS[name]
        return before + part * self.random.choice([3, 60, 480, 4_000, 40_000]) + after

    def nest(self, name: str) -> str:
        before, inner, after = NESTS[name]
        times = self.random.choice([3, 20, 48, 300, 4_000])
        return "SELECT " + before * times + inner + after * times

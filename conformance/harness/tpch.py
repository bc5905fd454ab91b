"""TPC-H: tables generated once per machine and scale, DuckDB's results for the queries, and the comparison of
results."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from decimal import Decimal
from itertools import groupby
from pathlib import Path

import duckdb
import pyarrow as pa
from pyarrow import types

from . import waiting

SCALE = os.environ.get("SPICED_TPCH_SCALE", "0.1")
TABLES = ("region", "nation", "supplier", "part", "partsupp", "customer", "orders", "lineitem")
QUERIES = range(1, 23)

# The maximum seconds for one query, or for loading one table.
DEADLINE = max(waiting.DEADLINE, 60, 300 * float(SCALE))

# The number of rows of each query, by scale; those of scale 1 are the specification's.
ROWS = {
    "0.1": (4, 44, 10, 5, 5, 1, 4, 2, 175, 20, 2541, 2, 37, 1, 1, 2762, 1, 5, 1, 9, 47, 7),
    "1": (4, 100, 10, 5, 5, 1, 4, 2, 175, 20, 1048, 2, 42, 1, 1, 18314, 1, 57, 1, 186, 100, 7),
}

# The specification's types (1.4.1); its identifiers are wide enough for every scale.
POSTGRES = {
    "region": "r_regionkey bigint, r_name char(25), r_comment varchar(152)",
    "nation": "n_nationkey bigint, n_name char(25), n_regionkey bigint, n_comment varchar(152)",
    "supplier": "s_suppkey bigint, s_name char(25), s_address varchar(40), s_nationkey bigint, s_phone char(15),"
    " s_acctbal decimal(15,2), s_comment varchar(101)",
    "part": "p_partkey bigint, p_name varchar(55), p_mfgr char(25), p_brand char(10), p_type varchar(25),"
    " p_size integer, p_container char(10), p_retailprice decimal(15,2), p_comment varchar(23)",
    "partsupp": "ps_partkey bigint, ps_suppkey bigint, ps_availqty integer, ps_supplycost decimal(15,2),"
    " ps_comment varchar(199)",
    "customer": "c_custkey bigint, c_name varchar(25), c_address varchar(40), c_nationkey bigint, c_phone char(15),"
    " c_acctbal decimal(15,2), c_mktsegment char(10), c_comment varchar(117)",
    "orders": "o_orderkey bigint, o_custkey bigint, o_orderstatus char(1), o_totalprice decimal(15,2),"
    " o_orderdate date, o_orderpriority char(15), o_clerk char(15), o_shippriority integer, o_comment varchar(79)",
    "lineitem": "l_orderkey bigint, l_partkey bigint, l_suppkey bigint, l_linenumber integer,"
    " l_quantity decimal(15,2), l_extendedprice decimal(15,2), l_discount decimal(15,2), l_tax decimal(15,2),"
    " l_returnflag char(1), l_linestatus char(1), l_shipdate date, l_commitdate date, l_receiptdate date,"
    " l_shipinstruct char(25), l_shipmode char(10), l_comment varchar(44)",
}


def query(number: int) -> str:
    """The specification's text with its validation parameters."""
    return (Path(__file__).parents[1] / "tpch" / f"q{number:02}.sql").read_text()


# Tables


@functools.cache
def folder() -> Path:
    """The directory of the tables as Parquet. The first process creates it, and a rename publishes it atomically."""
    made = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spiced" / "tpch" / SCALE
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f"{SCALE}-", dir=made.parent))
        try:
            generator = Path(sys.executable).with_name("tpchgen-cli")
            subprocess.run([generator, "parquet", "-q", "-s", SCALE, "-n", "2", "-o", new], check=True, capture_output=True)
            assert {path.name for path in new.iterdir()} == {f"{table}.parquet" for table in TABLES}
            with contextlib.suppress(OSError):  # if another process was faster
                new.rename(made)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        assert made.is_dir()
    return made


def file(table: str) -> Path:
    return folder() / f"{table}.parquet"


def load(postgres, schema: str) -> None:
    """Loads the same rows into PostgreSQL; `app` may read them."""
    postgres.sql(f"CREATE SCHEMA {schema}; GRANT USAGE ON SCHEMA {schema} TO app")
    rows = postgres.folder / "rows.csv"
    for table, columns in POSTGRES.items():
        _duckdb().execute(f"COPY {table} TO '{rows}' (FORMAT csv, HEADER false)")
        postgres.sql(
            f"CREATE UNLOGGED TABLE {schema}.{table} ({columns}); GRANT SELECT ON {schema}.{table} TO app;"
            f"COPY {schema}.{table} FROM '{rows}' (FORMAT csv); ANALYZE {schema}.{table}",
            deadline=DEADLINE,
        )
        rows.unlink()


# Results


@functools.cache
def _duckdb() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 2})
    for table in TABLES:
        connection.execute(f"CREATE VIEW {table} AS FROM '{file(table)}'")
    return connection


@functools.cache
def answer(number: int) -> pa.Table:
    """DuckDB's result, with the expected number of rows and without nulls."""
    table = _duckdb().sql(query(number)).to_arrow_table()
    rows = ROWS[SCALE][number - 1] if SCALE in ROWS else None
    assert table.num_rows > 0 and rows in (table.num_rows, None), f"{table.num_rows} rows, not {rows}"
    assert not any(column.null_count for column in table.columns)
    return table


def order(text: str) -> list[str]:
    """The columns of the last ORDER BY."""
    found = re.search(r"order by\s+([^()]*?)\s*(?:limit \d+)?\s*$", text)
    return [words.split()[0] for words in found.group(1).split(",")] if found else []


def assert_same(ours: pa.Table, theirs: pa.Table, by: list[str]) -> None:
    """Compares results in the order of `by`, ignoring the order of equal keys; exact, except for floats and averages.
    """
    assert theirs.num_rows > 0 and theirs.num_columns > 0
    assert ours.column_names == theirs.column_names
    assert ours.num_rows == theirs.num_rows
    same = [_judge(a.type, b.type, b.name) for a, b in zip(ours.schema, theirs.schema)]
    keys = [theirs.column_names.index(name) for name in by]
    for at, (a, b) in enumerate(zip(_rows(ours, keys), _rows(theirs, keys), strict=True)):
        assert all(judge(x, y) for judge, x, y in zip(same, a, b, strict=True)), f"row {at}: {a} instead of {b}"


def _rows(table: pa.Table, keys: list[int]) -> list[tuple]:
    """The rows in order; rows with equal keys are sorted by the remaining columns."""
    rows = zip(*(column.to_pylist() for column in table.columns))
    runs = groupby(rows, lambda row: [row[key] for key in keys])
    return [row for _, run in runs for row in sorted(run, key=lambda row: [str(value) for value in row])]


def _judge(ours: pa.DataType, theirs: pa.DataType, name: str) -> Callable[[object, object], bool]:
    """How values of these types are compared: an average to its last digit, other floats to 1e-9."""
    assert _kind(ours) == _kind(theirs), f"{name}: {ours} instead of {theirs}"
    if not (types.is_floating(ours) or types.is_floating(theirs)):
        return lambda a, b: a is not None and a == b
    last = Decimal(10) ** -ours.scale if types.is_decimal(ours) else Decimal(0)

    def near(a, b) -> bool:
        size = abs(Decimal(b))
        return a is not None and abs(Decimal(a) - Decimal(b)) <= max(size * Decimal("1e-9"), min(last, size / 100))

    return near


def _kind(of: pa.DataType) -> str:
    if types.is_integer(of) or types.is_decimal(of) or types.is_floating(of):
        return "number"
    if types.is_string(of) or types.is_large_string(of) or types.is_string_view(of):
        return "text"
    return str(of)

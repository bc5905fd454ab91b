"""TPC-H: the 22 queries through every endpoint, over Parquet and over PostgreSQL, give the same results as DuckDB."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal

import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions

from harness import clients, tpch
from harness.pod import Pod
from harness.waiting import eventually

pytestmark = pytest.mark.timeout(max(180, 2 * tpch.DEADLINE))


def _serve(pod: Pod, datasets: list[dict], **more):
    pod.yaml(tls=pod.write_pair(), datasets=datasets, runtime={"sql": {"timeout": f"{tpch.DEADLINE:.0f}s"}})
    server = pod.serve(**more)
    eventually(lambda: clients.get(server, "/v1/ready").status == 200, "every table is loaded")
    return server


@pytest.fixture(scope="module")
def over_parquet(tmp_path_factory):
    pod = Pod(tmp_path_factory.mktemp("tpch"))
    yield _serve(pod, [{"from": f"file:{tpch.file(table)}", "name": table} for table in tpch.TABLES])
    pod.close()


@pytest.fixture(scope="module")
def over_postgres(tmp_path_factory, postgres):
    tpch.load(postgres, "tpch")
    pod = Pod(tmp_path_factory.mktemp("tpch"))
    yield _serve(
        pod,
        [{"from": f"postgres:tpch.{table}", "name": table, "params": postgres.params()} for table in tpch.TABLES],
        env={"PG_PASSWORD": postgres.password},
    )
    pod.close()


# Endpoints


def _http(server, text: str) -> pa.Table:
    """JSON with types; each number is parsed digit by digit."""
    answer = clients.sql(server, text, accept="application/vnd.spiceai.sql.v1+json", deadline=tpch.DEADLINE).ok()
    body = json.loads(answer.body, parse_float=Decimal)
    schema = pa.schema([(field["name"], _type(field["data_type"])) for field in body["schema"]["fields"]])
    assert body["row_count"] == len(body["data"])
    assert all(list(row) == schema.names for row in body["data"])
    return pa.table([pa.array([_value(row[field.name], field.type) for row in body["data"]], field.type) for field in schema], schema)


def _type(said) -> pa.DataType:
    if isinstance(said, dict):
        return pa.decimal128(*said["Decimal128"])
    plain = {"Int32": pa.int32(), "Int64": pa.int64(), "Float64": pa.float64(), "Date32": pa.date32(), "Utf8": pa.string()}
    return plain[said]


def _value(said, of: pa.DataType):
    if pa.types.is_date(of):
        return datetime.date.fromisoformat(said)
    return float(said) if pa.types.is_floating(of) else said


def _flight(server, text: str) -> pa.Table:
    with clients.flight_client(server) as client:
        return clients.query(client, text, clients.call(tpch.DEADLINE))


def _adbc(server, text: str) -> pa.Table:
    kinds = (DatabaseOptions.TIMEOUT_QUERY, DatabaseOptions.TIMEOUT_FETCH)
    patience = {kind.value: str(tpch.DEADLINE) for kind in kinds}
    with clients.adbc(server, **patience) as connection, connection.cursor() as cursor:
        cursor.execute(text)
        return cursor.fetch_arrow_table()


ENDPOINTS = {"http": _http, "flight": _flight, "adbc": _adbc}


def _check(server, endpoint: str, number: int) -> None:
    text = tpch.query(number)
    tpch.assert_same(ENDPOINTS[endpoint](server, text), tpch.answer(number), tpch.order(text))


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("number", tpch.QUERIES)
def test_over_parquet(over_parquet, number, endpoint):
    _check(over_parquet, endpoint, number)


@pytest.mark.parametrize("number", tpch.QUERIES)
def test_over_postgres(over_postgres, number):
    _check(over_postgres, "adbc", number)


# The comparison itself

THEIRS = pa.table({"a": [1, 2, 2], "b": ["x", "y", "z"], "c": [1.0, 0.25, 3.0]})
CENTS = [Decimal("1.00"), Decimal("0.25"), Decimal("3.00")]
SAME = {
    "itself": THEIRS,
    "equals in another order": THEIRS.take([0, 2, 1]),
    "a float's last digits": THEIRS.set_column(2, "c", pa.array([1.0 + 1e-12, 0.25, 3.0])),
    "a mean as a decimal": THEIRS.set_column(2, "c", pa.array(CENTS, pa.decimal128(19, 6))),
    "a narrower integer": THEIRS.set_column(0, "a", pa.array([1, 2, 2], pa.int32())),
}
OTHER = {
    "nothing": THEIRS.slice(0, 0),
    "a row less": THEIRS.slice(0, 2),
    "a column less": THEIRS.select(["a", "b"]),
    "another name": THEIRS.rename_columns(["a", "b", "d"]),
    "another order": THEIRS.take([1, 2, 0]),
    "another text": THEIRS.set_column(1, "b", pa.array(["x", "y", "z "])),
    "another number": THEIRS.set_column(0, "a", pa.array([1, 2, 3])),
    "another float": THEIRS.set_column(2, "c", pa.array([1.0, 0.25, 3.0001])),
    "a coarse mean": THEIRS.set_column(2, "c", pa.array([Decimal("1.0"), Decimal("0.3"), Decimal("3.0")], pa.decimal128(19, 1))),
    "a null": THEIRS.set_column(2, "c", pa.array([1.0, None, 3.0])),
    "numbers as text": THEIRS.set_column(0, "a", pa.array(["1", "2", "2"])),
}


@pytest.mark.parametrize("ours", SAME.values(), ids=SAME.keys())
def test_what_is_the_same(ours):
    tpch.assert_same(ours, THEIRS, ["a"])


@pytest.mark.parametrize("ours", OTHER.values(), ids=OTHER.keys())
def test_what_is_not_the_same(ours):
    with pytest.raises(AssertionError):
        tpch.assert_same(ours, THEIRS, ["a"])


def test_every_answer_but_those_of_one_row_has_an_order():
    assert all(tpch.order(tpch.query(number)) for number in tpch.QUERIES if number not in (6, 14, 17, 19))

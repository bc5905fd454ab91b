"""/v1/status and /v1/datasets; the kinds of data sets; a data set that cannot load."""

from __future__ import annotations

import json

import pytest

from harness import clients, data
from harness.leak_scanner import LEDGER
from harness.server import text_of
from harness.waiting import eventually


def test_status_shows_the_certificate_and_no_secret(over_tls):
    answer = clients.get(over_tls, "/v1/status").ok()
    assert answer.media_type == "application/json"
    LEDGER.assert_clean(answer.body, "/v1/status")
    assert "PRIVATE KEY" not in answer.text
    flat = json.dumps(answer.json()).lower()
    pair = over_tls.pair
    assert pair.fingerprint in flat.replace(":", ""), f"no SHA-256 fingerprint {pair.fingerprint}"
    for what in (pair.common_name, "conformance root", "127.0.0.1", "spicepod.yaml: runtime.tls.certificate_file"):
        assert what.lower() in flat, f"no {what}: {answer.text}"
    assert (
        pair.leaf.not_valid_after_utc.strftime("%Y-%m-%d") in flat
        or str(int(pair.leaf.not_valid_after_utc.timestamp())) in flat
    )
    for endpoint in ("http", "flight", "grpc"):
        assert endpoint in flat and str(over_tls.port(endpoint)) in flat


def test_status_without_tls(in_clear):
    flat = json.dumps(clients.get(in_clear, "/v1/status").ok().json()).lower()
    for endpoint in ("http", "flight", "grpc"):
        assert endpoint in flat and str(in_clear.port(endpoint)) in flat


def _data_sets(server) -> dict[str, dict]:
    """Every object with a name in the answer of /v1/datasets."""
    answer = clients.get(server, "/v1/datasets").ok().json()
    listed = answer if isinstance(answer, list) else next(v for v in answer.values() if isinstance(v, list))
    return {item["name"]: item for item in listed}


def test_data_sets_are_listed(served):
    assert set(_data_sets(served)) == {"people"}


FORMS = ["people.parquet", "people.csv", "people.ndjson"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", ["file", "folder", "glob"])
def test_file_data_set(pod, form, shape):
    table = data.PEOPLE
    suffix = form.rpartition(".")[2]
    if shape == "file":
        data.write(table, pod.folder / f"data/{form}")
        source = f"file:data/{form}"
    else:
        data.write(table.slice(0, 1), pod.folder / f"data/a.{suffix}")
        data.write(table.slice(1), pod.folder / f"data/b.{suffix}")
        source = "file:data/" if shape == "folder" else f"file:data/*.{suffix}"
    pod.yaml(datasets=[{"from": source, "name": "people"}])
    server = pod.serve()
    assert clients.rows(server, "SELECT id, name FROM people ORDER BY id") == table.to_pylist()


def test_memory_data_set(pod):
    pod.yaml(datasets=[data.MEMORY])
    server = pod.serve()
    assert clients.rows(server, "SELECT count(*) AS n FROM notes") == [{"n": 0}]
    clients.sql(server, "INSERT INTO notes VALUES (1, 'a'), (2, 'b')").ok()
    assert clients.rows(server, "SELECT id, name FROM notes ORDER BY id") == [
        {"id": 1, "name": "a"},
        {"id": 2, "name": "b"},
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO people VALUES (9, 'Eve')",
        "DELETE FROM people",
        "UPDATE people SET name = 'x'",
        "DROP TABLE people",
        "TRUNCATE TABLE people",
        "CREATE OR REPLACE TABLE people AS SELECT 1 AS id",
        "CREATE OR REPLACE VIEW people AS SELECT 1 AS id",
    ],
)
def test_read_only_data_set_is_unchanged(pod, statement):
    data.write(data.PEOPLE, pod.folder / "people.parquet")
    pod.yaml(datasets=[{"from": "file:people.parquet", "name": "people"}])
    server = pod.serve()
    answer = clients.sql(server, statement)
    assert answer.status in (400, 403), answer
    assert clients.rows(server, "SELECT id, name FROM people ORDER BY id") == data.PEOPLE.to_pylist()


def test_data_set_that_cannot_load_is_reported_and_heals(pod):
    data.write(data.PEOPLE, pod.folder / "people.parquet")
    pod.yaml(datasets=[{"from": "file:people.parquet", "name": "people"}, {"from": "file:late.csv", "name": "late"}])
    server = pod.serve()
    assert clients.rows(server, "SELECT count(*) AS n FROM people") == [{"n": 3}], "the other data set fails with it"
    assert server.wait_for_log("WARN", "ERROR", match="late"), server.stderr
    assert clients.get(server, "/v1/ready").status == 503
    clients.get(server, "/health").ok()
    broken = _data_sets(server)
    assert json.dumps(broken["late"]) != json.dumps(broken["people"]).replace("people", "late")
    assert "late.csv" in json.dumps(broken["late"]), f"the reason is missing: {broken['late']}"
    assert clients.sql(server, "SELECT * FROM late").status in (400, 404, 503)

    data.write(data.PEOPLE, pod.folder / "late.csv")
    eventually(lambda: clients.get(server, "/v1/ready").status == 200, "ready once the file is there", deadline=60)
    assert clients.rows(server, "SELECT count(*) AS n FROM late") == [{"n": 3}]


def test_data_set_that_is_not_parquet(pod):
    pod.write("people.parquet", "this is no parquet")
    pod.yaml(datasets=[{"from": "file:people.parquet", "name": "people"}])
    server = pod.serve()
    assert "people" in text_of(server.wait_for_log("WARN", "ERROR", match="people"))
    assert clients.get(server, "/v1/ready").status == 503
    clients.get(server, "/health").ok()

"""`views:` of the pod: named queries over files and other views, listed and readable on every endpoint."""

from __future__ import annotations

from harness import clients, data
from harness.waiting import eventually


def test_views(pod):
    data.write(data.PEOPLE, pod.folder / "people.parquet")
    pod.yaml(
        datasets=[{"from": "file:people.parquet", "name": "people"}],
        views=[
            {"name": "some", "sql": "SELECT * FROM people LIMIT 2"},
            {"name": "how_many", "sql": "SELECT count(*) AS n FROM some"},
        ],
    )
    server = pod.serve()
    assert clients.rows(server, "SELECT n FROM how_many") == [{"n": 2}]
    assert clients.query(clients.flight_client(server), "SELECT n FROM how_many").column(0).to_pylist() == [2]
    listed = clients.rows(server, "SELECT table_type FROM information_schema.tables WHERE table_name = 'how_many'")
    assert listed == [{"table_type": "VIEW"}]
    assert clients.sql(server, "DROP VIEW how_many").status == 403


def test_a_view_of_nothing_is_not_ready_and_says_why(pod):
    pod.yaml(views=[{"name": "v", "sql": "SELECT * FROM nowhere"}])
    server = pod.serve()
    eventually(lambda: "nowhere" in clients.get(server, "/v1/datasets").text, "the state says so")
    assert clients.get(server, "/v1/ready").status == 503


def test_an_invalid_statement_is_refused(pod):
    pod.yaml(views=[{"name": "v", "sql": "SELEC 1"}])
    pod.refuse().names("`v`", "sql")

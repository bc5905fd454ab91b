"""Data sets that are tables of another Flight SQL server: a second spiced, over TLS of a CA of its own, with a key or a
client certificate."""

from __future__ import annotations

import re

import pytest

from harness import clients, data
from harness.certificates import Authority
from harness.ledger import LEDGER
from harness.pod import Pod
from harness.waiting import eventually

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def peer(tmp_path):
    """The other server: `people`, `sales.wide`, and a key that reads."""
    pod = Pod(tmp_path / "peer")
    key = LEDGER.mark("a key of the peer")
    data.write(data.PEOPLE, pod.folder / "people.parquet")
    sets = [{"from": "file:people.parquet", "name": "people"}]
    views = [{"name": "sales.wide", "sql": "SELECT value AS \"Id\", repeat('x', 100) AS filler FROM generate_series(1, 300000)"}]
    pod.yaml(
        tls=pod.write_pair(), datasets=sets, views=views, runtime={"auth": {"api_key": {"keys": [f"{key}:rw"]}}}
    )
    server = pod.serve()
    server.key, server.pod = key, pod
    yield server
    pod.close()


def described(pod, peer, table: str, name: str = "t", **params) -> dict:
    pod.write("peer.pem", peer.pod.ca.pem)
    endpoint = f"grpc+tls://localhost:{peer.port('flight')}"
    params = {"flightsql_endpoint": endpoint, "flightsql_token": peer.key, "tls_ca_file": "peer.pem", **params}
    return {"from": f"flightsql:{table}", "name": name, "params": {k: v for k, v in params.items() if v is not None}}


def trouble(server) -> str:
    def told():
        (found,) = clients.get(server, "/v1/datasets").ok().json()
        return found.get("error")

    return eventually(told, "it says what is wrong")


def test_rows_of_another_server(pod, peer):
    sets = [described(pod, peer, "people"), described(pod, peer, "spice.sales.wide", "wide")]
    sets.append(described(pod, peer, "people", "by_name", flightsql_token=None, flightsql_username="any", flightsql_password=peer.key))
    pod.yaml(tls=pod.write_pair(), datasets=sets)
    server = pod.serve()
    for name in ("t", "by_name"):
        assert clients.rows(server, f"SELECT id, name FROM {name} ORDER BY id") == data.PEOPLE.to_pylist()
    assert clients.rows(server, 'SELECT count(*) AS n FROM wide') == [{"n": 300_000}]
    assert clients.rows(server, 'SELECT sum("Id") AS s, max(length(filler)) AS l FROM wide') == [{"s": 45_000_150_000, "l": 100}]
    assert clients.rows(server, 'SELECT "Id" FROM wide WHERE "Id" > 299999') == [{"Id": 300_000}]
    assert clients.rows(server, "SELECT w.\"Id\", t.name FROM wide w JOIN t ON w.\"Id\" = t.id ORDER BY 1 LIMIT 1") == [{"Id": 1, "name": "Ada"}]
    assert clients.sql(server, "INSERT INTO t VALUES (1, 'x')").status == 403


def test_what_is_asked_of_the_peer(pod, peer):
    """Columns and the limit are left to it, and the caller's trace goes on."""
    pod.yaml(tls=pod.write_pair(), datasets=[described(pod, peer, "people")])
    server = pod.serve()
    clients.sql(server, "SELECT name FROM t LIMIT 2", "-H", f"traceparent: 00-{TRACE}-{SPAN}-01").ok()
    told = clients.sql(
        peer, f"SELECT statement FROM runtime.queries WHERE trace_id = '{TRACE}'", "-H", f"X-API-Key: {peer.key}"
    )
    assert {row["statement"] for row in told.ok().json()} == {'SELECT "name" FROM people LIMIT 2'}


WRONG = {
    "no CA that issued it": ({"tls_ca_file": None}, r"was issued by .* not trusted"),
    "a key that is none": ({"flightsql_token": "not-the-key"}, "key"),
    "plain text": ({}, "."),
    "no table": ({}, "no_such_table"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_said_of_a_peer_that_cannot_be_read(pod, peer, what):
    params, words = WRONG[what]
    if what == "plain text":
        params = {"flightsql_endpoint": f"grpc://localhost:{peer.port('flight')}"}
    pod.yaml(tls=pod.write_pair(), datasets=[described(pod, peer, "no_such_table" if what == "no table" else "people", **params)])
    said = trouble(pod.serve())
    assert re.search(words, said) and said.startswith("Flight SQL at localhost:") and "\n" not in said, said


PARAMS = {
    "no endpoint": ({"flightsql_endpoint": None}, "missing"),
    "an endpoint that is none": ({"flightsql_endpoint": "localhost:1"}, "grpc+tls://HOST:PORT"),
    "two ways": ({"flightsql_username": "a"}, "exclude"),
    "half an identity": ({"tls_key_file": "a"}, "belong together"),
    "a key in plain text": ({"flightsql_endpoint": "grpc://db.example.com:1"}, "plain text"),
}


@pytest.mark.parametrize("what", PARAMS)
def test_params_that_cannot_be(pod, peer, what):
    params, words = PARAMS[what]
    pod.yaml(datasets=[described(pod, peer, "people", **params)])
    assert words in pod.refuse().stderr


def test_a_client_certificate_is_shown(pod, tmp_path):
    """To a peer that lets in nobody without one."""
    other, machines = Pod(tmp_path / "peer"), Authority("machines")
    try:
        data.write(data.PEOPLE, other.folder / "people.parquet")
        other.write("machines.pem", machines.pem)
        tls = {**other.write_pair(), "client_auth_mode": "required", "client_auth_ca_file": "machines.pem"}
        other.yaml(tls=tls, datasets=[{"from": "file:people.parquet", "name": "people"}])
        served = other.serve(wait=False)
        served.wait_for_log(match="serving")
        mine = machines.issue(names=(), common_name="front", client=True)
        pod.write("peer.pem", other.ca.pem)
        pod.write("me.crt", mine.certificate)
        pod.write("me.key", mine.key_text)
        params = {
            "flightsql_endpoint": f"grpc+tls://localhost:{served.port('flight')}",
            "tls_ca_file": "peer.pem",
            "tls_certificate_file": "me.crt",
            "tls_key_file": "me.key",
        }
        pod.yaml(tls=pod.write_pair(), datasets=[{"from": "flightsql:people", "name": "t", "params": params}])
        server = pod.serve()
        assert clients.rows(server, "SELECT count(*) AS n FROM t") == [{"n": 3}]
    finally:
        other.close()


def test_a_peer_that_went_away_comes_back(pod, peer):
    pod.yaml(tls=pod.write_pair(), datasets=[described(pod, peer, "people")])
    server = pod.serve()
    port = peer.port("flight")
    assert clients.rows(server, "SELECT count(*) AS n FROM t") == [{"n": 3}]
    peer.close()
    gone = clients.sql(server, "SELECT count(*) AS n FROM t")
    assert gone.status == 503 and "Flight SQL at localhost" in gone.text, gone
    peer.pod.serve("--flight", f"localhost:{port}", doors=("http", "grpc"))
    eventually(lambda: clients.sql(server, "SELECT count(*) AS n FROM t").status == 200, "it is asked again", 30)

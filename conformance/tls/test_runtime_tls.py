"""`runtime.tls`: the certificates of every endpoint, queried by SQL; and TLS session keys, which are logged only on
request."""

from __future__ import annotations

import datetime

import pytest

from harness import clients
from harness.waiting import eventually

COLUMNS = "endpoint, subject, names, issuer, fingerprint, not_before, not_after, origin, last_swap, last_rejection"


def test_it_shows_the_presented_certificates(pod):
    more = pod.ca.issue(("db.example.com",), common_name="more", ends=datetime.timedelta(days=20))
    pod.write("more.crt", more.certificate)
    pod.write("more.key", more.key_text)
    pod.yaml(tls={**pod.write_pair(), "certificates": [{"certificate_file": "more.crt", "key_file": "more.key"}]})
    server = pod.serve("--metrics", "localhost:0")
    rows = clients.rows(server, f"SELECT {COLUMNS}, is_default, health FROM runtime.tls ORDER BY endpoint, is_default")
    assert [row["endpoint"] for row in rows] == [d for d in ("flight", "grpc", "http", "metrics") for _ in range(2)]
    first, default = rows[:2]
    assert (first["subject"], first["names"], first["is_default"]) == ("CN=more", ["db.example.com"], False), first
    assert (first["fingerprint"], first["health"]) == (more.fingerprint, "degraded: expires within 30 days")
    assert default["fingerprint"] == pod.pair.fingerprint and default["is_default"], default
    assert default["not_after"].startswith(pod.pair.leaf.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%S")), default
    assert default["origin"] == "spicepod.yaml: runtime.tls.certificate_file" and default["last_rejection"] is None
    by_flight = clients.query(clients.flight_client(server), "SELECT fingerprint FROM runtime.tls WHERE endpoint = 'http'")
    assert set(by_flight.column(0).to_pylist()) == {pod.pair.fingerprint, more.fingerprint}

    # A swap and a rejection appear in the next query.
    renewed = pod.ca.issue(common_name="renewed")
    pod.write_pair(renewed)
    ask = "SELECT subject, rejection_reason FROM runtime.tls WHERE endpoint = 'http' AND is_default"
    eventually(lambda: clients.rows(server, ask)[0]["subject"] == "CN=renewed", "the renewed certificate")
    pod.write("tls.key", pod.pair.key_text)
    eventually(lambda: "not the key of" in (clients.rows(server, ask)[0]["rejection_reason"] or ""), "the rejection")


def test_without_tls_it_is_empty_and_it_is_never_written(in_clear):
    assert clients.rows(in_clear, "SELECT * FROM runtime.tls") == []
    for text in ("DELETE FROM runtime.tls", "DROP TABLE runtime.tls", "INSERT INTO runtime.tls SELECT * FROM runtime.tls"):
        assert clients.sql(in_clear, text).status == 403, text


@pytest.mark.parametrize("asked", [False, True])
def test_session_keys_are_written_on_request(pod, asked):
    pod.yaml(tls=pod.write_pair())
    keys = pod.home / "keys.log"
    server = pod.serve(*(["--insecure-key-log"] if asked else []), env={"SSLKEYLOGFILE": str(keys)})
    clients.sql(server, "SELECT 1 AS x").ok()
    assert server.wait_for_log("WARN" if asked else "INFO", match="insecure-key-log")
    assert (keys.exists() and "CLIENT_TRAFFIC_SECRET_0" in keys.read_text()) == asked

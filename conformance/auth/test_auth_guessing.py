"""Key guessing is throttled per address, behind proxies too; failures are counted, logged, and audited."""

from __future__ import annotations

import re
import signal
import subprocess

import pytest

from harness import audit, clients, data, wire
from harness.access import Access
from harness.identities import NOBODY, Caller
from harness.leak_scanner import LEDGER
from harness.metrics import metrics, total
from harness.server import text_of
from harness.waiting import eventually

HOME = "127.0.0.1"
FEW = 5


def serve(pod, *args, limit: int | None = FEW, http: dict | None = None, mode: str | None = None, **auth):
    """A server with keys that accepts `limit` wrong keys from an address."""
    access = Access(pod)
    runtime: dict = {"auth": {"api_key": access.api_key, **auth}}
    if limit is not None:
        runtime["limits"] = {"auth_failures": limit}
    if http:
        runtime["http"] = http
    if mode:
        runtime["auth"]["mtls"] = access.mtls
    data.write(data.PEOPLE, pod.folder / "people.parquet")
    pod.yaml(
        tls=access.tls(mode) if mode else pod.write_pair(),
        runtime=runtime,
        datasets=[{"from": "file:people.parquet", "name": "people"}, data.MEMORY],
    )
    server = pod.serve("--metrics", "localhost:0", *args, env=access.environment)
    server.access = access
    return server


def ask(server, caller: Caller, *args: str, text: str = "SELECT 1 AS x") -> clients.Answer:
    """Sends a query from 127.0.0.1, unless `args` set another address."""
    return caller.curl(server, "/v1/sql", "-d", text, *args, host=HOME)


def wrong(server) -> Caller:
    return Caller(server.access.wrong)


def lock_out(server, *args: str) -> None:
    """Sends wrong keys until they are refused unread."""
    statuses = [ask(server, wrong(server), *args).status for _ in range(FEW + 2)]
    # Wrong keys that were sent earlier count as well.
    assert statuses == sorted(statuses) and statuses[0] == 401 and statuses[-1] == 429, statuses


def is_locked_out(server, *args: str) -> bool:
    """Whether the next wrong key from there is refused unread; if it is read, it counts."""
    status = ask(server, wrong(server), *args).status
    assert status in (401, 429), status
    return status == 429


# Too many


def test_too_many_wrong_keys(pod):
    server = serve(pod)
    lock_out(server)
    answer = ask(server, wrong(server))
    assert answer.status == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60, answer.headers
    assert answer.media_type == "application/problem+json"
    assert ask(server, server.access.rw).status == 429, "a key not seen from this address before is not read"
    assert ask(server, NOBODY).status == 401, "a request without a credential is not a guess"
    clients.get(server, "/health", host=HOME).ok()


def test_too_many_over_grpc(pod):
    """All endpoints and all ways of sending a key share one count."""
    server = serve(pod)
    request = wire.descriptor("SELECT 1")
    headers = ["x-api-key", "bearer", "basic"]
    codes = []
    for number in range(FEW + 2):
        with Caller(server.access.wrong, header=headers[number % 3]).wire(server, host=HOME) as flight:
            codes.append(flight.ask("GetFlightInfo", request).code)
    assert codes[:FEW] == ["UNAUTHENTICATED"] * FEW and codes[-1] == "RESOURCE_EXHAUSTED", codes
    with Caller(server.access.wrong).wire(server, "grpc", host=HOME) as grpc:
        assert grpc.ask(wire.REFLECTION, wire.message(f7="*")).code == "RESOURCE_EXHAUSTED"
        assert grpc.ask(wire.HEALTH, b"").code == "OK"
    assert is_locked_out(server)


def test_too_many_handshakes(pod):
    server = serve(pod)
    payload = wire.message(f2=wire.message(f2="anybody", f3=server.access.wrong))
    with NOBODY.wire(server, host=HOME) as flight:
        codes = [flight.ask("Handshake", payload).code for _ in range(FEW + 2)]
    assert codes[:FEW] == ["UNAUTHENTICATED"] * FEW and codes[-1] == "RESOURCE_EXHAUSTED", codes


def test_thirty_at_once_by_default(pod):
    server = serve(pod, limit=None)
    with wrong(server).wire(server, host=HOME) as flight:
        codes = [flight.ask("GetFlightInfo", wire.descriptor("SELECT 1")).code for _ in range(40)]
    assert codes[:30] == ["UNAUTHENTICATED"] * 30 and codes[-1] == "RESOURCE_EXHAUSTED", codes


def test_missing_credentials_do_not_count(pod):
    server = serve(pod)
    for _ in range(3 * FEW):
        assert ask(server, NOBODY).status == 401
        assert ask(server, Caller("")).status == 401, "an empty bearer token is not a credential"
    assert not is_locked_out(server)
    ask(server, server.access.rw).ok()


def test_denied_statements_do_not_count(pod):
    """A key that may not write is nevertheless a valid key."""
    server = serve(pod)
    for _ in range(3 * FEW):
        assert ask(server, server.access.ro, text="INSERT INTO notes VALUES (1, 'x')").status == 403
    assert not is_locked_out(server)


def test_known_key_is_still_accepted(pod):
    server = serve(pod)
    ask(server, server.access.ro).ok()
    lock_out(server)
    for header in ("x-api-key", "bearer"):
        ask(server, Caller(server.access.ro.key, header=header)).ok()
    with server.access.ro.wire(server, host=HOME) as flight:
        flight.query("SELECT 1 AS x").ok()
    assert ask(server, server.access.rw).status == 429
    assert is_locked_out(server), "a valid key from the same address does not reset the limit"


def test_other_addresses_are_not_locked_out(pod):
    server = serve(pod)
    lock_out(server)
    ask(server, server.access.rw, "--interface", "127.0.0.2").ok()
    assert ask(server, wrong(server), "--interface", "127.0.0.2").status == 401


def test_one_more_after_a_while(pod):
    """60 a minute is one per second."""
    server = serve(pod, limit=60)
    with wrong(server).wire(server, host=HOME) as flight:

        def guess() -> str:
            return flight.ask("GetFlightInfo", wire.descriptor("SELECT 1")).code

        eventually(lambda: guess() == "RESOURCE_EXHAUSTED", "the end of patience", pause=0)
        eventually(lambda: guess() == "UNAUTHENTICATED", "a guess that is read again", deadline=10)


# Proxies: 127.0.0.1 is one, and names the client in X-Forwarded-For

PROXY = {"trusted_proxies": ["127.0.0.0/8"]}


def said(address: str) -> tuple[str, str]:
    return "-H", f"X-Forwarded-For: {address}"


def test_clients_behind_a_trusted_proxy_are_counted_separately(pod):
    server = serve(pod, http=PROXY)
    lock_out(server, *said("192.0.2.1"))
    assert not is_locked_out(server, *said("192.0.2.2"))
    ask(server, server.access.rw, *said("192.0.2.3")).ok()
    assert is_locked_out(server, *said("192.0.2.1"))
    line = audit.line(server, outcome="denied", address="192.0.2.1")
    assert line["endpoint"] == "http"


def test_last_address_outside_the_proxies_counts(pod):
    """The client may have invented the addresses before it."""
    server = serve(pod, http=PROXY)
    statuses = [
        ask(server, wrong(server), *said(f"198.51.100.{n}, 192.0.2.1, 127.0.0.9")).status for n in range(FEW + 2)
    ]
    assert statuses[0] == 401 and statuses[-1] == 429, statuses
    assert is_locked_out(server, *said("192.0.2.1"))


def test_several_lines_are_one_list(pod):
    server = serve(pod, http=PROXY)
    lock_out(server, *said("198.51.100.1"), *said("192.0.2.1"))
    assert is_locked_out(server, *said("192.0.2.1")) and not is_locked_out(server, *said("198.51.100.1"))


def test_ipv6_counts_by_its_64(pod):
    server = serve(pod, http=PROXY)
    statuses = [ask(server, wrong(server), *said(f"2001:db8:0:1::{n + 1:x}")).status for n in range(FEW + 2)]
    assert statuses[:FEW] == [401] * FEW and statuses[-1] == 429, statuses
    assert not is_locked_out(server, *said("2001:db8:0:2::1"))


def test_forwarded_address_from_untrusted_peers_is_ignored(pod):
    """Without trusted proxies, and from an address that is not among them."""
    for http in (None, {"trusted_proxies": ["10.0.0.0/8", "192.0.2.7"]}):
        server = serve(pod, http=http)
        statuses = [ask(server, wrong(server), *said(f"192.0.2.{n}")).status for n in range(FEW + 2)]
        assert statuses[:FEW] == [401] * FEW and statuses[-1] == 429, statuses
        assert audit.line(server, outcome="denied")["address"].startswith(HOME)
        pod.close()
        pod.servers.clear()


def test_forwarded_for_counts_on_the_grpc_endpoints(pod):
    server = serve(pod, http=PROXY)
    metadata = {"x-forwarded-for": "192.0.2.1"}
    with wrong(server).wire(server, host=HOME, **metadata) as flight:
        codes = [flight.ask("GetFlightInfo", wire.descriptor("SELECT 1")).code for _ in range(FEW + 2)]
    assert codes[-1] == "RESOURCE_EXHAUSTED", codes
    assert is_locked_out(server, *said("192.0.2.1")) and not is_locked_out(server, *said("192.0.2.2"))
    assert audit.line(server, outcome="denied", endpoint="flight")["address"] == "192.0.2.1"


@pytest.mark.parametrize("address", ["nonsense", "", "192.0.2.1:99999", "999.1.1.1", "unknown", "_hidden"])
def test_nonsense_is_not_taken_for_an_address(pod, address):
    """An invalid address does not get a count of its own."""
    server = serve(pod, http=PROXY)
    statuses = [ask(server, wrong(server), *said(f"{address}{n}" if n else address)).status for n in range(FEW + 2)]
    assert statuses[0] == 401 and statuses[-1] == 429, statuses


@pytest.mark.parametrize("proxies", [["10.0.0.0/33"], ["nowhere"], ["10.0.0.0/8", ""]], ids=str)
def test_invalid_proxies_are_refused(pod, proxies):
    pod.yaml(tls=pod.write_pair(), runtime={"http": {"trusted_proxies": proxies}})
    pod.refuse().names("trusted_proxies")


# Counted and logged


def test_failures_are_counted(pod):
    server = serve(pod, limit=1000)
    name = "spiced_auth_failures_total"
    for _ in range(3):
        ask(server, wrong(server))
    ask(server, NOBODY)
    with wrong(server).wire(server, host=HOME) as flight:
        flight.ask("GetFlightInfo", wire.descriptor("SELECT 1"))
    with wrong(server).wire(server, "grpc", host=HOME) as grpc:
        grpc.ask(wire.REFLECTION, wire.message(f7="*"))
    by_reason = {
        (labels["endpoint"], labels["reason"]): value for n, labels, value in metrics(server) if n == name and value
    }
    assert 3 in [value for (endpoint, _), value in by_reason.items() if endpoint == "http"], by_reason
    assert total(server, name, endpoint="http") == 4, by_reason
    assert len([1 for endpoint, _ in by_reason if endpoint == "http"]) == 2, (
        f"a wrong key and a missing key are two reasons: {by_reason}"
    )
    assert total(server, name, endpoint="flight") == total(server, name, endpoint="grpc") == 1, by_reason
    ask(server, server.access.ro).ok()
    assert total(server, name) == 6, "an accepted caller is not a failure"


def test_failures_are_logged(pod):
    """Each has the address, endpoint and reason; the output is searched for the credential when the server ends."""
    server = serve(pod, limit=1000)
    name = "a wrong key in a log line's way"
    for header in ("x-api-key", "bearer"):
        since = len(server.log)
        ask(server, Caller(LEDGER.mark(name), header=header))
        line = server.wait_for_log(match=rf"(?s){HOME}.*key|key.*{HOME}", since=since)
        assert "http" in text_of(line), line
    with Caller(LEDGER.mark(name)).wire(server, host=HOME) as flight:
        since = len(server.log)
        flight.ask("GetFlightInfo", wire.descriptor("SELECT 1"))
        assert "flight" in text_of(server.wait_for_log(match=HOME, since=since))


# Audited


def test_audit_of_a_write(pod):
    server = serve(pod)
    text = "INSERT INTO notes VALUES (1, 'x')"
    ask(server, server.access.rw, text=text).ok()
    line = audit.line(server, outcome="done")
    assert line["principal"] == audit.principal(server.access.rw.key)
    assert (line["endpoint"], line["statement"]) == ("http", audit.statement(text))
    assert line["address"].startswith(HOME) and line["effect"], line
    assert not line.get("reason") and not line.get("certificate"), line
    assert len(audit.lines(server)) == 1, audit.lines(server)


CHANGES = {
    "insert": "INSERT INTO notes VALUES (1, 'x')",
    "insert-select": "INSERT INTO notes SELECT id, name FROM people",
    "create": "CREATE TABLE made AS SELECT 1 AS x",
    "view": "CREATE VIEW seen AS SELECT 1 AS x",
    "drop": "DROP TABLE IF EXISTS nothing_of_that_name",
    "analyze": "EXPLAIN ANALYZE INSERT INTO notes VALUES (1, 'x')",
}


@pytest.mark.parametrize("text", CHANGES.values(), ids=CHANGES.keys())
def test_audit_over_every_way(pod, text):
    """One line for each: `done` for a permitted caller, `denied` for any other."""
    server = serve(pod, limit=1000)
    for caller, outcome in ((server.access.ro, "denied"), (server.access.rw, "done")):
        key = audit.principal(caller.key)
        for endpoint in ("http", "flight"):
            since = len(server.log)
            if endpoint == "http":
                ask(server, caller, text=text)
            else:
                with caller.wire(server, host=HOME) as flight:
                    flight.put(wire.update(text))
            line = audit.line(server, since, principal=key, endpoint=endpoint)
            assert line["outcome"] in (
                (outcome,) if text.startswith(("INSERT", "EXPLAIN", "DROP")) else (outcome, "failed")
            ), line
            assert line["statement"] == audit.statement(text) and line["address"].startswith(HOME), line
            assert bool(line.get("reason")) == (outcome == "denied"), line
            assert len(audit.lines(server, since)) == 1, audit.lines(server, since)


def test_audit_of_prepared_writes(pod):
    server = serve(pod)
    text = "INSERT INTO notes VALUES (1, 'x')"
    with server.access.rw.wire(server, host=HOME) as flight:
        handle = wire.handle_of(flight.prepare(text))
        assert not audit.lines(server), "preparing a statement changes nothing"
        flight.put(wire.sql_any("CommandPreparedStatementUpdate", f1=handle)).ok()
    assert audit.line(server, outcome="done")["statement"] == audit.statement(text)


def test_audit_of_a_write_that_fails(pod):
    server = serve(pod)
    text = "INSERT INTO notes SELECT CAST(name AS BIGINT) AS id, name FROM people"
    assert ask(server, server.access.rw, text=text).status == 400
    line = audit.line(server, outcome="failed")
    assert (line["principal"], line["statement"]) == (audit.principal(server.access.rw.key), audit.statement(text))


ENDLESS = """INSERT INTO notes SELECT a.value, 'x' FROM generate_series(1, 300000) a, generate_series(1, 300000) b
  WHERE (a.value * b.value) % 7 = 8"""


def test_audit_of_a_write_that_its_client_gives_up(pod):
    server = serve(pod)
    server.access.rw  # the key is registered before it appears in a command line
    command = clients.curl_command(
        server.url("/v1/sql", host=HOME), *server.access.rw.curl_args(server), "-d", ENDLESS, ca=server.ca
    )
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: server.cpu_share(0.3) > 0.3, "a statement that runs")
        process.send_signal(signal.SIGKILL)
        assert audit.line(server, outcome="cancelled")["statement"] == audit.statement(ENDLESS)
    finally:
        process.kill()
        process.wait()


def test_reads_are_not_audited(pod):
    server = serve(pod)
    for text in ("SELECT id FROM people", "EXPLAIN SELECT 1", "SHOW TABLES", "SELEC 1", "SELECT nope FROM people"):
        ask(server, server.access.rw, text=text)
    for path in ("/health", "/v1/ready", "/v1/status", "/v1/datasets"):
        server.access.ro.curl(server, path).ok()
    with server.access.ro.wire(server, host=HOME) as flight:
        flight.query("SELECT id FROM people").ok()
        flight.query(wire.tables()).ok()
    ask(server, server.access.rw, text="INSERT INTO notes VALUES (1, 'x')").ok()
    audit.line(server, outcome="done")
    assert len(audit.lines(server)) == 1, audit.lines(server)


def test_audit_of_unauthenticated_requests(pod):
    server = serve(pod)
    for caller in (NOBODY, wrong(server)):
        since = len(server.log)
        assert ask(server, caller).status == 401
        line = audit.line(server, since, outcome="denied", endpoint="http")
        assert line["reason"] and line["address"].startswith(HOME), line
        since = len(server.log)
        with caller.wire(server, host=HOME) as flight:
            flight.ask("GetFlightInfo", wire.descriptor("SELECT 1"))
        assert audit.line(server, since, outcome="denied", endpoint="flight")["reason"]


def test_audit_of_requests_that_are_refused_unread(pod):
    server = serve(pod)
    lock_out(server)
    since = len(server.log)
    assert is_locked_out(server)
    assert audit.line(server, since, outcome="denied", endpoint="http")["reason"]


def test_audit_shows_no_statement(pod):
    server = serve(pod)
    marked = LEDGER.mark("a value within a statement")
    ask(server, server.access.rw, text=f"INSERT INTO notes VALUES (1, '{marked}')").ok()
    assert ask(server, server.access.ro, text=f"INSERT INTO notes VALUES (1, '{marked}')").status == 403
    audit.line(server, outcome="done"), audit.line(server, outcome="denied")


def test_audit_of_certificates(pod):
    """Lines name the matching identity; callers without a match and anonymous callers have a name too."""
    server = serve(pod, mode="request", allow_anonymous="ro")
    text = "INSERT INTO notes VALUES (1, 'x')"
    pairs = server.access.pairs
    for who, outcome in (("rw", "done"), ("ro", "denied")):
        ask(server, Caller(pair=pairs[who]), text=text)
        line = audit.line(server, outcome=outcome, principal=f"san_uri:spiffe://conformance/{who}")
        assert line["certificate"].replace(":", "").lower() == pairs[who].fingerprint, line
    since = len(server.log)
    assert ask(server, Caller(pair=pairs["unmapped"]), text=text).status == 403
    assert (
        audit.line(server, since, outcome="denied")["certificate"].replace(":", "").lower()
        == pairs["unmapped"].fingerprint
    )
    since = len(server.log)
    assert ask(server, NOBODY, text=text).status == 403
    assert audit.line(server, since, outcome="denied")["principal"] == "anonymous"
    since = len(server.log)
    ask(server, Caller(server.access.keys["plain:rw"], pairs["ro"]), text=text).ok()
    assert audit.line(server, since, outcome="done")["principal"] == audit.principal(server.access.keys["plain:rw"])


def test_hashed_and_plain_keys_have_one_name(pod):
    """The name depends on the key, not on its form in the pod; for an argon2id hash the name must only stay the same.
    """
    server = serve(pod)
    names = {}
    for kind in ("plain", "sha256", "argon2id", "argon2id"):
        key = server.access.keys[f"{kind}:rw"]
        since = len(server.log)
        ask(server, Caller(key), text="INSERT INTO notes VALUES (1, 'x')").ok()
        name = audit.line(server, since, outcome="done")["principal"]
        assert re.fullmatch("key:[0-9a-f]{12}", name) and names.setdefault(kind, name) == name
        assert kind == "argon2id" or name == audit.principal(key), kind
    assert len(set(names.values())) == 3

"""A server whose clock is moved: past the end of its certificate's validity, and past the lifetime of a session
ticket."""

from __future__ import annotations

import collections
import datetime
import re

import pytest

from harness import clients
from harness.certificates import Authority
from harness.clock import Clock
from harness.leak_scanner import LEDGER
from harness.metrics import metrics
from harness.pod import ENDPOINTS
from harness.waiting import eventually

DAY = datetime.timedelta(days=1)
HOUR = datetime.timedelta(hours=1)
ENDS = "TLS-ENDS-SOON|TLS-EXPIRED"
EVERY_DOOR = {*ENDPOINTS, "metrics"}


def serve(pod, tls=None, ahead=0 * DAY):
    """A server with its own clock."""
    clock = Clock(pod, ahead)
    pod.yaml(tls=tls or pod.write_pair())
    server = pod.serve("--metrics", "localhost:0", env=clock.environment)
    server.clock, clock.server = clock, server
    return server


def health(server) -> str:
    (certificate,) = clients.get(server, "/v1/status").ok().json()["tls"]["certificates"]
    return certificate["health"]


def told(server, since: int = 0) -> list[tuple[datetime.datetime, str, str]]:
    """Time, level and code of each log line about an expiry."""
    return [
        (datetime.datetime.fromisoformat(r["timestamp"]), r["level"], r["fields"]["code"])
        for r in server.logged(match=ENDS, since=since)
    ]


def ends_on_every_endpoint(server) -> set[tuple[str, str, float]]:
    name = "spiced_tls_certificate_not_after_timestamp_seconds"
    return {(l["endpoint"], l["fingerprint"], value) for n, l, value in metrics(server) if n == name}


def assert_metric(server, pair) -> None:
    end = pair.leaf.not_valid_after_utc.timestamp()
    assert ends_on_every_endpoint(server) == {(endpoint, pair.fingerprint, end) for endpoint in EVERY_DOOR}


def assert_serves(server, pair) -> None:
    for endpoint in ENDPOINTS:
        assert clients.presented(server, endpoint) == pair.der
    assert clients.sql(server, "SELECT 1 AS x").ok().json() == [{"x": 1}]
    assert clients.get(server, "/v1/ready").ok().text.strip() == "ready"


@pytest.mark.timeout(180)
def test_a_life_to_its_end_and_the_next(pod):
    pair = pod.ca.issue(ends=33 * DAY)
    server = serve(pod, pod.write_pair(pair))
    assert health(server) == "ok"
    assert_metric(server, pair)

    for day in range(1, 37):
        seen, left = len(server.log), 33 - day
        server.clock.go(DAY)
        if left > 30:
            continue
        said = server.wait_for_log(match=ENDS, since=seen)
        assert said["level"] == ("WARN" if left > 7 else "ERROR"), (left, said)
        assert said["fields"]["code"] == ("TLS-ENDS-SOON" if left > 0 else "TLS-EXPIRED"), (left, said)
        assert said["fields"]["fix"] and said["fields"]["subject"] and said["fields"]["origin"], said
        if left in (29, 6, 0, -2):
            word = "expired" if left <= 0 else "degraded"
            assert word in health(server), (left, health(server))
            assert_metric(server, pair)
            assert_serves(server, pair)

    # Once a day, whatever the number of endpoints, and never early.
    when = [day for day, _, _ in told(server)]
    assert min(when) >= pair.leaf.not_valid_after_utc - 30 * DAY
    assert len(when) == 34, when
    assert {b - a >= 0.99 * DAY for a, b in zip(when, when[1:])} == {True}, when

    renewed = pod.ca.issue(common_name="renewed", ends=36 * DAY + 90 * DAY)
    pod.write_pair(renewed)
    eventually(lambda: clients.presented(server) == renewed.der, "the renewed certificate")
    assert_serves(server, renewed)
    assert health(server) == "ok"
    assert_metric(server, renewed)
    seen = len(server.log)
    for _ in range(3):
        server.clock.go(DAY)
        server.stays_up(0.5)  # on each day before, the log line appeared within this time
    assert not told(server, since=seen)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("left, level", [(20, "WARN"), (5, "ERROR"), (-1, "ERROR")], ids=lambda value: str(value))
def test_once_a_day_however_often_the_clock_is_checked(pod, left, level):
    """From the start, hour by hour."""
    pair = pod.ca.issue(starts=-90 * DAY, ends=left * DAY + HOUR / 2)
    server = serve(pod, pod.write_pair(pair))
    assert told(server), "the first line appears at startup"
    for _ in range(16):
        server.clock.go(3 * HOUR)
        server.stays_up(0.4)
    said = told(server)
    assert {spoke for _, spoke, _ in said} == {level}, said
    by_day = collections.Counter((when - said[0][0]) // (0.99 * DAY) for when, _, _ in said)
    assert set(by_day.values()) == {1} and len(by_day) in (2, 3), said


def test_each_certificate_is_reported_separately(pod):
    """Each of two certificates is reported separately; after a renewal its report stops."""
    short, long = pod.ca.issue(("a.localhost",), common_name="a", ends=31 * DAY), pod.ca.issue(ends=200 * DAY)
    more = pod.write_pair(short, stem="a")
    server = serve(pod, {**pod.write_pair(long), "certificates": [more]})
    seen = len(server.log)
    server.clock.go(2 * DAY)
    said = server.wait_for_log("WARN", match="TLS-ENDS-SOON", since=seen)
    assert "CN=a" == said["fields"]["subject"] and "certificates" in said["fields"]["origin"], said
    healths = {c["subject"]: c["health"] for c in clients.get(server, "/v1/status").ok().json()["tls"]["certificates"]}
    assert healths["CN=localhost"] == "ok" and "degraded" in healths["CN=a"], healths
    seen = len(server.log)
    pod.write_pair(pod.ca.issue(("a.localhost",), common_name="a", ends=200 * DAY), stem="a")
    server.wait_for_log(match="reloaded", since=seen)
    server.clock.go(DAY)
    server.stays_up(0.5)
    assert not told(server, since=seen), told(server, since=seen)


def test_an_intermediate_that_ends_first(pod):
    """The chain expires with its first certificate to expire, and that is reported too."""
    between = Authority("Between", pod.ca)  # 365 days
    pair = between.issue(ends=700 * DAY)
    server = serve(pod, pod.write_pair(pair))
    seen = len(server.log)
    server.clock.go(340 * DAY)
    said = server.wait_for_log("WARN", match="expires in", since=seen)
    assert "CN=Between" in str(said["fields"]), said


# Session tickets. A window is 6 h; tickets of the last two windows are accepted.


def resumed(server, endpoint: str, version: str, session) -> bool:
    said = clients.s_client(server.port(endpoint), f"-{version}", "-alpn", "h2", "-sess_in", str(session))
    assert re.search(r"^(New|Reused), TLSv1", said, re.MULTILINE), said
    return "Reused, " in said


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_a_ticket_is_good_at_another_replica_for_two_windows(pod, tmp_path, version):
    secret = LEDGER.mark("a session ticket secret")
    tls = {**pod.write_pair(), "session_ticket_secret": "${env:TICKETS}"}
    pod.yaml(tls=tls)
    one = pod.serve(env={"TICKETS": secret})
    session = tmp_path / "session.pem"
    clients.save_session(one, "http", version, session)
    assert resumed(one, "http", version, session), "at the replica that issued it"

    clock = Clock(pod)
    other = pod.serve(env={"TICKETS": secret, **clock.environment})
    for endpoint in ENDPOINTS:
        assert resumed(other, endpoint, version, session), f"at another replica, on its {endpoint} endpoint"
    for ahead, good in [(6 * HOUR, True), (12 * HOUR, False), (13 * HOUR, False), (72 * HOUR, False)]:
        clock.set(ahead)
        assert resumed(other, "http", version, session) == good, f"{ahead} later"
    # It still issues tickets, which are valid.
    newer = tmp_path / "newer.pem"
    clients.save_session(other, "http", version, newer)
    assert resumed(other, "http", version, newer)
    # A replica that starts late has not seen the earlier windows, and accepts their tickets nevertheless.
    late = pod.serve(env={"TICKETS": secret, **Clock(pod, 6 * HOUR).environment})
    assert resumed(late, "http", version, session), "at a replica that started a window later"
    later = pod.serve(env={"TICKETS": secret, **Clock(pod, 13 * HOUR).environment})
    assert not resumed(later, "http", version, session), "at a replica that started three windows later"


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
@pytest.mark.parametrize("how", ["another secret", "no secret", "another client CA"])
def test_a_ticket_is_good_nowhere_else(pod, tmp_path, version, how):
    pod.write("ca.pem", pod.ca.pem)
    asks = {"client_auth_mode": "request", "client_auth_ca_file": "ca.pem"}
    tls = {**pod.write_pair(), **asks, "session_ticket_secret": "${env:TICKETS}"}
    pod.yaml(tls=tls)
    secret = LEDGER.mark("a session ticket secret")
    one = pod.serve(env={"TICKETS": secret})
    session = tmp_path / "session.pem"
    clients.save_session(one, "http", version, session)
    assert resumed(one, "http", version, session)
    if how == "another secret":
        secret = LEDGER.mark("another session ticket secret")
    elif how == "no secret":
        del tls["session_ticket_secret"]
    else:
        pod.write("ca.pem", Authority("Other clients").pem)
    pod.yaml(tls=tls)
    other = pod.serve(env={"TICKETS": secret})
    assert not resumed(other, "http", version, session)

"""Limits of a statement: slots by role, timeouts by header, results of a bounded size, compression, and its record in
`runtime.queries`."""

from __future__ import annotations

import gzip
import json
import subprocess

import pyarrow as pa
import pytest

from harness import clients
from harness.waiting import eventually

ENDLESS = "SELECT value, repeat('x', 1000) AS filler FROM generate_series(1, 1000000000)"
LARGE = "SELECT value, 'a text that repeats' AS text FROM generate_series(1, 20000)"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
READER, WRITER = "a-reader-of-the-limits", "a-writer-of-the-limits"
READS, WRITES = ("-H", f"X-API-Key: {READER}"), ("-H", f"X-API-Key: {WRITER}")


def serve(pod, **sql):
    keys = [f"{READER}:ro", f"{WRITER}:rw"]
    pod.yaml(tls=pod.write_pair(), runtime={"auth": {"api_key": {"keys": keys}}, "sql": sql})
    return pod.serve()


def queries(server, who=WRITES, where="true"):
    return clients.sql(server, f"SELECT * FROM runtime.queries WHERE {where} ORDER BY started_at", *who).ok().json()


class Calling:
    """A client that has sent an endless statement."""

    text = "SELECT sum(a.value % 7) FROM generate_series(1, 10000000) a, generate_series(1, 10000000) b"

    def __init__(self, server, who):
        self.server, self.who = server, who
        self.process = self.call()

    def call(self):
        command = clients.curl_command(self.server.url("/v1/sql"), *self.who, "-N", "-d", self.text, ca=self.server.ca)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def __exit__(self, *_):
        self.process.kill()
        self.process.stdout.close()
        self.process.wait()


class Busy(Calling):
    """The statement computes and occupies the only slot of the role."""

    def __enter__(self):
        eventually(self.has_the_slot, "the slot that is taken")
        return self

    def has_the_slot(self):
        if self.process.poll() is not None:
            # The query that checks ran first, and the statement found no slot.
            self.process = self.call()
        return clients.sql(self.server, "SELECT 1 AS x", *self.who).status == 503


class Stalled(Calling):
    """The client has started to read an endless answer, and stops reading."""

    text = ENDLESS

    def __enter__(self):
        assert self.process.stdout.read(1000)
        return self


def test_slots_by_role(pod):
    """Readers that hold all their slots do not delay a writer, and a caller that finds the queue full is refused at
    once.
    """
    server = serve(pod, concurrency={"ro": 1}, queue={"ro": 0})
    with Busy(server, READS):
        refused = clients.sql(server, "SELECT 1 AS x", *READS)
        assert refused.status == 503 and "role ro" in refused.text and "are running already" in refused.text, refused
        assert int(refused.headers["retry-after"]) > 0
        with pytest.raises(pa.ArrowException, match="are running already"):
            clients.query(clients.flight_client(server), "SELECT 1 AS x", bearer(READER))
        assert clients.sql(server, "SELECT 1 AS x", *WRITES).ok().json() == [{"x": 1}]
        clients.get(server, "/health").ok()
    eventually(lambda: clients.sql(server, "SELECT 1 AS x", *READS).status == 200, "the slot that came back")


def test_a_caller_that_does_not_read_takes_no_slot(pod):
    """A slot is held only while a query works: an answer that waits for its reader blocks no other query, even past the
    time limit.
    """
    server = serve(pod, concurrency={"ro": 1}, queue={"ro": 0}, timeout="3s")
    with Stalled(server, READS), Stalled(server, READS):
        for _ in range(2):
            eventually(lambda: clients.sql(server, "SELECT 1 AS x", *READS).status == 200, "an answer meanwhile")
    # Each slot allows four open results, of which one caller gets three; they end with the time limit.
    opened = [Stalled(server, READS) for _ in range(8)]
    eventually(lambda: clients.sql(server, "SELECT 1 AS x", *READS).status == 200, "an answer once their time is up")
    for one in opened:
        one.__exit__()


def test_a_long_wait_in_the_queue_is_refused(pod):
    server = serve(pod, concurrency={"ro": 1}, queue={"ro": 8}, queue_timeout="300ms")
    with Busy(server, READS):
        refused = clients.sql(server, "SELECT 1 AS x", *READS)
        assert refused.status == 503 and "none ended within 300ms" in refused.text, refused
    eventually(lambda: clients.sql(server, "SELECT 1 AS x", *READS).status == 200, "the slot that came back")
    told = queries(server, where="outcome = 'failed' AND role = 'ro'")
    assert "none ended within 300ms" in told[0]["error"] and told[0]["duration_ms"] >= 300, told


@pytest.mark.parametrize("key", ["concurrency", "max_result_rows", "max_result_bytes"])
def test_a_limit_of_zero_is_refused(pod, key):
    pod.yaml(tls=pod.write_pair(), runtime={"sql": {key: {"ro": 0} if key == "concurrency" else 0}})
    assert f"runtime.sql.{key}" in pod.refuse().stderr


def test_time_limit_by_header(pod):
    server = serve(pod)
    heavy = "SELECT count(*) FROM generate_series(1, 300000) a, generate_series(1, 300000) b WHERE (a.value * b.value) % 7 = 3"
    late = clients.sql(server, heavy, *READS, "-H", "Prefer: respond-async, wait=1")
    assert late.status == 503 and "Prefer: wait=1" in late.text, late
    eventually(lambda: server.cpu_share(0.5) < 0.1, "a server at rest once the limit has passed")
    in_time = clients.sql(server, "SELECT 1 AS x", *READS, "-H", "Prefer: wait=30").ok()
    assert in_time.headers["preference-applied"] == "wait=30"
    assert "preference-applied" not in clients.sql(server, "SELECT 1 AS x", *READS, "-H", "Prefer: wait=soon").ok().headers
    # The answer breaks off after the first rows, which curl reports (18: a partial file, 92: a stream reset).
    assert clients.sql(server, ENDLESS, *READS, "-H", "Prefer: wait=1", "-o", "/dev/null").exit in (18, 92)


def test_answers_of_a_bounded_size(pod):
    server = serve(pod, max_result_rows=1000, max_result_bytes="64KiB")
    series = "SELECT value FROM generate_series(1, {})"
    assert len(clients.sql(server, series.format(1000), *READS).ok().json()) == 1000
    for text, word in ((series.format(1001), "1000 rows"), ("SELECT repeat('x', 70000) AS x", "65536 bytes")):
        refused = clients.sql(server, text, *READS)
        assert refused.status == 503 and f"more than {word}" in refused.text, refused
        with pytest.raises(pa.ArrowException, match=f"more than {word}"):
            clients.query(clients.flight_client(server), text, bearer(READER))

    def asked(**more):
        body = json.dumps({"sql": series.format(500), **more}).encode()
        return clients.get(server, "/v1/sql", *READS, "-H", "Content-Type: application/json", "--data-binary", "@-", body=body)

    assert len(asked(max_result_rows=500).ok().json()) == 500
    assert asked(max_result_rows=499).status == 503 and asked(max_result_bytes=3999).status == 503
    assert len(asked(max_result_rows=1_000_000).ok().json()) == 500
    assert asked(max_result_rows=-1).status == 400


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_compressed_answers(pod, coding):
    server = serve(pod)
    plain = clients.sql(server, LARGE, *READS).ok()
    small = clients.sql(server, LARGE, *READS, "-H", f"Accept-Encoding: {coding}").ok()
    assert small.headers["content-encoding"] == coding and "content-encoding" not in plain.headers
    assert {"accept", "accept-encoding"} <= {name.strip() for name in small.headers["vary"].lower().split(",")}
    assert len(small.body) * 4 < len(plain.body)
    unpacked = gzip.decompress(small.body) if coding == "gzip" else zstd(small.body)
    assert unpacked == plain.body
    # RFC 9110 §12.5.3: a coding with weight 0 is not acceptable.
    refused = clients.sql(server, LARGE, *READS, "-H", f"Accept-Encoding: {coding};q=0").ok()
    assert "content-encoding" not in refused.headers


def zstd(body):
    with pa.CompressedInputStream(pa.BufferReader(body), "zstd") as stream:
        return stream.read()


def bearer(key):
    return clients.call(headers=[(b"authorization", f"Bearer {key}".encode())])


def test_history(pod):
    """Every completed statement of every endpoint, with its trace; a reader sees only its own."""
    server = serve(pod)
    traced = ("-H", f"traceparent: 00-{TRACE}-{SPAN}-01")
    clients.sql(server, "SELECT value FROM generate_series(1, 7)", *READS, *traced).ok()
    assert clients.sql(server, "SELECT nothing FROM nowhere", *READS).status == 400
    assert clients.sql(server, "DROP TABLE x", *READS).status == 403
    assert clients.sql(server, "CREATE EXTERNAL TABLE x OPTIONS (password 'hunter2') nonsense", *WRITES).status == 400
    headers = [(b"authorization", f"Bearer {READER}".encode()), (b"traceparent", f"00-{TRACE}-{SPAN}-00".encode())]
    clients.query(clients.flight_client(server), "SELECT 2 AS x", clients.call(headers=headers))
    with Stalled(server, READS):
        pass
    eventually(lambda: len(queries(server, where="outcome = 'cancelled'")) == 1, "the client that went away")

    rows = {row["statement"]: row for row in queries(server)}
    first = rows["SELECT value FROM generate_series(1, 7)"]
    assert (first["endpoint"], first["role"], first["effect"], first["outcome"]) == ("http", "ro", "read", "done"), first
    assert (first["rows"], first["trace_id"], first["parent_span_id"], first["error"]) == (7, TRACE, SPAN, None), first
    assert first["address"] in ("127.0.0.1", "::1") and first["duration_ms"] > 0, first
    assert (rows["SELECT 2 AS x"]["endpoint"], rows["SELECT 2 AS x"]["trace_id"]) == ("flight", TRACE)
    failed = rows["SELECT nothing FROM nowhere"]
    assert failed["outcome"] == "failed" and "nowhere" in failed["error"] and failed["trace_id"] is None, failed
    assert rows["DROP TABLE x"]["outcome"] == "denied"
    assert None in rows and "hunter2" not in json.dumps(list(rows.values()))
    own = queries(server, who=READS)
    assert {row["role"] for row in own} == {"ro"} and len(own) >= 5
    for text in ("DELETE FROM runtime.queries", "DROP TABLE runtime.queries"):
        assert clients.sql(server, text, *WRITES).status == 403, text


def test_history_is_bounded_or_none(pod):
    server = serve(pod, history=2)
    for number in range(4):
        clients.sql(server, f"SELECT {number} AS x", *WRITES).ok()
    assert [row["statement"] for row in queries(server)] == ["SELECT 2 AS x", "SELECT 3 AS x"]


def test_the_audit_log_names_the_trace(pod):
    server = serve(pod)
    traced = ("-H", f"traceparent: 00-{TRACE}-{SPAN}-01")
    clients.sql(server, "CREATE TABLE made AS SELECT 1 AS x", *WRITES, *traced).ok()
    assert TRACE in str(server.wait_for_log("INFO", match="a statement changed something"))

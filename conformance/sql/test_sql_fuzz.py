"""Unusual statements by a read-only caller: each is answered or refused in time, and the server's memory stays bounded.

`SQL_FUZZ_STATEMENTS` sets their number, `SQL_FUZZ_SEED` selects others, and `SQL_FUZZ_SECONDS` limits the time.
"""

from __future__ import annotations

import http.client
import itertools
import os
import threading
import time

import pytest

from harness import clients
from harness.statements import HIGHER, Statements

STATEMENTS = int(os.environ.get("SQL_FUZZ_STATEMENTS", "1200"))
SEED = int(os.environ.get("SQL_FUZZ_SEED", "23"))
SECONDS = float(os.environ.get("SQL_FUZZ_SECONDS", "50"))
READER = "a-reader-that-tries-everything"
CALLERS = 3
# The memory limit is 256 MiB: untracked memory may take as much again for each caller, plus the program itself.
MOST_MEMORY = 1100 << 20
# The time limit is two seconds: work that cannot be interrupted may take longer on a slow machine.
MOST_SECONDS = 20


class Guard(threading.Thread):
    """Ends the server when it grows too large, and records the statements that ran at that moment."""

    def __init__(self, server) -> None:
        super().__init__(daemon=True)
        self.server, self.asked, self.peak, self.to_blame, self.over = server, {}, 0, [], threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.02):
            try:
                size = self.server.memory()
            except (OSError, AttributeError):
                return  # The server has ended.
            self.peak = max(self.peak, size)
            if size > MOST_MEMORY:
                self.to_blame = [f"{size >> 20} MiB: {short(sql)}" for sql in list(self.asked.values())]
                self.server.process.kill()
                return  # The server has ended.


def short(sql: str) -> str:
    return sql if len(sql) < 400 else f"{sql[:300]} … {sql[-60:]} ({len(sql)} bytes)"


def ask(port: int, sql: str) -> tuple[int, str]:
    """Returns the status and the answer; a connection that breaks off after the status counts as a truncated answer."""
    connection = http.client.HTTPConnection("localhost", port, timeout=MOST_SECONDS)
    try:
        connection.request("POST", "/v1/sql", sql.encode(), {"x-api-key": READER, "content-type": "text/plain"})
        answer = connection.getresponse()
        try:
            return answer.status, answer.read(4096).decode(errors="replace")
        except http.client.HTTPException:
            return answer.status, ""
    finally:
        connection.close()


@pytest.mark.timeout(SECONDS + 120)
def test_any_statement_is_answered_or_refused(pod):
    sql = {"timeout": "2s", "memory_limit": "256MiB"}
    pod.yaml(runtime={"auth": {"api_key": {"keys": [f"{READER}:ro"]}}, "sql": sql})
    server = pod.serve()
    port = server.port("http")
    routines = "SELECT DISTINCT routine_name AS name, function_type AS kind FROM information_schema.routines"
    known = clients.sql(server, routines, "-H", f"X-API-Key: {READER}").ok().json()
    functions = {kind: [row["name"] for row in known if row["kind"] == kind] for kind in ("SCALAR", "AGGREGATE", "WINDOW")}
    assert {"repeat", "lpad", "range"} <= set(functions["SCALAR"]) and all(map(len, functions.values())), functions
    functions["SCALAR"] = [name for name in functions["SCALAR"] if name not in HIGHER]

    statements, turn = itertools.islice(iter(Statements(SEED, functions)), STATEMENTS), threading.Lock()
    wrong, statuses, ends = [], {}, time.monotonic() + SECONDS
    guard = Guard(server)
    guard.start()

    def caller(me: int) -> None:
        while time.monotonic() < ends and server.process.poll() is None and len(wrong) < 20:
            with turn:
                statement = next(statements, None)
            if statement is None:
                return  # The server has ended.
            guard.asked[me] = statement
            try:
                status, answer = ask(port, statement)
            except (OSError, http.client.HTTPException) as error:
                status, answer = 0, f"{type(error).__name__}: {error}"
            statuses[status] = statuses.get(status, 0) + 1
            if status not in (200, 400, 403, 404, 413, 501, 503):
                wrong.append(f"{status} {answer[:300]}\n    {short(statement)}")

    callers = [threading.Thread(target=caller, args=(me,), daemon=True) for me in range(CALLERS)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(SECONDS + 60)
    guard.over.set()
    print(f"{sum(statuses.values())} statements, {statuses}, at most {guard.peak >> 20} MiB")
    assert not guard.to_blame, "the server took too much for one of:\n" + "\n".join(guard.to_blame)
    assert server.process.poll() is None, "the server ended after one of:\n" + "\n".join(map(short, guard.asked.values()))
    assert not wrong, "\n".join(wrong)
    assert ask(port, "SELECT 1 AS x") == (200, '[{"x":1}]')

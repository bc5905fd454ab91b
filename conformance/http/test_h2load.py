"""h2load: many concurrent requests, over HTTP/2 and HTTP/1.1, with and without TLS; every response is 2xx."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from harness import clients

CONNECTIONS = 20
REQUESTS = {"/health": 5_000, "/v1/sql": 300}


def each(column: str):
    return pytest.mark.feature("h2load", "h2load", column)


CASES = [
    pytest.param("over_tls", [], "TLSv1.3", "h2", marks=each("h2 over TLS")),
    pytest.param("over_tls", ["--h1"], "TLSv1.3", "http/1.1", marks=each("h1 over TLS")),
    pytest.param("in_clear", [], None, "h2c", marks=each("h2 in plain text")),
    pytest.param("in_clear", ["--h1"], None, "http/1.1", marks=each("h1 in plain text")),
]


@pytest.mark.parametrize("path", REQUESTS)
@pytest.mark.parametrize("server, flags, tls, protocol", CASES, ids=["tls-h2", "tls-h1", "clear-h2", "clear-h1"])
def test_every_request_is_answered(request, tmp_path: Path, server, flags, tls, protocol, path):
    server, number = request.getfixturevalue(server), REQUESTS[path]
    words = ["-n", str(number), "-c", str(CONNECTIONS), "-t", "1", "-m", "1" if protocol == "http/1.1" else "10"]
    if path == "/v1/sql":
        (tmp_path / "body.sql").write_text("SELECT id, name FROM people")
        words += ["-d", str(tmp_path / "body.sql")]
    command = [clients.optional_tool("h2load"), *words, *flags, server.url(path)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    said = done.stdout.decode()
    assert done.returncode == 0, done
    assert f"{number} done, {number} succeeded, 0 failed, 0 errored, 0 timeout" in said, said
    assert f"status codes: {number} 2xx, 0 3xx, 0 4xx, 0 5xx" in said, said
    assert re.search(rf"^Application protocol: {re.escape(protocol)}$", said, re.MULTILINE), said
    if tls:
        assert f"TLS Protocol: {tls}" in said, said

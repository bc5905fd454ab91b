"""Runs `spiced COMMAND`: the commands that print and exit instead of serving."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .leak_scanner import LEDGER
from .pod import Pod
from .server import Server, binary
from .waiting import DEADLINE


def run(pod: Pod, *words, code: int | None = 0, env: dict[str, str] | None = None, cwd: Path | None = None, send: bytes = b""):
    """Runs a command in the pod's environment, checks the exit code (`None`: any), and scans all output for secrets."""
    done = subprocess.run(
        [binary(), *(str(word) for word in words)],
        cwd=cwd or pod.cwd,
        env=pod.environment(env),
        input=send,
        capture_output=True,
        timeout=DEADLINE,
    )
    LEDGER.assert_clean(done.stdout, "standard output")
    LEDGER.assert_clean(done.stderr, "standard error")
    assert code in (None, done.returncode), f"exit {done.returncode}, not {code}: {done.stderr.decode()}{done.stdout.decode()}"
    return done


def endpoints(server: Server) -> list[str]:
    """The options that name the ports of a server that was started on port 0."""
    found = []
    for endpoint in ("http", "flight", "grpc", "metrics", "probe"):
        if server.addresses(endpoint):
            found += [f"--{endpoint}", f"localhost:{server.port(endpoint)}"]
    return found

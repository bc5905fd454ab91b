"""The interface of a client for the suite: it connects to an address, trusts a CA, and runs SQL."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from ..server import Server
from ..waiting import DEADLINE


@dataclass(frozen=True)
class At:
    """The address that a client connects to, the CA that it trusts, and its key; without `ca` it uses plain text."""

    server: Server
    ca: str | None
    host: str = "localhost"
    key: str | None = None

    @staticmethod
    def of(server: Server, key: str | None = None) -> At:
        return At(server, server.ca if server.tls() else None, key=key)

    def port(self, endpoint: str) -> int:
        return self.server.port(endpoint)

    def address(self, endpoint: str) -> str:
        return f"{self.host}:{self.port(endpoint)}"

    @property
    def pem(self) -> str:
        return Path(self.ca).read_text()


class Untrusted(Exception):
    """The client could not connect: it did not trust the certificate, or the server did not use TLS."""


class Refused(Exception):
    """The server refused the statement, and the client reported that."""


class Driver:
    """One client. A method that fails raises `Untrusted` or `Refused`, with the client's own message."""

    name: str
    endpoint = "flight"
    # Rows of 1,000 bytes in the large answer: a hundred megabytes, if the client is fast enough.
    large_rows = 100_000
    # Features that the client lacks with any server, with the reason.
    lacks: dict[str, str] = {}
    # Certificates that the client refuses from any server, with the reason.
    refuses: dict[str, str] = {}

    def rows(self, at: At, sql: str, parameters: tuple = ()) -> list[dict]:
        raise NotImplementedError

    def count(self, at: At, sql: str) -> int:
        """Returns the number of rows of an answer that is too large to inspect row by row."""
        return len(self.rows(at, sql))

    def __repr__(self) -> str:
        return self.name


def program(variable: str) -> str:
    """Returns the program that `cargo xtask clients` installed and this variable names; if it is missing, the test is
    skipped with the reason.
    """
    path = os.environ.get(variable, "")
    if not path or not Path(path).exists():
        reason = os.environ.get(f"{variable}_MISSING") or f"{variable} is not set: `cargo xtask clients` installs it"
        pytest.skip(reason)
    return path


def run(command: list[str], *, env: dict[str, str] | None = None, deadline: float = DEADLINE):
    """Runs a client to its end, without environment variables that would change its trust or its destination."""
    kept = {k: os.environ[k] for k in ("PATH", "HOME", "LANG") if k in os.environ}
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=deadline, env={**kept, **(env or {})}
    )

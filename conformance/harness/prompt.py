"""Runs `spiced sql` to its end, or interactively on a terminal."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pexpect

from .certificates import Authority
from .leak_scanner import LEDGER
from .server import Server, binary
from .waiting import DEADLINE

# The sequence that the line editor sends when it starts to read a line: bracketed paste on.
_READY = "\x1b[?2004h"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@dataclass
class Ran:
    """The exit code and the output of a run."""

    code: int
    out: str
    err: str

    def ok(self) -> str:
        assert self.code == 0, f"{self}"
        return self.out


def endpoint(server: Server, scheme: str | None = None) -> str:
    """The address of the Flight endpoint, in the form of `--endpoint`."""
    prefix = "" if scheme is None else f"{scheme}://"
    return f"{prefix}localhost:{server.port('flight')}"


def environment(home: Path, more: dict[str, str] | None = None) -> dict[str, str]:
    """Only those of the caller's variables that a program needs; each test has its home directory."""
    kept = {k: os.environ[k] for k in ("PATH", "TZ", "LD_LIBRARY_PATH") if k in os.environ}
    return {**kept, "HOME": str(home), "LANG": "C.UTF-8", **(more or {})}


def run(home: Path, *args: str, stdin: bytes | None = None, env=None, cwd: Path | None = None, deadline=DEADLINE) -> Ran:
    """Runs to the end. Without `stdin` there is nothing to read."""
    process = subprocess.Popen(
        [binary(), "sql", *args],
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd or home,
        env=environment(home, env),
    )
    try:
        out, err = process.communicate(stdin, deadline)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"still running after {deadline:.0f} s: {err.decode()}") from None
    LEDGER.assert_clean(out, "standard output")
    LEDGER.assert_clean(err, "standard error")
    return Ran(process.returncode, out.decode(), err.decode())


# A query that every server supports, and its result.
QUERY = ("--format", "csv", "SELECT 1 AS x")
ANSWER = "x\n1\n"


def refused(home: Path, *args: str, env=None) -> str:
    """Runs the query, which must fail, and returns the error output."""
    ran = run(home, *args, *QUERY, env=env)
    assert (ran.code, ran.out) == (1, ""), f"{ran}"
    return ran.err


def ca(home: Path, authority: Authority) -> str:
    """The authority's certificate as a file."""
    path = home / "trusted.pem"
    path.write_text(authority.pem)
    return str(path)


def trusting(server: Server) -> list[str]:
    """The options that reach a server, over TLS if it uses it."""
    if not server.tls("flight"):
        return ["--endpoint", endpoint(server)]
    return ["--endpoint", endpoint(server), "--tls-root-certificate-file", server.ca]


class Prompt:
    """The prompt on a terminal of 120 columns."""

    def __init__(self, home: Path, *args: str, env=None, cwd: Path | None = None) -> None:
        terminal = {"TERM": "xterm", "NO_COLOR": "1", **(env or {})}
        self.child = pexpect.spawn(
            binary(),
            ["sql", *args],
            cwd=str(cwd or home),
            env=environment(home, terminal),
            encoding="utf-8",
            timeout=DEADLINE,
            dimensions=(40, 120),
        )
        self.child.delaybeforesend = None
        self.greeting = self.until_ready()

    def until_ready(self) -> str:
        """Waits for the prompt; returns the output before it."""
        self.child.expect_exact(_READY)
        said = _ESCAPES.sub("", self.child.before).replace("\r", "")
        LEDGER.assert_clean(said, "the prompt")
        return said

    def type(self, keys: str) -> None:
        self.child.send(keys)

    def ask(self, *lines: str) -> str:
        """Types the lines of one statement, each with Enter; returns the output up to the next prompt, including the
        echo.
        """
        for line in lines:
            self.type(line + "\r")
        return self.until_ready()

    def wait_for(self, text: str) -> None:
        self.child.expect_exact(text)

    def leave(self, keys: str = "\x04") -> int:
        """Leaves, with Ctrl-D or otherwise; returns the exit code."""
        self.type(keys)
        self.child.expect(pexpect.EOF)
        self.child.close()
        return self.child.exitstatus

    def close(self) -> None:
        self.child.close(force=True)

"""A pod directory with its own authority, and the servers started on it."""

from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from .certificates import Authority, Pair
from .leak_scanner import LEDGER
from .server import Server, binary, parse
from .waiting import DEADLINE

ENDPOINTS = ("http", "flight", "grpc")


class _Dumper(yaml.SafeDumper):
    """Writes multi-line text as a block, as people do with PEM."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text and text.isascii() and "\r" not in text else None
    ),
)


class Pod:
    """A directory with spicepod.yaml. The program is started in `cwd`, which is deliberately a different one."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "pod"
        self.cwd = root / "cwd"
        for folder in (self.folder, self.cwd):
            folder.mkdir(parents=True)
        self.home = root / "home"
        self.home.mkdir()
        self.servers: list[Server] = []

    @cached_property
    def ca(self) -> Authority:
        return Authority()

    @cached_property
    def pair(self) -> Pair:
        """The leaf that most tests use."""
        return self.ca.issue()

    @cached_property
    def ca_file(self) -> str:
        path = self.home / "ca.pem"
        path.write_text(self.ca.pem)
        return str(path)

    # Contents of the directory

    def write(self, name: str, content: str | bytes, mode: int = 0o600) -> Path:
        """Writes a file into the pod's directory (or to an absolute path)."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    def write_pair(self, pair: Pair | None = None, stem: str = "tls") -> dict[str, str]:
        """Writes certificate and key as files; returns the two settings that name them."""
        pair = pair or self.pair
        return {
            "certificate_file": str(self.write(f"{stem}.crt", pair.certificate)),
            "key_file": str(self.write(f"{stem}.key", pair.key_text)),
        }

    def inline_pair(self, pair: Pair | None = None) -> dict[str, str]:
        pair = pair or self.pair
        return {"certificate": pair.certificate, "key": pair.key_text}

    def yaml(
        self, *, tls: dict | None = None, runtime: dict | None = None, file: str = "spicepod.yaml", **more
    ) -> Path:
        """Writes spicepod.yaml: `tls` and `runtime` go to their sections, the rest to the top level."""
        runtime = dict(runtime or {})
        if tls is not None:
            runtime["tls"] = tls
        document = {"version": "v1", "kind": "Spicepod", "name": "conformance", **more}
        if runtime:
            document["runtime"] = runtime
        return self.write(file, yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000))

    # Processes

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        """Only those of the caller's variables that a program needs."""
        kept = {
            k: os.environ[k] for k in ("PATH", "LANG", "TZ", "RUST_BACKTRACE", "LD_LIBRARY_PATH") if k in os.environ
        }
        return {**kept, "HOME": str(self.home), **(more or {})}

    def command(self, args, path, endpoints=ENDPOINTS, address="localhost:0") -> list[str]:
        command = [binary(), "--log-format", "json"]
        for endpoint in endpoints:
            command += [f"--{endpoint}", address]
        command += [str(a) for a in args]
        if path is not None:
            command.append(str(path))
        return command

    def serve(self, *args, env=None, path="", endpoints=ENDPOINTS, cwd=None, wrap=(), wait=True) -> Server:
        """Starts the program and waits until all endpoints are open. `path=None` passes no PATH; `wrap` precedes the
        program.
        """
        path = self.folder if path == "" else path
        if path is self.folder and not any(self.folder.glob("spicepod.y*ml")):
            self.yaml()
        server = Server(
            [*wrap, *self.command(args, path, endpoints)],
            cwd=cwd or self.cwd,
            env=self.environment(env),
            ca=self.ca_file,
        )
        self.servers.append(server)
        return server.wait_until_serving() if wait else server

    def refuse(self, *args, env=None, path="", code: int = 78, cwd=None) -> Refusal:
        """Runs the program, which must refuse to start.

        Its endpoints are given a port that is in use: if it tried to open one, it would end with 69.
        """
        path = self.folder if path == "" else path
        if path is self.folder and not any(self.folder.glob("spicepod.y*ml")):
            self.yaml()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            try:
                done = subprocess.run(
                    self.command(args, path, address=address),
                    cwd=cwd or self.cwd,
                    env=self.environment(env),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=DEADLINE,
                )
            except subprocess.TimeoutExpired as running:
                said = (running.stderr or b"").decode("utf-8", "replace")
                raise AssertionError(f"it started instead of refusing:\n{said}") from None
        refusal = Refusal(
            done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        )
        refusal.check(code)
        return refusal

    def close(self) -> None:
        """Ends every server; raises the first error once all have ended."""
        troubles = []
        for server in self.servers:
            try:
                server.close()
            except AssertionError as trouble:
                troubles.append(trouble)
        if troubles:
            raise troubles[0]


@dataclass
class Refusal:
    """A failed start, as a person or a script sees it."""

    code: int
    stdout: str
    stderr: str

    @property
    def report(self) -> list[str]:
        """The lines of standard error that are not log lines."""
        return [line for line in self.stderr.splitlines() if line.strip() and parse(line) is None]

    def check(self, code: int) -> None:
        seen = f"exit {self.code}\n{self.stderr}{self.stdout}"
        LEDGER.assert_clean(self.stdout, "standard output")
        LEDGER.assert_clean(self.stderr, "standard error")
        assert self.code == code, f"expected exit {code}, got {seen}"
        assert "panicked at" not in self.stderr, seen
        assert '"listening"' not in self.stderr, f"a port was opened: {seen}"
        assert self.report and self.report[0].startswith("error: "), f"the first line is not `error: …`: {seen}"
        assert sum(line.startswith("error: ") for line in self.report) == 1, f"more than one error: {seen}"
        if code != 64:  # usage errors are worded by the argument parser
            assert self.report[-1].startswith("hint: "), f"the last line is not `hint: …`: {seen}"
        repeated = {line for line in self.report if self.report.count(line) > 1}
        assert not repeated, f"reported more than once: {repeated}\n{seen}"

    def names(self, *things: object) -> Refusal:
        """Requires each of these in the report."""
        text = "\n".join(self.report)
        missing = [str(thing) for thing in things if str(thing) not in text]
        assert not missing, f"the report does not name {missing}:\n{text}"
        return self

"""A running `spiced`: its output, its announced endpoints, and its exit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

from .leak_scanner import LEDGER
from .waiting import DEADLINE


def binary() -> str:
    """The program under test, from `SPICED_BIN`."""
    path = os.environ.get("SPICED_BIN", "")
    assert path, "SPICED_BIN is not set: it names the spiced binary to test"
    assert os.access(path, os.X_OK), f"SPICED_BIN={path} is not a program: build it with `cargo build -p spiced`"
    return str(Path(path).resolve())


class Server:
    """One process. Waits are for log lines or for its end, never for time to pass."""

    def __init__(self, argv: list[str], *, cwd: Path, env: dict[str, str], ca: str | None = None) -> None:
        self.argv = argv
        self.ca = ca  # path of the PEM file that its clients trust
        self._end_seen = False
        self.lines: list[str] = []
        self._stdout: list[str] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._stdout), daemon=True),
            threading.Thread(target=self._read, args=(self.process.stderr, self.lines), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    # Output

    @property
    def stdout(self) -> str:
        with self._changed:
            return "".join(self._stdout)

    @property
    def stderr(self) -> str:
        with self._changed:
            return "".join(self.lines)

    @property
    def log(self) -> list[dict]:
        """The log lines as objects; other lines are omitted."""
        return [record for line in self.stderr.splitlines() if (record := parse(line)) is not None]

    def logged(self, *levels: str, match: str = "", since: int = 0) -> list[dict]:
        """The log lines of these levels (or of any) whose text matches, ignoring case."""
        return [
            record
            for record in self.log[since:]
            if (not levels or record.get("level") in levels) and re.search(match, text_of(record), re.IGNORECASE)
        ]

    def wait_for_log(self, *levels: str, match: str = "", since: int = 0, deadline: float = DEADLINE) -> dict:
        """Waits for the first such line."""
        return self._wait(
            lambda: next(iter(self.logged(*levels, match=match, since=since)), None),
            f"a log line matching {match!r}",
            deadline,
        )

    def wait_until_serving(self) -> Server:
        """Returns once all endpoints are open."""
        self.wait_for_log(match=r'"message": "serving"')
        return self

    # Endpoints

    def addresses(self, endpoint: str) -> list[str]:
        """The announced addresses: `127.0.0.1:40123`, `[::1]:40123`."""
        return [
            record["fields"]["address"]
            for record in self.log
            if record.get("fields", {}).get("message") == "listening" and record["fields"]["endpoint"] == endpoint
        ]

    def port(self, endpoint: str) -> int:
        addresses = self.addresses(endpoint)
        assert addresses, f"no listening line for the {endpoint} endpoint in:\n{self.stderr}"
        return int(addresses[0].rsplit(":", 1)[1])

    def tls(self, endpoint: str = "http") -> bool:
        """Whether the endpoint reports that it uses TLS."""
        return next(
            record["fields"]["tls"]
            for record in self.log
            if record.get("fields", {}).get("message") == "listening" and record["fields"]["endpoint"] == endpoint
        )

    def url(self, path: str = "/", endpoint: str = "http", host: str = "localhost") -> str:
        scheme = "https" if self.tls(endpoint) else "http"
        return f"{scheme}://{host}:{self.port(endpoint)}{path}"

    # Resources

    def memory(self, field: str = "VmRSS") -> int:
        """Bytes, from /proc: `VmRSS` is the current value, `VmHWM` the peak since `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE).group(1)) * 1024

    def forget_peak(self) -> None:
        """Resets the peak memory (proc(5), clear_refs)."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def cpu(self) -> float:
        """CPU seconds used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def cpu_share(self, seconds: float = 0.5) -> float:
        """The CPU used during the next moment, in cores. The process must not end meanwhile."""
        before, started = self.cpu(), time.monotonic()
        self.stays_up(seconds)
        return (self.cpu() - before) / (time.monotonic() - started)

    def stays_up(self, seconds: float) -> None:
        """Fails if the process ends within this time."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        raise AssertionError(f"spiced ended unexpectedly with {code}:\n{self.stderr}")

    # Shutdown

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_for_exit(self, deadline: float = DEADLINE) -> int:
        """The exit code, once all output is read."""
        self._end_seen = True
        try:
            code = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"still running after {deadline:.0f} s:\n{self.tail()}") from None
        for reader in self._readers:
            reader.join(deadline)
        return code

    def close(self) -> None:
        """Stops it as an operator would, requires a clean exit, and scans all its output for secrets."""
        try:
            if self.process.poll() is None:
                self.signal(signal.SIGTERM)
                code = self.wait_for_exit()
                assert code == 0, f"a clean stop exits with 0, not {code}:\n{self.tail()}"
            assert self._end_seen, f"it ended unexpectedly with {self.process.returncode}:\n{self.tail()}"
            assert "panicked at" not in self.stderr, f"a panic:\n{self.tail()}"
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            LEDGER.assert_clean(self.stdout, "standard output")
            LEDGER.assert_clean(self.stderr, "standard error")

    def tail(self) -> str:
        return "\n".join(self.stderr.splitlines()[-40:])

    def _read(self, stream, lines: list[str]) -> None:
        for raw in stream:
            with self._changed:
                lines.append(raw.decode("utf-8", "replace"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _wait(self, check, what: str, deadline: float):
        end = time.monotonic() + deadline
        while True:
            if answer := check():
                return answer
            if self.process.poll() is not None:
                for reader in self._readers:
                    reader.join(deadline)
                if answer := check():
                    return answer
                raise AssertionError(
                    f"spiced ended with {self.process.returncode} before {what}:\n{self.tail()}\n{self.stdout}"
                )
            left = end - time.monotonic()
            if left <= 0:
                raise AssertionError(f"no {what} within {deadline:.0f} s:\n{self.tail()}")
            with self._changed:
                self._changed.wait(min(left, 0.2))  # so that an end without output is noticed too


def parse(line: str) -> dict | None:
    """A log line as an object, or None for any other line."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "level" in record else None


def text_of(record: dict) -> str:
    """The complete text of a log line."""
    return json.dumps(record, ensure_ascii=False)

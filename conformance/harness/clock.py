"""A clock for one server, set by the test (libfaketime). Wall-clock and monotonic time move together."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest

from . import clients
from .pod import Pod
from .server import Server


def library() -> str:
    """libfaketime for multi-threaded programs; if it is missing, the test is skipped with the reason."""
    clients.optional_tool("faketime")
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        pytest.skip("faketime is installed, but its library is not where Debian has it")
    return str(found[0])


class Clock:
    """A clock that runs as fast as the real one, `ahead` of it. `environment` is for the server.

    `server` is the server that must be idle before the clock is moved: libfaketime may return a wild time to a timer
    that is just being set, which then never fires.
    """

    server: Server | None = None

    def __init__(self, pod: Pod, ahead: datetime.timedelta = datetime.timedelta()) -> None:
        self._file = pod.home / f"clock{len(list(pod.home.glob('clock*')))}"
        self.environment = {
            "LD_PRELOAD": library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
        }
        self.set(ahead)

    def set(self, ahead: datetime.timedelta) -> None:
        self.ahead = ahead
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead.total_seconds():+.0f}")
        os.replace(new, self._file)

    def go(self, on: datetime.timedelta) -> None:
        if self.server:
            self.server.stays_up(0.3)
        self.set(self.ahead + on)

    def now(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.timezone.utc) + self.ahead

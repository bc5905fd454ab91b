"""Waiting with a deadline. The only place where the suite polls, for events that are not announced."""

from __future__ import annotations

import os
import threading
import time

# The maximum seconds of any single wait; a slow machine may raise it.
DEADLINE = float(os.environ.get("SPICED_CONFORMANCE_DEADLINE", "30"))


def eventually(check, what: str, deadline: float = DEADLINE, pause: float = 0.05):
    """Calls `check` until it returns something true, and returns that. An exception counts as "not yet"."""
    end = time.monotonic() + deadline
    never = threading.Event()
    while True:
        trouble = None
        try:
            if answer := check():
                return answer
        except Exception as error:  # the last error is shown when the deadline expires
            trouble = error
        if time.monotonic() > end:
            raise AssertionError(f"within {deadline:.0f} s never: {what}") from trouble
        never.wait(pause)

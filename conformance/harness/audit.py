"""Reads the audit log of a running server."""

from __future__ import annotations

import hashlib

from .server import Server
from .waiting import eventually

TARGET = "spiced::audit"


def lines(server: Server, since: int = 0) -> list[dict]:
    """The fields of each audit line, in order; `since` counts log lines."""
    return [record["fields"] for record in server.log[since:] if record.get("target") == TARGET]


def line(server: Server, since: int = 0, **fields: str) -> dict:
    """Waits for the first line with these fields."""

    def found():
        return next((seen for seen in lines(server, since) if fields.items() <= seen.items()), None)

    try:
        return eventually(found, f"an audit line with {fields}")
    except AssertionError as error:
        raise AssertionError(f"{error}, among {lines(server, since)}") from None


def statement(text: str) -> str:
    """The digest that a line contains instead of the statement."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def principal(key: str) -> str:
    """The name by which a line identifies the bearer of a key."""
    return "key:" + hashlib.sha256(key.encode()).hexdigest()[:12]

"""The tables of docs/clients.md: their rows and columns, in the order in which they are shown."""

from __future__ import annotations

from dataclasses import dataclass, field

from .drivers import DRIVERS
from .proxies import PROXIES


@dataclass(frozen=True)
class Table:
    rows: list[str]
    columns: list[str]
    # What cannot be, whoever serves: (row, column) and the reason.
    lacks: dict[tuple[str, str], str] = field(default_factory=dict)


_CLIENTS = [driver.name for driver in DRIVERS]

TABLES = {
    "clients": Table(
        _CLIENTS,
        [
            "over TLS",
            "in the clear",
            "parameters",
            "bad SQL told",
            "large answer",
            "refuses a wrong CA",
            "refuses a wrong name",
            "is told that the door speaks TLS",
            "fails on a plain door",
        ],
        {(driver.name, column): why for driver in DRIVERS for column, why in driver.lacks.items()},
    ),
    "certificates": Table(
        _CLIENTS, ["RSA 2048", "RSA 3072", "P-256", "P-384", "Ed25519", "intermediate", "self-signed", "no SAN"]
    ),
    "proxies": Table(
        [proxy.name for proxy in PROXIES],
        [
            "HTTP",
            "large HTTP answer",
            "gRPC health",
            "Flight",
            "large Flight answer",
            "refuses a wrong CA",
            "refuses a wrong name",
            "checks client certificates",
        ],
    ),
}

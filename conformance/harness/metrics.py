"""Reads the metrics endpoint as Prometheus does."""

from __future__ import annotations

import re

from . import clients
from .leak_scanner import LEDGER

_LINE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|$)')


def metrics(server) -> list[tuple[str, dict[str, str], float]]:
    """Returns every sample; fails on a line that is not in Prometheus text format."""
    answer = clients.get(server, "/metrics", endpoint="metrics").ok()
    assert answer.media_type in ("text/plain", "application/openmetrics-text"), answer.headers
    LEDGER.assert_clean(answer.body, "/metrics")
    samples = []
    for line in answer.text.splitlines():
        if line and not line.startswith("#"):
            match = _LINE.match(line)
            assert match, f"not a sample: {line}"
            samples.append((match[1], dict(_LABEL.findall(match[2] or "")), float(match[3])))
    return samples


def total(server, name: str, **labels: str) -> float:
    """The sum over all series of this name that have these labels."""
    return sum(v for n, l, v in metrics(server) if n == name and labels.items() <= l.items())

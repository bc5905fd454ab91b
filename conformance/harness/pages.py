"""Reads the pages of docs/, so that the tests run exactly what the pages print."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parent.parent.parent / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in one language, in order."""
    parts = (DOCS / page).read_text().split(f"```{language}\n")[1:]
    return [part.split("```", 1)[0] for part in parts]


def pods(page: str) -> list[str]:
    """The code blocks that are marked as a spicepod.yaml."""
    return [block for block in blocks(page, "yaml") if block.startswith("# spicepod.yaml\n")]

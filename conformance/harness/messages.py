"""Normalizes messages for comparison: removes ports and directories, which differ in each run."""

from __future__ import annotations

import re


def plain(lines: list[str], *folders: object) -> str:
    """The lines, with `PORT` and `POD` in place of what differs between runs."""
    text = "\n".join(lines)
    for folder in folders:
        text = text.replace(str(folder), "POD")
    text = re.sub(r"(?<=localhost:)\d+|(?<=127\.0\.0\.1:)\d+", "PORT", text)
    # Operating systems use different numbers for a refused connection.
    return re.sub(r"\(os error \d+\)", "(os error N)", text)

"""The time to reject a wrong key does not reveal how much of it is right: counted in instructions, by Valgrind."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from harness import clients

KNOWN = "spk_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"


def _instructions(tmp_path: Path, given: str) -> tuple[int, str]:
    """Returns the instruction count of `ApiKeys::check`, and the program's output."""
    program = Path(os.environ["SPICED_EXAMPLES"]) / "key_check"
    done = subprocess.run(
        [
            clients.optional_tool("valgrind"),
            "--tool=callgrind",
            "--toggle-collect=*ApiKeys::check*",
            f"--callgrind-out-file={tmp_path / 'out'}",
            program,
            KNOWN,
            given,
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return int(re.search(r"Collected : (\d+)", done.stderr).group(1)), done.stdout.strip()


def test_a_wrong_key_takes_constant_time(tmp_path):
    right, said = _instructions(tmp_path, KNOWN)
    assert said.startswith("key:") and right > 1000, "the count covers the comparison"
    counts = {}
    for length in (0, 1, 16, len(KNOWN) // 2, len(KNOWN) - 1):
        given = KNOWN[:length] + "".join("x" if c != "x" else "y" for c in KNOWN[length:])
        counts[length], said = _instructions(tmp_path, given)
        assert "not one of" in said
    assert len(set(counts.values())) == 1, f"instructions by the number of correct characters: {counts}"

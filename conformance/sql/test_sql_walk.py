"""`docs/sql.md`, command by command as printed, with the pod that ships with the program."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import pages, prompt
from harness.prompt import Prompt
from harness.server import binary

ROOT = Path(__file__).parents[2]


def timeless(text: str) -> str:
    return re.sub(r"\(\d+\.\d ms\)", "(… ms)", text)


@pytest.fixture
def walk(pod):
    """The program's own pod in a directory of the test, and the environment for its commands."""
    shutil.copy(ROOT / "spicepod.yaml", pod.folder)
    shutil.copytree(ROOT / "data", pod.folder / "data")
    server = pod.serve()
    place = f"localhost:{server.port('flight')}"
    programs = pod.home / "bin"
    programs.mkdir()
    (programs / "spiced").symlink_to(binary())
    environment = prompt.environment(pod.home, {"SPICED_SQL_ENDPOINT": place})
    environment["PATH"] = f"{programs}:{environment['PATH']}"
    return pod, place, environment


def test_the_shell(walk):
    pod, place, environment = walk
    console = pages.blocks("sql.md", "console")
    assert len(console) == 2
    for block in console:
        for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE):
            done = subprocess.run(
                ["bash", "-c", command.replace("localhost:50051", place)],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=pod.folder,
                env=environment,
                timeout=prompt.DEADLINE,
            )
            assert done.stdout.decode().replace(place, "localhost:50051") == expected, command


def test_the_prompt(walk):
    pod, _, environment = walk
    [block] = pages.blocks("sql.md", "text")
    steps = re.split(r"^spiced> ", block, flags=re.MULTILINE)[1:]
    assert len(steps) == 4
    talk = Prompt(pod.home, env=environment, cwd=pod.folder)
    for step in steps:
        first, *rest = step.splitlines()
        # The echoed continuation lines, up to the `;`, are part of the output.
        typed = [first]
        while not (typed[0].startswith("\\") or typed[-1].endswith(";")):
            typed.append(rest[len(typed) - 1])
        expected = "".join(line + "\n" for line in rest[len(typed) - 1 :])
        said = talk.ask(*typed)
        assert timeless(said).endswith(timeless(f"{typed[-1]}\n{expected}")), said
    assert talk.leave() == 0

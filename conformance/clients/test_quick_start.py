"""docs/quick-start.md, command by command as printed, as a new user runs it.

Blocks marked `sh` run in a shell, in the repository's directory. Blocks marked `sh server` run in parallel until the
next such block. A `text` block after a command is its output; `…` matches any text.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STEPS = re.findall(r"```(sh server|sh|text)\n(.*?)```", (ROOT / "docs/quick-start.md").read_text(), re.DOTALL)


class Walk:
    """The environment of one shell: a network namespace, in which the printed ports are free."""

    def __init__(self, home: Path) -> None:
        self.env = {**os.environ, "HOME": str(home), "SPICED_LOG": "info"}
        for name in ("CARGO_HOME", "RUSTUP_HOME"):
            default = Path.home() / {"CARGO_HOME": ".cargo", "RUSTUP_HOME": ".rustup"}[name]
            self.env.setdefault(name, str(default))
        # Builds into the target directory of SPICED_BIN, so that the suite tests what was built.
        self.env["CARGO_TARGET_DIR"] = str(Path(os.environ["SPICED_BIN"]).resolve().parent.parent)
        self.env["CARGO_NET_OFFLINE"] = "true"
        self.namespace = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if self.namespace.stdout.readline().strip() != "up":
            why = self.namespace.stderr.read().strip()
            pytest.skip(f"no network namespace here, and the walk needs the default ports: {why}")
        self.server: subprocess.Popen | None = None

    def command(self, text: str) -> list[str]:
        inside = ["nsenter", f"--net=/proc/{self.namespace.pid}/ns/net"]
        return [*inside, "bash", "-c", text]

    def start(self, text: str) -> None:
        """Stops the previous server, and waits until this one serves."""
        self.stop()
        self.server = subprocess.Popen(
            self.command(f"exec {text.strip()}"),
            cwd=ROOT,
            env=self.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        said = []
        for line in self.server.stderr:
            said.append(line)
            if re.search(r"\bserving\b", line):
                # Keeps reading, so that the server can keep writing.
                threading.Thread(target=self.server.stderr.read, daemon=True).start()
                return
        raise AssertionError("the server ended:\n" + "".join(said))

    def run(self, text: str) -> str:
        done = subprocess.run(self.command(text), cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"$ {text}\n{done.stdout}{done.stderr}"
        return done.stdout

    def stop(self) -> None:
        if self.server:
            os.killpg(self.server.pid, signal.SIGINT)
            assert self.server.wait(60) == 0
            self.server = None

    def close(self) -> None:
        try:
            self.stop()
        finally:
            self.namespace.kill()
            self.namespace.wait()


def looks_like(printed: str, wanted: str) -> bool:
    pattern = "".join(".*" if piece == "…" else re.escape(piece) for piece in re.split("(…)", wanted.strip("\n")))
    return re.fullmatch(pattern, printed.strip("\n")) is not None


@pytest.mark.timeout(600)
def test_the_walk(tmp_path):
    assert [kind for kind, _ in STEPS].count("sh server") == 2 and len(STEPS) > 12
    pod = Path("/tmp/my-pod")
    shutil.rmtree(pod, ignore_errors=True)
    walk, printed = Walk(tmp_path), ""
    try:
        for kind, text in STEPS:
            match kind:
                case "sh server":
                    walk.start(text)
                case "sh":
                    printed = walk.run(text)
                case _:
                    assert looks_like(printed, text), f"wanted:\n{text}\nprinted:\n{printed}"
    finally:
        walk.close()
        shutil.rmtree(pod, ignore_errors=True)

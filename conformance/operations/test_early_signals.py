"""Signals that arrive while the server starts: the handlers are the first thing that it installs."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness.server import binary
from harness.waiting import DEADLINE


def _catches(pid: int) -> bool:
    """Whether the program's handlers are installed, according to the kernel."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(status.split("SigCgt:")[1].split()[0], 16)
    return all(mask & 1 << (number - 1) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))


def _catching(pid: int) -> None:
    """Polls without a pause, to catch the first moment."""
    end = time.monotonic() + DEADLINE
    while not _catches(pid):
        assert time.monotonic() < end, "the handlers were not installed"


def _start(pod, *words) -> subprocess.Popen:
    command = [binary(), *(str(word) for word in words)]
    return subprocess.Popen(command, env=pod.environment(None), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
@pytest.mark.parametrize("delay", [0, 0.02, 0.1, 0.2])
def test_a_start_is_stopped_with_success(pod, number, delay):
    pod.yaml(tls=pod.write_pair())
    words = [word for endpoint in ("http", "flight", "grpc") for word in (f"--{endpoint}", "localhost:0")]
    process = _start(pod, *words, pod.folder)
    _catching(process.pid)
    # Each delay reaches another stage of the start; the outcome must be the same.
    time.sleep(delay)
    process.send_signal(number)
    _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, (process.returncode, said)


def test_a_hang_up_does_not_stop_a_start(pod):
    pod.yaml(tls=pod.write_pair())
    server = pod.serve(wait=False)
    _catching(server.process.pid)
    server.process.send_signal(signal.SIGHUP)
    server.wait_until_serving()


def test_a_start_that_waits_for_a_file_is_stopped(pod):
    """A FIFO blocks the start, but not the signal."""
    pod.yaml(tls={"certificate": "${env:CERT}", "key": "${env:KEY}"})
    os.mkfifo(pod.folder / ".env")
    process = _start(pod, pod.folder)
    _catching(process.pid)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda n: n.name)
def test_another_command_ends_by_the_signal(pod, number):
    """As usual for a program, without a successful exit code."""
    fifo = pod.folder / "tls.crt"
    fifo.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(fifo)
    process = _start(pod, "tls", "check", fifo)
    process.send_signal(number)
    process.communicate(timeout=DEADLINE)
    assert process.returncode == -number

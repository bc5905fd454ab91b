"""deploy/: the parts that can be tested without a container engine and without systemd as PID 1."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from harness import clients
from harness.kubernetes import Contained, image
from harness.server import binary
from harness.waiting import DEADLINE

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def test_the_unit_is_valid(tmp_path):
    """`systemd-analyze verify`, with the program at the unit's path."""
    text = (DEPLOY / "systemd/spiced.service").read_text()
    unit = tmp_path / "spiced.service"
    unit.write_text(text.replace("/usr/local/bin/spiced", binary()))
    done = subprocess.run(
        [clients.tool("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0 and str(unit.name) not in done.stderr, done


def test_the_unit_is_hardened():
    done = subprocess.run(
        [clients.tool("systemd-analyze"), "security", "--offline=true", "--threshold=20", DEPLOY / "systemd/spiced.service"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stdout
    assert float(re.search(r"exposure level for spiced.service: ([\d.]+)", done.stdout).group(1)) < 2.0


def test_the_image_s_program_needs_neither_root_nor_a_writable_disk(pod):
    """The entry point as that user, with a read-only file system: bubblewrap replaces a container engine."""
    pod.write("cities.csv", "city\nLima\n", 0o644)
    tls = pod.write_pair()
    for name in tls.values():
        os.chmod(name, 0o644)
    for folder in (pod.folder, *pod.folder.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            os.chmod(folder, folder.stat().st_mode | 0o055)
    pod.yaml(
        tls={"certificate_file": "tls.crt", "key_file": "tls.key"},
        runtime={"auth": {"allow_anonymous": "ro"}},
        datasets=[{"from": "file:cities.csv", "name": "cities"}],
    )
    os.chmod(pod.folder / "spicepod.yaml", 0o644)
    said = image()
    environment = dict(pair.split("=", 1) for pair in said["env"].split())
    # The ports differ, so that tests can run in parallel.
    environment = {name: re.sub(r":\d+$", ":0", value) for name, value in environment.items()}
    words = [word.strip(' "') for word in said["words"].split(",")]
    jail = [clients.tool("bwrap"), "--ro-bind", "/", "/", "--ro-bind", str(pod.folder), "/mnt", "--dev", "/dev"]
    jail += ["--proc", "/proc", "--unshare-user", "--uid", said["user"], "--gid", said["user"], "--die-with-parent"]
    jail += ["--chdir", "/mnt", "--"]
    assert said["entry"].endswith("/spiced")
    probe = subprocess.run([*jail, "sh", "-c", "touch /tmp/x 2>&1; id -u"], capture_output=True, text=True, timeout=DEADLINE)
    if probe.returncode != 0:
        pytest.skip(f"no user namespaces here: {probe.stderr.strip()}")
    assert "Read-only" in probe.stdout and said["user"] in probe.stdout, probe
    server = Contained(
        [*jail, binary(), *("/mnt" if word == "/pod" else word for word in words)],
        cwd=pod.folder,
        env={**pod.environment(), **environment},
        ca=pod.ca_file,
    )
    pod.servers.append(server)
    server.wait_until_serving()
    assert all(address.startswith("0.0.0.0:") for endpoint in ("http", "flight", "grpc") for address in server.addresses(endpoint))
    assert clients.rows(server, "SELECT city FROM cities") == [{"city": "Lima"}]
    server.signal(signal.SIGTERM)
    assert server.wait_for_exit() == 0

"""The examples of the server crates: each serves its endpoint over TLS, with its own engine."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pyarrow import flight

from harness import clients
from harness.waiting import DEADLINE

CRATES = Path(__file__).resolve().parents[2] / "crates"


@pytest.fixture
def embedded(pod):
    """Starts an example on a free port; returns the port once the example reports that it listens."""
    running = []

    def start(endpoint: str) -> int:
        folder = os.environ.get("SPICED_EXAMPLES", "")
        assert folder, "SPICED_EXAMPLES is not set: the directory of the built examples, target/debug/examples"
        files = pod.write_pair()
        process = subprocess.Popen(
            [f"{folder}/embed_{endpoint}", "127.0.0.1:0", files["certificate_file"], files["key_file"]],
            env=pod.environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return int(re.search(r":(\d+)$", process.stdout.readline().strip()).group(1))

    yield start
    for process in running:
        process.kill()
        process.wait(DEADLINE)


def test_http(pod, embedded):
    port = embedded("http")
    answer = clients.curl(f"https://localhost:{port}/v1/sql", "-d", "SELECT n", ca=pod.ca_file).ok()
    assert answer.json() == [{"n": n} for n in range(10)]
    assert clients.curl(f"https://localhost:{port}/v1/sql", "-d", "SELECT n").exit == 60, "trusted by nobody else"


def test_flight(pod, embedded):
    port = embedded("flight")
    with flight.connect(f"grpc+tls://localhost:{port}", tls_root_certs=pod.ca.pem) as client:
        assert clients.query(client, "SELECT n").column("n").to_pylist() == list(range(10))


def test_grpc(pod, embedded):
    port = embedded("grpc")
    with grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(pod.ca.pem.encode())) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("endpoint", ["http", "flight", "grpc"])
def test_it_is_short(endpoint):
    text = (CRATES / f"spiced-{endpoint}/examples/embed_{endpoint}.rs").read_text()
    assert len(text.splitlines()) < 45 and sum(not line.startswith("//") for line in text.splitlines()) < 40

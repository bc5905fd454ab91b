"""Rotations under load: no request fails, and every endpoint has the new certificate in time.

`SPICED_ROTATIONS` sets their number (50). With thousands it is a soak test, which also reveals resources that a
rotation leaks.
"""

from __future__ import annotations

import collections
import http.client
import itertools
import os
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import threading
import time
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from harness import clients
from harness.leak_scanner import LEDGER
from harness.metrics import metrics, total
from harness.waiting import DEADLINE, eventually

ROTATIONS = int(os.environ.get("SPICED_ROTATIONS", "50"))
# Seconds until every endpoint has the new certificate: the contract is 1, the rest is slack for a busy machine.
BOUND = 1.0
SLACK = float(os.environ.get("SPICED_ROTATION_SLACK", "4"))
# Maximum growth in bytes: streams start and end, and a rotation leaks nothing.
GROWTH = 64 << 20

ENDPOINTS = ("http", "flight", "grpc", "metrics")
ROWS = 60_000
STREAM = f"SELECT value, repeat('x', 500) AS filler FROM generate_series(1, {ROWS})"  # about 30 MB


# How a certificate is replaced


class Volume:
    """The directory with the pair, initially laid out as in a Kubernetes volume. Each change leaves it usable for the
    others.
    """

    def __init__(self, pod) -> None:
        self.pod, self.folder, self.version = pod, pod.folder / "volume", 0
        self.folder.mkdir()

    def swap(self, pair) -> None:
        """Writes a new version and points `..data` at it in one rename."""
        self.version += 1
        version = self.folder / f"..{self.version}"
        version.mkdir()
        for name, text in self._files(pair):
            self.pod.write(version / name, text)
        before = os.path.realpath(self.folder / "..data") if (self.folder / "..data").exists() else None
        self._link(self.folder / "..data", version.name)
        for name in ("tls.crt", "tls.key"):
            self._link(self.folder / name, f"..data/{name}")
        if before:
            shutil.rmtree(before)

    def before_swap(self, pair) -> None:
        """Lays the current pair out as links, without a change of content."""
        if not (self.folder / "tls.crt").is_symlink():
            for name, text in self._files(pair):
                self.pod.write(self.folder / "..data" / name, text)
            for name in ("tls.key", "tls.crt"):
                self._link(self.folder / name, f"..data/{name}")

    def rename(self, pair) -> None:
        for name, text in self._files(pair):
            os.replace(self.pod.write(self.folder / f"{name}.new", text), self.folder / name)

    def in_place(self, pair) -> None:
        for name, text in self._files(pair):
            (self.folder / name).write_text(text)

    @staticmethod
    def _files(pair):
        return ("tls.key", pair.key_text), ("tls.crt", pair.certificate)

    @staticmethod
    def _link(path: Path, target: str) -> None:
        os.symlink(target, path.with_name("link"))
        os.replace(path.with_name("link"), path)


class Ways:
    """Every way to replace the certificate, in turn."""

    def __init__(self, volume: Volume, server, key: str) -> None:
        self.volume, self.server, self.key = volume, server, key
        self.all = {
            "rename": volume.rename,
            "in place": volume.in_place,
            "..data": volume.swap,
            "SIGHUP": self._sighup,
            "POST": self._post,
        }

    def _sighup(self, pair) -> None:
        self.volume.in_place(pair)
        self.server.signal(signal.SIGHUP)

    def _post(self, pair) -> None:
        self.volume.rename(pair)
        answer = clients.get(self.server, "/v1/tls/reload", "-X", "POST", "-H", f"X-API-Key: {self.key}").ok()
        # Either the poll or the request finds the change first; there is only one swap.
        assert answer.json()["result"] in ("swapped", "unchanged"), answer


# Concurrent clients


class Load:
    """Threads that each repeat one operation until stopped, and the failures that occurred."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.done: collections.Counter[str] = collections.Counter()
        self.failed: list[str] = []
        self._threads: list[threading.Thread] = []

    def start(self, name: str, work) -> None:
        """`work` is a generator that yields after each operation."""

        def run():
            try:
                for _ in work():
                    self.done[name] += 1
                    if self.stopped.is_set():
                        return
                if not self.stopped.is_set():
                    self.failed.append(f"{name}: ended by itself after {self.done[name]}")
            except Exception as error:
                self.failed.append(f"{name}, after {self.done[name]}: {type(error).__name__}: {error}")

        self._threads.append(threading.Thread(target=run, name=name, daemon=True))
        self._threads[-1].start()

    def stop(self) -> None:
        self.stopped.set()
        for thread in self._threads:
            thread.join(DEADLINE)
            assert not thread.is_alive(), f"{thread.name} hangs"


class Turn:
    """The certificates that a handshake may see now: from the last one seen on every endpoint to the last one written.
    """

    def __init__(self, first: bytes) -> None:
        self.numbers = {first: 0}
        self.sure = 0

    def next(self, der: bytes) -> None:
        self.numbers[der] = len(self.numbers)


def _keep_alive(server, key: str, pause):
    """One HTTP/1.1 connection for all requests."""
    trust = ssl.create_default_context(cafile=server.ca)
    connection = http.client.HTTPSConnection("localhost", server.port("http"), context=trust, timeout=DEADLINE)
    connection.connect()
    first = connection.sock
    while not pause():
        connection.request("POST", "/v1/sql", "SELECT 1 AS x", {"X-API-Key": key})
        answer = connection.getresponse()
        body = answer.read()
        assert (answer.status, body.strip()) == (200, b'[{"x":1}]'), (answer.status, body)
        assert connection.sock is first, "the connection was closed"
        yield
    connection.close()


def _h2(server, key: str, pause):
    """curl, which keeps one HTTP/2 connection for all its requests."""
    report = "%{stderr}%{http_code} %{http_version} %{num_connects}\n"  # stderr is not buffered
    command = clients.curl_command(
        server.url("/v1/ready?[1-10000000]"),
        *("--http2", "--rate", "20/s", "-H", f"X-API-Key: {key}", "-o", os.devnull, "-w", report),
        ca=server.ca,
        deadline=10 * DEADLINE + 10 * ROTATIONS,
    )
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            for number, line in enumerate(process.stderr):
                assert line.split() == ["200", "2", "0" if number else "1"], f"request {number}: {line}"
                yield
        finally:
            process.kill()


def _flight(server, call, pause):
    """One connection, stream after stream."""
    with clients.flight_client(server) as client:
        while not pause():
            info = client.get_flight_info(clients.command(STREAM), call(DEADLINE))
            rows = 0
            for chunk in client.do_get(info.endpoints[0].ticket, call(2 * DEADLINE)):
                rows += chunk.data.num_rows
                if pause(0.02):  # slowly, so that it spans a rotation
                    return
            assert rows == ROWS, rows
            yield


def _health(server, pause):
    with clients.channel(server) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while not pause():
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            yield


def _health_watch(server, watching: list):
    """One call for the whole test; a second answer would mean that health changed."""
    with clients.channel(server) as channel:
        call = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(call).status == health_pb2.HealthCheckResponse.SERVING
        watching.append(call)
        yield
        try:
            raise AssertionError(f"health changed to {next(call)}")
        except Exception:
            if call.cancelled():
                yield
                return
            raise


def _new_connections(server, turn: Turn, pause):
    """Full handshakes on each endpoint in turn, verified by the client; the certificate must not be older than the last
    known one.
    """
    trusts = {endpoint: ssl.create_default_context(cafile=server.ca) for endpoint in ENDPOINTS}
    for endpoint, trust in trusts.items():
        trust.set_alpn_protocols(["h2"] if endpoint in ("flight", "grpc") else ["http/1.1"])
    for endpoint in itertools.cycle(ENDPOINTS):
        if pause():
            return
        sure = turn.sure
        with (
            socket.create_connection(("localhost", server.port(endpoint)), timeout=DEADLINE) as raw,
            trusts[endpoint].wrap_socket(raw, server_hostname="localhost") as connection,
        ):
            number = turn.numbers[connection.getpeercert(binary_form=True)]
            assert sure <= number, f"the {endpoint} endpoint shows certificate {number}, older than {sure}"
            if endpoint == "http":
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert connection.recv(4096).startswith(b"HTTP/1.1 200"), "no answer"
        yield


def _resumed(server, pause):
    """Each connection resumes the session of the one before, in TLS 1.2, whose session is available after the
    handshake.
    """
    trust = ssl.create_default_context(cafile=server.ca)
    trust.maximum_version = ssl.TLSVersion.TLSv1_2
    session = None
    while not pause():
        with (
            socket.create_connection(("localhost", server.port("http")), timeout=DEADLINE) as raw,
            trust.wrap_socket(raw, server_hostname="localhost", session=session) as connection,
        ):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200"), "no answer"
            session = connection.session
        yield


def _descriptors(server) -> int:
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


@pytest.mark.timeout(90 + 10 * ROTATIONS)
def test_no_request_fails(pod, capsys):
    key = LEDGER.mark("an API key")
    volume = Volume(pod)
    volume.swap(pod.pair)
    pod.yaml(
        tls={"certificate_file": "volume/tls.crt", "key_file": "volume/tls.key"},
        runtime={"auth": {"api_key": {"keys": [f"{key}:rw"]}}},
    )
    server = pod.serve("--metrics", "localhost:0")
    ways = Ways(volume, server, key)
    turn, load, watching = Turn(pod.pair.der), Load(), []

    def call(seconds):
        return clients.call(seconds, headers=[(b"x-api-key", key.encode())])

    def pause(seconds=0.02):
        return load.stopped.wait(seconds)

    load.start("HTTP/1.1, kept alive", lambda: _keep_alive(server, key, pause))
    load.start("HTTP/2, kept alive", lambda: _h2(server, key, pause))
    load.start("Flight streams", lambda: _flight(server, call, pause))
    load.start("gRPC health", lambda: _health(server, pause))
    load.start("gRPC health, watched", lambda: _health_watch(server, watching))
    load.start("new connections", lambda: _new_connections(server, turn, pause))
    load.start("resumed sessions", lambda: _resumed(server, pause))
    at_work = {thread.name for thread in load._threads}
    eventually(lambda: load.failed or set(load.done) == at_work, "everybody works")
    assert not load.failed, load.failed
    descriptors = _descriptors(server)

    took: dict[str, list[float]] = {name: [] for name in ways.all}
    before = pod.pair
    with clients.flight_client(server) as client:
        for number, (name, change) in zip(range(ROTATIONS), itertools.cycle(ways.all.items())):
            # This stream starts under one certificate and is read to its end under the next.
            info = client.get_flight_info(clients.command(STREAM), call(DEADLINE))
            reader = client.do_get(info.endpoints[0].ticket, call(2 * DEADLINE)) if number % 5 == 0 else None
            rows = reader.read_chunk().data.num_rows if reader else 0

            if name == "..data":
                volume.before_swap(before)
            pair = pod.ca.issue(common_name=f"turn {number + 1}")
            turn.next(pair.der)
            change(pair)
            written = time.monotonic()
            for endpoint in ENDPOINTS:
                eventually(
                    lambda endpoint=endpoint, pair=pair: clients.presented(server, endpoint) == pair.der,
                    f"certificate {number + 1} ({name}) on the {endpoint} endpoint",
                    pause=0.01,
                )
            took[name].append(time.monotonic() - written)
            turn.sure, before = number + 1, pair
            if number < 20:
                warm = server.memory()  # by then the memory for streams and queries is allocated

            if reader:
                rows += sum(chunk.data.num_rows for chunk in reader)
                assert rows == ROWS, f"a stream over rotation {number + 1} ended after {rows} rows"
            assert not load.failed, load.failed

    assert watching[0].is_active(), "the health watch has ended"
    watching[0].cancel()
    load.stop()
    with capsys.disabled():
        print(f"\n{ROTATIONS} rotations, the new certificate on all endpoints after (median, worst, in s):")
        for name, seconds in took.items():
            if seconds:
                print(f"  {name:9} {statistics.median(seconds):.2f} {max(seconds):.2f}")
        print(f"  memory {warm >> 20} MiB once warm, {server.memory() >> 20} MiB at the end")
        print("  meanwhile: " + ", ".join(f"{count} × {name}" for name, count in sorted(load.done.items())))

    assert not load.failed, load.failed
    for name in at_work - {"gRPC health, watched"}:
        assert load.done[name] >= min(ROTATIONS // 5, 20), f"{name} did too little for a verdict: {load.done}"
    assert not server.logged("ERROR"), [r["fields"] for r in server.logged("ERROR")]
    assert total(server, "spiced_tls_reload_total", result="swapped") == ROTATIONS
    assert total(server, "spiced_tls_reload_total", result="rejected") == 0
    shown = {
        labels["fingerprint"]
        for name, labels, _ in metrics(server)
        if name == "spiced_tls_certificate_not_after_timestamp_seconds"
    }
    assert shown == {before.fingerprint}, "the metrics show replaced certificates"
    assert server.memory() < warm + GROWTH, f"{warm >> 20} MiB grew to {server.memory() >> 20}"
    eventually(lambda: _descriptors(server) <= descriptors, "no descriptor is left open")
    for name, seconds in took.items():
        assert not seconds or max(seconds) < BOUND + SLACK, f"{name}: {max(seconds):.1f} s"
        assert not seconds or statistics.median(seconds) < 2 * BOUND, f"{name}: {statistics.median(seconds):.1f} s in the median"

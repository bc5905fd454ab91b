"""SIGHUP swaps the certificate for the next handshake; SIGTERM and SIGINT shut down cleanly."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from harness import clients, http2
from harness.pod import ENDPOINTS
from harness.waiting import DEADLINE, eventually

ROWS = 200_000
STREAM = f"SELECT value, repeat('x', 500) AS filler FROM generate_series(1, {ROWS})"  # about 100 MB


# SIGHUP


def _replace(pod, pair) -> None:
    """Writes new files next to the old ones, then renames them over the old ones."""
    for name, text in (("tls.key", pair.key_text), ("tls.crt", pair.certificate)):
        pod.write(f"{name}.new", text)
        os.replace(pod.folder / f"{name}.new", pod.folder / name)


def _presents(server, pair, endpoint: str) -> bool:
    return clients.presented(server, endpoint) == pair.der


def _open_connection(server) -> http.client.HTTPSConnection:
    connection = http.client.HTTPSConnection(
        "localhost", server.port("http"), context=ssl.create_default_context(cafile=server.ca), timeout=DEADLINE
    )
    _ask(connection)
    return connection


def _ask(connection: http.client.HTTPSConnection) -> None:
    connection.request("GET", "/health")
    assert connection.getresponse().read().strip() == b"ok"


def test_sighup_swaps_on_all_endpoints_and_leaves_open_connections_alone(pod):
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    connection = _open_connection(server)
    socket_before = connection.sock
    client = clients.flight_client(server)
    info = client.get_flight_info(clients.flight.FlightDescriptor.for_command(STREAM.encode()), clients.call())
    reader = client.do_get(info.endpoints[0].ticket, clients.call())
    read = reader.read_chunk().data.num_rows

    renewed = pod.ca.issue(common_name="renewed")
    _replace(pod, renewed)
    server.signal(signal.SIGHUP)
    for endpoint in ENDPOINTS:
        eventually(lambda endpoint=endpoint: _presents(server, renewed, endpoint), f"the new certificate on the {endpoint} endpoint")

    connection.request("GET", "/v1/ready")
    assert connection.getresponse().read().strip() == b"ready"
    assert connection.sock is socket_before, "the old connection was closed"
    read += sum(chunk.data.num_rows for chunk in reader)
    assert read == ROWS
    clients.get(server, "/health").ok()


def _nothing(pod):
    (pod.folder / "tls.crt").write_text("nothing that is a certificate")


def _no_file(pod):
    (pod.folder / "tls.key").unlink()


def _half_of_a_pair(pod):
    (pod.folder / "tls.crt").write_text(pod.ca.issue().certificate)


def _empty(pod):
    (pod.folder / "tls.key").write_text("")


BREAKS = {"garbage": _nothing, "file-gone": _no_file, "another-pairs-certificate": _half_of_a_pair, "empty": _empty}


@pytest.mark.parametrize("break_it", BREAKS.values(), ids=BREAKS.keys())
def test_sighup_with_broken_files_keeps_the_certificate_and_recovers(pod, break_it):
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    break_it(pod)
    seen = len(server.log)
    server.signal(signal.SIGHUP)
    server.wait_for_log("WARN", "ERROR", match=r"tls\.(crt|key)|runtime\.tls", since=seen)
    for endpoint in ENDPOINTS:
        assert _presents(server, pod.pair, endpoint)
    renewed = pod.ca.issue(common_name="renewed")
    _replace(pod, renewed)
    server.signal(signal.SIGHUP)
    for endpoint in ENDPOINTS:
        eventually(lambda endpoint=endpoint: _presents(server, renewed, endpoint), f"the healed pair on the {endpoint} endpoint")


def test_many_sighups_at_once(pod):
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    for number in range(20):
        pair = pod.ca.issue(common_name=f"turn-{number}")
        _replace(pod, pair)
        server.signal(signal.SIGHUP)
    eventually(lambda: _presents(server, pair, "http"), "the last of twenty certificates")
    clients.get(server, "/health").ok()


def test_sighup_without_tls_is_survived(pod):
    server = pod.serve()
    server.signal(signal.SIGHUP)
    server.stays_up(0.3)
    clients.get(server, "/health").ok()


# SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
@pytest.mark.parametrize("tls", [True, False], ids=["tls", "clear"])
def test_stop_exits_0(pod, number, tls):
    pod.yaml(tls=pod.write_pair() if tls else None)
    server = pod.serve()
    clients.get(server, "/health").ok()
    server.signal(number)
    assert server.wait_for_exit(15) == 0, server.stderr
    for endpoint in ENDPOINTS:
        with pytest.raises(OSError):
            clients.socket.create_connection(("127.0.0.1", server.port(endpoint)), timeout=5)


def test_idle_connections_do_not_hold_up_the_stop(pod):
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    idle = [
        clients.handshake(server.port(endpoint), alpn=alpn)
        for endpoint, alpn in [("http", ("http/1.1",)), ("http", ("h2",)), ("flight", ("h2",)), ("grpc", ("h2",))]
    ]
    half_open = clients.socket.create_connection(("127.0.0.1", server.port("http")))
    kept_alive = _open_connection(server)
    server.signal(signal.SIGTERM)
    started = time.monotonic()
    assert server.wait_for_exit() == 0
    assert time.monotonic() - started < 12, "idle connections held up the stop"
    for connection in (*idle, half_open, kept_alive):
        connection.close()


def test_idle_connections_take_little_memory(pod):
    """The two buffers of 8 KiB per connection exist only while a request is processed."""
    connections, most = 500, 20 << 10
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    # Memory that the allocator and the workers keep after the first connections is not counted.
    first = [_open_connection(server) for _ in range(40)]
    for connection in first:
        _ask(connection)
    for connection in first:
        connection.close()
    idle = server.memory()
    held = [_open_connection(server) for _ in range(connections)]
    for _ in range(2):
        eventually(lambda: server.memory() - idle < connections * most, "their buffers are given back")
        for connection in held:
            _ask(connection)
    for connection in held:
        connection.close()


def test_request_in_flight_finishes_over_http(pod):
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    command = clients.curl_command(
        server.url("/v1/sql"), "-d", STREAM, "-H", "Accept: application/x-ndjson", ca=server.ca, deadline=60
    )
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    lines = process.stdout.read(65536).count(b"\n")
    server.signal(signal.SIGTERM)
    eventually(lambda: _refused(server, "http"), "the listener closed")
    while part := process.stdout.read(1 << 20):
        lines += part.count(b"\n")
    assert process.wait(DEADLINE) == 0, process.stderr.read()
    assert lines == ROWS
    assert server.wait_for_exit() == 0


def test_request_in_flight_finishes_over_flight(pod):
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    client = clients.flight_client(server)
    info = client.get_flight_info(clients.flight.FlightDescriptor.for_command(STREAM.encode()), clients.call())
    reader = client.do_get(info.endpoints[0].ticket, clients.call(60))
    read = reader.read_chunk().data.num_rows
    server.signal(signal.SIGTERM)
    eventually(lambda: _refused(server, "flight"), "the listener closed")
    read += sum(chunk.data.num_rows for chunk in reader)
    assert read == ROWS
    client.close()
    assert server.wait_for_exit() == 0


def _refused(server, endpoint: str) -> bool:
    try:
        clients.socket.create_connection(("127.0.0.1", server.port(endpoint)), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_h2_connections_get_goaway(pod):
    pod.yaml(tls=pod.write_pair())
    server = pod.serve()
    connections = {}
    for endpoint in ENDPOINTS:
        connection = connections[endpoint] = clients.handshake(server.port(endpoint), alpn=("h2",))
        connection.sendall(http2.PREFACE + http2.frame(http2.SETTINGS))
        assert http2.read_frames(connection, until=http2.SETTINGS)[-1].kind == http2.SETTINGS
    server.signal(signal.SIGTERM)
    for endpoint, connection in connections.items():
        frames = http2.read_frames(connection, until=http2.GOAWAY)
        assert frames and frames[-1].kind == http2.GOAWAY, f"no GOAWAY on the {endpoint} endpoint: {frames}"
        assert frames[-1].goaway[0] == 0, frames[-1].goaway
        connection.close()
    assert server.wait_for_exit() == 0


def test_readiness_turns_first_while_all_endpoints_still_serve(pod):
    pod.yaml(tls=pod.write_pair(), runtime={"shutdown_delay": "4s"})
    server = pod.serve("--probe", "localhost:0")
    assert clients.get(server, "/v1/ready").text.strip() == "ready"
    with clients.channel(server) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.signal(signal.SIGTERM)
        stopped = time.monotonic()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        not_ready = clients.get(server, "/v1/ready")
        assert (not_ready.status, not_ready.text.strip()) == (503, "not ready"), not_ready
        assert clients.get(server, "/v1/ready", endpoint="probe").status == 503
        clients.get(server, "/health").ok()
        assert clients.rows(server, "SELECT 1 AS x") == [{"x": 1}]
        assert clients.query(clients.flight_client(server), "SELECT 1 AS x").num_rows == 1
        check = health.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
        assert check.status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()
    assert server.wait_for_exit() == 0
    assert time.monotonic() - stopped > 3, "it did not wait for shutdown_delay"


def test_second_signal_ends_at_once(pod):
    pod.yaml(runtime={"shutdown_delay": "60s"})
    server = pod.serve()
    server.signal(signal.SIGTERM)
    eventually(lambda: clients.get(server, "/v1/ready").status == 503, "readiness turned")
    started = time.monotonic()
    server.signal(signal.SIGTERM)
    server.wait_for_exit(10)
    assert time.monotonic() - started < 5


def test_shutdown_timeout_ends_stuck_requests(pod):
    """A client that stops reading cannot block the shutdown indefinitely."""
    pod.yaml(tls=pod.write_pair(), runtime={"shutdown_timeout": "1s"})
    server = pod.serve()
    command = clients.curl_command(
        server.url("/v1/sql"),
        "-d",
        "SELECT value, repeat('x', 500) AS f FROM generate_series(1, 100000000)",
        "-H",
        "Accept: application/x-ndjson",
        ca=server.ca,
        deadline=60,
    )
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout.read(4096)
        server.signal(signal.SIGTERM)
        started = time.monotonic()
        server.wait_for_exit(20)
        assert time.monotonic() - started < 12
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_terminal_that_hangs_up_stops_it(pod):
    """SIGHUP after the controlling terminal has closed means stop, not reload."""
    import pty

    pod.yaml(tls=pod.write_pair())
    controller, terminal = pty.openpty()
    log = Path(pod.home / "log")
    command = pod.command([], pod.folder)
    # setsid and opening the terminal make it the controlling one; closing the test's end hangs it up.
    script = 'exec 3<"$1"; shift; log=$1; shift; exec "$@" <&3 2>>"$log" >/dev/null'
    process = subprocess.Popen(
        ["setsid", "bash", "-c", script, "bash", os.ttyname(terminal), str(log), *command],
        stdin=subprocess.DEVNULL,
        cwd=pod.cwd,
        env=pod.environment(),
    )
    os.close(terminal)
    ended = threading.Event()
    threading.Thread(target=lambda: (process.wait(), ended.set()), daemon=True).start()
    try:
        eventually(lambda: log.exists() and '"serving"' in log.read_text(), "it serves")
        os.close(controller)
        assert ended.wait(DEADLINE), f"the server outlived its terminal:\n{log.read_text()}"
        assert process.returncode == 0, log.read_text()
    finally:
        process.kill()
        process.wait()

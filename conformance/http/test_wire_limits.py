"""Peers that flood, stall or break the rules of HTTP and TLS: the resources that they can use are bounded, they get the
reason, and a shutdown loses no request.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import struct
import threading
import time

import pyarrow as pa
import pytest
from pyarrow import flight

from harness import clients, data, http2, wire
from harness.waiting import DEADLINE, eventually

KEY = "a-key-that-nobody-shows-here-0123"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 2, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
ENHANCE_YOUR_CALM = 11
GRPC = [("te", "trailers"), ("content-type", "application/grpc")]


def block(method: str, path: str, *more: tuple[str, str], authority: str | None = "localhost") -> bytes:
    """A header block without the dynamic table: literals that are never indexed (RFC 7541 §6.2.3)."""
    fields = [(":method", method), (":scheme", "https"), (":path", path)]
    fields += [(":authority", authority)] if authority is not None else []
    assert all(len(text) < 127 for field in [*fields, *more] for text in field)
    return b"".join(
        b"\x10" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in [*fields, *more]
    )


class H2:
    """An HTTP/2 connection that the test drives frame by frame."""

    def __init__(self, server, endpoint: str = "http", **settings) -> None:
        self.socket = clients.handshake(server.port(endpoint), alpn=("h2",))
        self.socket.settimeout(DEADLINE)
        payload = b"".join(struct.pack(">HI", kind, value) for kind, value in settings.get("settings", {}).items())
        self.socket.sendall(http2.PREFACE + http2.frame(SETTINGS, payload))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *frames: bytes) -> H2:
        self.socket.sendall(b"".join(frames))
        return self

    def request(self, stream: int, method: str, path: str, *more: tuple[str, str], end: bool = True, **kind) -> H2:
        flags = END_HEADERS | (END_STREAM if end else 0)
        return self.send(http2.frame(HEADERS, block(method, path, *more, **kind), flags, stream))

    def until(self, *kinds: int) -> http2.Frame:
        while True:
            head = http2.read_exactly(self.socket, 9)
            assert head is not None, "the server closed"
            body = http2.read_exactly(self.socket, int.from_bytes(head[:3], "big")) if head[:3] != b"\0\0\0" else b""
            frame = http2.Frame(head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, body)
            if frame.kind in kinds:
                return frame

    def status(self) -> int:
        """The status of the next response: an index into the static table (RFC 7541 A), or digits."""
        payload = self.until(HEADERS).payload
        index = {0x88: 200, 0x89: 204, 0x8C: 400, 0x8D: 404, 0x8E: 500}
        if payload[0] in index:
            return index[payload[0]]
        return int(HUFFMAN.get(payload[2:5], payload[2:5]) if payload[0] in (0x48, 0x08) else 0)


HUFFMAN: dict[bytes, bytes] = {}


def serve(pod, *args: str, **runtime):
    pod.yaml(tls=pod.write_pair(), runtime=runtime, datasets=[data.MEMORY])
    return pod.serve("--metrics", "localhost:0", "--allow-core-dumps", *args)


def metric(server, name: str) -> float:
    text = clients.get(server, "/metrics", endpoint="metrics").text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


def by_hand(server, *lines: bytes, endpoint: str = "http") -> bytes:
    """Returns the response to an HTTP/1.1 request with these header lines."""
    with clients.handshake(server.port(endpoint), alpn=("http/1.1",)) as connection:
        connection.settimeout(DEADLINE)
        connection.sendall(b"\r\n".join([*lines, b"", b""]))
        answer = b""
        while b"\r\n\r\n" not in answer and (part := connection.recv(65536)):
            answer += part
        return answer


# Floods of frames without content

FLOODS = {
    "priority": http2.frame(PRIORITY, b"\0\0\0\0\1", 0, 3),
    "ping": http2.frame(PING, b"12345678"),
    "ping-ack": http2.frame(PING, b"12345678", ACK),
    "settings": http2.frame(SETTINGS, struct.pack(">HI", 4, 65535)),
    "settings-of-no-known-name": http2.frame(SETTINGS, struct.pack(">HI", 0x1000, 1) * 2700),
    "window-update": http2.frame(WINDOW_UPDATE, struct.pack(">I", 1)),
    "unknown": http2.frame(0xBE, b"x" * 20),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_of_frames_without_data_ends_its_connection(shared, flood):
    """Ends with ENHANCE_YOUR_CALM after a few thousand frames at most; other connections continue."""
    with H2(shared) as flooding, H2(shared) as other:
        other.request(1, "GET", "/health").until(DATA)
        with contextlib.suppress(OSError):
            flooding.send(FLOODS[flood] * 3000)
        frame = flooding.until(GOAWAY)
        assert frame.goaway[0] == ENHANCE_YOUR_CALM, frame.goaway
        assert other.request(3, "GET", "/health").until(DATA).payload == b"ok"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    from harness.pod import Pod

    pod = Pod(tmp_path_factory.mktemp("wire"))
    yield serve(pod)
    pod.close()


def test_many_requests_on_one_connection_are_no_flood(shared):
    """With the acknowledgements that clients send for each request: two WINDOW_UPDATE and a PING."""
    beside = http2.frame(WINDOW_UPDATE, struct.pack(">I", 100)) * 2 + http2.frame(PING, b"12345678")
    with H2(shared) as busy:
        for turn in range(60):
            for number in range(50):
                busy.request(2 * (50 * turn + number) + 1, "GET", "/health").send(beside)
            for _ in range(50):
                assert busy.until(DATA).payload == b"ok"


# Memory


def test_messages_that_never_end_are_not_awaited_where_anybody_may_call(pod):
    """Health checks of four megabytes, without a key, on both endpoints that serve them."""
    server = serve(pod, auth={"api_key": {"keys": [f"{KEY}:ro"]}})
    clients.get(server, "/health").ok()
    before = server.memory()
    message = b"\0" + struct.pack(">I", 4 << 20) + bytes(4000)
    for endpoint in ("grpc", "flight"):
        for _ in range(5):
            with H2(server, endpoint) as peer:
                for stream in range(1, 33, 2):
                    peer.request(stream, "POST", "/grpc.health.v1.Health/Check", *GRPC, end=False)
                    peer.send(http2.frame(DATA, message, 0, stream))
                for _ in range(16):
                    assert peer.until(HEADERS).stream
        with wire.Wire(server, endpoint=endpoint) as grpc:
            assert wire.read(grpc.ask(wire.HEALTH, b"").ok().answers[0], 1) == 1
    assert server.memory() - before < 32 << 20


def test_bodies_of_one_connection_are_bounded(shared):
    """Each body may have 16 MiB: once all together hold 64 MiB, one proceeds and the others wait."""
    before = shared.memory()
    with H2(shared) as peer:
        peer.socket.settimeout(3)
        streams = range(1, 121, 2)
        for stream in streams:
            peer.request(stream, "POST", "/v1/sql", ("content-type", "text/plain"), end=False)
        sent, windows, connection = 0, dict.fromkeys(streams, 1 << 20), 65535
        part = b" " * 16384
        started = time.monotonic()
        with contextlib.suppress(TimeoutError):
            while time.monotonic() - started < 20:
                for stream in streams:
                    while windows[stream] >= len(part) <= connection:
                        peer.send(http2.frame(DATA, part, 0, stream))
                        windows[stream] -= len(part)
                        connection -= len(part)
                        sent += len(part)
                update = peer.until(WINDOW_UPDATE)
                size = int.from_bytes(update.payload, "big")
                if update.stream:
                    windows[update.stream] += size
                else:
                    connection += size
        assert 16 << 20 < sent < 100 << 20, f"{sent >> 20} MiB were accepted"
        assert shared.memory() - before < 160 << 20
        clients.rows(shared, "SELECT 1 AS x")


def test_a_long_path_is_not_repeated(shared):
    answer = by_hand(shared, b"GET /" + b"a" * 50_000 + b" HTTP/1.1", b"host: localhost")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert int(re.search(rb"content-length: (\d+)", answer)[1]) < 1000


def test_unread_answers_without_rows_take_little(shared):
    """No response is compressed again or copied."""
    with H2(shared, settings={4: 0}) as peer:
        peer.request(1, "GET", "/openapi.json", ("accept-encoding", "gzip")).until(HEADERS)
        before = shared.memory()
        for stream in range(3, 503, 2):
            peer.request(stream, "GET", "/openapi.json", ("accept-encoding", "gzip"))
        for _ in range(250):
            peer.until(HEADERS)
        assert shared.memory() - before < 10 << 20


# Log


def test_lines_that_a_peer_causes_are_limited_and_counted(pod):
    server = serve(pod, auth={"api_key": {"keys": [f"{KEY}:ro"]}})
    with clients.handshake(server.port("http"), alpn=("http/1.1",)) as connection:
        for _ in range(40):
            connection.sendall(b"GET /v1/status HTTP/1.1\r\nhost: localhost\r\n\r\n" * 25)
            seen = 0
            while seen < 25:
                seen += connection.recv(65536).count(b"HTTP/1.1 401 ")
    for _ in range(2):
        with H2(server) as peer, contextlib.suppress(OSError):
            peer.send(FLOODS["ping-ack"] * 3000)
            peer.until(GOAWAY)
    assert server.stderr.count("a request was denied") < 500
    assert metric(server, 'spiced_log_lines_suppressed_total{target="spiced::audit"}') > 500
    assert metric(server, "spiced_http2_floods_total") == 2


# Strictness

HOSTS = {
    "none": ([], 400),
    "two": ([b"host: localhost", b"host: localhost"], 400),
    "empty": ([b"host:"], 400),
    "blank-inside": ([b"host: local host"], 400),
    "user": ([b"host: user@localhost"], 400),
    "port-of-letters": ([b"host: localhost:http"], 400),
    "of-another-site": ([b"host: evil.example"], 403),
    "good": ([b"host: localhost"], 200),
    "good-address": ([b"host: [::1]:1234"], 200),
}


@pytest.mark.parametrize("case", HOSTS)
def test_host(shared, case):
    """Exactly one valid host is required; the guard against DNS rebinding accepts only local names."""
    lines, status = HOSTS[case]
    assert by_hand(shared, b"GET /v1/status HTTP/1.1", *lines).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("endpoint", ["http", "flight", "grpc", "metrics"])
def test_host_on_every_endpoint(shared, endpoint):
    assert by_hand(shared, b"GET / HTTP/1.1", endpoint=endpoint).startswith(b"HTTP/1.1 400 ")


def test_host_that_contradicts_the_authority(shared):
    with H2(shared) as peer:
        assert peer.request(1, "GET", "/health", ("host", "evil.example")).status() == 400
        assert peer.request(3, "GET", "/health", ("host", "localhost")).status() == 200
        assert peer.request(5, "GET", "/health", authority=None).status() == 400
        assert peer.request(7, "GET", "/health", ("host", "localhost"), authority=None).status() == 200


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"identity, chunked", b"chunked, chunked"])
def test_transfer_coding_that_is_not_supported(shared, coding):
    lines = (b"POST /v1/sql HTTP/1.1", b"host: localhost", b"transfer-encoding: " + coding)
    status = int(by_hand(shared, *lines, b"", b"8", b"SELECT 1", b"0").split()[1])
    assert status == 501 or (coding == b"chunked, chunked" and status == 400), status


@pytest.mark.parametrize("size", [66_000, 80_000, 110_000])
def test_head_of_more_than_64_kib(shared, size):
    assert by_hand(shared, b"GET /health HTTP/1.1", b"host: localhost", b"x: " + b"a" * size).startswith(b"HTTP/1.1 431 ")


def hello() -> bytes:
    """A ClientHello as OpenSSL sends it."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


FIRST = {
    "server-hello": b"\x16\x03\x01\x00\x06\x02\x00\x00\x02\x03\x03",
    "garbage": b"\x16\x03\x01\x00\x05hello",
    "finished": b"\x16\x03\x03\x00\x10\x14\x00\x00\x0c" + bytes(12),
}


@pytest.mark.parametrize("first", FIRST)
def test_alert_for_what_is_no_client_hello(shared, first):
    with socket.create_connection(("127.0.0.1", shared.port("http")), timeout=DEADLINE) as connection:
        connection.sendall(FIRST[first])
        answer = http2.read_to_end(connection)
    assert len(answer) == 7 and answer[:1] == b"\x15" and answer[5] == 2, answer


@pytest.mark.parametrize("behind", [b"\x17\x03\x03\x00\x05hello", b"garbage and more of it"], ids=["record", "garbage"])
def test_garbage_behind_a_client_hello_is_noticed_at_once(shared, behind):
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", shared.port("http")), timeout=DEADLINE) as connection:
        connection.sendall(hello() + behind)
        http2.read_to_end(connection)
    assert time.monotonic() - started < 3


def in_records(message: bytes, size: int) -> bytes:
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in parts)


def test_a_client_hello_in_thousands_of_records_is_refused(shared):
    """The cost per record grows; a ClientHello in a few dozen records is accepted."""
    claims_much = b"\x01\x00\xff\xff\x03\x03" + bytes(3000)
    with socket.create_connection(("127.0.0.1", shared.port("http")), timeout=DEADLINE) as connection:
        connection.sendall(in_records(claims_much, 1))
        assert http2.read_to_end(connection)[:7] == b"\x15\x03\x03\x00\x02\x02\x32"
    with socket.create_connection(("127.0.0.1", shared.port("http")), timeout=DEADLINE) as connection:
        connection.sendall(in_records(hello()[5:], 8))
        assert connection.recv(1) == b"\x16"


# Connection slots


@pytest.mark.parametrize("how", ["refused", "watching"])
def test_connections_that_were_never_admitted_make_room(pod, how):
    """Each sends a request, is refused (or asks for something that needs no credentials), and stays open."""
    server = serve(pod, auth={"api_key": {"keys": [f"{KEY}:ro"]}}, limits={"connections": 8})
    endpoint = "http" if how == "refused" else "grpc"
    held = [H2(server, endpoint) for _ in range(8)]
    for peer in held:
        if how == "refused":
            peer.request(1, "GET", "/v1/status").until(HEADERS)
        else:
            peer.request(1, "POST", "/grpc.health.v1.Health/Watch", *GRPC, end=False)
            peer.send(http2.frame(DATA, b"\0\0\0\0\0", END_STREAM, 1)).until(DATA)
    for _ in range(3):
        started = time.monotonic()
        clients.handshake(server.port(endpoint)).close()
        assert time.monotonic() - started < 5
    assert metric(server, "spiced_connections_shed_total") >= 1
    for peer in held:
        peer.socket.close()


# Shutdown


def test_a_stop_waits_for_no_stream_that_brings_nothing(pod):
    """An open reflection stream, half a body, half a message: none of them holds up the stop for the whole timeout."""
    server = serve(pod, shutdown_timeout="60s")
    with H2(server, "grpc") as reflection, H2(server) as body, H2(server, "flight") as message:
        reflection.request(1, "POST", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", *GRPC, end=False)
        asked = wire.message(f7="*")
        reflection.send(http2.frame(DATA, b"\0" + struct.pack(">I", len(asked)) + asked, 0, 1)).until(DATA)
        body.request(1, "POST", "/v1/sql", end=False).send(http2.frame(DATA, b"SELECT", 0, 1))
        message.request(1, "POST", "/arrow.flight.protocol.FlightService/GetFlightInfo", *GRPC, end=False)
        message.send(http2.frame(DATA, b"\0\0\0\1\0half", 0, 1), http2.frame(PING, b"12345678")).until(PING)
        body.send(http2.frame(PING, b"12345678")).until(PING)
        server.signal(signal.SIGTERM)
        started = time.monotonic()
        assert server.wait_for_exit(30) == 0
        assert time.monotonic() - started < 12


def test_handshakes_in_progress_are_finished_and_answered(pod):
    server = serve(pod)
    context = ssl.create_default_context(cafile=server.ca)
    begun = []
    for _ in range(4):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        connection = socket.create_connection(("127.0.0.1", server.port("http")), timeout=DEADLINE)
        connection.sendall(outgoing.read())
        incoming.write(connection.recv(65536))
        begun.append((connection, tls, incoming, outgoing))
    server.signal(signal.SIGTERM)
    server.wait_for_log("INFO", match="stopping")
    for connection, tls, incoming, outgoing in begun:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                incoming.write(connection.recv(65536))
        tls.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        connection.sendall(outgoing.read())
        answer = b""
        while b"\r\n\r\nok" not in answer:
            try:
                answer += tls.read(65536)
            except ssl.SSLWantReadError:
                incoming.write(connection.recv(65536))
        assert answer.startswith(b"HTTP/1.1 200 ") and b"connection: close" in answer, answer
        connection.close()
    assert server.wait_for_exit() == 0


def test_clients_move_on_during_the_delay(pod):
    """HTTP/1 clients learn of the stop with their next response, HTTP/2 clients at once; new connections are served."""
    server = serve(pod, shutdown_delay="3s")
    kept = clients.handshake(server.port("http"), alpn=("http/1.1",))
    ask = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    kept.sendall(ask)
    assert b"connection: close" not in kept.recv(65536)
    with H2(server) as h2:
        h2.request(1, "GET", "/health").until(DATA)
        server.signal(signal.SIGTERM)
        assert h2.until(GOAWAY).goaway[0] == 0
    kept.sendall(ask)
    assert b"connection: close" in kept.recv(65536)
    assert http2.read_to_end(kept) == b""
    clients.get(server, "/health").ok()
    assert server.wait_for_exit() == 0


def test_the_warning_counts_each_connection_once(pod):
    server = serve(pod, shutdown_timeout="1s")
    endless = b"SELECT value, repeat('x', 1000) AS f FROM generate_series(1, 1000000000)"
    held = []
    for _ in range(3):
        connection = clients.handshake(server.port("http"), alpn=("http/1.1",))
        head = b"POST /v1/sql HTTP/1.1\r\nhost: localhost\r\naccept: application/x-ndjson\r\ncontent-length: %d\r\n\r\n" % len(endless)
        connection.sendall(head + endless)
        assert connection.recv(100)
        held.append(connection)
    server.signal(signal.SIGTERM)
    server.wait_for_exit(20)
    line = server.wait_for_log("WARN", match="the shutdown timeout ended")
    assert '"connections":3' in str(line).replace(" ", "").replace("'", '"'), line
    for connection in held:
        connection.close()


class Asking:
    """Sends requests in a loop on a separate thread, until the port is closed. A request that was sent but not answered
    is lost.
    """

    def __init__(self, server, how: str) -> None:
        self.port = server.port("flight" if how == "flight" else "http")
        self.lost: list[str] = []
        self.served = 0
        self.thread = threading.Thread(target=getattr(self, how.split("-")[0]), args=how.split("-")[1:])
        self.thread.start()

    def may_connect(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE).close()
            return True
        return False

    def connect(self, alpn: str) -> ssl.SSLSocket | None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols([alpn])
        try:
            raw = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)
        except OSError:
            return None
        try:
            return context.wrap_socket(raw, server_hostname="localhost")
        except ConnectionResetError:
            # The connection arrived between the last accept and the close of the port: no request was sent on it.
            if self.may_connect():
                raise
            return None

    def http1(self, keep: str) -> None:
        connection = None
        while True:
            try:
                connection = connection or self.connect("http/1.1")
                if connection is None:
                    return
                connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
                answer = connection.recv(65536)
                assert answer.startswith(b"HTTP/1.1 200 "), answer
                self.served += 1
                if keep == "fresh" or b"connection: close" in answer:
                    connection.close()
                    connection = None
            except (OSError, AssertionError) as trouble:
                self.lost.append(f"http1 {keep}: {trouble!r}")
                connection = None

    def http2(self) -> None:
        while True:
            try:
                connection = self.connect("h2")
                if connection is None:
                    return
                connection.sendall(http2.PREFACE + http2.frame(SETTINGS))
                last, stream = 2**31 - 1, 1
                while last == 2**31 - 1 and not self.is_told_to_go(connection, stream):
                    self.served += 1
                    stream += 2
                connection.close()
            except (OSError, AssertionError) as trouble:
                self.lost.append(f"http2: {trouble!r}")

    @staticmethod
    def is_told_to_go(connection: ssl.SSLSocket, stream: int) -> bool:
        """Sends one request. Returns true after a GOAWAY: the request was answered, or it was not processed (RFC 9113
        §6.8).
        """
        connection.sendall(http2.frame(HEADERS, block("GET", "/health"), END_HEADERS | END_STREAM, stream))
        goes = False
        while True:
            head = http2.read_exactly(connection, 9)
            assert head is not None, "closed without an answer"
            length = int.from_bytes(head[:3], "big")
            payload = http2.read_exactly(connection, length) if length else b""
            if head[3] == GOAWAY:
                goes = True
                if int.from_bytes(payload[:4], "big") < stream:
                    return True
            elif head[3] == PING and not head[4] & ACK:
                connection.sendall(http2.frame(PING, payload, ACK))
            elif head[3] in (HEADERS, DATA) and head[4] & END_STREAM:
                return goes

    def flight(self) -> None:
        client = flight.FlightClient(f"grpc+tls://localhost:{self.port}", disable_server_verification=True)
        with client:
            while True:
                try:
                    info = client.get_flight_info(flight.FlightDescriptor.for_command(b"SELECT 1 AS x"))
                    assert client.do_get(info.endpoints[0].ticket).read_all().num_rows == 1
                    self.served += 1
                except (pa.ArrowException, AssertionError) as trouble:
                    # A call that reached no server was not sent.
                    if self.may_connect() or not re.search("refused|failed to connect", str(trouble)):
                        self.lost.append(repr(trouble))
                    if not self.may_connect():
                        return


STOPS = int(os.environ.get("SPICED_STOPS", "2"))


@pytest.mark.timeout(90 + 20 * STOPS)
def test_stops_under_load_lose_no_request(pod):
    """`SPICED_STOPS` sets the number of stops; a hundred make a soak test."""
    for _ in range(STOPS):
        server = serve(pod)
        asking = [Asking(server, how) for how in ("http1-fresh", "http1-keep", "http2", "flight") * 2]
        eventually(lambda asking=asking: all(each.served > 5 for each in asking), "requests under way")
        server.signal(signal.SIGTERM)
        assert server.wait_for_exit() == 0
        for each in asking:
            each.thread.join()
        lost = [trouble for each in asking for trouble in each.lost]
        assert not lost, lost[:5]


# The rules of HTTP/2 (RFC 9113): a connection or a stream that breaks one ends with the specified code

PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, COMPRESSION_ERROR = 1, 3, 5, 6, 9
RULES_HEAD = block("POST", "/v1/sql", ("content-type", "text/plain"))


def literal(*fields: tuple[str, str]) -> bytes:
    return b"".join(b"\x10" + bytes([len(n)]) + n.encode() + bytes([len(v)]) + v.encode() for n, v in fields)


def asked(*fields: tuple[str, str], flags: int = END_HEADERS | END_STREAM, stream: int = 1) -> bytes:
    return http2.frame(HEADERS, literal(*fields), flags, stream)


PSEUDO = ((":method", "GET"), (":scheme", "https"), (":path", "/health"), (":authority", "localhost"))
OPEN = http2.frame(HEADERS, RULES_HEAD, END_HEADERS, 1)
CONTINUATION, PUSH_PROMISE = 9, 5

CONNECTION_ERRORS = {
    "data-on-stream-0": (http2.frame(DATA, b"x"), PROTOCOL_ERROR),
    "headers-on-stream-0": (http2.frame(HEADERS, RULES_HEAD, 5), PROTOCOL_ERROR),
    "headers-on-an-even-stream": (http2.frame(HEADERS, RULES_HEAD, 5, 2), PROTOCOL_ERROR),
    "a-stream-below-the-last": (asked(*PSEUDO, stream=5) + asked(*PSEUDO, stream=3), {PROTOCOL_ERROR, STREAM_CLOSED}),
    "data-on-an-idle-stream": (http2.frame(DATA, b"x", 1, 1), PROTOCOL_ERROR),
    "reset-of-stream-0": (http2.frame(RST_STREAM, bytes(4)), PROTOCOL_ERROR),
    "reset-of-an-idle-stream": (http2.frame(RST_STREAM, bytes(4), 0, 1), PROTOCOL_ERROR),
    "reset-of-3-bytes": (OPEN + http2.frame(RST_STREAM, bytes(3), 0, 1), FRAME_SIZE_ERROR),
    "priority-on-stream-0": (http2.frame(PRIORITY, b"\0\0\0\1\1"), PROTOCOL_ERROR),
    "settings-on-a-stream": (http2.frame(SETTINGS, b"", 0, 1), PROTOCOL_ERROR),
    "settings-ack-with-a-payload": (http2.frame(SETTINGS, bytes(6), ACK), FRAME_SIZE_ERROR),
    "settings-of-5-bytes": (http2.frame(SETTINGS, bytes(5)), FRAME_SIZE_ERROR),
    "settings-push-2": (http2.frame(SETTINGS, struct.pack(">HI", 2, 2)), PROTOCOL_ERROR),
    "settings-window-of-2-to-31": (http2.frame(SETTINGS, struct.pack(">HI", 4, 2**31)), FLOW_CONTROL_ERROR),
    "settings-frame-size-1": (http2.frame(SETTINGS, struct.pack(">HI", 5, 1)), PROTOCOL_ERROR),
    "settings-frame-size-2-to-24": (http2.frame(SETTINGS, struct.pack(">HI", 5, 2**24)), PROTOCOL_ERROR),
    "push-promise": (http2.frame(PUSH_PROMISE, bytes(4) + RULES_HEAD, 4, 1), PROTOCOL_ERROR),
    "ping-on-a-stream": (http2.frame(PING, bytes(8), 0, 1), PROTOCOL_ERROR),
    "ping-of-7-bytes": (http2.frame(PING, bytes(7)), FRAME_SIZE_ERROR),
    "goaway-on-a-stream": (http2.frame(GOAWAY, bytes(8), 0, 1), PROTOCOL_ERROR),
    "window-update-of-0": (http2.frame(WINDOW_UPDATE, bytes(4)), PROTOCOL_ERROR),
    "window-update-of-3-bytes": (http2.frame(WINDOW_UPDATE, bytes(3)), FRAME_SIZE_ERROR),
    "window-beyond-2-to-31": (http2.frame(WINDOW_UPDATE, struct.pack(">I", 2**31 - 1)), FLOW_CONTROL_ERROR),
    "window-update-of-an-idle-stream": (http2.frame(WINDOW_UPDATE, struct.pack(">I", 1), 0, 1), PROTOCOL_ERROR),
    "headers-of-more-than-16-kib": (http2.frame(HEADERS, bytes(16385), 5, 1), FRAME_SIZE_ERROR),
    "continuation-of-nothing": (http2.frame(CONTINUATION, RULES_HEAD, 4, 1), PROTOCOL_ERROR),
    "a-frame-between-headers-and-continuation": (
        http2.frame(HEADERS, RULES_HEAD, 0, 1) + http2.frame(PING, bytes(8)),
        PROTOCOL_ERROR,
    ),
    "continuation-of-another-stream": (
        http2.frame(HEADERS, RULES_HEAD, 0, 1) + http2.frame(CONTINUATION, b"", 4, 3),
        PROTOCOL_ERROR,
    ),
    "padding-longer-than-the-frame": (OPEN + http2.frame(DATA, b"\x09abc", 8, 1), PROTOCOL_ERROR),
    "index-that-is-not-in-the-table": (http2.frame(HEADERS, b"\xff\xff\x7f", 5, 1), COMPRESSION_ERROR),
    "table-larger-than-agreed": (http2.frame(HEADERS, b"\x3f\xe1\xff\x03" + RULES_HEAD, 5, 1), COMPRESSION_ERROR),
    "string-longer-than-the-block": (http2.frame(HEADERS, b"\x10\x7f" + b"abc", 5, 1), COMPRESSION_ERROR),
}

STREAM_ERRORS = {
    "name-in-capitals": (asked(*PSEUDO, ("X-Big", "1")), PROTOCOL_ERROR),
    "unknown-pseudo-header": (asked(*PSEUDO, (":x", "1")), PROTOCOL_ERROR),
    "pseudo-header-of-answers": (asked(*PSEUDO, (":status", "200")), PROTOCOL_ERROR),
    "pseudo-header-after-another": (asked(*PSEUDO[:3], ("x", "1"), PSEUDO[3]), PROTOCOL_ERROR),
    "connection-header": (asked(*PSEUDO, ("connection", "close")), PROTOCOL_ERROR),
    "transfer-encoding": (asked(*PSEUDO, ("transfer-encoding", "chunked")), PROTOCOL_ERROR),
    "te-other-than-trailers": (asked(*PSEUDO, ("te", "gzip")), PROTOCOL_ERROR),
    "no-method": (asked(*PSEUDO[1:]), PROTOCOL_ERROR),
    "no-scheme": (asked(PSEUDO[0], *PSEUDO[2:]), PROTOCOL_ERROR),
    "no-path": (asked(*PSEUDO[:2], PSEUDO[3]), PROTOCOL_ERROR),
    "empty-path": (asked(*PSEUDO[:2], (":path", ""), PSEUDO[3]), PROTOCOL_ERROR),
    "two-methods": (asked(PSEUDO[0], *PSEUDO), PROTOCOL_ERROR),
    "two-paths": (asked(*PSEUDO[:3], PSEUDO[2]), PROTOCOL_ERROR),
    "content-length-too-small": (
        http2.frame(HEADERS, RULES_HEAD + literal(("content-length", "1")), 4, 1) + http2.frame(DATA, b"SELECT 1", 1, 1),
        PROTOCOL_ERROR,
    ),
    "content-length-too-large": (
        http2.frame(HEADERS, RULES_HEAD + literal(("content-length", "99")), 4, 1) + http2.frame(DATA, b"SELECT 1", 1, 1),
        PROTOCOL_ERROR,
    ),
    "trailers-without-an-end": (OPEN + http2.frame(HEADERS, literal(("x", "1")), 4, 1), PROTOCOL_ERROR),
    "pseudo-header-in-trailers": (OPEN + http2.frame(HEADERS, literal((":method", "GET")), 5, 1), PROTOCOL_ERROR),
    "window-of-a-stream-beyond-2-to-31": (
        OPEN + http2.frame(WINDOW_UPDATE, struct.pack(">I", 2**31 - 1), 0, 1),
        FLOW_CONTROL_ERROR,
    ),
    "window-update-of-0-on-a-stream": (OPEN + http2.frame(WINDOW_UPDATE, bytes(4), 0, 1), PROTOCOL_ERROR),
    "priority-of-itself": (http2.frame(PRIORITY, b"\0\0\0\1\1", 0, 1), PROTOCOL_ERROR),
    "priority-of-4-bytes": (http2.frame(PRIORITY, bytes(4), 0, 1), FRAME_SIZE_ERROR),
    "data-after-the-end": (
        http2.frame(HEADERS, RULES_HEAD, 4, 1) + http2.frame(DATA, b"", 1, 1) + http2.frame(DATA, b"x", 1, 1),
        STREAM_CLOSED,
    ),
}


def ended_with(server, endpoint: str, frames: bytes, is_connection_error: bool) -> int | None:
    """Returns the error code that ends the connection or stream; None if a malformed request gets a refusal as its
    response.
    """
    with H2(server, endpoint) as connection:
        connection.send(frames)
        kinds = (GOAWAY,) if is_connection_error else (GOAWAY, RST_STREAM, HEADERS)
        frame = connection.until(*kinds)
        if frame.kind == HEADERS:
            return None if frame.payload[0] != 0x88 else -1
        return frame.goaway[0] if frame.kind == GOAWAY else int.from_bytes(frame.payload, "big")


@pytest.mark.parametrize("endpoint", ["http", "metrics"])
def test_what_http2_forbids_ends_with_its_code(shared, endpoint):
    """PROTOCOL_ERROR is also accepted, which the library uses for some rules; a malformed request may get an error
    response (§8.1.1).
    """
    wrong = {}
    for rule, (frames, code) in {**CONNECTION_ERRORS, **STREAM_ERRORS}.items():
        is_connection_error = rule in CONNECTION_ERRORS
        codes = (code if isinstance(code, set) else {code}) | {PROTOCOL_ERROR}
        found = ended_with(shared, endpoint, frames, is_connection_error)
        if found not in codes and (is_connection_error or found is not None):
            wrong[rule] = found
    assert not wrong

"""Row streams from clients that make errors, send false data, stall or disconnect: nothing is stored, and no other
client is affected."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import threading
from pathlib import Path

import grpc
import pyarrow as pa
import pytest

from harness import clients, data, http2, wire
from harness.access import PATIENT, Access
from harness.pod import Pod
from harness.waiting import eventually

ROWS = 1237  # a number that is easy to find in a header
GOOD = pa.record_batch({"id": pa.array(range(ROWS), pa.int64()), "name": [f"name {n}" for n in range(ROWS)]})
BULK = pa.record_batch({"id": pa.array(range(60_000), pa.int64()), "name": ["sixteen letters!"] * 60_000})
ALLOWED = 64 << 20
REFUSED = {"INVALID_ARGUMENT"}
BROKEN = {"INVALID_ARGUMENT", "INTERNAL"}  # invalid protobuf or gRPC: tonic chooses the code

Part = tuple[bytes, bytes]  # data_header and data_body


def parts(*batches: pa.RecordBatch, compression: str | None = None) -> list[Part]:
    """The messages as pyarrow writes them: the schema, dictionaries, batches."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        for batch in batches:
            writer.write_batch(batch)
    made = []
    for message in pa.ipc.MessageReader.open_stream(sink.getvalue()):
        made.append((message.metadata.to_pybytes(), message.body.to_pybytes() if message.body else b""))
    return made


def flight_data(*parts_: Part | bytes, command: bytes | None = None) -> list[bytes]:
    """FlightData messages, the first with the descriptor; bytes are passed through."""
    made = [part if isinstance(part, bytes) else wire.message(f2=part[0], f1000=part[1]) for part in parts_]
    return [wire.message(f1=wire.descriptor(command)) + made[0], *made[1:]] if command else made


SCHEMA, BATCH = parts(GOOD)
HEAD, BODY = BATCH


def changed(data: bytes, old: bytes, new: bytes, count: int = 1) -> bytes:
    assert data.count(old) >= count and len(old) == len(new), "the header has another layout than this test expects"
    return data.replace(old, new, count)


def buffer(offset: int, length: int) -> Part:
    """The batch with this offset and length for its first column's buffer."""
    return changed(HEAD, struct.pack("<qq", 0, 8 * ROWS), struct.pack("<qq", offset, length)), BODY


def node(length: int, nulls: int, count: int = 2) -> Part:
    return changed(HEAD, struct.pack("<qq", ROWS, 0), struct.pack("<qq", length, nulls), count), BODY


def length(rows: int) -> Part:
    """The batch with this length in every place that states one."""
    old = struct.pack("<q", ROWS)
    return changed(HEAD, old, struct.pack("<q", rows), HEAD.count(old)), BODY


def of(**columns) -> pa.RecordBatch:
    return pa.record_batch(columns)


# Messages in the middle of a stream, after the schema and a good batch.
HOSTILE = {
    "garbage-header": ((b"\xff" * 64, b""), REFUSED),
    "short-header": ((b"\x01", b""), REFUSED),
    "offset-far-away": ((b"\xff\xff\xff\x7f" + HEAD[4:], BODY), REFUSED),
    "half-a-header": ((HEAD[: len(HEAD) // 2], BODY), REFUSED),
    "every-other-byte": ((bytes(b ^ 0x55 if at % 2 else b for at, b in enumerate(HEAD)), BODY), REFUSED),
    "text-header": ((b"INSERT INTO notes VALUES (1, 'x')", b""), REFUSED),
    "buffer-behind-the-body": (buffer(len(BODY), 8 * ROWS), REFUSED),
    "buffer-far-away": (buffer(1 << 40, 8 * ROWS), REFUSED),
    "buffer-at-the-end-of-numbers": (buffer((1 << 63) - 8, 8 * ROWS), REFUSED),
    "buffer-before-the-body": (buffer(-8, 8 * ROWS), REFUSED),
    "buffer-too-long": (buffer(0, 1 << 40), REFUSED),
    "buffer-longest": (buffer(8, (1 << 63) - 1), REFUSED),
    "buffer-of-negative-length": (buffer(0, -1), REFUSED),
    "buffer-too-short": (buffer(0, 8), REFUSED),
    "more-rows-than-there-are": (length(1 << 40), REFUSED),
    "most-rows": (length((1 << 63) - 1), REFUSED),
    "negative-rows": (length(-1), REFUSED),
    "columns-of-unequal-length": (node(ROWS - 1, 0, 1), REFUSED),
    "more-nulls-than-rows": (node(ROWS, 1 << 40), REFUSED),
    "no-body": ((HEAD, b""), REFUSED),
    "half-a-body": ((HEAD, BODY[: len(BODY) // 2]), REFUSED),
    "body-short-of-a-byte": ((HEAD, BODY[: 8 * ROWS - 1]), REFUSED),
    "fewer-columns": (parts(of(id=pa.array([1, 2])))[1], REFUSED),
    "more-narrow-columns": (parts(of(id=pa.array([7] * ROWS, pa.int8()), name=["x"] * ROWS))[1], REFUSED),
    "another-schema": (parts(of(id=pa.array(["x"])))[0], REFUSED),
    "the-schema-again-of-other-types": (parts(of(id=pa.array([0.5]), name=["x"]))[0], REFUSED),
    "text-that-is-none": ((HEAD, BODY[: BODY.index(b"name 0")] + b"\xff" * (len(BODY) - BODY.index(b"name 0"))), REFUSED),
    "text-that-goes-backwards": ((HEAD, changed(BODY, struct.pack("<3i", 0, 6, 12), struct.pack("<3i", 0, 12, 6))), REFUSED),
    "text-far-away": ((HEAD, changed(BODY, struct.pack("<3i", 0, 6, 12), struct.pack("<3i", 0, 6, 1 << 30))), REFUSED),
    "a-dictionary-of-nobody": (parts(of(x=pa.array(["a"]).dictionary_encode()))[1], REFUSED),
    "no-protobuf": (b"\xff" * 16, BROKEN),
    "half-a-protobuf": (wire.message(f2=HEAD, f1000=BODY)[:-100], BROKEN),
}
each = pytest.mark.parametrize("hostile", HOSTILE)
# How the table is to be used: (if it does not exist, if it exists).
MODES = {"append": (2, 2), "create": (1, 1), "replace": (1, 3)}


class Keeper:
    """One server for many tests; it is replaced if it died, panicked or kept something that it should not keep."""

    def __init__(self, root) -> None:
        self.pod = Pod(root)
        self.pod.yaml(tls=self.pod.write_pair(), datasets=[data.MEMORY])
        self.now = None

    def server(self):
        if self.now is None:
            self.now = self.pod.serve("--allow-core-dumps")  # without it only root may reset the peak memory
            clients.sql(self.now, "INSERT INTO notes VALUES (1, 'kept')").ok()
            clients.sql(self.now, "CREATE TABLE made AS SELECT 7 AS x").ok()
        return self.now

    def judge(self, unchanged: bool) -> None:
        """Checks that the server is alive and has not panicked and, if `unchanged`, that the tables are as before."""
        server, self.now = self.now, None
        try:
            assert server.process.poll() is None, f"the server died:\n{server.tail()}"
            if unchanged:
                assert_unchanged(server)
            assert "panicked at" not in server.stderr, "\n".join(re.findall(r".*panicked at.*\n?.*", server.stderr))
            self.now = server
        finally:
            if self.now is None:
                self.pod.servers.remove(server)
                server.process.kill()
                server.process.wait()


@pytest.fixture(scope="module")
def keeper(tmp_path_factory):
    keeper = Keeper(tmp_path_factory.mktemp("hostile"))
    yield keeper
    keeper.pod.close()


@pytest.fixture
def server(keeper):
    """A server with `notes` to append to and `made` to replace."""
    yield keeper.server()
    keeper.judge(unchanged=False)


@pytest.fixture
def unchanged(keeper):
    """Requires that the tables are as before and that there is no new one, whatever the test does."""
    yield keeper.server()
    keeper.judge(unchanged=True)


def assert_unchanged(server) -> None:
    assert clients.rows(server, "SELECT * FROM notes") == [{"id": 1, "name": "kept"}]
    assert clients.rows(server, "SELECT * FROM made") == [{"x": 7}]
    assert clients.sql(server, "SELECT * FROM fresh").status == 400


TARGETS = {"append": "notes", "create": "fresh", "replace": "made"}


def commands() -> dict[str, bytes]:
    return {mode: wire.ingest(TARGETS[mode], *MODES[mode]) for mode in MODES}


@each
def test_in_the_middle_of_a_stream(unchanged, hostile):
    """After a valid batch, and before another one; for every way to use the table."""
    bad, codes = HOSTILE[hostile]
    with wire.Wire(unchanged) as flight:
        for mode, command in commands().items():
            for rest in ((bad,), (bad, BATCH)):
                told = flight.ask("DoPut", *flight_data(SCHEMA, BATCH, *rest, command=command))
                assert told.code in codes, f"{mode}: {told.code}: {told.details}"
                assert told.details, mode


HARMLESS = {"zeros-for-a-header": ((bytes(256), b""), 0), "negative-nulls": (node(ROWS, -7), ROWS)}


@pytest.mark.parametrize("strange", HARMLESS)
def test_strange_and_harmless(server, strange):
    """Refused or ignored: only the rows that were sent are kept."""
    part, rows = HARMLESS[strange]
    table = f"strange_{len(strange)}"
    with wire.Wire(server) as flight:
        told = flight.ask("DoPut", *flight_data(SCHEMA, BATCH, part, command=wire.ingest(table, 1, 1)))
    assert told.code in ("OK", "INVALID_ARGUMENT"), told
    if told.code == "OK":
        found = clients.rows(server, f"SELECT count(id) AS n, count(DISTINCT name) AS m FROM {table}")
        assert found == [{"n": ROWS + rows, "m": ROWS}]


@each
def test_first_of_the_batches(unchanged, hostile):
    bad, codes = HOSTILE[hostile]
    with wire.Wire(unchanged) as flight:
        told = flight.ask("DoPut", *flight_data(SCHEMA, bad, BATCH, command=commands()["create"]))
    assert told.code in codes, f"{told.code}: {told.details}"


ORDERS = {
    "batch-before-the-schema": [BATCH, SCHEMA, BATCH],
    "no-schema": [BATCH],
    "garbage-for-a-schema": [(b"\xff" * 64, b""), BATCH],
    "half-a-schema": [(SCHEMA[0][: len(SCHEMA[0]) // 2], b""), BATCH],
    "schema-without-columns": [parts(pa.RecordBatch.from_pylist([], pa.schema([])))[0]],
}


@pytest.mark.parametrize("order", ORDERS)
def test_out_of_order(unchanged, order):
    with wire.Wire(unchanged) as flight:
        for command in commands().values():
            told = flight.ask("DoPut", *flight_data(*ORDERS[order], command=command))
            assert told.code == "INVALID_ARGUMENT" and told.details, told


def test_a_schema_alone_makes_the_table(server):
    """A result without rows, ingested: the table exists and has its columns."""
    with wire.Wire(server) as flight:
        told = flight.ask("DoPut", *flight_data(SCHEMA, command=wire.ingest("no_rows", 1, 1)))
    assert told.code == "OK", told
    assert clients.rows(server, "SELECT count(id) AS n, count(name) AS m FROM no_rows") == [{"n": 0, "m": 0}]


def test_rows_for_two_tables(unchanged):
    """A second descriptor does not redirect the rows."""
    second = wire.message(f1=wire.descriptor(wire.ingest("made", 2, 3))) + wire.message(f2=HEAD, f1000=BODY)
    with wire.Wire(unchanged) as flight:
        told = flight.ask("DoPut", *flight_data(SCHEMA, BATCH, second, command=wire.ingest("two_tables", 1, 1)))
    assert clients.rows(unchanged, "SELECT * FROM made") == [{"x": 7}]
    if told.code == "OK":
        assert clients.rows(unchanged, "SELECT count(*) AS n FROM two_tables") == [{"n": 2 * ROWS}]
    else:
        assert told.code == "INVALID_ARGUMENT"


# Types whose content can be inconsistent


def _lying() -> dict[str, list[Part]]:
    def with_body(batch: pa.RecordBatch, old: bytes, new: bytes, at: int = -1) -> list[Part]:
        made = parts(batch)
        made[at] = (made[at][0], changed(made[at][1], old, new))
        return made

    offsets = struct.pack("<4i", 0, 3, 6, 9)
    lists = of(x=pa.array([[1, 2, 3]] * 3, pa.list_(pa.int64())))
    large = of(x=pa.array([[1, 2, 3]] * 3, pa.large_list(pa.int64())))
    words = of(x=pa.array(["abc"] * 3).dictionary_encode())
    views = of(x=pa.array(["longer than twelve bytes"] * 3, pa.string_view()))
    view = struct.pack("<i4sii", 24, b"long", 0, 0)
    ends = of(x=pa.RunEndEncodedArray.from_arrays(pa.array([2, 5], pa.int32()), pa.array([7, 8])))
    members = [pa.array([1, 2]), pa.array(["a"])]
    union = of(x=pa.UnionArray.from_dense(pa.array([0, 1, 0], pa.int8()), pa.array([0, 0, 1], pa.int32()), members))
    return {
        "list-far-away": with_body(lists, offsets, struct.pack("<4i", 0, 3, 6, 1 << 30)),
        "list-backwards": with_body(lists, offsets, struct.pack("<4i", 0, 6, 3, 9)),
        "list-before-its-start": with_body(lists, offsets, struct.pack("<4i", -3, 3, 6, 9)),
        "large-list-far-away": with_body(large, struct.pack("<4q", 0, 3, 6, 9), struct.pack("<4q", 0, 3, 6, 1 << 60)),
        "dictionary-index-too-high": with_body(words, struct.pack("<3i", 0, 0, 0), struct.pack("<3i", 0, 1 << 30, 0)),
        "dictionary-index-below-zero": with_body(words, struct.pack("<3i", 0, 0, 0), struct.pack("<3i", 0, -1, 0)),
        "dictionary-that-did-not-come": [parts(words)[0], parts(words)[2]],
        "view-of-no-buffer": with_body(views, view, struct.pack("<i4sii", 24, b"long", 9, 0)),
        "view-behind-its-buffer": with_body(views, view, struct.pack("<i4sii", 24, b"long", 0, 1 << 30)),
        "view-longer-than-its-buffer": with_body(views, view, struct.pack("<i4sii", 1 << 30, b"long", 0, 0)),
        "view-of-another-start": with_body(views, view, struct.pack("<i4sii", 24, b"gnol", 0, 0)),
        "runs-that-go-backwards": with_body(ends, struct.pack("<2i", 2, 5), struct.pack("<2i", 5, 2)),
        "runs-that-end-early": with_body(ends, struct.pack("<2i", 2, 5), struct.pack("<2i", 1, 2)),
        "union-of-no-member": with_body(union, b"\0\1\0", b"\0\5\0"),
        "union-far-away": with_body(union, struct.pack("<3i", 0, 0, 1), struct.pack("<3i", 0, 0, 1 << 30)),
    }


LYING = _lying()


@pytest.mark.parametrize("lie", LYING)
def test_type_with_inconsistent_content(unchanged, lie):
    """Refused on arrival; a table with such a value would crash every reader."""
    with wire.Wire(unchanged) as flight:
        told = flight.ask("DoPut", *flight_data(*LYING[lie], command=commands()["create"]))
        assert told.code == "INVALID_ARGUMENT" and told.details, told


def _bomb(claim: int | None, compression: str) -> list[Part]:
    """Compressed zeros; `claim` is the size in bytes that the message states."""
    rows = 32 << 20 if claim is None else 1 << 16
    schema, (head, body) = parts(of(id=zeros(rows)), compression=compression)
    if claim is not None:
        body = changed(body, struct.pack("<q", 8 * rows), struct.pack("<q", claim))
    return [schema, (head, body)]


def zeros(rows: int) -> pa.Array:
    return pa.Array.from_buffers(pa.int64(), rows, [None, pa.py_buffer(bytes(8 * rows))])


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("claim", [1 << 40, (1 << 63) - 1, -2, 8, 0], ids=["2^40", "2^63-1", "-2", "8", "0"])
def test_compressed_body_that_lies_about_its_size(unchanged, compression, claim):
    unchanged.forget_peak()
    before = unchanged.memory()
    with wire.Wire(unchanged) as flight:
        told = flight.ask("DoPut", *flight_data(*_bomb(claim, compression), command=commands()["create"]))
    assert told.code == "INVALID_ARGUMENT", told
    assert unchanged.memory("VmHWM") - before < ALLOWED


HARMFUL = {
    "compressed-body": lambda: _bomb((1 << 63) - 1, "zstd"),
    "no-body": lambda: [SCHEMA, (HEAD, b"")],
    "more-nulls-than-rows": lambda: [SCHEMA, node(ROWS, 1 << 40)],
}


@pytest.mark.parametrize("harm", HARMFUL)
@pytest.mark.parametrize("way", ["ingest", "parameters"])
def test_read_only_key_does_no_harm(pod, way, harm):
    """A read-only key's ingest is refused, and the parameters of its queries are read with the same checks."""
    access = Access(pod)
    pod.yaml(tls=pod.write_pair(), runtime={"auth": {"api_key": access.api_key}, **PATIENT}, datasets=[data.MEMORY])
    server = pod.serve(env=access.environment)
    with access.ro.wire(server) as flight:
        command, wanted = wire.ingest("notes"), "PERMISSION_DENIED"
        if way == "parameters":
            handle = wire.handle_of(flight.prepare("SELECT $1::bigint AS x"))
            command, wanted = wire.sql_any("CommandPreparedStatementQuery", f1=handle), "INVALID_ARGUMENT"
        told = flight.ask("DoPut", *flight_data(*HARMFUL[harm](), command=command))
    assert server.process.poll() is None and told.code in (wanted, "INVALID_ARGUMENT"), told
    assert access.ro.curl(server, "/v1/sql", "-d", "SELECT 1 AS x").ok().json() == [{"x": 1}]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_good_compressed_body(server, compression):
    table = f"good_{compression}"
    with wire.Wire(server) as flight:
        flight.ask("DoPut", *flight_data(*parts(GOOD, compression=compression), command=wire.ingest(table, 1, 1))).ok()
    assert clients.rows(server, f"SELECT count(*) AS n, sum(id) AS s FROM {table}") == [{"n": ROWS, "s": sum(range(ROWS))}]


# Hand-written gRPC in HTTP/2 frames, so that a stream can end anywhere

DATA, HEADERS, RST_STREAM, PING = 0x0, 0x1, 0x3, 0x6
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1


class ByHand:
    """One DoPut on a separate connection."""

    def __init__(self, server) -> None:
        self.socket = clients.handshake(server.port("flight"), alpn=("h2",))
        fields = {
            **{":method": "POST", ":scheme": "https", ":path": f"{wire.FLIGHT}/DoPut", ":authority": "localhost"},
            **{"content-type": "application/grpc", "te": "trailers"},
        }
        # HPACK: literals without indexing (RFC 7541 §6.2.2)
        block = b"".join(
            b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in fields.items()
        )
        opening = http2.frame(http2.SETTINGS) + http2.frame(HEADERS, block, END_HEADERS, 1)
        self.socket.sendall(http2.PREFACE + opening)

    def __enter__(self) -> ByHand:
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def send(self, *messages: bytes, cut: int = 0, end: bool = False) -> ByHand:
        """Sends gRPC messages; `cut` bytes of the last one are withheld."""
        whole = b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)
        return self.send_bytes(whole[: len(whole) - cut], end)

    def send_bytes(self, whole: bytes, end: bool = False) -> ByHand:
        pieces = [whole[at : at + 16384] for at in range(0, len(whole), 16384)]
        assert len(whole) < 60_000, "more than the flow-control window"
        for piece in pieces:
            last = end and piece is pieces[-1]
            self.socket.sendall(http2.frame(DATA, piece, END_STREAM if last else 0, 1))
        return self

    def arrived(self) -> ByHand:
        """Waits until the server has read everything that was sent."""
        self.socket.sendall(http2.frame(PING, b"arrived?"))
        while (frame := self._frame()).kind != PING or not frame.flags & ACK:
            assert frame.kind != http2.GOAWAY, frame.goaway
        return self

    def answer(self) -> bytes:
        """Returns the payloads of the stream's last frames, however it ends."""
        seen = b""
        while True:
            frame = self._frame()
            if frame.stream == 1:
                seen += frame.payload
                if frame.kind == RST_STREAM or frame.flags & END_STREAM:
                    return seen

    def vanish(self) -> None:
        """Resets the connection, as a crashed machine would."""
        raw = self.socket
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()

    def fall_silent(self) -> None:
        """Ends the TCP stream without TLS's close_notify."""
        self.socket.shutdown(socket.SHUT_WR)

    def say_goodbye(self) -> None:
        """Sends TLS's close_notify in the middle of the HTTP/2 stream."""
        with contextlib.suppress(ssl.SSLError, OSError):
            self.socket.unwrap()

    def _frame(self) -> http2.Frame:
        head = http2.read_exactly(self.socket, 9)
        assert head is not None, "the server closed"
        size = int.from_bytes(head[:3], "big")
        body = http2.read_exactly(self.socket, size) if size else b""
        return http2.Frame(head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, body)


def opened(command: bytes) -> list[bytes]:
    return flight_data(SCHEMA, BATCH, command=command)


STALLS = {
    "after-the-descriptor": lambda command: ([wire.message(f1=wire.descriptor(command))], 0),
    "after-the-schema": lambda command: (flight_data(SCHEMA, command=command), 0),
    "after-a-batch": lambda command: (opened(command), 0),
    "in-a-batch": lambda command: ([*opened(command), *flight_data(BATCH)], 1000),
    "in-the-length-of-a-message": lambda command: ([*opened(command), b""], 2),
}
ENDS = ["vanish", "fall_silent", "say_goodbye"]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("stall", STALLS)
def test_client_that_stalls_and_is_gone(unchanged, stall, end):
    """While the client stalls, others use the same table; once it is gone, none of its rows remain."""
    for command in commands().values():
        messages, cut = STALLS[stall](command)
        by_hand = ByHand(unchanged).send(*messages, cut=cut).arrived()
        assert_unchanged(unchanged)
        clients.query(clients.flight_client(unchanged), "SELECT count(*) FROM notes")
        getattr(by_hand, end)()
        by_hand.socket.close()
    eventually(lambda: connections(unchanged) == 0, "no connection to the Flight endpoint is left")


def connections(server) -> int:
    """The number of connections of the Flight endpoint, as the kernel counts them."""
    port = f":{server.port('flight'):04X}"
    lines = (line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:])
    return sum(line[1].endswith(port) and line[3] in ("01", "08") for line in lines)  # ESTABLISHED, CLOSE_WAIT


def test_writers_are_served_while_a_client_stalls(server):
    """No client waits for the end of another's stream."""
    clients.sql(server, "CREATE TABLE shared (id BIGINT, name VARCHAR)").ok()
    with ByHand(server) as stalled:
        stalled.send(*opened(wire.ingest("shared"))).arrived()
        clients.sql(server, "INSERT INTO shared VALUES (1, 'by SQL')").ok()
        with wire.Wire(server) as flight:
            flight.put(wire.ingest("shared"), of(id=[2], name=["by Flight"])).ok()
        assert clients.rows(server, "SELECT count(*) AS n FROM shared") == [{"n": 2}]
    assert clients.rows(server, "SELECT id FROM shared ORDER BY id") == [{"id": 1}, {"id": 2}]


def test_stream_that_ends_after_a_whole_message_is_complete(server):
    """In Flight, the end of the stream marks the end of the rows."""
    with ByHand(server) as by_hand:
        answer = by_hand.send(*opened(wire.ingest("whole", 1, 1)), end=True).answer()
    assert wire.message(f1=wire.message(f1=ROWS)) in answer
    assert clients.rows(server, "SELECT count(*) AS n FROM whole") == [{"n": ROWS}]


@pytest.mark.parametrize("cut", [1, 1000, len(BODY)])
def test_stream_that_ends_within_a_message_is_discarded(unchanged, cut):
    for command in commands().values():
        with ByHand(unchanged) as by_hand:
            by_hand.send(*opened(command), *flight_data(BATCH), cut=cut, end=True).answer()
            assert_unchanged(unchanged)


@pytest.mark.parametrize("reason", [0, 2, 8], ids=["NO_ERROR", "INTERNAL_ERROR", "CANCEL"])
@pytest.mark.parametrize("mode", MODES)
def test_stream_that_is_reset(unchanged, mode, reason):
    """A client that aborts mid-stream; many at once, because this may race with the reader of the stream."""
    for _ in range(4):
        streams = [ByHand(unchanged).send(*opened(commands()[mode])).arrived() for _ in range(20)]
        for by_hand in streams:
            by_hand.socket.sendall(http2.frame(RST_STREAM, reason.to_bytes(4, "big"), 0, 1))
        for by_hand in streams:
            by_hand.arrived()
            by_hand.socket.close()
    assert_unchanged(unchanged)


@pytest.mark.parametrize("mode", MODES)
def test_call_that_is_cancelled(unchanged, mode):
    """As grpcio cancels, and as ADBC does on Ctrl-C."""
    for _ in range(20):
        sent, over = threading.Event(), threading.Event()

        def stalling():
            yield from opened(commands()[mode])
            sent.set()
            over.wait()

        with clients.channel(unchanged, "flight") as channel:
            stub = channel.stream_stream(f"{wire.FLIGHT}/DoPut", lambda b: b, lambda b: b)
            call = stub(stalling(), timeout=clients.DEADLINE)
            assert sent.wait(clients.DEADLINE)
            call.cancel()
            over.set()
            with pytest.raises(grpc.RpcError):
                list(call)
    assert_unchanged(unchanged)


@pytest.mark.parametrize("mode", MODES)
def test_call_whose_deadline_passes(unchanged, mode):
    """The client's own deadline, while it stalls."""
    for _ in range(4):
        over = threading.Event()

        def stalling():
            yield from opened(commands()[mode])
            over.wait()

        with clients.channel(unchanged, "flight") as channel:
            stub = channel.stream_stream(f"{wire.FLIGHT}/DoPut", lambda b: b, lambda b: b)
            with pytest.raises(grpc.RpcError) as told:
                list(stub(stalling(), timeout=0.3))
            over.set()
        assert told.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert_unchanged(unchanged)


@pytest.mark.parametrize("prefix", [b"\0\xff\xff\xff\xff", b"\0\x7f\xff\xff\xff", b"\1\0\0\0\4abcd", b"\7\0\0\0\0"])
def test_message_that_grpc_does_not_know(unchanged, prefix):
    """An announced size of four gigabytes, a compression that was not negotiated, an undefined flag."""
    unchanged.forget_peak()
    before = unchanged.memory()
    for command in commands().values():
        with ByHand(unchanged) as by_hand:
            by_hand.send(*opened(command)).send_bytes(prefix + b"x" * 100).answer()
            assert_unchanged(unchanged)
    assert unchanged.memory("VmHWM") - before < ALLOWED


# Time and memory


@pytest.mark.parametrize("stall", ["after-the-descriptor", "after-the-schema", "after-a-batch"])
def test_client_that_stalls_gets_a_timeout(pod, stall):
    """`runtime.sql.timeout` also limits a whole ingest (docs/flight-and-grpc.md)."""
    pod.yaml(tls=pod.write_pair(), runtime={"sql": {"timeout": "1s"}}, datasets=[data.MEMORY])
    server = pod.serve()
    over = threading.Event()

    def stalling():
        yield from STALLS[stall](wire.ingest("notes"))[0]
        over.wait()

    with clients.channel(server, "flight") as channel:
        stub = channel.stream_stream(f"{wire.FLIGHT}/DoPut", lambda b: b, lambda b: b)
        try:
            with pytest.raises(grpc.RpcError) as told:
                list(stub(stalling(), timeout=15))
        finally:
            over.set()
    assert told.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "1s" in told.value.details(), f"the client gave up first: {told.value.details()}"
    assert clients.rows(server, "SELECT count(*) AS n FROM notes") == [{"n": 0}]


def test_memory_is_released(unchanged):
    """A megabyte or two of valid rows each time, then invalid data."""
    schema, bulk = parts(BULK)
    command = commands()["create"]
    streams = [flight_data(schema, bulk, bulk, bad, command=command) for bad, _ in HOSTILE.values()]

    def all_of_them():
        with wire.Wire(unchanged) as flight:
            for stream in streams:
                assert flight.ask("DoPut", *stream).code not in ("OK", "UNAVAILABLE")

    all_of_them()
    before = unchanged.memory()
    for _ in range(4):
        all_of_them()
    eventually(lambda: unchanged.memory() - before < ALLOWED, "the memory of before", pause=0.2)


def test_memory_of_vanished_clients_is_released(unchanged):
    command = commands()["create"]

    def many():
        gone = [ByHand(unchanged).send(*opened(command), *flight_data(BATCH), cut=100).arrived() for _ in range(40)]
        for by_hand in gone:
            by_hand.vanish()

    many()
    eventually(lambda: connections(unchanged) == 0, "no connection is left")
    before = unchanged.memory()
    for _ in range(5):
        many()
    eventually(lambda: unchanged.memory() - before < ALLOWED, "the memory of before", pause=0.2)
    eventually(lambda: connections(unchanged) == 0, "no connection is left")


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_small_message_does_not_become_a_large_batch(pod, compression):
    """256 MiB of zeros take a few kilobytes (lz4: a megabyte); the memory limits apply to the decompressed size."""
    pod.yaml(tls=pod.write_pair(), runtime={"sql": {"memory_limit": "64MiB"}}, datasets=[data.MEMORY])
    server = pod.serve("--allow-core-dumps")
    clients.rows(server, "SELECT 1 AS x")
    server.forget_peak()
    before = server.memory()
    with wire.Wire(server) as flight:
        told = flight.ask("DoPut", *flight_data(*_bomb(None, compression), command=wire.ingest("fresh", 1, 1)))
    assert told.code in ("RESOURCE_EXHAUSTED", "INVALID_ARGUMENT"), told
    assert clients.sql(server, "SELECT * FROM fresh").status == 400
    grown = server.memory("VmHWM") - before
    assert grown < 160 << 20, f"memory grew by {grown >> 20} MiB"

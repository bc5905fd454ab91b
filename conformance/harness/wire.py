"""Flight and Flight SQL at the wire level: raw messages, and calls whose exact status is visible."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc
import pyarrow as pa

from . import clients
from .certificates import Pair
from .server import Server
from .waiting import DEADLINE

FLIGHT = "/arrow.flight.protocol.FlightService"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
HEALTH = "/grpc.health.v1.Health/Check"
_STREAMED_ANSWERS = {
    "Handshake",
    "DoGet",
    "DoPut",
    "DoExchange",
    "DoAction",
    "ListActions",
    "ListFlights",
    "ServerReflectionInfo",
}
_STREAMED_REQUESTS = {"Handshake", "DoPut", "DoExchange", "ServerReflectionInfo"}


# Messages (protobuf encoding, as far as it is needed)


def varint(number: int) -> bytes:
    out = b""
    while True:
        number, low = number >> 7, number & 0x7F
        out += bytes([low | (0x80 if number else 0)])
        if not number:
            return out


def message(**fields: bytes | str | int | bool) -> bytes:
    """A message with the fields `f1`, `f2` …: numbers as varints, everything else as bytes."""
    out = b""
    for name, value in fields.items():
        number = int(name[1:])
        if isinstance(value, int):
            out += varint(number << 3) + varint(int(value))
        else:
            value = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def read(data: bytes, number: int) -> bytes | int:
    """The first field with this number; fails if the message has none."""
    at = 0

    def number_at() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number_at()
        if key & 7 == 0:
            value = number_at()
        else:
            assert key & 7 == 2, f"unexpected wire type in {data!r}"
            size = number_at()
            value = data[at : at + size]
            at += size
        if key >> 3 == number:
            return value
    raise AssertionError(f"no field {number} in {data!r}")


def sql_any(name: str, **fields) -> bytes:
    """A Flight SQL message in a protobuf Any."""
    return message(f1=f"type.googleapis.com/arrow.flight.protocol.sql.{name}", f2=message(**fields))


def descriptor(command: bytes | str) -> bytes:
    """FlightDescriptor of type CMD."""
    return message(f1=2, f2=command)


def update(text: str) -> bytes:
    return sql_any("CommandStatementUpdate", f1=text)


def ingest(table: str, if_not_exist: int = 2, if_exists: int = 2) -> bytes:
    """By default the table must exist, and rows are appended."""
    return sql_any("CommandStatementIngest", f1=message(f1=if_not_exist, f2=if_exists), f2=table)


def tables() -> bytes:
    return sql_any("CommandGetTables", f5=True)


def put(command: bytes, rows: pa.RecordBatch | None = None) -> list[bytes]:
    """The FlightData of a DoPut: only the descriptor, or also rows."""
    if rows is None:
        return [message(f1=descriptor(command))]
    schema, _ = _parts(rows.schema.serialize())
    head, body = _parts(rows.serialize())
    return [message(f1=descriptor(command), f2=schema), message(f2=head, f1000=body)]


def _parts(encapsulated: pa.Buffer) -> tuple[bytes, bytes]:
    """Metadata and body of an IPC message (continuation, length, metadata, body)."""
    data = encapsulated.to_pybytes()
    size = int.from_bytes(data[4:8], "little")
    return data[8 : 8 + size], data[8 + size :]


# Calls


@dataclass
class Outcome:
    """How a call ended."""

    code: str
    details: str = ""
    answers: list[bytes] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)

    def ok(self) -> Outcome:
        assert self.code == "OK", f"{self.code}: {self.details}"
        return self


class Wire:
    """Calls to one endpoint, with the caller's credentials: a key's metadata, a certificate."""

    def __init__(
        self,
        server: Server,
        *,
        endpoint: str = "flight",
        headers: dict[str, str] | None = None,
        pair: Pair | None = None,
        host: str = "localhost",
    ) -> None:
        self._channel = clients.channel(server, endpoint, pair, host)
        self._metadata = list((headers or {}).items())

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_) -> None:
        self._channel.close()

    def ask(self, method: str, *requests: bytes) -> Outcome:
        """Calls `DoGet` and so on of Flight, or a method by its full path."""
        path = method if method.startswith("/") else f"{FLIGHT}/{method}"
        name = path.rpartition("/")[2]
        kind = ("stream" if name in _STREAMED_REQUESTS else "unary", "stream" if name in _STREAMED_ANSWERS else "unary")
        stub = getattr(self._channel, "_".join(kind))(path, lambda b: b, lambda b: b)
        request = iter(requests) if kind[0] == "stream" else requests[0]
        answers = []
        try:
            if kind[1] == "unary":
                answer, done = stub.with_call(request, timeout=DEADLINE, metadata=self._metadata)
                answers.append(answer)
            else:
                done = stub(request, timeout=DEADLINE, metadata=self._metadata)
                answers.extend(done)
            code, details = grpc.StatusCode.OK, ""
        except grpc.RpcError as error:
            done, code, details = error, error.code(), error.details()
        return Outcome(code.name, details, answers, _text(done.initial_metadata()), _text(done.trailing_metadata()))

    def query(self, command: bytes | str) -> Outcome:
        """GetFlightInfo, then DoGet of its ticket; returns the outcome of the first that fails."""
        info = self.ask("GetFlightInfo", descriptor(command))
        return info if info.code != "OK" else self.ask("DoGet", ticket_of(info))

    def put(self, command: bytes, rows: pa.RecordBatch | None = None) -> Outcome:
        return self.ask("DoPut", *put(command, rows))

    def act(self, name: str, body: bytes) -> Outcome:
        return self.ask("DoAction", message(f1=name, f2=body))

    def prepare(self, text: str) -> Outcome:
        return self.act("CreatePreparedStatement", sql_any("ActionCreatePreparedStatementRequest", f1=text))


def ticket_of(info: Outcome) -> bytes:
    """The Ticket message of a FlightInfo's first endpoint."""
    return read(read(info.answers[0], 3), 1)


def handle_of(prepared: Outcome) -> bytes:
    """The handle that CreatePreparedStatement returned."""
    return read(read(read(prepared.ok().answers[0], 1), 2), 1)


def _text(metadata) -> dict[str, str]:
    return {k: v.decode("utf-8", "replace") if isinstance(v, bytes) else v for k, v in metadata or ()}

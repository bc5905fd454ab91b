"""Just enough of HTTP/2's framing (RFC 9113 §4) to inspect single frames."""

from __future__ import annotations

import socket
from dataclasses import dataclass

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, GOAWAY = 0x4, 0x7


@dataclass
class Frame:
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def goaway(self) -> tuple[int, str]:
        """A GOAWAY's error code and debug text."""
        return int.from_bytes(self.payload[4:8], "big"), self.payload[8:].decode("utf-8", "replace")


def frame(kind: int, payload: bytes = b"", flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def read_frames(connection: socket.socket, until: int | None = None) -> list[Frame]:
    """Reads frames until the peer closes, or until one of the given kind arrives."""
    frames: list[Frame] = []
    while (head := read_exactly(connection, 9)) is not None:
        body = read_exactly(connection, int.from_bytes(head[:3], "big"))
        assert body is not None, "the peer closed within a frame"
        frames.append(Frame(head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, body))
        if frames[-1].kind == until:
            break
    return frames


def read_exactly(connection: socket.socket, size: int) -> bytes | None:
    """`size` bytes, or None if the peer closed before the first."""
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            assert not data, f"the peer closed after {len(data)} of {size} bytes"
            return None
        data += part
    return data


def read_to_end(connection: socket.socket) -> bytes:
    """Reads until the peer closes; a reset counts as a close."""
    data = b""
    try:
        while part := connection.recv(65536):
            data += part
    except ConnectionError:
        pass
    return data

"""The PROXY protocol, version 2: its header, and a forwarder that sends one at the start of every connection."""

from __future__ import annotations

import ipaddress
import socket
import threading

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def header(source: str | None, port: int = 40_000, more: bytes = b"") -> bytes:
    """The header that a proxy sends for a client at `source`, or for itself without one (LOCAL). `more` are TLVs."""
    if source is None:
        return SIGNATURE + b"\x20\x00" + len(more).to_bytes(2, "big") + more
    address = ipaddress.ip_address(source)
    target = ipaddress.ip_address("::1" if address.version == 6 else "127.0.0.1")
    ports = port.to_bytes(2, "big") + (443).to_bytes(2, "big")
    body = address.packed + target.packed + ports + more
    return SIGNATURE + (b"\x21\x21" if address.version == 6 else b"\x21\x11") + len(body).to_bytes(2, "big") + body


class Forwarder:
    """Listens on a free local port and forwards every connection, preceded by its header."""

    def __init__(self, port: int, source: str) -> None:
        self._target, self._first = port, header(source)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            server.sendall(self._first)
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=_pump, args=(one, other), daemon=True).start()


def _pump(one: socket.socket, other: socket.socket) -> None:
    try:
        while part := one.recv(65536):
            other.sendall(part)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        one.close()
        other.close()

"""A server that the test controls: TLS by the test's authority, a function that responds, and a list of the requests.

It replaces a store, or sits in front of a real one to make it slow, busy, endless or unresponsive.
"""

from __future__ import annotations

import http.client
import http.server
import ssl
import tempfile
import threading
from urllib.parse import urlsplit

from .certificates import Pair
from .waiting import DEADLINE


class Asked(http.server.BaseHTTPRequestHandler):
    """One request. `body` is read; `answer` sends a complete response."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (OSError, ssl.SSLError):  # some tests disconnect on purpose
            self.close_connection = True

    def _any(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.front.requests.append((self.command, self.path))
        self.server.front.behave(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_LIST = do_DELETE = _any

    def answer(self, status: int, body: bytes, content_type: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def begin_chunks(self, status: int = 200, content_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, part: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.flush()

    def log_message(self, *_):
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    front: Front

    def handle_error(self, request, client_address):
        pass  # the client aborted the handshake


class Front:
    """Listens on a free port of 127.0.0.1 until closed; `behave` may be changed at any time."""

    def __init__(self, behave, pair: Pair | None = None) -> None:
        self.behave = behave
        self.requests: list[tuple[str, str]] = []
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), Asked)
        self._server.front = self
        self.port = self._server.server_address[1]
        self.url = f"{'https' if pair else 'http'}://localhost:{self.port}"
        if pair:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                file.write(pair.certificate + pair.key_text)
                file.flush()
                context.load_cert_chain(file.name)
            # The handshake runs in the request's thread, not in the accept loop.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


# Behaviours


def slow(asked: Asked) -> None:
    """Reads the request and never responds."""
    asked.server.front.closing.wait(DEADLINE)
    asked.close_connection = True


def endless(asked: Asked) -> None:
    """Sends a response without an end."""
    asked.begin_chunks()
    part = b'{"x": "' + b"x" * 65536
    while not asked.server.front.closing.is_set():
        asked.chunk(part)


def nonsense(asked: Asked) -> None:
    """Sends something unrelated, such as a login page."""
    asked.answer(200, b"<html>please log in</html>", "text/html")


def pass_on(upstream: str, context: ssl.SSLContext | None = None):
    """Forwards every request to `upstream`, and its response back."""
    target = urlsplit(upstream)

    def behave(asked: Asked) -> None:
        kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
        more = {"context": context} if context else {}
        connection = kind(target.hostname, target.port, timeout=DEADLINE, **more)
        try:
            headers = {k: v for k, v in asked.headers.items() if k.lower() not in ("connection", "content-length")}
            connection.request(asked.command, asked.path, asked.body or None, headers)
            answer = connection.getresponse()
            asked.answer(answer.status, answer.read(), answer.headers.get("Content-Type", "application/json"))
        finally:
            connection.close()

    return behave


def refused_port() -> int:
    """A local port that is not in use."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

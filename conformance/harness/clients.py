"""Third-party clients: curl, openssl, pyarrow, ADBC and grpcio, each configured for one server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from adbc_driver_flightsql import DatabaseOptions
from adbc_driver_flightsql import dbapi as flightsql
from pyarrow import flight

from .certificates import Authority, Pair
from .server import Server
from .waiting import DEADLINE, eventually


def tool(name: str) -> str:
    """The path of a program that apt installs; a missing program fails the test."""
    path = shutil.which(name)
    assert path, f"{name} is not installed, and this suite needs it: apt-get install {name}"
    return path


def optional_tool(name: str) -> str:
    """The path of a program that is not available on every machine; a missing program skips the test, with the
    reason.
    """
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if not path:
        pytest.skip(f"{name} is not installed: {os.environ.get('SPICED_PROGRAMS_MISSING', 'cargo xtask clients installs it')}")
    return path


# curl


@dataclass
class Answer:
    """The result of curl: its exit code, and the last response, if any."""

    exit: int
    status: int
    version: str
    headers: dict[str, str]
    body: bytes = field(repr=False)  # it may be large
    trouble: str

    def __str__(self) -> str:
        return f"{self!r}, body of {len(self.body)} bytes: {self.body[:1000]!r}"

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").split(";")[0].strip().lower()

    def json(self):
        return json.loads(self.body)

    def ok(self) -> Answer:
        assert self.exit == 0 and self.status == 200, f"{self}"
        return self


def curl(url: str, *args: str, ca: str | None = None, body: bytes | None = None, deadline: float = DEADLINE) -> Answer:
    """Sends one request; `body` is curl's standard input, which `@-` reads."""
    with tempfile.NamedTemporaryFile("rb") as head:
        command = curl_command(url, *args, ca=ca, deadline=deadline) + ["--dump-header", head.name]
        done = subprocess.run(command, input=body or b"", capture_output=True, timeout=deadline + 5)
        blocks = [b for b in head.read().decode("latin-1").replace("\r", "").split("\n\n") if b.startswith("HTTP/")]
    status, version, headers = 0, "", {}
    if blocks:
        first, *rest = blocks[-1].split("\n")
        version, status = first.split()[0], int(first.split()[1])
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in rest)}
    return Answer(done.returncode, status, version, headers, done.stdout, done.stderr.decode())


def curl_command(url: str, *args: str, ca: str | None = None, deadline: float = DEADLINE) -> list[str]:
    """The command line, for callers that read the response as it arrives."""
    trust = ["--cacert", ca] if ca else []
    return [tool("curl"), "-q", "-sS", "--noproxy", "*", "--max-time", str(deadline), *trust, *args, url]


def get(server: Server, path: str, *args: str, endpoint: str = "http", host: str = "localhost", **more) -> Answer:
    return curl(server.url(path, endpoint, host), *args, ca=server.ca, **more)


def statuses(server: Server, requests: list[tuple[str, tuple[str, ...]]]) -> list[int]:
    """The statuses of several requests by one curl, each given as a path and its arguments; 0 if there was no
    response.
    """
    words: list[str] = []
    for path, args in requests:
        words += ["--next"] if words else []
        words += curl_command(server.url(path), *args, "-o", os.devnull, "-w", "%{http_code}\n", ca=server.ca)[1:]
    done = subprocess.run([tool("curl"), *words], capture_output=True, timeout=DEADLINE * len(requests))
    return [int(line) for line in done.stdout.split()]


def sql(server: Server, text: str, *args: str, accept: str | None = None, **more) -> Answer:
    """`POST /v1/sql` with the text unchanged."""
    extra = ["-H", f"Accept: {accept}"] if accept else []
    return get(server, "/v1/sql", "--data-binary", "@-", *extra, *args, body=text.encode(), **more)


def as_client(authority: Authority, folder: Path) -> list[str]:
    """curl's options for a client certificate of this authority."""
    return showing(authority.issue(names=(), common_name="a client", client=True), folder)


def showing(pair: Pair, folder: Path) -> list[str]:
    """curl's options for this client certificate; those of `openssl s_client` have one dash less."""
    stem = folder / pair.fingerprint[:16]
    stem.with_suffix(".pem").write_text(pair.certificate)
    stem.with_suffix(".key").write_text(pair.key_text)
    return ["--cert", f"{stem}.pem", "--key", f"{stem}.key"]


def rows(server: Server, text: str, **more) -> list[dict]:
    """The rows of a query, over HTTP."""
    return sql(server, text, **more).ok().json()


# openssl


def s_client(port: int, *args: str, send: bytes = b"", deadline: float = DEADLINE) -> str:
    """Runs `openssl s_client` and returns all output."""
    done = subprocess.run(
        [tool("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", *args],
        input=send,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=deadline,
    )
    return done.stdout.decode("utf-8", "replace")


def save_session(server: Server, endpoint: str, version: str, path: Path, *args: str) -> None:
    """Opens a first connection and keeps it open until openssl has saved its session: a TLS 1.3 ticket arrives after
    the handshake.

    The file is the event, because openssl may buffer what it prints about a ticket.
    """
    with open(path.with_suffix(".log"), "wb") as log:
        process = subprocess.Popen(
            [
                tool("openssl"),
                "s_client",
                *("-connect", f"127.0.0.1:{server.port(endpoint)}", "-servername", "localhost"),
                *(f"-{version}", "-alpn", "h2", "-sess_out", str(path), *args),
            ],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: "END SSL SESSION" in path.read_text(), f"a session of the {endpoint} endpoint")
        process.stdin.close()
        process.wait(DEADLINE)
    finally:
        process.kill()
        process.wait()


def openssl(*args: str, cwd: Path | None = None, send: bytes = b"") -> bytes:
    """Runs any other openssl command; if it fails, the test's own set-up is wrong."""
    done = subprocess.run([tool("openssl"), *args], cwd=cwd, input=send, capture_output=True, timeout=DEADLINE)
    assert done.returncode == 0, f"openssl {' '.join(args)}: {done.stderr.decode()}"
    return done.stdout


# TLS and sockets


def context(*, alpn=(), version: ssl.TLSVersion | None = None, pair: Pair | None = None) -> ssl.SSLContext:
    """A context that accepts any certificate; `pair` is the client's own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if pair is not None:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(pair.certificate + pair.key_text)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def handshake(
    port: int,
    *,
    alpn=("h2", "http/1.1"),
    version: ssl.TLSVersion | None = None,
    timeout: float = DEADLINE,
    pair: Pair | None = None,
    before: bytes = b"",
) -> ssl.SSLSocket:
    """A TLS connection that accepts any certificate, for inspecting it. `before` is sent first, in plain text."""
    raw = socket.create_connection(("127.0.0.1", port), timeout=timeout)
    try:
        raw.sendall(before)
        return context(alpn=alpn, version=version, pair=pair).wrap_socket(raw, server_hostname="localhost")
    except BaseException:
        raw.close()
        raise


def presented(server: Server, endpoint: str = "http") -> bytes:
    """The leaf that the endpoint presents, DER."""
    with handshake(server.port(endpoint)) as connection:
        return connection.getpeercert(binary_form=True)


def assert_serves(server: Server, pair: Pair, *args: str) -> None:
    """Every endpoint presents this certificate, and curl (with `args`), which trusts the test's authority, gets a
    response.
    """
    for endpoint in ("http", "flight", "grpc"):
        assert server.tls(endpoint), f"the {endpoint} endpoint uses plain text"
        assert presented(server, endpoint) == pair.der, f"a different certificate on the {endpoint} endpoint"
    assert sql(server, "SELECT 1 AS x", *args).ok().json() == [{"x": 1}]


# Flight


def flight_client(
    server: Server, *, ca: str | bytes | None = None, host: str = "localhost", **more
) -> flight.FlightClient:
    """pyarrow's client, with TLS if the endpoint uses it."""
    port = server.port("flight")
    if not server.tls("flight"):
        return flight.FlightClient(f"grpc://{host}:{port}", **more)
    if not more.get("disable_server_verification"):
        more["tls_root_certs"] = ca or Path(server.ca).read_bytes()
    return flight.FlightClient(f"grpc+tls://{host}:{port}", **more)


# What pyarrow raises for INVALID_ARGUMENT, UNAUTHENTICATED, PERMISSION_DENIED and NOT_FOUND.
REFUSALS = (pa.ArrowInvalid, pa.ArrowNotImplementedError, flight.FlightUnauthenticatedError, flight.FlightUnauthorizedError, KeyError)


def command(text: str) -> flight.FlightDescriptor:
    """Raw SQL as the descriptor's command."""
    return flight.FlightDescriptor.for_command(text.encode())


def call(seconds: float = DEADLINE, headers: list[tuple[bytes, bytes]] | None = None) -> flight.FlightCallOptions:
    return flight.FlightCallOptions(timeout=seconds, headers=headers)


def query(client: flight.FlightClient, text: str, options: flight.FlightCallOptions | None = None):
    """GetFlightInfo with raw SQL as the command, then DoGet of every endpoint's ticket."""
    options = options or call()
    info = client.get_flight_info(command(text), options)
    assert len(info.endpoints) == 1, f"{len(info.endpoints)} endpoints"
    return client.do_get(info.endpoints[0].ticket, options).read_all()


def adbc(server: Server, **more):
    """A DB-API connection over ADBC's Flight SQL driver.

    Connecting reads the server's SqlInfo. A response with a wrong schema makes the driver (Go, in this process)
    panic, after which every later ADBC test fails with "driver is in unknown state": only the first failure matters.
    """
    pem = Path(server.ca).read_text() if server.tls("flight") else None
    return adbc_at(f"localhost:{server.port('flight')}", pem, **more)


def adbc_at(address: str, pem: str | None, autocommit: bool = True, **more):
    """The same at any address; `pem` are the trusted CAs, without which the connection uses plain text."""
    kinds = (DatabaseOptions.TIMEOUT_QUERY, DatabaseOptions.TIMEOUT_UPDATE, DatabaseOptions.TIMEOUT_FETCH)
    options = {kind.value: str(DEADLINE) for kind in kinds}
    if pem:
        options[DatabaseOptions.TLS_ROOT_CERTS.value] = pem
    scheme = "grpc+tls" if pem else "grpc"
    return flightsql.connect(f"{scheme}://{address}", db_kwargs={**options, **more}, autocommit=autocommit)


# gRPC


def channel(server: Server, endpoint: str = "grpc", pair: Pair | None = None, host: str = "localhost") -> grpc.Channel:
    """grpcio's channel, with TLS if the endpoint uses it; `pair` is the client's certificate."""
    pem = Path(server.ca).read_bytes() if server.tls(endpoint) else None
    return channel_at(f"{host}:{server.port(endpoint)}", pem, pair)


def channel_at(target: str, pem: bytes | None, pair: Pair | None = None) -> grpc.Channel:
    """The same to any address; `pem` are the trusted CAs, without which the connection uses plain text."""
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    if pem is None:
        return grpc.insecure_channel(target, options)
    shown = (pair.key_text.encode(), pair.certificate.encode()) if pair else ()
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(pem, *shown), options)

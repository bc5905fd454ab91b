"""Callers with a key, a certificate, both or neither, and the outcome of a call in one word, for every client."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import adbc_driver_manager
import pyarrow as pa
from adbc_driver_flightsql import DatabaseOptions
from adbc_driver_manager import AdbcStatusCode
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from pyarrow import flight

from . import clients
from .certificates import Pair
from .drivers.python import unavailable
from .server import Server
from .wire import Wire

# Cheap parameters, because tests check keys often and the cost itself is not under test.
_ARGON2 = {"length": 32, "iterations": 1, "lanes": 1, "memory_cost": 1024}


def sha256(key: str) -> str:
    """The key's hash in the form of a pod."""
    return "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def argon2id(key: str, **costs: int) -> str:
    return "argon2id:" + Argon2id(salt=b"conformance salt", **{**_ARGON2, **costs}).derive_phc_encoded(key.encode())


def basic(key: str, user: str = "anybody") -> str:
    return "Basic " + base64.b64encode(f"{user}:{key}".encode()).decode()


@dataclass(frozen=True)
class Caller:
    """The credentials of a caller. `header` is how the key is sent: `x-api-key`, `bearer` or (not over HTTP)
    `basic`.
    """

    key: str | None = None
    pair: Pair | None = None
    header: str = "bearer"

    def headers(self) -> dict[str, str]:
        """As HTTP headers and gRPC metadata."""
        if self.key is None:
            return {}
        if self.header == "x-api-key":
            return {"x-api-key": self.key}
        return {"authorization": basic(self.key) if self.header == "basic" else f"Bearer {self.key}"}

    # The clients, each with all credentials

    def curl(self, server: Server, path: str, *args: str, **more) -> clients.Answer:
        return clients.get(server, path, *self.curl_args(server), *args, **more)

    def curl_args(self, server: Server) -> list[str]:
        """The certificate is written next to the CA that the server's clients trust."""
        words = [word for name, value in self.headers().items() for word in ("-H", f"{name}: {value}")]
        return words + (clients.showing(self.pair, Path(server.ca).parent) if self.pair else [])

    def flight(self, server: Server, **more) -> flight.FlightClient:
        if self.pair:
            more |= {"cert_chain": self.pair.certificate, "private_key": self.pair.key_text}
        return clients.flight_client(server, **more)

    def call(self) -> flight.FlightCallOptions:
        return clients.call(headers=[(k.encode(), v.encode()) for k, v in self.headers().items()])

    def adbc(self, server: Server, **more):
        options = {}
        if self.pair:
            options[DatabaseOptions.MTLS_CERT_CHAIN.value] = self.pair.certificate
            options[DatabaseOptions.MTLS_PRIVATE_KEY.value] = self.pair.key_text
        for name, value in self.headers().items():
            prefix = DatabaseOptions.RPC_CALL_HEADER_PREFIX.value
            options[DatabaseOptions.AUTHORIZATION_HEADER.value if name == "authorization" else prefix + name] = value
        return clients.adbc(server, **options, **more)

    def wire(self, server: Server, endpoint: str = "flight", host: str = "localhost", **headers: str) -> Wire:
        return Wire(server, endpoint=endpoint, headers={**self.headers(), **headers}, pair=self.pair, host=host)


NOBODY = Caller()


def ask(server: Server, who: Caller | Pair | None, text: str = "SELECT 1 AS x") -> str:
    """Sends a statement over HTTP and returns the outcome in one word. A bare certificate is presented without a key.
    """
    caller = who if isinstance(who, Caller) else Caller(pair=who)
    return of_http(caller.curl(server, "/v1/sql", "-d", text))


def role(server: Server, who: Caller | Pair | None) -> str:
    """The rights of a caller: `rw`, `ro`, or the code of its refusal. The server needs the data set `notes`."""
    found = tuple(ask(server, who, text) for text in ("SELECT 1 AS x", "INSERT INTO notes SELECT 1, 'x' WHERE false"))
    return {("200", "200"): "rw", ("200", "403"): "ro"}.get(found, found[0])


# The outcome in one word


def of_http(answer: clients.Answer) -> str:
    """The status, or UNAVAILABLE if there was no handshake."""
    return str(answer.status) if answer.exit == 0 else "UNAVAILABLE"


_PYARROW = [
    (flight.FlightUnauthenticatedError, "UNAUTHENTICATED"),
    (flight.FlightUnauthorizedError, "PERMISSION_DENIED"),
    (flight.FlightUnavailableError, "UNAVAILABLE"),
    (pa.ArrowNotImplementedError, "UNIMPLEMENTED"),
    (pa.ArrowInvalid, "INVALID_ARGUMENT"),
    (KeyError, "NOT_FOUND"),
]
_DETAILS = {
    "Unauthenticated": "UNAUTHENTICATED",
    "Unauthorized": "PERMISSION_DENIED",
    "Unavailable": "UNAVAILABLE",
}
_ADBC = {
    AdbcStatusCode.UNAUTHENTICATED: "UNAUTHENTICATED",
    AdbcStatusCode.UNAUTHORIZED: "PERMISSION_DENIED",
    AdbcStatusCode.NOT_IMPLEMENTED: "UNIMPLEMENTED",
    AdbcStatusCode.INVALID_ARGUMENT: "INVALID_ARGUMENT",
    AdbcStatusCode.NOT_FOUND: "NOT_FOUND",
}


def code(ask) -> str:
    """The gRPC code that a call by pyarrow or ADBC ends with."""
    try:
        ask()
    except adbc_driver_manager.Error as error:
        if error.status_code in _ADBC:
            return _ADBC[error.status_code]
        return "UNAVAILABLE" if unavailable(error) else f"{error!r}"
    except (pa.ArrowException, flight.FlightError, KeyError, OSError) as error:
        # pyarrow's get_schema raises an OSError that contains the kind as text.
        detail = re.search(r"Detail: (\w+)$", str(error)) if type(error) is OSError else None
        if detail:
            return _DETAILS.get(detail[1], f"{error!r}")
        return next((name for kind, name in _PYARROW if isinstance(error, kind)), f"{error!r}")
    return "OK"


def told(error: Exception) -> str:
    """The code that a client's message contains, as the SDKs print it."""
    text = str(error)
    for name, words in {
        "UNAUTHENTICATED": r"unauthenticated|\b401\b|valid authentication credentials",
        "PERMISSION_DENIED": r"permission.?denied|unauthorized|\b403\b|does not have permission",
        "RESOURCE_EXHAUSTED": r"resource.?exhausted|\b429\b",
    }.items():
        if re.search(words, text, re.IGNORECASE):
            return name
    return text

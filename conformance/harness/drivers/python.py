"""Clients that are Python packages: pyarrow, ADBC, polars and pandas over ADBC, flightsql-dbapi."""

from __future__ import annotations

import contextlib
import re

import adbc_driver_manager
import pyarrow as pa
from adbc_driver_flightsql import DatabaseOptions
from pyarrow import flight

from .. import clients
from .driver import At, Driver, Refused, Untrusted

# The messages with which gRPC's C++ core and grpc-go report a failed connection.
_NO_CONNECTION = re.compile(
    r"handshake|certificate|failed to connect|connection (error|reset|closed|refused)|first record|EOF|goaway|http2 frame",
    re.IGNORECASE,
)


class PyArrow(Driver):
    name = "pyarrow"
    lacks = {"parameters": "its client has no prepared statements"}
    def rows(self, at: At, sql: str, parameters: tuple = ()) -> list[dict]:
        return self._table(at, sql).to_pylist()

    def count(self, at: At, sql: str) -> int:
        return self._table(at, sql).num_rows

    def _table(self, at: At, sql: str) -> pa.Table:
        if at.ca:
            client = flight.connect(f"grpc+tls://{at.address('flight')}", tls_root_certs=at.pem)
        else:
            client = flight.connect(f"grpc://{at.address('flight')}")
        headers = [(b"authorization", f"Bearer {at.key}".encode())] if at.key else None
        with client:
            try:
                return clients.query(client, sql, clients.call(headers=headers))
            except flight.FlightUnavailableError as error:
                raise Untrusted(str(error)) from error
            except clients.REFUSALS as error:
                raise Refused(str(error)) from error


class Adbc(Driver):
    name = "ADBC (Python)"
    refuses = {"no SAN": "Go takes no certificate without a subject alternative name"}

    def connect(self, at: At):
        key = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {at.key}"} if at.key else {}
        return clients.adbc_at(at.address("flight"), at.pem if at.ca else None, **key)

    def rows(self, at: At, sql: str, parameters: tuple = ()) -> list[dict]:
        return self.asked(at, sql, parameters).to_pylist()

    def count(self, at: At, sql: str) -> int:
        return self.asked(at, sql, ()).num_rows

    def asked(self, at: At, sql: str, parameters: tuple) -> pa.Table:
        try:
            with self.connect(at) as connection:
                return self.ask(connection, sql, parameters)
        except adbc_driver_manager.Error as error:
            raise (Untrusted if unavailable(error) else Refused)(str(error)) from error

    def ask(self, connection, sql: str, parameters: tuple) -> pa.Table:
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters or None)
            return cursor.fetch_arrow_table()


class Polars(Adbc):
    name = "polars (ADBC)"

    def ask(self, connection, sql: str, parameters: tuple) -> pa.Table:
        import polars

        options = {"parameters": parameters} if parameters else None
        return polars.read_database(sql, connection, execute_options=options).to_arrow()


class Pandas(Adbc):
    name = "pandas (ADBC)"
    lacks = {"parameters": "pandas does not pass `params` on to ADBC; a cursor's `execute` takes them"}

    def ask(self, connection, sql: str, parameters: tuple) -> pa.Table:
        import pandas

        try:
            frame = pandas.read_sql(sql, connection, dtype_backend="pyarrow")
        except pandas.errors.DatabaseError as error:
            raise error.__cause__ from None
        return pa.Table.from_pandas(frame, preserve_index=False)


class FlightSqlDbapi(Driver):
    name = "flightsql-dbapi"
    large_rows = 20_000  # it creates Python objects for every value

    def rows(self, at: At, sql: str, parameters: tuple = ()) -> list[dict]:
        with self.connected(at) as connection, connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            names = [column["name"] if isinstance(column, dict) else column[0] for column in cursor.description]
            return [dict(zip(names, row)) for row in cursor.fetchall()]

    @contextlib.contextmanager
    def connected(self, at: At):
        """A connection; errors inside are reported as for every client."""
        import flightsql

        trust = {"tls_root_certs": at.pem} if at.ca else {"insecure": True}
        client = flightsql.FlightSQLClient(at.host, at.port("flight"), token=at.key, **trust)
        try:
            with flightsql.connect(client) as connection:
                yield connection
        except flight.FlightUnavailableError as error:
            raise Untrusted(str(error)) from error
        except clients.REFUSALS as error:
            raise Refused(str(error)) from error
        finally:
            client.close()


def unavailable(error: adbc_driver_manager.Error) -> bool:
    return "Unavailable" in str(error) or bool(_NO_CONNECTION.search(str(error)))

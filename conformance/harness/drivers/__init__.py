"""Every client of the table in docs/clients.md, with the same interface: one module for each kind, one class for each
client."""

from .driver import At, Driver, Refused, Untrusted
from .programs import Curl, FlightSqlClient, Go, SpiceJs, SpiceJsHttp, SpiceRust
from .python import Adbc, FlightSqlDbapi, Pandas, Polars, PyArrow

DRIVERS: list[Driver] = [
    Curl(),
    PyArrow(),
    Adbc(),
    Polars(),
    Pandas(),
    FlightSqlDbapi(),
    FlightSqlClient(),
    SpiceRust(),
    SpiceJs(),
    SpiceJsHttp(),
    Go(),
]

__all__ = ["At", "DRIVERS", "Driver", "Refused", "Untrusted"]

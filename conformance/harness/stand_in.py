"""A third-party Flight server: pyarrow's, which returns one row for every statement."""

from __future__ import annotations

import pyarrow as pa
from pyarrow import flight

ROWS = pa.table({"x": pa.array([1], pa.int64())})


class _Headers(flight.ServerMiddlewareFactory):
    def __init__(self) -> None:
        self.last: dict[str, list[str]] = {}

    def start_call(self, info, headers):
        self.last = headers


class StandIn(flight.FlightServerBase):
    """With `key` it refuses any other key; with `endless` it repeats its row forever. `actions` are the received
    actions.
    """

    def __init__(self, location: str, key: str | None = None, endless: bool = False, **more) -> None:
        self.headers = _Headers()
        self.key = key
        self.endless = endless
        self.actions: list[str] = []
        super().__init__(location, middleware={"headers": self.headers}, **more)

    def get_flight_info(self, context, descriptor):
        if self.key is not None and self.headers.last.get("authorization") != [f"Bearer {self.key}"]:
            raise flight.FlightUnauthenticatedError("who are you?")
        return flight.FlightInfo(ROWS.schema, descriptor, [flight.FlightEndpoint(b"rows", [])], -1, -1)

    def do_get(self, context, ticket):
        if not self.endless:
            return flight.RecordBatchStream(ROWS)
        return flight.GeneratorStream(ROWS.schema, iter(lambda: ROWS.to_batches()[0], None))

    def do_action(self, context, action):
        self.actions.append(action.type)
        return iter(())

"""The peer of spiced's Flight endpoint: a pyarrow Flight server with the table that a spiced serves.

Reads the table from spiced once, then serves it in the clear and over TLS, in batches of as many rows as the ticket
says, and keeps the table that it is sent last. Prints `serving PLAIN_PORT TLS_PORT`; ends with its standard input.
"""

import argparse
import sys
import threading
from pathlib import Path

import pyarrow
from pyarrow import flight


class Server(flight.FlightServerBase):
    """Answers each ticket, a number of rows, with the whole table in batches of so many."""

    def __init__(self, location: str, tables: dict[bytes, pyarrow.Table], **tls) -> None:
        super().__init__(location, **tls)
        self.tables = tables

    def get_flight_info(self, context, descriptor):
        schema = self.tables[descriptor.command].schema
        endpoint = flight.FlightEndpoint(flight.Ticket(descriptor.command), [])
        return flight.FlightInfo(schema, descriptor, [endpoint], -1, -1)

    def do_put(self, context, descriptor, reader, writer):
        self.tables[b"put"] = reader.read_all()

    def do_get(self, context, ticket):
        return flight.RecordBatchStream(self.tables[ticket.ticket])


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--source", required=True, help="where spiced's Flight endpoint is")
    arguments.add_argument("--query", required=True)
    arguments.add_argument("--rows", nargs="+", required=True, help="rows of a batch")
    arguments.add_argument("--certificate", type=Path, required=True)
    arguments.add_argument("--key", type=Path, required=True)
    said = arguments.parse_args()

    with flight.connect(said.source) as source:
        info = source.get_flight_info(flight.FlightDescriptor.for_command(said.query))
        table = source.do_get(info.endpoints[0].ticket).read_all().combine_chunks()
    tables = {
        rows.encode(): pyarrow.Table.from_batches(table.to_batches(max_chunksize=int(rows))) for rows in said.rows
    }

    pair = (said.certificate.read_bytes(), said.key.read_bytes())
    plain = Server("grpc://127.0.0.1:0", tables)
    tls = Server("grpc+tls://127.0.0.1:0", tables, tls_certificates=[pair])
    for server in (plain, tls):
        threading.Thread(target=server.serve, daemon=True).start()
    print("pyarrow", pyarrow.__version__)
    print("serving", plain.port, tls.port, flush=True)
    sys.stdin.read()


main()

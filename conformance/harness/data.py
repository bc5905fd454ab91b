"""Data sets in the formats that a `file:` source reads."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, parquet

PEOPLE = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "name": ["Ada", "Grace", "Edsger"]})

MEMORY = {
    "from": "memory:",
    "name": "notes",
    "access": "read_write",
    "columns": [{"name": "id", "type": "bigint"}, {"name": "name", "type": "varchar"}],
}


def write(table: pa.Table, path: Path) -> None:
    """By the path's suffix: .parquet, .csv or .ndjson."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    elif path.suffix == ".csv":
        csv.write_csv(table, path)
    else:
        assert path.suffix == ".ndjson"
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))

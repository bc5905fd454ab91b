"""What the doors cost: TPC-H through spiced over TLS (ADBC, Flight SQL) beside DataFusion alone, in one run, by turns.

`cargo xtask bench tpch` builds spiced as it is shipped and runs this: PYTHON bench/peers/tpch.py SPICED [ROUNDS]
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "conformance"))

import datafusion

from harness import clients, tpch
from harness.pod import Pod
from harness.waiting import eventually


def alone() -> datafusion.SessionContext:
    """The engine in this process, set as spiced sets it: no view types."""
    config = datafusion.SessionConfig({"datafusion.execution.parquet.schema_force_view_types": "false"})
    context = datafusion.SessionContext(config)
    for table in tpch.TABLES:
        context.register_parquet(table, str(tpch.file(table)))
    return context


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main(spiced: str, rounds: int) -> None:
    os.environ["SPICED_BIN"] = spiced
    pod = Pod(Path(tempfile.mkdtemp()))
    pod.yaml(tls=pod.write_pair(), datasets=[{"from": f"file:{tpch.file(table)}", "name": table} for table in tpch.TABLES])
    server = pod.serve()
    eventually(lambda: clients.get(server, "/v1/ready").status == 200, "every table is loaded")
    context, sums, ratios = alone(), [0.0, 0.0], []
    print(f"scale {tpch.SCALE}, medians of {rounds} rounds, milliseconds\nquery  alone  spiced  ratio")
    with clients.adbc(server) as connection, connection.cursor() as cursor:

        def through(text: str) -> None:
            cursor.execute(text)
            cursor.fetch_arrow_table()

        for number in tpch.QUERIES:
            text, took = tpch.query(number), ([], [])
            through(text), context.sql(text).to_arrow_table()  # warm
            for _ in range(rounds):
                took[0].append(timed(lambda: context.sql(text).to_arrow_table()))
                took[1].append(timed(lambda: through(text)))
            inner, outer = (statistics.median(all_of_it) * 1e3 for all_of_it in took)
            sums[0], sums[1] = sums[0] + inner, sums[1] + outer
            ratios.append(outer / inner)
            print(f"{number:5}  {inner:5.1f}  {outer:6.1f}  {outer / inner:5.2f}")
    print(f"  all  {sums[0]:5.0f}  {sums[1]:6.0f}  {sums[1] / sums[0]:5.2f}   (median of the ratios {statistics.median(ratios):.2f})")
    pod.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5)

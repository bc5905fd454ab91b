"""What the endpoints cost: TPC-H through spiced over TLS (ADBC, Flight SQL) and DataFusion alone, in one run, in turns.

`just bench tpch [--rounds N] [--page FILE]` builds spiced as it is shipped and runs this.
"""

from __future__ import annotations

import argparse
import datetime
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "conformance"))

import datafusion

from harness import clients, tpch
from harness.pod import Pod
from harness.waiting import eventually

PAGE = """# TPC-H over Flight SQL

What an endpoint costs on top of its engine when the engine has work to do:

```
just bench tpch --write
```

Measured {date} on {cores} cores: {version} and Python's datafusion {datafusion}; scale {scale}, {rounds} rounds, in each of which
both take turns.

| column | meaning |
| --- | --- |
| alone | the datafusion library inside the benchmark's process, over the same Parquet files and with the settings of `spiced` |
| over Flight SQL | ADBC's Flight SQL driver, over TLS, up to the last row as an Arrow table |
| CPU | user and system time of the server's process, or of the benchmark's for DataFusion alone; without what the client spends on reading the result |

Times are the medians of the rounds; CPU is their mean.

{table}

Both sides run the same engine. They differ in how it is built (allocator, compiler flags, a minor version) and in what
the endpoint does: plan and schema are made once for `GetFlightInfo` and `DoGet` together, and the results here have at
most a few thousand rows.
"""


@dataclass
class Taken:
    """One query, of one side."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def take(self, work: Callable[[], object], cpu: Callable[[], float]) -> None:
        before, start = cpu(), time.perf_counter()
        work()
        self.seconds.append(time.perf_counter() - start)
        self.cpu.append(cpu() - before)


def alone() -> datafusion.SessionContext:
    """The engine in this process, set as spiced sets it: no view types."""
    config = datafusion.SessionConfig({"datafusion.execution.parquet.schema_force_view_types": "false"})
    context = datafusion.SessionContext(config)
    for table in tpch.TABLES:
        context.register_parquet(table, str(tpch.file(table)))
    return context


def own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def cpu_of(process: int) -> float:
    """CPU seconds of its threads, to the nanosecond (Linux's sched-stats), where `stat` counts in hundredths."""
    threads = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def take(rounds: int) -> dict[int, tuple[Taken, Taken]]:
    """Each query, alone and over Flight SQL."""
    pod = Pod(Path(tempfile.mkdtemp()))
    pod.yaml(tls=pod.write_pair(), datasets=[{"from": f"file:{tpch.file(table)}", "name": table} for table in tpch.TABLES])
    server = pod.serve()
    eventually(lambda: clients.get(server, "/v1/ready").status == 200, "every table is loaded")
    context, taken = alone(), {number: (Taken(), Taken()) for number in tpch.QUERIES}
    with clients.adbc(server) as connection, connection.cursor() as cursor:

        def through(text: str) -> None:
            cursor.execute(text)
            cursor.fetch_arrow_table()

        for number, (inner, outer) in taken.items():
            text = tpch.query(number)
            through(text), context.sql(text).to_arrow_table()  # warm
            for _ in range(rounds):
                inner.take(lambda: context.sql(text).to_arrow_table(), own_cpu)
                outer.take(lambda: through(text), lambda: cpu_of(server.process.pid))
    pod.close()
    return taken


def table(taken: dict[int, tuple[Taken, Taken]]) -> str:
    def row(name: str, values: list[float]) -> str:
        inner, outer, inner_cpu, outer_cpu = values
        cells = f"{inner:.1f} ms | {outer:.1f} ms | {outer / inner:.2f} | {inner_cpu:.1f} ms | {outer_cpu:.1f} ms | {outer_cpu / inner_cpu:.2f}"
        return f"| {name} | {cells} |"

    rows = [
        "| query | alone | over Flight SQL | ratio | CPU alone | CPU, the server's | ratio |",
        "|:--|--:|--:|--:|--:|--:|--:|",
    ]
    sums = [0.0] * 4
    for number, both in taken.items():
        values = [1e3 * statistics.median(one.seconds) for one in both] + [1e3 * statistics.mean(one.cpu) for one in both]
        sums = [a + b for a, b in zip(sums, values)]
        rows.append(row(f"{number}", values))
    return "\n".join([*rows, row("all", sums)])


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("spiced")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--page", type=Path)
    said = arguments.parse_args()
    os.environ["SPICED_BIN"] = said.spiced
    found = table(take(said.rounds))
    print(found)
    if said.page:
        version = subprocess.run([said.spiced, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        said.page.write_text(
            PAGE.format(
                date=datetime.date.today(), cores=os.cpu_count(), version=version, datafusion=datafusion.__version__,
                scale=tpch.SCALE, rounds=said.rounds, table=found,
            )
        )


if __name__ == "__main__":
    main()

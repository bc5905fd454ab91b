//! Turns samples into a table, JSON, and the page of the docs.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Value, json};

use crate::Outcome;
use crate::args::Scale;
use crate::figures::{Figure, Unit};
use crate::machine::Machine;
use crate::meter::Sample;
use crate::servers::Contestant;
use crate::statistics::Median;

/// Above this CPU utilization, the load itself was the bottleneck.
const BUSY: f64 = 0.9;

/// All rounds of one server in one figure.
pub(crate) struct Row {
    figure: &'static Figure,
    who: &'static str,
    tls: Vec<Sample>,
    plain: Vec<Sample>,
}

impl Row {
    /// Creates the empty rows of a figure, one for each server.
    pub(crate) fn of(figure: &'static Figure, contestants: &[Contestant<'_>]) -> Vec<Self> {
        let row =
            |contestant: &Contestant<'_>| Self { figure, who: contestant.who, tls: Vec::new(), plain: Vec::new() };
        contestants.iter().filter(|contestant| contestant.tls).map(row).collect()
    }

    pub(crate) fn json(&self) -> Value {
        let samples = |samples: &[Sample]| -> Vec<Value> {
            let each = samples.iter().map(|sample| {
                json!({
                    "units": sample.units, "server_cpu": sample.server.as_secs_f64(),
                    "client_cpu": sample.client.as_secs_f64(), "wall": sample.wall.as_secs_f64(),
                })
            });
            each.collect()
        };
        json!({
            "figure": self.figure.name, "unit": format!("{:?}", self.figure.unit), "who": self.who,
            "tls": samples(&self.tls), "plain": samples(&self.plain),
        })
    }
}

/// Adds a round's sample to its row.
pub(crate) fn enter(rows: &mut [Row], figure: &Figure, contestant: &Contestant<'_>, sample: Sample) {
    let row = rows.iter_mut().find(|row| row.figure.name == figure.name && row.who == contestant.who);
    let row = row.expect("every contestant over TLS has a row, and all take part both ways");
    if contestant.tls { row.tls.push(sample) } else { row.plain.push(sample) }
}

/// Prints the table.
pub(crate) fn print(rows: &[Row]) -> Outcome {
    let text = table(rows);
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| e.to_string())
}

/// Returns the page of the docs.
pub(crate) fn page(rows: &[Row], machine: &Machine, versions: &[String], scale: Scale) -> String {
    let Scale { rounds, slice, rows: large } = scale;
    format!(
        "# Figures

What `spiced` costs compared with the alternatives, measured in one run of

```
just bench --write
```

Measured {date} on {cores} cores of {processor},
Linux {kernel}: {spiced}, {versions}.

## How to read them

| column | meaning |
| --- | --- |
| CPU | user and system time of the server's process for one connection, one request or one gigabyte. It is what a server costs, and it changes little on a busy machine. |
| rate | per second of elapsed time, with one client thread on the same machine. `*` means that the client thread was the limit, so the server could do more. |
| ± | half the interquartile range of {rounds} rounds. In each round every server has a slot ({slice:?}, or {gigabyte} GB). |
| A ÷ B | the median of the rounds' own ratios; below 1 is in favour of `spiced` |
| TLS ÷ plain | the same server with TLS and in plain text, in CPU |

| compared with | setup |
| --- | --- |
| nginx | one worker per core, as in Debian's default configuration and like the threads of `spiced`; it answers from its configuration, with the same certificate (P-256) and the same client. The client offers only X25519, except in the row that says otherwise. |
| pyarrow | a C++ Flight server started by ten lines of Python, with the same table. `spiced` reads its rows from a `memory:` table through DataFusion, in batches of as many rows of eight columns. Data sent by DoPut becomes a table in `spiced`; pyarrow keeps it in memory. |
| DataFusion alone | plans and runs the statement repeatedly, 16 at a time, inside the benchmark's process and without an endpoint; `spiced` plans it once and caches the plan |
| arrow-json alone, arrow-csv alone | Arrow's own writers, which write the same rows to nowhere, two at a time |

The responses of `spiced` to `/health` are counted, measured and logged like any other. The work of the endpoints alone
is also measured in instructions (`just guard`), which a busy machine does not change. [How cost grows](growth.md) shows
the effect of more connections, streams, bytes and certificates.

{table}
What TLS costs depends on the statement, as the last column shows. A statement that does some work pays less than that;
a large result that is only copied, or a request that does nothing, pays more.
",
        date = machine.date,
        cores = machine.cores,
        processor = machine.processor,
        kernel = machine.kernel,
        spiced = machine.spiced,
        versions = versions.join(", "),
        gigabyte = (large * crate::figures::ROW) as f64 / 1e9,
        table = table(rows),
    )
}

/// Returns the table as Markdown, aligned so that it is readable as text.
fn table(rows: &[Row]) -> String {
    let mut lines =
        vec![["", "", "CPU, TLS", "rate, TLS", "CPU, plain", "rate, plain", "TLS ÷ plain"].map(str::to_owned)];
    let mut last = "";
    for row in rows {
        let title = if row.figure.name == last { "" } else { row.figure.title };
        last = row.figure.name;
        let unit = row.figure.unit;
        lines.push([
            title.to_owned(),
            row.who.to_owned(),
            cost(&row.tls, unit),
            rate(&row.tls, unit),
            cost(&row.plain, unit),
            rate(&row.plain, unit),
            ratio(&row.tls, &row.plain, Sample::cost),
        ]);
        // spiced is the first row of its figure; the others are compared with it.
        if let Some(ours) = rows.iter().find(|ours| ours.figure.name == row.figure.name && ours.who != row.who)
            && ours.who == "spiced"
        {
            lines.push([
                String::new(),
                format!("spiced ÷ {}", row.who),
                ratio(&ours.tls, &row.tls, Sample::cost),
                ratio(&ours.tls, &row.tls, Sample::rate),
                ratio(&ours.plain, &row.plain, Sample::cost),
                ratio(&ours.plain, &row.plain, Sample::rate),
                String::new(),
            ]);
        }
    }
    aligned(&lines)
}

fn aligned<const N: usize>(lines: &[[String; N]]) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0));
    let mut out = String::new();
    for (index, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(widths) {
            let _ = write!(out, "| {cell:width$} ");
        }
        out.push_str("|\n");
        if index == 0 {
            for (column, width) in widths.into_iter().enumerate() {
                // Numbers are right-aligned.
                let _ = if column < 2 { write!(out, "|:{:-<width$}-", "") } else { write!(out, "|-{:-<width$}:", "") };
            }
            out.push_str("|\n");
        }
    }
    out
}

/// Formats the CPU time per unit.
fn cost(samples: &[Sample], unit: Unit) -> String {
    let Some(Median { value, spread }) = Median::of(samples.iter().map(Sample::cost)) else { return "–".to_owned() };
    let text = match unit {
        Unit::Gigabyte => format!("{value:.3} s/GB"),
        _ if value < 10e-6 => format!("{:.2} µs", value * 1e6),
        _ if value < 1e-3 => format!("{:.0} µs", value * 1e6),
        _ => format!("{:.2} ms", value * 1e3),
    };
    format!("{text} ±{:.0}%", spread * 100.0)
}

/// Formats the units per second of wall time.
fn rate(samples: &[Sample], unit: Unit) -> String {
    let Some(Median { value, .. }) = Median::of(samples.iter().map(Sample::rate)) else { return "–".to_owned() };
    let busy = Median::of(samples.iter().map(Sample::client_share)).is_some_and(|share| share.value > BUSY);
    let text = match unit {
        Unit::Gigabyte => format!("{value:.2} GB/s"),
        _ if value >= 100_000.0 => format!("{:.0} k/s", value / 1e3),
        _ if value >= 1_000.0 => format!("{:.1} k/s", value / 1e3),
        _ => format!("{value:.0} /s"),
    };
    format!("{text}{}", if busy { "*" } else { " " })
}

/// Formats the median of the ratios of the rounds.
fn ratio(above: &[Sample], below: &[Sample], of: impl Fn(&Sample) -> f64) -> String {
    match Median::of(above.iter().zip(below).map(|(above, below)| of(above) / of(below))) {
        Some(Median { value, spread }) => format!("{value:.2} ±{:.0}%", spread * 100.0),
        None => "–".to_owned(),
    }
}

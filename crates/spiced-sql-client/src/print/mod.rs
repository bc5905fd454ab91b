//! Writes the result of a statement as it arrives, batch by batch.
//!
//! The first 1,024 rows determine the widths of a table's columns; a longer value in a later row misaligns that row.
//! All formats except the expanded one use the encoders of the HTTP API.

mod expanded;
pub(crate) mod format;
pub(crate) mod output;

use std::io::Write;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_schema::{DataType, Schema, SchemaRef};
use spiced_formats::RowWriter;

use crate::connect::session::Rows;
use crate::error::stop::Stop;
use crate::print::expanded::Expanded;
use crate::print::format::Format;

/// How results are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) format: Format,
    /// Whether a table is written with one value per line.
    pub(crate) expanded: bool,
    /// The maximum number of rows to write.
    pub(crate) limit: Option<usize>,
}

/// What was written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The number of rows; with `more`, there are further rows that were not written.
    Rows { count: usize, more: bool },
    /// No rows: the statement changed this many rows.
    Changed(u64),
    /// No rows: the statement succeeded.
    Done,
}

/// Writes `rows`. `announced` is the schema that the server gave beforehand; it gives none for statements that have an
/// effect, whose result is a count.
pub(crate) async fn show(
    rows: &mut Rows,
    announced: Option<SchemaRef>,
    layout: Layout,
    out: &mut dyn Write,
) -> Result<Shown, Stop> {
    let mut printer: Option<Printer> = None;
    let (mut count, mut changed) = (0, None);
    let limit = layout.limit.unwrap_or(usize::MAX);
    let mut more = false;
    while let Some(batch) = rows.next().await? {
        if announced.is_none() && is_count(batch.schema_ref()) {
            let touched = batch.column(0).as_primitive::<UInt64Type>().iter().flatten();
            changed = Some(touched.fold(changed.unwrap_or(0), u64::saturating_add));
            continue;
        }
        let room = limit - count;
        more = batch.num_rows() > room;
        let batch = batch.slice(0, batch.num_rows().min(room));
        count += batch.num_rows();
        let printer = match &mut printer {
            Some(printer) => printer,
            none => none.insert(Printer::new(layout, batch.schema_ref())?),
        };
        printer.write(&batch, out)?;
        // Shows the rows received so far, since the next batch may take long, and yields so that Ctrl-C is handled.
        out.flush()?;
        tokio::task::yield_now().await;
        if more {
            break;
        }
    }
    let printer = match (printer, rows.schema().cloned().or(announced)) {
        (Some(printer), _) => printer,
        (None, Some(schema)) if changed.is_none() && !schema.fields().is_empty() => Printer::new(layout, &schema)?,
        _ => return Ok(changed.map_or(Shown::Done, Shown::Changed)),
    };
    printer.finish(out)?;
    out.flush()?;
    Ok(Shown::Rows { count, more })
}

/// Writes a batch that the prompt itself created.
pub(crate) fn print(batch: &RecordBatch, layout: Layout, out: &mut dyn Write) -> Result<(), Stop> {
    let mut printer = Printer::new(layout, batch.schema_ref())?;
    printer.write(batch, out)?;
    printer.finish(out)?;
    Ok(out.flush()?)
}

/// Returns whether the schema is that of the result of a statement that changes data.
fn is_count(schema: &Schema) -> bool {
    matches!(schema.fields().as_ref(), [field] if field.name() == "count" && *field.data_type() == DataType::UInt64)
}

enum Printer {
    Rows { writer: RowWriter, ends_line: bool },
    Expanded(Expanded),
}

impl Printer {
    fn new(layout: Layout, schema: &Schema) -> Result<Self, Stop> {
        let format = match layout.format {
            Format::Table if layout.expanded => return Ok(Self::Expanded(Expanded::new(schema))),
            Format::Table => spiced_formats::Format::Table,
            Format::Csv => spiced_formats::Format::Csv,
            Format::Json => spiced_formats::Format::Json,
            Format::Ndjson => spiced_formats::Format::Ndjson,
        };
        Ok(Self::Rows { writer: RowWriter::new(format, schema)?, ends_line: layout.format != Format::Json })
    }

    fn write(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), Stop> {
        match self {
            Self::Rows { writer, .. } => Ok(writer.write(batch, out)?),
            Self::Expanded(expanded) => Ok(expanded.write(batch, out)?),
        }
    }

    fn finish(self, out: &mut dyn Write) -> Result<(), Stop> {
        if let Self::Rows { writer, ends_line } = self {
            writer.finish(out)?;
            if !ends_line {
                out.write_all(b"\n")?;
            }
        }
        Ok(())
    }
}

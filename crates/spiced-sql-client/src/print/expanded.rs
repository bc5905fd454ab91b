//! Rows with one value per line, for tables that are wider than the screen.

use std::io::Write;

use arrow_array::RecordBatch;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, Schema};

use crate::error::stop::Stop;
use crate::print::output::printable;

/// Writes rows in the expanded format, and counts them.
pub(crate) struct Expanded {
    names: Vec<String>,
    width: usize,
    rows: usize,
}

impl Expanded {
    pub(crate) fn new(schema: &Schema) -> Self {
        let names: Vec<String> = schema.fields().iter().map(|field| one_line(field.name())).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        Self { names, width, rows: 0 }
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch, out: &mut dyn Write) -> Result<(), Stop> {
        let options = FormatOptions::new().with_display_error(false);
        let columns: Result<Vec<_>, ArrowError> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect();
        let columns = columns?;
        let mut text = String::new();
        for row in 0..batch.num_rows() {
            self.rows += 1;
            writeln!(out, "-[ {} ]{}", self.rows, "-".repeat(self.width.max(20)))?;
            for (name, column) in self.names.iter().zip(&columns) {
                let pad = " ".repeat(self.width - name.chars().count());
                text.clear();
                column.value(row).write(&mut text)?;
                writeln!(out, "{name}{pad} | {}", one_line(&text))?;
            }
        }
        Ok(())
    }
}

fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\\n")
}

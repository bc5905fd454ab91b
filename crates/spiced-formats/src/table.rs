//! A table for a terminal, in the style of DataFusion and DuckDB.
//!
//! The table is streamed: a column is as wide as its widest value among the first rows, and a longer value in a later
//! row shifts the rest of that row. Control characters are escaped, so that a value can neither break its row nor
//! control the terminal. Null is empty.

use arrow_array::RecordBatch;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{ArrowError, Schema};
use unicode_width::UnicodeWidthStr;

use crate::encode::Encode;
use crate::nested::{check_durations, no_text};
use crate::out::Out;

/// The number of rows that determine the column widths.
const MEASURED: usize = 1024;

/// The maximum width to which a column is padded.
const WIDEST: usize = 100;

pub(crate) struct Table {
    names: Vec<String>,
    /// The width of each column on a terminal, determined by the first rows.
    widths: Option<Vec<usize>>,
}

impl Table {
    pub(crate) fn new(schema: &Schema) -> Self {
        let names = schema.fields().iter().map(|field| escaped(field.name())).collect();
        Self { names, widths: None }
    }

    fn head(&self, widths: &[usize], out: &mut Vec<u8>) {
        rule(widths, out);
        row(widths, &self.names, out);
        rule(widths, out);
    }
}

impl Encode for Table {
    fn step(&self, out: &Out) -> usize {
        if self.widths.is_none() { MEASURED } else { out.fitting() }
    }

    fn begin(&mut self, _: &mut Out) -> Result<(), ArrowError> {
        Ok(())
    }

    fn rows(&mut self, batch: &RecordBatch, out: &mut Out) -> Result<(), ArrowError> {
        let out = out.text();
        for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
            check_durations(field, column.as_ref())?;
        }
        let options = FormatOptions::new().with_display_error(false);
        let columns: Vec<ArrayFormatter<'_>> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options)).collect::<Result<_, _>>()?;
        let schema = batch.schema_ref();
        let cell = |number: usize, at: usize, text: &mut String| {
            text.clear();
            let field = schema.field(number);
            columns[number].value(at).write(text).map_err(|_| no_text(field.name(), field.data_type()))?;
            if text.contains(char::is_control) {
                *text = escaped(text);
            }
            Ok::<_, ArrowError>(())
        };
        let mut cells = vec![String::new(); columns.len()];
        let widths = match self.widths.take() {
            Some(widths) => widths,
            None => {
                let mut widths: Vec<usize> = self.names.iter().map(|name| name.width()).collect();
                for (number, (width, text)) in widths.iter_mut().zip(&mut cells).enumerate() {
                    for at in 0..batch.num_rows() {
                        cell(number, at, text)?;
                        *width = (*width).max(text.width());
                    }
                    *width = (*width).min(WIDEST);
                }
                self.head(&widths, out);
                widths
            }
        };
        for at in 0..batch.num_rows() {
            for (number, text) in cells.iter_mut().enumerate() {
                cell(number, at, text)?;
            }
            row(&widths, &cells, out);
        }
        self.widths = Some(widths);
        Ok(())
    }

    fn end(&mut self, out: &mut Out) -> Result<(), ArrowError> {
        let widths = self.widths.take().unwrap_or_else(|| {
            let widths: Vec<usize> = self.names.iter().map(|name| name.width().min(WIDEST)).collect();
            self.head(&widths, out.text());
            widths
        });
        rule(&widths, out.text());
        Ok(())
    }
}

fn rule(widths: &[usize], out: &mut Vec<u8>) {
    for width in widths {
        out.push(b'+');
        out.extend(std::iter::repeat_n(b'-', width + 2));
    }
    out.extend_from_slice(b"+\n");
}

fn row(widths: &[usize], cells: &[String], out: &mut Vec<u8>) {
    for (width, cell) in widths.iter().zip(cells) {
        out.extend_from_slice(b"| ");
        out.extend_from_slice(cell.as_bytes());
        out.extend(std::iter::repeat_n(b' ', width.saturating_sub(cell.width()) + 1));
    }
    out.extend_from_slice(b"|\n");
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

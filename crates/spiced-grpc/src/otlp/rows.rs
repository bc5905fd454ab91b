//! Buffers rows for a table.

use std::mem::size_of;

use arrow_json::ReaderBuilder;
use arrow_schema::{ArrowError, SchemaRef};
use futures::stream::{self, StreamExt};
use serde::Serialize;
use spiced_engine::Execution;
use tonic::Status;

/// The maximum size of the rows of one export, in bytes, including values that each row repeats. Without it, 1 MiB of
/// resource attributes could be copied into each of 100,000 rows.
const MAX_BYTES: usize = 64 << 20;

/// The number of rows in a batch.
const ROWS_PER_BATCH: usize = 8192;

/// The rows for one table.
#[derive(Debug)]
pub(super) struct Rows<Row> {
    rows: Vec<Row>,
    bytes: usize,
}

impl<Row: Serialize> Rows<Row> {
    pub(super) fn none() -> Self {
        Self { rows: Vec::new(), bytes: 0 }
    }

    /// Adds a row that takes `bytes` in addition to its unshared values.
    ///
    /// # Errors
    /// Fails if the export becomes too large.
    pub(super) fn push(&mut self, row: Row, bytes: usize) -> Result<(), Status> {
        self.bytes += bytes + size_of::<Row>();
        if self.bytes > MAX_BYTES {
            return Err(Status::invalid_argument(format!(
                "the export is too large: its rows, each with the attributes of its resource, take more than {} MiB; send smaller batches",
                MAX_BYTES >> 20
            )));
        }
        self.rows.push(row);
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Converts the rows to the columns of `schema`.
    ///
    /// # Errors
    /// Fails if the rows do not match the schema.
    pub(super) fn batches(self, schema: SchemaRef) -> Result<Execution, ArrowError> {
        let mut decoder = ReaderBuilder::new(schema.clone())
            .with_batch_size(ROWS_PER_BATCH)
            .with_strict_mode(true)
            .build_decoder()?;
        let mut batches = Vec::new();
        for rows in self.rows.chunks(ROWS_PER_BATCH) {
            decoder.serialize(rows)?;
            batches.extend(decoder.flush()?);
        }
        Ok(Execution { schema, batches: stream::iter(batches).map(Ok).boxed() })
    }
}

//! Writes rows to an `io::Write`.

use std::io::{self, Write};

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Schema};

use crate::encoder::RowEncoder;
use crate::format::Format;

/// Writes rows in bounded memory.
///
/// ```
/// # use std::sync::Arc;
/// # use arrow_array::{Int64Array, RecordBatch};
/// use spiced_formats::{Format, RowWriter};
///
/// let batch = RecordBatch::try_from_iter([("x", Arc::new(Int64Array::from(vec![1, 2])) as _)])?;
/// let mut to = Vec::new();
/// let mut rows = RowWriter::new(Format::Json, batch.schema_ref())?;
/// rows.write(&batch, &mut to)?;
/// rows.finish(&mut to)?;
/// assert_eq!(to, br#"[{"x":1},{"x":2}]"#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RowWriter {
    encoder: RowEncoder,
    begun: bool,
}

impl RowWriter {
    /// Creates a writer of rows of `schema`.
    ///
    /// # Errors
    /// Fails if the format cannot express the schema.
    pub fn new(format: Format, schema: &Schema) -> Result<Self, WriteError> {
        Ok(Self { encoder: RowEncoder::new(format, schema)?, begun: false })
    }

    /// Writes the rows of a batch, preceded by the header if it is the first.
    ///
    /// # Errors
    /// Fails if a value cannot be written in this format, or if writing to `to` fails.
    pub fn write(&mut self, batch: &RecordBatch, to: &mut dyn Write) -> Result<(), WriteError> {
        self.begin()?;
        self.encoder.push(batch.clone());
        while self.encoder.has_rows() {
            self.encoder.step()?;
            self.drain(to)?;
        }
        Ok(())
    }

    /// Writes the end of the output, after the rows.
    ///
    /// # Errors
    /// Fails if writing to `to` fails.
    pub fn finish(mut self, to: &mut dyn Write) -> Result<(), WriteError> {
        self.begin()?;
        self.encoder.end()?;
        self.drain(to)
    }

    fn begin(&mut self) -> Result<(), ArrowError> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        self.encoder.begin()
    }

    fn drain(&mut self, to: &mut dyn Write) -> Result<(), WriteError> {
        let mut written = self.encoder.take();
        while let Some(chunk) = written.pop() {
            to.write_all(&chunk).map_err(WriteError::To)?;
        }
        Ok(())
    }
}

/// The reason why rows could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A value, or the schema, cannot be expressed.
    #[error(transparent)]
    Encode(#[from] ArrowError),
    /// Writing to the destination failed; `BrokenPipe` means that the reader is gone.
    #[error(transparent)]
    To(io::Error),
}

//! Encodes batches step by step, a bounded amount at a time.

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Schema};
use tls_core::server::buf_list::BufList;

use crate::encode::Encode;
use crate::format::Format;
use crate::out::Out;
use crate::{csv, ipc, json, table};

/// Encodes batches of one schema in one format. The caller alternates between [`RowEncoder::step`] and
/// [`RowEncoder::take`], so no more than about one frame (64 KiB of text) is held.
pub struct RowEncoder {
    encode: Box<dyn Encode>,
    current: Option<PartialBatch>,
    out: Out,
}

impl RowEncoder {
    /// Creates an encoder for rows of `schema`.
    ///
    /// # Errors
    /// Fails if the format cannot express the schema.
    pub fn new(format: Format, schema: &Schema) -> Result<Self, ArrowError> {
        let encode: Box<dyn Encode> = match format {
            Format::Json => Box::new(json::Json::array(schema)),
            Format::Ndjson => Box::new(json::Json::lines(schema)),
            Format::Spice => Box::new(json::Json::spice(schema)?),
            Format::Csv => Box::new(csv::Csv::new(schema)),
            Format::Table => Box::new(table::Table::new(schema)),
            Format::Arrow => Box::new(ipc::Ipc::new(schema)?),
        };
        Ok(Self { encode, current: None, out: Out::default() })
    }

    /// Writes what precedes the rows. Called once, first.
    ///
    /// # Errors
    /// Fails if the format cannot express the schema.
    pub fn begin(&mut self) -> Result<(), ArrowError> {
        self.encode.begin(&mut self.out)
    }

    /// Adds a batch; [`RowEncoder::step`] encodes it. The batch before it must be done.
    pub fn push(&mut self, batch: RecordBatch) {
        debug_assert!(self.current.is_none(), "the batch before is not encoded yet");
        let most = self.encode.rows_at_once(&batch);
        self.current = Some(PartialBatch { batch, done: 0, most }).filter(|current| !current.is_done());
    }

    /// Returns whether rows of a batch are still to be encoded.
    pub fn has_rows(&self) -> bool {
        self.current.is_some()
    }

    /// Encodes the next rows of the batch.
    ///
    /// # Errors
    /// Fails with [`ArrowError::CastError`] if a value has no text, and otherwise if it cannot be encoded.
    pub fn step(&mut self) -> Result<(), ArrowError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let encoded = current.step(self.encode.as_mut(), &mut self.out);
        if current.is_done() {
            self.current = None;
        }
        encoded
    }

    /// Writes what follows the rows. Called once, last.
    ///
    /// # Errors
    /// Fails if the end cannot be encoded.
    pub fn end(&mut self) -> Result<(), ArrowError> {
        self.encode.end(&mut self.out)
    }

    /// Returns whether there is enough to send.
    pub fn is_full(&self) -> bool {
        self.out.is_full()
    }

    /// Takes the bytes that are ready.
    pub fn take(&mut self) -> BufList {
        self.out.take()
    }
}

/// A batch, some of whose rows are encoded.
struct PartialBatch {
    batch: RecordBatch,
    /// The number of rows that are encoded.
    done: usize,
    /// How many rows one step may encode.
    most: usize,
}

impl PartialBatch {
    fn is_done(&self) -> bool {
        self.done == self.batch.num_rows()
    }

    fn step(&mut self, encode: &mut dyn Encode, out: &mut Out) -> Result<(), ArrowError> {
        let count = encode.step(out).min(self.most).min(self.batch.num_rows() - self.done);
        let rows = self.batch.slice(self.done, count);
        self.done += count;
        out.rows(count, |out| encode.rows(&rows, out))
    }
}

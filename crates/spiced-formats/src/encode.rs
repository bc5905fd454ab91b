//! The trait that each format implements.

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use spiced_engine::rows_size;

use crate::out::Out;

/// The size of the rows that one step encodes, in bytes of Arrow data, if all rows of a batch have about the same size.
const STEP_BYTES: u64 = 256 * 1024;

/// How one format writes rows.
pub(crate) trait Encode: Send {
    /// Returns how many rows of `batch` one step may encode. A format that writes text limits their size: encoding wide
    /// rows would keep the thread from the other connections that share it.
    fn rows_at_once(&self, batch: &RecordBatch) -> usize {
        let row = rows_size(batch) / (batch.num_rows().max(1) as u64);
        usize::try_from(STEP_BYTES / row.max(1)).unwrap_or(usize::MAX).max(1)
    }

    /// Returns how many rows may be encoded before the size of the frame is checked.
    fn step(&self, out: &Out) -> usize {
        out.fitting()
    }

    /// Writes what precedes the rows.
    fn begin(&mut self, out: &mut Out) -> Result<(), ArrowError>;

    /// Writes the rows of a batch.
    fn rows(&mut self, batch: &RecordBatch, out: &mut Out) -> Result<(), ArrowError>;

    /// Writes what follows the rows.
    fn end(&mut self, out: &mut Out) -> Result<(), ArrowError>;
}

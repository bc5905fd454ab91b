//! Collects rows for a table in memory: counts them as they arrive and merges small batches, so that a thousand small
//! inserts do not make a thousand small batches.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::StreamExt;

use crate::planning::output_schema::conform;

/// Batches are merged up to this many rows.
const ROWS_PER_BATCH: usize = 8192;

/// Merges the two batches, or returns `None` if they stay separate. Only batches of similar size are merged, so each
/// row is copied about as often as its batch has doubled and not once for each insert.
pub(crate) fn merged(older: &RecordBatch, newer: &RecordBatch) -> Option<RecordBatch> {
    let (before, after) = (older.num_rows(), newer.num_rows());
    if before + after > ROWS_PER_BATCH || before > after.saturating_mul(2) {
        return None;
    }
    // Columns that are too long for one array also stay separate.
    concat_batches(older.schema_ref(), [older, newer]).ok()
}

/// Collects all non-empty batches of `stream`, with the columns of `schema`, and the number of rows. Their memory is
/// reserved in `coming` as they arrive, so that many concurrent writers are also bounded.
pub(crate) async fn collect(
    mut stream: SendableRecordBatchStream,
    schema: &SchemaRef,
    coming: &MemoryReservation,
) -> Result<(Vec<RecordBatch>, u64)> {
    let (mut batches, mut rows) = (Vec::new(), 0);
    while let Some(batch) = stream.next().await.transpose()? {
        if batch.num_rows() > 0 {
            let batch = conform(batch, schema)?;
            coming.try_grow(get_record_batch_memory_size(&batch))?;
            rows += batch.num_rows() as u64;
            batches.push(batch);
        }
    }
    Ok((batches, rows))
}

//! Rows on their way into a table in memory: counted while they come, and small batches made few, so that a thousand
//! small inserts do not make a thousand small batches.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::utils::memory::get_record_batch_memory_size;
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::StreamExt;

use crate::output_schema::conform;

/// Batches are merged up to this many rows.
const ROWS_PER_BATCH: usize = 8192;

/// One batch of the two; `None` where they stay apart. A batch is only merged with its like: so each row is copied about
/// as often as its batch has doubled, and not once for each insert.
pub(crate) fn merged(older: &RecordBatch, newer: &RecordBatch) -> Option<RecordBatch> {
    let (before, after) = (older.num_rows(), newer.num_rows());
    if before + after > ROWS_PER_BATCH || before > after.saturating_mul(2) {
        return None;
    }
    // Columns that are too long for one array stay apart too.
    concat_batches(older.schema_ref(), [older, newer]).ok()
}

/// All batches of `stream` that have rows, in the columns of `schema`, and how many rows that is. What they take is
/// counted in `coming` while they come, so that many writers at once are bounded too.
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

//! Small batches that become few: a thousand small inserts do not make a thousand small batches.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;

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

//! Limits on the size of a result.

use arrow_array::{Array, RecordBatch};
use futures::future::{FutureExt, pending};
use futures::stream::StreamExt;
use tokio::time::Instant;

use crate::deadline::{passed, until};
use crate::engine::Execution;
use crate::{EngineError, ErrorKind};

/// The maximum size of a result; `None` means unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResultLimits {
    /// Rows.
    pub rows: Option<u64>,
    /// Bytes, as the size of the rows in Arrow.
    pub bytes: Option<u64>,
}

impl ResultLimits {
    /// Subtracts a batch from the remaining limits.
    fn spend(&mut self, batch: &RecordBatch, whole: Self) -> Result<(), EngineError> {
        let over = |what: &str, bound: Option<u64>| {
            let bound = bound.unwrap_or_default();
            EngineError::new(
                ErrorKind::Exhausted,
                format!("the result has more than {bound} {what}; request less (LIMIT)"),
            )
        };
        if let Some(rows) = &mut self.rows {
            *rows = rows.checked_sub(batch.num_rows() as u64).ok_or_else(|| over("rows", whole.rows))?;
        }
        if let Some(bytes) = &mut self.bytes {
            *bytes = bytes.checked_sub(rows_size(batch)).ok_or_else(|| over("bytes", whole.bytes))?;
        }
        Ok(())
    }
}

/// Returns the bytes of the rows in a batch, not counting buffers that it shares with other batches.
pub fn rows_size(batch: &RecordBatch) -> u64 {
    let columns = batch.columns().iter();
    columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or_default() as u64).sum()
}

impl Execution {
    /// Limits the result: it fails when it exceeds `bounds`. Rows are never dropped silently.
    #[must_use]
    pub fn limited(self, bounds: ResultLimits) -> Self {
        if bounds == ResultLimits::default() {
            return self;
        }
        let mut left = bounds;
        let batches = self.batches.map(move |batch| {
            let batch = batch?;
            left.spend(&batch, bounds).map(|()| batch)
        });
        Self { batches: until(batches.boxed(), pending()), ..self }
    }

    /// Limits the result: it fails with `error` if it has not ended at `deadline`.
    #[must_use]
    pub fn until(self, deadline: Instant, error: EngineError) -> Self {
        Self { batches: until(self.batches, passed(deadline).map(|()| error)), ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::Int64Array;

    use super::*;

    fn batch(rows: i64) -> RecordBatch {
        let column: Int64Array = (0..rows).collect::<Vec<_>>().into();
        RecordBatch::try_from_iter([("x", Arc::new(column) as _)]).unwrap()
    }

    #[tokio::test]
    async fn an_answer_that_is_too_large_fails_and_ends() {
        let answer = |bounds| async move {
            let answer = Execution::of(vec![batch(3), batch(3), batch(3)]).limited(bounds);
            answer.batches.map(|batch| batch.is_ok()).collect::<Vec<_>>().await
        };
        let rows = |rows| ResultLimits { rows: Some(rows), bytes: None };
        assert_eq!(answer(rows(9)).await, [true; 3]);
        assert_eq!(answer(rows(5)).await, [true, false]);
        assert_eq!(answer(ResultLimits { rows: None, bytes: Some(24) }).await, [true, false]);
        // The stricter of two limits applies, in either order.
        let both = |one, other| async move {
            let answer = Execution::of(vec![batch(3), batch(3), batch(3)]).limited(one).limited(other);
            answer.batches.map(|batch| batch.is_ok()).collect::<Vec<_>>().await
        };
        let narrow = ResultLimits { rows: Some(3), bytes: Some(24) };
        assert_eq!((both(rows(5), narrow).await, both(narrow, rows(5)).await), (vec![true, false], vec![true, false]));
        assert_eq!(both(rows(9), ResultLimits { rows: Some(9), bytes: Some(1) }).await, [false]);
    }
}

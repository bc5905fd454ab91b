//! Results that are already in memory: their stream is handed to the caller directly, and no batch moves between
//! threads.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, ready};

use datafusion::arrow::array::RecordBatch;
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::common::config::ConfigNonZeroUsize;
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SessionState;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};
use futures::{StreamExt, TryStreamExt, stream};

/// The batch size. Batches are sized for sending, not for computing.
const ROWS: usize = 65_536;

/// Returns true if `plan` only hands out existing batches.
pub(crate) fn lies_in_memory(plan: &dyn ExecutionPlan) -> bool {
    let scan = plan.downcast_ref::<DataSourceExec>();
    scan.is_some_and(|scan| scan.data_source().downcast_ref::<MemorySourceConfig>().is_some())
}

/// Reads the partitions of such a plan in order, and sets the batch size of `state` to [`ROWS`].
pub(crate) fn read(plan: Arc<dyn ExecutionPlan>, state: &mut SessionState) -> Result<SendableRecordBatchStream> {
    state.config_mut().options_mut().execution.batch_size = ConfigNonZeroUsize::try_new(ROWS)?;
    let context = state.task_ctx();
    let (schema, partitions) = (plan.schema(), plan.output_partitioning().partition_count());
    let streams = (0..partitions).map(move |partition| plan.execute(partition, context.clone()));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter(streams).try_flatten())))
}

/// A stream of rows in memory, until it ends or its deadline expires: a stalled client does not hold the rows any
/// longer.
#[derive(Clone, Default)]
pub(crate) struct InMemoryStream(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    #[default]
    Awaited,
    Open(SendableRecordBatchStream),
    /// The deadline has expired.
    Over,
}

impl InMemoryStream {
    /// Reads from `stream`, unless the deadline has expired.
    pub(crate) fn begin(&self, stream: SendableRecordBatchStream) {
        let mut state = self.lock();
        if matches!(*state, State::Awaited) {
            *state = State::Open(stream);
        }
    }

    /// Reads from `stream` instead of the previous one, unless the deadline has expired.
    pub(crate) fn begin_again(&self, stream: SendableRecordBatchStream) {
        let mut state = self.lock();
        let before = match *state {
            State::Open(_) => std::mem::replace(&mut *state, State::Open(stream)),
            State::Awaited | State::Over => return,
        };
        drop(state);
        drop(before);
    }

    /// Ends the stream at the deadline and releases the rows.
    pub(crate) fn end(&self) {
        let before = std::mem::replace(&mut *self.lock(), State::Over);
        // Dropped after the lock is released.
        drop(before);
    }

    /// Like [`end`](Self::end), but does nothing while a batch is being produced: its producer must be stopped by other
    /// means.
    pub(crate) fn end_if_idle(&self) {
        let before = match self.0.try_lock() {
            Ok(mut state) => std::mem::replace(&mut *state, State::Over),
            Err(_) => return,
        };
        drop(before);
    }

    /// Returns the next non-empty batch; waits indefinitely if the deadline has expired.
    pub(crate) async fn next(&self) -> Option<Result<RecordBatch>> {
        poll_fn(|cx| {
            let mut state = self.lock();
            let State::Open(stream) = &mut *state else { return Poll::Pending };
            loop {
                match ready!(stream.poll_next_unpin(cx)) {
                    Some(Ok(batch)) if batch.num_rows() == 0 => {}
                    next => return Poll::Ready(next),
                }
            }
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A stream that panicked is not read again: its caller is gone too.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Schema;
    use futures::FutureExt;

    use super::*;

    #[test]
    fn who_stalls_keeps_no_rows() {
        let rows = Arc::new(());
        let kept = rows.clone();
        let schema = Arc::new(Schema::empty());
        let batches = stream::repeat_with(move || {
            let _rows = &kept;
            Ok(RecordBatch::new_empty(Arc::new(Schema::empty())))
        });
        let held = InMemoryStream::default();
        held.begin(Box::pin(RecordBatchStreamAdapter::new(schema.clone(), batches.take(1))));
        assert!(Arc::strong_count(&rows) > 1);
        held.end();
        assert_eq!(Arc::strong_count(&rows), 1);
        assert!(held.next().now_or_never().is_none(), "it does not end as if it were whole");
        held.begin(Box::pin(RecordBatchStreamAdapter::new(schema, stream::empty())));
        assert!(held.next().now_or_never().is_none(), "what comes after its time is not read");
    }
}

//! Rows that lie in memory as they are asked for: their stream is handed to the caller as it is, and no batch of it goes
//! from thread to thread.

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

/// They are not cut to batches of a size to compute with, but of a size to send.
const ROWS: usize = 65_536;

/// True where all that `plan` does is to hand out batches that are there.
pub(crate) fn lies_in_memory(plan: &dyn ExecutionPlan) -> bool {
    let scan = plan.downcast_ref::<DataSourceExec>();
    scan.is_some_and(|scan| scan.data_source().downcast_ref::<MemorySourceConfig>().is_some())
}

/// The partitions of such a plan, in their order. The size of batches is then that of `state`.
pub(crate) fn read(plan: Arc<dyn ExecutionPlan>, state: &mut SessionState) -> Result<SendableRecordBatchStream> {
    state.config_mut().options_mut().execution.batch_size = ConfigNonZeroUsize::try_new(ROWS)?;
    let context = state.task_ctx();
    let (schema, partitions) = (plan.schema(), plan.output_partitioning().partition_count());
    let streams = (0..partitions).map(move |partition| plan.execute(partition, context.clone()));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream::iter(streams).try_flatten())))
}

/// Such a stream, until its end or its time is up: who stalls keeps no rows for longer.
#[derive(Clone, Default)]
pub(crate) struct AtRest(Arc<Mutex<Option<SendableRecordBatchStream>>>);

impl AtRest {
    pub(crate) fn begin(&self, stream: SendableRecordBatchStream) {
        *self.lock() = Some(stream);
    }

    /// Lets go of the rows.
    pub(crate) fn end(&self) {
        let gone = self.lock().take();
        drop(gone);
    }

    /// The next batch that has rows; waits for ever where the time was up.
    pub(crate) async fn next(&self) -> Option<Result<RecordBatch>> {
        poll_fn(|cx| {
            let mut held = self.lock();
            let Some(stream) = held.as_mut() else { return Poll::Pending };
            loop {
                match ready!(stream.poll_next_unpin(cx)) {
                    Some(Ok(batch)) if batch.num_rows() == 0 => {}
                    next => return Poll::Ready(next),
                }
            }
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Option<SendableRecordBatchStream>> {
        // A stream that panicked is read no more: its caller has gone with it.
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
        let held = AtRest::default();
        held.begin(Box::pin(RecordBatchStreamAdapter::new(schema, batches.take(1))));
        assert!(Arc::strong_count(&rows) > 1);
        held.end();
        assert_eq!(Arc::strong_count(&rows), 1);
        assert!(held.next().now_or_never().is_none(), "it does not end as if it were whole");
    }
}

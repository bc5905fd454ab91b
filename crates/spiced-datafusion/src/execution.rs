//! Running a planned statement: on the queries' runtime, in a task of its own that ends when its
//! stream is dropped, within the time limit.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{EmptyRecordBatchStream, execute_stream};
use futures::{StreamExt, stream};
use spiced_engine::{Effect, EngineError, ErrorKind, Execution, Parameters, Prepared};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::engine::Shared;
use crate::error::engine_error;
use crate::session::{Own, ended};
use crate::{answer, ddl, parameters};

/// How many batches may wait for a caller that is slower than the query.
const BATCHES_AHEAD: usize = 3;

/// How much later than the query's own clock, which stands still while the query computes, the
/// other one strikes.
const GRACE: Duration = Duration::from_millis(100);

/// A statement that is planned.
pub(crate) struct Planned {
    pub(crate) shared: Arc<Shared>,
    pub(crate) own: Arc<Own>,
    pub(crate) plan: LogicalPlan,
    pub(crate) schema: SchemaRef,
    pub(crate) parameters: Schema,
    pub(crate) effect: Effect,
    /// How long planning took: the limit is on both together.
    pub(crate) spent: Duration,
}

#[async_trait]
impl Prepared for Planned {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn parameters(&self) -> &Schema {
        &self.parameters
    }

    fn effect(&self) -> Effect {
        self.effect
    }

    async fn execute(&self, parameters: Parameters) -> Result<Execution, EngineError> {
        let (ready, started) = oneshot::channel();
        let (batches, received) = mpsc::channel(BATCHES_AHEAD);
        let limit = self.shared.query_timeout;
        let run = Run {
            own: self.own.clone(),
            plan: self.plan.clone(),
            wanted: self.parameters.clone(),
            schema: self.schema.clone(),
            parameters,
            limit,
            deadline: Instant::now() + limit.saturating_sub(self.spent),
        };
        let strikes = run.deadline + GRACE;
        let caller = batches.downgrade();
        let task = AbortOnDropHandle::new(self.shared.runtime.spawn(run.drive(ready, batches)));
        let clock = self.shared.clock.handle();
        let start = clock.spawn(async move { timeout_at(strikes, started).await });
        match AbortOnDropHandle::new(start).await {
            Ok(Ok(Ok(Ok(schema)))) => {
                let query = task.abort_handle();
                let strike = AbortOnDropHandle::new(clock.spawn(async move {
                    sleep_until(strikes).await;
                    query.abort();
                    // The query may compute on for a while before it sees that; its caller need not wait.
                    if let Some(caller) = caller.upgrade() {
                        let _ = caller.send(Err(timed_out(limit))).await;
                    }
                }));
                let fetch = Fetch { received, task: Some(task), _strike: strike };
                let batches = stream::unfold(fetch, Fetch::next).boxed();
                Ok(Execution { schema, batches })
            }
            Ok(Ok(Ok(Err(error)))) => Err(error),
            Ok(Ok(Err(_gone))) => Err(match task.await {
                Ok(()) => EngineError::new(ErrorKind::Internal, "the query ended without an answer"),
                Err(failure) => ended(failure),
            }),
            Ok(Err(_elapsed)) => Err(timed_out(limit)),
            Err(failure) => Err(ended(failure)),
        }
    }
}

/// The error of a query that was not done in time.
pub(crate) fn timed_out(limit: Duration) -> EngineError {
    EngineError::new(ErrorKind::Timeout, format!("the query was not done within its limit of {limit:?}"))
}

/// One execution, on its way.
struct Run {
    own: Arc<Own>,
    plan: LogicalPlan,
    wanted: Schema,
    schema: SchemaRef,
    parameters: Parameters,
    limit: Duration,
    deadline: Instant,
}

impl Run {
    async fn drive(
        self,
        ready: oneshot::Sender<Result<SchemaRef, EngineError>>,
        batches: mpsc::Sender<Result<RecordBatch, EngineError>>,
    ) {
        let (limit, deadline, promised) = (self.limit, self.deadline, self.schema.clone());
        let stream = match timeout_at(deadline, self.start()).await {
            Ok(stream) => stream,
            Err(_elapsed) => Err(timed_out(limit)),
        };
        let mut stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                // Nobody listens: the caller has gone, and the error with it.
                let _ = ready.send(Err(error));
                return;
            }
        };
        let schema = settle(&promised, &stream.schema());
        if ready.send(Ok(schema.clone())).is_err() {
            return;
        }
        let last = loop {
            let item = match timeout_at(deadline, stream.next()).await {
                Ok(None) => return,
                Ok(Some(Ok(batch))) if batch.num_rows() == 0 => continue,
                Ok(Some(batch)) => batch.and_then(|batch| answer::conform(batch, &schema)).map_err(engine_error),
                Err(_elapsed) => Err(timed_out(limit)),
            };
            match item {
                Ok(batch) => match timeout_at(deadline, batches.send(Ok(batch))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_gone)) => return,
                    Err(_elapsed) => break timed_out(limit),
                },
                Err(error) => break error,
            }
        };
        // A caller that does not fetch may leave this waiting; the query's memory need not wait too.
        drop(stream);
        let _ = batches.send(Err(last)).await;
    }

    async fn start(self) -> Result<SendableRecordBatchStream, EngineError> {
        let plan = parameters::bind(self.plan, &self.wanted, &self.parameters)?;
        let mut state = SessionState::clone(&self.own.state());
        state.mark_start_execution();
        state.config_mut().set_extension(self.own.principal.clone());
        match plan {
            LogicalPlan::Statement(statement) => self.own.change(statement).await.map_err(engine_error)?,
            LogicalPlan::Ddl(ddl) => ddl::run(ddl, state).await?,
            plan => {
                let physical = state.create_physical_plan(&plan).await.map_err(engine_error)?;
                return execute_stream(physical, state.task_ctx()).map_err(engine_error);
            }
        }
        Ok(Box::pin(EmptyRecordBatchStream::new(Arc::new(Schema::empty()))))
    }
}

/// The schema of the batches: the one that was promised where the batches keep to it (it may leave
/// more open, such as nulls), else their own.
fn settle(promised: &SchemaRef, actual: &SchemaRef) -> SchemaRef {
    let actual = answer::plain_schema(actual);
    if promised.contains(&actual) { promised.clone() } else { actual }
}

/// The receiving end: it does nothing but wait.
struct Fetch {
    received: mpsc::Receiver<Result<RecordBatch, EngineError>>,
    /// Dropping it ends the query.
    task: Option<AbortOnDropHandle<()>>,
    /// What ends the query at its limit, wherever it is.
    _strike: AbortOnDropHandle<()>,
}

impl Fetch {
    async fn next(mut self) -> Option<(Result<RecordBatch, EngineError>, Self)> {
        if let Some(item) = self.received.recv().await {
            return Some((item, self));
        }
        match self.task.take()?.await {
            Ok(()) => None,
            Err(failure) => Some((Err(ended(failure)), self)),
        }
    }
}

impl Debug for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Planned").field("effect", &self.effect).field("schema", &self.schema).finish_non_exhaustive()
    }
}

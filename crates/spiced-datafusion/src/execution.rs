//! Running a planned statement: on the queries' runtime, in a task of its own that ends when its
//! stream is dropped, within the time limit. Rows that lie in memory as they are asked for need no task.

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
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::at_rest::AtRest;
use crate::engine::Shared;
use crate::error::engine_error;
use crate::plans::Known;
use crate::session::{Own, Strike, ended};
use crate::{answer, at_rest, ddl, functions, parameters};

/// How many batches may wait for a caller that is slower than the query.
const BATCHES_AHEAD: usize = 3;

/// How much later than the query's own clock, which stands still while the query computes, the
/// other one strikes.
const GRACE: Duration = Duration::from_millis(100);

/// A statement that is planned.
pub(crate) struct Planned {
    pub(crate) shared: Arc<Shared>,
    pub(crate) own: Arc<Own>,
    pub(crate) known: Arc<Known>,
    /// How long planning took: the limit is on both together.
    pub(crate) spent: Duration,
}

#[async_trait]
impl Prepared for Planned {
    fn schema(&self) -> SchemaRef {
        self.known.schema.clone()
    }

    fn parameters(&self) -> &Schema {
        &self.known.parameters
    }

    fn effect(&self) -> Effect {
        self.known.effect
    }

    async fn execute(&self, parameters: Parameters) -> Result<Execution, EngineError> {
        let (ready, started) = oneshot::channel();
        let (batches, received) = mpsc::channel(BATCHES_AHEAD);
        let limit = self.shared.query_timeout;
        let run = Run {
            shared: self.shared.clone(),
            own: self.own.clone(),
            known: self.known.clone(),
            parameters,
            limit,
            deadline: Instant::now() + limit.saturating_sub(self.spent),
        };
        let strikes = (run.deadline + GRACE).into_std();
        let task = AbortOnDropHandle::new(self.shared.runtime.spawn(run.drive(ready, batches)));
        let (work, held) = (task.abort_handle(), AtRest::default());
        let holds = held.clone();
        let mut strike = self.shared.strike(strikes, move || {
            work.abort();
            holds.end();
        });
        let started = tokio::select! {
            biased;
            started = started => started,
            () = strike.comes() => return Err(timed_out(limit)),
        };
        match started {
            Ok(Ok(Begun { schema, at_rest })) => {
                let source = match at_rest {
                    Some(stream) => {
                        held.begin(stream);
                        Source::AtRest(held)
                    }
                    None => Source::Task { received, task },
                };
                let fetch = Fetch { source: Some(source), strike, limit };
                let batches = stream::unfold(fetch, Fetch::next).boxed();
                Ok(Execution { schema, batches })
            }
            Ok(Err(error)) => Err(error),
            Err(_gone) => Err(match task.await {
                Ok(()) => EngineError::new(ErrorKind::Internal, "the query ended without an answer"),
                Err(_) if strike.has_come() => timed_out(limit),
                Err(failure) => ended(failure),
            }),
        }
    }
}

/// The error of a query that was not done in time.
pub(crate) fn timed_out(limit: Duration) -> EngineError {
    EngineError::new(ErrorKind::Timeout, format!("the query was not done within its limit of {limit:?}"))
}

/// An execution that has begun to answer.
struct Begun {
    schema: SchemaRef,
    /// All batches, where nothing is left to be computed.
    at_rest: Option<SendableRecordBatchStream>,
}

/// One execution, on its way.
struct Run {
    shared: Arc<Shared>,
    own: Arc<Own>,
    known: Arc<Known>,
    parameters: Parameters,
    limit: Duration,
    deadline: Instant,
}

impl Run {
    async fn drive(
        self,
        ready: oneshot::Sender<Result<Begun, EngineError>>,
        batches: mpsc::Sender<Result<RecordBatch, EngineError>>,
    ) {
        let (limit, deadline, promised) = (self.limit, self.deadline, self.known.schema.clone());
        let stream = match timeout_at(deadline, self.start()).await {
            Ok(stream) => stream,
            Err(_elapsed) => Err(timed_out(limit)),
        };
        let (mut stream, is_at_rest) = match stream {
            Ok(stream) => stream,
            Err(error) => {
                // Nobody listens: the caller has gone, and the error with it.
                let _ = ready.send(Err(error));
                return;
            }
        };
        let schema = settle(&promised, &stream.schema());
        if is_at_rest && stream.schema() == schema {
            let _ = ready.send(Ok(Begun { schema, at_rest: Some(stream) }));
            return;
        }
        if ready.send(Ok(Begun { schema: schema.clone(), at_rest: None })).is_err() {
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

    /// The batches, and whether they only have to be read from memory.
    async fn start(self) -> Result<(SendableRecordBatchStream, bool), EngineError> {
        let Self { shared, known, .. } = &self;
        let plan = parameters::bind(known.plan.clone(), &known.parameters, &self.parameters)?;
        let own = self.own.state();
        let is_unset = shared.is_unset(&own);
        let mut state = SessionState::clone(&own);
        functions::watch(state.config_mut().options_mut(), self.deadline.into_std());
        state.mark_start_execution();
        state.config_mut().set_extension(self.own.principal.clone());
        match plan {
            LogicalPlan::Statement(statement) => self.own.change(statement).await.map_err(engine_error)?,
            LogicalPlan::Ddl(ddl) => {
                let _change = shared.plans.forgets();
                ddl::run(ddl, state).await?;
            }
            plan => {
                // What a session has set steers the optimizer too.
                let optimized = if is_unset { known.optimized(&state).map_err(engine_error)? } else { None };
                let physical = match optimized {
                    Some(optimized) => state.query_planner().create_physical_plan(optimized, &state).await,
                    None => state.create_physical_plan(&plan).await,
                };
                let physical = physical.map_err(engine_error)?;
                let is_at_rest = is_unset && at_rest::lies_in_memory(physical.as_ref());
                let stream = if is_at_rest {
                    at_rest::read(physical, &mut state)
                } else {
                    execute_stream(physical, state.task_ctx())
                };
                return stream.map(|stream| (stream, is_at_rest)).map_err(engine_error);
            }
        }
        Ok((Box::pin(EmptyRecordBatchStream::new(Arc::new(Schema::empty()))), false))
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
    /// `None` where all has been said.
    source: Option<Source>,
    /// What ends the query at its limit, wherever it is.
    strike: Strike,
    limit: Duration,
}

enum Source {
    /// A query that computes. Dropping the task ends it.
    Task {
        received: mpsc::Receiver<Result<RecordBatch, EngineError>>,
        task: AbortOnDropHandle<()>,
    },
    AtRest(AtRest),
}

impl Source {
    async fn next(&mut self) -> Option<Result<RecordBatch, EngineError>> {
        match self {
            Self::Task { received, .. } => received.recv().await,
            Self::AtRest(held) => held.next().await.map(|batch| batch.map_err(engine_error)),
        }
    }

    /// Why there is no more.
    async fn end(self) -> Result<(), tokio::task::JoinError> {
        match self {
            Self::Task { task, .. } => task.await,
            Self::AtRest(_) => Ok(()),
        }
    }
}

impl Fetch {
    async fn next(mut self) -> Option<(Result<RecordBatch, EngineError>, Self)> {
        let source = self.source.as_mut()?;
        let item = tokio::select! {
            biased;
            item = source.next() => item,
            () = self.strike.comes() => {
                self.source = None;
                return Some((Err(timed_out(self.limit)), self));
            }
        };
        if let Some(item) = item {
            return Some((item, self));
        }
        match self.source.take()?.end().await {
            Ok(()) => None,
            Err(_) if self.strike.has_come() => Some((Err(timed_out(self.limit)), self)),
            Err(failure) => Some((Err(ended(failure)), self)),
        }
    }
}

impl Debug for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Known { effect, schema, .. } = &*self.known;
        f.debug_struct("Planned").field("effect", effect).field("schema", schema).finish_non_exhaustive()
    }
}

//! Runs a planned statement in a task on the queries' runtime, within the time limit; the task ends when its stream is
//! dropped. While a result waits for its reader, it holds few rows, which count against the shared memory, and lets
//! another statement run. Rows that are already in memory in the requested form need no task.

pub(crate) mod coalesce;
pub(crate) mod deadline;
pub(crate) mod deadline_timer;
pub(crate) mod in_memory;
pub(crate) mod memory;
pub(crate) mod memory_watch;
pub(crate) mod runtime;
pub(crate) mod spill;
pub(crate) mod stall_watch;
pub(crate) mod work;

use std::fmt::Debug;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::can_cast_types;
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::config::ConfigNonZeroUsize;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SessionState;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{EmptyRecordBatchStream, execute_stream};
use futures::{StreamExt, stream};
use spiced_engine::{Effect, EngineError, ErrorKind, Execution, Parameters, Prepared, Slot, rows_size};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::catalog::ddl;
use crate::engine::plan_cache::CachedPlan;
use crate::engine::planner::{self, SessionOwn};
use crate::engine::shared::EngineShared;
use crate::error::{ended, engine_error, smaller_batches, timed_out};
use crate::execution::deadline::DeadlineGuard;
use crate::execution::in_memory::InMemoryStream;
use crate::execution::work::{Work, uninterrupted};
use crate::functions;
use crate::planning::output_schema;
use crate::proven::Proven;
use crate::sql::parameters;

/// How many batches may wait for a caller that is slower than the query.
const BATCHES_AHEAD: usize = 3;

/// How many bytes of rows may wait for such a caller before the query must wait; a larger batch waits alone.
const BYTES_AHEAD: usize = 2 << 20;

/// How much later than the query's own timer, which does not advance while the query computes, the deadline timer
/// fires.
const GRACE: Duration = Duration::from_millis(100);

/// A planned statement.
pub(crate) struct Planned {
    pub(crate) shared: Arc<EngineShared>,
    pub(crate) own: Arc<SessionOwn>,
    pub(crate) known: Proven<CachedPlan>,
    /// The time spent on planning: the limit covers planning and execution together.
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

    async fn schema_with(&self, parameters: &Parameters) -> Result<SchemaRef, EngineError> {
        let values = parameters::values(&self.known.parameters, parameters)?;
        if values.is_empty() {
            return Ok(self.known.schema.clone());
        }
        let (shared, own, known) = (self.shared.clone(), self.own.clone(), self.known.clone());
        let work = planner::bound_schema(shared, own, known, values);
        self.shared.within_limit(self.own.principal.role(), work).await?
    }

    async fn execute(&self, parameters: Parameters) -> Result<Execution, EngineError> {
        let (ready, started) = oneshot::channel();
        let (batches, received) = mpsc::channel(BATCHES_AHEAD);
        let (received, rows) = (Received::new(received), InMemoryStream::default());
        let (slot, begun, stop) = (Slot::take_current(), self.shared.overdue.begin(), CancellationToken::new());
        let is_late = begun.deadline();
        let limit = self.shared.query_timeout;
        let run = Run {
            shared: self.shared.clone(),
            own: self.own.clone(),
            known: self.known.clone(),
            parameters,
            limit,
            deadline: Instant::now() + limit.saturating_sub(self.spent),
            slot,
            stop: stop.clone(),
            rows: rows.clone(),
            _begun: begun,
        };
        let strikes = (run.deadline + GRACE).into_std();
        let runtime = self.shared.runtimes.of(self.own.principal.role());
        let task = run.spawn_on(runtime, ready, batches);
        let (work, held) = (task.abort_handle(), InMemoryStream::default());
        let (holds, stops, ahead) = (held.clone(), stop.clone(), received.clone());
        let mut strike = self.shared.strike(strikes, move || {
            work.abort();
            stops.cancel();
            // What the reader is not using is released now, and not when the task is next polled.
            holds.end();
            rows.end_if_idle();
            ahead.end();
            is_late();
        });
        // A disconnected caller stops the planning too.
        let _stops = stop.drop_guard();
        let started = tokio::select! {
            biased;
            started = started => started,
            why = strike.comes() => return Err(why),
        };
        match started {
            Ok(Ok(Begun { schema, at_rest })) => {
                let source = match at_rest {
                    Some(stream) => {
                        held.begin(stream);
                        Source::InMemory(held)
                    }
                    None => Source::Task { received, task, held: None },
                };
                strike.watched.is_awaited(false);
                let fetch = Fetch { source: Some(source), strike };
                let batches = stream::unfold(fetch, Fetch::next).boxed();
                Ok(Execution { schema, batches })
            }
            Ok(Err(error)) => Err(error),
            Err(_gone) => Err(match task.await {
                Ok(()) => EngineError::new(ErrorKind::Internal, "the query ended without an answer"),
                Err(failure) => strike.has_come().unwrap_or_else(|| ended(failure)),
            }),
        }
    }
}

/// An execution that has started to return its result.
struct Begun {
    schema: SchemaRef,
    /// All batches, if nothing is left to compute.
    at_rest: Option<SendableRecordBatchStream>,
}

/// One running execution.
struct Run {
    shared: Arc<EngineShared>,
    own: Arc<SessionOwn>,
    known: Proven<CachedPlan>,
    parameters: Parameters,
    limit: Duration,
    deadline: Instant,
    slot: Option<Slot>,
    /// Stops planning when the deadline has expired or the caller has disconnected.
    stop: CancellationToken,
    /// The rows while they are computed.
    rows: InMemoryStream,
    _begun: Work,
}

/// A batch that waits for its reader, and the resources that it holds meanwhile.
struct Waiting {
    batch: RecordBatch,
    held: Waits,
}

/// The memory and the queue space of a batch that waits or that its reader is using.
struct Waits {
    _memory: MemoryReservation,
    _room: OwnedSemaphorePermit,
}

/// The batches that wait for their reader, until they are released.
#[derive(Clone)]
struct Received(Arc<Mutex<Option<Receiver>>>);

type Receiver = mpsc::Receiver<Result<Waiting, EngineError>>;

impl Received {
    fn new(received: Receiver) -> Self {
        Self(Arc::new(Mutex::new(Some(received))))
    }

    /// Releases these batches and all later ones.
    fn end(&self) {
        let before = self.lock().take();
        // Dropped outside the lock.
        drop(before);
    }

    /// Returns the next batch; waits forever after they were released.
    async fn next(&self) -> Option<Result<Waiting, EngineError>> {
        poll_fn(|cx| match &mut *self.lock() {
            Some(received) => received.poll_recv(cx),
            None => Poll::Pending,
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Option<mpsc::Receiver<Result<Waiting, EngineError>>>> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    fn spawn_on(
        self,
        runtime: &Handle,
        ready: oneshot::Sender<Result<Begun, EngineError>>,
        batches: mpsc::Sender<Result<Waiting, EngineError>>,
    ) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(runtime.spawn(self.drive(ready, batches)))
    }

    async fn drive(
        mut self,
        ready: oneshot::Sender<Result<Begun, EngineError>>,
        batches: mpsc::Sender<Result<Waiting, EngineError>>,
    ) {
        let (limit, deadline) = (self.limit, self.deadline);
        let stream = match timeout_at(deadline, self.start(None)).await {
            Ok(stream) => stream,
            Err(_elapsed) => Err(timed_out(limit)),
        };
        let Started { stream, promised, is_at_rest, mut restart } = match stream {
            Ok(stream) => stream,
            Err(error) => {
                // The receiver is gone: the caller has disconnected, and the error has no recipient.
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
        let rows = self.rows.clone();
        rows.begin(stream);
        let room = Arc::new(Semaphore::new(BYTES_AHEAD));
        let last = loop {
            // The query waits instead of its rows: the next batch is computed when there is space for it.
            let mut taken = match room.clone().try_acquire_owned() {
                Ok(first) => first,
                Err(_) => match timeout_at(deadline, self.paused(room.clone().acquire_owned(), &batches)).await {
                    Ok(Some(Ok(first))) => first,
                    Ok(_gone) => return,
                    Err(_elapsed) => break timed_out(limit),
                },
            };
            let item = match timeout_at(deadline, rows.next()).await {
                Ok(None) => return,
                Ok(Some(Err(error))) if restart.is_some() && smaller_batches(&error).is_some() => {
                    // None of the rows was handed out, and a statement that can start again only reads.
                    match timeout_at(deadline, self.start(smaller_batches(&error))).await {
                        Ok(Ok(again)) => {
                            rows.begin_again(again.stream);
                            restart = again.restart;
                            continue;
                        }
                        Ok(Err(error)) => Err(error),
                        Err(_elapsed) => Err(timed_out(limit)),
                    }
                }
                Ok(Some(batch)) => batch.and_then(|batch| output_schema::conform(batch, &schema)).map_err(engine_error),
                Err(_elapsed) => Err(timed_out(limit)),
            };
            if let Some(restart) = restart.take() {
                restart.end();
            }
            let batch = match item.and_then(|batch| {
                let size = usize::try_from(rows_size(&batch)).unwrap_or(usize::MAX);
                let memory = self.shared.reserve("rows that wait for their reader", size)?;
                let more = u32::try_from(size.saturating_sub(1).min(room.available_permits())).unwrap_or(u32::MAX);
                if let Ok(more) = room.clone().try_acquire_many_owned(more) {
                    taken.merge(more);
                }
                Ok(Waiting { batch, held: Waits { _memory: memory, _room: taken } })
            }) {
                Ok(batch) => batch,
                Err(error) => break error,
            };
            let sent = match batches.try_send(Ok(batch)) {
                Ok(()) => Ok(Ok(())),
                Err(TrySendError::Closed(_)) => return,
                Err(TrySendError::Full(batch)) => {
                    timeout_at(deadline, async { self.paused(batches.send(batch), &batches).await.unwrap_or(Ok(())) })
                        .await
                }
            };
            match sent {
                Ok(Ok(())) => {}
                Ok(Err(_gone)) => return,
                Err(_elapsed) => break timed_out(limit),
            }
        };
        // A caller that does not fetch may leave this send waiting; the query's memory and its slot are released first.
        rows.end();
        drop(self);
        let _ = batches.send(Err(last)).await;
    }

    /// Waits for `reader`, which completes when the result's reader makes progress, and lets another statement run
    /// meanwhile. Returns `None` if the reader has disconnected.
    async fn paused<T>(
        &mut self,
        reader: impl Future<Output = T>,
        batches: &mpsc::Sender<Result<Waiting, EngineError>>,
    ) -> Option<T> {
        if let Some(slot) = &mut self.slot {
            slot.pause();
        }
        let went_on = tokio::select! {
            went_on = reader => went_on,
            () = batches.closed() => return None,
        };
        if let Some(slot) = &mut self.slot {
            slot.resume().await;
        }
        Some(went_on)
    }

    /// Returns the batches, and whether they only have to be read from memory. With `batch_size`, the operators make
    /// batches of at most so many rows.
    async fn start(&self, batch_size: Option<usize>) -> Result<Started, EngineError> {
        let Self { shared, known, .. } = self;
        let values = parameters::values(&known.parameters, &self.parameters)?;
        let known = match values.is_empty() {
            true => known.clone(),
            false => {
                let bound = planner::bind(shared, &self.own, known, &values);
                Proven::new(uninterrupted(&self.stop, bound).ok_or_else(|| timed_out(self.limit))??)
            }
        };
        let (plan, promised) = (known.plan.clone(), known.schema.clone());
        let own = self.own.state();
        let is_unset = shared.is_unset(&own);
        // A plan for specific parameter values is optimized only once.
        let is_kept = is_unset && values.is_empty();
        let mut state = SessionState::clone(&own);
        functions::watch(state.config_mut().options_mut(), self.deadline.into_std());
        state.mark_start_execution();
        state.config_mut().set_extension(self.own.principal.clone());
        let restart = (known.effect == Effect::Read).then(|| functions::Restart::allow(state.config_mut()));
        if let Some(rows) = batch_size {
            set_batch_size(&mut state, rows)?;
        }
        match plan {
            LogicalPlan::Statement(statement) => {
                self.own.change(statement, known.statement.as_deref()).await.map_err(engine_error)?;
            }
            LogicalPlan::Ddl(ddl) => {
                let _change = shared.plans.forgets();
                ddl::run(ddl, state).await?;
            }
            plan => {
                // The session's settings affect the optimizer too.
                let physical = match known.kept_optimized().filter(|_| is_kept) {
                    Some(optimized) => state.query_planner().create_physical_plan(optimized, &state).await,
                    None => {
                        let planned = async {
                            let optimized = if is_kept { known.optimized(&state)? } else { None };
                            match optimized {
                                Some(optimized) => state.query_planner().create_physical_plan(optimized, &state).await,
                                None => state.create_physical_plan(&plan).await,
                            }
                        };
                        uninterrupted(&self.stop, planned).ok_or_else(|| timed_out(self.limit))?
                    }
                };
                let physical = physical.map_err(engine_error)?;
                let is_at_rest = is_unset && in_memory::lies_in_memory(physical.as_ref());
                if let Some(rows) = functions::careful_batch_size(physical.as_ref(), state.config().batch_size()) {
                    set_batch_size(&mut state, rows)?;
                }
                let stream = if is_at_rest {
                    in_memory::read(physical, &mut state)
                } else {
                    execute_stream(physical, state.task_ctx())
                };
                let started = |stream| Started { stream, promised, is_at_rest, restart };
                return stream.map(started).map_err(engine_error);
            }
        }
        let stream = Box::pin(EmptyRecordBatchStream::new(Arc::new(Schema::empty())));
        Ok(Started { stream, promised, is_at_rest: false, restart: None })
    }
}

/// Sets how many rows the operators put into a batch, at least one.
fn set_batch_size(state: &mut SessionState, rows: usize) -> Result<(), EngineError> {
    let rows = ConfigNonZeroUsize::try_new(rows.max(1)).map_err(engine_error)?;
    state.config_mut().options_mut().execution.batch_size = rows;
    Ok(())
}

/// A statement that produces its batches.
struct Started {
    stream: SendableRecordBatchStream,
    /// The schema that was announced.
    promised: SchemaRef,
    /// Whether the batches only have to be read from memory.
    is_at_rest: bool,
    /// Whether the statement can start again with smaller batches; `None` if it changes something.
    restart: Option<Arc<functions::Restart>>,
}

/// Returns the schema of the batches: the announced schema, which [`output_schema::conform`] enforces, or the batches'
/// own schema if no cast leads to it.
fn settle(promised: &SchemaRef, actual: &SchemaRef) -> SchemaRef {
    let (wanted, given) = (promised.fields(), actual.fields());
    let leads = |(wanted, given): (&Arc<Field>, &Arc<Field>)| can_cast_types(given.data_type(), wanted.data_type());
    if wanted.len() == given.len() && wanted.iter().zip(given).all(leads) {
        promised.clone()
    } else {
        output_schema::plain_schema(actual)
    }
}

/// The receiving end, which only waits.
struct Fetch {
    /// `None` after the end of the result.
    source: Option<Source>,
    /// Ends the query at its limit, wherever it is.
    strike: DeadlineGuard,
}

enum Source {
    /// A query that is computing. Dropping the task ends it.
    Task {
        received: Received,
        task: AbortOnDropHandle<()>,
        /// The resources of the batch that the reader has: they are held until the next batch is requested.
        held: Option<Waits>,
    },
    InMemory(InMemoryStream),
}

impl Source {
    async fn next(&mut self) -> Option<Result<RecordBatch, EngineError>> {
        match self {
            Self::Task { received, held, .. } => {
                *held = None;
                let Waiting { batch, held: waits } = match received.next().await? {
                    Ok(waiting) => waiting,
                    Err(error) => return Some(Err(error)),
                };
                *held = Some(waits);
                Some(Ok(batch))
            }
            Self::InMemory(held) => held.next().await.map(|batch| batch.map_err(engine_error)),
        }
    }

    /// Returns why there are no more batches.
    async fn end(self) -> Result<(), tokio::task::JoinError> {
        match self {
            Self::Task { task, .. } => task.await,
            Self::InMemory(_) => Ok(()),
        }
    }
}

impl Fetch {
    async fn next(mut self) -> Option<(Result<RecordBatch, EngineError>, Self)> {
        let source = self.source.as_mut()?;
        self.strike.watched.is_awaited(true);
        let item = tokio::select! {
            biased;
            item = source.next() => item,
            why = self.strike.comes() => {
                self.source = None;
                return Some((Err(why), self));
            }
        };
        if let Some(item) = item {
            self.strike.watched.is_awaited(false);
            return Some((item, self));
        }
        match self.source.take()?.end().await {
            Ok(()) => None,
            Err(failure) => Some((Err(self.strike.has_come().unwrap_or_else(|| ended(failure))), self)),
        }
    }
}

impl Debug for Planned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let CachedPlan { effect, schema, .. } = &*self.known;
        f.debug_struct("Planned").field("effect", effect).field("schema", schema).finish_non_exhaustive()
    }
}

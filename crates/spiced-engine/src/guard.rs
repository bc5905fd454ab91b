//! The one place where a caller's role is compared with the effect of a statement, where statements wait for a slot,
//! and where observers are notified.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use async_trait::async_trait;
use futures::{Stream, StreamExt};
use tokio::sync::watch;

use crate::engine::{
    Batches, Catalog, DatasetStatus, Dialect, Engine, Execution, Parameters, Prepared, Session, Statement,
};
use crate::{AdmissionControl, Effect, EngineError, ErrorKind, Ingest, Principal, ResultLimits, Role, Slot};

/// An engine that checks every statement against the caller's role.
///
/// The check is made when a statement is prepared. A statement that may not run is therefore never kept, and a
/// statement that one caller prepared cannot be run by another.
pub struct Guarded<E> {
    engine: E,
    rules: Arc<Rules>,
}

/// The rules for all sessions.
#[derive(Clone, Default)]
struct Rules {
    observers: Vec<Arc<dyn StatementObserver>>,
    admission: AdmissionControl,
    bounds: ResultLimits,
}

/// Receives a record of every statement that ran, failed to be planned, or was denied.
pub trait StatementObserver: Send + Sync + 'static {
    /// Called once for each execution, when the statement ends or is rejected before it starts. It must not block.
    fn on_complete(&self, seen: &StatementRecord<'_>);
}

/// The record of a statement that has ended.
#[derive(Debug, Clone, Copy)]
pub struct StatementRecord<'a> {
    /// The caller.
    pub principal: &'a Principal,
    /// The statement.
    pub statement: &'a Statement,
    /// The effect; `None` if the statement could not be planned.
    pub effect: Option<Effect>,
    /// How it ended.
    pub outcome: Outcome,
    /// The cause, if it failed or was denied.
    pub error: Option<&'a EngineError>,
    /// When it arrived.
    pub started: SystemTime,
    /// How long it waited for a slot.
    pub queued: Duration,
    /// The time from its arrival until the last batch was fetched.
    pub took: Duration,
    /// The number of rows that were fetched.
    pub rows: u64,
}

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It had its effect, or the whole result was fetched.
    Done,
    /// It ended with an error.
    Failed,
    /// The caller disconnected or stopped it before it completed: it may have had part of its effect.
    Cancelled,
    /// The caller lacks the permission: it was not started.
    Denied,
}

impl<E: Engine> Guarded<E> {
    /// Guards `engine`, with the default [`AdmissionControl`] and without result limits.
    pub fn new(engine: E) -> Self {
        Self { engine, rules: Arc::default() }
    }

    /// Adds an observer.
    #[must_use]
    pub fn observed(self, observer: Arc<dyn StatementObserver>) -> Self {
        self.ruled(|rules| rules.observers.push(observer))
    }

    /// Limits concurrent statements by `admission`. A statement holds a slot from planning until its work has ended
    /// ([`Slot`]).
    #[must_use]
    pub fn admitted_by(self, admission: AdmissionControl) -> Self {
        self.ruled(|rules| rules.admission = admission)
    }

    /// Limits the size of every query result.
    #[must_use]
    pub fn limited(self, bounds: ResultLimits) -> Self {
        self.ruled(|rules| rules.bounds = bounds)
    }

    fn ruled(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(Arc::make_mut(&mut self.rules));
        self
    }
}

#[async_trait]
impl<E: Engine> Engine for Guarded<E> {
    async fn session(&self, principal: &Principal) -> Result<Box<dyn Session>, EngineError> {
        let inner = self.engine.session(principal).await?;
        Ok(Box::new(GuardedSession { inner, principal: principal.clone(), rules: self.rules.clone() }))
    }

    fn datasets(&self) -> watch::Receiver<Vec<DatasetStatus>> {
        self.engine.datasets()
    }

    fn dialect(&self) -> Option<Dialect> {
        self.engine.dialect()
    }
}

struct GuardedSession {
    inner: Box<dyn Session>,
    principal: Principal,
    rules: Arc<Rules>,
}

#[async_trait]
impl Session for GuardedSession {
    async fn prepare(&self, statement: Statement) -> Result<Box<dyn Prepared>, EngineError> {
        let mut asked = self.asked(statement.clone());
        let slot = self.admit(&mut asked).await?;
        let (planned, slot) = Slot::within(Some(slot), self.inner.prepare(statement)).await;
        self.guard(planned, asked, slot)
    }

    async fn ingest(&self, ingest: Ingest) -> Result<Box<dyn Prepared>, EngineError> {
        let mut asked = self.asked(Statement::Sql(format!("INGEST INTO {}", ingest.table)));
        asked.routine = ingest.routine;
        let least = Effect::Write;
        if let Err(denied) = permit(self.principal.role(), least) {
            // Checked before the table is looked up: the caller must not learn this way whether it exists.
            asked.told(Some(least), Outcome::Denied, Some(&denied), 0);
            return Err(denied);
        }
        let slot = self.admit(&mut asked).await?;
        let (planned, slot) = Slot::within(Some(slot), self.inner.ingest(ingest)).await;
        self.guard(planned, asked, slot)
    }

    /// Sets an option of the caller's own session, which every role may do.
    async fn set(&self, name: &str, value: Option<&str>) -> Result<(), EngineError> {
        self.inner.set(name, value).await
    }

    async fn catalog(&self) -> Result<Catalog, EngineError> {
        self.inner.catalog().await
    }
}

impl GuardedSession {
    fn asked(&self, statement: Statement) -> StatementContext {
        StatementContext {
            rules: self.rules.clone(),
            principal: self.principal.clone(),
            statement,
            started: (SystemTime::now(), Instant::now()),
            queued: Duration::ZERO,
            routine: false,
        }
    }

    async fn admit(&self, asked: &mut StatementContext) -> Result<Slot, EngineError> {
        let slot = self.rules.admission.admit(&self.principal).await;
        asked.queued = asked.started.1.elapsed();
        slot.inspect_err(|error| asked.told(None, Outcome::Failed, Some(error), 0))
    }

    /// Accepts a planned statement if the caller has the permission, and makes sure that its end is recorded.
    fn guard(
        &self,
        planned: Result<Box<dyn Prepared>, EngineError>,
        asked: StatementContext,
        slot: Option<Slot>,
    ) -> Result<Box<dyn Prepared>, EngineError> {
        let inner = planned.inspect_err(|error| match error.kind() {
            // The engine denies statements that no role may run, because it alone knows the plan.
            ErrorKind::Denied => asked.told(Some(Effect::Write), Outcome::Denied, Some(error), 0),
            _ => asked.told(None, Outcome::of(error), Some(error), 0),
        })?;
        let effect = inner.effect();
        permit(self.principal.role(), effect)
            .inspect_err(|denied| asked.told(Some(effect), Outcome::Denied, Some(denied), 0))?;
        Ok(Box::new(GuardedStatement { inner, held: Arc::new(Held { asked, effect, slot: Mutex::new(slot) }) }))
    }
}

/// Checks that `role` permits `effect`.
fn permit(role: Role, effect: Effect) -> Result<(), EngineError> {
    let what = match (role, effect) {
        (Role::ReadWrite, _) | (Role::ReadOnly, Effect::Read | Effect::Session) => return Ok(()),
        (Role::ReadOnly, Effect::Write) => "changes data",
        (Role::ReadOnly, Effect::Ddl) => "changes definitions",
        (Role::ReadOnly, Effect::Admin) => "reaches outside the engine",
    };
    Err(EngineError::new(ErrorKind::Denied, format!("the statement {what}, and this caller may only read")))
}

/// A statement as it arrived.
struct StatementContext {
    rules: Arc<Rules>,
    principal: Principal,
    statement: Statement,
    started: (SystemTime, Instant),
    queued: Duration,
    routine: bool,
}

impl StatementContext {
    fn told(&self, effect: Option<Effect>, outcome: Outcome, error: Option<&EngineError>, rows: u64) {
        let Self { rules, principal, statement, started: (started, since), queued, routine } = self;
        if *routine && outcome == Outcome::Done {
            return;
        }
        let (started, queued, took) = (*started, *queued, since.elapsed());
        let seen = StatementRecord { principal, statement, effect, outcome, error, started, queued, took, rows };
        rules.observers.iter().for_each(|observer| observer.on_complete(&seen));
    }
}

/// A planned statement.
struct GuardedStatement {
    inner: Box<dyn Prepared>,
    held: Arc<Held>,
}

struct Held {
    asked: StatementContext,
    effect: Effect,
    /// The slot of the first execution; each later execution is admitted separately.
    slot: Mutex<Option<Slot>>,
}

impl Held {
    fn take_slot(&self) -> Option<Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[async_trait]
impl Prepared for GuardedStatement {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    async fn schema_with(&self, parameters: &Parameters) -> Result<SchemaRef, EngineError> {
        self.inner.schema_with(parameters).await
    }

    fn parameters(&self) -> &Schema {
        self.inner.parameters()
    }

    fn effect(&self) -> Effect {
        self.inner.effect()
    }

    async fn execute(&self, parameters: Parameters) -> Result<Execution, EngineError> {
        // Created first, so that it is dropped, and records the end, if the caller disconnects meanwhile.
        let mut ending = Ending { held: self.held.clone(), outcome: Outcome::Cancelled, error: None, rows: 0 };
        let slot = match self.held.take_slot() {
            Some(slot) => slot,
            None => self.held.asked.rules.admission.admit(&self.held.asked.principal).await.inspect_err(|error| {
                ending.failed(error);
            })?,
        };
        let (execution, slot) = Slot::within(Some(slot), self.inner.execute(parameters)).await;
        match execution {
            Ok(execution) => {
                let bounds = match self.held.effect {
                    Effect::Read => self.held.asked.rules.bounds,
                    _ => ResultLimits::default(),
                };
                let Execution { schema, batches } = execution.limited(bounds);
                Ok(Execution { schema, batches: ObservedBatches { inner: batches, ending, _slot: slot }.boxed() })
            }
            Err(error) => {
                ending.failed(&error);
                Err(error)
            }
        }
    }
}

impl Outcome {
    /// Returns the one-word name that is used in logs and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Denied => "denied",
        }
    }

    fn of(error: &EngineError) -> Self {
        if error.kind() == ErrorKind::Cancelled { Self::Cancelled } else { Self::Failed }
    }
}

/// Records the outcome of an execution when it is dropped.
struct Ending {
    held: Arc<Held>,
    outcome: Outcome,
    error: Option<EngineError>,
    rows: u64,
}

impl Ending {
    fn failed(&mut self, error: &EngineError) {
        (self.outcome, self.error) = (Outcome::of(error), Some(error.clone()));
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.held.asked.told(Some(self.held.effect), self.outcome, self.error.as_ref(), self.rows);
    }
}

struct ObservedBatches {
    inner: Batches,
    ending: Ending,
    /// The slot, if the engine did not take it.
    _slot: Option<Slot>,
}

impl Stream for ObservedBatches {
    type Item = Result<RecordBatch, EngineError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.inner.poll_next_unpin(cx);
        match &polled {
            Poll::Ready(None) if self.ending.outcome == Outcome::Cancelled => self.ending.outcome = Outcome::Done,
            Poll::Ready(Some(Ok(batch))) => self.ending.rows += batch.num_rows() as u64,
            Poll::Ready(Some(Err(error))) => self.ending.failed(error),
            _ => {}
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine_fn;

    #[test]
    fn a_reader_reads_and_a_writer_does_all() {
        for effect in [Effect::Read, Effect::Session, Effect::Write, Effect::Ddl, Effect::Admin] {
            assert!(permit(Role::ReadWrite, effect).is_ok());
            let reads = matches!(effect, Effect::Read | Effect::Session);
            let answer = permit(Role::ReadOnly, effect);
            assert_eq!(answer.is_ok(), reads, "{effect:?}");
            assert!(reads || answer.is_err_and(|e| e.kind() == ErrorKind::Denied));
        }
    }

    /// Records how statements ended.
    #[derive(Default)]
    struct Kept(Mutex<Vec<(Option<Effect>, Outcome, u64)>>);

    impl StatementObserver for Kept {
        fn on_complete(&self, seen: &StatementRecord<'_>) {
            self.0.lock().unwrap().push((seen.effect, seen.outcome, seen.rows));
        }
    }

    #[tokio::test]
    async fn each_end_is_told_once() {
        let kept = Arc::new(Kept::default());
        let column: arrow_array::ArrayRef = Arc::new(arrow_array::Int64Array::from(vec![1, 2]));
        let batch = RecordBatch::try_from_iter([("x", column)]).unwrap();
        let answer = move |sql: &str, _: &_| match sql {
            "bad" => Err(EngineError::new(ErrorKind::InvalidStatement, "bad")),
            _ => Ok(Execution::of(vec![batch.clone()])),
        };
        let engine = Guarded::new(engine_fn(answer)).observed(kept.clone());
        let session = engine.session(&Principal::new("p", Role::ReadOnly)).await.unwrap();
        let read = session.prepare(Statement::Sql("SELECT 1".to_owned())).await.unwrap();
        read.execute(Parameters::none()).await.unwrap().batches.collect::<Vec<_>>().await;
        drop(read.execute(Parameters::none()).await.unwrap());
        let read = Some(Effect::Read);
        assert_eq!(*kept.0.lock().unwrap(), [(read, Outcome::Done, 2), (read, Outcome::Cancelled, 0)]);

        assert!(session.prepare(Statement::Sql("bad".to_owned())).await.is_err());
        assert_eq!(kept.0.lock().unwrap().last(), Some(&(None, Outcome::Failed, 0)));
    }

    #[tokio::test]
    async fn a_statement_has_its_slot_until_its_result_is_dropped() {
        let readers = crate::RoleLimits { running: 1, waiting: 0 };
        let admission = AdmissionControl::new(readers, crate::RoleLimits::default(), Duration::from_secs(60));
        let engine = Guarded::new(engine_fn(|_, _| Ok(Execution::of(Vec::new())))).admitted_by(admission);
        let session = engine.session(&Principal::new("p", Role::ReadOnly)).await.unwrap();
        let statement = || Statement::Sql("SELECT 1".to_owned());
        let prepared = session.prepare(statement()).await.unwrap();
        let answer = prepared.execute(Parameters::none()).await.unwrap();
        drop(prepared);
        assert_eq!(session.prepare(statement()).await.err().unwrap().kind(), ErrorKind::Exhausted);
        drop(answer);
        assert!(session.prepare(statement()).await.is_ok());
    }
}

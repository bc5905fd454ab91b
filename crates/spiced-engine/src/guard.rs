//! The one place where a caller's role is compared with what a statement would do, where statements wait for a
//! slot, and where it is told who did what.

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

/// An engine behind which every statement is checked against the caller's role.
///
/// The check is made when a statement is prepared, so a statement that may not run is never held
/// by anybody, and one prepared by one caller cannot be run by another.
pub struct Guarded<E> {
    engine: E,
    rules: Arc<Rules>,
}

/// What holds for all sessions.
#[derive(Clone, Default)]
struct Rules {
    witnesses: Vec<Arc<dyn StatementObserver>>,
    admission: AdmissionControl,
    bounds: ResultLimits,
}

/// Is told of every statement that ran, that failed to be planned, and that was denied.
pub trait StatementObserver: Send + Sync + 'static {
    /// A statement came to its end, or was not begun. It is called once for each execution, and must not block.
    fn on_complete(&self, seen: &StatementRecord<'_>);
}

/// A statement at its end.
#[derive(Debug, Clone, Copy)]
pub struct StatementRecord<'a> {
    /// Who sent it.
    pub principal: &'a Principal,
    /// The statement.
    pub statement: &'a Statement,
    /// What it does; `None` where it could not be planned.
    pub effect: Option<Effect>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it failed or was denied.
    pub error: Option<&'a EngineError>,
    /// When it came.
    pub started: SystemTime,
    /// How long it waited for its turn.
    pub queued: Duration,
    /// How long all of it took, from its coming to the last batch that was fetched.
    pub took: Duration,
    /// The rows of the answer that were fetched.
    pub rows: u64,
}

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has had its effect, or its whole answer was fetched.
    Done,
    /// It ended with an error.
    Failed,
    /// Its caller went away, or stopped it, before it was done: it may have had a part of its effect.
    Cancelled,
    /// The caller may not: it was not begun.
    Denied,
}

impl<E: Engine> Guarded<E> {
    /// Guards `engine`, with the default [`AdmissionControl`] and answers of any size.
    pub fn new(engine: E) -> Self {
        Self { engine, rules: Arc::default() }
    }

    /// Tells `witness` too.
    #[must_use]
    pub fn witnessed(self, witness: Arc<dyn StatementObserver>) -> Self {
        self.ruled(|rules| rules.witnesses.push(witness))
    }

    /// Lets as many statements run as `admission` does. A statement has a slot from its planning until its work has
    /// ended ([`Slot`]).
    #[must_use]
    pub fn admitted_by(self, admission: AdmissionControl) -> Self {
        self.ruled(|rules| rules.admission = admission)
    }

    /// Lets no query answer more than this.
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
            // Before the table is looked up: whether it is there is not the caller's to learn this way.
            asked.told(Some(least), Outcome::Denied, Some(&denied), 0);
            return Err(denied);
        }
        let slot = self.admit(&mut asked).await?;
        let (planned, slot) = Slot::within(Some(slot), self.inner.ingest(ingest)).await;
        self.guard(planned, asked, slot)
    }

    /// It changes the caller's own session alone, which every role may.
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

    /// Lets through what has been planned, where the caller may do it, and sees to it that its end is told.
    fn guard(
        &self,
        planned: Result<Box<dyn Prepared>, EngineError>,
        asked: StatementContext,
        slot: Option<Slot>,
    ) -> Result<Box<dyn Prepared>, EngineError> {
        let inner = planned.inspect_err(|error| match error.kind() {
            // What no role may do is denied by the engine itself, which alone knows the plan.
            ErrorKind::Denied => asked.told(Some(Effect::Write), Outcome::Denied, Some(error), 0),
            _ => asked.told(None, Outcome::of(error), Some(error), 0),
        })?;
        let effect = inner.effect();
        permit(self.principal.role(), effect)
            .inspect_err(|denied| asked.told(Some(effect), Outcome::Denied, Some(denied), 0))?;
        Ok(Box::new(GuardedStatement { inner, held: Arc::new(Held { asked, effect, slot: Mutex::new(slot) }) }))
    }
}

/// Says whether `role` may do what has `effect`.
fn permit(role: Role, effect: Effect) -> Result<(), EngineError> {
    let what = match (role, effect) {
        (Role::ReadWrite, _) | (Role::ReadOnly, Effect::Read | Effect::Session) => return Ok(()),
        (Role::ReadOnly, Effect::Write) => "changes data",
        (Role::ReadOnly, Effect::Ddl) => "changes definitions",
        (Role::ReadOnly, Effect::Admin) => "reaches outside the engine",
    };
    Err(EngineError::new(ErrorKind::Denied, format!("the statement {what}, and this caller may only read")))
}

/// A statement as it came.
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
        rules.witnesses.iter().for_each(|witness| witness.on_complete(&seen));
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
    /// For the first execution; each further one is admitted by itself.
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
        // Made first: a caller that goes away meanwhile drops it.
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
    /// Its name in logs and tables: one word.
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

/// Tells how an execution ended, when it is dropped.
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
    /// Where the engine did not take it.
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

    /// Keeps how statements ended.
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
        let engine = Guarded::new(engine_fn(answer)).witnessed(kept.clone());
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

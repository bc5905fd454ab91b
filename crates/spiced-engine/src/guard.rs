//! The one place where a caller's role is compared with what a statement would do, and where it is
//! told who changed what.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use async_trait::async_trait;
use futures::{Stream, StreamExt};
use tokio::sync::watch;

use crate::engine::{Batches, Catalog, DatasetStatus, Engine, Execution, Parameters, Prepared, Session, Statement};
use crate::{Effect, EngineError, ErrorKind, Ingest, Principal, Role};

/// An engine behind which every statement is checked against the caller's role.
///
/// The check is made when a statement is prepared, so a statement that may not run is never held
/// by anybody, and one prepared by one caller cannot be run by another.
pub struct Guarded<E> {
    engine: E,
    witness: Option<Arc<dyn Witness>>,
}

/// Is told of every statement that changes something, and of every one that was denied.
pub trait Witness: Send + Sync + 'static {
    /// A statement came to its end, or was not begun. It is called once for each execution, and must not block.
    fn saw(&self, principal: &Principal, statement: &Statement, effect: Effect, outcome: Outcome);
}

/// How a statement ended that was to change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has had its effect.
    Done,
    /// It ended with an error.
    Failed,
    /// Its caller went away, or stopped it, before it was done: it may have had a part of its effect.
    Cancelled,
    /// The caller may not: it was not begun.
    Denied,
}

impl<E: Engine> Guarded<E> {
    /// Guards `engine`.
    pub fn new(engine: E) -> Self {
        Self { engine, witness: None }
    }

    /// Tells `witness` what changes, and what was denied.
    #[must_use]
    pub fn witnessed(self, witness: Arc<dyn Witness>) -> Self {
        Self { witness: Some(witness), ..self }
    }
}

#[async_trait]
impl<E: Engine> Engine for Guarded<E> {
    async fn session(&self, principal: &Principal) -> Result<Box<dyn Session>, EngineError> {
        let inner = self.engine.session(principal).await?;
        Ok(Box::new(GuardedSession { inner, principal: principal.clone(), witness: self.witness.clone() }))
    }

    fn datasets(&self) -> watch::Receiver<Vec<DatasetStatus>> {
        self.engine.datasets()
    }
}

struct GuardedSession {
    inner: Box<dyn Session>,
    principal: Principal,
    witness: Option<Arc<dyn Witness>>,
}

#[async_trait]
impl Session for GuardedSession {
    async fn prepare(&self, statement: Statement) -> Result<Box<dyn Prepared>, EngineError> {
        let planned = self.inner.prepare(statement.clone()).await;
        self.guard(planned, statement)
    }

    async fn ingest(&self, ingest: Ingest) -> Result<Box<dyn Prepared>, EngineError> {
        let statement = Statement::Sql(format!("INGEST INTO {}", ingest.table));
        let least = Effect::Write;
        if let Err(denied) = permit(self.principal.role(), least) {
            // Before the table is looked up: whether it is there is not the caller's to learn this way.
            self.saw(&statement, least, Outcome::Denied);
            return Err(denied);
        }
        let planned = self.inner.ingest(ingest).await;
        self.guard(planned, statement)
    }

    async fn catalog(&self) -> Result<Catalog, EngineError> {
        self.inner.catalog().await
    }
}

impl GuardedSession {
    fn saw(&self, statement: &Statement, effect: Effect, outcome: Outcome) {
        if let Some(witness) = &self.witness {
            witness.saw(&self.principal, statement, effect, outcome);
        }
    }

    /// Lets through what has been planned, where the caller may do it, and sees to it that a change is told.
    fn guard(
        &self,
        planned: Result<Box<dyn Prepared>, EngineError>,
        statement: Statement,
    ) -> Result<Box<dyn Prepared>, EngineError> {
        let prepared = match planned {
            Ok(prepared) => prepared,
            Err(error) => {
                // What no role may do is denied by the engine itself, which alone knows the plan.
                if error.kind() == ErrorKind::Denied {
                    self.saw(&statement, Effect::Write, Outcome::Denied);
                }
                return Err(error);
            }
        };
        let effect = prepared.effect();
        if let Err(denied) = permit(self.principal.role(), effect) {
            self.saw(&statement, effect, Outcome::Denied);
            return Err(denied);
        }
        match &self.witness {
            Some(witness) if !matches!(effect, Effect::Read | Effect::Session) => {
                let told = Told { witness: witness.clone(), principal: self.principal.clone(), statement, effect };
                Ok(Box::new(WitnessedStatement { inner: prepared, told: Arc::new(told) }))
            }
            _ => Ok(prepared),
        }
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

/// What the witness is told but for the outcome.
struct Told {
    witness: Arc<dyn Witness>,
    principal: Principal,
    statement: Statement,
    effect: Effect,
}

/// A statement that changes something; each execution of it is told.
struct WitnessedStatement {
    inner: Box<dyn Prepared>,
    told: Arc<Told>,
}

#[async_trait]
impl Prepared for WitnessedStatement {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn parameters(&self) -> &Schema {
        self.inner.parameters()
    }

    fn effect(&self) -> Effect {
        self.inner.effect()
    }

    async fn execute(&self, parameters: Parameters) -> Result<Execution, EngineError> {
        // Made first: a caller that goes away meanwhile drops it.
        let mut ending = Ending { told: self.told.clone(), outcome: Outcome::Cancelled };
        match self.inner.execute(parameters).await {
            Ok(Execution { schema, batches }) => {
                Ok(Execution { schema, batches: WitnessedBatches { inner: batches, ending }.boxed() })
            }
            Err(error) => {
                ending.outcome = Outcome::of(&error);
                Err(error)
            }
        }
    }
}

impl Outcome {
    fn of(error: &EngineError) -> Self {
        if error.kind() == ErrorKind::Cancelled { Self::Cancelled } else { Self::Failed }
    }
}

/// Tells how an execution ended, when it is dropped.
struct Ending {
    told: Arc<Told>,
    outcome: Outcome,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Told { witness, principal, statement, effect } = &*self.told;
        witness.saw(principal, statement, *effect, self.outcome);
    }
}

struct WitnessedBatches {
    inner: Batches,
    ending: Ending,
}

impl Stream for WitnessedBatches {
    type Item = Result<RecordBatch, EngineError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.inner.poll_next_unpin(cx);
        match &polled {
            Poll::Ready(None) if self.ending.outcome == Outcome::Cancelled => self.ending.outcome = Outcome::Done,
            Poll::Ready(Some(Err(error))) => self.ending.outcome = Outcome::of(error),
            _ => {}
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

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

    /// Counts how statements ended.
    #[derive(Default)]
    struct Seen(Mutex<Vec<Outcome>>);

    impl Witness for Seen {
        fn saw(&self, _: &Principal, _: &Statement, _: Effect, outcome: Outcome) {
            self.0.lock().unwrap().push(outcome);
        }
    }

    fn told(seen: &Arc<Seen>) -> Arc<Told> {
        let (principal, statement) = (Principal::new("p", Role::ReadWrite), Statement::Sql("INSERT".to_owned()));
        Arc::new(Told { witness: seen.clone(), principal, statement, effect: Effect::Write })
    }

    #[tokio::test]
    async fn each_end_of_a_change_is_told_once() {
        let seen = Arc::new(Seen::default());
        let engine = Guarded::new(engine_fn(|_, _| Ok(Execution::of(Vec::new())))).witnessed(seen.clone());
        let session = engine.session(&Principal::new("p", Role::ReadOnly)).await.unwrap();
        let read = session.prepare(Statement::Sql("SELECT 1".to_owned())).await.unwrap();
        read.execute(Parameters::none()).await.unwrap().batches.collect::<Vec<_>>().await;
        assert!(seen.0.lock().unwrap().is_empty(), "what only reads is not told");

        let statement = WitnessedStatement { inner: read, told: told(&seen) };
        statement.execute(Parameters::none()).await.unwrap().batches.collect::<Vec<_>>().await;
        drop(statement.execute(Parameters::none()).await.unwrap());
        assert_eq!(*seen.0.lock().unwrap(), [Outcome::Done, Outcome::Cancelled]);
    }
}

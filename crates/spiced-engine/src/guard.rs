//! The one place where a caller's role is compared with what a statement would do.

use async_trait::async_trait;
use tokio::sync::watch;

use crate::engine::{Catalog, DatasetStatus, Engine, Prepared, Session, Statement};
use crate::{Effect, EngineError, ErrorKind, Principal, Role};

/// An engine behind which every statement is checked against the caller's role.
///
/// The check is made when a statement is prepared, so a statement that may not run is never held
/// by anybody, and one prepared by one caller cannot be run by another.
pub struct Guarded<E>(E);

impl<E: Engine> Guarded<E> {
    /// Guards `engine`.
    pub fn new(engine: E) -> Self {
        Self(engine)
    }
}

#[async_trait]
impl<E: Engine> Engine for Guarded<E> {
    async fn session(&self, principal: &Principal) -> Result<Box<dyn Session>, EngineError> {
        let inner = self.0.session(principal).await?;
        Ok(Box::new(GuardedSession { inner, role: principal.role() }))
    }

    fn datasets(&self) -> watch::Receiver<Vec<DatasetStatus>> {
        self.0.datasets()
    }
}

struct GuardedSession {
    inner: Box<dyn Session>,
    role: Role,
}

#[async_trait]
impl Session for GuardedSession {
    async fn prepare(&self, statement: Statement) -> Result<Box<dyn Prepared>, EngineError> {
        let prepared = self.inner.prepare(statement).await?;
        permit(self.role, prepared.effect())?;
        Ok(prepared)
    }

    async fn catalog(&self) -> Result<Catalog, EngineError> {
        self.inner.catalog().await
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

#[cfg(test)]
mod tests {
    use super::*;

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
}

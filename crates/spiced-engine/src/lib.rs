//! The interface between a server and a query engine, based only on Arrow.
//!
//! The interface is session-based: each caller gets a separate [`Session`], so that neither `SET` nor `PREPARE` affects
//! another caller. A statement is prepared before it runs. Preparing it yields the result schema, the parameters, and
//! the [`Effect`], which [`Guarded`] compares with the caller's [`Role`] in one place for all endpoints.
//!
//! This crate depends on no engine, no protocol and no TLS. [`engine_fn`] builds an engine from one function, for tests
//! and for applications that have no query engine behind an endpoint.
//!
//! ```
//! use spiced_engine::{Engine, Execution, Guarded, Parameters, Principal, Role, Statement, engine_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let engine = Guarded::new(engine_fn(|_sql, _parameters| Ok(Execution::of(Vec::new()))));
//! let session = engine.session(&Principal::new("reports", Role::ReadOnly)).await.unwrap();
//! let prepared = session.prepare(Statement::Sql("SELECT 1".to_owned())).await.unwrap();
//! assert!(prepared.execute(Parameters::none()).await.is_ok());
//! # });
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admission;
mod deadline;
mod engine;
mod error;
mod function;
mod guard;
mod ingest;
mod keys;
mod principal;
mod redact;
mod result_limits;
mod trace;

pub use admission::{AdmissionControl, RoleLimits, Slot};
pub use deadline::{passed, until};
pub use engine::{
    Batches, Catalog, DatasetState, DatasetStatus, Dialect, Effect, Engine, Execution, Parameters, Prepared, Session,
    Statement, TableInfo,
};
pub use error::{EngineError, ErrorKind};
pub use function::engine_fn;
pub use guard::{Guarded, Outcome, StatementObserver, StatementRecord};
pub use ingest::{IfExists, IfMissing, Ingest, TablePath};
pub use keys::{ForeignKey, Key, KeyRule};
pub use principal::{Principal, RequestContext, Role};
pub use redact::Redacted;
pub use result_limits::{ResultLimits, rows_size};
pub use trace::Trace;

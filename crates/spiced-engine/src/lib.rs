//! What a server needs of a query engine, on Arrow alone.
//!
//! The trait is session first: a caller gets a [`Session`] of its own, so that neither `SET` nor
//! `PREPARE` leaks from one caller to another. A statement is prepared before it runs; preparing
//! tells the answer's schema, the parameters, and the [`Effect`], which [`Guarded`] compares with
//! the caller's [`Role`] in one place for all endpoints.
//!
//! This crate knows no engine, no protocol and no TLS. [`engine_fn`] makes an engine of one function, for tests and
//! for those who have no query engine to put behind an endpoint.
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

//! What a server needs of a query engine, on Arrow alone.
//!
//! The trait is session first: a caller gets a [`Session`] of its own, so that neither `SET` nor
//! `PREPARE` leaks from one caller to another. A statement is prepared before it runs; preparing
//! tells the answer's schema, the parameters, and the [`Effect`], which [`Guarded`] compares with
//! the caller's [`Role`] in one place for all doors.
//!
//! This crate knows no engine, no protocol and no TLS.

mod engine;
mod error;
mod guard;
mod principal;

pub use engine::{
    Batches, Catalog, DatasetState, DatasetStatus, Effect, Engine, Execution, Parameters, Prepared, Session, Statement,
    TableInfo,
};
pub use error::{EngineError, ErrorKind};
pub use guard::Guarded;
pub use principal::{Principal, Role};

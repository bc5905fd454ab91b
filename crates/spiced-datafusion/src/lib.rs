//! The embedded default engine: DataFusion behind the traits of `spiced-engine`.
//!
//! Queries are planned and run on a separate runtime, and stream their results through a bounded channel. A query ends
//! when its stream is dropped, when its time limit expires, or when the shared memory is exhausted. The data sets of
//! the pod are loaded in the background and retried if they fail; a broken data set does not affect the others. SQL can
//! access the host only where the operator allows it.
//!
//! ```
//! use futures::TryStreamExt;
//! use spiced_datafusion::{ColumnSpec, DataFusionEngine, DatasetSpec, EngineOptions};
//! use spiced_engine::{Engine, Parameters, Principal, Role, Statement};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = spiced_datafusion::query_runtime()?;
//! let mut options = EngineOptions::new(runtime.handle().clone());
//! options.datasets.push(DatasetSpec {
//!     writable: true,
//!     columns: vec![ColumnSpec { name: "city".into(), sql_type: "VARCHAR".into(), nullable: false }],
//!     ..DatasetSpec::new("visits", "memory:", ".")
//! });
//! let engine = DataFusionEngine::start(options)?;
//! runtime.block_on(async {
//!     let session = engine.session(&Principal::anonymous(Role::ReadWrite)).await?;
//!     for sql in ["INSERT INTO visits VALUES ('Lima'), ('Oslo')", "SELECT count(*) FROM visits"] {
//!         let prepared = session.prepare(Statement::Sql(sql.into())).await?;
//!         let answer = prepared.execute(Parameters::none()).await?;
//!         let batches: Vec<_> = answer.batches.try_collect().await?;
//!         assert_eq!(batches[0].num_rows(), 1);
//!     }
//!     Ok(())
//! })
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod catalog;
mod connectors;
mod engine;
mod error;
mod execution;
mod functions;
mod planning;
mod proven;
mod sql;
mod tables;

pub use engine::DataFusionEngine;
pub use engine::options::{
    ColumnSpec, DEFAULT_MAX_STATEMENT_SIZE, DEFAULT_MEMORY_LIMIT, DEFAULT_QUERY_TIMEOUT, DEFAULT_SPILL_LIMIT,
    DatasetSpec, EngineOptions, ViewSpec,
};
pub use engine::start_error::{SpecError, SpecPart, StartCause, StartError};
pub use execution::runtime::query_runtime;
pub use execution::stall_watch::{Responsive, watch_for_stalls};
pub use tables::queries::History;
pub use tables::ring_table::{RetainedSpec, Retention};
pub use tables::system_table::SystemTable;
pub use tables::tls::tls as tls_table;

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

mod any;
mod at_time_zone;
mod catalog;
mod catalog_policy;
mod coalesce;
mod complexity;
mod connectors;
mod cooperative;
mod ddl;
mod deadline_timer;
mod distinct_from;
mod dml;
mod effect;
mod engine;
mod error;
mod exact_cast;
mod execution;
mod external_tables;
mod functions;
mod host_paths;
mod host_store;
mod in_lists;
mod in_memory;
mod in_subqueries;
mod ingest;
mod insert_sources;
mod loader;
mod memory;
mod memory_table;
mod memory_watch;
mod name;
mod names;
mod number_comparisons;
mod number_literals;
mod options;
mod output_schema;
mod parameters;
mod plan_cache;
mod plan_expressions;
mod projections;
mod ring_table;
mod runtime;
mod session;
mod settings;
mod similar_to;
mod spill;
mod stall_watch;
mod start_error;
mod statement;
mod system_tables;
mod table_arguments;
mod time_literals;
mod typed_parameters;
mod view;
mod work;

pub use engine::DataFusionEngine;
pub use options::{
    ColumnSpec, DEFAULT_MAX_STATEMENT_SIZE, DEFAULT_MEMORY_LIMIT, DEFAULT_QUERY_TIMEOUT, DEFAULT_SPILL_LIMIT,
    DatasetSpec, EngineOptions, ViewSpec,
};
pub use ring_table::{RetainedSpec, Retention};
pub use runtime::query_runtime;
pub use stall_watch::{Responsive, watch_for_stalls};
pub use start_error::StartError;
pub use system_tables::SystemTable;
pub use system_tables::queries::History;
pub use system_tables::tls::tls as tls_table;

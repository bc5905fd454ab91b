//! Tables whose rows are in memory, and bulk ingestion into any table.

pub(crate) mod ingest;
pub(crate) mod memory_table;
pub(crate) mod queries;
pub(crate) mod ring_table;
pub(crate) mod system_table;
pub(crate) mod tls;
pub(crate) mod updatable;

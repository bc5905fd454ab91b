//! A table that lives in memory, and whose memory is counted: a `memory:` data set, or what
//! `CREATE TABLE` makes.
//!
//! DataFusion's own `MemTable` is not used: it draws on no memory pool, and it carries out `DELETE`
//! and `UPDATE` while they are planned, so that even `EXPLAIN DELETE` deletes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Constraints, SchemaExt};
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan};
use spiced_engine::ErrorKind;

use crate::error::refusal;
use crate::merging::{gathered, merged};

/// The table.
#[derive(Debug)]
pub(crate) struct MemoryTable {
    schema: SchemaRef,
    constraints: Constraints,
    column_defaults: HashMap<String, Expr>,
    rows: Arc<Rows>,
}

impl MemoryTable {
    /// An empty table whose rows count against `pool`.
    pub(crate) fn new(schema: SchemaRef, pool: &Arc<dyn MemoryPool>) -> Self {
        let reservation = MemoryConsumer::new("memory table").register(pool);
        let rows = Rows { schema: schema.clone(), held: Mutex::new(Held { batches: Vec::new(), reservation }) };
        Self { schema, constraints: Constraints::default(), column_defaults: HashMap::new(), rows: Arc::new(rows) }
    }

    /// The same with what `CREATE TABLE` said about keys and defaults.
    pub(crate) fn with_definition(mut self, constraints: Constraints, defaults: HashMap<String, Expr>) -> Self {
        self.constraints = constraints;
        self.column_defaults = defaults;
        self
    }

    /// Adds all rows of `stream`, or none where it fails; returns how many.
    pub(crate) async fn append(&self, stream: SendableRecordBatchStream) -> Result<u64> {
        self.rows.append(stream).await
    }
}

#[async_trait]
impl TableProvider for MemoryTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn constraints(&self) -> Option<&Constraints> {
        Some(&self.constraints)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        self.column_defaults.get(column)
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let batches = self.rows.held().batches.clone();
        let source = MemorySourceConfig::try_new(&[batches], self.schema.clone(), projection.cloned())?;
        Ok(DataSourceExec::from_data_source(source.with_limit(limit)))
    }

    async fn insert_into(
        &self,
        _state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if op != InsertOp::Append {
            return Err(refusal(ErrorKind::Unsupported, "a table in memory takes INSERT INTO, and does not overwrite"));
        }
        self.schema.logically_equivalent_names_and_types(&input.schema())?;
        Ok(Arc::new(DataSinkExec::new(input, self.rows.clone(), None)))
    }
}

/// The rows, shared by the table and the inserts under way.
struct Rows {
    schema: SchemaRef,
    held: Mutex<Held>,
}

struct Held {
    batches: Vec<RecordBatch>,
    reservation: MemoryReservation,
}

impl Rows {
    fn held(&self) -> MutexGuard<'_, Held> {
        // The batches are replaced whole, so a panic elsewhere leaves them as they were.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn append(&self, stream: SendableRecordBatchStream) -> Result<u64> {
        let reservation = self.held().reservation.new_empty();
        let (fresh, rows) = gathered(stream, &self.schema, &reservation).await?;
        let mut held = self.held();
        for mut batch in fresh {
            while let Some(both) = held.batches.last().and_then(|last| merged(last, &batch)) {
                held.batches.pop();
                batch = both;
            }
            held.batches.push(batch);
        }
        held.reservation.grow(reservation.free());
        Ok(rows)
    }
}

#[async_trait]
impl DataSink for Rows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(&self, data: SendableRecordBatchStream, _context: &Arc<TaskContext>) -> Result<u64> {
        self.append(data).await
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("schema", &self.schema).finish_non_exhaustive()
    }
}

impl DisplayAs for Rows {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryTable")
    }
}

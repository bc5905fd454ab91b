//! Tables of the schema `runtime`, in which the program describes itself. Each query computes the rows again.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::memory::MemorySourceConfig;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use spiced_engine::Principal;

/// A table whose rows the program supplies: `runtime.NAME`. SQL cannot write to it.
#[derive(Clone)]
pub struct SystemTable {
    pub(crate) name: String,
    schema: SchemaRef,
    rows: Arc<dyn Fn(&Principal) -> RecordBatch + Send + Sync>,
}

impl SystemTable {
    /// Creates a table called `name` with the columns of `schema`. Each query calls `rows` for the rows that its caller
    /// may see.
    pub fn new(
        name: impl Into<String>,
        schema: SchemaRef,
        rows: impl Fn(&Principal) -> RecordBatch + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), schema, rows: Arc::new(rows) }
    }
}

impl fmt::Debug for SystemTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemTable").field("name", &self.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl TableProvider for SystemTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        // A query without a caller gets no rows.
        let caller = state.config().get_extension::<Principal>();
        let rows = caller.map(|caller| (self.rows)(&caller)).into_iter().collect();
        Ok(MemorySourceConfig::try_new_exec(&[rows], self.schema.clone(), projection.cloned())?)
    }
}

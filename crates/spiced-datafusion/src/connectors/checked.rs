//! Detects text files that no longer match the schema that was inferred from them. The query fails with an error that
//! contains none of their data, and the data set is loaded again.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::listing::ListingTable;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use spiced_engine::ErrorKind;

use super::outdated::Outdated;
use crate::error::refusal;

/// A table of files whose content is checked.
#[derive(Debug)]
pub(super) struct Checked {
    files: ListingTable,
    written: Arc<str>,
    outdated: Outdated,
}

impl Checked {
    pub(super) fn new(files: ListingTable, written: &str, outdated: Outdated) -> Self {
        Self { files, written: written.into(), outdated }
    }
}

#[async_trait]
impl TableProvider for Checked {
    fn schema(&self) -> SchemaRef {
        self.files.schema()
    }

    fn table_type(&self) -> TableType {
        self.files.table_type()
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        self.files.supports_filters_pushdown(filters)
    }

    // No `async fn`: see `crate::proven`.
    fn scan<'a, 'b, 'c, 'd, 'f>(
        &'a self,
        state: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        filters: &'d [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'f, Result<Arc<dyn ExecutionPlan>>>
    where
        Self: 'f,
        'a: 'f,
        'b: 'f,
        'c: 'f,
        'd: 'f,
    {
        let input = self.files.scan(state, projection, filters, limit);
        let (written, outdated) = (self.written.clone(), self.outdated.clone());
        Box::pin(async move {
            let checked = CheckedExec { input: input.await?, written, outdated };
            Ok(Arc::new(checked) as Arc<dyn ExecutionPlan>)
        })
    }
}

#[derive(Debug)]
struct CheckedExec {
    input: Arc<dyn ExecutionPlan>,
    written: Arc<str>,
    outdated: Outdated,
}

impl CheckedExec {
    fn over(&self, input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self { input, written: self.written.clone(), outdated: self.outdated.clone() })
    }
}

impl DisplayAs for CheckedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckedExec")
    }
}

impl ExecutionPlan for CheckedExec {
    fn name(&self) -> &'static str {
        "CheckedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(self.over(input)),
            _ => Err(DataFusionError::Internal("it has one input".to_owned())),
        }
    }

    /// Forwards the projection to the files, because only they can provide columns such as the file name.
    fn try_swapping_with_projection(&self, projection: &ProjectionExec) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        Ok(self.input.try_swapping_with_projection(projection)?.map(|input| self.over(input)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let stream = self.input.execute(partition, context)?;
        let (written, outdated) = (self.written.clone(), self.outdated.clone());
        let schema = stream.schema();
        let stream = stream.map_err(move |error| match error.find_root() {
            DataFusionError::ArrowError(inner, _) if is_of_content(inner) => {
                outdated.notify();
                let why = format!(
                    "a file of `{written}` no longer holds what the columns of the data set are; it is being loaded again, and \
                     its state says what is wrong"
                );
                refusal(ErrorKind::Unavailable, why)
            }
            _ => error,
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))
    }
}

/// Whether the bytes were read but have the wrong content. The message of such an error contains data of a row.
fn is_of_content(error: &ArrowError) -> bool {
    matches!(
        error,
        ArrowError::CsvError(_)
            | ArrowError::JsonError(_)
            | ArrowError::ParseError(_)
            | ArrowError::CastError(_)
            | ArrowError::ComputeError(_)
            | ArrowError::InvalidArgumentError(_)
            | ArrowError::SchemaError(_)
    )
}

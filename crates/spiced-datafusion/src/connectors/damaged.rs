//! Reports Parquet files with a damaged page or footer by their names. DataFusion's readers report them as failures of
//! their own, and some of them panic.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::task::Poll;

use datafusion::arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::ParquetSource;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::parquet::errors::ParquetError;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, stream};
use spiced_engine::ErrorKind;

use crate::error::refusal;
use crate::functions;

/// The number of files that an error names.
const NAMED: usize = 3;

/// Wraps each scan of Parquet files. It must run last: the other rules look for the scans themselves.
#[derive(Debug)]
pub(crate) struct NameDamagedFiles;

impl PhysicalOptimizerRule for NameDamagedFiles {
    fn name(&self) -> &str {
        "NameDamagedFiles"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let named = plan.transform_up(|node| {
            let files = node.downcast_ref::<DataSourceExec>().and_then(files);
            Ok(match files {
                Some(files) => Transformed::yes(Arc::new(Named { scan: node, files }) as Arc<dyn ExecutionPlan>),
                None => Transformed::no(node),
            })
        })?;
        Ok(named.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Returns the names of the files that `scan` reads, if they are Parquet files.
fn files(scan: &DataSourceExec) -> Option<Arc<str>> {
    let (config, _) = scan.downcast_to_file_source::<ParquetSource>()?;
    let files = config.file_groups.iter().flat_map(|group| group.files());
    let names: BTreeSet<&str> = files.filter_map(|file| file.object_meta.location.filename()).collect();
    let listed: Vec<String> = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
    let listed = listed.join(", ");
    Some(match names.len() {
        0 | 1 => listed.into(),
        count if count > NAMED => format!("one of {listed} and {} more", count - NAMED).into(),
        _ => format!("one of {listed}").into(),
    })
}

/// The error for damaged files.
fn damaged(files: &str) -> DataFusionError {
    let why = format!("{files} is damaged, or is no Parquet file; write it again, or restore it");
    refusal(ErrorKind::Unavailable, why)
}

/// Returns whether `error` is about the content of a Parquet file.
pub(super) fn is_of_content(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::ParquetError(inner) => {
            matches!(
                inner.as_ref(),
                ParquetError::General(_) | ParquetError::EOF(_) | ParquetError::IndexOutOfBound(..)
            )
        }
        // Parquet's reader of batches keeps the text alone.
        DataFusionError::ArrowError(inner, _) => match inner.as_ref() {
            // `Arrow: ` is an error of a filter that the reader evaluates.
            ArrowError::ParquetError(text) => !text.starts_with("External: ") && !text.starts_with("Arrow: "),
            _ => false,
        },
        _ => false,
    }
}

#[derive(Debug)]
struct Named {
    scan: Arc<dyn ExecutionPlan>,
    files: Arc<str>,
}

impl DisplayAs for Named {
    fn fmt_as(&self, of: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scan.fmt_as(of, f)
    }
}

impl ExecutionPlan for Named {
    fn name(&self) -> &str {
        self.scan.name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.scan.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.scan.apply_expressions(f)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let files = self.files.clone();
        let mut scan = self.scan.execute(partition, context)?;
        let schema = scan.schema();
        let mut is_over = false;
        let rows = stream::poll_fn(move |cx| {
            if is_over {
                return Poll::Ready(None);
            }
            let polled = match functions::caught(|| scan.poll_next_unpin(cx)) {
                Some(polled) => polled,
                None => Poll::Ready(Some(Err(damaged(&files)))),
            };
            polled.map(|next| {
                next.map(|batch| {
                    batch.map_err(|error| {
                        is_over = true;
                        if is_of_content(&error) {
                            tracing::warn!(files = &*files, %error, "a Parquet file cannot be read");
                            return damaged(&files);
                        }
                        error
                    })
                })
            })
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.scan.metrics()
    }
}

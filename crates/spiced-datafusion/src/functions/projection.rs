//! Splits the input of projections whose output is much larger: a batch of eight thousand rows, each with a text of a
//! hundred kilobytes, is never in memory at once. Filters are not split; the batch limit applies to them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::expressions::{BinaryExpr, Literal};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, replace_children_if_necessary};
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, stream};

use super::concat::Concat;
use super::governor::Governor;
use super::piece::{admit, within};
use super::{rows, scalar, sizes, wide_rows};

/// The size in bytes from which a constant is large: it is written out for every row.
const LARGE_CONSTANT: u64 = 1 << 10;

/// Splits the rows given to growing projections, and counts the rows that other operators keep.
#[derive(Debug)]
pub(super) struct InPieces(pub(super) Arc<Governor>);

impl PhysicalOptimizerRule for InPieces {
    fn name(&self) -> &str {
        "InPieces"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let governed = plan.transform_up(|node| {
            if let Some(projection) = node.downcast_ref::<ProjectionExec>()
                && projection.expr().iter().any(|made| grows(&made.expr) || is_large(&made.expr))
            {
                let pieces = Pieces::new(node.clone(), projection.expr(), &self.0)?;
                return Ok(Transformed::yes(Arc::new(pieces) as Arc<dyn ExecutionPlan>));
            }
            if let Some(filter) = node.downcast_ref::<FilterExec>()
                && grows(filter.predicate())
            {
                let predicate = concats(filter.predicate(), &self.0)?;
                let governed = FilterExecBuilder::from(filter).with_predicate(predicate).build()?;
                let governed = Arc::new(governed) as Arc<dyn ExecutionPlan>;
                let measured = wide_rows::measured(&governed, &self.0)?;
                return Ok(Transformed::yes(measured.unwrap_or(governed)));
            }
            if let Some(measured) = wide_rows::measured(&node, &self.0)? {
                return Ok(Transformed::yes(measured));
            }
            Ok(match rows::counted(&node, &self.0) {
                Some(counted) => Transformed::yes(counted),
                None => Transformed::no(node),
            })
        })?;
        Ok(governed.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Returns whether any part of the expression produces more than its input.
fn grows(whole: &Arc<dyn PhysicalExpr>) -> bool {
    let mut found = false;
    let look = |part: &Arc<dyn PhysicalExpr>| {
        found |= part.downcast_ref::<ScalarFunctionExpr>().is_some_and(|call| scalar::grows(call.fun()));
        found |= part.downcast_ref::<BinaryExpr>().is_some_and(|pair| *pair.op() == Operator::StringConcat);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    };
    // The visitor does not fail.
    let _ = whole.apply(look);
    found
}

fn is_large(whole: &Arc<dyn PhysicalExpr>) -> bool {
    whole.downcast_ref::<Literal>().is_some_and(|constant| sizes::of_scalar(constant.value()) > LARGE_CONSTANT)
}

/// Returns the expression with a size check before each `||`.
fn concats(whole: &Arc<dyn PhysicalExpr>, governor: &Arc<Governor>) -> Result<Arc<dyn PhysicalExpr>> {
    let governed = whole.clone().transform_up(|part| match part.downcast_ref::<BinaryExpr>() {
        Some(pair) if *pair.op() == Operator::StringConcat => {
            let concat = Concat::new(pair.left().clone(), pair.right().clone(), governor.clone());
            Ok(Transformed::yes(Arc::new(concat) as Arc<dyn PhysicalExpr>))
        }
        _ => Ok(Transformed::no(part)),
    })?;
    Ok(governed.data)
}

/// A projection that receives its rows in pieces.
#[derive(Debug)]
struct Pieces {
    /// The projection as planned, which provides its properties.
    planned: Arc<dyn ExecutionPlan>,
    made: Arc<[ProjectionExpr]>,
    governor: Arc<Governor>,
    metrics: ExecutionPlanMetricsSet,
}

impl Pieces {
    fn new(planned: Arc<dyn ExecutionPlan>, made: &[ProjectionExpr], governor: &Arc<Governor>) -> Result<Self> {
        let governed = made.iter().map(|made| {
            let expr = concats(&made.expr, governor)?;
            Ok(ProjectionExpr { expr, alias: made.alias.clone() })
        });
        let made = governed.collect::<Result<Vec<_>>>()?.into();
        Ok(Self { planned, made, governor: governor.clone(), metrics: ExecutionPlanMetricsSet::new() })
    }
}

impl DisplayAs for Pieces {
    fn fmt_as(&self, of: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.planned.fmt_as(of, f)
    }
}

impl ExecutionPlan for Pieces {
    fn name(&self) -> &str {
        self.planned.name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.planned.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        self.planned.maintains_input_order()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.planned.children()
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.planned.apply_expressions(f)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let planned = replace_children_if_necessary(self.planned.clone(), children)?;
        let (made, governor) = (self.made.clone(), self.governor.clone());
        Ok(Arc::new(Self { planned, made, governor, metrics: ExecutionPlanMetricsSet::new() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let schema = self.planned.schema();
        let work = Arc::new(Work {
            made: self.made.clone(),
            governor: self.governor.clone(),
            schema: schema.clone(),
            rows: AtomicUsize::new(usize::MAX),
            metrics: BaselineMetrics::new(&self.metrics, partition),
        });
        let rows = self.planned.children()[0].execute(partition, context)?;
        let pieces = rows.flat_map(move |batch| {
            let each: Box<dyn Iterator<Item = Result<RecordBatch>> + Send> = match batch {
                Ok(batch) => Box::new(Cut { batch, at: 0, is_over: false, work: work.clone() }),
                Err(error) => Box::new(std::iter::once(Err(error))),
            };
            stream::iter(each)
        });
        // Each piece counts against the cooperative budget of the query.
        Ok(make_cooperative(Box::pin(RecordBatchStreamAdapter::new(schema, pieces))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        self.planned.cardinality_effect()
    }
}

struct Work {
    made: Arc<[ProjectionExpr]>,
    governor: Arc<Governor>,
    schema: SchemaRef,
    /// The number of rows in the last piece.
    rows: AtomicUsize,
    metrics: BaselineMetrics,
}

impl Work {
    fn make(&self, piece: &RecordBatch) -> Result<RecordBatch> {
        let rows = piece.num_rows();
        let columns = self.made.iter().map(|made| {
            let value = made.expr.evaluate(piece)?;
            if let ColumnarValue::Scalar(constant) = &value {
                let bytes = sizes::of_scalar(constant).saturating_mul(rows as u64);
                admit(&made.alias, bytes, rows, &self.governor.bounds)?;
            }
            value.into_array(rows)
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

/// A batch that is split into pieces, each as large as allowed.
struct Cut {
    batch: RecordBatch,
    at: usize,
    is_over: bool,
    work: Arc<Work>,
}

impl Iterator for Cut {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self { batch, work, .. } = self;
        let left = batch.num_rows() - self.at;
        // A batch without rows still has types.
        if self.is_over || (left == 0 && self.at > 0) {
            return None;
        }
        let bounds = &work.governor.bounds;
        let mut rows = work.rows.load(Ordering::Relaxed).saturating_mul(2).min(left);
        let _timer = work.metrics.elapsed_compute().timer();
        let made = loop {
            let piece = batch.slice(self.at, rows);
            let (made, exceeded) = within(if rows > 1 { bounds.piece } else { bounds.batch }, || work.make(&piece));
            if made.is_ok() || !exceeded || rows <= 1 {
                break made;
            }
            rows /= 2;
        };
        self.at += rows;
        self.is_over = made.is_err() || rows == 0;
        work.rows.store(rows.max(1), Ordering::Relaxed);
        work.metrics.record_output(rows);
        Some(made)
    }
}

#[cfg(test)]
mod tests {
    use super::super::bounds::Bounds;
    use super::super::piece::most;
    use super::*;

    #[test]
    fn a_piece_has_its_bound_and_others_that_of_a_batch() {
        let bounds = Bounds { value: 10, batch: 100, piece: 20 };
        let (made, exceeded) = within(bounds.piece, || {
            admit("f", 15, 2, &bounds)?;
            assert_eq!(most(&bounds), 5);
            admit("f", 15, 2, &bounds)
        });
        assert!(made.is_err() && exceeded);
        assert_eq!(most(&bounds), 100);
        assert!(admit("f", 100, 2, &bounds).is_ok() && admit("f", 100, 2, &bounds).is_ok());
        let (made, exceeded) =
            within(bounds.piece, || datafusion::common::exec_err!("it fails by itself") as Result<()>);
        assert!(made.is_err() && !exceeded);
    }
}

//! Counts rows that operators keep and DataFusion does not count: a window keeps all rows of its input, and an unnested
//! row is written out once for each item of its list, with all its other columns.

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::WindowAggExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt, stream};

use super::bounds::too_large;
use super::governor::Governor;
use super::sizes::{self, Lists};

/// The rows, their concatenation for sorting, and the results.
const COPIES: usize = 3;

/// Counts the rows that `node` keeps, if nothing else does.
pub(super) fn counted(node: &Arc<dyn ExecutionPlan>, governor: &Arc<Governor>) -> Option<Arc<dyn ExecutionPlan>> {
    let keeps = if node.is::<WindowAggExec>() {
        Keeps::All
    } else {
        let unnest = node.downcast_ref::<UnnestExec>()?;
        Keeps::Items(unnest.list_column_indices().iter().map(|list| list.index_in_input_schema).collect())
    };
    Some(Arc::new(Counted { planned: node.clone(), keeps, governor: governor.clone() }))
}

#[derive(Debug, Clone)]
enum Keeps {
    /// All rows, until the input ends.
    All,
    /// One row for each item of the lists in these columns.
    Items(Arc<[usize]>),
}

/// An operator whose input rows are counted.
#[derive(Debug)]
struct Counted {
    /// The operator as planned, which provides its properties.
    planned: Arc<dyn ExecutionPlan>,
    keeps: Keeps,
    governor: Arc<Governor>,
}

impl DisplayAs for Counted {
    fn fmt_as(&self, of: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.planned.fmt_as(of, f)
    }
}

impl ExecutionPlan for Counted {
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
        Ok(Arc::new(Self { planned, keeps: self.keeps.clone(), governor: self.governor.clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let name = self.planned.name().to_owned();
        let kept = Arc::new(MemoryConsumer::new(format!("{name}[{partition}]")).register(&self.governor.pool));
        let way_in = WayIn {
            input: self.planned.children()[0].clone(),
            keeps: self.keeps.clone(),
            kept: kept.clone(),
            name,
            governor: self.governor.clone(),
        };
        let planned = replace_children_if_necessary(self.planned.clone(), vec![Arc::new(way_in)])?;
        let schema = planned.schema();
        // The memory reserved for kept rows is released when the operator's own stream is dropped.
        let rows = planned.execute(partition, context)?.map(move |batch| {
            let _kept = &kept;
            batch
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.planned.metrics()
    }
}

/// The input of the operator.
#[derive(Debug)]
struct WayIn {
    input: Arc<dyn ExecutionPlan>,
    keeps: Keeps,
    kept: Arc<MemoryReservation>,
    name: String,
    governor: Arc<Governor>,
}

impl WayIn {
    /// # Errors
    /// Fails if one row would become too large.
    fn pieces(&self, batch: &RecordBatch, lists: &[usize]) -> Result<Vec<RecordBatch>> {
        let bounds = &self.governor.bounds;
        let columns: Vec<ColumnarValue> = batch.columns().iter().cloned().map(ColumnarValue::Array).collect();
        let all = (0..columns.len())
            .filter(|at| !lists.contains(at))
            .map(|at| sizes::of_value(&columns[at], batch.num_rows()));
        let items: u64 = lists.iter().map(|at| Lists::of(&columns[*at]).leaves(batch.num_rows())).sum();
        if all.fold(0, u64::saturating_add).saturating_mul(items) <= bounds.piece {
            return Ok(vec![batch.clone()]);
        }
        let (mut pieces, mut start, mut bytes) = (Vec::new(), 0, 0_u64);
        for row in 0..batch.num_rows() {
            let one = batch.slice(row, 1);
            let items =
                lists.iter().map(|at| Lists::of(&ColumnarValue::Array(one.column(*at).clone())).leaves(1)).max();
            let beside = (0..columns.len()).filter(|at| !lists.contains(at));
            let beside = beside.map(|at| sizes::of_array(one.column(at).as_ref())).fold(0, u64::saturating_add);
            let made = beside.saturating_mul(items.unwrap_or(0));
            if made > bounds.batch {
                return Err(too_large("unnest", made, 1, bounds.batch));
            }
            bytes = bytes.saturating_add(made);
            if bytes > bounds.piece && row > start {
                pieces.push(batch.slice(start, row - start));
                (start, bytes) = (row, made);
            }
        }
        pieces.push(batch.slice(start, batch.num_rows() - start));
        Ok(pieces)
    }
}

impl DisplayAs for WayIn {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counted")
    }
}

impl ExecutionPlan for WayIn {
    fn name(&self) -> &str {
        "Counted"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(input) = children.pop() else { return Ok(self) };
        let (keeps, kept) = (self.keeps.clone(), self.kept.clone());
        Ok(Arc::new(Self { input, keeps, kept, name: self.name.clone(), governor: self.governor.clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, context)?;
        let schema = self.input.schema();
        let way_in = WayIn {
            input: self.input.clone(),
            keeps: self.keeps.clone(),
            kept: self.kept.clone(),
            name: self.name.clone(),
            governor: self.governor.clone(),
        };
        let rows = rows.flat_map(move |batch| {
            let counted = batch.and_then(|batch| match &way_in.keeps {
                Keeps::All => {
                    let bytes = batch.get_array_memory_size().saturating_mul(COPIES);
                    way_in.kept.try_grow(bytes).map(|()| vec![batch])
                }
                Keeps::Items(lists) => way_in.pieces(&batch, lists),
            });
            match counted {
                Ok(pieces) => stream::iter(pieces.into_iter().map(Ok).collect::<Vec<_>>()),
                Err(error) => stream::iter(vec![Err(error)]),
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

//! Keeps batches of wide rows small. A join writes a row out once for each match, up to the batch size of its
//! statement, and filters and repartitions collect rows up to that size: with rows of a megabyte, one batch takes eight
//! gigabytes before anything counts it. The rows that enter such an operator are therefore measured. When a full batch
//! of them would be too large, the statement starts again with a smaller batch size, as long as none of its result has
//! been handed out. Otherwise the batch is reserved in the shared memory, and the statement fails if there is no room.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::Schema;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, replace_children_if_necessary};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::joins::{
    CrossJoinExec, HashJoinExec, NestedLoopJoinExec, PiecewiseMergeJoinExec, SortMergeJoinExec, SymmetricHashJoinExec,
};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::scalar_subquery::ScalarSubqueryExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion::prelude::SessionConfig;
use futures::{StreamExt, stream};
use spiced_engine::{EngineError, ErrorKind};

use super::bounds::{Bounds, readable};
use super::governor::Governor;
use super::sizes;
use crate::error::TooWide;

/// The largest batch that can be written out at all: text and lists have 32-bit offsets.
const ADDRESSABLE: u64 = i32::MAX as u64;

/// The largest batch size that a session may set.
const MAX_BATCH_SIZE: usize = 65_536;

/// The divisor for the part of the bound of a batch that a batch size aims at, so that slightly wider rows that come
/// later fit without another start.
const SLACK: u64 = 4;

/// The batch size of statements that may repeat rows of any width. A wide row may come when the statement cannot start
/// again any more: it is then refused if so many copies of it could not be written out, that is from 2 MiB on.
const CAREFUL_BATCH_SIZE: usize = 1024;

/// Returns the batch size for `plan`, if it may repeat rows of any width.
pub(crate) fn careful_batch_size(plan: &dyn ExecutionPlan, batch_size: usize) -> Option<usize> {
    let is_way_in = |way_in: &WayIn| {
        way_in.does == Does::Repeats && !is_fixed(&way_in.schema(), batch_size, &way_in.governor.bounds)
    };
    let repeats = plan.downcast_ref::<WayIn>().is_some_and(is_way_in)
        || plan.children().into_iter().any(|child| careful_batch_size(child.as_ref(), batch_size).is_some());
    (repeats && batch_size > CAREFUL_BATCH_SIZE).then_some(CAREFUL_BATCH_SIZE)
}

/// Whether a statement can start again: until the first rows of its result are handed out.
#[derive(Debug)]
pub(crate) struct Restart(AtomicBool);

impl Restart {
    /// Lets the statement that runs with `config` start again.
    pub(crate) fn allow(config: &mut SessionConfig) -> Arc<Self> {
        let restart = Arc::new(Self(AtomicBool::new(true)));
        config.set_extension(restart.clone());
        restart
    }

    /// The statement can no longer start again.
    pub(crate) fn end(&self) {
        self.0.store(false, Ordering::Release);
    }

    fn is_possible(config: &SessionConfig) -> bool {
        config.get_extension::<Self>().is_some_and(|restart| restart.0.load(Ordering::Acquire))
    }
}

/// What an operator does with the rows that enter it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Does {
    /// It may fill a batch with one of them.
    Repeats,
    /// It collects them into full batches.
    Collects,
}

/// Measures the rows that enter `node`, if it repeats or collects them.
pub(super) fn measured(
    node: &Arc<dyn ExecutionPlan>,
    governor: &Arc<Governor>,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let does = if node.is::<CrossJoinExec>()
        || node.is::<NestedLoopJoinExec>()
        || node.is::<HashJoinExec>()
        || node.is::<SortMergeJoinExec>()
        || node.is::<SymmetricHashJoinExec>()
        || node.is::<PiecewiseMergeJoinExec>()
        || node.is::<ScalarSubqueryExec>()
    {
        Does::Repeats
    } else if node.is::<FilterExec>() || node.is::<RepartitionExec>() {
        Does::Collects
    } else {
        return Ok(None);
    };
    let children = node.children();
    if children.last().is_none_or(|last| last.is::<WayIn>()) {
        return Ok(None);
    }
    if does == Does::Collects && is_fixed(&node.schema(), MAX_BATCH_SIZE, &governor.bounds) {
        return Ok(None);
    }
    let name: Arc<str> = node.name().into();
    // The first input of a scalar subquery's node is the query that uses the value, once for each of its rows.
    let untouched = usize::from(node.is::<ScalarSubqueryExec>());
    let way_in = |input: &Arc<dyn ExecutionPlan>| {
        let (input, name, governor) = (input.clone(), name.clone(), governor.clone());
        Arc::new(WayIn { input, does, name, governor }) as Arc<dyn ExecutionPlan>
    };
    let children = children.into_iter().enumerate();
    let children = children.map(|(at, input)| if at < untouched { input.clone() } else { way_in(input) }).collect();
    replace_children_if_necessary(node.clone(), children).map(Some)
}

/// Returns whether all rows of `schema` have one size, and a full batch is small: they need no look.
fn is_fixed(schema: &Schema, batch_size: usize, bounds: &Bounds) -> bool {
    let mut widths = schema.fields().iter().map(|field| field.data_type().primitive_width());
    let width = widths.try_fold(0_u64, |sum, width| Some(sum + width? as u64));
    width.is_some_and(|width| width.saturating_mul(batch_size as u64) <= bounds.batch / SLACK)
}

/// An input of an operator that repeats or collects rows.
#[derive(Debug)]
struct WayIn {
    input: Arc<dyn ExecutionPlan>,
    does: Does,
    /// The operator.
    name: Arc<str>,
    governor: Arc<Governor>,
}

impl DisplayAs for WayIn {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeasureRows")
    }
}

impl ExecutionPlan for WayIn {
    fn name(&self) -> &str {
        "MeasureRows"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
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
        let (does, name, governor) = (self.does, self.name.clone(), self.governor.clone());
        Ok(Arc::new(Self { input, does, name, governor }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.input.execute(partition, context.clone())?;
        let schema = rows.schema();
        let batch_size = context.session_config().batch_size();
        let is_fixed = is_fixed(&schema, batch_size, &self.governor.bounds);
        let gauge = Gauge {
            does: self.does,
            name: self.name.clone(),
            bounds: self.governor.bounds,
            is_fixed,
            batch_size,
            reserved: MemoryConsumer::new(format!("{}[{partition}]", self.name)).register(&self.governor.pool),
            context,
        };
        let rows = rows.flat_map(move |batch| {
            let measured = batch.and_then(|batch| gauge.measure(&batch).map(|()| batch));
            let pieces: Box<dyn Iterator<Item = Result<RecordBatch>> + Send> = match measured {
                Ok(batch) if gauge.does == Does::Repeats && batch.num_rows() > gauge.batch_size => {
                    let (step, rows) = (gauge.batch_size.max(1), batch.num_rows());
                    let starts = (0..rows).step_by(step);
                    Box::new(starts.map(move |start| Ok(batch.slice(start, step.min(rows - start)))))
                }
                measured => Box::new(std::iter::once(measured)),
            };
            stream::iter(pieces)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}

/// Measures the rows of one partition.
struct Gauge {
    does: Does,
    name: Arc<str>,
    bounds: Bounds,
    /// Whether rows have one size, and a full batch is small.
    is_fixed: bool,
    batch_size: usize,
    /// What a full batch of the widest row may take beyond the bound.
    reserved: MemoryReservation,
    context: Arc<TaskContext>,
}

impl Gauge {
    /// # Errors
    /// Fails if the statement is to start again, or if there is no room for a full batch.
    fn measure(&self, batch: &RecordBatch) -> Result<()> {
        let (most, rows) = (self.bounds.batch / SLACK, batch.num_rows() as u64);
        if self.is_fixed || rows == 0 {
            return Ok(());
        }
        let full = self.batch_size as u64;
        let all = sizes::of_batch(batch);
        let width = match self.does {
            Does::Repeats if all.saturating_mul(full) <= most => return Ok(()),
            Does::Repeats => sizes::widest_row(batch),
            Does::Collects => all / rows,
        };
        let bytes = width.saturating_mul(full);
        if bytes <= most || self.batch_size == 1 {
            return Ok(());
        }
        let fit = usize::try_from(most / width.max(1)).unwrap_or(usize::MAX);
        if Restart::is_possible(self.context.session_config()) {
            let rows = fit.clamp(1, self.batch_size / 2);
            tracing::info!(operator = %self.name, width, rows, "a statement with wide rows starts again with smaller batches");
            let error = self.no_room(width);
            return Err(DataFusionError::External(Box::new(TooWide { rows, error })));
        }
        // Collected rows were in memory before, and each once.
        if bytes <= self.bounds.batch || self.does == Does::Collects {
            return Ok(());
        }
        let room = usize::try_from(bytes).unwrap_or(usize::MAX);
        if bytes > ADDRESSABLE || (room > self.reserved.size() && self.reserved.try_resize(room).is_err()) {
            return Err(DataFusionError::External(Box::new(self.no_room(width))));
        }
        Ok(())
    }

    fn no_room(&self, width: u64) -> EngineError {
        let [width, most] = [width, self.bounds.batch].map(readable);
        EngineError::new(
            ErrorKind::Exhausted,
            format!(
                "a row of {width} may be repeated {} times at once by `{}`, and the most at once is {most}; \
                 select fewer columns of the wide rows, or join them last",
                self.batch_size, self.name
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int64Array, ListArray, StringArray, StructArray};
    use datafusion::arrow::datatypes::{Field, Int64Type};
    use datafusion::execution::memory_pool::{MemoryPool, UnboundedMemoryPool};

    use super::*;
    use crate::error::{cannot_start_again, smaller_batches};

    fn gauge(does: Does, batch_size: usize, may_restart: bool) -> (Gauge, Arc<Restart>) {
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let mut config = SessionConfig::new();
        let restart = Restart::allow(&mut config);
        if !may_restart {
            restart.end();
        }
        let gauge = Gauge {
            does,
            name: "It".into(),
            bounds: Bounds { value: 1 << 20, batch: 4 << 20, piece: 1 << 20 },
            is_fixed: false,
            batch_size,
            reserved: MemoryConsumer::new("it").register(&pool),
            context: Arc::new(TaskContext::default().with_session_config(config)),
        };
        (gauge, restart)
    }

    fn texts(lengths: &[usize]) -> RecordBatch {
        let texts: StringArray = lengths.iter().map(|length| Some("x".repeat(*length))).collect();
        RecordBatch::try_from_iter([("t", Arc::new(texts) as ArrayRef)]).unwrap()
    }

    #[test]
    fn wide_rows_ask_for_smaller_batches_until_rows_are_handed_out() {
        for (does, lengths, expected) in [
            (Does::Repeats, &[10, 20][..], None),
            (Does::Repeats, &[10, 10_000], Some(104)),
            (Does::Repeats, &[2 << 20], Some(1)),
            (Does::Collects, &[10, 100], None),
            (Does::Collects, &[10_000, 10_000], Some(104)),
        ] {
            let (gauge, restart) = gauge(does, 8192, true);
            let asked = gauge.measure(&texts(lengths)).err();
            assert_eq!(asked.as_ref().and_then(smaller_batches), expected, "{does:?} {lengths:?}");
            assert_eq!(asked.as_ref().and_then(cannot_start_again).is_some(), expected.is_some());
            restart.end();
            let later = gauge.measure(&texts(lengths)).err();
            assert_eq!(later.as_ref().and_then(smaller_batches), None);
        }
    }

    #[test]
    fn a_batch_beyond_the_bound_is_reserved_or_refused() {
        let (gauge, _) = gauge(Does::Repeats, 8192, false);
        gauge.measure(&texts(&[400])).unwrap();
        assert_eq!(gauge.reserved.size(), 0);
        gauge.measure(&texts(&[10_000, 1])).unwrap();
        assert_eq!(gauge.reserved.size(), 8192 * 10_004);
        let refused = gauge.measure(&texts(&[1 << 20])).unwrap_err();
        assert!(refused.to_string().contains("may be repeated 8192 times"), "{refused}");
    }

    #[test]
    fn a_batch_size_of_one_is_the_end() {
        let (gauge, _) = gauge(Does::Repeats, 1, true);
        gauge.measure(&texts(&[8 << 20])).unwrap();
    }

    #[test]
    fn the_widest_row_is_found_in_any_type() {
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1); 100]), None, Some(vec![])]);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("abc"), None, Some("0123456789")]));
        let field = |name, array: &ArrayRef| Arc::new(Field::new(name, array.data_type().clone(), true));
        let both =
            StructArray::from(vec![(field("n", &numbers), numbers.clone()), (field("t", &texts), texts.clone())]);
        for (array, expected) in [
            (Arc::new(list) as ArrayRef, 4 + 800),
            (numbers, 8),
            (texts, 4 + 10),
            (Arc::new(both) as ArrayRef, 8 + 4 + 10),
        ] {
            assert_eq!(sizes::widest(array.as_ref()), expected, "{}", array.data_type());
            assert!(sizes::widest(array.slice(1, 1).as_ref()) < expected.max(9));
        }
    }
}

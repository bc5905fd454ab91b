//! An aggregate function under the governor. The function reports the memory that it keeps, and the shared memory limit
//! bounds that; what is left are arguments that allocate memory at once, and panics.

use std::any::Any;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, WindowFunctionParams};
use datafusion::logical_expr::function::{AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs};
use datafusion::logical_expr::udf_eq::UdfEq;
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Documentation, EmitTo, Expr, GroupsAccumulator,
    Operator, ReversedUDAF, SetMonotonicity, Signature, StatisticsArgs,
};
use spiced_engine::ErrorKind;

use super::contain::contain;
use super::governor::Governor;
use super::sizes::{self, Numbers};
use super::sums;
use crate::error::refusal;

/// The maximum number of centroids of a distribution sketch: each group has a sketch. DataFusion's default is 100.
const MAX_CENTROIDS: i64 = 10_000;
/// A result of up to this many bytes is small.
const SMALL: u64 = 256;

#[derive(Debug)]
struct Governed(UdfEq<Arc<dyn AggregateUDFImpl>>, Arc<Governor>);

impl PartialEq for Governed {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Governed {}

impl Hash for Governed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// Puts `function` under the governor.
pub(super) fn govern(function: &Arc<AggregateUDF>, governor: &Arc<Governor>) -> Arc<AggregateUDF> {
    if is_governed(function) {
        return function.clone();
    }
    Arc::new(AggregateUDF::new_from_impl(Governed(Arc::clone(function.inner()).into(), governor.clone())))
}

/// Returns whether `function` is governed.
pub(super) fn is_governed(function: &AggregateUDF) -> bool {
    function.inner().is::<Governed>()
}

impl Governed {
    /// Checks the arguments.
    ///
    /// # Errors
    /// Fails if an argument allocates too much memory for each group.
    fn check(&self, args: &AccumulatorArgs<'_>) -> Result<()> {
        let centroids = match self.0.name() {
            "approx_percentile_cont" => args.exprs.get(2),
            "approx_percentile_cont_with_weight" => args.exprs.get(3),
            _ => None,
        };
        let Some(centroids) = centroids else { return Ok(()) };
        let none = RecordBatch::new_empty(Arc::new(args.schema.clone()));
        let Ok(value @ ColumnarValue::Scalar(_)) = centroids.evaluate(&none) else { return Ok(()) };
        match Numbers::of(&value).and_then(|numbers| numbers.at(0)) {
            Some(centroids) if centroids > MAX_CENTROIDS => Err(refusal(
                ErrorKind::InvalidStatement,
                format!("`{}` takes {MAX_CENTROIDS} centroids at most, and not {centroids}", self.0.name()),
            )),
            _ => Ok(()),
        }
    }

    /// Returns the result of `help` if this function is `sum`.
    fn sums<T>(&self, help: impl FnOnce(&dyn AggregateUDFImpl) -> Option<T>) -> Option<T> {
        if self.0.name() == "sum" { help(self.0.as_ref()) } else { None }
    }

    fn contained<A: ?Sized>(&self, inner: Box<A>) -> Contained<A> {
        let name = self.0.name().to_owned();
        let results = Results::new(&name, &self.1);
        // Its text moves to a larger buffer as it grows, and exists twice meanwhile.
        let grows = (name == "string_agg").then(|| Growth {
            given: 0,
            copy: MemoryConsumer::new(format!("a longer text of {name}")).register(&self.1.pool),
        });
        Contained { name, inner, results, grows }
    }
}

impl AggregateUDFImpl for Governed {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.0.schema_name(params)
    }

    fn human_display(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.0.human_display(params)
    }

    fn window_function_schema_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.0.window_function_schema_name(params)
    }

    fn display_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.0.display_name(params)
    }

    fn window_function_display_name(&self, params: &WindowFunctionParams) -> Result<String> {
        self.0.window_function_display_name(params)
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        contain(self.name(), || self.0.return_type(arg_types))
    }

    fn return_field(&self, arg_fields: &[FieldRef]) -> Result<FieldRef> {
        contain(self.name(), || self.0.return_field(arg_fields))
    }

    fn is_nullable(&self) -> bool {
        self.0.is_nullable()
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.check(&args)?;
        let inner = contain(self.name(), || match self.sums(|sum| sums::accumulator(sum, &args)) {
            Some(inner) => inner,
            None => self.0.accumulator(args),
        })?;
        Ok(Box::new(self.contained(inner)))
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        contain(self.name(), || match self.sums(|sum| sums::state_fields(sum, &args)) {
            Some(fields) => fields,
            None => self.0.state_fields(args),
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        self.0.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        self.check(&args)?;
        let inner = contain(self.name(), || match self.sums(|sum| sums::groups(sum, &args)) {
            Some(inner) => inner,
            None => self.0.create_groups_accumulator(args),
        })?;
        Ok(Box::new(self.contained(inner)))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.check(&args)?;
        let inner = contain(self.name(), || match self.sums(|sum| sums::sliding(sum, &args)) {
            Some(inner) => inner,
            None => self.0.create_sliding_accumulator(args),
        })?;
        Ok(Box::new(self.contained(inner)))
    }

    fn with_beneficial_ordering(
        self: Arc<Self>,
        beneficial_ordering: bool,
    ) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        let ordered = Arc::clone(&*self.0).with_beneficial_ordering(beneficial_ordering)?;
        Ok(ordered.map(|inner| Arc::new(Self(inner.into(), self.1.clone())) as Arc<dyn AggregateUDFImpl>))
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.0.order_sensitivity()
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.0.simplify()
    }

    fn simplify_expr_op_literal(
        &self,
        agg_function: &AggregateFunction,
        arg: &Expr,
        op: Operator,
        lit: &Expr,
        arg_is_left: bool,
    ) -> Result<Option<Expr>> {
        contain(self.name(), || self.0.simplify_expr_op_literal(agg_function, arg, op, lit, arg_is_left))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        match self.0.reverse_expr() {
            ReversedUDAF::Reversed(reversed) => ReversedUDAF::Reversed(govern(&reversed, &self.1)),
            same => same,
        }
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        contain(self.name(), || self.0.coerce_types(arg_types))
    }

    fn is_descending(&self) -> Option<bool> {
        self.0.is_descending()
    }

    fn value_from_stats(&self, statistics_args: &StatisticsArgs<'_>) -> Option<ScalarValue> {
        self.0.value_from_stats(statistics_args)
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.0.default_value(data_type)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.0.supports_null_handling_clause()
    }

    fn supports_within_group_clause(&self) -> bool {
        self.0.supports_within_group_clause()
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.0.set_monotonicity(data_type)
    }
}

/// The results for the rows of a window: each row has one, and each result may be as large as all rows before it.
#[derive(Debug)]
pub(super) struct Results {
    /// Whether there has been a result: a group has only one.
    has_one: bool,
    kept: MemoryReservation,
}

impl Results {
    pub(super) fn new(name: &str, governor: &Governor) -> Self {
        let kept = MemoryConsumer::new(format!("the results of {name}")).register(&governor.pool);
        Self { has_one: false, kept }
    }

    /// Counts a result.
    ///
    /// # Errors
    /// Fails if there is no memory for it.
    pub(super) fn count(&mut self, result: &ScalarValue) -> Result<()> {
        let bytes = if self.has_one { sizes::of_scalar(result) } else { 0 };
        self.has_one = true;
        // Results of the size of a number are counted with the rows.
        if bytes > SMALL { self.kept.try_grow(usize::try_from(bytes).unwrap_or(usize::MAX)) } else { Ok(()) }
    }
}

/// A text that grows with each batch.
struct Growth {
    /// The bytes given so far.
    given: usize,
    /// The larger buffer, while the text moves.
    copy: MemoryReservation,
}

impl Growth {
    /// Reserves the larger buffer for a text in a buffer of `held` bytes, if `values` do not fit.
    fn reserve(&mut self, held: usize, values: &[ArrayRef]) -> Result<()> {
        let more = values.iter().map(|array| sizes::of_array(array.as_ref())).fold(0, u64::saturating_add);
        self.given = self.given.saturating_add(usize::try_from(more).unwrap_or(usize::MAX));
        if self.given > held { self.copy.try_grow(held.saturating_mul(2).max(self.given)) } else { Ok(()) }
    }
}

/// Accumulates the rows of a group; a panic fails the statement.
struct Contained<A: ?Sized> {
    name: String,
    inner: Box<A>,
    results: Results,
    grows: Option<Growth>,
}

impl<A: ?Sized + Any> fmt::Debug for Contained<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contained").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Accumulator for Contained<dyn Accumulator> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if let Some(grows) = &mut self.grows {
            grows.reserve(self.inner.size(), values)?;
        }
        let updated = contain(&self.name, || self.inner.update_batch(values));
        if let Some(grows) = &self.grows {
            grows.copy.free();
        }
        updated
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let result = contain(&self.name, || self.inner.evaluate())?;
        self.results.count(&result)?;
        Ok(result)
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        contain(&self.name, || self.inner.state())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        contain(&self.name, || self.inner.merge_batch(states))
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        contain(&self.name, || self.inner.retract_batch(values))
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}

impl GroupsAccumulator for Contained<dyn GroupsAccumulator> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        contain(&self.name, || self.inner.update_batch(values, group_indices, opt_filter, total_num_groups))
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        contain(&self.name, || self.inner.evaluate(emit_to))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        contain(&self.name, || self.inner.state(emit_to))
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        contain(&self.name, || self.inner.merge_batch(values, group_indices, total_num_groups))
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        contain(&self.name, || self.inner.convert_to_state(values, opt_filter))
    }

    fn size(&self) -> usize {
        self.inner.size()
    }
}

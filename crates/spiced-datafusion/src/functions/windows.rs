//! Governed window functions. Each produces one value per row. Large values are counted, and panics fail the statement.

use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{
    ExpressionArgs, PartitionEvaluatorArgs, WindowFunctionSimplification, WindowUDFFieldArgs,
};
use datafusion::logical_expr::udf_eq::UdfEq;
use datafusion::logical_expr::window_state::WindowAggState;
use datafusion::logical_expr::{
    Documentation, LimitEffect, PartitionEvaluator, ReversedUDWF, Signature, WindowUDF, WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;
use spiced_engine::ErrorKind;

use super::aggregates::Results;
use super::contain::contain;
use super::governor::Governor;
use crate::error::refusal;

#[derive(Debug)]
struct Governed(UdfEq<Arc<dyn WindowUDFImpl>>, Arc<Governor>);

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

/// Returns `function`, governed.
pub(super) fn govern(function: &Arc<WindowUDF>, governor: &Arc<Governor>) -> Arc<WindowUDF> {
    if is_governed(function) {
        return function.clone();
    }
    Arc::new(WindowUDF::new_from_impl(Governed(Arc::clone(function.inner()).into(), governor.clone())))
}

/// Returns whether `function` is governed.
pub(super) fn is_governed(function: &WindowUDF) -> bool {
    function.inner().is::<Governed>()
}

impl WindowUDFImpl for Governed {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn aliases(&self) -> &[String] {
        self.0.aliases()
    }

    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn expressions(&self, args: ExpressionArgs<'_>) -> Vec<Arc<dyn PhysicalExpr>> {
        self.0.expressions(args)
    }

    fn partition_evaluator(&self, args: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        let inner = contain(self.name(), || self.0.partition_evaluator(args))?;
        let name = self.name().to_owned();
        let results = Results::new(&name, &self.1);
        Ok(Box::new(Contained { name, inner, results }))
    }

    fn simplify(&self) -> Option<WindowFunctionSimplification> {
        self.0.simplify()
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        if matches!(self.name(), "first_value" | "last_value" | "nth_value" | "lag" | "lead")
            && args.input_fields().is_empty()
        {
            return Err(refusal(ErrorKind::InvalidStatement, format!("`{}` needs an argument", self.name())));
        }
        contain(self.name(), || self.0.field(args))
    }

    fn sort_options(&self) -> Option<SortOptions> {
        self.0.sort_options()
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        contain(self.name(), || self.0.coerce_types(arg_types))
    }

    fn reverse_expr(&self) -> ReversedUDWF {
        match self.0.reverse_expr() {
            ReversedUDWF::Reversed(reversed) => ReversedUDWF::Reversed(govern(&reversed, &self.1)),
            same => same,
        }
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.0.documentation()
    }

    fn limit_effect(&self, args: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        self.0.limit_effect(args)
    }
}

/// A partition evaluator whose panics fail the statement.
#[derive(Debug)]
struct Contained {
    name: String,
    inner: Box<dyn PartitionEvaluator>,
    results: Results,
}

impl PartitionEvaluator for Contained {
    fn memoize(&mut self, state: &mut WindowAggState) -> Result<()> {
        contain(&self.name, || self.inner.memoize(state))
    }

    fn get_range(&self, idx: usize, n_rows: usize) -> Result<Range<usize>> {
        contain(&self.name, || self.inner.get_range(idx, n_rows))
    }

    fn is_causal(&self) -> bool {
        self.inner.is_causal()
    }

    fn evaluate_all(&mut self, values: &[ArrayRef], num_rows: usize) -> Result<ArrayRef> {
        contain(&self.name, || self.inner.evaluate_all(values, num_rows))
    }

    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        let result = contain(&self.name, || self.inner.evaluate(values, range))?;
        self.results.count(&result)?;
        Ok(result)
    }

    fn evaluate_all_with_rank(&self, num_rows: usize, ranks_in_partition: &[Range<usize>]) -> Result<ArrayRef> {
        contain(&self.name, || self.inner.evaluate_all_with_rank(num_rows, ranks_in_partition))
    }

    fn supports_bounded_execution(&self) -> bool {
        self.inner.supports_bounded_execution()
    }

    fn uses_window_frame(&self) -> bool {
        self.inner.uses_window_frame()
    }

    fn include_rank(&self) -> bool {
        self.inner.include_rank()
    }
}

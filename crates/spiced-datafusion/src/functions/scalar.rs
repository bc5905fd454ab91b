//! Governed scalar functions, and the functions within an expression: what a function is simplified to is governed too.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{ExprSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::udf_eq::UdfEq;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExpressionPlacement, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, StructFieldMapping, WindowFunctionDefinition,
};

use super::contain::contain;
use super::governor::Governor;
use super::growth::{self, Growth};
use super::{aggregates, bounds, constant, formula, literals, piece, types, watch, windows};

/// Functions that DataFusion finds by their type: it reads a struct field alone from a file, and fills in file names
/// where the file is read. The result of these functions is never larger than their input.
const RAW: [&str; 3] = ["get_field", "input_file_name", "file_row_index"];

/// The size in bytes from which a call reserves its result in the memory pool.
const COUNTED: u64 = 1 << 20;

/// A function whose result size is estimated before it runs.
#[derive(Debug)]
struct Governed {
    inner: UdfEq<Arc<dyn ScalarUDFImpl>>,
    growth: Growth,
    governor: Arc<Governor>,
}

/// Returns `function`, governed by `governor`.
pub(super) fn govern(function: &Arc<ScalarUDF>, governor: &Arc<Governor>) -> Arc<ScalarUDF> {
    if is_governed(function) {
        return function.clone();
    }
    let growth = growth::of(function.name()).unwrap_or(growth::UNKNOWN);
    let inner = function.inner().clone().into();
    Arc::new(ScalarUDF::new_from_impl(Governed { inner, growth, governor: governor.clone() }))
}

/// Returns whether `function` needs no further governing.
pub(super) fn is_governed(function: &ScalarUDF) -> bool {
    function.inner().is::<Governed>()
        || constant::is_governed(function)
        || formula::is_formula(function)
        || RAW.contains(&function.name())
}

/// Returns whether the result can be larger than the arguments.
pub(super) fn grows(function: &ScalarUDF) -> bool {
    let governed = function.inner().downcast_ref::<Governed>();
    governed.is_some_and(|governed| !matches!(governed.growth, Growth::Fixed | Growth::Cast))
}

/// Returns the ungoverned function, for code that checks the type of another function.
fn raw(expression: Expr) -> Expr {
    match expression {
        Expr::ScalarFunction(mut call) => {
            if let Some(governed) = call.func.inner().downcast_ref::<Governed>() {
                call.func = Arc::new(ScalarUDF::new_from_shared_impl(Arc::clone(&governed.inner)));
            }
            Expr::ScalarFunction(call)
        }
        other => other,
    }
}

impl Governed {
    /// Reserves the memory of a call's result for as long as the returned reservation lives.
    ///
    /// # Errors
    /// Fails if the result is too large.
    fn admit(&self, args: &[ColumnarValue], rows: usize) -> Result<Option<MemoryReservation>> {
        let Governor { bounds, pool } = &*self.governor;
        let enough = piece::most(bounds).min(bounds.value);
        let made = growth::estimate(self.growth, args, rows, enough);
        let name = self.inner.name();
        if made.value > bounds.value {
            return Err(bounds::too_large(name, made.value, 1, bounds.value));
        }
        literals::admit(name, made.total)?;
        let is_constant = args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        // A caller may write a constant out for every row.
        let spread = if is_constant { made.total.saturating_mul(rows.max(1) as u64) } else { made.total };
        piece::admit(name, spread, rows, bounds)?;
        if made.total < COUNTED {
            return Ok(None);
        }
        let taken = MemoryConsumer::new(format!("the function {name}")).register(pool);
        taken.try_grow(usize::try_from(made.total).unwrap_or(usize::MAX))?;
        Ok(Some(taken))
    }
}

impl PartialEq for Governed {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Governed {}

impl Hash for Governed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl ScalarUDFImpl for Governed {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    #[expect(deprecated)]
    fn display_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.display_name(args)
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        contain(self.name(), || self.inner.return_type(arg_types))
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        let inner = self.inner.with_updated_config(config)?.inner().clone().into();
        Some(ScalarUDF::new_from_impl(Self { inner, growth: self.growth, governor: self.governor.clone() }))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if self.growth == Growth::Cast
            && let Some(Some(name)) = args.scalar_arguments.get(1).map(|name| name.and_then(ScalarValue::try_as_str))
        {
            types::check_name(name.unwrap_or(""))?;
        }
        let field = contain(self.name(), || self.inner.return_field_from_args(args))?;
        if self.growth == Growth::Cast {
            types::check(field.data_type())?;
        }
        Ok(field)
    }

    #[expect(deprecated)]
    fn is_nullable(&self, args: &[Expr], schema: &dyn ExprSchema) -> bool {
        self.inner.is_nullable(args, schema)
    }

    fn is_strict(&self) -> bool {
        self.inner.is_strict()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        watch::check(&args.config_options)?;
        let _taken = self.admit(&args.args, args.number_rows)?;
        contain(self.name(), || self.inner.invoke_with_args(args))
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let args = args.into_iter().map(raw).collect();
        Ok(match contain(self.name(), || self.inner.simplify(args, info))? {
            ExprSimplifyResult::Simplified(made) => {
                ExprSimplifyResult::Simplified(expression(made, &self.governor)?.data)
            }
            ExprSimplifyResult::Original(args) => {
                let govern = |arg| match arg {
                    Expr::ScalarFunction(mut call) => {
                        call.func = govern(&call.func, &self.governor);
                        Expr::ScalarFunction(call)
                    }
                    other => other,
                };
                ExprSimplifyResult::Original(args.into_iter().map(govern).collect())
            }
        })
    }

    fn preimage(&self, args: &[Expr], lit_expr: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        contain(self.name(), || self.inner.preimage(args, lit_expr, info))
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval> {
        contain(self.name(), || self.inner.evaluate_bounds(input))
    }

    fn propagate_constraints(&self, interval: &Interval, inputs: &[&Interval]) -> Result<Option<Vec<Interval>>> {
        contain(self.name(), || self.inner.propagate_constraints(interval, inputs))
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.preserves_lex_ordering(inputs)
    }

    fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.strictly_order_preserving(inputs)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        contain(self.name(), || self.inner.coerce_types(arg_types))
    }

    fn struct_field_mapping(&self, literal_args: &[Option<ScalarValue>]) -> Option<StructFieldMapping> {
        self.inner.struct_field_mapping(literal_args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement {
        self.inner.placement(args)
    }
}

/// Returns whether `part` is a call of a function that is not governed.
pub(super) fn needs(part: &Expr) -> bool {
    match part {
        Expr::ScalarFunction(call) => !is_governed(&call.func),
        Expr::AggregateFunction(call) => !aggregates::is_governed(&call.func) || is_ordered_in_vain(call),
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => !aggregates::is_governed(function),
            WindowFunctionDefinition::WindowUDF(function) => !windows::is_governed(function),
        },
        _ => false,
    }
}

/// Returns the expression with every function in it governed.
pub(super) fn expression(whole: Expr, governor: &Arc<Governor>) -> Result<Transformed<Expr>> {
    whole.transform_up(|part| {
        if !needs(&part) {
            return Ok(Transformed::no(part));
        }
        Ok(Transformed::yes(match part {
            Expr::ScalarFunction(mut call) => {
                call.func = govern(&call.func, governor);
                Expr::ScalarFunction(call)
            }
            Expr::AggregateFunction(mut call) => {
                call.func = aggregates::govern(&call.func, governor);
                if is_ordered_in_vain(&call) {
                    call.params.order_by.clear();
                }
                Expr::AggregateFunction(call)
            }
            Expr::WindowFunction(call) => {
                let WindowFunction { fun, params } = *call;
                let fun = match fun {
                    WindowFunctionDefinition::AggregateUDF(function) => {
                        WindowFunctionDefinition::AggregateUDF(aggregates::govern(&function, governor))
                    }
                    WindowFunctionDefinition::WindowUDF(function) => {
                        WindowFunctionDefinition::WindowUDF(windows::govern(&function, governor))
                    }
                };
                Expr::WindowFunction(Box::new(WindowFunction { fun, params }))
            }
            other => other,
        }))
    })
}

/// Aggregates whose result does not depend on the order, and for which DataFusion panics if an order is given and there
/// are groups.
const UNORDERED: [&str; 26] = [
    "approx_distinct",
    "approx_median",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "median",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "var",
    "var_pop",
];

fn is_ordered_in_vain(call: &AggregateFunction) -> bool {
    !call.params.order_by.is_empty() && UNORDERED.contains(&call.func.name())
}

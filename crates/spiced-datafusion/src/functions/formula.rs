//! Arithmetic that is exact or an error if integers or decimals overflow their type. DataFusion lets integers wrap (the
//! largest integer plus one is the smallest), and returns decimals with more digits than their type has.
//!
//! Each tree of `+ - * / %`, minus signs and casts between numbers becomes one function of the tree's leaves, whatever
//! the tree's size: DataFusion computes the type of a call repeatedly, so nested calls would cost the cube of their
//! number. A function is evaluated in the same way wherever it is used: constant-folded, pushed down, in a window.

use std::fmt::Write;
use std::hash::Hash;
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, Datum};
use datafusion::arrow::compute::kernels::numeric;
use datafusion::arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type, Field, FieldRef,
    TimeUnit,
};
use datafusion::arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue, internal_err};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use spiced_engine::ErrorKind;

use super::watch;
use crate::error::refusal;
use crate::planning::plan_expressions;

/// The analyzer rule. It runs after DataFusion's type coercion, which brings the operands of each operator to
/// compatible types.
#[derive(Debug)]
pub(crate) struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            let is_affected = plan_expressions::any(&node, |part| is_operation(part) || is_cast_to_time(part))?;
            // DataFusion folds the expressions of a limit itself and accepts only a number; it rejects a negative one.
            if !is_affected || matches!(node, LogicalPlan::Limit(_)) {
                return Ok(Transformed::no(node));
            }
            plan_expressions::rewrite_typed(node, checked)
        })?;
        Ok(plan.data)
    }
}

fn is_operation(part: &Expr) -> bool {
    match part {
        Expr::BinaryExpr(pair) => is_arithmetic(pair.op),
        Expr::Negative(_) => true,
        _ => false,
    }
}

fn is_cast_to_time(part: &Expr) -> bool {
    matches!(part, Expr::Cast(cast) if matches!(cast.field.data_type(), DataType::Timestamp(..)))
}

fn is_arithmetic(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo)
}

/// Replaces the trees of arithmetic in `whole` with functions.
fn checked(whole: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    whole.transform_down(|part| {
        if let Expr::Cast(Cast { expr, field }) = &part
            && matches!(field.data_type(), DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _))
            && matches!(expr.get_type(schema), Ok(DataType::Date64))
        {
            // Arrow multiplies without an overflow check here, but with one between units of time.
            let inner = checked(expr.as_ref().clone(), schema)?.data;
            let inner = Expr::Cast(Cast::new(Box::new(inner), DataType::Timestamp(TimeUnit::Millisecond, None)));
            let cast = Expr::Cast(Cast::new(Box::new(inner), field.data_type().clone()));
            return Ok(Transformed::new(cast, true, TreeNodeRecursion::Jump));
        }
        if !is_operation(&part) || kind(&part, schema).is_none() {
            return Ok(Transformed::no(part));
        }
        let (mut steps, mut leaves) = (Vec::new(), Vec::new());
        build(part, schema, &mut steps, &mut leaves)?;
        let call = ScalarFunction { func: Arc::new(ScalarUDF::from(Formula::new(steps))), args: leaves };
        Ok(Transformed::new(Expr::ScalarFunction(call), true, TreeNodeRecursion::Jump))
    })
}

/// The type of number that a tree computes with. A tree computes with one kind only.
#[derive(Clone, PartialEq)]
enum Kind {
    Integer(DataType),
    Decimal,
    /// A length of time, which can be negated.
    Span,
    /// A date, from which another date is subtracted.
    Date,
}

impl Kind {
    fn of(data_type: DataType) -> Option<Self> {
        match data_type {
            data_type if data_type.is_integer() => Some(Self::Integer(data_type)),
            data_type if data_type.is_decimal() => Some(Self::Decimal),
            DataType::Interval(_) | DataType::Duration(_) => Some(Self::Span),
            DataType::Date32 | DataType::Date64 => Some(Self::Date),
            _ => None,
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Integer(_) | Self::Decimal)
    }
}

/// Returns the kind of `part`, if it is a number or made of numbers alone.
fn kind(part: &Expr, schema: &DFSchema) -> Option<Kind> {
    stacker::maybe_grow(RED_ZONE, STACK, || match part {
        Expr::BinaryExpr(pair) if is_arithmetic(pair.op) => {
            let left = kind(&pair.left, schema).filter(|left| left.is_number() || *left == Kind::Date)?;
            if kind(&pair.right, schema)? != left {
                return None;
            }
            match left {
                // The difference in days. DataFusion's range analysis takes it for a length of time and fails.
                Kind::Date => (pair.op == Operator::Minus).then_some(Kind::Integer(DataType::Int64)),
                number => Some(number),
            }
        }
        Expr::Negative(negated) => kind(negated, schema).filter(|negated| match negated {
            Kind::Integer(integer) => !integer.is_unsigned_integer(),
            Kind::Decimal | Kind::Span => true,
            Kind::Date => false,
        }),
        Expr::Cast(cast) if is_operation(&cast.expr) => {
            let to = Kind::of(cast.field.data_type().clone())?;
            let from = kind(&cast.expr, schema);
            // Otherwise the cast is a leaf.
            let is_leaf = !to.is_number() || !from.is_some_and(|from| from.is_number());
            if is_leaf { Kind::of(part.get_type(schema).ok()?) } else { Some(to) }
        }
        leaf => Kind::of(leaf.get_type(schema).ok()?),
    })
}

/// How much stack must be left, and how much is added if it is not.
const RED_ZONE: usize = 64 << 10;
const STACK: usize = 1 << 20;

/// Decomposes `part`, which has a [`kind`], into steps and leaves.
fn build(part: Expr, schema: &DFSchema, steps: &mut Vec<Step>, leaves: &mut Vec<Expr>) -> Result<()> {
    stacker::maybe_grow(RED_ZONE, STACK, || {
        match part {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_arithmetic(op) => {
                build(*left, schema, steps, leaves)?;
                build(*right, schema, steps, leaves)?;
                steps.push(Step::Pair(op));
            }
            Expr::Negative(negated) => {
                build(*negated, schema, steps, leaves)?;
                steps.push(Step::Negate);
            }
            Expr::Cast(Cast { expr, field })
                if is_operation(&expr)
                    && Kind::of(field.data_type().clone()).is_some_and(|to| to.is_number())
                    && kind(&expr, schema).is_some_and(|from| from.is_number()) =>
            {
                build(*expr, schema, steps, leaves)?;
                steps.push(Step::Cast(field.data_type().clone()));
            }
            leaf => {
                leaves.push(checked(leaf, schema)?.data);
                steps.push(Step::Leaf);
            }
        }
        Ok(())
    })
}

/// Returns the operators that `call` replaces, for code that reads expressions.
pub(crate) fn unfold(call: &ScalarFunction) -> Option<Expr> {
    call.func.inner().downcast_ref::<Formula>().and_then(|formula| formula.expression(&call.args))
}

/// Returns whether `function` is a formula.
pub(super) fn is_formula(function: &ScalarUDF) -> bool {
    function.inner().is::<Formula>()
}

/// A step of a computation: it takes its operands from the stack.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    /// Pushes the next argument.
    Leaf,
    Pair(Operator),
    Negate,
    Cast(DataType),
}

/// A tree of arithmetic, as the steps that compute it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Formula {
    steps: Vec<Step>,
    name: String,
    signature: Signature,
}

/// The maximum length of a formula that is shown in a plan.
const LONGEST_NAME: usize = 64;

impl Formula {
    fn new(steps: Vec<Step>) -> Self {
        let mut formula =
            Self { steps, name: String::new(), signature: Signature::variadic_any(Volatility::Immutable) };
        formula.name = formula.written();
        formula
    }

    /// Runs all steps: `leaf` and `made` return the result of each.
    fn run<T>(
        &self,
        mut leaf: impl FnMut(usize) -> Result<T>,
        mut made: impl FnMut(&Step, T, Option<T>) -> Result<T>,
    ) -> Result<T> {
        let (mut stack, mut next) = (Vec::new(), 0);
        for step in &self.steps {
            let value = match step {
                Step::Leaf => {
                    next += 1;
                    leaf(next - 1)?
                }
                step => {
                    let last = stack.pop();
                    let first = if matches!(step, Step::Pair(_)) { stack.pop() } else { None };
                    match (first, last) {
                        (Some(first), last) => made(step, first, last)?,
                        (None, Some(only)) => made(step, only, None)?,
                        (None, None) => return internal_err!("a formula has an operator without operands"),
                    }
                }
            };
            stack.push(value);
        }
        match stack.pop() {
            Some(value) if stack.is_empty() => Ok(value),
            _ => internal_err!("a formula leaves nothing, or too much"),
        }
    }

    fn written(&self) -> String {
        if self.steps.len() > LONGEST_NAME / 3 {
            return "formula".to_owned();
        }
        let written = self.run(
            |at| Ok(format!("${}", at + 1)),
            |step, first, last| {
                Ok(match (step, last) {
                    (Step::Pair(op), Some(last)) => format!("({first} {op} {last})"),
                    (Step::Cast(to), _) => format!("({first}::{to})"),
                    _ => format!("(-{first})"),
                })
            },
        );
        let mut name = "formula ".to_owned();
        // Writing to a `String` does not fail.
        let _ = write!(name, "{}", written.unwrap_or_default());
        name
    }

    fn expression(&self, args: &[Expr]) -> Option<Expr> {
        let made = |step: &Step, first: Expr, last: Option<Expr>| {
            Ok(match (step, last) {
                (Step::Pair(op), Some(last)) => Expr::BinaryExpr(BinaryExpr::new(Box::new(first), *op, Box::new(last))),
                (Step::Cast(to), _) => Expr::Cast(Cast::new(Box::new(first), to.clone())),
                _ => Expr::Negative(Box::new(first)),
            })
        };
        self.run(|at| args.get(at).cloned().map_or_else(|| internal_err!("an argument is missing"), Ok), made).ok()
    }

    fn type_of(&self, types: &[DataType]) -> Result<DataType> {
        self.run(
            |at| types.get(at).cloned().map_or_else(|| internal_err!("an argument is missing"), Ok),
            |step, first, last| match (step, last) {
                (Step::Pair(op), Some(last)) => BinaryTypeCoercer::new(&first, op, &last).get_result_type(),
                (Step::Cast(to), _) => Ok(to.clone()),
                _ => Ok(first),
            },
        )
    }
}

impl ScalarUDFImpl for Formula {
    fn name(&self) -> &str {
        &self.name
    }

    /// The name is that of the operators.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match self.expression(args) {
            Some(expression) => Ok(expression.schema_name().to_string()),
            None => internal_err!("a formula has not the arguments that it takes"),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.type_of(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types = args.arg_fields.iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.type_of(&types)?, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        watch::check(&args.config_options)?;
        self.run(
            |at| args.args.get(at).cloned().map_or_else(|| internal_err!("an argument is missing"), Ok),
            |step, first, last| match (step, last) {
                (Step::Pair(op), Some(last)) => pair(*op, &first, &last),
                (Step::Cast(to), _) => first.cast_to(to, None),
                _ => negate(&first),
            },
        )
    }
}

fn pair(op: Operator, left: &ColumnarValue, right: &ColumnarValue) -> Result<ColumnarValue> {
    if matches!(left.data_type(), DataType::Date32 | DataType::Date64) {
        return days(left, right);
    }
    let kernel = match op {
        Operator::Plus => numeric::add,
        Operator::Minus => numeric::sub,
        Operator::Multiply => numeric::mul,
        Operator::Divide => numeric::div,
        _ => numeric::rem,
    };
    let made = computed(left, right, kernel);
    within_type(made, op, &left.data_type())
}

/// Returns the number of days from one date to another.
fn days(left: &ColumnarValue, right: &ColumnarValue) -> Result<ColumnarValue> {
    // A date is a number of days; of a time within a day, only the day counts.
    let number = |date: &ColumnarValue| {
        date.cast_to(&DataType::Date32, None)?.cast_to(&DataType::Int32, None)?.cast_to(&DataType::Int64, None)
    };
    Ok(computed(&number(left)?, &number(right)?, numeric::sub)?)
}

fn negate(value: &ColumnarValue) -> Result<ColumnarValue> {
    let made = match value {
        ColumnarValue::Array(array) => numeric::neg(array.as_ref()).map(ColumnarValue::Array),
        ColumnarValue::Scalar(value) => value.to_array().map_err(ArrowError::from).and_then(|array| {
            let negated = numeric::neg(array.as_ref())?;
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&negated, 0)?))
        }),
    };
    within_type(made, Operator::Minus, &value.data_type())
}

type Kernel = fn(&dyn Datum, &dyn Datum) -> Result<datafusion::arrow::array::ArrayRef, ArrowError>;

fn computed(left: &ColumnarValue, right: &ColumnarValue, kernel: Kernel) -> Result<ColumnarValue, ArrowError> {
    Ok(match (left, right) {
        (ColumnarValue::Array(left), ColumnarValue::Array(right)) => ColumnarValue::Array(kernel(left, right)?),
        (ColumnarValue::Scalar(left), ColumnarValue::Array(right)) => {
            ColumnarValue::Array(kernel(&left.to_scalar()?, right)?)
        }
        (ColumnarValue::Array(left), ColumnarValue::Scalar(right)) => {
            ColumnarValue::Array(kernel(left, &right.to_scalar()?)?)
        }
        (ColumnarValue::Scalar(left), ColumnarValue::Scalar(right)) => {
            let made = kernel(&left.to_scalar()?, &right.to_scalar()?)?;
            ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?)
        }
    })
}

/// Checks that the result is within its type.
///
/// # Errors
/// Fails if the computation overflowed, or if a decimal has more digits than its type.
fn within_type(made: Result<ColumnarValue, ArrowError>, op: Operator, operand: &DataType) -> Result<ColumnarValue> {
    // The kernel's own message contains the values.
    let made = match made {
        Ok(made) => made,
        Err(ArrowError::ArithmeticOverflow(_)) => return Err(overflow(&format!("`{op}`"), operand)),
        Err(error) => return Err(error.into()),
    };
    let data_type = made.data_type();
    let fits = match (&data_type, &made) {
        // Types with fewer digits are chosen with space for the result.
        (DataType::Decimal128(DECIMAL128_MAX_PRECISION, _), ColumnarValue::Array(array)) => {
            array.as_primitive::<Decimal128Type>().validate_decimal_precision(DECIMAL128_MAX_PRECISION).is_ok()
        }
        (DataType::Decimal256(DECIMAL256_MAX_PRECISION, _), ColumnarValue::Array(array)) => {
            array.as_primitive::<Decimal256Type>().validate_decimal_precision(DECIMAL256_MAX_PRECISION).is_ok()
        }
        (data_type, ColumnarValue::Array(array)) if data_type.is_decimal() => fits_smaller(array.as_ref()),
        (data_type, ColumnarValue::Scalar(value)) if data_type.is_decimal() => {
            return match within_type(Ok(ColumnarValue::Array(value.to_array()?)), op, operand) {
                Ok(_) => Ok(made),
                Err(error) => Err(error),
            };
        }
        _ => true,
    };
    if fits { Ok(made) } else { Err(overflow(&format!("`{op}`"), &data_type)) }
}

/// Returns whether decimals of 32 or 64 bits have no more digits than their types allow.
fn fits_smaller(array: &dyn Array) -> bool {
    use datafusion::arrow::datatypes::{
        DECIMAL32_MAX_PRECISION, DECIMAL64_MAX_PRECISION, Decimal32Type, Decimal64Type,
    };
    match array.data_type() {
        DataType::Decimal32(DECIMAL32_MAX_PRECISION, _) => {
            array.as_primitive::<Decimal32Type>().validate_decimal_precision(DECIMAL32_MAX_PRECISION).is_ok()
        }
        DataType::Decimal64(DECIMAL64_MAX_PRECISION, _) => {
            array.as_primitive::<Decimal64Type>().validate_decimal_precision(DECIMAL64_MAX_PRECISION).is_ok()
        }
        _ => true,
    }
}

/// The error for a result that its type cannot hold.
pub(super) fn overflow(what: &str, data_type: &DataType) -> datafusion::error::DataFusionError {
    let fix = match data_type {
        DataType::Decimal128(..) => {
            "CAST what it computes with to DECIMAL(76, 0), or to DOUBLE where digits may be lost"
        }
        data_type if data_type.is_integer() => "CAST what it computes with to DECIMAL(38, 0)",
        _ => "compute with smaller values",
    };
    refusal(ErrorKind::InvalidStatement, format!("overflow: the result of {what} does not fit into {data_type}; {fix}"))
}

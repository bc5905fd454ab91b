//! Sums, differences and products of integers that leave their type are an error. DataFusion lets them wrap round: the
//! largest integer and one is the least.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Datum, Scalar};
use datafusion::arrow::compute::kernels::numeric;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

/// The rule. Behind DataFusion's coercion, which brings both sides to one type.
#[derive(Debug)]
pub(crate) struct CheckedArithmetic {
    plus: Arc<ScalarUDF>,
    minus: Arc<ScalarUDF>,
    times: Arc<ScalarUDF>,
}

impl CheckedArithmetic {
    pub(crate) fn new() -> Self {
        let function =
            |kind| Arc::new(ScalarUDF::from(Checked { kind, signature: Signature::any(2, Volatility::Immutable) }));
        Self { plus: function(Kind::Plus), minus: function(Kind::Minus), times: function(Kind::Times) }
    }

    fn rewrite(&self, expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
        let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else { return Transformed::no(expr) };
        let function = match op {
            Operator::Plus => &self.plus,
            Operator::Minus => &self.minus,
            Operator::Multiply => &self.times,
            _ => return Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
        };
        let of_integers = match (left.get_type(schema), right.get_type(schema)) {
            (Ok(one), Ok(other)) => one.is_integer() && one == other,
            _ => false,
        };
        match of_integers {
            true => Transformed::yes(Expr::ScalarFunction(ScalarFunction {
                func: function.clone(),
                args: vec![*left, *right],
            })),
            false => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
        }
    }
}

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            let schema = match &node {
                LogicalPlan::TableScan(scan) => {
                    DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?
                }
                node => merge_schema(&node.inputs()),
            };
            let names = NamePreserver::new(&node);
            let changed = node.map_expressions(|expr| {
                let name = names.save(&expr);
                let rewritten = expr.transform_up(|expr| Ok(self.rewrite(expr, &schema)))?;
                Ok(if rewritten.transformed { rewritten.update_data(|expr| name.restore(expr)) } else { rewritten })
            })?;
            match changed.transformed {
                true => changed.map_data(LogicalPlan::recompute_schema),
                false => Ok(changed),
            }
        })?;
        Ok(plan.data)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Plus,
    Minus,
    Times,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    kind: Kind,
    signature: Signature,
}

impl Checked {
    fn word(&self) -> &'static str {
        match self.kind {
            Kind::Plus => "+",
            Kind::Minus => "-",
            Kind::Times => "*",
        }
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Plus => "checked_plus",
            Kind::Minus => "checked_minus",
            Kind::Times => "checked_times",
        }
    }

    /// As the operator is called.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [left, right] => Ok(format!("{} {} {}", left.schema_name(), self.word(), right.schema_name())),
            _ => exec_err!("`{}` has two sides", self.word()),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [one, _] => Ok(one.clone()),
            _ => exec_err!("`{}` has two sides", self.word()),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else { return exec_err!("`{}` has two sides", self.word()) };
        let is_scalar = matches!((left, right), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
        let (left, right) = (side(left)?, side(right)?);
        let done = match self.kind {
            Kind::Plus => numeric::add(left.as_ref(), right.as_ref()),
            Kind::Minus => numeric::sub(left.as_ref(), right.as_ref()),
            Kind::Times => numeric::mul(left.as_ref(), right.as_ref()),
        };
        match done {
            Ok(done) if is_scalar => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&done, 0)?)),
            Ok(done) => Ok(ColumnarValue::Array(done)),
            // Its own words have the values in them.
            Err(ArrowError::ArithmeticOverflow(_)) => exec_err!(
                "`{}` leaves the range of {}; cast a side of it to DECIMAL(38, 0)",
                self.word(),
                args.return_field.data_type()
            ),
            Err(error) => Err(error.into()),
        }
    }
}

fn side(value: &ColumnarValue) -> Result<Box<dyn Datum>> {
    Ok(match value {
        ColumnarValue::Array(array) => Box::new(ArrayRef::clone(array)),
        ColumnarValue::Scalar(value) => Box::new(Scalar::new(value.to_array()?)),
    })
}

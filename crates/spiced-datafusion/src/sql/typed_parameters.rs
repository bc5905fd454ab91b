//! Plans a statement with values in place of its parameters.
//!
//! DataFusion infers a parameter's type from the adjacent expression and plans with that type: a value of another type
//! is then narrowed, or meets a plan made for a different type. Here the statement is planned again with its values:
//! each parameter becomes a call of a function that has the type of its value, and a literal once the plan is made. A
//! parameter therefore means the same as the literal, wherever it appears.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue, exec_err, plan_datafusion_err};
use datafusion::execution::FunctionRegistry;
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Ident, Value, ValueWithSpan, VisitorMut};

use crate::planning::plan_expressions;
use crate::sql::visit::{call, visit_mut};

/// The name of a parameter's function during planning. It needs quotes, which no SQL function does.
const CALL: &str = "$parameter";

/// The values of a statement's parameters, keyed by their names as written: `$1`, `$name`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Values(Arc<BTreeMap<String, ScalarValue>>);

impl FromIterator<(String, ScalarValue)> for Values {
    fn from_iter<I: IntoIterator<Item = (String, ScalarValue)>>(values: I) -> Self {
        Self(Arc::new(values.into_iter().collect()))
    }
}

impl Values {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Prepares `statement` and `state` for planning, before [`Self::put_in`].
    pub(crate) fn prepare(&self, statement: &mut Statement, state: &mut SessionState) -> Result<()> {
        // The visitor never breaks.
        let _ = visit_mut(statement, &mut Calls);
        state.register_udf(Arc::new(ScalarUDF::from(Parameter::new(self.clone())))).map(|_| ())
    }

    /// Inserts the values into `plan`.
    pub(crate) fn put_in(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let value = |part: Expr| match called(&part) {
            Some(parameter) => Ok(Transformed::yes(Expr::Literal(self.value(parameter)?.clone(), None))),
            None => Ok(Transformed::no(part)),
        };
        let plan = plan.transform_up_with_subqueries(|node| {
            // Most nodes contain no parameter.
            match plan_expressions::any(&node, |part| called(part).is_some())? {
                true => plan_expressions::rewrite(node, |whole| whole.transform_up(value)),
                false => Ok(Transformed::no(node)),
            }
        })?;
        Ok(plan.data)
    }

    fn value(&self, name: &str) -> Result<&ScalarValue> {
        self.0.get(name).ok_or_else(|| plan_datafusion_err!("no value for `{name}`"))
    }
}

/// Returns the name of the parameter that `expr` represents.
fn called(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == CALL => name_in(args),
        _ => None,
    }
}

fn name_in(args: &[Expr]) -> Option<&str> {
    match args {
        [Expr::Literal(ScalarValue::Utf8(Some(name)), _)] => Some(name),
        _ => None,
    }
}

/// Turns each parameter into a call.
struct Calls;

impl VisitorMut for Calls {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<()> {
        if let SqlExpr::Value(ValueWithSpan { value: Value::Placeholder(name), span }) = expr {
            let name = Value::SingleQuotedString(std::mem::take(name));
            let name = SqlExpr::Value(ValueWithSpan { value: name, span: *span });
            *expr = call(Ident::with_quote('"', CALL), [name]);
        }
        ControlFlow::Continue(())
    }
}

/// The function that represents a parameter during planning.
#[derive(Debug)]
struct Parameter {
    values: Values,
    signature: Signature,
}

impl Parameter {
    fn new(values: Values) -> Self {
        Self { values, signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable) }
    }
}

/// Each plan uses a single set of values.
impl PartialEq for Parameter {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.values.0, &other.values.0)
    }
}

impl Eq for Parameter {}

impl Hash for Parameter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        CALL.hash(state);
    }
}

impl ScalarUDFImpl for Parameter {
    fn name(&self) -> &str {
        CALL
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(name_in(args).unwrap_or(CALL).to_owned())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        exec_err!("the type of a parameter is that of its value")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        match args.scalar_arguments {
            [Some(ScalarValue::Utf8(Some(name)))] => {
                let value = self.values.value(name)?;
                Ok(Arc::new(Field::new(name, value.data_type(), value.is_null())))
            }
            _ => exec_err!("a parameter has a name"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Scalar(ScalarValue::Utf8(Some(name)))] => {
                Ok(ColumnarValue::Scalar(self.values.value(name)?.clone()))
            }
            _ => exec_err!("a parameter has a name"),
        }
    }
}

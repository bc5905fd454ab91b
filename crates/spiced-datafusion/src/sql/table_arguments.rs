//! Arithmetic in the arguments of table functions: `generate_series(1, 9223372036854775807 + 1)`.
//!
//! DataFusion computes these arguments while it plans, before any rule runs, and with its own arithmetic, which wraps.
//! Here they are computed first, as a statement of their own.

use std::ops::ControlFlow;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::context::SessionState;
use datafusion::physical_plan::collect;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, SelectItem, SetExpr, Statement as SqlStatement, TableFactor,
    UnaryOperator, Value, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use crate::sql::visit::{take, visit_mut};

/// Computes the integers among such arguments of `statement`.
///
/// # Errors
/// Fails if one overflows.
pub(crate) async fn compute(statement: &mut Statement, state: &SessionState) -> Result<()> {
    let mut found = Found::default();
    // The visitor never breaks.
    let _ = visit_mut(statement, &mut found);
    if found.formulas.is_empty() {
        return Ok(());
    }
    let mut values = Vec::new();
    for formula in found.formulas {
        values.push(value(formula, state).await?);
    }
    let _ = visit_mut(statement, &mut Replaced(values.into_iter()));
    Ok(())
}

/// Calls `on` for each argument that is a formula.
fn formulas(factor: &mut TableFactor, mut on: impl FnMut(&mut Expr)) {
    let args = match factor {
        TableFactor::Table { args: Some(called), .. } => &mut called.args,
        TableFactor::Function { args, .. } => args,
        _ => return,
    };
    for arg in args {
        if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg
            && is_formula(expr)
            && is_constant(expr)
        {
            on(expr);
        }
    }
}

fn is_formula(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) | Expr::UnaryOp { expr: inner, .. } => is_formula(inner),
        Expr::BinaryOp { .. } => true,
        _ => false,
    }
}

/// Returns whether `expr` consists of numbers and arithmetic.
fn is_constant(expr: &Expr) -> bool {
    use BinaryOperator::{Divide, Minus, Modulo, Multiply, Plus};
    match expr {
        Expr::Nested(inner) => is_constant(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus | UnaryOperator::Plus, expr } => is_constant(expr),
        Expr::BinaryOp { left, op: Plus | Minus | Multiply | Divide | Modulo, right } => {
            is_constant(left) && is_constant(right)
        }
        Expr::Value(value) => matches!(value.value, Value::Number(..)),
        _ => false,
    }
}

#[derive(Default)]
struct Found {
    formulas: Vec<Expr>,
}

impl VisitorMut for Found {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        formulas(factor, |formula| self.formulas.push(formula.clone()));
        ControlFlow::Continue(())
    }
}

/// Puts the values in place of the formulas, in the same order.
struct Replaced(std::vec::IntoIter<Option<i64>>);

impl VisitorMut for Replaced {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        formulas(factor, |formula| {
            let Some(Some(value)) = self.0.next() else { return };
            let number = Expr::Value(Value::Number(value.unsigned_abs().to_string(), false).into());
            *formula = match value < 0 {
                true => Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(number) },
                false => number,
            };
        });
        ControlFlow::Continue(())
    }
}

/// Returns the value of `formula`, or `None` if it is no integer.
async fn value(formula: Expr, state: &SessionState) -> Result<Option<i64>> {
    let Ok(mut form) = Parser::parse_sql(&GenericDialect {}, "SELECT 1") else { return Ok(None) };
    if let Some(SqlStatement::Query(query)) = form.first_mut()
        && let SetExpr::Select(select) = query.body.as_mut()
        && let Some(SelectItem::UnnamedExpr(one)) = select.projection.first_mut()
    {
        let _ = take(one);
        *one = formula;
    }
    let Some(form) = form.pop() else { return Ok(None) };
    let plan = state.statement_to_plan(Statement::Statement(Box::new(form))).await?;
    if plan.schema().field(0).data_type() != &DataType::Int64 {
        return Ok(None);
    }
    let physical = state.create_physical_plan(&plan).await?;
    let batches = collect(physical, state.task_ctx()).await?;
    match batches.iter().find(|batch| batch.num_rows() == 1) {
        Some(batch) => match ScalarValue::try_from_array(batch.column(0), 0)? {
            ScalarValue::Int64(value) => Ok(value),
            _ => Ok(None),
        },
        None => Ok(None),
    }
}

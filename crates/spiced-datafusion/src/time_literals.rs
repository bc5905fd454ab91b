//! Comparisons between times of different units. The rule runs before DataFusion's own coercion, which converts texts
//! and literals to nanoseconds, so that a column cannot be compared with a distant time (9999-12-31 is beyond 2262),
//! and which does not compare times of day of two units.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Between, Cast, InList};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast};
use datafusion::optimizer::AnalyzerRule;

use crate::plan_expressions;

/// The rule that aligns the units.
#[derive(Debug)]
pub(crate) struct TimeLiterals;

impl AnalyzerRule for TimeLiterals {
    fn name(&self) -> &str {
        "time_literals"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            plan_expressions::rewrite_typed(node, |whole, schema| whole.transform_up(|part| rewrite(part, schema)))
        })?;
        Ok(plan.data)
    }
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let type_of = |expr: &Expr| expr.get_type(schema).ok();
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let (of_left, of_right) = (type_of(&left), type_of(&right));
            let (new_left, new_right) = match (of_left, of_right) {
                (Some(one), Some(other)) => (beside(&left, &one, &other), beside(&right, &other, &one)),
                _ => (None, None),
            };
            let changed = new_left.is_some() || new_right.is_some();
            let (left, right) = (new_left.unwrap_or(*left), new_right.unwrap_or(*right));
            Transformed::new_transformed(
                Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))),
                changed,
            )
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let Some(of) = type_of(&expr) else {
                return Ok(Transformed::no(Expr::Between(Between::new(expr, negated, low, high))));
            };
            let bounds = [&low, &high].map(|bound| type_of(bound).and_then(|other| beside(bound, &other, &of)));
            let widened = [&low, &high].into_iter().find_map(|bound| beside(&expr, &of, &type_of(bound)?));
            let changed = widened.is_some() || bounds.iter().any(Option::is_some);
            let [new_low, new_high] = bounds;
            Transformed::new_transformed(
                Expr::Between(Between::new(
                    Box::new(widened.unwrap_or(*expr)),
                    negated,
                    Box::new(new_low.unwrap_or(*low)),
                    Box::new(new_high.unwrap_or(*high)),
                )),
                changed,
            )
        }
        Expr::InList(InList { expr, list, negated }) => {
            let Some(of) = type_of(&expr) else {
                return Ok(Transformed::no(Expr::InList(InList::new(expr, list, negated))));
            };
            let mut changed = false;
            let widened = list.iter().find_map(|item| beside(&expr, &of, &type_of(item)?));
            changed |= widened.is_some();
            let list = list.into_iter().map(|item| match type_of(&item).and_then(|other| beside(&item, &other, &of)) {
                Some(new) => {
                    changed = true;
                    new
                }
                None => item,
            });
            let list = list.collect();
            let expr = widened.map_or(expr, Box::new);
            Transformed::new_transformed(Expr::InList(InList::new(expr, list, negated)), changed)
        }
        Expr::Cast(ref to) => match far(to) {
            Some(literal) => Transformed::yes(literal),
            None => Transformed::no(expr),
        },
        other => Transformed::no(other),
    })
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// Converts `expr`, of type `own`, for a comparison with type `other`; `None` if it stays unchanged.
fn beside(expr: &Expr, own: &DataType, other: &DataType) -> Option<Expr> {
    match (own, other) {
        (DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View, DataType::Timestamp(unit, zone))
        | (DataType::Timestamp(TimeUnit::Nanosecond, None), DataType::Timestamp(unit, zone @ None)) => {
            Some(Expr::Literal(in_unit(text(expr)?, *unit, zone)?, None))
        }
        (DataType::Timestamp(TimeUnit::Nanosecond, Some(own)), DataType::Timestamp(unit, Some(_))) => {
            Some(Expr::Literal(in_unit(text(expr)?, *unit, &Some(own.clone()))?, None))
        }
        (DataType::Time32(_) | DataType::Time64(_), DataType::Time32(_) | DataType::Time64(_)) => {
            (rank(other)? > rank(own)?).then(|| cast(expr.clone(), other.clone()))
        }
        _ => None,
    }
}

/// Returns the unit of a time of day.
fn rank(data_type: &DataType) -> Option<TimeUnit> {
    match data_type {
        DataType::Time32(unit) | DataType::Time64(unit) => Some(*unit),
        _ => None,
    }
}

/// Returns the text literal that `expr` is, or that it casts to a timestamp.
fn text(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten().map(|_| value),
        Expr::Cast(Cast { expr, field })
            if matches!(field.data_type(), DataType::Timestamp(TimeUnit::Nanosecond, _)) =>
        {
            match expr.as_ref() {
                Expr::Literal(value, _) => value.try_as_str().flatten().map(|_| value),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Converts `text` to a time in this unit, if the unit can represent it exactly.
fn in_unit(text: &ScalarValue, unit: TimeUnit, zone: &Option<Arc<str>>) -> Option<ScalarValue> {
    let timestamp = |unit| DataType::Timestamp(unit, zone.clone());
    let counted = text.cast_to(&timestamp(unit)).ok().filter(|value| !value.is_null())?;
    // Nanoseconds reveal what a coarser unit drops, unless the time is out of their range.
    let fine = text.cast_to(&timestamp(TimeUnit::Nanosecond));
    let same = match fine {
        Ok(fine) => counted.cast_to(&timestamp(TimeUnit::Nanosecond)).is_ok_and(|again| again == fine),
        Err(_) => text
            .cast_to(&timestamp(TimeUnit::Microsecond))
            .is_ok_and(|fine| counted.cast_to(&timestamp(TimeUnit::Microsecond)).is_ok_and(|again| again == fine)),
    };
    same.then_some(counted)
}

/// Converts `TIMESTAMP '9999-12-31'` to microseconds, since it is out of range in nanoseconds.
fn far(to: &Cast) -> Option<Expr> {
    let (DataType::Timestamp(TimeUnit::Nanosecond, zone), Expr::Literal(value, _)) =
        (to.field.data_type(), to.expr.as_ref())
    else {
        return None;
    };
    value.try_as_str().flatten()?;
    match value.cast_to(to.field.data_type()) {
        Ok(_) => None,
        Err(_) => {
            let counted = value.cast_to(&DataType::Timestamp(TimeUnit::Microsecond, zone.clone())).ok()?;
            (!counted.is_null()).then(|| Expr::Literal(counted, None))
        }
    }
}

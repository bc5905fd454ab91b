//! Comparisons between times of different units. The rule runs before DataFusion's own coercion, which converts texts
//! and literals to nanoseconds, so that a column cannot be compared with a distant time (9999-12-31 is beyond 2262),
//! and which does not compare times of day of two units.

use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::cast as cast_array;
use datafusion::arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Between, Cast, InList};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility, binary_expr, cast,
};
use datafusion::optimizer::AnalyzerRule;

use crate::planning::plan_expressions::{self, compares};

/// The rule that aligns the units.
#[derive(Debug)]
pub(crate) struct TimeLiterals;

impl AnalyzerRule for TimeLiterals {
    fn name(&self) -> &str {
        "time_literals"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan_expressions::rewrite_comparisons(plan, rewrite)
    }
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let type_of = |expr: &Expr| expr.get_type(schema).ok();
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(op) => {
            let (of_left, of_right) = (type_of(&left), type_of(&right));
            if let (Some(one), Some(other)) = (&of_left, &of_right)
                && let Some(days) = in_days((&left, one), op, (&right, other))
            {
                return Ok(Transformed::yes(days));
            }
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
            let is_day = |of: &DataType| matches!(of, DataType::Date32 | DataType::Date64);
            let is_time = |of: &DataType| matches!(of, DataType::Timestamp(..));
            let others = [type_of(&low), type_of(&high)];
            if others.iter().flatten().any(|other| (is_day(&of) && is_time(other)) || (is_time(&of) && is_day(other))) {
                // Each bound may have a unit of its own.
                let from = rewrite(binary_expr((*expr).clone(), Operator::GtEq, *low), schema)?.data;
                let to = rewrite(binary_expr(*expr, Operator::LtEq, *high), schema)?.data;
                let within = from.and(to);
                return Ok(Transformed::yes(if negated { Expr::Not(Box::new(within)) } else { within }));
            }
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
        // A day beyond 2262 has no nanoseconds, and is later or earlier than any time that has. A day next to another
        // unit is not converted to nanoseconds at all.
        (DataType::Date32 | DataType::Date64, DataType::Timestamp(unit, zone)) => {
            let is_near = |value: &ScalarValue| *unit == TimeUnit::Nanosecond && value.cast_to(other).is_ok();
            match expr {
                Expr::Literal(value, _) if is_near(value) => None,
                Expr::Cast(Cast { expr, .. }) if matches!(expr.as_ref(), Expr::Literal(value, _) if is_near(value)) => {
                    None
                }
                _ => Some(nearest(*unit, zone.clone()).call(vec![expr.clone()])),
            }
        }
        _ => None,
    }
}

/// Returns the function that converts a day to a time of this unit, or to the last or the first that there is.
fn nearest(unit: TimeUnit, zone: Option<Arc<str>>) -> ScalarUDF {
    ScalarUDF::from(Nearest { signature: Signature::any(1, Volatility::Immutable), unit, zone })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Nearest {
    signature: Signature,
    unit: TimeUnit,
    zone: Option<Arc<str>>,
}

impl ScalarUDFImpl for Nearest {
    fn name(&self) -> &str {
        "start_of_day"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(self.unit, self.zone.clone()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = matches!(args.args[0], ColumnarValue::Scalar(_));
        let days = args.args[0].to_array(if is_scalar { 1 } else { args.number_rows })?;
        let seconds = cast_array(&days, &DataType::Timestamp(TimeUnit::Second, self.zone.clone()))?;
        let seconds = cast_array(&seconds, &DataType::Int64)?;
        let factor = per_second(self.unit);
        let times = seconds.as_primitive::<Int64Type>().unary::<_, Int64Type>(|time| time.saturating_mul(factor));
        let times = cast_array(&times, &DataType::Timestamp(self.unit, self.zone.clone()))?;
        match is_scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&times, 0)?)),
            false => Ok(ColumnarValue::Array(times)),
        }
    }
}

fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Returns the unit of a time of day.
fn rank(data_type: &DataType) -> Option<TimeUnit> {
    match data_type {
        DataType::Time32(unit) | DataType::Time64(unit) => Some(*unit),
        _ => None,
    }
}

/// Compares a day with the day of a constant time, so that sources and files can be searched by it.
fn in_days(left: (&Expr, &DataType), op: Operator, right: (&Expr, &DataType)) -> Option<Expr> {
    let (op, (day, constant)) = match (left, right) {
        ((day, DataType::Date32), (time, DataType::Timestamp(_, None))) => (op, (day, time)),
        ((time, DataType::Timestamp(_, None)), (day, DataType::Date32)) => (op.swap()?, (day, time)),
        _ => return None,
    };
    let constant = match constant {
        Expr::Literal(value, _) => value.clone(),
        constant => text(constant)?.cast_to(&DataType::Timestamp(TimeUnit::Nanosecond, None)).ok()?,
    };
    let (time, unit) = match constant {
        ScalarValue::TimestampSecond(Some(time), None) => (time, TimeUnit::Second),
        ScalarValue::TimestampMillisecond(Some(time), None) => (time, TimeUnit::Millisecond),
        ScalarValue::TimestampMicrosecond(Some(time), None) => (time, TimeUnit::Microsecond),
        ScalarValue::TimestampNanosecond(Some(time), None) => (time, TimeUnit::Nanosecond),
        _ => return None,
    };
    let units = 86_400 * per_second(unit);
    let is_midnight = time.rem_euclid(units) == 0;
    let op = match op {
        _ if is_midnight => op,
        Operator::Lt | Operator::LtEq => Operator::LtEq,
        Operator::Gt | Operator::GtEq => Operator::Gt,
        _ => return None,
    };
    let date = ScalarValue::Date32(Some(i32::try_from(time.div_euclid(units)).ok()?));
    Some(binary_expr(day.clone(), op, Expr::Literal(date, None)))
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

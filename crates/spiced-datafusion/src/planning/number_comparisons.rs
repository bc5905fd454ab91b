//! Comparisons between numbers of different types, without a rounded side. The rule runs before DataFusion's own
//! coercion, which compares a 64-bit integer with a literal such as `9007199254740992.0` as floats, casts a float
//! column to a decimal with a scale of 15 next to a decimal, and limits the common type of two decimals to 38 digits.
//!
//! A float literal next to an integer or a decimal is the number as written; next to any other float, a decimal is a
//! float, as in PostgreSQL.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Between, Cast, InList};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, cast, lit};
use datafusion::optimizer::AnalyzerRule;

use crate::planning::plan_expressions::{self, compares};

/// The most digits of the two types of decimals.
const NARROW: u8 = 38;
const WIDE: u8 = 76;

/// The rule that aligns the types.
#[derive(Debug)]
pub(crate) struct NumberComparisons;

impl AnalyzerRule for NumberComparisons {
    fn name(&self) -> &str {
        "number_comparisons"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan_expressions::rewrite_comparisons(plan, rewrite)
    }
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { mut left, op, mut right }) if compares(op) => {
            let changed = align(&mut [&mut left, &mut right], schema);
            Transformed::new_transformed(Expr::BinaryExpr(BinaryExpr::new(left, op, right)), changed)
        }
        Expr::Between(Between { mut expr, negated, mut low, mut high }) => {
            let changed = align(&mut [&mut expr, &mut low, &mut high], schema);
            Transformed::new_transformed(Expr::Between(Between::new(expr, negated, low, high)), changed)
        }
        Expr::InList(InList { mut expr, mut list, negated }) => {
            let mut all: Vec<&mut Expr> = list.iter_mut().collect();
            all.push(&mut expr);
            let changed = align(&mut all, schema);
            Transformed::new_transformed(Expr::InList(InList::new(expr, list, negated)), changed)
        }
        Expr::Cast(Cast { expr, field }) if field.data_type().is_decimal() => match written(&expr) {
            Some(decimal) => Transformed::yes(Expr::Cast(Cast { expr: Box::new(decimal), field })),
            None => Transformed::no(Expr::Cast(Cast { expr, field })),
        },
        other => Transformed::no(other),
    })
}

/// Returns the decimal that a float literal was written as: `1.005` is less than that as a float.
pub(crate) fn written(expr: &Expr) -> Option<Expr> {
    literal(expr).and_then(decimal).map(|value| Expr::Literal(value, None))
}

/// Converts what is compared, so that no value is rounded; returns whether anything changed.
fn align(all: &mut [&mut Expr], schema: &DFSchema) -> bool {
    let Ok(mut types) = all.iter().map(|expr| expr.get_type(schema)).collect::<Result<Vec<_>>>() else { return false };
    let is_float = |of: &DataType| of.is_floating();
    if !types.iter().all(|of| is_float(of) || *of == DataType::Null || digits(of).is_some()) {
        return false;
    }
    let mut changed = false;
    let mut put = |expr: &mut Expr, of: &mut DataType, new: Expr, of_new: DataType| {
        (*expr, *of, changed) = (new, of_new, true);
    };
    let floats: Vec<f64> = all.iter().filter_map(|expr| literal(expr)).collect();
    let is_decimal = types.iter().any(DataType::is_decimal);
    // Smaller integers are compared exactly as floats, and so is one integer with a fraction.
    let is_long = types.iter().any(|of| matches!(of, DataType::Int64 | DataType::UInt64));
    let only_integers = floats.iter().all(|float| integer(*float).is_some());
    if is_decimal || (is_long && (only_integers || all.len() > 2)) {
        for (expr, of) in all.iter_mut().zip(&mut types) {
            let Some(float) = literal(expr) else { continue };
            let new = if is_decimal || !only_integers { decimal(float) } else { integer(float) };
            if let Some(new) = new {
                let of_new = new.data_type();
                put(expr, of, Expr::Literal(new, None), of_new);
            }
        }
    }
    if types.iter().any(is_float) {
        // DataFusion rounds a formula such as `0.06 - 0.01` to a decimal, which is what is written.
        let is_column =
            |part: &Expr| matches!(part, Expr::Column(_)) && part.get_type(schema).is_ok_and(|of| of.is_floating());
        let stays = |expr: &Expr| literal(expr).is_some() || expr.exists(|part| Ok(is_column(part))).unwrap_or(true);
        if !all.iter().zip(&types).any(|(expr, of)| is_float(of) && stays(expr)) {
            return changed;
        }
        for (expr, of) in all.iter_mut().zip(&mut types).filter(|(_, of)| of.is_decimal()) {
            let new = nearest_float(expr).unwrap_or_else(|| cast(expr.clone(), DataType::Float64));
            put(expr, of, new, DataType::Float64);
        }
        return changed;
    }
    let exact = types.iter().filter_map(digits);
    let (whole, scale) = exact.fold((0, 0), |(whole, scale), (w, s)| (whole.max(w), scale.max(s)));
    let needed = whole.saturating_add(scale);
    if types.iter().any(DataType::is_decimal) && needed > NARROW {
        let wide = DataType::Decimal256(needed.min(WIDE), scale.cast_signed());
        for (expr, of) in all.iter_mut().zip(&mut types).filter(|(_, of)| **of != wide && **of != DataType::Null) {
            let new = cast(expr.clone(), wide.clone());
            put(expr, of, new, wide.clone());
        }
    }
    changed
}

/// Returns the digits before and after the decimal point of an exact number.
fn digits(data_type: &DataType) -> Option<(u8, u8)> {
    Some(match data_type {
        DataType::Int8 | DataType::UInt8 => (3, 0),
        DataType::Int16 | DataType::UInt16 => (5, 0),
        DataType::Int32 | DataType::UInt32 => (10, 0),
        DataType::Int64 | DataType::UInt64 => (20, 0),
        DataType::Decimal32(digits, scale)
        | DataType::Decimal64(digits, scale)
        | DataType::Decimal128(digits, scale)
        | DataType::Decimal256(digits, scale) => {
            let after = u8::try_from(*scale).unwrap_or(0);
            let before = i16::from(*digits) - i16::from(*scale);
            (u8::try_from(before.max(0)).unwrap_or(u8::MAX), after)
        }
        _ => return None,
    })
}

fn literal(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::Literal(ScalarValue::Float64(value), _) => *value,
        // A parameter keeps its name.
        Expr::Alias(alias) => literal(&alias.expr),
        _ => None,
    }
}

/// Returns the float that is nearest to a decimal written as text, which a cast of the decimal may miss.
fn nearest_float(expr: &Expr) -> Option<Expr> {
    let Expr::Cast(Cast { expr, .. }) = expr else { return None };
    let Expr::Literal(value, _) = expr.as_ref() else { return None };
    let float: f64 = value.try_as_str()??.trim().parse().ok()?;
    Some(lit(float))
}

/// Returns the integer that a float is.
fn integer(float: f64) -> Option<ScalarValue> {
    if float.fract() != 0.0 || !float.is_finite() {
        return None;
    }
    // The shortest text that gives this float, which is the number as written; not the float's exact value.
    let text = float.to_string();
    let signed = text.parse().ok().map(|value| ScalarValue::Int64(Some(value)));
    let unsigned = || text.parse().ok().map(|value| ScalarValue::UInt64(Some(value)));
    signed.or_else(unsigned).or_else(|| if float.abs() < 1e20 { decimal(float) } else { None })
}

/// Returns the decimal that a float literal was written as.
fn decimal(float: f64) -> Option<ScalarValue> {
    if !float.is_finite() {
        return None;
    }
    // The shortest text that gives this float, without an exponent.
    let text = float.to_string();
    let unsigned = text.strip_prefix('-').unwrap_or(&text);
    let (whole, part) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = u8::try_from(whole.len() + part.len()).ok()?;
    let scale = i8::try_from(part.len()).ok()?;
    if digits > NARROW {
        return None;
    }
    let value = format!("{whole}{part}").parse::<i128>().ok()?;
    Some(ScalarValue::Decimal128(Some(if text.starts_with('-') { -value } else { value }), digits.max(1), scale))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{Field, Schema};
    use datafusion::logical_expr::col;

    use super::*;

    #[test]
    fn no_side_is_rounded() {
        use DataType::{Decimal128, Float64, Int32, Int64, UInt64};
        let fields = [
            ("i", Int32),
            ("l", Int64),
            ("u", UInt64),
            ("f", Float64),
            ("d", Decimal128(10, 2)),
            ("e", Decimal128(38, 10)),
            ("g", Decimal128(38, 30)),
        ];
        let fields: Vec<Field> = fields.into_iter().map(|(name, of)| Field::new(name, of, true)).collect();
        let schema = DFSchema::try_from(Schema::new(fields)).unwrap();
        for (all, expected) in [
            (vec![col("l"), lit(9007199254740992.0)], "l, Int64(9007199254740992)"),
            (vec![lit(-1.0), col("u")], "Int64(-1), u"),
            (vec![col("u"), lit(18446744073709551616.0)], "u, Decimal128(18446744073709552000,20,0)"),
            (vec![col("l"), lit(1.5)], "l, Float64(1.5)"),
            (vec![col("l"), lit(1.5), lit(4.0)], "l, Decimal128(1.5,2,1), Decimal128(4,1,0)"),
            (vec![col("i"), lit(5.0)], "i, Float64(5)"),
            (vec![col("d"), lit(1.5)], "d, Decimal128(1.5,2,1)"),
            (vec![col("d"), lit(-0.05)], "d, Decimal128(-0.05,3,2)"),
            (vec![col("d"), lit(f64::NAN)], "CAST(d AS Float64), Float64(NaN)"),
            (vec![col("d"), col("f")], "CAST(d AS Float64), f"),
            (vec![col("d"), lit(0.06) - lit(0.01)], "d, Float64(0.06) - Float64(0.01)"),
            (vec![col("d"), col("e") * lit(0.5)], "d, e * Float64(0.5)"),
            (vec![col("d"), col("f") * lit(0.5)], "CAST(d AS Float64), f * Float64(0.5)"),
            (vec![col("d"), col("e")], "d, e"),
            (vec![col("e"), col("g")], "CAST(e AS Decimal256(58, 30)), CAST(g AS Decimal256(58, 30))"),
            (vec![col("l"), col("g")], "CAST(l AS Decimal256(50, 30)), CAST(g AS Decimal256(50, 30))"),
            (vec![col("l"), col("i")], "l, i"),
            (vec![col("l"), col("f")], "l, f"),
        ] {
            let mut seen = all.clone();
            align(&mut seen.iter_mut().collect::<Vec<_>>(), &schema);
            let seen = seen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            assert_eq!(seen, expected);
        }
    }
}

//! Which filters any server of Flight SQL can be left with, whatever its engine is. They are looked at again here, so one may
//! keep too many rows there, and never too few: what engines order or tell apart in ways of their own (text, floats,
//! times with a zone) is not asked for.

use datafusion::arrow::datatypes::{DataType, Decimal128Type, DecimalType, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use crate::connectors::{literal, quoted};

/// Values of one list, at most: a statement has its limits.
const MOST_VALUES: usize = 1_000;

/// The filter as any engine reads it, where it keeps no less there.
pub(super) fn condition(filter: &Expr, schema: &SchemaRef) -> Option<String> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            match (op, condition(left, schema), condition(right, schema)) {
                (Operator::And, Some(left), Some(right)) => Some(format!("({left} AND {right})")),
                (Operator::And, one, other) => one.or(other),
                (_, left, right) => Some(format!("({} OR {})", left?, right?)),
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (&**left, &**right) {
            (one, Expr::Literal(value, _)) => compared(Side::of(one, schema)?, *op, value),
            (Expr::Literal(value, _), one) => compared(Side::of(one, schema)?, op.swap()?, value),
            _ => None,
        },
        Expr::InList(list) if !list.negated && list.list.len() <= MOST_VALUES => {
            let one = Side::of(&list.expr, schema)?;
            let items = list.list.iter().map(|item| written(one, item.as_literal()?)).collect::<Option<Vec<_>>>()?;
            Some(format!("({} IN ({}))", one.name(), items.join(", ")))
        }
        Expr::Between(between) if !between.negated => {
            let one = Side::of(&between.expr, schema)?;
            let low = compared(one, Operator::GtEq, between.low.as_literal()?)?;
            let high = compared(one, Operator::LtEq, between.high.as_literal()?)?;
            Some(format!("({low} AND {high})"))
        }
        Expr::Like(like) if !like.negated && !like.case_insensitive && like.escape_char.is_none() => {
            let one = Side::of(&like.expr, schema)?;
            let pattern = text(like.pattern.as_literal()?)?;
            is_text(one.column.1).then(|| format!("({} LIKE {pattern})", one.name()))
        }
        Expr::IsNull(inner) => Some(format!("({} IS NULL)", Side::of(inner, schema)?.name())),
        Expr::IsNotNull(inner) => Some(format!("({} IS NOT NULL)", Side::of(inner, schema)?.name())),
        Expr::Column(_) => compared(Side::of(filter, schema)?, Operator::Eq, &true.into()),
        Expr::Not(inner) => compared(Side::of(inner, schema)?, Operator::Eq, &false.into()),
        _ => None,
    }
}

/// A column that is compared: its name and type there, and the type by which it is compared here.
#[derive(Clone, Copy)]
struct Side<'s> {
    column: (&'s str, &'s DataType),
    read: &'s DataType,
}

impl<'s> Side<'s> {
    /// A column, or one that is widened without a loss.
    fn of(expr: &'s Expr, schema: &'s SchemaRef) -> Option<Self> {
        match expr {
            Expr::Column(column) => {
                let (_, field) = schema.column_with_name(&column.name)?;
                let column = (field.name().as_str(), field.data_type());
                Some(Self { column, read: column.1 })
            }
            Expr::Cast(cast) => {
                let inner = Self::of(&cast.expr, schema)?;
                let to = cast.field.data_type();
                let widens = match (inner.read, to) {
                    (from, to) if from.is_integer() && to.is_integer() => {
                        let is_wide = from.primitive_width() < to.primitive_width();
                        is_wide && (from.is_unsigned_integer() || to.is_signed_integer())
                    }
                    (DataType::Timestamp(from, None), DataType::Timestamp(to, zone)) => {
                        from <= to && zone.as_deref().is_none_or(|zone| ["UTC", "+00:00"].contains(&zone))
                    }
                    (from, to) => is_text(from) && is_text(to),
                };
                widens.then_some(Self { read: to, ..inner })
            }
            _ => None,
        }
    }

    fn name(self) -> String {
        quoted(self.column.0)
    }
}

fn is_text(of: &DataType) -> bool {
    matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The comparison, or a wider one.
fn compared(one: Side<'_>, op: Operator, value: &ScalarValue) -> Option<String> {
    let word = match (op, one.column.1) {
        // Whatever else is equal there, what is equal here is.
        (Operator::Eq, _) => "=",
        (_, column) if is_text(column) => return None,
        (Operator::NotEq, _) => "<>",
        (_, DataType::Boolean) => return None,
        (Operator::Lt, _) => "<",
        (Operator::LtEq, _) => "<=",
        (Operator::Gt, _) => ">",
        (Operator::GtEq, _) => ">=",
        _ => return None,
    };
    let both = |word: &str, value: String| Some(format!("({} {word} {value})", one.name()));
    if let Some(value) = written(one, value) {
        return both(word, value);
    }
    let (DataType::Timestamp(_, None), (at, _)) = (one.column.1, microseconds(one, value)?) else { return None };
    match op {
        Operator::Gt | Operator::GtEq => both(">=", time(at)?),
        Operator::Lt | Operator::LtEq => both("<=", time(at.checked_add(1)?)?),
        _ => None,
    }
}

/// The value that a column is compared with.
fn written(one: Side<'_>, value: &ScalarValue) -> Option<String> {
    if is_text(one.column.1) {
        return text(value);
    }
    if value.data_type() != *one.read {
        return None;
    }
    match (one.column.1, value) {
        (DataType::Boolean, ScalarValue::Boolean(Some(is))) => Some(truth(*is).to_owned()),
        (DataType::Timestamp(_, None), _) => match microseconds(one, value)? {
            (at, true) => time(at),
            _ => None,
        },
        (DataType::Date32, ScalarValue::Date32(Some(days))) => literal::date(*days),
        (DataType::Decimal128(precision, scale), ScalarValue::Decimal128(Some(value), ..)) if *scale >= 0 => {
            let digits = Decimal128Type::format_decimal(*value, *precision, *scale);
            Some(format!("CAST('{digits}' AS DECIMAL({precision}, {scale}))"))
        }
        (column, value) if column.is_integer() => {
            // Beyond that, engines read a number that is not whole.
            let ScalarValue::Int64(Some(value)) = value.cast_to(&DataType::Int64).ok()? else { return None };
            Some(if value < 0 { format!("({value})") } else { value.to_string() })
        }
        _ => None,
    }
}

fn truth(is: bool) -> &'static str {
    if is { "TRUE" } else { "FALSE" }
}

/// A text in quotes. What has a backslash in it is read in more than one way.
fn text(value: &ScalarValue) -> Option<String> {
    let text = value.try_as_str()??;
    (!text.contains(['\0', '\\'])).then(|| literal::text(text))
}

/// The time that a column is compared with in microseconds, rounded down, and whether it is none more.
fn microseconds(one: Side<'_>, value: &ScalarValue) -> Option<(i64, bool)> {
    match *value {
        _ if value.data_type() != *one.read => None,
        ScalarValue::TimestampSecond(Some(at), _) => Some((at.checked_mul(1_000_000)?, true)),
        ScalarValue::TimestampMillisecond(Some(at), _) => Some((at.checked_mul(1_000)?, true)),
        ScalarValue::TimestampMicrosecond(Some(at), _) => Some((at, true)),
        ScalarValue::TimestampNanosecond(Some(at), _) => Some((at.div_euclid(1_000), at.rem_euclid(1_000) == 0)),
        _ => None,
    }
}

fn time(microseconds: i64) -> Option<String> {
    let digits = if microseconds % 1_000_000 == 0 { "%Y-%m-%d %H:%M:%S" } else { "%Y-%m-%d %H:%M:%S%.6f" };
    Some(format!("TIMESTAMP '{}'", literal::time(microseconds, digits)?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::{Field, Schema, TimeUnit};
    use datafusion::logical_expr::{cast, col, lit};

    use super::*;

    fn said(filter: &Expr) -> Option<String> {
        let field = |name: &str, of: DataType| Field::new(name, of, true);
        let schema = Schema::new(vec![
            field("i", DataType::Int32),
            field("u", DataType::UInt64),
            field("t", DataType::Utf8View),
            field("b", DataType::Boolean),
            field("f", DataType::Float64),
            field("n", DataType::Decimal128(10, 2)),
            field("d", DataType::Date32),
            field("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
            field("zoned", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        ]);
        condition(filter, &Arc::new(schema))
    }

    #[test]
    fn what_every_engine_reads() {
        let ns = |at: i64| lit(ScalarValue::TimestampNanosecond(Some(at), Some("+00:00".into())));
        let as_ns = cast(col("at"), DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())));
        for (filter, sql) in [
            (col("i").gt(lit(5)), r#"("i" > 5)"#),
            (lit(-5).gt(col("i")), r#"("i" < (-5))"#),
            (cast(col("i"), DataType::Int64).not_eq(lit(1_i64 << 40)), r#"("i" <> 1099511627776)"#),
            (col("t").eq(lit(ScalarValue::Utf8View(Some("it's".to_owned())))), r#"("t" = 'it''s')"#),
            (cast(col("t"), DataType::Utf8).like(lit("a%")), r#"("t" LIKE 'a%')"#),
            (col("i").in_list(vec![lit(1), lit(2)], false), r#"("i" IN (1, 2))"#),
            (col("i").between(lit(1), lit(2)), r#"(("i" >= 1) AND ("i" <= 2))"#),
            (col("b"), r#"("b" = TRUE)"#),
            (!col("b"), r#"("b" = FALSE)"#),
            (col("f").is_null().or(col("f").is_not_null()), r#"(("f" IS NULL) OR ("f" IS NOT NULL))"#),
            (
                col("n").lt(lit(ScalarValue::Decimal128(Some(-150), 10, 2))),
                r#"("n" < CAST('-1.50' AS DECIMAL(10, 2)))"#,
            ),
            (col("d").gt_eq(lit(ScalarValue::Date32(Some(0)))), r#"("d" >= DATE '1970-01-01')"#),
            (as_ns.clone().eq(ns(1_500_000_000)), r#"("at" = TIMESTAMP '1970-01-01 00:00:01.500000')"#),
            // Between two microseconds: a little wider.
            (as_ns.clone().gt(ns(1_000_000_001)), r#"("at" >= TIMESTAMP '1970-01-01 00:00:01')"#),
            (as_ns.clone().lt(ns(1_000_000_001)), r#"("at" <= TIMESTAMP '1970-01-01 00:00:01.000001')"#),
            // What can be said of a conjunction.
            (col("i").eq(lit(1)).and(col("f").gt(lit(0.5))), r#"("i" = 1)"#),
        ] {
            assert_eq!(said(&filter).as_deref(), Some(sql), "{filter}");
        }
    }

    #[test]
    fn what_engines_see_in_ways_of_their_own() {
        let ns = lit(ScalarValue::TimestampNanosecond(Some(1), None));
        for filter in [
            col("f").gt(lit(0.5)),
            col("t").gt(lit("a")),
            col("t").not_eq(lit("a")),
            col("t").eq(lit(r"a\b")),
            col("t").eq(lit("a\0")),
            col("t").in_list(vec![lit("a")], true),
            col("t").ilike(lit("a%")),
            col("t").not_like(lit("a%")),
            col("u").eq(lit(u64::MAX)),
            col("zoned").gt(lit(ScalarValue::TimestampMicrosecond(Some(0), Some("UTC".into())))),
            cast(col("at"), DataType::Timestamp(TimeUnit::Nanosecond, None)).eq(ns),
            cast(col("i"), DataType::Int16).eq(lit(1_i16)),
            cast(col("i"), DataType::Float64).eq(lit(1.0)),
            col("i").eq(col("i")),
            (col("i") + lit(1)).eq(lit(1)),
            col("i").eq(lit(ScalarValue::Int32(None))),
            col("i").eq(lit(1)).or(col("f").gt(lit(0.5))),
            !col("i").eq(lit(1)).and(col("f").gt(lit(0.5))),
            col("elsewhere").eq(lit(1)),
        ] {
            assert_eq!(said(&filter), None, "{filter}");
        }
    }
}

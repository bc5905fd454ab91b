//! Decides which filters can be pushed down to any Flight SQL server, whatever its engine. Filters are evaluated again
//! here, so the server may return too many rows, but never too few. Values that engines order or compare differently
//! (text, floats, times with a zone) are not pushed down.

use datafusion::arrow::datatypes::{DataType, Decimal128Type, DecimalType, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::utils::split_binary;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use crate::connectors::literal;
use crate::connectors::source::quoted;

/// The maximum number of values in one list: statements have a limited size.
const MAX_VALUES: usize = 1_000;

/// The maximum size of all conditions in one statement, in bytes.
const MAX_TEXT: usize = 256 * 1024;

const NANOSECONDS_A_DAY: i64 = 86_400_000_000_000;

/// The maximum nesting of conditions. A parser recurses one or two levels for each and has a limit: that of DataFusion
/// is 50.
const MAX_DEPTH: usize = 16;

/// Whether any part of the filter can be pushed down to any engine.
pub(super) fn is_plain(filter: &Expr, schema: &SchemaRef) -> bool {
    condition(filter, schema, MAX_DEPTH).is_some_and(|said| said.len() <= MAX_TEXT)
}

/// Returns the parts of `filters`, which are combined with AND, that can be pushed down to any engine.
pub(super) fn conditions(filters: &[Expr], schema: &SchemaRef) -> Option<String> {
    let said = filters.iter().filter_map(|filter| condition(filter, schema, MAX_DEPTH));
    let all = said.scan(MAX_TEXT, |left, one| {
        // A condition that is too long is skipped; later ones may still fit.
        Some(left.checked_sub(one.len()).map(|rest| {
            *left = rest;
            one
        }))
    });
    let all: Vec<String> = all.flatten().collect();
    (!all.is_empty()).then(|| all.join(" AND "))
}

/// Returns the filter as SQL for any engine, if it never keeps fewer rows there.
fn condition(filter: &Expr, schema: &SchemaRef, deep: usize) -> Option<String> {
    let deep = deep.checked_sub(1)?;
    match filter {
        Expr::BinaryExpr(BinaryExpr { op: op @ (Operator::And | Operator::Or), .. }) => {
            // A chain needs one pair of parentheses, however long it is.
            let parts = split_binary(filter, *op).into_iter().map(|part| condition(part, schema, deep));
            let parts: Vec<String> = match op {
                Operator::And => parts.flatten().collect(),
                _ => parts.collect::<Option<_>>()?,
            };
            match &*parts {
                [] => None,
                [one] => Some(one.clone()),
                all => Some(format!("({})", all.join(&format!(" {op} ")))),
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (&**left, &**right) {
            (one, Expr::Literal(value, _)) => compared(Operand::of(one, schema)?, *op, value),
            (Expr::Literal(value, _), one) => compared(Operand::of(one, schema)?, op.swap()?, value),
            _ => None,
        },
        Expr::InList(list) if !list.negated && (1..=MAX_VALUES).contains(&list.list.len()) => {
            let one = Operand::of(&list.expr, schema)?;
            let items = list.list.iter().map(|item| written(one, item.as_literal()?)).collect::<Option<Vec<_>>>()?;
            Some(format!("({} IN ({}))", one.name(), items.join(", ")))
        }
        Expr::Between(between) if !between.negated => {
            let one = Operand::of(&between.expr, schema)?;
            let low = compared(one, Operator::GtEq, between.low.as_literal()?)?;
            let high = compared(one, Operator::LtEq, between.high.as_literal()?)?;
            Some(format!("({low} AND {high})"))
        }
        Expr::Like(like) if !like.negated && !like.case_insensitive && like.escape_char.is_none() => {
            let one = Operand::of(&like.expr, schema)?;
            // Some engines read a bracket as the start of a character class.
            let pattern = text(like.pattern.as_literal()?).filter(|pattern| !pattern.contains('['))?;
            is_text(one.column.1).then(|| format!("({} LIKE {pattern})", one.name()))
        }
        Expr::IsNull(inner) => Some(format!("({} IS NULL)", Operand::plain(inner, schema)?.name())),
        Expr::IsNotNull(inner) => Some(format!("({} IS NOT NULL)", Operand::plain(inner, schema)?.name())),
        Expr::Column(_) => compared(Operand::of(filter, schema)?, Operator::Eq, &true.into()),
        Expr::Not(inner) => compared(Operand::of(inner, schema)?, Operator::Eq, &false.into()),
        _ => None,
    }
}

/// A column in a comparison: its remote name and type, and the type by which it is compared here.
#[derive(Clone, Copy)]
struct Operand<'s> {
    column: (&'s str, &'s DataType),
    read: &'s DataType,
}

impl<'s> Operand<'s> {
    /// Returns a column, or a column that is cast to a wider type without loss.
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

    /// Returns a column that is not nested: some engines test each nested value for null.
    fn plain(expr: &'s Expr, schema: &'s SchemaRef) -> Option<Self> {
        Self::of(expr, schema).filter(|one| !one.column.1.is_nested())
    }

    fn name(self) -> String {
        quoted(self.column.0)
    }
}

fn is_text(of: &DataType) -> bool {
    matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// Returns the comparison, or a wider one.
fn compared(one: Operand<'_>, op: Operator, value: &ScalarValue) -> Option<String> {
    let word = match (op, one.column.1) {
        // Values that are equal here are equal on any engine, whatever else is equal there.
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
    // The value lies between two times that can be written; use the one before it or after it.
    let Moment { step, before, .. } = moment(one, value)?;
    match op {
        Operator::Gt | Operator::GtEq => both(">=", time(before, step)?),
        Operator::Lt | Operator::LtEq => both("<=", time(before.checked_add(step)?, step)?),
        _ => None,
    }
}

/// Returns the value that a column is compared with.
fn written(one: Operand<'_>, value: &ScalarValue) -> Option<String> {
    if is_text(one.column.1) {
        return text(value);
    }
    if value.data_type() != *one.read {
        return None;
    }
    match (one.column.1, value) {
        (DataType::Boolean, ScalarValue::Boolean(Some(is))) => Some(truth(*is).to_owned()),
        (DataType::Timestamp(..), _) => {
            let Moment { step, before, .. } = moment(one, value).filter(|moment| moment.exact)?;
            time(before, step)
        }
        (DataType::Date32, ScalarValue::Date32(Some(days))) => {
            // Limited to the range of times in nanoseconds, where all calendars agree.
            i64::from(*days).checked_mul(NANOSECONDS_A_DAY)?;
            literal::date(*days)
        }
        (DataType::Decimal128(precision, scale), ScalarValue::Decimal128(Some(value), ..)) if *scale >= 0 => {
            let digits = Decimal128Type::format_decimal(*value, *precision, *scale);
            Some(format!("CAST('{digits}' AS DECIMAL({precision}, {scale}))"))
        }
        (column, value) if column.is_integer() => {
            // Engines read a larger number as a decimal or float. They do the same with the minimum, because they read
            // the digits before the sign.
            match value.cast_to(&DataType::Int64).ok()? {
                ScalarValue::Int64(Some(value @ 0..)) => Some(value.to_string()),
                ScalarValue::Int64(Some(value)) if value > i64::MIN => Some(format!("({value})")),
                _ => None,
            }
        }
        _ => None,
    }
}

fn truth(is: bool) -> &'static str {
    if is { "TRUE" } else { "FALSE" }
}

/// Returns a quoted text. Engines disagree about the meaning of a backslash, so a text with one is not pushed down.
fn text(value: &ScalarValue) -> Option<String> {
    let text = value.try_as_str()??;
    (!text.contains(['\0', '\\'])).then(|| literal::text(text))
}

/// The time that a column is compared with, in a form that can be written: in microseconds, and no finer than the
/// column. (Some engines truncate a finer one. Others convert the column to its unit, which cannot represent distant
/// times.)
struct Moment {
    /// The distance between two adjacent times that can be written.
    step: i64,
    /// The last of these times that is not later than the value.
    before: i64,
    /// Whether the value is exactly that time.
    exact: bool,
}

fn moment(one: Operand<'_>, value: &ScalarValue) -> Option<Moment> {
    let DataType::Timestamp(unit, None) = one.column.1 else { return None };
    let step = match unit {
        TimeUnit::Second => 1_000_000,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond | TimeUnit::Nanosecond => 1,
    };
    let (at, whole) = match *value {
        _ if value.data_type() != *one.read => return None,
        ScalarValue::TimestampSecond(Some(at), _) => (at.checked_mul(1_000_000)?, true),
        ScalarValue::TimestampMillisecond(Some(at), _) => (at.checked_mul(1_000)?, true),
        ScalarValue::TimestampMicrosecond(Some(at), _) => (at, true),
        ScalarValue::TimestampNanosecond(Some(at), _) => (at.div_euclid(1_000), at.rem_euclid(1_000) == 0),
        _ => return None,
    };
    let past = at.rem_euclid(step);
    Some(Moment { step, before: at.checked_sub(past)?, exact: whole && past == 0 })
}

/// Returns a time from microseconds, if an engine that reads it as nanoseconds can represent it.
fn time(at: i64, step: i64) -> Option<String> {
    at.checked_mul(1_000)?;
    let digits = match step {
        _ if at % 1_000_000 == 0 => "%Y-%m-%d %H:%M:%S",
        1_000 => "%Y-%m-%d %H:%M:%S%.3f",
        _ => "%Y-%m-%d %H:%M:%S%.6f",
    };
    Some(format!("TIMESTAMP '{}'", literal::time(at, digits)?))
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
            field("ms", DataType::Timestamp(TimeUnit::Millisecond, None)),
            field("s", DataType::Struct(vec![field("x", DataType::Int32)].into())),
            field("zoned", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        ]);
        condition(filter, &Arc::new(schema), MAX_DEPTH)
    }

    #[test]
    fn what_every_engine_reads() {
        let ns = |at: i64| lit(ScalarValue::TimestampNanosecond(Some(at), Some("+00:00".into())));
        let as_ns = cast(col("at"), DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())));
        let as_ms = cast(col("ms"), DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into())));
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
            // Between two microseconds: slightly wider.
            (as_ns.clone().gt(ns(1_000_000_001)), r#"("at" >= TIMESTAMP '1970-01-01 00:00:01')"#),
            (as_ns.clone().lt(ns(1_000_000_001)), r#"("at" <= TIMESTAMP '1970-01-01 00:00:01.000001')"#),
            // No finer than the column, nor finer than needed.
            (as_ms.clone().eq(ns(1_500_000_000)), r#"("ms" = TIMESTAMP '1970-01-01 00:00:01.500')"#),
            (as_ms.clone().gt(ns(1_500_000_001)), r#"("ms" >= TIMESTAMP '1970-01-01 00:00:01.500')"#),
            (as_ms.clone().lt_eq(ns(-1)), r#"("ms" <= TIMESTAMP '1970-01-01 00:00:00')"#),
            (as_ms.clone().gt(ns(-1)), r#"("ms" >= TIMESTAMP '1969-12-31 23:59:59.999')"#),
            // A chain does not nest, in whatever order it was built.
            (
                col("i").eq(lit(1)).or(col("i").gt(lit(2)).or(col("i").gt(lit(3)))).and(col("b")),
                r#"((("i" = 1) OR ("i" > 2) OR ("i" > 3)) AND ("b" = TRUE))"#,
            ),
            (cast(col("i"), DataType::Int64).gt(lit(i64::MIN + 1)), r#"("i" > (-9223372036854775807))"#),
            // The part of a conjunction that can be pushed down.
            (col("i").eq(lit(1)).and(col("f").gt(lit(0.5))), r#"("i" = 1)"#),
        ] {
            assert_eq!(said(&filter).as_deref(), Some(sql), "{filter}");
        }
    }

    #[test]
    fn what_engines_see_in_ways_of_their_own() {
        let ns = lit(ScalarValue::TimestampNanosecond(Some(1), None));
        let us = |at: i64| lit(ScalarValue::TimestampMicrosecond(Some(at), None));
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
            cast(col("ms"), DataType::Timestamp(TimeUnit::Microsecond, None)).eq(us(1)),
            // Beyond the range of nanoseconds.
            col("at").lt(us(253_402_214_400_000_000)),
            col("at").gt(us(i64::MIN)),
            col("d").eq(lit(ScalarValue::Date32(Some(-719_162)))),
            col("s").is_not_null(),
            col("t").like(lit("[a]%")),
            col("i").in_list(vec![], false),
            cast(col("i"), DataType::Int64).gt(lit(i64::MIN)),
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

    #[test]
    fn what_is_too_deep_is_left_out() {
        let nested = |deep: Expr, at| if at % 2 == 0 { deep.and(col("b")) } else { deep.or(col("b")) };
        let said = said(&(0..4 * MAX_DEPTH).fold(col("i").eq(lit(1)), nested)).expect("what is not too deep");
        let depths = said.chars().scan(0, |depth, c| {
            *depth = *depth + usize::from(c == '(') - usize::from(c == ')');
            Some(*depth)
        });
        // A condition that does not fit is dropped together with its alternatives.
        assert!(depths.max().is_some_and(|depth| (MAX_DEPTH - 2..=MAX_DEPTH).contains(&depth)), "{said}");
    }

    #[test]
    fn what_is_too_long_is_left_out() {
        let schema = Arc::new(Schema::new(vec![Field::new("t", DataType::Utf8, true)]));
        let long = col("t").eq(lit("x".repeat(MAX_TEXT)));
        let half = col("t").eq(lit("x".repeat(MAX_TEXT / 2)));
        let short = col("t").is_null();
        assert!(!is_plain(&long, &schema) && is_plain(&half, &schema));
        assert_eq!(conditions(std::slice::from_ref(&long), &schema), None);
        let said = conditions(&[long, half.clone(), half, short], &schema).expect("what fits");
        assert!(said.len() <= MAX_TEXT && said.ends_with(r#" AND ("t" IS NULL)"#) && said.matches("AND").count() == 1);
    }
}

//! Which filters mean the same to PostgreSQL, and how they read there.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Decimal128Type, DecimalType, Schema};
use datafusion::arrow::temporal_conversions::{date32_to_datetime, timestamp_us_to_datetime};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};

use super::quoted;

/// How far a filter can be left to PostgreSQL.
pub(super) fn support(filter: &Expr, schema: &Schema, native: &[bool]) -> TableProviderFilterPushDown {
    match means(filter, schema, native).filter(|_| sql(filter).is_some()) {
        Some(Meaning::Same) => TableProviderFilterPushDown::Exact,
        Some(Meaning::Wider) => TableProviderFilterPushDown::Inexact,
        None => TableProviderFilterPushDown::Unsupported,
    }
}

/// The filter as PostgreSQL reads it. Written here and not by an unparser: sqlparser's takes a quote behind a backslash for
/// one that is escaped, and lets what follows out of its quotes.
pub(super) fn sql(filter: &Expr) -> Option<String> {
    Some(match filter {
        Expr::Column(column) => quoted(column.name()),
        Expr::Literal(value, _) => constant(value)?,
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let op = match op {
                Operator::And => "AND",
                Operator::Or => "OR",
                Operator::Eq => "=",
                Operator::NotEq => "<>",
                Operator::Lt => "<",
                Operator::LtEq => "<=",
                Operator::Gt => ">",
                Operator::GtEq => ">=",
                _ => return None,
            };
            format!("({} {op} {})", sql(left)?, sql(right)?)
        }
        Expr::IsNull(inner) => format!("({} IS NULL)", sql(inner)?),
        Expr::IsNotNull(inner) => format!("({} IS NOT NULL)", sql(inner)?),
        Expr::Not(inner) => format!("(NOT {})", sql(inner)?),
        Expr::InList(list) if !list.negated => {
            let items = list.list.iter().map(sql).collect::<Option<Vec<_>>>()?.join(", ");
            format!("({} IN ({items}))", sql(&list.expr)?)
        }
        Expr::Between(between) if !between.negated => {
            format!("({} BETWEEN {} AND {})", sql(&between.expr)?, sql(&between.low)?, sql(&between.high)?)
        }
        _ => return None,
    })
}

/// From the year 1 to 9999, which are written in four digits everywhere.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// A constant, where the session has `standard_conforming_strings` on and its zone is UTC.
fn constant(value: &ScalarValue) -> Option<String> {
    let time = |microseconds: i64, zone: &Option<Arc<str>>| {
        let at = Some(microseconds).filter(|at| SECONDS.contains(&at.div_euclid(1_000_000)))?;
        let at = timestamp_us_to_datetime(at)?;
        let at = at.format("%Y-%m-%d %H:%M:%S%.6f");
        Some(match zone {
            None => format!("TIMESTAMP '{at}'"),
            Some(_) => format!("TIMESTAMPTZ '{at}+00'"),
        })
    };
    Some(match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            // PostgreSQL has no NUL in a text.
            if text.contains('\0') {
                return None;
            }
            format!("'{}'", text.replace('\'', "''"))
        }
        ScalarValue::Boolean(Some(value)) => value.to_string(),
        ScalarValue::Int8(Some(value)) => format!("({value})"),
        ScalarValue::Int16(Some(value)) => format!("({value})"),
        ScalarValue::Int32(Some(value)) => format!("({value})"),
        ScalarValue::Int64(Some(value)) => format!("({value})"),
        ScalarValue::Float32(Some(value)) if value.is_finite() => format!("('{value:e}'::float4)"),
        ScalarValue::Float64(Some(value)) if value.is_finite() => format!("('{value:e}'::float8)"),
        ScalarValue::Decimal128(Some(value), precision, scale) => {
            format!("({})", Decimal128Type::format_decimal(*value, *precision, *scale))
        }
        ScalarValue::Date32(Some(days)) => {
            let day = Some(*days).filter(|days| SECONDS.contains(&(i64::from(*days) * 86_400)))?;
            let day = date32_to_datetime(day)?;
            format!("DATE '{}'", day.format("%Y-%m-%d"))
        }
        ScalarValue::TimestampSecond(Some(at), zone) => time(at.checked_mul(1_000_000)?, zone)?,
        ScalarValue::TimestampMillisecond(Some(at), zone) => time(at.checked_mul(1000)?, zone)?,
        ScalarValue::TimestampMicrosecond(Some(at), zone) => time(*at, zone)?,
        _ => return None,
    })
}

/// What PostgreSQL takes a filter for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Meaning {
    Same,
    /// It may keep rows that DataFusion leaves out, and never the other way.
    Wider,
}

/// What a filter over these columns means there; nothing where it may mean another thing.
fn means(filter: &Expr, schema: &Schema, native: &[bool]) -> Option<Meaning> {
    let all = |parts: &[&Expr]| {
        parts.iter().map(|part| means(part, schema, native)).collect::<Option<Vec<_>>>()?.into_iter().max()
    };
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => all(&[left, right]),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (kind, value) = match (&**left, &**right) {
                (column @ Expr::Column(_), value) | (value, column @ Expr::Column(_)) => {
                    (kind(column, schema, native)?, value)
                }
                _ => return None,
            };
            literal(value)?;
            compared(&kind, *op)
        }
        Expr::IsNull(inner) | Expr::IsNotNull(inner) => kind(inner, schema, native).map(|_| Meaning::Same),
        // What is wider within is narrower when it is turned round.
        Expr::Not(inner) => means(inner, schema, native).filter(|meaning| *meaning == Meaning::Same),
        Expr::InList(list) if !list.negated => {
            list.list.iter().map(literal).collect::<Option<Vec<_>>>()?;
            compared(&kind(&list.expr, schema, native)?, Operator::Eq)
        }
        Expr::Between(between) if !between.negated => {
            literal(&between.low)?;
            literal(&between.high)?;
            compared(&kind(&between.expr, schema, native)?, Operator::LtEq)
        }
        // A column of truth values by itself.
        Expr::Column(_) => (kind(filter, schema, native)? == DataType::Boolean).then_some(Meaning::Same),
        _ => None,
    }
}

/// The type of a column that PostgreSQL sends as what it is.
fn kind(expr: &Expr, schema: &Schema, native: &[bool]) -> Option<DataType> {
    let Expr::Column(column) = expr else { return None };
    let at = schema.index_of(column.name()).ok()?;
    native[at].then(|| schema.field(at).data_type().clone())
}

fn literal(expr: &Expr) -> Option<()> {
    match expr {
        Expr::Literal(value, _) if !value.is_null() => match value {
            ScalarValue::Float32(Some(number)) if !number.is_finite() => None,
            ScalarValue::Float64(Some(number)) if !number.is_finite() => None,
            _ => Some(()),
        },
        _ => None,
    }
}

fn compared(kind: &DataType, op: Operator) -> Option<Meaning> {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    match kind {
        DataType::Boolean => matches!(op, Eq | NotEq).then_some(Meaning::Same),
        // How text is ordered is the database's own; whether it is the same is not.
        DataType::Utf8 => matches!(op, Eq | NotEq).then_some(Meaning::Same),
        DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Decimal128(..)
        | DataType::Date32
        | DataType::Timestamp(..) => matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq).then_some(Meaning::Same),
        // PostgreSQL takes -0 for 0, Arrow does not: what is kept is looked at again.
        DataType::Float32 | DataType::Float64 => matches!(op, Eq | LtEq | GtEq).then_some(Meaning::Wider),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{Field, TimeUnit};
    use datafusion::logical_expr::{col, lit};

    use super::*;

    fn schema() -> Schema {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        Schema::new(vec![
            Field::new("n", DataType::Int32, true),
            Field::new("t", DataType::Utf8, true),
            Field::new("f", DataType::Float64, true),
            Field::new("at", time, true),
            Field::new("as text", DataType::Utf8, true),
        ])
    }

    #[test]
    fn what_means_the_same_is_left_to_it() {
        use TableProviderFilterPushDown::{Exact, Inexact, Unsupported};
        let native = [true, true, true, true, false];
        for (filter, expected) in [
            (col("n").gt(lit(5)), Exact),
            (lit(5).lt_eq(col("n")).and(col("t").eq(lit("it's"))), Exact),
            (col("t").gt(lit("a")), Unsupported),
            (col("t").in_list(vec![lit("a"), lit("b")], false), Exact),
            (col("t").in_list(vec![lit("a")], true), Unsupported),
            (col("f").gt_eq(lit(0.5)), Inexact),
            (col("f").gt_eq(lit(0.5)).or(col("n").is_null()), Inexact),
            (!(col("f").gt_eq(lit(0.5))), Unsupported),
            (!(col("n").eq(lit(1))), Exact),
            (col("f").eq(lit(f64::NAN)), Unsupported),
            (col("as text").eq(lit("a")), Unsupported),
            (col("n").eq(col("f")), Unsupported),
            ((col("n") + lit(1)).eq(lit(2)), Unsupported),
            (col("n").eq(lit(ScalarValue::Int32(None))), Unsupported),
        ] {
            assert_eq!(support(&filter, &schema(), &native), expected, "{filter}");
        }
    }

    #[test]
    fn it_reads_as_postgresql_reads() {
        let reads = |filter: Expr| sql(&filter).unwrap();
        assert_eq!(
            reads(col("n").gt(lit(-5)).and(col("t").eq(lit("it's \\' OR 1=1 --")))),
            r#"(("n" > (-5)) AND ("t" = 'it''s \'' OR 1=1 --'))"#
        );
        let at = |value: ScalarValue| reads(col("at").eq(lit(value)));
        for (value, expected) in [
            (
                ScalarValue::TimestampMicrosecond(Some(1_704_067_200_000_001), None),
                "TIMESTAMP '2024-01-01 00:00:00.000001'",
            ),
            (
                // Whatever the zone is called, the number counts from 1970 in UTC.
                ScalarValue::TimestampMillisecond(Some(1_704_067_200_500), Some("+01:00".into())),
                "TIMESTAMPTZ '2024-01-01 00:00:00.500000+00'",
            ),
            (ScalarValue::Date32(Some(19_723)), "DATE '2024-01-01'"),
            (ScalarValue::Decimal128(Some(-12345), 10, 2), "(-123.45)"),
            (ScalarValue::Float64(Some(-1e-7)), "('-1e-7'::float8)"),
            (ScalarValue::Boolean(Some(true)), "true"),
        ] {
            assert_eq!(at(value), format!("(\"at\" = {expected})"));
        }
        for none in [
            ScalarValue::Date32(Some(i32::MAX)),
            ScalarValue::TimestampNanosecond(Some(1), None),
            ScalarValue::Utf8(Some("a\0b".into())),
        ] {
            assert_eq!(sql(&col("at").eq(lit(none))), None);
        }
    }

    proptest::proptest! {
        /// No text leaves its quotes: between the first and the last there are quotes in pairs alone.
        #[test]
        fn no_text_leaves_its_quotes(text in ".*") {
            if let Some(written) = sql(&lit(text.clone())) {
                let inside = written.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap();
                proptest::prop_assert!(!inside.replace("''", "").contains('\''));
                proptest::prop_assert_eq!(inside.replace("''", "'"), text);
            }
        }
    }
}

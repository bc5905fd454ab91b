//! Which filters mean the same to PostgreSQL, and how they read there.

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};
use datafusion::sql::unparser::Unparser;
use datafusion::sql::unparser::dialect::PostgreSqlDialect;

/// How far a filter can be left to PostgreSQL.
pub(super) fn support(filter: &Expr, schema: &Schema, native: &[bool]) -> TableProviderFilterPushDown {
    match means(filter, schema, native) {
        Some(Meaning::Same) => TableProviderFilterPushDown::Exact,
        Some(Meaning::Wider) => TableProviderFilterPushDown::Inexact,
        None => TableProviderFilterPushDown::Unsupported,
    }
}

/// The filter as PostgreSQL reads it.
pub(super) fn sql(filter: &Expr) -> Option<String> {
    let dialect = PostgreSqlDialect {};
    // A column is called by its name alone: there is one table.
    let bare = datafusion::logical_expr::expr_rewriter::strip_outer_reference(filter.clone());
    let bare = datafusion::logical_expr::expr_rewriter::unnormalize_col(bare);
    Unparser::new(&dialect).expr_to_sql(&bare).ok().map(|expr| expr.to_string())
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
        let filter = col("n").gt(lit(5)).and(col("t").eq(lit("it's \\ \"x\"")));
        assert_eq!(sql(&filter).unwrap(), r#"(("n" > 5) AND ("t" = 'it''s \ "x"'))"#);
    }
}

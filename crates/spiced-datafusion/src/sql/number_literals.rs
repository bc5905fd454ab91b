//! Number literals that a 64-bit float would change. DataFusion reads a number with a decimal point, an exponent or
//! more than 64 bits as a float. PostgreSQL reads it as a decimal: `9007199254740993.0` is not `9007199254740992`. A
//! literal that a float does not give back as written therefore becomes a decimal where its value counts: alone in a
//! list, in a comparison, in a cast, and in `VALUES` and `SET`. In a formula it stays a float if it has a point (the
//! twenty digits of a pi), and an integer becomes a decimal.

use std::ops::ControlFlow;

use datafusion::common::{Result, plan_datafusion_err};
use datafusion::error::DataFusionError;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType as SqlType, ExactNumberInfo, Expr, Query, SelectItem, SetExpr,
    Statement as SqlStatement, UnaryOperator, Value, VisitorMut,
};

use crate::sql::visit::visit_mut;

/// The most digits of a decimal.
const MAX_DIGITS: usize = 76;

/// Rewrites such literals in `statement`.
///
/// # Errors
/// Fails if no type holds the number.
pub(crate) fn rewrite(statement: &mut Statement) -> Result<()> {
    match visit_mut(statement, &mut Literals) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Literals;

impl VisitorMut for Literals {
    type Break = DataFusionError;

    fn pre_visit_statement(&mut self, statement: &mut SqlStatement) -> ControlFlow<DataFusionError> {
        if let SqlStatement::Update(update) = statement {
            update.assignments.iter_mut().try_for_each(|assignment| exact(&mut assignment.value))?;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<DataFusionError> {
        match query.body.as_mut() {
            SetExpr::Select(select) => select.projection.iter_mut().try_for_each(|item| match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => exact(expr),
                _ => ControlFlow::Continue(()),
            }),
            SetExpr::Values(values) => {
                values.rows.iter_mut().flat_map(|row| row.content.iter_mut()).try_for_each(exact)
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<DataFusionError> {
        match expr {
            Expr::BinaryOp { left, op, right } if compares(op) => {
                exact(left)?;
                exact(right)
            }
            Expr::BinaryOp { left, right, .. } => {
                whole(left)?;
                whole(right)
            }
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                exact(left)?;
                exact(right)
            }
            Expr::Between { expr, low, high, .. } => [expr, low, high].into_iter().try_for_each(|part| exact(part)),
            Expr::InList { expr, list, .. } => {
                exact(expr)?;
                list.iter_mut().try_for_each(exact)
            }
            Expr::Cast { expr, data_type, .. } if !is_float(data_type) => exact(expr),
            Expr::Value(value) => match &value.value {
                Value::Number(text, _) => in_range(text),
                _ => ControlFlow::Continue(()),
            },
            _ => ControlFlow::Continue(()),
        }
    }
}

fn compares(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq, Spaceship};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | Spaceship)
}

fn is_float(data_type: &SqlType) -> bool {
    matches!(
        data_type,
        SqlType::Float(_)
            | SqlType::Float4
            | SqlType::Float8
            | SqlType::Float32
            | SqlType::Float64
            | SqlType::Real
            | SqlType::Double(_)
            | SqlType::DoublePrecision
    )
}

/// Makes a decimal of `expr`, if it is a literal that a float would change.
fn exact(expr: &mut Expr) -> ControlFlow<DataFusionError> {
    replace(expr, |_| true)
}

/// Makes a decimal of `expr`, if it is such an integer.
fn whole(expr: &mut Expr) -> ControlFlow<DataFusionError> {
    replace(expr, |text| text.bytes().all(|letter| letter.is_ascii_digit() || letter == b'_'))
}

fn replace(expr: &mut Expr, applies: impl Fn(&str) -> bool) -> ControlFlow<DataFusionError> {
    let number = |expr: &Expr| match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    };
    let (text, sign) = match expr {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } => (number(inner), "-"),
        ref other => (number(other), ""),
    };
    let Some(text) = text.filter(|text| applies(text)) else { return ControlFlow::Continue(()) };
    let text = text.replace('_', "");
    if format!("{sign}{text}").parse::<i64>().is_ok() || (sign.is_empty() && text.parse::<u64>().is_ok()) {
        return ControlFlow::Continue(());
    }
    let Some(written) = Digits::of(&text) else { return ControlFlow::Continue(()) };
    // Rust prints a float with as few digits as give the same float.
    let float = text.parse::<f64>().ok().filter(|float| float.is_finite());
    if float.and_then(|float| Digits::of(&float.to_string())).is_some_and(|read| read == written) {
        return ControlFlow::Continue(());
    }
    let Some((digits, scale)) = written.decimal() else { return ControlFlow::Break(too_large()) };
    let info = ExactNumberInfo::PrecisionAndScale(digits as u64, scale as i64);
    let data_type = SqlType::Decimal(info);
    *expr = Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::Value(Value::SingleQuotedString(format!("{sign}{}", written.text())).into())),
        data_type,
        array: false,
        format: None,
    };
    ControlFlow::Continue(())
}

/// Fails if a float turns the number into infinity or zero.
fn in_range(text: &str) -> ControlFlow<DataFusionError> {
    let text = text.replace('_', "");
    let is_zero = Digits::of(&text).is_none_or(|digits| digits.digits.is_empty());
    match text.parse::<f64>() {
        Ok(float) if float.is_infinite() || (float == 0.0 && !is_zero) => ControlFlow::Break(too_large()),
        _ => ControlFlow::Continue(()),
    }
}

fn too_large() -> DataFusionError {
    plan_datafusion_err!(
        "a number in the statement is beyond the range of a 64-bit float, or has more than {MAX_DIGITS} digits, the \
         most of a decimal"
    )
}

/// An unsigned number: its digits without zeros at both ends, times ten to the power of `exponent`.
#[derive(Debug, PartialEq)]
struct Digits {
    digits: String,
    exponent: i64,
}

impl Digits {
    fn of(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], text[at + 1..].parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{part}");
        if !all.bytes().all(|letter| letter.is_ascii_digit()) {
            return None;
        }
        let exponent = exponent.checked_sub(i64::try_from(part.len()).ok()?)?;
        let significant = all.trim_end_matches('0');
        let zeros = i64::try_from(all.len() - significant.len()).ok()?;
        let digits = significant.trim_start_matches('0').to_owned();
        let exponent = if digits.is_empty() { 0 } else { exponent.checked_add(zeros)? };
        Some(Self { digits, exponent })
    }

    /// Returns the digits and the scale of the smallest decimal that holds the number.
    fn decimal(&self) -> Option<(usize, usize)> {
        let count = i64::try_from(self.digits.len()).ok()?;
        let scale = self.exponent.checked_neg()?.max(0);
        let digits = count.checked_add(self.exponent.max(0))?.max(scale).max(1);
        let (digits, scale) = (usize::try_from(digits).ok()?, usize::try_from(scale).ok()?);
        (digits <= MAX_DIGITS).then_some((digits, scale))
    }

    /// Returns the number without an exponent. It must be a decimal.
    fn text(&self) -> String {
        match usize::try_from(self.exponent) {
            Ok(zeros) => format!("{}{}", self.digits, "0".repeat(zeros)),
            Err(_) => {
                let scale = usize::try_from(-self.exponent).unwrap_or(0);
                let padded = format!("{:0>width$}", self.digits, width = scale + 1);
                let (whole, part) = padded.split_at(padded.len() - scale);
                format!("{whole}.{part}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;

    use super::*;

    fn rewritten(sql: &str) -> std::result::Result<String, String> {
        let mut statements =
            datafusion::sql::parser::DFParser::parse_sql_with_dialect(sql, &GenericDialect {}).unwrap();
        let mut statement = statements.pop_front().unwrap();
        rewrite(&mut statement).map_err(|error| error.to_string())?;
        Ok(statement.to_string())
    }

    #[test]
    fn what_a_float_would_change_is_a_decimal() {
        for (sql, expected) in [
            ("SELECT 9007199254740993.0", "SELECT CAST('9007199254740993' AS DECIMAL(16,0))"),
            ("SELECT -9223372036854775809", "SELECT CAST('-9223372036854775809' AS DECIMAL(19,0))"),
            ("SELECT 0.12345678901234567890 AS x", "SELECT CAST('0.1234567890123456789' AS DECIMAL(19,19)) AS x"),
            (
                "SELECT a FROM t WHERE b > 9007199254740992.5",
                "SELECT a FROM t WHERE b > CAST('9007199254740992.5' AS DECIMAL(17,1))",
            ),
            ("SELECT a + 99999999999999999999", "SELECT a + CAST('99999999999999999999' AS DECIMAL(20,0))"),
            (
                "SELECT 12345678901234567.89::decimal(20,2)",
                "SELECT CAST('12345678901234567.89' AS DECIMAL(19,2))::DECIMAL(20,2)",
            ),
            ("VALUES (1, 12345678901234567.89)", "VALUES (1, CAST('12345678901234567.89' AS DECIMAL(19,2)))"),
            (
                "UPDATE t SET a = 1234567890123456789.5e1",
                "UPDATE t SET a = CAST('12345678901234567895' AS DECIMAL(20,0))",
            ),
        ] {
            assert_eq!(rewritten(sql).unwrap(), expected);
        }
        for sql in [
            "SELECT 1.5, 0.1, 1e10, 1e300, 18446744073709551615, -9223372036854775808, 100.00, 1.",
            "SELECT 3.14159265358979323846 * r FROM t",
            "SELECT sin(3.14159265358979323846)",
            "SELECT 3.14159265358979323846::DOUBLE",
            "SELECT a FROM t WHERE a IN (1.5, 2) AND b BETWEEN 0.1 AND 0.2",
        ] {
            assert!(!rewritten(sql).unwrap().contains("CAST("), "{sql}");
        }
        for sql in
            ["SELECT 1e400", "SELECT f(1e-400)", "SELECT 1e99999999999999999999", &format!("SELECT {}", "9".repeat(77))]
        {
            let seen = rewritten(sql);
            assert!(seen.as_ref().is_err_and(|error| error.contains("beyond the range")), "{sql}: {seen:?}");
        }
    }

    #[test]
    fn digits_are_compared_without_zeros_at_the_ends() {
        for (one, other) in
            [("1.50", "1.5"), ("0.0", "0"), ("1e3", "1000"), ("100", "1e2"), (".5", "0.5"), ("00.1", "1e-1")]
        {
            assert_eq!(Digits::of(one), Digits::of(other), "{one} {other}");
        }
        for (text, expected) in [("1e3", "1000"), ("0.05", "0.05"), ("12.5", "12.5"), ("0", "")] {
            assert_eq!(Digits::of(text).unwrap().text(), expected);
        }
    }
}

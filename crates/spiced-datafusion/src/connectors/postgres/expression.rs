//! Decides which expressions have the same meaning in PostgreSQL, and writes them as SQL.
//!
//! No unparser is used. That of sqlparser takes a quote after a backslash as escaped, which lets the text after it
//! escape its quotes, and no unparser checks whether both sides have the same meaning.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Decimal128Type, DecimalType};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{Case, ScalarFunction};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown};

use super::super::literal;
use super::text_of::is_text_of;
use super::types::{Kind, MAX_DIGITS, Reading};
use crate::functions::unfold;

/// Looks up a column of an expression: its SQL in the statement, and how it is read.
pub(super) type Columns<'a> = &'a dyn Fn(&Column) -> Option<Value>;

/// A value in a statement.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub(super) sql: String,
    pub(super) reading: Reading,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Any,
    /// A constant, whose type PostgreSQL infers.
    Constant,
    /// A constant other than zero: PostgreSQL treats -0 and 0 as equal, Arrow does not.
    NonZero,
}

impl Value {
    /// Creates the value that is written as `sql`.
    pub(super) fn new(sql: String, reading: Reading) -> Self {
        Self { sql, reading, form: Form::Any }
    }

    /// Creates a value that has the same meaning in both engines.
    pub(super) fn native(sql: String, kind: Kind) -> Self {
        Self::new(sql, Reading::native(kind))
    }

    /// Returns the SQL with the type as which it is read.
    pub(super) fn typed(&self) -> String {
        match (self.form, self.reading.kind().name()) {
            (Form::Constant | Form::NonZero, Some(name)) => format!("{}::{name}", self.sql),
            _ => self.sql.clone(),
        }
    }

    /// Returns the kind, if PostgreSQL orders and compares such values as Arrow does.
    pub(super) fn kind(&self) -> Option<&Kind> {
        self.reading.is_native().then(|| self.reading.kind())
    }

    /// Returns the value, or its text if only the text has the same meaning.
    pub(super) fn comparable(self) -> Self {
        if self.reading.is_native_as_text() { self.text() } else { self }
    }

    /// Converts a value that is text here to text in PostgreSQL.
    fn text(self) -> Self {
        match self.kind() {
            Some(Kind::Uuid | Kind::Char) => {}
            _ if self.reading.is_native_as_text() => {}
            _ => return self,
        }
        // Otherwise the collations of two columns could conflict.
        Self::native(format!("({}::text COLLATE \"default\")", self.sql), Kind::Text)
    }
}

/// Converts both values so that PostgreSQL compares them as Arrow does: by their type if a text is a valid value of it,
/// so that indexes and statistics are used, and otherwise by their texts.
pub(super) fn aligned(left: Value, right: Value) -> (Value, Value) {
    fn constant_as(kind: &Kind, value: &Value) -> Option<Value> {
        let text = value.sql.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
        let text = text.filter(|_| value.form == Form::Constant)?;
        match kind {
            Kind::Uuid if is_uuid(text) => Some(Value::native(format!("{}::uuid", value.sql), Kind::Uuid)),
            // PostgreSQL ignores trailing blanks of this type, and the values read here have none.
            Kind::Char => Some(Value::native(value.sql.clone(), Kind::Char)),
            _ => None,
        }
    }
    let by_constant =
        |column: &Value, other: &Value| column.reading.is_native_by_constant() && other.form == Form::Constant;
    match (left.kind(), right.kind()) {
        _ if by_constant(&left, &right) => (Value::native(left.sql, Kind::Text), right),
        _ if by_constant(&right, &left) => (left, Value::native(right.sql, Kind::Text)),
        (Some(Kind::Uuid), Some(Kind::Uuid)) | (Some(Kind::Char), Some(Kind::Char)) => (left, right),
        (Some(kind), _) if let Some(right) = constant_as(kind, &right) => (left, right),
        (_, Some(kind)) if let Some(left) = constant_as(kind, &left) => (left, right),
        _ => (left.text(), right.text()),
    }
}

/// Whether a text is a UUID, in upper or lower case: PostgreSQL reads both as the same value.
fn is_uuid(text: &str) -> bool {
    let is_place_of_dash = |at| [8, 13, 18, 23].contains(&at);
    let fits = |(at, byte): (usize, u8)| {
        if is_place_of_dash(at) { byte == b'-' } else { byte.is_ascii_hexdigit() }
    };
    text.len() == 36 && text.bytes().enumerate().all(fits)
}

/// A filter as SQL, and how its meaning in PostgreSQL compares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) sql: String,
    pub(super) meaning: Meaning,
}

/// How the meaning of a filter in PostgreSQL compares with that in DataFusion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Meaning {
    Same,
    /// It may keep rows that DataFusion removes, but never the opposite.
    Wider,
}

impl Condition {
    fn same(sql: String) -> Self {
        Self { sql, meaning: Meaning::Same }
    }

    /// Returns how far the filter can be pushed down.
    pub(super) fn support(this: Option<&Self>) -> TableProviderFilterPushDown {
        match this.map(|condition| condition.meaning) {
            Some(Meaning::Same) => TableProviderFilterPushDown::Exact,
            Some(Meaning::Wider) => TableProviderFilterPushDown::Inexact,
            None => TableProviderFilterPushDown::Unsupported,
        }
    }

    /// Returns the SQL if the meaning is the same: a wider condition becomes a narrower one when it is negated.
    pub(super) fn exactly(self) -> Option<String> {
        (self.meaning == Meaning::Same).then_some(self.sql)
    }
}

/// Returns the filter as SQL, unless its meaning would differ.
pub(super) fn condition(filter: &Expr, columns: Columns<'_>) -> Option<Condition> {
    let both = |left: Condition, op: &str, right: Condition| Condition {
        sql: format!("({} {op} {})", left.sql, right.sql),
        meaning: left.meaning.max(right.meaning),
    };
    let negated = |is_negated: bool, condition: Condition| match is_negated {
        true => Some(Condition::same(format!("(NOT {})", condition.exactly()?))),
        false => Some(condition),
    };
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::And | Operator::Or), right }) => {
            let op = if *op == Operator::And { "AND" } else { "OR" };
            Some(both(condition(left, columns)?, op, condition(right, columns)?))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            compared(value(left, columns)?, *op, value(right, columns)?)
        }
        Expr::Like(like) if !like.case_insensitive && like.escape_char.is_none() => {
            let (value_of, pattern) = (value(&like.expr, columns)?, like.pattern.as_literal()?.try_as_str()??);
            if value_of.reading.is_case_insensitive() && !pattern.contains('\\') {
                let (pattern, not) = (value(&like.pattern, columns)?, if like.negated { "NOT " } else { "" });
                return Some(Condition::same(format!("({} {not}LIKE {})", value_of.sql, pattern.sql)));
            }
            let text = value_of.text();
            // PostgreSQL rejects a pattern that ends in a backslash.
            if !matches!(text.kind()?, Kind::Text) || pattern.contains('\\') {
                return None;
            }
            let pattern = value(&like.pattern, columns)?;
            let not = if like.negated { "NOT " } else { "" };
            Some(Condition::same(format!("({} {not}LIKE {})", text.sql, pattern.sql)))
        }
        Expr::IsNull(inner) | Expr::IsNotNull(inner) => {
            let inner = value(inner, columns)?.comparable();
            inner.kind()?;
            let not = if matches!(filter, Expr::IsNotNull(_)) { "NOT " } else { "" };
            Some(Condition::same(format!("({} IS {not}NULL)", inner.sql)))
        }
        Expr::Not(inner) => negated(true, condition(inner, columns)?),
        Expr::InList(list) => {
            let items = list.list.iter().map(|item| value(item, columns)).collect::<Option<Vec<_>>>()?;
            negated(list.negated, within(value(&list.expr, columns)?, items)?)
        }
        Expr::Between(between) => {
            let one = value(&between.expr, columns)?;
            let above = compared(one.clone(), Operator::GtEq, value(&between.low, columns)?)?;
            let below = compared(one, Operator::LtEq, value(&between.high, columns)?)?;
            negated(between.negated, both(above, "AND", below))
        }
        Expr::Literal(ScalarValue::Boolean(None), _) => Some(Condition::same("NULL::bool".to_owned())),
        Expr::Column(_) | Expr::Literal(..) => {
            let truth = value(filter, columns)?;
            matches!(truth.kind()?, Kind::Bool).then(|| Condition::same(truth.sql))
        }
        _ => None,
    }
}

/// Returns `IN`, if the comparison with each item can be pushed down.
fn within(one: Value, items: Vec<Value>) -> Option<Condition> {
    let mut meaning = Meaning::Same;
    let mut written: Vec<(String, Vec<String>)> = Vec::new();
    for item in items {
        if by_own_rules(&one, &item) {
            match written.iter_mut().find(|(of, _)| *of == one.sql) {
                Some((_, items)) => items.push(item.sql),
                None => written.push((one.sql.clone(), vec![item.sql])),
            }
            continue;
        }
        let (one, item) = aligned(one.clone(), item);
        meaning = meaning.max(compared_as_they_are(&one, Operator::Eq, &item)?.meaning);
        match written.iter_mut().find(|(of, _)| *of == one.sql) {
            Some((_, items)) => items.push(item.sql),
            None => written.push((one.sql, vec![item.sql])),
        }
    }
    let written = written.iter().map(|(one, items)| format!("{one} IN ({})", items.join(", ")));
    Some(Condition { sql: format!("({})", written.collect::<Vec<_>>().join(" OR ")), meaning })
}

/// Returns the comparison, if both engines order or compare the values in the same way.
fn compared(left: Value, op: Operator, right: Value) -> Option<Condition> {
    if by_own_rules(&left, &right) {
        return Some(Condition::same(format!("({} {} {})", left.sql, word(op)?, right.sql)));
    }
    let (left, right) = aligned(left, right);
    compared_as_they_are(&left, op, &right)
}

/// Whether PostgreSQL compares the two by type-specific rules: a column of such a type with a constant or another such
/// column.
fn by_own_rules(left: &Value, right: &Value) -> bool {
    let is_text = |value: &Value| value.form == Form::Constant && value.kind() == Some(&Kind::Text);
    match (left.reading.has_own_rules(), right.reading.has_own_rules()) {
        (true, true) => true,
        (true, false) => is_text(right),
        (false, true) => is_text(left),
        (false, false) => false,
    }
}

fn word(op: Operator) -> Option<&'static str> {
    Some(match op {
        Operator::Eq => "=",
        Operator::NotEq => "<>",
        Operator::Lt => "<",
        Operator::LtEq => "<=",
        Operator::Gt => ">",
        Operator::GtEq => ">=",
        _ => return None,
    })
}

/// Returns the column of a comparison with type-specific rules within a filter that cannot be pushed down as a whole.
pub(super) fn compared_by_own_rules(filter: &Expr, columns: Columns<'_>) -> Option<String> {
    let column = |expr: &Expr| match expr {
        Expr::Column(column) => {
            columns(column).filter(|value| value.reading.has_own_rules()).map(|_| column.name.clone())
        }
        _ => None,
    };
    let is_text =
        |expr: &Expr| expr.as_literal().is_some_and(|value| value.try_as_str().is_some_and(|text| text.is_some()));
    let pair = |one: &Expr, other: &Expr| match (column(one), column(other)) {
        (Some(name), other_name) if other_name.is_some() || is_text(other) => Some(name),
        (None, Some(name)) if is_text(one) => Some(name),
        _ => None,
    };
    let mut found = None;
    let _ = filter.apply(|expr| {
        found = match expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if word(*op).is_some() => pair(left, right),
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::IsDistinctFrom | Operator::IsNotDistinctFrom,
                right,
            }) => pair(left, right),
            Expr::InList(list) => list.list.iter().find_map(|item| pair(&list.expr, item)),
            Expr::Between(between) => pair(&between.expr, &between.low).or_else(|| pair(&between.expr, &between.high)),
            _ => None,
        };
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found
}

/// Returns the comparison of values that are already aligned.
fn compared_as_they_are(left: &Value, op: Operator, right: &Value) -> Option<Condition> {
    use Operator::{Eq, Gt, Lt, NotEq};
    let kind = left.kind()?;
    if kind.data_type() != right.kind()?.data_type() {
        return None;
    }
    let word = word(op)?;
    let is_non_zero = [left.form, right.form].contains(&Form::NonZero);
    let mut sql = format!("({} {word} {})", left.sql, right.sql);
    let meaning = match kind {
        Kind::Bool => matches!(op, Eq | NotEq).then_some(Meaning::Same),
        // The order of text depends on the database, but equality does not.
        Kind::Text | Kind::Char => matches!(op, Eq | NotEq).then_some(Meaning::Same),
        Kind::Float4 | Kind::Float8 => match op {
            Eq | NotEq if is_non_zero => Some(Meaning::Same),
            Eq => Some(Meaning::Wider),
            NotEq => None,
            Lt | Gt if !is_non_zero => None,
            // In Arrow, a NaN with a negative sign sorts before all numbers. The remaining rows are filtered again.
            _ => {
                for side in [left, right].into_iter().filter(|side| side.form == Form::Any) {
                    sql = format!("({sql} OR ({} = 'NaN'))", side.sql);
                }
                Some(Meaning::Wider)
            }
        },
        kind => kind.is_ordered().then_some(Meaning::Same),
    };
    Some(Condition { sql, meaning: meaning? })
}

/// Returns the value as SQL, if it is the same in PostgreSQL.
pub(super) fn value(expr: &Expr, columns: Columns<'_>) -> Option<Value> {
    match expr {
        Expr::Column(column) => columns(column),
        Expr::Alias(alias) => value(&alias.expr, columns),
        Expr::Literal(value, _) => constant(value),
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply) =>
        {
            decimals(&value(left, columns)?, *op, &value(right, columns)?)
        }
        Expr::Cast(cast) => widened(value(&cast.expr, columns)?, cast.field.data_type()),
        Expr::Case(case) => chosen(case, columns),
        Expr::ScalarFunction(call) if is_text_of(call) => Some(value(call.args.first()?, columns)?.text()),
        Expr::ScalarFunction(call) => match unfold(call) {
            Some(arithmetic) => value(&arithmetic, columns),
            None => of_time(call, columns),
        },
        truth => Some(Value::native(condition(truth, columns)?.exactly()?, Kind::Bool)),
    }
}

/// Decimal arithmetic, which is exact in both engines. More than 38 digits are an error here.
fn decimals(left: &Value, op: Operator, right: &Value) -> Option<Value> {
    let (&Kind::Numeric(p1, s1), &Kind::Numeric(p2, s2)) = (left.kind()?, right.kind()?) else { return None };
    let whole = |precision: u8, scale: i8| i16::from(precision) - i16::from(scale);
    let (word, precision, scale) = match op {
        Operator::Multiply => ("*", i16::from(p1) + i16::from(p2) + 1, i16::from(s1) + i16::from(s2)),
        _ => {
            let scale = i16::from(s1.max(s2));
            let word = if op == Operator::Plus { "+" } else { "-" };
            (word, whole(p1, s1).max(whole(p2, s2)) + scale + 1, scale)
        }
    };
    let precision = u8::try_from(precision.min(MAX_DIGITS.into())).ok()?;
    let scale = i8::try_from(scale).ok().filter(|scale| scale.unsigned_abs() <= MAX_DIGITS)?;
    let kind = Kind::Numeric(precision, scale);
    Some(Value::native(format!("({} {word} {})", left.sql, right.sql), kind))
}

/// A cast without loss.
fn widened(value: Value, to: &DataType) -> Option<Value> {
    let kind = value.kind()?.clone();
    let digits = match kind {
        Kind::Int2 => (5, 0),
        Kind::Int4 => (10, 0),
        Kind::Int8 => (19, 0),
        Kind::Numeric(precision, scale) => (i16::from(precision) - i16::from(scale), scale),
        _ => (0, 0),
    };
    let kind = match (kind, to) {
        (kind, to) if kind.data_type() == *to => return Some(value),
        (Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Numeric(..), DataType::Decimal128(precision, scale))
            if *scale >= digits.1 && i16::from(*precision) - i16::from(*scale) >= digits.0 =>
        {
            Kind::Numeric(*precision, *scale)
        }
        (Kind::Int2, DataType::Int32) => Kind::Int4,
        (Kind::Int2 | Kind::Int4, DataType::Int64) => Kind::Int8,
        (Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Float4, DataType::Float64) => Kind::Float8,
        _ => return None,
    };
    let sql = format!("{}::{}", value.sql, kind.name()?);
    Some(Value::native(format!("({sql})"), kind))
}

/// `CASE WHEN`.
fn chosen(case: &Case, columns: Columns<'_>) -> Option<Value> {
    if case.expr.is_some() {
        return None;
    }
    let mut sql = "(CASE".to_owned();
    let mut kind: Option<Kind> = None;
    let mut typed = |expr: &Expr| {
        if expr.as_literal().is_some_and(ScalarValue::is_null) {
            return Some("NULL".to_owned());
        }
        let value = value(expr, columns)?.text();
        let its_own = value.kind()?;
        match &kind {
            Some(kind) if kind.data_type() != its_own.data_type() => return None,
            Some(_) => {}
            None => kind = Some(its_own.clone()),
        }
        Some(value.typed())
    };
    for (when, then) in &case.when_then_expr {
        sql += &format!(" WHEN {} THEN {}", condition(when, columns)?.exactly()?, typed(then)?);
    }
    if let Some(other) = &case.else_expr {
        sql += &format!(" ELSE {}", typed(other)?);
    }
    Some(Value::native(sql + " END)", kind?))
}

/// Parts of a date or time, and truncation, for example to the start of a month.
fn of_time(call: &ScalarFunction, columns: Columns<'_>) -> Option<Value> {
    let [part, at] = &call.args[..] else { return None };
    let part = part.as_literal()?.try_as_str()??.to_ascii_lowercase();
    let at = value(at, columns)?;
    let kind = at.kind()?;
    match call.name() {
        "date_part" if matches!(kind, Kind::Date | Kind::Timestamp { .. }) => {
            let extracted = format!("extract({part} FROM {})::int4", at.typed());
            let sql = match &*part {
                "month" | "day" => format!("({extracted})"),
                // Arrow has a year 0, PostgreSQL does not.
                "year" => format!("(CASE WHEN {extracted} < 0 THEN {extracted} + 1 ELSE {extracted} END)"),
                _ => return None,
            };
            Some(Value::native(sql, Kind::Int4))
        }
        "date_trunc" if matches!(kind, Kind::Timestamp { .. }) => {
            let known = ["second", "minute", "hour", "day", "week", "month", "quarter", "year"].contains(&&*part);
            known.then(|| Value::native(format!("date_trunc('{part}', {})", at.typed()), kind.clone()))
        }
        _ => None,
    }
}

/// Returns a constant as SQL, for a session with `standard_conforming_strings` on and the time zone UTC.
fn constant(value: &ScalarValue) -> Option<Value> {
    let time = |microseconds: i64, zone: &Option<Arc<str>>| {
        let at = literal::time(microseconds, "%Y-%m-%d %H:%M:%S%.6f")?;
        Some(match zone {
            None => (format!("TIMESTAMP '{at}'"), Kind::Timestamp { utc: false }),
            Some(_) => (format!("TIMESTAMPTZ '{at}+00'"), Kind::Timestamp { utc: true }),
        })
    };
    let mut form = Form::Constant;
    let (sql, kind) = match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::LargeUtf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
            // A text in PostgreSQL cannot contain NUL.
            if text.contains('\0') {
                return None;
            }
            (literal::text(text), Kind::Text)
        }
        ScalarValue::Boolean(Some(value)) => (value.to_string(), Kind::Bool),
        ScalarValue::Int16(Some(value)) => (format!("({value})"), Kind::Int2),
        ScalarValue::Int32(Some(value)) => (format!("({value})"), Kind::Int4),
        ScalarValue::Int64(Some(value)) => (format!("({value})"), Kind::Int8),
        ScalarValue::Float32(Some(value)) if value.is_finite() => {
            form = if *value == 0.0 { Form::Constant } else { Form::NonZero };
            (format!("('{value:e}'::float4)"), Kind::Float4)
        }
        ScalarValue::Float64(Some(value)) if value.is_finite() => {
            form = if *value == 0.0 { Form::Constant } else { Form::NonZero };
            (format!("('{value:e}'::float8)"), Kind::Float8)
        }
        ScalarValue::Decimal128(Some(value), precision, scale) if *scale >= 0 => {
            let written = Decimal128Type::format_decimal(*value, *precision, *scale);
            (format!("({written})"), Kind::Numeric(*precision, *scale))
        }
        ScalarValue::Date32(Some(days)) => (literal::date(*days)?, Kind::Date),
        ScalarValue::TimestampMicrosecond(Some(at), zone) => time(*at, zone)?,
        _ => return None,
    };
    Some(Value { sql, reading: Reading::native(kind), form })
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::DataType::{Decimal128, Int64};
    use datafusion::logical_expr::{cast, col, lit, when};

    use tokio_postgres::types::Type;

    use super::super::types::Collation;
    use super::*;

    fn columns(column: &Column) -> Option<Value> {
        let kind = match column.name() {
            "n" => Kind::Int4,
            "t" | "as text" | "C" | "lax" | "name" => Kind::Text,
            "oid" => Kind::Oid,
            "f" => Kind::Float8,
            "d" => Kind::Numeric(10, 2),
            "at" => Kind::Timestamp { utc: false },
            "at utc" => Kind::Timestamp { utc: true },
            "on" => Kind::Date,
            "u" => Kind::Uuid,
            "char" => Kind::Char,
            "inet" => Kind::AsText,
            _ => return None,
        };
        let mut value = Value::native(crate::connectors::source::quoted(column.name()), kind);
        match column.name() {
            "as text" => value.reading = Reading::address(),
            "inet" => value.reading = Reading::of(&Type::INET, -1, Collation::Default),
            "C" => value.reading = Reading::of(&Type::TEXT, -1, Collation::Other),
            "lax" => value.reading = Reading::of(&Type::TEXT, -1, Collation::Lax),
            "name" => value.reading = Reading::of(&Type::NAME, -1, Collation::Other),
            "oid" => value.reading = Reading::of(&Type::OID, -1, Collation::Default),
            _ => {}
        }
        Some(value)
    }

    fn filter(filter: &Expr) -> Option<Condition> {
        condition(filter, &columns)
    }

    #[test]
    fn what_means_the_same_is_left_to_it() {
        use TableProviderFilterPushDown::{Exact, Inexact, Unsupported};
        for (expr, expected) in [
            (col("n").gt(lit(5)), Exact),
            (lit(5).lt_eq(col("n")).and(col("t").eq(lit("it's"))), Exact),
            (col("t").gt(lit("a")), Unsupported),
            (col("t").in_list(vec![lit("a"), lit("b")], false), Exact),
            (col("t").in_list(vec![lit("a")], true), Exact),
            (col("t").like(lit("a%")), Exact),
            (col("t").not_like(lit("_b")), Exact),
            (col("t").ilike(lit("a%")), Unsupported),
            (col("t").like(lit("a\\%")), Unsupported),
            (col("as text").like(lit("a%")), Unsupported),
            (col("f").gt_eq(lit(0.5)), Inexact),
            (col("f").lt(lit(0.5)), Inexact),
            (col("f").eq(lit(0.5)), Exact),
            (col("f").not_eq(lit(0.5)), Exact),
            (col("f").not_eq(lit(0.0)), Unsupported),
            (col("oid").gt(lit(-1_i64)), Unsupported),
            (col("lax").eq(lit("a")), Unsupported),
            (lit(ScalarValue::Boolean(None)).or(col("n").is_null()), Exact),
            (col("f").gt_eq(lit(0.0)), Inexact),
            (col("f").gt(lit(0.0)), Unsupported),
            (col("f").in_list(vec![lit(1.0), lit(-0.0)], false), Inexact),
            (col("f").in_list(vec![lit(1.0), lit(-0.0)], true), Unsupported),
            (col("f").gt_eq(lit(0.0)).or(col("n").is_null()), Inexact),
            (!(col("f").gt_eq(lit(0.0))), Unsupported),
            (!(col("n").eq(lit(1))), Exact),
            (col("n").between(lit(1), lit(2)), Exact),
            (col("n").not_between(lit(1), lit(2)), Exact),
            (col("u").gt(lit("00112233-4455-6677-8899-aabbccddeeff")), Exact),
            (col("u").gt(lit("0")), Unsupported),
            (col("char").eq(lit("a")), Exact),
            (col("char").eq(col("t")), Exact),
            (col("char").gt(lit("a")), Unsupported),
            (col("inet").eq(lit("::1")), Exact),
            (col("inet").gt(lit("::1")), Exact),
            (col("inet").gt(col("t")), Unsupported),
            (col("inet").like(lit("1%")), Exact),
            (col("f").eq(lit(f64::NAN)), Unsupported),
            (col("as text").eq(lit("a")), Unsupported),
            (col("n").eq(col("f")), Unsupported),
            (col("n").eq(col("n")), Exact),
            ((col("n") + lit(1)).eq(lit(2)), Unsupported),
            (col("n").eq(lit(ScalarValue::Int32(None))), Unsupported),
            (cast(col("n"), Int64).eq(lit(5_i64)), Exact),
            (cast(col("t"), Int64).eq(lit(5_i64)), Unsupported),
        ] {
            assert_eq!(Condition::support(filter(&expr).as_ref()), expected, "{expr}");
        }
    }

    #[test]
    fn conditions_read_as_postgresql_reads() {
        let reads = |expr: Expr| filter(&expr).unwrap().sql;
        assert_eq!(
            reads(col("n").gt(lit(-5)).and(col("t").eq(lit("it's \\' OR 1=1 --")))),
            r#"(("n" > (-5)) AND ("t" = 'it''s \'' OR 1=1 --'))"#
        );
        assert_eq!(reads(col("n").not_between(lit(1), lit(2))), r#"(NOT (("n" >= (1)) AND ("n" <= (2))))"#);
        let uuid = "00112233-4455-6677-8899-aabbccddeeff";
        for (filter, expected) in [
            (col("u").eq(lit(uuid)), format!(r#"("u" = '{uuid}'::uuid)"#)),
            (lit(uuid).eq(col("u")), format!(r#"('{uuid}'::uuid = "u")"#)),
            (
                col("u").eq(lit("00112233445566778899AABBCCDDEEFF")),
                r#"(("u"::text COLLATE "default") = '00112233445566778899AABBCCDDEEFF')"#.into(),
            ),
            (col("u").eq(col("u")), r#"("u" = "u")"#.into()),
            (col("u").eq(col("char")), r#"(("u"::text COLLATE "default") = ("char"::text COLLATE "default"))"#.into()),
            (
                col("u").in_list(vec![lit(uuid), lit("x"), lit(uuid)], false),
                format!(r#"("u" IN ('{uuid}'::uuid, '{uuid}'::uuid) OR ("u"::text COLLATE "default") IN ('x'))"#),
            ),
            (col("char").like(lit("a%")), r#"(("char"::text COLLATE "default") LIKE 'a%')"#.into()),
            (col("char").eq(lit("a")), r#"("char" = 'a')"#.into()),
            (col("char").eq(lit("a ")), r#"("char" = 'a ')"#.into()),
            (col("char").eq(col("t")), r#"(("char"::text COLLATE "default") = "t")"#.into()),
            (col("\"C\"").eq(lit("a")), r#"("C" = 'a')"#.into()),
            (col("\"C\"").eq(col("t")), r#"(("C"::text COLLATE "default") = "t")"#.into()),
            (col("name").eq(lit("a")), r#"(("name"::text COLLATE "default") = 'a')"#.into()),
            (lit(0.5).gt(col("f")), r#"((('5e-1'::float8) > "f") OR ("f" = 'NaN'))"#.into()),
            (col("inet").eq(lit("::1")), r#"("inet" = '::1')"#.into()),
            (col("inet").in_list(vec![lit("::1"), lit("::2")], false), r#"("inet" IN ('::1', '::2'))"#.into()),
            (col("inet").eq(col("t")), r#"(("inet"::text COLLATE "default") = "t")"#.into()),
        ] {
            assert_eq!(reads(filter), expected);
        }
        for (column, value, expected) in [
            (
                "at",
                ScalarValue::TimestampMicrosecond(Some(1_704_067_200_000_001), None),
                "TIMESTAMP '2024-01-01 00:00:00.000001'",
            ),
            (
                // Whatever the zone is, the number counts from 1970 in UTC.
                "at utc",
                ScalarValue::TimestampMicrosecond(Some(1_704_067_200_500_000), Some("+01:00".into())),
                "TIMESTAMPTZ '2024-01-01 00:00:00.500000+00'",
            ),
            ("on", ScalarValue::Date32(Some(19_723)), "DATE '2024-01-01'"),
            ("d", ScalarValue::Decimal128(Some(-12345), 10, 2), "(-123.45)"),
            ("f", ScalarValue::Float64(Some(-1e-7)), "('-1e-7'::float8)"),
        ] {
            assert_eq!(reads(col(format!("\"{column}\"")).eq(lit(value))), format!("(\"{column}\" = {expected})"));
        }
        for none in [
            ScalarValue::Date32(Some(i32::MAX)),
            ScalarValue::TimestampNanosecond(Some(1), None),
            ScalarValue::Utf8(Some("a\0b".into())),
        ] {
            assert!(constant(&none).is_none());
        }
    }

    #[test]
    fn values_read_as_postgresql_reads() {
        let one = lit(ScalarValue::Decimal128(Some(1), 20, 0));
        let choice = when(col("t").like(lit("a%")), col("d")).otherwise(lit(ScalarValue::Decimal128(Some(0), 10, 2)));
        let null = when(col("n").gt(lit(1)), lit(ScalarValue::Int64(None))).otherwise(lit(5_i64));
        for (expr, sql, kind) in [
            (col("d") * (one - col("d")), r#"("d" * ((1) - "d"))"#, Decimal128(34, 4)),
            (cast(col("n"), Decimal128(12, 2)), r#"("n"::numeric)"#, Decimal128(12, 2)),
            (choice.unwrap(), r#"(CASE WHEN ("t" LIKE 'a%') THEN "d" ELSE (0.00)::numeric END)"#, Decimal128(10, 2)),
            (null.unwrap(), r#"(CASE WHEN ("n" > (1)) THEN NULL ELSE (5)::int8 END)"#, Int64),
            (col("n").gt(lit(1)), r#"("n" > (1))"#, DataType::Boolean),
        ] {
            let value = value(&expr, &columns).unwrap();
            assert_eq!((&*value.sql, value.reading.data_type()), (sql, kind));
        }
        for none in [
            cast(col("n"), Decimal128(11, 2)),
            cast(col("d"), Decimal128(10, 1)),
            col("d") * cast(col("d"), Decimal128(38, 37)),
            col("d") / col("d"),
            col("n") + col("n"),
            col("f") * col("f"),
            col("f").gt(lit(0.0)),
        ] {
            assert!(value(&none, &columns).is_none(), "{none}");
        }
    }

    proptest::proptest! {
        /// No text escapes its quotes: between the first and the last quote, all quotes are doubled.
        #[test]
        fn no_text_leaves_its_quotes(text in ".*") {
            if let Some(written) = constant(&ScalarValue::from(text.clone())) {
                let inside = written.sql.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap();
                proptest::prop_assert!(!inside.replace("''", "").contains('\''));
                proptest::prop_assert_eq!(inside.replace("''", "'"), text);
            }
        }
    }
}

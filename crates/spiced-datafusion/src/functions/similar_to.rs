//! `SIMILAR TO` with PostgreSQL's semantics: the pattern must match the whole text, `%` matches any text, `_` any
//! character, and `| * + ? {} () []` work as in regular expressions. DataFusion treats the pattern as a regular
//! expression that may match anywhere, and fails with an internal error if it is not a valid one.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Ident, UnaryOperator, VisitorMut};
use regex::{Regex, RegexBuilder};

use crate::sql::visit::{call, take, visit_mut};

const NAME: &str = "similar_to";
/// The maximum size of a compiled pattern, in bytes.
const MAX_PATTERN: usize = 1 << 20;

/// Returns the function that [`rewrite`] inserts.
pub(crate) fn function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(SimilarTo { signature: Signature::variadic_any(Volatility::Immutable) }))
}

/// Replaces the operator with the function throughout `statement`.
pub(crate) fn rewrite(statement: &mut Statement) {
    // The visitor never breaks.
    let _ = visit_mut(statement, &mut Calls);
}

struct Calls;

impl VisitorMut for Calls {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<()> {
        if let SqlExpr::SimilarTo { negated, expr: text, pattern, escape_char } = expr {
            let mut args = vec![take(text), take(pattern)];
            args.extend(escape_char.take().map(SqlExpr::Value));
            let call = call(Ident::new(NAME), args);
            *expr = match negated {
                true => SqlExpr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(SqlExpr::Nested(Box::new(call))) },
                false => call,
            };
        }
        ControlFlow::Continue(())
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SimilarTo {
    signature: Signature,
}

impl ScalarUDFImpl for SimilarTo {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let is_text = |data_type: &DataType| data_type.is_string() || data_type.is_null();
        match types {
            [text, pattern, escape @ ..] if escape.len() < 2 => {
                match [text, pattern].into_iter().chain(escape).find(|data_type| !is_text(data_type)) {
                    None => Ok(DataType::Boolean),
                    Some(other) => plan_err!("`SIMILAR TO` compares texts, and not {other}; cast it to VARCHAR"),
                }
            }
            _ => plan_err!("`{NAME}` takes a text, a pattern and the letter that escapes"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ScalarFunctionArgs { args, number_rows, .. } = args;
        let is_constant = args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_constant { 1 } else { number_rows };
        let escape = match args.get(2) {
            Some(ColumnarValue::Scalar(escape)) => match escape.try_as_str() {
                Some(Some(escape)) => Some(escape.to_owned()),
                _ => None,
            },
            Some(ColumnarValue::Array(_)) => return exec_err!("what escapes in `SIMILAR TO` is a constant"),
            None => Some("\\".to_owned()),
        };
        let Some(escape) = escape else { return Ok(ColumnarValue::Scalar(ScalarValue::Boolean(None))) };
        let texts = text(&args[0], rows)?;
        let matched: BooleanArray = match &args[1] {
            ColumnarValue::Scalar(pattern) => match pattern.try_as_str() {
                Some(Some(pattern)) => {
                    let pattern = compiled(pattern, &escape)?;
                    texts.as_string::<i32>().iter().map(|text| text.map(|text| pattern.is_match(text))).collect()
                }
                _ => BooleanArray::new_null(rows),
            },
            patterns @ ColumnarValue::Array(_) => {
                let patterns = text(patterns, rows)?;
                let mut last: Option<(String, Regex)> = None;
                let mut one = |pattern: &str, text: &str| -> Result<bool> {
                    if last.as_ref().is_none_or(|(known, _)| known != pattern) {
                        last = Some((pattern.to_owned(), compiled(pattern, &escape)?));
                    }
                    Ok(last.as_ref().is_some_and(|(_, compiled)| compiled.is_match(text)))
                };
                let pairs = texts.as_string::<i32>().iter().zip(patterns.as_string::<i32>().iter());
                let matched = pairs.map(|(text, pattern)| match (text, pattern) {
                    (Some(text), Some(pattern)) => one(pattern, text).map(Some),
                    _ => Ok(None),
                });
                matched.collect::<Result<BooleanArray>>()?
            }
        };
        match is_constant {
            true => Ok(ColumnarValue::Scalar(ScalarValue::Boolean(matched.is_valid(0).then(|| matched.value(0))))),
            false => Ok(ColumnarValue::Array(Arc::new(matched))),
        }
    }
}

fn text(value: &ColumnarValue, rows: usize) -> Result<ArrayRef> {
    Ok(cast(&value.clone().into_array(rows)?, &DataType::Utf8)?)
}

fn compiled(pattern: &str, escape: &str) -> Result<Regex> {
    let mut letters = escape.chars();
    let (escape, None) = (letters.next(), letters.next()) else {
        return exec_err!("what escapes in `SIMILAR TO` is one letter, or none");
    };
    let Some(translated) = translated(pattern, escape) else {
        return exec_err!("the pattern of `SIMILAR TO` ends behind the letter that escapes the next one");
    };
    match RegexBuilder::new(&translated).size_limit(MAX_PATTERN).build() {
        Ok(compiled) => Ok(compiled),
        Err(_) => {
            exec_err!("this is no pattern that `SIMILAR TO` takes: its brackets or repetitions do not go together")
        }
    }
}

/// Translates `pattern` into a regular expression; `None` if it ends with a bare escape character.
fn translated(pattern: &str, escape: Option<char>) -> Option<String> {
    let mut made = String::from("(?s)\\A(?:");
    let (mut letters, mut in_class) = (pattern.chars().peekable(), false);
    while let Some(letter) = letters.next() {
        if Some(letter) == escape {
            made.push_str(&regex::escape(letters.next()?.encode_utf8(&mut [0; 4])));
            continue;
        }
        match letter {
            '[' if !in_class => {
                in_class = true;
                made.push('[');
                if letters.peek() == Some(&'^') {
                    letters.next();
                    made.push('^');
                }
                // A `]` in first position does not close the class.
                if letters.peek() == Some(&']') {
                    letters.next();
                    made.push_str("\\]");
                }
            }
            '[' if letters.peek() == Some(&':') => {
                // `[:alpha:]`
                made.push('[');
                for of_class in letters.by_ref() {
                    made.push(of_class);
                    if of_class == ']' {
                        break;
                    }
                }
            }
            ']' if in_class => {
                in_class = false;
                made.push(']');
            }
            '[' | '&' | '~' | '\\' if in_class => made.extend(['\\', letter]),
            letter if in_class => made.push(letter),
            '%' => made.push_str(".*"),
            '_' => made.push('.'),
            '(' => made.push_str("(?:"),
            '.' | '^' | '$' | '\\' => made.extend(['\\', letter]),
            letter => made.push(letter),
        }
    }
    made.push_str(")\\z");
    Some(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_postgresql() {
        for (text, pattern, expected) in [
            ("abc", "abc", true),
            ("abc", "a", false),
            ("abc", "%(b|d)%", true),
            ("abc", "(b|c)%", false),
            ("-abc-", "%\\mabc\\M%", false),
            ("a\nc", "a_c", true),
            ("a.c", "a.c", true),
            ("abc", "a.c", false),
            ("a^$c", "a^$c", true),
            ("a%c", "a\\%c", true),
            ("abc", "a\\%c", false),
            ("aaa", "a{3}", true),
            ("aa", "a{3}", false),
            ("b", "[a-c]", true),
            ("b", "[^a-c]", false),
            ("]", "[]]", true),
            ("x1", "[[:alpha:]][0-9]", true),
            ("%", "[%]", true),
            ("b", "[%]", false),
            ("ab", "a|b", false),
            ("b", "a|b", true),
            ("", "%", true),
        ] {
            assert_eq!(compiled(pattern, "\\").unwrap().is_match(text), expected, "{text} SIMILAR TO {pattern}");
        }
        assert!(compiled("a#%", "#").unwrap().is_match("a%"));
        assert!(compiled("a\\", "").unwrap().is_match("a\\"));
        for (pattern, escape) in
            [("(", "\\"), ("a\\", "\\"), ("*", "\\"), ("[", "\\"), ("a{1000}{1000}", "\\"), ("a", "ab")]
        {
            assert!(compiled(pattern, escape).is_err(), "{pattern}");
        }
    }
}

//! From text to exactly one parsed statement.
//!
//! Question marks become `$1`, `$2` and so on, as JDBC and ADBC clients expect; DataFusion itself
//! takes every `?` for one and the same parameter.

use datafusion::execution::context::SessionState;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::dialect_from_str;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use spiced_engine::EngineError;

use crate::error::{engine_error, invalid};

/// The longest chain of operators, or of `UNION`s and joins, within one pair of parentheses.
///
/// A chain becomes a tree of the same depth, and freeing a tree takes stack for each level: without
/// a limit one long `1+1+1+…` ends the process.
const MAX_CHAIN: usize = 2_000;

/// Parses `sql`.
///
/// # Errors
/// It is no SQL, no statement, or more than one.
pub(crate) fn parse(sql: &str, state: &SessionState) -> Result<Statement, EngineError> {
    let options = &state.config_options().sql_parser;
    let dialect = dialect_from_str(options.dialect)
        .ok_or_else(|| invalid(format!("there is no SQL dialect `{}`", options.dialect)))?;
    let sql_error = |error: ParserError| engine_error(error.into());
    let mut tokens = Tokenizer::new(dialect.as_ref(), sql).tokenize_with_location().map_err(|e| sql_error(e.into()))?;
    check_chains(&tokens)?;
    number_placeholders(&mut tokens)?;
    let mut statements = DFParserBuilder::new(tokens)
        .with_dialect(dialect.as_ref())
        .with_recursion_limit(options.recursion_limit.get())
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(engine_error)?;
    match (statements.pop_front(), statements.len()) {
        (Some(statement), 0) => Ok(statement),
        (Some(_), more) => Err(invalid(format!("one statement at a time; here are {}", more + 1))),
        (None, _) => Err(invalid("there is no statement in the text")),
    }
}

/// Turns `?` into `$1`, `$2` …, and `?3` into `$3`.
fn number_placeholders(tokens: &mut [TokenWithSpan]) -> Result<(), EngineError> {
    let mut seen = 0;
    let mut named = false;
    for token in tokens {
        let Token::Placeholder(name) = &mut token.token else { continue };
        if name == "?" {
            seen += 1;
            *name = format!("${seen}");
        } else {
            named = true;
            if let Some(number) = name.strip_prefix('?') {
                *name = format!("${number}");
            }
        }
    }
    if seen > 0 && named {
        return Err(invalid("a statement names its parameters either all `?` or all `$1`, not some of each"));
    }
    Ok(())
}

/// How long the chains are in one pair of parentheses.
#[derive(Default)]
struct Level {
    /// Operators since the last comma.
    operators: usize,
    /// `UNION`, `JOIN` and their like: a comma does not end these.
    relations: usize,
}

fn check_chains(tokens: &[TokenWithSpan]) -> Result<(), EngineError> {
    let mut levels = vec![Level::default()];
    for TokenWithSpan { token, .. } in tokens {
        let level = levels.last_mut().expect("the outermost level is never taken off");
        match token {
            Token::LParen | Token::LBracket => {
                // What is opened extends a chain too: `a[1][1][1]`, `f(1)(1)`.
                level.operators += 1;
                levels.push(Level::default());
                continue;
            }
            Token::RParen | Token::RBracket => {
                if levels.len() > 1 {
                    levels.pop();
                }
                continue;
            }
            Token::Comma => level.operators = 0,
            Token::SemiColon => *level = Level::default(),
            Token::Whitespace(_) | Token::Number(..) | Token::EOF | Token::Placeholder(_) | Token::Period => continue,
            Token::Word(word) => match word.keyword {
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS | Keyword::JOIN => {
                    level.relations += 1;
                    level.operators = 0;
                }
                Keyword::NoKeyword => continue,
                _ => level.operators += 1,
            },
            _ => level.operators += 1,
        }
        if level.operators > MAX_CHAIN || level.relations > MAX_CHAIN {
            return Err(invalid(format!(
                "the statement chains more than {MAX_CHAIN} operators; write a list (`IN (…)`, `VALUES`) instead"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::SessionContext;

    use super::*;

    fn parsed(sql: &str) -> Result<String, String> {
        parse(sql, &SessionContext::new().state()).map(|s| s.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn exactly_one() {
        for sql in ["", "   ", ";", ";;", "-- nothing", "/* nothing */"] {
            assert_eq!(parsed(sql).unwrap_err(), "there is no statement in the text", "{sql:?}");
        }
        assert_eq!(parsed("SELECT 1; SELECT 2; ").unwrap_err(), "one statement at a time; here are 2");
        assert_eq!(parsed("SELECT 1;").unwrap(), "SELECT 1");
        assert_eq!(parsed("SELECT ';--'").unwrap(), "SELECT ';--'");
        assert!(parsed("SELEC 1").unwrap_err().starts_with("expected: an SQL statement"));
    }

    #[test]
    fn question_marks_are_numbered() {
        assert_eq!(parsed("SELECT ?, '?' FROM t WHERE a = ?").unwrap(), "SELECT $1, '?' FROM t WHERE a = $2");
        assert_eq!(parsed("SELECT ?2, ?1").unwrap(), "SELECT $2, $1");
        assert!(parsed("SELECT ?, $1").unwrap_err().contains("not some of each"));
    }

    #[test]
    fn long_chains_are_refused_and_long_lists_are_not() {
        let repeat = |part: &str| part.repeat(100_000);
        for sql in [
            format!("SELECT 1{}", repeat("+1")),
            format!("SELECT a{}", repeat(" AND a")),
            format!("SELECT 1{}", repeat(" UNION ALL SELECT 1, 2")),
            format!("SELECT * FROM t{}", repeat(" JOIN t ON a, b")),
            format!("SELECT a{}", repeat("[1]")),
            format!("SELECT {} a", repeat("NOT ")),
            format!("SELECT {}1", repeat("-")),
            format!("SELECT a{}", repeat("::int")),
            format!("SELECT CASE {} END", repeat("WHEN a THEN 1 ")),
        ] {
            assert!(parsed(&sql).is_err_and(|e| e.contains("chains more than")), "{}", &sql[..40]);
        }
        for sql in [format!("SELECT 1{}", repeat(", -1")), format!("INSERT INTO t VALUES (1){}", repeat(", (-1, 'a')"))]
        {
            assert!(parsed(&sql).is_ok(), "{}", &sql[..40]);
        }
        assert!(parsed(&format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000))).is_err());
    }
}

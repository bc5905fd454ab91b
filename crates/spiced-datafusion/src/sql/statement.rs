//! Parsing of a text into exactly one statement.
//!
//! Question marks become `$1`, `$2` and so on, as JDBC and ADBC clients expect; DataFusion itself treats every `?` as
//! the same parameter.

use datafusion::execution::context::SessionState;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::dialect::{Dialect, dialect_from_str};
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};
use spiced_engine::EngineError;

use crate::error::{engine_error, invalid};
use crate::functions;
use crate::planning::dml;
use crate::sql::complexity::{ctes, syntax, tokens};
use crate::sql::distinct_from;

/// The tokens of a text, as the parser expects them.
pub(crate) struct Tokens {
    tokens: Vec<TokenWithSpan>,
    dialect: Box<dyn Dialect>,
    recursion_limit: usize,
}

/// Splits `sql` into tokens.
///
/// # Errors
/// Fails if the text has more than `max_size` bytes, has too many chained or nested expressions, or is not SQL.
pub(crate) fn tokenize(sql: &str, state: &SessionState, max_size: usize) -> Result<Tokens, EngineError> {
    tokens::check_length(sql, max_size)?;
    let options = &state.config_options().sql_parser;
    let dialect = dialect_from_str(options.dialect)
        .ok_or_else(|| invalid(format!("there is no SQL dialect `{}`", options.dialect)))?;
    let mut tokens = Tokenizer::new(dialect.as_ref(), sql)
        .tokenize_with_location()
        .map_err(|e| engine_error(ParserError::from(e).into()))?;
    tokens::check(&tokens)?;
    number_placeholders(&mut tokens)?;
    Ok(Tokens { tokens, dialect, recursion_limit: options.recursion_limit.get() })
}

/// Parses `sql`, a text of the pod.
///
/// # Errors
/// Fails if the text is not SQL, or not exactly one statement.
pub(crate) fn parse(sql: &str, state: &SessionState) -> Result<Statement, EngineError> {
    tokenize(sql, state, usize::MAX)?.parse()
}

impl Tokens {
    /// Returns the number of tokens.
    pub(crate) fn count(&self) -> usize {
        self.tokens.len()
    }

    /// # Errors
    /// Fails if the tokens are not exactly one statement, or if it is nested too deeply or too large.
    pub(crate) fn parse(self) -> Result<Statement, EngineError> {
        let Self { tokens, dialect, recursion_limit } = self;
        let length = tokens.len();
        syntax::with_stack(length, move || {
            let mut statements = DFParserBuilder::new(tokens)
                .with_dialect(dialect.as_ref())
                .with_recursion_limit(recursion_limit)
                .build()
                .and_then(|mut parser| parser.parse_statements())
                .map_err(engine_error)?;
            match (statements.pop_front(), statements.len()) {
                (Some(statement), 0) if syntax::is_too_deep(&statement, length) => {
                    Err(invalid("the statement is nested too deeply"))
                }
                (Some(mut statement), 0) => {
                    distinct_from::rewrite(&mut statement);
                    ctes::check(&statement)?;
                    dml::check(&statement)?;
                    functions::check_grouping(&statement)?;
                    Ok(statement)
                }
                (Some(_), more) => Err(invalid(format!("one statement at a time; here are {}", more + 1))),
                (None, _) => Err(invalid("there is no statement in the text")),
            }
        })
    }
}

/// Replaces `?` with `$1`, `$2` …, and `?3` with `$3`.
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
}

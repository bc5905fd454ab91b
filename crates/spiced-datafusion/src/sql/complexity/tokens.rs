//! Checks of the text before it is parsed.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use spiced_engine::EngineError;

use crate::error::invalid;

/// The maximum number of operators and keywords between two commas, within one pair of brackets.
const MAX_OPERATORS: usize = 500;
/// The maximum number of tables, joins, set operations and common table expressions within one pair of brackets.
const MAX_RELATIONS: usize = 100;
/// The maximum number of open brackets, `CASE … END` and `STRUCT<…>` included.
const MAX_BRACKETS: usize = 128;

/// Rejects a text that is longer than `limit` bytes.
///
/// # Errors
/// Fails if the text is longer.
pub(crate) fn check_length(sql: &str, limit: usize) -> Result<(), EngineError> {
    if sql.len() <= limit {
        return Ok(());
    }
    Err(invalid(format!(
        "the statement has {} bytes, and may have {limit}; send values as parameters, or rows by Flight's bulk ingest",
        sql.len()
    )))
}

/// The bracket that encloses a level of the text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bracket {
    /// The whole text.
    Top,
    Parenthesis,
    Square,
    Brace,
    /// `CASE … END`.
    Case,
    /// `STRUCT<…>`, `ARRAY<…>`, `MAP<…>`.
    Angle,
}

/// The length of the chains within one pair of brackets so far.
struct BracketLevel {
    bracket: Bracket,
    operators: usize,
    relations: usize,
    /// True in `FROM` and `WITH`, where commas separate relations.
    relations_follow: bool,
}

/// Checks the tokens of a text.
///
/// A chain (`1 + 1 + …`) is parsed into a tree as deep as the chain is long. A comma ends a chain, and so does a new
/// branch of a `CASE`; everything else except a plain value counts.
///
/// # Errors
/// Fails if a chain is too long, or if brackets are nested too deeply.
pub(crate) fn check(tokens: &[TokenWithSpan]) -> Result<(), EngineError> {
    let mut levels = vec![BracketLevel::new(Bracket::Top)];
    let mut names_type = false;
    for TokenWithSpan { token, .. } in tokens {
        let level = levels.last_mut().expect("the outermost level is never taken off");
        level.count(token);
        if level.operators > MAX_OPERATORS {
            return Err(invalid(format!(
                "the statement chains more than {MAX_OPERATORS} operators; write a list (`IN (…)`, `VALUES`) instead"
            )));
        }
        if level.relations > MAX_RELATIONS {
            return Err(invalid(format!(
                "the statement puts more than {MAX_RELATIONS} tables or queries in a row; split it"
            )));
        }
        if let Some(bracket) = opened(token, names_type) {
            if levels.len() > MAX_BRACKETS {
                return Err(invalid(format!("the statement nests brackets more than {MAX_BRACKETS} deep")));
            }
            levels.push(BracketLevel::new(bracket));
        }
        for _ in 0..closing(token) {
            if levels.last().is_some_and(|level| closes(token, level.bracket)) {
                levels.pop();
            }
        }
        if !matches!(token, Token::Whitespace(_)) {
            names_type = matches!(token, Token::Word(word) if may_have_type_arguments(word.keyword));
        }
    }
    Ok(())
}

fn may_have_type_arguments(keyword: Keyword) -> bool {
    matches!(keyword, Keyword::STRUCT | Keyword::ARRAY | Keyword::MAP | Keyword::TABLE | Keyword::NESTED)
}

fn opened(token: &Token, names_type: bool) -> Option<Bracket> {
    match token {
        Token::LParen => Some(Bracket::Parenthesis),
        Token::LBracket => Some(Bracket::Square),
        Token::LBrace => Some(Bracket::Brace),
        Token::Word(word) if word.keyword == Keyword::CASE => Some(Bracket::Case),
        Token::Lt if names_type => Some(Bracket::Angle),
        _ => None,
    }
}

/// Returns how many brackets `token` may close.
fn closing(token: &Token) -> usize {
    match token {
        Token::RParen | Token::RBracket | Token::RBrace | Token::Gt => 1,
        Token::ShiftRight => 2,
        Token::Word(word) if word.keyword == Keyword::END => 1,
        _ => 0,
    }
}

fn closes(token: &Token, bracket: Bracket) -> bool {
    match token {
        Token::RParen => bracket == Bracket::Parenthesis,
        Token::RBracket => bracket == Bracket::Square,
        Token::RBrace => bracket == Bracket::Brace,
        Token::Gt | Token::ShiftRight => bracket == Bracket::Angle,
        Token::Word(_) => bracket == Bracket::Case,
        _ => false,
    }
}

impl BracketLevel {
    fn new(bracket: Bracket) -> Self {
        Self { bracket, operators: 0, relations: 0, relations_follow: false }
    }

    fn count(&mut self, token: &Token) {
        match token {
            // Within `CASE` and `<…>` a comma does not separate expressions.
            Token::Comma if matches!(self.bracket, Bracket::Case | Bracket::Angle) => self.operators += 1,
            Token::Comma => {
                self.operators = 0;
                self.relations += usize::from(self.relations_follow);
            }
            Token::SemiColon if self.bracket == Bracket::Top => *self = Self::new(Bracket::Top),
            Token::Word(word) => match word.keyword {
                Keyword::NoKeyword => {}
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS | Keyword::JOIN => {
                    self.relations += 1;
                    self.operators = 0;
                }
                Keyword::FROM | Keyword::WITH => self.relations_follow = true,
                Keyword::SELECT | Keyword::WHERE | Keyword::GROUP | Keyword::ORDER | Keyword::HAVING => {
                    self.relations_follow = false;
                }
                // The branches of a `CASE` are siblings, not nested in each other.
                Keyword::WHEN | Keyword::THEN | Keyword::ELSE if self.bracket == Bracket::Case => self.operators = 0,
                _ => self.operators += 1,
            },
            Token::Whitespace(_) | Token::Number(..) | Token::SingleQuotedString(_) => {}
            Token::Placeholder(_) | Token::Period => {}
            Token::RParen | Token::RBracket | Token::RBrace | Token::EOF => {}
            // Opening brackets extend a chain too: `a[1][1][1]`.
            _ => self.operators += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::tokenizer::Tokenizer;

    use super::*;

    fn admitted(sql: &str) -> bool {
        check(&Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location().unwrap()).is_ok()
    }

    #[test]
    fn long_chains_and_deep_brackets_are_refused_and_long_lists_are_not() {
        let repeat = |part: &str| part.repeat(10_000);
        for sql in [
            format!("SELECT 1{}", repeat("+1")),
            format!("SELECT a{}", repeat(" AND a")),
            format!("SELECT 1{}", repeat(" UNION ALL SELECT 1, 2")),
            format!("SELECT * FROM t{}", repeat(" JOIN t ON a")),
            format!("SELECT * FROM t{}", repeat(", t a")),
            format!("SELECT * FROM (SELECT * FROM t{})", repeat(", t a")),
            format!("WITH a AS (SELECT 1){} SELECT 1", repeat(", a AS (SELECT 1)")),
            format!("SELECT a{}", repeat("[1]")),
            format!("SELECT {} a", repeat("NOT ")),
            format!("SELECT {}1", repeat("- ")),
            format!("SELECT a{}", repeat("::int")),
            format!("SELECT 1{}", repeat(" + (1)")),
            // Commas and branches within one element of the chain.
            format!("SELECT 1{}", repeat(" + CASE WHEN true THEN 1 ELSE 2 END")),
            format!("SELECT 1{}", repeat(" = {a: 1, b: 2}")),
            format!("SELECT 1{}", repeat("::STRUCT<a INT, b INT>")),
            format!("SELECT 1{}", repeat("::MAP<INT, ARRAY<INT>>")),
            format!("SELECT 1{}", repeat(" + [1, 2]")),
            format!("SELECT 1{}", repeat(" + f(1, 2)")),
            format!("SELECT 1{}", repeat(" WHEN + 1")),
            format!("SELECT CAST(NULL AS {}", repeat("Nullable(")),
            format!("SELECT {}", repeat("(")),
            format!("SELECT {}", repeat("{a: ")),
            format!("SELECT {}", repeat("CASE WHEN true THEN ")),
            format!("SELECT CAST(NULL AS {}", repeat("STRUCT<a ")),
        ] {
            assert!(!admitted(&sql), "{}", &sql[..50]);
        }
        for sql in [
            format!("SELECT 1{}", repeat(", -1")),
            format!("SELECT a{} FROM t ORDER BY a{}", repeat(", a"), repeat(", a")),
            format!("INSERT INTO t VALUES (1){}", repeat(", (-1, 'a')")),
            format!("SELECT * FROM t WHERE a IN (1{}) GROUP BY a{}", repeat(", -1"), repeat(", a")),
            format!("SELECT CASE {} ELSE 0 END", repeat("WHEN a = 1 AND b THEN 1 + 1 ")),
            format!("SELECT 1{}", repeat(", CASE WHEN a < b THEN {x: 1, y: 2} END")),
            format!("SELECT 1{}", repeat(", a::STRUCT<a INT, b ARRAY<ARRAY<INT>>>")),
            format!("SELECT a < b{}", repeat(", c > d")),
        ] {
            assert!(admitted(&sql), "{}", &sql[..40]);
        }
    }

    #[test]
    fn a_long_text_is_refused_by_its_length() {
        assert!(check_length("SELECT 1", 8).is_ok());
        let error = check_length("SELECT 10", 8).unwrap_err();
        assert!(error.to_string().starts_with("the statement has 9 bytes, and may have 8"), "{error}");
    }
}

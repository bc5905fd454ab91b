//! Finds the tables that a statement references, and their aliases; knows just enough SQL to complete columns.

use crate::prompt::keywords::is_keyword;

/// A table that a statement references.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableRef {
    pub(crate) schema: Option<String>,
    pub(crate) table: String,
    pub(crate) alias: Option<String>,
}

impl TableRef {
    /// Returns the name by which the statement refers to the table.
    pub(crate) fn known_as(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.table)
    }
}

/// Finds the tables after `FROM`, `JOIN`, `INTO` and `UPDATE`.
pub(crate) fn referenced_tables(statement: &str) -> Vec<TableRef> {
    let mut tokens = tokens(statement).into_iter().peekable();
    let mut found = Vec::new();
    while let Some(token) = tokens.next() {
        let Token::Word(word) = &token else { continue };
        if !["FROM", "JOIN", "INTO", "UPDATE"].iter().any(|before| before.eq_ignore_ascii_case(word)) {
            continue;
        }
        loop {
            let mut path = Vec::new();
            while let Some(part) = tokens.next_if(Token::is_name) {
                path.push(part.text());
                if tokens.next_if(|token| *token == Token::Other('.')).is_none() {
                    break;
                }
            }
            let Some(table) = path.pop() else { break };
            tokens.next_if(|token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case("AS")));
            let alias = tokens.next_if(Token::is_name).map(Token::text);
            found.push(TableRef { schema: path.pop(), table, alias });
            if tokens.next_if(|token| *token == Token::Other(',')).is_none() {
                break;
            }
        }
    }
    found
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Other(char),
}

impl Token {
    fn is_name(&self) -> bool {
        match self {
            Self::Word(word) => !is_keyword(word),
            Self::Quoted(_) => true,
            Self::Other(_) => false,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Word(text) | Self::Quoted(text) => text,
            Self::Other(c) => c.to_string(),
        }
    }
}

/// Splits a statement into tokens without whitespace and comments. A string in quotes is one token and not a name.
fn tokens(statement: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = statement;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            _ if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '\'' | '"' => {
                let inner = &rest[1..];
                let end = inner.find(c).unwrap_or(inner.len());
                tokens.push(if c == '"' { Token::Quoted(inner[..end].to_owned()) } else { Token::Other('\'') });
                (end + 2).min(rest.len())
            }
            _ if c.is_alphanumeric() || c == '_' => {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..end].to_owned()));
                end
            }
            _ => {
                if !c.is_whitespace() {
                    tokens.push(Token::Other(c));
                }
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_what_they_are_called() {
        for (statement, expected) in [
            ("SELECT 1", ""),
            ("SELECT a FROM t", "t"),
            ("select * from public.\"My T\" as x join u on x.a = u.a", "public.My T x, u"),
            ("SELECT * FROM a, b c, d WHERE e", "a, b c, d"),
            ("SELECT 'FROM x' -- FROM y\n/* FROM z */ FROM t", "t"),
            ("INSERT INTO s.t VALUES (1)", "s.t"),
            ("UPDATE t SET a = 1", "t"),
            ("SELECT * FROM (SELECT 1 FROM inner_one) q", "inner_one"),
            ("SELECT * FROM ", ""),
            ("SELECT * FROM 'é", ""),
        ] {
            let text = |mention: &TableRef| {
                let schema = mention.schema.as_ref().map_or_else(String::new, |schema| format!("{schema}."));
                let alias = mention.alias.as_ref().map_or_else(String::new, |alias| format!(" {alias}"));
                format!("{schema}{}{alias}", mention.table)
            };
            let got: Vec<_> = referenced_tables(statement).iter().map(text).collect();
            assert_eq!(got.join(", "), expected, "{statement}");
        }
    }
}

//! Completion at the cursor: keywords, tables, columns, and the prompt's own commands.

use crate::print::format::FORMATS;
use crate::prompt::keywords::{KEYWORDS, is_keyword};
use crate::prompt::referenced_tables::{TableRef, referenced_tables};
use crate::script::splitter::Splitter;
use crate::shell::catalog::{Catalog, Table};
use crate::shell::meta::COMMANDS;

/// The maximum number of suggestions.
const MAX_SUGGESTIONS: usize = 500;

/// Keywords that a table name follows.
const BEFORE_TABLE: [&str; 7] = ["FROM", "JOIN", "INTO", "UPDATE", "TABLE", "DESCRIBE", "DESC"];

/// Returns where the word under the cursor begins, and its completions.
pub(crate) fn complete(line: &str, at: usize, catalog: &Catalog) -> (usize, Vec<String>) {
    let before = &line[..at];
    let mut splitter = Splitter::default();
    splitter.push(before);
    let statement = splitter.pending();
    if statement.starts_with('\\') {
        return command(statement, at, catalog);
    }
    if splitter.is_quoted() {
        return (at, Vec::new());
    }
    let word = last_word(before);
    let start = at - word.len();
    let left = &before[..start];
    let whole = whole_statement(line, at - statement.len());
    let names = referenced_tables(whole);
    let offered: Vec<String> = match left.strip_suffix('.') {
        Some(left) => qualified(last_word(left), &names, catalog),
        None if stands_for_table(left) => {
            let schemas = catalog.tables.iter().map(|table| quoted(&table.schema));
            catalog.tables.iter().map(|table| quoted(&table.name)).chain(schemas).collect()
        }
        None => {
            let tables: Vec<&Table> = names.iter().filter_map(|mention| find(mention, catalog)).collect();
            // Before `FROM` is written, any column may be meant.
            let tables = if tables.is_empty() && !word.is_empty() { catalog.tables.iter().collect() } else { tables };
            let columns = tables.iter().flat_map(|table| columns(table));
            // The word being typed may look like an alias.
            let aliases = names.iter().map(TableRef::known_as).filter(|alias| *alias != word).map(quoted);
            columns.chain(aliases).chain(KEYWORDS.iter().map(|keyword| in_case_of(word, keyword))).collect()
        }
    };
    (start, beginning_with(word, offered))
}

/// Returns the candidates that begin with `word`, each once.
fn beginning_with(word: &str, offered: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for candidate in offered {
        let name = candidate.trim_start_matches('"');
        let fits = name.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        if fits && !candidate.is_empty() && !kept.contains(&candidate) {
            kept.push(candidate);
            if kept.len() == MAX_SUGGESTIONS {
                break;
            }
        }
    }
    kept
}

/// Completes a command of the prompt, or its argument.
fn command(statement: &str, at: usize, catalog: &Catalog) -> (usize, Vec<String>) {
    let Some((name, _)) = statement.split_once(char::is_whitespace) else {
        let names = COMMANDS.iter().flat_map(|(names, ..)| names.iter());
        let fitting = names.filter(|name| name.starts_with(statement)).map(|name| (*name).to_owned());
        return (at - statement.len(), fitting.collect());
    };
    let word = last_word(statement);
    let left = &statement[..statement.len() - word.len()];
    let offered: Vec<String> = match name {
        "\\d" | "\\dt" => match left.strip_suffix('.') {
            Some(left) => tables_of_schema(last_word(left), catalog),
            None => {
                let schemas = catalog.tables.iter().map(|table| quoted(&table.schema));
                catalog.tables.iter().map(|table| quoted(&table.name)).chain(schemas).collect()
            }
        },
        "\\format" | "\\o" => FORMATS.map(str::to_owned).to_vec(),
        "\\x" | "\\timing" => vec!["on".to_owned(), "off".to_owned()],
        _ => Vec::new(),
    };
    (at - word.len(), beginning_with(word, offered))
}

/// Completes the part after a dot.
fn qualified(qualifier: &str, names: &[TableRef], catalog: &Catalog) -> Vec<String> {
    let mention = names.iter().find(|mention| mention.known_as().eq_ignore_ascii_case(qualifier));
    let by_mention = mention.and_then(|mention| find(mention, catalog));
    let table = by_mention.or_else(|| catalog.tables.iter().find(|table| table.name.eq_ignore_ascii_case(qualifier)));
    let columns = table.into_iter().flat_map(columns);
    columns.chain(tables_of_schema(qualifier, catalog)).collect()
}

fn tables_of_schema(schema: &str, catalog: &Catalog) -> Vec<String> {
    let inside = catalog.tables.iter().filter(|table| table.schema.eq_ignore_ascii_case(schema));
    inside.map(|table| quoted(&table.name)).collect()
}

fn find<'c>(mention: &TableRef, catalog: &'c Catalog) -> Option<&'c Table> {
    catalog.tables.iter().find(|table| {
        table.name.eq_ignore_ascii_case(&mention.table)
            && mention.schema.as_ref().is_none_or(|schema| table.schema.eq_ignore_ascii_case(schema))
    })
}

fn columns(table: &Table) -> impl Iterator<Item = String> {
    table.columns.fields().iter().map(|field| quoted(field.name()))
}

/// Returns the statement that begins at `start`, including any part behind the cursor.
fn whole_statement(line: &str, start: usize) -> &str {
    let rest = &line[start..];
    let end = Splitter::default().push(rest).first().map_or(rest.len(), |piece| piece.text.len());
    &rest[..end]
}

/// Returns whether a table name is expected after `left`.
fn stands_for_table(left: &str) -> bool {
    let left = left.trim_end();
    let word = last_word(left);
    if BEFORE_TABLE.iter().any(|before| before.eq_ignore_ascii_case(word)) {
        return true;
    }
    // `FROM a, |`
    let Some(listed) = left.strip_suffix(',') else { return false };
    let after_from =
        listed.rsplit(|c: char| !is_word(c) && !matches!(c, '.' | '"' | ',' | ' ' | '\n')).next().unwrap_or(listed);
    let words: Vec<&str> = after_from.split(|c: char| !is_word(c)).filter(|word| !word.is_empty()).collect();
    words.iter().rev().find(|word| is_keyword(word)).is_some_and(|keyword| keyword.eq_ignore_ascii_case("FROM"))
}

fn last_word(text: &str) -> &str {
    let start = text.char_indices().rev().take_while(|(_, c)| is_word(*c)).last().map_or(text.len(), |(at, _)| at);
    &text[start..]
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Returns the name, quoted if SQL requires it.
pub(crate) fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !is_keyword(name);
    if plain || name.is_empty() { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Returns the keyword in upper or lower case, as the user types.
fn in_case_of(word: &str, keyword: &str) -> String {
    if word.chars().any(char::is_lowercase) { keyword.to_ascii_lowercase() } else { keyword.to_owned() }
}

#[cfg(test)]
mod tests;

//! The prompt's own commands, which begin with a backslash.

use std::path::PathBuf;

use crate::error::SqlError;
use crate::print::format::Format;

/// Every command: its names, its arguments, and its description.
pub(crate) const COMMANDS: [(&[&str], &str, &str); 12] = [
    (&["\\d", "\\dt"], "[NAME]", "the tables, or the columns of NAME (* stands for anything)"),
    (&["\\dn"], "", "the schemas"),
    (&["\\l"], "", "the catalogs"),
    (&["\\i"], "FILE", "run the statements of a file"),
    (&["\\format", "\\o"], "FORMAT", "write answers as table, csv, json or ndjson"),
    (&["\\x"], "[on|off]", "write tables a value a line"),
    (&["\\timing"], "[on|off]", "tell how long statements take"),
    (&["\\maxrows"], "[N]", "show no more than N rows of an answer in a table; 0: all"),
    (&["\\conninfo"], "", "how this prompt is connected"),
    (&["\\refresh"], "", "read tables and columns again, for completion"),
    (&["\\h", "\\?", "\\help"], "", "this help"),
    (&["\\q", "\\quit"], "", "leave (so does Ctrl-D)"),
];

/// A parsed command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meta {
    Tables,
    Table(Name),
    Schemas,
    Catalogs,
    Include(PathBuf),
    Format(Option<Format>),
    Expanded(Option<bool>),
    Timing(Option<bool>),
    MaxRows(Option<usize>),
    ConnectionInfo,
    Refresh,
    Help,
    Quit,
}

impl Meta {
    /// Parses a line.
    pub(crate) fn parse(line: &str) -> Result<Self, SqlError> {
        let line = line.trim();
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        // Users end everything with a semicolon.
        let argument = argument.trim().trim_end_matches(';').trim_end();
        let name = name.trim_end_matches(';');
        let known = COMMANDS.iter().find(|(names, ..)| names.contains(&name));
        let Some((names, takes, _)) = known else {
            return Err(SqlError::hinted(format!("there is no command {name}"), "\\? lists them"));
        };
        let given = Some(argument).filter(|argument| !argument.is_empty());
        if takes.is_empty() && given.is_some() {
            return Err(SqlError::new(format!("{name} takes nothing after it")));
        }
        Ok(match names[0] {
            "\\d" => given.map_or(Ok(Self::Tables), |text| Name::parse(text).map(Self::Table))?,
            "\\dn" => Self::Schemas,
            "\\l" => Self::Catalogs,
            "\\i" => Self::Include(given.ok_or_else(|| SqlError::new("\\i takes a file"))?.into()),
            "\\format" => Self::Format(given.map(|text| text.parse::<Format>().map_err(SqlError::new)).transpose()?),
            "\\x" => Self::Expanded(switch(name, given)?),
            "\\timing" => Self::Timing(switch(name, given)?),
            "\\maxrows" => {
                let number = |text: &str| text.parse().map_err(|_| SqlError::new("\\maxrows takes a number"));
                Self::MaxRows(given.map(number).transpose()?)
            }
            "\\conninfo" => Self::ConnectionInfo,
            "\\refresh" => Self::Refresh,
            "\\h" => Self::Help,
            _ => Self::Quit,
        })
    }
}

fn switch(name: &str, given: Option<&str>) -> Result<Option<bool>, SqlError> {
    match given {
        None => Ok(None),
        Some("on") => Ok(Some(true)),
        Some("off") => Ok(Some(false)),
        Some(_) => Err(SqlError::new(format!("{name} takes on or off"))),
    }
}

/// Returns the help text.
pub(crate) fn help() -> String {
    let lines = COMMANDS.iter().map(|(names, takes, what)| {
        let name = format!("{} {takes}", names.join(" "));
        format!("  {name:<22} {what}\n")
    });
    format!(
        "Statements end with `;` and may have several lines.\n{}\
         Tab completes. Ctrl-C clears the line, or cancels what runs. A line that begins with a blank is not remembered.",
        lines.collect::<String>()
    )
}

/// A table name with optional schema and catalog. `*` matches any text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) catalog: Option<String>,
    pub(crate) schema: Option<String>,
    pub(crate) table: String,
}

impl Name {
    fn parse(text: &str) -> Result<Self, SqlError> {
        let mut parts = vec![String::new()];
        let mut quoted = false;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '"' if quoted && chars.next_if_eq(&'"').is_some() => push(&mut parts, '"'),
                '"' => quoted = !quoted,
                '.' if !quoted => parts.push(String::new()),
                // The server lowercases unquoted names in the same way.
                _ if !quoted => c.to_lowercase().for_each(|c| push(&mut parts, c)),
                _ => push(&mut parts, c),
            }
        }
        let table = parts.pop().unwrap_or_default();
        let (schema, catalog) = (parts.pop(), parts.pop());
        let empty = |part: &Option<String>| part.as_ref().is_some_and(String::is_empty);
        if quoted || table.is_empty() || empty(&schema) || empty(&catalog) || !parts.is_empty() {
            return Err(SqlError::new(format!("`{text}` is no name: TABLE, SCHEMA.TABLE or CATALOG.SCHEMA.TABLE")));
        }
        Ok(Self { catalog, schema, table })
    }
}

fn push(parts: &mut [String], c: char) {
    if let Some(last) = parts.last_mut() {
        last.push(c);
    }
}

/// Returns whether `text` matches `pattern`, in which `*` matches any text.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|start| text.strip_prefix(start)) else { return false };
    let Some(end) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(end)
}

/// Returns a `LIKE` pattern that matches at least everything that `matches` accepts.
pub(crate) fn like(pattern: &str) -> String {
    pattern.replace('*', "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command() {
        let name = |catalog: Option<&str>, schema: Option<&str>, table: &str| {
            Meta::Table(Name { catalog: catalog.map(Into::into), schema: schema.map(Into::into), table: table.into() })
        };
        for (line, meta) in [
            ("\\d", Meta::Tables),
            ("\\d;", Meta::Tables),
            ("\\dt  Trips ;", name(None, None, "trips")),
            ("\\d Public.\"My Trips\"", name(None, Some("public"), "My Trips")),
            ("\\d c.s.\"a\"\"b.c\"", name(Some("c"), Some("s"), "a\"b.c")),
            ("\\dn", Meta::Schemas),
            ("\\l", Meta::Catalogs),
            ("\\i a b.sql", Meta::Include("a b.sql".into())),
            ("\\o CSV", Meta::Format(Some(Format::Csv))),
            ("\\format", Meta::Format(None)),
            ("\\x", Meta::Expanded(None)),
            ("\\x off", Meta::Expanded(Some(false))),
            ("\\timing on", Meta::Timing(Some(true))),
            ("\\maxrows 0", Meta::MaxRows(Some(0))),
            ("\\conninfo", Meta::ConnectionInfo),
            ("\\refresh", Meta::Refresh),
            ("\\?", Meta::Help),
            ("\\q", Meta::Quit),
        ] {
            assert_eq!(Meta::parse(line), Ok(meta), "{line}");
        }
        for (line, text) in [
            ("\\nope", "there is no command \\nope\nhint: \\? lists them"),
            ("\\q now", "\\q takes nothing after it"),
            ("\\i", "\\i takes a file"),
            ("\\x maybe", "\\x takes on or off"),
            ("\\maxrows many", "\\maxrows takes a number"),
            ("\\o xml", "there is no format `xml`: table, csv, json, ndjson"),
            ("\\d a.b.c.d", "`a.b.c.d` is no name: TABLE, SCHEMA.TABLE or CATALOG.SCHEMA.TABLE"),
            ("\\d \"a", "`\"a` is no name: TABLE, SCHEMA.TABLE or CATALOG.SCHEMA.TABLE"),
        ] {
            assert_eq!(Meta::parse(line).unwrap_err().text(), text, "{line}");
        }
    }

    #[test]
    fn stars() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abc", true),
            ("a*b*c", "a-c", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}

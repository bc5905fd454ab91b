//! Checks docs, comments and messages for the words and constructions in `xtask/docs-lint.txt`.

use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;

use crate::book;
use crate::tools::{Outcome, root};

/// The maximum line length, in columns.
const MAX_COLUMNS: usize = 120;

/// The maximum number of findings that are listed.
const MAX_LISTED: usize = 50;

/// The quotes around a docstring.
const QUOTES: &str = "\"\"\"";

/// What a rule applies to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// Every line of text and code.
    All,
    /// Pages, comments, doc comments and Python's docstrings.
    Prose,
    /// String literals of Rust sources.
    Messages,
}

struct Rule {
    scope: Scope,
    pattern: Regex,
    instead: String,
}

pub fn run() -> Outcome {
    book::run()?;
    let rules = rules()?;
    let literal = Regex::new(r#""(?:\\.|[^"\\])*"?"#).map_err(|e| e.to_string())?;
    let mut found = Vec::new();
    let mut files = 0;
    for path in tracked()? {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        // A generated page takes its words from the code.
        if text.starts_with("<!--") {
            continue;
        }
        files += 1;
        let shown = path.strip_prefix(root()).unwrap_or(&path).display().to_string();
        let is_rust = path.extension().is_some_and(|extension| extension == "rs");
        for (number, line, prose) in lines(&path, &text) {
            let has_messages = is_rust && prose.is_empty();
            let findings = rules.iter().filter(|rule| match rule.scope {
                Scope::All => rule.pattern.is_match(line),
                Scope::Prose => rule.pattern.is_match(prose),
                Scope::Messages => {
                    has_messages && literal.find_iter(line).any(|message| rule.pattern.is_match(message.as_str()))
                }
            });
            found.extend(findings.map(|rule| format!("{shown}:{number}: `{}`: {}", rule.pattern, rule.instead)));
            if is_too_long(&path, line, prose) {
                found.push(format!("{shown}:{number}: prose wraps at {MAX_COLUMNS} columns"));
            }
        }
    }
    if found.is_empty() {
        eprintln!("docs-lint: {} rules, {files} files, nothing matches", rules.len());
        return Ok(());
    }
    let listed = found.iter().take(MAX_LISTED).cloned().collect::<Vec<_>>().join("\n  ");
    Err(format!("docs-lint: {} lines match (the first {MAX_LISTED} are listed):\n  {listed}", found.len()))
}

/// The rules: scope, pattern and replacement, separated by ` | `.
fn rules() -> Outcome<Vec<Rule>> {
    let path = root().join("xtask/docs-lint.txt");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut parts = line.splitn(3, " | ");
            let (scope, pattern, instead) = (parts.next(), parts.next(), parts.next());
            let scope = match scope {
                Some("all") => Scope::All,
                Some("prose") => Scope::Prose,
                Some("messages") => Scope::Messages,
                _ => return Err(format!("docs-lint.txt: `{line}` names no scope (all, prose, messages)")),
            };
            let pattern = pattern.ok_or_else(|| format!("docs-lint.txt: `{line}` has no pattern"))?;
            let pattern = Regex::new(pattern).map_err(|e| format!("docs-lint.txt: `{pattern}`: {e}"))?;
            let instead = instead.ok_or_else(|| format!("docs-lint.txt: `{line}` has no replacement"))?.to_owned();
            Ok(Rule { scope, pattern, instead })
        })
        .collect()
}

/// Returns the files under version control that a person reads.
fn tracked() -> Outcome<Vec<PathBuf>> {
    let listed = Command::new("git").arg("ls-files").current_dir(root()).output();
    let listed = listed.map_err(|e| format!("cannot run git ls-files: {e}"))?;
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    let read = |name: &&str| {
        let kind = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        matches!(kind, "md" | "rs" | "py" | "yml" | "yaml" | "toml" | "json" | "service") && !name.starts_with("data/")
    };
    Ok(names.lines().filter(read).map(|name| root().join(name)).collect())
}

/// Returns each line outside code blocks: its number, the whole line, and the part of it that is prose.
fn lines<'t>(path: &Path, text: &'t str) -> Vec<(usize, &'t str, &'t str)> {
    let is = |kind: &str| path.extension().is_some_and(|extension| extension == kind);
    let (is_page, is_python) = (is("md"), is("py"));
    let mut fenced = false;
    // Whether the open text of several lines is a docstring, which begins its line.
    let mut open: Option<bool> = None;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let start = line.trim_start();
        if is_page {
            if start.starts_with("```") {
                fenced = !fenced;
            } else if !fenced {
                found.push((index + 1, line, line));
            }
        } else {
            let begins = is_python && start.starts_with(QUOTES);
            let is_docstring = open.unwrap_or(begins);
            if is_python && line.matches(QUOTES).count() % 2 == 1 {
                open = if open.is_none() { Some(begins) } else { None };
            }
            let is_prose = is_docstring || start.starts_with("//") || start.starts_with("# ");
            found.push((index + 1, line, if is_prose { start } else { "" }));
        }
    }
    found
}

/// Returns true if prose exceeds the line length. Tables, links, and words that cannot be broken are exempt.
fn is_too_long(path: &Path, line: &str, prose: &str) -> bool {
    let is_source = path.extension().is_some_and(|extension| extension == "rs" || extension == "md");
    let start = line.trim_start();
    let exempt = start.starts_with('|') || start.starts_with("[") || line.contains("://") || line.contains("](");
    is_source && !prose.is_empty() && !exempt && line.chars().count() > MAX_COLUMNS
}

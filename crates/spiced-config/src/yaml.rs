//! A YAML document as a tree whose every value knows its line. Scalars keep their text: `00123`
//! is not a number yet, and `"1.2"` and `1.2` are the same.

use std::collections::HashMap;
use std::path::Path;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};
use spiced_secrets::Template;
use tls_core::Origin;

use crate::error::{ConfigError, Problem};
use crate::shown::{is_secret_place, may_be_secret, shown_key};
use crate::tree::{Key, Kind, Node, Text};

/// Values of one document, those that aliases repeat included; more is an attack or a mistake.
const MAX_NODES: usize = 100_000;

/// Bytes of text that aliases may repeat.
const MAX_REPEATED: usize = 8 * 1024 * 1024;

/// How deep values may be nested.
const MAX_DEPTH: usize = 64;

/// Reads one document. `name` is what messages call the file. Also returns problems that leave the rest readable:
/// a key that is repeated, a malformed reference, for which there is nothing in the tree.
///
/// # Errors
/// It is not YAML, or holds several documents: that, and what else is wrong before it.
pub(crate) fn read(name: &Path, text: &str) -> Result<(Node, Vec<Problem>), ConfigError> {
    let mut reader = Reader {
        name,
        lines: text.lines().collect(),
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        budget: MAX_NODES,
        repeatable: MAX_REPEATED,
        problems: Vec::new(),
    };
    match reader.document() {
        Ok(root) => Ok((root, reader.problems)),
        Err(problem) => Err(ConfigError(reader.problems.into_iter().chain([*problem]).collect())),
    }
}

struct Reader<'t> {
    name: &'t Path,
    lines: Vec<&'t str>,
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    anchors: HashMap<usize, Node>,
    budget: usize,
    /// Bytes that aliases may still repeat.
    repeatable: usize,
    problems: Vec<Problem>,
}

type Step<T> = Result<T, Box<Problem>>;

impl<'t> Reader<'t> {
    fn document(&mut self) -> Step<Node> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(_), _) => {}
                (Event::StreamEnd, span) => return Ok(Node { kind: Kind::Null, origin: self.origin(span.start, "") }),
                first => {
                    let root = self.value(first, "", 0)?;
                    return self.end_of_stream(root);
                }
            }
        }
    }

    fn end_of_stream(&mut self, root: Node) -> Step<Node> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(root),
                (Event::DocumentStart(_), span) => {
                    return Err(self.problem(span.start, "a second document begins here; a pod is one document"));
                }
                _ => {}
            }
        }
    }

    fn value(&mut self, (event, span): (Event<'t>, Span), path: &str, depth: usize) -> Step<Node> {
        self.budget = self.budget.checked_sub(1).ok_or_else(|| {
            self.problem(
                span.start,
                format!("the document has more than {MAX_NODES} values, counting what aliases repeat"),
            )
        })?;
        if depth > MAX_DEPTH {
            return Err(self.problem(span.start, format!("values are nested more than {MAX_DEPTH} deep")));
        }
        let origin = self.origin(span.start, path);
        let (kind, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => (self.scalar(&text, style, &origin, span.start), anchor),
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        item => {
                            let path = format!("{path}[{}]", items.len());
                            items.push(self.value(item, &path, depth + 1)?);
                        }
                    }
                }
                (Kind::List(items), anchor)
            }
            Event::MappingStart(anchor, _) => (self.mapping(path, depth)?, anchor),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(self.problem(span.start, "an alias to itself or to nothing"));
                };
                let (values, bytes) = size(node);
                let left = (self.budget.checked_sub(values), self.repeatable.checked_sub(bytes));
                let (Some(budget), Some(repeatable)) = left else {
                    let message = format!("aliases repeat more than {MAX_NODES} values, or {MAX_REPEATED} bytes");
                    return Err(self.problem(span.start, message));
                };
                let node = node.clone();
                (self.budget, self.repeatable) = (budget, repeatable);
                return Ok(Node { origin, ..node });
            }
            _ => return Err(self.problem(span.start, "a value is missing here")),
        };
        let node = Node { kind, origin };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn mapping(&mut self, path: &str, depth: usize) -> Step<Kind> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut merged = Vec::new();
        // Where each key was first: a document may have very many.
        let mut places: HashMap<String, usize> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            let name = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(self.problem(span.start, "a key has to be a word")),
            };
            // A place is told in messages, so it is no place for what may be a secret.
            let shown = shown_key(path, &name).to_owned();
            let path = if path.is_empty() { shown.clone() } else { format!("{path}.{shown}") };
            let next = self.next()?;
            let value = self.value(next, &path, depth + 1)?;
            if name == "<<" {
                merged.push(value);
            } else if let Some(at) = places.get(&name) {
                let first = entries[*at].0.origin.clone();
                self.problems
                    .push(*self.problem(span.start, format!("the key `{shown}` is here twice; first at {first}")));
            } else {
                places.insert(name.clone(), entries.len());
                entries.push((Key { name, origin: self.origin(span.start, &path) }, value));
            }
        }
        // `<<: *anchor` gives what is not said here (YAML's merge key).
        for base in merged.into_iter().flat_map(|m| if let Kind::List(l) = m.kind { l } else { vec![m] }) {
            let Kind::Map(defaults) = base.kind else { continue };
            for (key, value) in defaults {
                if !places.contains_key(&key.name) {
                    places.insert(key.name.clone(), entries.len());
                    entries.push((key, value));
                }
            }
        }
        Ok(Kind::Map(entries))
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, origin: &Origin, at: Marker) -> Kind {
        if style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
            return Kind::Null;
        }
        match Template::parse(text) {
            Ok(template) => Kind::Text(Text::Written(template)),
            Err(errors) => {
                for error in errors {
                    // `${` may be a part of a password.
                    let key = if let Origin::File { key, .. } = origin { key.as_str() } else { "" };
                    let error = if is_secret_place(key) || may_be_secret(text) { error.unquoted() } else { error };
                    let problem = Problem::new(origin.clone(), error.to_string())
                        .hint("a reference is ${store:KEY}, such as ${env:NAME} or ${secrets:NAME}");
                    self.problems.push(Problem { excerpt: Some(self.excerpt(at)), ..problem });
                }
                Kind::Null
            }
        }
    }

    fn next(&mut self) -> Step<(Event<'t>, Span)> {
        match self.parser.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => {
                let message = format!("{} ends too early", self.name.display());
                Err(Box::new(Problem::new(None, message).hint("is the file cut off?")))
            }
        }
    }

    fn syntax(&self, error: &ScanError) -> Box<Problem> {
        let mut problem = self.problem(*error.marker(), format!("not valid YAML: {}", error.info()));
        problem.hint = Some(
            "check the indentation (blanks, no tabs), and put quotes around values that hold a colon or begin with a special character; \
             nothing from this line on, no secret and no certificate can be checked before that"
                .to_owned(),
        );
        problem
    }

    fn problem(&self, at: Marker, message: impl Into<String>) -> Box<Problem> {
        let problem = Problem::new(self.origin(at, ""), message).hint("correct the file at this line");
        Box::new(Problem { excerpt: Some(self.excerpt(at)), ..problem })
    }

    fn excerpt(&self, at: Marker) -> String {
        excerpt(self.lines.get(at.line().saturating_sub(1)).copied().unwrap_or_default(), at.line(), at.col())
    }

    fn origin(&self, at: Marker, key: &str) -> Origin {
        Origin::File { file: self.name.to_owned(), key: key.to_owned(), line: at.line(), column: at.col() + 1 }
    }
}

/// The line with its key, and nothing of its value: that may be a password or a piece of a key.
pub(crate) fn excerpt(line: &str, number: usize, column: usize) -> String {
    let content = line.trim_start();
    let indent = line.len() - content.len();
    let is_word = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let item = content.strip_prefix("- ").map_or(0, |_| 2);
    let word = content[item..].find(|c| !is_word(c)).unwrap_or(content.len() - item);
    let shown = if word > 0 && content[item + word..].starts_with(':') {
        let end = indent + item + word + 1;
        let rest = if line[end..].trim().is_empty() { "" } else { " …" };
        format!("{}{rest}", &line[..end])
    } else {
        format!("{}…", &line[..indent])
    };
    let gutter = number.to_string().len();
    let mark = " ".repeat(column.min(shown.chars().count()));
    format!("{:gutter$} |\n{number} | {shown}\n{:gutter$} | {mark}^", "", "")
}

/// How many values a node has, and how many bytes of text.
fn size(node: &Node) -> (usize, usize) {
    let add = |(values, bytes): (usize, usize), (more_values, more_bytes): (usize, usize)| {
        (values + more_values, bytes + more_bytes)
    };
    let below = match &node.kind {
        Kind::Null => (0, 0),
        Kind::Text(Text::Written(template)) => (0, template.as_literal().map_or(64, str::len)),
        Kind::Text(Text::Final { value, .. }) => (0, value.expose().len()),
        Kind::List(items) => items.iter().map(size).fold((0, 0), add),
        Kind::Map(entries) => {
            entries.iter().map(|(key, value)| add(size(value), (0, key.name.len()))).fold((0, 0), add)
        }
    };
    add((1, 0), below)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &Path, text: &str) -> Result<Node, ConfigError> {
        let (root, wrong) = super::read(name, text)?;
        if wrong.is_empty() { Ok(root) } else { Err(ConfigError(wrong)) }
    }

    fn fails(text: &str) -> String {
        read(Path::new("spicepod.yaml"), text).unwrap_err().to_string()
    }

    #[test]
    fn every_value_knows_its_place() {
        let root = read(Path::new("spicepod.yaml"), "runtime:\n  tls:\n    enabled: true\n").unwrap();
        let node = root.get(&["runtime", "tls", "enabled"]).unwrap();
        assert_eq!(node.origin.to_string(), "spicepod.yaml: runtime.tls.enabled");
        assert!(matches!(node.origin, Origin::File { line: 3, column: 14, .. }));
    }

    #[test]
    fn errors_show_the_place_and_no_value() {
        let text = fails("runtime:\n  tls:\n    key: hunter2: oops\n");
        assert!(text.starts_with("spicepod.yaml:3:"), "{text}");
        assert!(text.contains("key: …") && !text.contains("hunter2"), "{text}");
        assert!(fails("a: 1\na: 2\n").contains("`a` is here twice"));
        assert!(fails("a: ${secrets:}\n").contains("the KEY after the `:` is empty"));
        assert!(fails("a: 1\n---\nb: 2\n").contains("second document"));
    }

    #[test]
    fn aliases_and_merges_are_followed_and_bounded() {
        let root = read(Path::new("p"), "base: &b { x: 1, y: 2 }\nhere:\n  <<: *b\n  y: 3\n").unwrap();
        assert!(root.get(&["here", "x"]).is_some());
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..9 {
            let p = i - 1;
            bomb += &format!("a{i}: &a{i} [*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p}]\n");
        }
        assert!(fails(&bomb).contains("aliases repeat"));
    }
}

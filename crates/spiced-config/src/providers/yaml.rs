//! A YAML document as figment's [`Value`], with a table of the line and column of each value. Scalars keep their text:
//! `00123` is not a number yet, and `"1.2"` and `1.2` are the same.
//!
//! figment's own `yaml` feature depends on a deprecated crate and has no positions.

use std::collections::HashMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use figment::value::{Dict, Empty, Tag, Value};
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};
use spiced_secrets::Template;
use tls_core::Origin;

use super::{Place, Places, child};
use crate::problem::shown::{is_secret_place, may_be_secret, shown_key};
use crate::problem::{ConfigError, Problem};

/// The maximum number of values in one document, including those that aliases repeat; more is an attack or a mistake.
const MAX_NODES: usize = 100_000;

/// The maximum number of bytes of text that aliases may repeat.
const MAX_REPEATED: usize = 8 * 1024 * 1024;

/// The maximum number of bytes of the paths of all values, including those that aliases repeat: a long key is in the
/// path of every value below it.
const MAX_PATHS: usize = 64 * 1024 * 1024;

/// The maximum nesting depth of values.
const MAX_DEPTH: usize = 64;

/// A document that has been read.
pub(super) struct Document {
    pub(super) root: Value,
    pub(super) places: Places,
    /// Problems after which the rest can still be read: a repeated key, a malformed reference. Their values are
    /// missing.
    pub(super) problems: Vec<Problem>,
}

/// Reads one document. `name` is the file's name in messages.
///
/// # Errors
/// Fails if it is not YAML, or contains several documents; reports also the other problems before that.
pub(super) fn read(name: &Path, text: &str) -> Result<Document, ConfigError> {
    let mut reader = Reader {
        name,
        lines: text.lines().collect(),
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        budget: MAX_NODES,
        repeatable: MAX_REPEATED,
        paths: MAX_PATHS,
        places: Places::default(),
        problems: Vec::new(),
    };
    match reader.document() {
        Ok(root) => Ok(Document { root, places: reader.places, problems: reader.problems }),
        Err(problem) => Err(ConfigError(reader.problems.into_iter().chain([*problem]).collect())),
    }
}

struct Reader<'t> {
    name: &'t Path,
    lines: Vec<&'t str>,
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    /// Each value with an anchor, and its pointer.
    anchors: HashMap<usize, (Value, String)>,
    budget: usize,
    /// The number of bytes that aliases may still repeat.
    repeatable: usize,
    /// The number of bytes that paths may still use.
    paths: usize,
    places: Places,
    problems: Vec<Problem>,
}

type Step<T> = Result<T, Box<Problem>>;

impl<'t> Reader<'t> {
    fn document(&mut self) -> Step<Value> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(_), _) => {}
                (Event::StreamEnd, span) => {
                    self.places.insert(String::new(), self.origin(span.start, ""));
                    return Ok(NULL);
                }
                first => {
                    let root = self.value(first, At::default(), 0)?;
                    return self.end_of_stream(root);
                }
            }
        }
    }

    fn end_of_stream(&mut self, root: Value) -> Step<Value> {
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

    fn value(&mut self, (event, span): (Event<'t>, Span), at: At, depth: usize) -> Step<Value> {
        self.budget = self.budget.checked_sub(1).ok_or_else(|| {
            self.problem(
                span.start,
                format!("the document has more than {MAX_NODES} values, counting what aliases repeat"),
            )
        })?;
        if depth > MAX_DEPTH {
            return Err(self.problem(span.start, format!("values are nested more than {MAX_DEPTH} deep")));
        }
        self.take_paths(at.path.len() + at.pointer.len(), span.start)?;
        let origin = self.origin(span.start, &at.path);
        self.places.insert(at.pointer.clone(), origin.clone());
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                (self.scalar(text.into_owned(), style, &origin, span.start), anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        item => items.push(self.value(item, at.item(items.len()), depth + 1)?),
                    }
                }
                (items.into(), anchor)
            }
            Event::MappingStart(anchor, _) => (self.mapping(&at, depth)?.into(), anchor),
            Event::Alias(anchor) => {
                let Some((value, from)) = self.anchors.get(&anchor) else {
                    return Err(self.problem(span.start, "an alias to itself or to nothing"));
                };
                let (values, bytes) = size(value);
                let left = (self.budget.checked_sub(values), self.repeatable.checked_sub(bytes));
                let (Some(budget), Some(repeatable)) = left else {
                    let message = format!("aliases repeat more than {MAX_NODES} values, or {MAX_REPEATED} bytes");
                    return Err(self.problem(span.start, message));
                };
                (self.budget, self.repeatable) = (budget, repeatable);
                let (value, from) = (value.clone(), from.clone());
                self.take_paths(paths(&value, at.pointer.len()), span.start)?;
                self.places.copy(&from, &at.pointer, &value);
                self.places.insert(at.pointer, origin);
                return Ok(value);
            }
            _ => return Err(self.problem(span.start, "a value is missing here")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), at.pointer));
        }
        Ok(value)
    }

    fn take_paths(&mut self, bytes: usize, at: Marker) -> Step<()> {
        let message = || format!("the paths of all values have more than {MAX_PATHS} bytes: keys are too long");
        self.paths = self.paths.checked_sub(bytes).ok_or_else(|| self.problem(at, message()))?;
        Ok(())
    }

    fn mapping(&mut self, at: &At, depth: usize) -> Step<Dict> {
        let mut entries = Dict::new();
        let mut merged = Vec::new();
        // The place of each key's first occurrence.
        let mut first: HashMap<String, Origin> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            let name = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(self.problem(span.start, "a key has to be a word")),
            };
            // Messages contain the path, so it must not contain a possible secret.
            let shown = shown_key(&at.path, &name).to_owned();
            let name = ours(&at.path, name);
            let mut below = at.key(&shown, &name);
            let twice = first.get(&name).cloned();
            if twice.is_some() {
                // The first occurrence keeps its place.
                below.pointer = child(&below.pointer, "");
            }
            let (key, pointer) = (self.origin(span.start, &below.path), below.pointer.clone());
            let next = self.next()?;
            let value = self.value(next, below, depth + 1)?;
            if name == "<<" {
                merged.push((value, pointer));
            } else if let Some(first) = twice {
                self.problems
                    .push(*self.problem(span.start, format!("the key `{shown}` is here twice; first at {first}")));
            } else {
                if let Some(place) = self.places.nearest(&pointer) {
                    let place = Place { key: key.clone(), value: place.value.clone() };
                    self.places.insert(pointer, place);
                }
                first.insert(name.clone(), key);
                entries.insert(name, value);
            }
        }
        // `<<: *anchor` supplies the keys that are not set here (YAML's merge key).
        let bases = merged.into_iter().flat_map(|(base, pointer)| match base {
            Value::Array(_, bases) => {
                let bases = bases.into_iter().enumerate();
                bases.map(|(index, base)| (base, child(&pointer, &index.to_string()))).collect()
            }
            base => vec![(base, pointer)],
        });
        for (base, pointer) in bases {
            for (name, value) in base.into_dict().unwrap_or_default() {
                let (from, to) = (child(&pointer, &name), child(&at.pointer, &name));
                if let Entry::Vacant(entry) = entries.entry(name) {
                    self.places.copy(&from, &to, &value);
                    entry.insert(value);
                }
            }
        }
        Ok(entries)
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, origin: &Origin, at: Marker) -> Value {
        if style == ScalarStyle::Plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
            return NULL;
        }
        let Err(errors) = Template::parse(&text) else { return text.into() };
        for error in errors {
            // `${` may be a part of a password.
            let key = if let Origin::File { key, .. } = origin { key.as_str() } else { "" };
            let error = if is_secret_place(key) || may_be_secret(&text) { error.unquoted() } else { error };
            let problem = Problem::new(origin.clone(), error.to_string())
                .hint("a reference is ${store:KEY}, such as ${env:NAME} or ${secrets:NAME}");
            self.problems.push(Problem { excerpt: Some(self.excerpt(at)), ..problem });
        }
        NULL
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

/// Returns the line with its key but without its value, which may be a password or a part of a key.
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

const NULL: Value = Value::Empty(Tag::Default, Empty::None);

/// The reader's position: the dotted path as messages show it, and the pointer.
#[derive(Default)]
struct At {
    path: String,
    pointer: String,
}

impl At {
    fn item(&self, index: usize) -> Self {
        Self { path: format!("{}[{index}]", self.path), pointer: child(&self.pointer, &index.to_string()) }
    }

    fn key(&self, shown: &str, name: &str) -> Self {
        let path = if self.path.is_empty() { shown.to_owned() } else { format!("{}.{shown}", self.path) };
        Self { path, pointer: child(&self.pointer, name) }
    }
}

/// Returns the canonical name of a key: `api-key`, as in Spice, is `api_key`.
fn ours(path: &str, name: String) -> String {
    if path == "runtime.auth" && name == "api-key" { "api_key".to_owned() } else { name }
}

/// Returns how many values a value contains, and how many bytes of text.
fn size(value: &Value) -> (usize, usize) {
    let add = |(values, bytes): (usize, usize), (more_values, more_bytes): (usize, usize)| {
        (values + more_values, bytes + more_bytes)
    };
    let below = match value {
        Value::String(_, text) => (0, text.len()),
        Value::Array(_, items) => items.iter().map(size).fold((0, 0), add),
        Value::Dict(_, entries) => {
            entries.iter().map(|(name, value)| add(size(value), (0, name.len()))).fold((0, 0), add)
        }
        _ => (0, 0),
    };
    add((1, 0), below)
}

/// Returns the bytes of the paths of a value and of all values below it.
fn paths(value: &Value, path: usize) -> usize {
    let below: usize = match value {
        Value::Array(_, items) => items.iter().map(|item| paths(item, path + 6)).sum(),
        Value::Dict(_, entries) => entries.iter().map(|(name, value)| paths(value, path + 1 + name.len())).sum(),
        _ => 0,
    };
    path + below
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &Path, text: &str) -> Result<Document, ConfigError> {
        let document = super::read(name, text)?;
        if document.problems.is_empty() { Ok(document) } else { Err(ConfigError(document.problems)) }
    }

    fn fails(text: &str) -> String {
        read(Path::new("spicepod.yaml"), text).err().unwrap().to_string()
    }

    #[test]
    fn every_value_knows_its_place() {
        let document = read(Path::new("spicepod.yaml"), "runtime:\n  tls:\n    enabled: true\n").unwrap();
        assert_eq!(document.root.find_ref("runtime.tls.enabled").unwrap().as_str(), Some("true"));
        let origin = &document.places.nearest("/runtime/tls/enabled").unwrap().value;
        assert_eq!(origin.to_string(), "spicepod.yaml: runtime.tls.enabled");
        assert!(matches!(origin, Origin::File { line: 3, column: 14, .. }));
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
        let Document { root, places, .. } =
            read(Path::new("p"), "base: &b { x: 1, y: 2 }\nhere:\n  <<: *b\n  y: 3\n").unwrap();
        assert!(root.find_ref("here.x").is_some());
        assert_eq!(places.nearest("/here/x").unwrap().key.to_string(), "p: base.x");
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..9 {
            let p = i - 1;
            bomb += &format!("a{i}: &a{i} [*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p}]\n");
        }
        assert!(fails(&bomb).contains("aliases repeat"));
        // A key is in the path of all values below it.
        let key = "k".repeat(100_000);
        let items = "x,".repeat(2_000);
        assert!(fails(&format!("? {key}\n: [{items}]")).contains("keys are too long"));
        assert!(fails(&format!("a: &a [{items}]\n? {key}\n: *a")).contains("keys are too long"));
    }
}

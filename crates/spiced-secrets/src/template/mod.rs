//! The `${store:KEY}` grammar: parses a value into literal text and references.
//!
//! Parsing does not depend on stores. It is a single pass from left to right; the replacement of a reference is never
//! parsed.
//!
//! A run of `$` before a `{` is read in pairs, each a literal `$`: `${` opens a reference, `$${` is a literal `${`,
//! `$$${` is a `$` followed by a reference. A `$` anywhere else is literal.

use std::fmt;

use tls_core::Secret;

/// Returns true if a secret's name looks like the secret itself: it is long, and switches between capitals, small
/// letters and digits as Base64 does and words do not.
fn may_be_key_material(name: &str) -> bool {
    const MIN_LENGTH: usize = 32;
    let class = |byte: u8| match byte {
        b'A'..=b'Z' => 1,
        b'a'..=b'z' => 2,
        b'0'..=b'9' => 4,
        _ => 0,
    };
    let classes: Vec<u8> = name.bytes().map(class).filter(|class| *class != 0).collect();
    let changes = classes.windows(2).filter(|pair| pair[0] != pair[1]).count();
    name.len() >= MIN_LENGTH && classes.iter().fold(0, |all, class| all | class) == 7 && changes * 4 > name.len()
}

/// A malformed reference longer than this, in bytes, is not quoted in the error: it is more likely text that happens to
/// contain a `${` than a reference.
const MAX_QUOTED: usize = 100;

/// A parsed value of the pod file: literal text and references, in order.
///
/// The literal parts may be secret themselves (an inline key, for example), so `Debug` does not show them.
#[derive(Debug, Clone, Default)]
pub struct Template {
    parts: Vec<Part>,
}

/// A part of a [`Template`].
#[derive(Debug, Clone)]
pub enum Part {
    /// Literal text: UTF-8, never empty.
    Literal(Secret),
    /// A reference to a secret.
    Reference(Reference),
}

/// A reference `${store:KEY}`. `Display` writes it as in the pod file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    store: String,
    key: String,
}

impl Reference {
    /// Returns the name of the store as written; `secrets` means every store.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// Returns the key to look up.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${{{}:{}}}", self.store, self.key)
    }
}

impl Template {
    /// Parses a value.
    ///
    /// ```
    /// # use spiced_secrets::Template;
    /// let value = Template::parse("postgres://${env:USER}:${ secrets:PASS }@db/$${x}").unwrap();
    /// assert_eq!(value.references().count(), 2);
    /// ```
    ///
    /// # Errors
    /// Returns every malformed reference, in order. No error contains the text around a reference.
    pub fn parse(text: &str) -> Result<Self, Vec<ReferenceError>> {
        let (mut parts, mut errors) = (Vec::new(), Vec::new());
        let mut literal = String::with_capacity(text.len());
        let mut at = 0;
        while let Some(found) = text[at..].find('$') {
            literal.push_str(&text[at..at + found]);
            at += found;
            let dollars = text[at..].bytes().take_while(|b| *b == b'$').count();
            if !text[at + dollars..].starts_with('{') {
                literal.push_str(&text[at..at + dollars]);
                at += dollars;
                continue;
            }
            literal.extend(std::iter::repeat_n('$', dollars / 2));
            at += dollars;
            if dollars % 2 == 0 {
                literal.push('{');
                at += 1;
                continue;
            }
            let start = at - 1;
            let Some(length) = text[at..].find('}') else {
                errors.push(ReferenceError::new(text, start, None, Malformed::Unclosed));
                at = text.len();
                break;
            };
            let inside = &text[at + 1..at + length];
            match reference(inside) {
                Ok(reference) => {
                    flush(&mut parts, &mut literal);
                    parts.push(Part::Reference(reference));
                }
                Err(what) => errors.push(ReferenceError::new(text, start, Some(inside), what)),
            }
            at += length + 1;
        }
        literal.push_str(&text[at..]);
        flush(&mut parts, &mut literal);
        if errors.is_empty() { Ok(Self { parts }) } else { Err(errors) }
    }

    /// Returns a template whose text is entirely literal, as for values from the command line and the environment.
    pub fn literal(text: impl Into<String>) -> Self {
        let mut parts = Vec::new();
        flush(&mut parts, &mut text.into());
        Self { parts }
    }

    /// Returns the parts, in order. Two literal parts are never adjacent.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Returns the references, in order, including repeated ones.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.parts.iter().filter_map(|part| match part {
            Part::Reference(reference) => Some(reference),
            Part::Literal(_) => None,
        })
    }

    /// Formats the value for display: references as written, literal text as formatted by `literal`.
    pub fn shown(&self, literal: impl Fn(&str) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Literal(text) => literal(text_of(text)),
            Part::Reference(reference) => reference.to_string(),
        };
        self.parts.iter().map(part).collect()
    }

    /// Returns true if the value contains no reference.
    pub fn is_literal(&self) -> bool {
        self.references().next().is_none()
    }

    /// Returns the text of a literal value; `None` if it contains a reference.
    pub fn as_literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text_of(text)),
            _ => None,
        }
    }

    /// Returns the value without `suffix`, if its last part is literal text with that suffix. Replacements of
    /// references do not count: `${env:KEY}:ro` has the suffix `:ro`, but `${env:KEY}` does not, even if the secret's
    /// value ends in `:ro`.
    pub fn strip_suffix(&self, suffix: &str) -> Option<Self> {
        let (Part::Literal(last), before) = self.parts.split_last()? else { return None };
        let mut rest = text_of(last).strip_suffix(suffix)?.to_owned();
        let mut parts = before.to_vec();
        flush(&mut parts, &mut rest);
        Some(Self { parts })
    }

    /// Returns the value with every reference replaced by the result of `lookup`.
    pub fn render(&self, mut lookup: impl FnMut(&Reference) -> Secret) -> Secret {
        let pieces: Vec<Secret> = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Literal(text) => text.clone(),
                Part::Reference(reference) => lookup(reference),
            })
            .collect();
        // Allocate the full size up front, because growing would leave partial copies behind that are not wiped.
        let mut bytes = Vec::with_capacity(pieces.iter().map(|p| p.expose().len()).sum());
        for piece in &pieces {
            bytes.extend_from_slice(piece.expose());
        }
        Secret::new(bytes)
    }
}

/// A malformed reference: its position in the value, and the error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {what}", Place { line: *line, column: *column, quoted: quoted.as_deref() })]
pub struct ReferenceError {
    line: usize,
    column: usize,
    quoted: Option<String>,
    what: Malformed,
}

impl ReferenceError {
    fn new(text: &str, start: usize, inside: Option<&str>, what: Malformed) -> Self {
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        // Quote only text that could be a mistyped reference, never several lines or long text.
        let quoted = inside
            .filter(|_| what != Malformed::Secret)
            .filter(|inside| inside.len() <= MAX_QUOTED && !inside.contains(|c: char| c == '$' || c.is_control()))
            .map(|inside| format!("${{{inside}}}"));
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1, quoted, what }
    }

    /// Removes the quoted text between the braces, for settings that contain secrets: there, `${` may be part of a
    /// secret.
    #[must_use]
    pub fn unquoted(mut self) -> Self {
        self.quoted = None;
        self
    }

    /// Returns the line of the value, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Returns the character in the line, from 1, at which the reference begins.
    pub fn column(&self) -> usize {
        self.column
    }
}

struct Place<'a> {
    line: usize,
    column: usize,
    quoted: Option<&'a str>,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.quoted {
            Some(quoted) => write!(f, "`{quoted}`")?,
            None => f.write_str("the `${`")?,
        }
        match self.line {
            1 => write!(f, " at character {} of the value", self.column),
            line => write!(f, " at line {line}, character {} of the value", self.column),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Malformed {
    #[error("there is no `}}` after it; a reference is `${{store:KEY}}`, and a literal `${{` is written `$${{`")]
    Unclosed,
    #[error("references do not nest; a literal `${{` is written `$${{`")]
    Nested,
    #[error("it names no store; write `${{secrets:KEY}}` or `${{env:KEY}}`, or `$${{` for a literal `${{`")]
    NoStore,
    #[error("the store's name before the `:` is empty; `${{secrets:KEY}}` queries all stores")]
    EmptyStore,
    #[error("the KEY after the `:` is empty")]
    EmptyKey,
    #[error("the store's name may contain letters, digits, `_` and `-` only")]
    StoreCharacter,
    #[error("KEY may contain letters, digits and `_ . + = @ / -` only")]
    KeyCharacter,
    #[error("the text between the braces looks like a secret itself; a reference contains the name of one")]
    Secret,
}

/// Parses the text between the braces.
fn reference(inside: &str) -> Result<Reference, Malformed> {
    const BLANKS: [char; 2] = [' ', '\t'];
    if inside.contains("${") {
        return Err(Malformed::Nested);
    }
    let (store, key) = inside.split_once(':').ok_or(Malformed::NoStore)?;
    let (store, key) = (store.trim_matches(BLANKS), key.trim_matches(BLANKS));
    if store.is_empty() {
        return Err(Malformed::EmptyStore);
    }
    if !is_store_name(store) {
        return Err(Malformed::StoreCharacter);
    }
    if key.is_empty() {
        return Err(Malformed::EmptyKey);
    }
    if may_be_key_material(store) || may_be_key_material(key) {
        return Err(Malformed::Secret);
    }
    if !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.+=@/-".contains(&b)) {
        return Err(Malformed::KeyCharacter);
    }
    Ok(Reference { store: store.to_owned(), key: key.to_owned() })
}

/// Returns true if `name` is a valid store name, which may precede the `:` of a reference.
pub(crate) fn is_store_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod key_material {
    use super::Template;

    #[test]
    fn a_reference_that_is_a_secret_itself_is_refused_and_not_repeated() {
        for text in [
            "${secrets:MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC1uvGuthhvA+GG}",
            "${MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj:x}",
        ] {
            let errors = Template::parse(text).unwrap_err();
            assert!(!errors[0].to_string().contains("MIIE"), "{}", errors[0]);
        }
        for text in
            ["${env:SPICE_API_KEY_READONLY_OF_THE_SECOND_NODE_2026}", "${aws:rdsCredentialsProduction2024Primary}"]
        {
            assert!(Template::parse(text).is_ok(), "{text}");
        }
        let malformed = Template::parse("x${Zq7Canary}").unwrap_err().remove(0);
        assert!(!malformed.unquoted().to_string().contains("Zq7"));
    }
}

fn flush(parts: &mut Vec<Part>, literal: &mut String) {
    if !literal.is_empty() {
        parts.push(Part::Literal(Secret::from(std::mem::take(literal))));
    }
}

fn text_of(literal: &Secret) -> &str {
    literal.expose_text().expect("a literal part is made from a str")
}

#[cfg(test)]
mod tests;

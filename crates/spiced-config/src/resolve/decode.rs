//! Converts effective values to typed values with serde. A value that does not match the schema becomes a [`Problem`]
//! with the place of the value, or of the unknown key.
//!
//! figment's own deserializer repeats values in its errors and supports no units, hints or references.

use std::fmt;

use serde::de::value::{MapDeserializer, StrDeserializer, StringDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use tls_core::Origin;

use crate::problem::shown::{is_secret_place, may_be_secret};
use crate::problem::{Problem, nearest};
use crate::raw::aliases::meant;
use crate::raw::spanned::{MARKER, pack};
use crate::raw::units::{self, Expected};
use crate::resolve::effective::{Effective, Node, Text};

/// The maximum number of problems in one report.
const MAX_PROBLEMS: usize = 50;

/// The maximum number of times that a tree is decoded again without its wrong values.
const MAX_ROUNDS: usize = 100;

/// Converts a value to its type.
pub(crate) fn decode<T: DeserializeOwned>(node: Node<'_>) -> Result<T, Problem> {
    let origin = node.origin();
    T::deserialize(node).map_err(|failure| failure.into_problem(origin))
}

/// Converts the whole tree and reports every problem, not only the first: wrong values are removed, and the rest is
/// decoded again. `damaged` are maps and lists from which something is already missing; missing values there are not
/// reported again. Returns a value even if there are problems, if the rest can be decoded.
pub(crate) fn decode_all<T: DeserializeOwned>(
    tree: &mut Effective<'_>,
    damaged: &mut Vec<Origin>,
) -> (Option<T>, Vec<Problem>) {
    let mut problems = Vec::new();
    // A consequence of another problem is not reported, but costs a round.
    for round in 1.. {
        let failure = match T::deserialize(tree.root()) {
            Ok(value) => return (Some(value), problems),
            Err(failure) => failure,
        };
        let pointer = failure.place.as_ref().map(|(pointer, _)| pointer.clone()).unwrap_or_default();
        let problem = failure.into_problem(tree.root().origin());
        let taken = tree.remove_at(&pointer);
        let follows = problem.origin.as_ref().is_some_and(|origin| damaged.contains(origin));
        if !follows && !problems.contains(&problem) {
            problems.push(problem);
        }
        match taken {
            Some(place) if problems.len() < MAX_PROBLEMS && round < MAX_ROUNDS => damaged.push(place),
            taken => {
                if taken.is_some() && problems.len() >= MAX_PROBLEMS {
                    let message = "there may be more that is wrong: after so much, the rest is not read";
                    problems
                        .push(Problem::new(None, message).hint("correct these first; the others are reported then"));
                }
                return (None, problems);
            }
        }
    }
    (None, problems)
}

/// Returns the problem that serde would report for a key that `T` does not have, for checks before decoding.
pub(crate) fn unknown_key<T: DeserializeOwned>(name: &str, node: &Node<'_>) -> Option<Problem> {
    let nothing_but_the_key = MapDeserializer::<_, Failure>::new([(name, ())].into_iter());
    let failure = T::deserialize(nothing_but_the_key).err().filter(|failure| failure.is_unknown_key)?;
    Some(failure.into_problem(node.key_origin()))
}

/// An error on its way up: it gets its place at the first level that knows it.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    /// The pointer of the value, and the place of the value or its key.
    place: Option<(String, Origin)>,
    is_unknown_key: bool,
}

impl Failure {
    fn new(message: String) -> Self {
        Self { message, hint: None, place: None, is_unknown_key: false }
    }

    fn at(mut self, node: &Node<'_>) -> Self {
        self.place.get_or_insert_with(|| (node.pointer().to_owned(), node.origin()));
        self
    }

    fn at_key(mut self, node: &Node<'_>) -> Self {
        self.place.get_or_insert_with(|| (node.pointer().to_owned(), node.key_origin()));
        self
    }

    fn into_problem(self, outermost: Origin) -> Problem {
        let origin = self.place.map_or(outermost, |(_, origin)| origin);
        // If the place hides the key, the key may be a secret.
        let is_hidden = self.is_unknown_key && matches!(&origin, Origin::File { key, .. } if key.ends_with('…'));
        let message = if is_hidden { "unknown key (not shown: it may be a secret)".to_owned() } else { self.message };
        let hint = self.hint.unwrap_or_else(|| "change the value, or take the key away for its default".to_owned());
        Problem::new(origin, message).hint(hint)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let hint = match (meant(field, expected), nearest(field, expected.iter().copied())) {
            (Some(ours), _) => format!("here it is called `{ours}`: write that instead"),
            (None, Some(like)) => format!("did you mean `{like}`?"),
            (None, None) => format!("known here: {}", expected.join(", ")),
        };
        let message = if may_be_secret(field) { "unknown key".to_owned() } else { format!("unknown key `{field}`") };
        Self { hint: Some(hint), is_unknown_key: true, ..Self::new(message) }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let given = if may_be_secret(variant) { "this".to_owned() } else { format!("`{variant}`") };
        Self::custom(format!("{given} is none of {}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("the key `{field}` is missing"))
    }
}

impl Node<'_> {
    fn shown(&self, wanted: &str) -> Result<Shown, Failure> {
        match self.text() {
            Some(Text::Literal(text)) => Ok(Shown::new(&text, false, &self.origin())),
            Some(Text::Resolved(secret)) => {
                let text = secret.expose_text().map_err(|_| wrong("text that is not UTF-8", wanted))?;
                Ok(Shown::new(text, true, &self.origin()))
            }
            Some(Text::Written(_)) => Err(wrong("a reference that was not replaced", wanted)),
            None if self.is_list() => Err(wrong("a list", wanted)),
            None if self.is_map() => Err(wrong("a map", wanted)),
            None => Err(wrong("nothing", wanted)),
        }
    }

    fn parse<T>(&self, wanted: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Failure> {
        let shown = self.shown(wanted)?;
        parse(shown.text.trim()).ok_or_else(|| Failure {
            hint: quotes(&shown.text).map(|_| UNQUOTE.to_owned()),
            ..Failure::new(format!("takes {wanted}, not {}", shown.given()))
        })
    }
}

/// The fix for quotes in a value.
pub(crate) const UNQUOTE: &str =
    "take the quotes away: `docker --env-file` and Kubernetes keep them as a part of the value, unlike a shell";

/// Returns the quotes around a value, which a shell would have removed.
pub(crate) fn quotes(text: &str) -> Option<&'static str> {
    let text = text.trim();
    let within = |quote: char| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    if within('"') { Some("a double quote") } else { within('\'').then_some("a single quote") }
}

struct Shown {
    text: String,
    /// The text that messages show instead; `None` if the text itself may be shown.
    instead: Option<&'static str>,
}

impl Shown {
    fn new(text: &str, reference: bool, origin: &Origin) -> Self {
        Self { text: text.to_owned(), instead: instead(text, reference, origin) }
    }

    fn given(&self) -> String {
        self.instead.map_or_else(|| format!("`{}`", self.text), str::to_owned)
    }
}

/// Returns the text that a message shows instead of a value. Values of options, variables and embedding programs are
/// never repeated, nor values of references, nor text that looks like a key in the wrong place.
pub(crate) fn instead(text: &str, reference: bool, origin: &Origin) -> Option<&'static str> {
    match origin {
        _ if reference => Some("what the reference gives"),
        Origin::Flag(_) | Origin::Variable(_) | Origin::Program => Some("the value that is given"),
        _ if may_be_secret(text) => Some("what is written there"),
        Origin::File { key, .. } if is_secret_place(key) => Some("what is written there"),
        _ => None,
    }
}

fn wrong(given: &str, wanted: &str) -> Failure {
    Failure::new(format!("takes {wanted}, not {given}"))
}

fn one_value(given: &str) -> Failure {
    let hint = "write one value; text that begins with [ or { stands in quotes";
    Failure { hint: Some(hint.to_owned()), ..wrong(given, "one value") }
}

macro_rules! integers {
    ($($method:ident => $visit:ident: $type:ty,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            visitor.$visit(self.parse("a whole number", |text| text.parse::<$type>().ok())?)
        })*
    };
}

impl<'de> Deserializer<'de> for Node<'_> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if let Some(items) = self.items() {
            visitor.visit_seq(Items(items.into_iter()))
        } else if self.is_map() {
            visitor.visit_map(Entries::of(&self))
        } else if self.is_null() {
            visitor.visit_unit()
        } else {
            let shown = self.shown("text")?;
            let answer = visitor.visit_string::<Failure>(shown.text);
            // A type's error about a value may repeat the value.
            answer.map_err(|e| shown.instead.map_or(e, |instead| wrong(instead, "another kind of text")))
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_bool(self.parse("true or false", boolean)?)
    }

    integers! {
        deserialize_u8 => visit_u8: u8,
        deserialize_u16 => visit_u16: u16,
        deserialize_u32 => visit_u32: u32,
        deserialize_u64 => visit_u64: u64,
        deserialize_i64 => visit_i64: i64,
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Failure> {
        match Expected::ALL.iter().find(|wanted| wanted.marker() == name) {
            Some(Expected::Duration) => {
                visitor.visit_u64(self.parse("a duration, such as 10s, 5m or 250ms", units::duration)?)
            }
            Some(Expected::Size) => {
                visitor.visit_u64(self.parse("a size, such as 16MiB, 2GB or 1048576", units::size)?)
            }
            None => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.is_list() {
            Err(one_value("a list"))
        } else if self.is_map() {
            Err(one_value("keys and values"))
        } else {
            self.deserialize_any(visitor)
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.is_null() {
            return visitor.visit_seq(Items(Vec::new().into_iter()));
        }
        let items = self.items().or_else(|| self.split_at_commas()).ok_or_else(|| wrong("a single value", "a list"))?;
        visitor.visit_seq(Items(items.into_iter()))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.is_map() || self.is_null() {
            visitor.visit_map(Entries::of(&self))
        } else {
            Err(wrong("a single value or a list", "keys and values"))
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if name == MARKER {
            return visitor.visit_seq(SpannedSeed { node: Some(self), given: 0 });
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let shown = self.shown("a word")?;
        let answer = visitor.visit_enum(shown.text.trim().to_owned().into_deserializer());
        answer.map_err(|e: Failure| {
            let one_of = || Failure::new(format!("takes one of {}", variants.join(", ")));
            if shown.instead.is_some() { one_of() } else { e }
        })
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u128 f32 f64 char str bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// Parses YAML 1.2's booleans, and the spellings that are common in environment variables.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

struct Items<'n>(std::vec::IntoIter<Node<'n>>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Some(node) = self.0.next() else { return Ok(None) };
        seed.deserialize(node.clone()).map(Some).map_err(|e| e.at(&node))
    }
}

struct Entries<'n> {
    entries: std::vec::IntoIter<(&'n str, Node<'n>)>,
    value: Option<Node<'n>>,
}

impl<'n> Entries<'n> {
    fn of(node: &Node<'n>) -> Self {
        Self { entries: node.entries().unwrap_or_default().into_iter(), value: None }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        let Some((name, value)) = self.entries.next() else { return Ok(None) };
        let key: StrDeserializer<'_, Failure> = name.into_deserializer();
        let key = seed.deserialize(key).map_err(|e| e.at_key(&value))?;
        self.value = Some(value);
        Ok(Some(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let node = self.value.take().expect("serde asks for a value after its key");
        seed.deserialize(node.clone()).map_err(|e| e.at(&node))
    }
}

/// Passes serde the text as written if it contains references, then its place, then the value.
struct SpannedSeed<'n> {
    node: Option<Node<'n>>,
    given: usize,
}

impl<'de> SeqAccess<'de> for SpannedSeed<'_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Some(node) = &self.node else { return Ok(None) };
        self.given += 1;
        let text = match self.given {
            1 => node.written().unwrap_or_default().to_owned(),
            2 => pack(&node.origin()),
            _ => {
                let node = node.clone();
                self.node = None;
                return seed.deserialize(node.clone()).map(Some).map_err(|e| e.at(&node));
            }
        };
        let text: StringDeserializer<Failure> = text.into_deserializer();
        seed.deserialize(text).map(Some)
    }
}

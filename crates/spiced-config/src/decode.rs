//! From a tree to typed values by serde. What is not as the schema wants it becomes a [`Problem`]
//! with the place of the value, or of the unknown key.

use std::fmt;

use serde::de::value::StringDeserializer;
use serde::de::{
    self, Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use tls_core::{Origin, Secret, Sourced};

use crate::aliases::meant;
use crate::error::{Problem, nearest};
use crate::shown::{is_secret_place, may_be_secret};
use crate::tree::{Key, Kind, Node, Text};
use crate::units;

/// Problems of one report; a person reads no more.
const MAX_PROBLEMS: usize = 50;

/// How often a tree is read again without what is wrong in it.
const MAX_ROUNDS: usize = 100;

/// Gives a tree a type.
pub(crate) fn decode<T: DeserializeOwned>(node: Node) -> Result<T, Problem> {
    let origin = node.origin.clone();
    T::deserialize(Value(node)).map_err(|e| e.into_problem(origin))
}

/// Gives a tree a type and tells every problem, not only the first: what is wrong is taken out, and the rest is read
/// again.
/// `damaged` are maps and lists from which something is missing already; what they lack is no problem of its own. Gives
/// a value also where there are problems, if what is left has one.
pub(crate) fn decode_all<T: DeserializeOwned>(mut root: Node, damaged: &mut Vec<Origin>) -> (Option<T>, Vec<Problem>) {
    let mut problems = Vec::new();
    // What follows from something else is no problem of its own, and costs a reading all the same.
    for round in 1.. {
        let problem = match decode(root.clone()) {
            Ok(value) => return (Some(value), problems),
            Err(problem) => problem,
        };
        let taken = problem.origin.as_ref().and_then(|origin| root.take_at(origin));
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

/// The keys that a type of the schema knows, as serde's derive has them.
pub(crate) fn keys_of<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Ask<'a>(&'a mut &'static [&'static str]);
    impl<'de> Deserializer<'de> for Ask<'_> {
        type Error = Failure;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Failure> {
            Err(de::Error::custom("only structs are asked"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Failure> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
            newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let mut keys: &'static [&'static str] = &[];
    // It only looks; the error is how it stops.
    let _ = T::deserialize(Ask(&mut keys));
    keys
}

/// The problem that serde would find with an unknown key, for who looks before it can.
pub(crate) fn unknown_key(key: &Key, known: &'static [&'static str]) -> Option<Problem> {
    if known.contains(&key.name.as_str()) {
        return None;
    }
    let failure: Failure = de::Error::unknown_field(&key.name, known);
    Some(failure.into_problem(key.origin.clone()))
}

/// A failure on its way up: it gets its place where it is known first.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    origin: Option<Origin>,
    is_unknown_key: bool,
}

impl Failure {
    fn at(mut self, origin: &Origin) -> Self {
        self.origin.get_or_insert_with(|| origin.clone());
        self
    }

    fn into_problem(self, outermost: Origin) -> Problem {
        let origin = self.origin.unwrap_or(outermost);
        // Where the place hides the key, it may be a secret.
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
        Self { message: message.to_string(), hint: None, origin: None, is_unknown_key: false }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let hint = match (meant(field, expected), nearest(field, expected.iter().copied())) {
            (Some(ours), _) => format!("here it is called `{ours}`: write that instead"),
            (None, Some(like)) => format!("did you mean `{like}`?"),
            (None, None) => format!("known here: {}", expected.join(", ")),
        };
        let message = if may_be_secret(field) { "unknown key".to_owned() } else { format!("unknown key `{field}`") };
        Self { message, hint: Some(hint), origin: None, is_unknown_key: true }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let given = if may_be_secret(variant) { "this".to_owned() } else { format!("`{variant}`") };
        Self::custom(format!("{given} is none of {}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("the key `{field}` is missing"))
    }
}

struct Value(Node);

impl Value {
    fn text(&self, wanted: &str) -> Result<Shown, Failure> {
        let shown = match &self.0.kind {
            Kind::Text(Text::Final { value, secret, .. }) => {
                let text = value.expose_text().map_err(|_| wrong("text that is not UTF-8", wanted))?;
                Shown::new(text, *secret, &self.0.origin)
            }
            Kind::Text(Text::Written(template)) => {
                let text = template.as_literal().ok_or_else(|| wrong("a reference that was not replaced", wanted))?;
                Shown::new(text, false, &self.0.origin)
            }
            Kind::Null => return Err(wrong("nothing", wanted)),
            Kind::List(_) => return Err(wrong("a list", wanted)),
            Kind::Map(_) => return Err(wrong("a map", wanted)),
        };
        Ok(shown)
    }

    fn parse<T>(&self, wanted: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Failure> {
        let shown = self.text(wanted)?;
        parse(shown.text.trim()).ok_or_else(|| Failure {
            hint: quotes(&shown.text).map(|_| UNQUOTE.to_owned()),
            ..Failure::custom_hint(format!("takes {wanted}, not {}", shown.given()))
        })
    }
}

/// For who has quotes in a value.
pub(crate) const UNQUOTE: &str =
    "take the quotes away: `docker --env-file` and Kubernetes keep them as a part of the value, unlike a shell";

/// The quotes around a value that a shell would have taken away.
pub(crate) fn quotes(text: &str) -> Option<&'static str> {
    let text = text.trim();
    let within = |quote: char| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    if within('"') { Some("a double quote") } else { within('\'').then_some("a single quote") }
}

struct Shown {
    text: String,
    /// What to say instead of the text in a message; `None` where the text itself may be said.
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

/// What a message says instead of a value: options and variables are never repeated, nor what a reference gives, nor
/// what looks like a key in the wrong place.
pub(crate) fn instead(text: &str, reference: bool, origin: &Origin) -> Option<&'static str> {
    match origin {
        _ if reference => Some("what the reference gives"),
        Origin::Flag(_) | Origin::Variable(_) => Some("the value that is given"),
        _ if may_be_secret(text) => Some("what is written there"),
        Origin::File { key, .. } if is_secret_place(key) => Some("what is written there"),
        _ => None,
    }
}

fn wrong(given: &str, wanted: &str) -> Failure {
    Failure::custom_hint(format!("takes {wanted}, not {given}"))
}

fn one_value(given: &str) -> Failure {
    let hint = "write one value; text that begins with [ or { stands in quotes";
    Failure { hint: Some(hint.to_owned()), ..wrong(given, "one value") }
}

impl Failure {
    fn custom_hint(message: String) -> Self {
        Self { message, hint: None, origin: None, is_unknown_key: false }
    }
}

macro_rules! integers {
    ($($method:ident => $visit:ident: $type:ty,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            visitor.$visit(self.parse("a whole number", |text| text.parse::<$type>().ok())?)
        })*
    };
}

impl<'de> Deserializer<'de> for Value {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.0.kind {
            Kind::Null => visitor.visit_unit(),
            Kind::Text(_) => {
                let shown = self.text("text")?;
                let answer = visitor.visit_string::<Failure>(shown.text);
                // Whatever a type says of a value may repeat it.
                answer.map_err(|e| shown.instead.map_or(e, |instead| wrong(instead, "another kind of text")))
            }
            Kind::List(items) => visitor.visit_seq(Items(items.into_iter())),
            Kind::Map(entries) => visitor.visit_map(Entries { entries: entries.into_iter(), value: None }),
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
        match self.0.kind {
            Kind::List(_) => Err(one_value("a list")),
            Kind::Map(_) => Err(one_value("keys and values")),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.0.kind {
            Kind::Null => visitor.visit_seq(Items(Vec::new().into_iter())),
            Kind::Text(Text::Final { value, list: true, secret }) => {
                let text = value.expose_text().map_err(|_| wrong("text that is not UTF-8", "a list"))?;
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(|item| Node {
                    kind: Kind::Text(Text::Final { value: item.into(), secret: *secret, list: false }),
                    origin: self.0.origin.clone(),
                });
                visitor.visit_seq(Items(items.collect::<Vec<_>>().into_iter()))
            }
            Kind::List(_) => self.deserialize_any(visitor),
            _ => Err(wrong("a single value", "a list")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match &self.0.kind {
            Kind::Null => visitor.visit_map(Entries { entries: Vec::new().into_iter(), value: None }),
            Kind::Map(_) => self.deserialize_any(visitor),
            _ => Err(wrong("a single value or a list", "keys and values")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        if name == PLACED {
            return visitor.visit_seq(SpannedSeed { node: Some(self.0), given: 0 });
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let shown = self.text("a word")?;
        let answer = visitor.visit_enum(shown.text.trim().to_owned().into_deserializer());
        answer.map_err(|e: Failure| {
            let one_of = || Failure::custom_hint(format!("takes one of {}", variants.join(", ")));
            if shown.instead.is_some() { one_of() } else { e }
        })
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u128 f32 f64 char str bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// YAML 1.2's booleans, and what people write in an environment variable.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

struct Items(std::vec::IntoIter<Node>);

impl<'de> SeqAccess<'de> for Items {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Some(node) = self.0.next() else { return Ok(None) };
        let origin = node.origin.clone();
        seed.deserialize(Value(node)).map(Some).map_err(|e| e.at(&origin))
    }
}

struct Entries {
    entries: std::vec::IntoIter<(Key, Node)>,
    value: Option<Node>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        let name: StringDeserializer<Failure> = key.name.into_deserializer();
        seed.deserialize(name).map(Some).map_err(|e| e.at(&key.origin))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let node = self.value.take().expect("serde asks for a value after its key");
        let origin = node.origin.clone();
        seed.deserialize(Value(node)).map_err(|e| e.at(&origin))
    }
}

/// A number that is written with a unit. The text is read here, where it is known whether it may be
/// shown in a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    Duration,
    Size,
}

impl Expected {
    const ALL: [Self; 2] = [Self::Duration, Self::Size];

    fn marker(self) -> &'static str {
        match self {
            Self::Duration => "$spiced::Duration",
            Self::Size => "$spiced::Size",
        }
    }
}

/// Milliseconds or bytes.
pub(crate) fn parsed<'de, D: Deserializer<'de>>(deserializer: D, wanted: Expected) -> Result<u64, D::Error> {
    struct Number;
    impl Visitor<'_> for Number {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number with a unit")
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
            Ok(number)
        }
    }
    deserializer.deserialize_newtype_struct(wanted.marker(), Number)
}

const PLACED: &str = "$spiced::Placed";

/// A typed value with its place: what [`Sourced`] is, made by serde.
#[derive(Debug, Clone)]
pub(crate) struct Spanned<T>(pub(crate) Sourced<T>);

/// Text with its place, and whether a reference gave it: then it is not shown in a message.
#[derive(Debug, Clone)]
pub(crate) struct Templated {
    pub(crate) placed: Spanned<String>,
    pub(crate) reference: bool,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Spanned<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        with_place(deserializer).map(|(sourced, _)| Self(sourced))
    }
}

impl<'de> Deserialize<'de> for Templated {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        with_place(deserializer).map(|(sourced, reference)| Self { placed: Spanned(sourced), reference })
    }
}

/// A value, its place, and whether a reference gave it.
fn with_place<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<(Sourced<T>, bool), D::Error> {
    struct PlaceVisitor<T>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for PlaceVisitor<T> {
        type Value = (Sourced<T>, bool);

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value of this crate's trees")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let gone = || de::Error::custom("a value without a place");
            let (reference, place): (bool, String) =
                (seq.next_element()?.ok_or_else(gone)?, seq.next_element()?.ok_or_else(gone)?);
            let value = seq.next_element()?.ok_or_else(gone)?;
            Ok((Sourced::new(value, unpack(&place).ok_or_else(gone)?), reference))
        }
    }
    deserializer.deserialize_struct(PLACED, &[], PlaceVisitor(std::marker::PhantomData))
}

/// Hands serde whether a reference gave the value, its place, then the value.
struct SpannedSeed {
    node: Option<Node>,
    given: usize,
}

impl<'de> SeqAccess<'de> for SpannedSeed {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        let Some(node) = &self.node else { return Ok(None) };
        self.given += 1;
        match self.given {
            1 => {
                let reference = matches!(node.kind, Kind::Text(Text::Final { secret: true, .. }));
                let flag: serde::de::value::BoolDeserializer<Failure> = reference.into_deserializer();
                seed.deserialize(flag).map(Some)
            }
            2 => {
                let place: StringDeserializer<Failure> = pack(&node.origin).into_deserializer();
                seed.deserialize(place).map(Some)
            }
            _ => {
                let node = self.node.take().expect("taken once");
                let origin = node.origin.clone();
                seed.deserialize(Value(node)).map(Some).map_err(|e| e.at(&origin))
            }
        }
    }
}

/// serde carries no types of ours from a deserializer to a value, but it carries text.
fn pack(origin: &Origin) -> String {
    match origin {
        Origin::Flag(name) => format!("flag\u{1f}{name}"),
        Origin::Variable(name) => format!("variable\u{1f}{name}"),
        Origin::File { file, key, line, column } => {
            format!("file\u{1f}{}\u{1f}{key}\u{1f}{line}\u{1f}{column}", file.display())
        }
        _ => "default".to_owned(),
    }
}

fn unpack(text: &str) -> Option<Origin> {
    let mut parts = text.split('\u{1f}');
    Some(match parts.next()? {
        "flag" => Origin::Flag(parts.next()?.to_owned()),
        "variable" => Origin::Variable(parts.next()?.to_owned()),
        "file" => Origin::File {
            file: parts.next()?.into(),
            key: parts.next()?.to_owned(),
            line: parts.next()?.parse().ok()?,
            column: parts.next()?.parse().ok()?,
        },
        _ => Origin::Default,
    })
}

/// Text that may be a secret.
#[derive(Debug, Clone)]
pub(crate) struct SecretText(pub(crate) Secret);

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::from(text)))
    }
}

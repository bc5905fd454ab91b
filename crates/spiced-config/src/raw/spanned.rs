//! Values with their places, deserialized with serde.
//!
//! serde passes no custom types from a deserializer to a value. A deserializer that encounters a struct named
//! [`MARKER`] returns a sequence: the text as written if it contains references, the packed place, the value.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use spiced_secrets::{SecretValue, Template};
use tls_core::{Origin, Secret, Sourced};

/// The name of the struct that requests a place.
pub(crate) const MARKER: &str = "$spiced::Spanned";

/// A typed value with its place: [`Sourced`], deserialized with serde.
#[derive(Debug, Clone)]
pub(crate) struct Spanned<T>(pub(crate) Sourced<T>);

/// Text with its place, and whether a reference supplied it; if so, messages do not show it.
#[derive(Debug, Clone)]
pub(crate) struct Templated {
    pub(crate) placed: Spanned<String>,
    pub(crate) reference: bool,
}

/// A secret with its place, and its template if it was written with references.
#[derive(Debug, Clone)]
pub(crate) struct SecretInput {
    pub(crate) secret: Sourced<Secret>,
    pub(crate) template: Option<Template>,
}

impl SecretInput {
    /// Returns the secret, which is watched if it was written with references.
    pub(crate) fn value(self) -> Sourced<SecretValue> {
        let Self { secret, template } = self;
        secret.map(|secret| match template {
            Some(template) => SecretValue::resolved(template, secret),
            None => SecretValue::literal(secret),
        })
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Spanned<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        with_place(deserializer).map(|(sourced, _)| Self(sourced))
    }
}

impl<'de> Deserialize<'de> for Templated {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        with_place(deserializer)
            .map(|(sourced, written)| Self { placed: Spanned(sourced), reference: written.is_some() })
    }
}

impl<'de> Deserialize<'de> for SecretInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (secret, written): (Sourced<SecretText>, _) = with_place(deserializer)?;
        let template = written.and_then(|text| Template::parse(&text).ok());
        Ok(Self { secret: secret.map(|SecretText(secret)| secret), template })
    }
}

/// Deserializes a value and its place, and the text as written if it contains references.
fn with_place<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<(Sourced<T>, Option<String>), D::Error> {
    struct PlaceVisitor<T>(std::marker::PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for PlaceVisitor<T> {
        type Value = (Sourced<T>, Option<String>);

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value of this crate's trees")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let gone = || de::Error::custom("a value without a place");
            let (written, place): (String, String) =
                (seq.next_element()?.ok_or_else(gone)?, seq.next_element()?.ok_or_else(gone)?);
            let value = seq.next_element()?.ok_or_else(gone)?;
            let written = (!written.is_empty()).then_some(written);
            Ok((Sourced::new(value, unpack(&place).ok_or_else(gone)?), written))
        }
    }
    deserializer.deserialize_struct(MARKER, &[], PlaceVisitor(std::marker::PhantomData))
}

/// Returns a place as text.
pub(crate) fn pack(origin: &Origin) -> String {
    match origin {
        Origin::Flag(name) => format!("flag\u{1f}{name}"),
        Origin::Variable(name) => format!("variable\u{1f}{name}"),
        Origin::File { file, key, line, column } => {
            format!("file\u{1f}{}\u{1f}{key}\u{1f}{line}\u{1f}{column}", file.display())
        }
        Origin::Program => "program".to_owned(),
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
        "program" => Origin::Program,
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

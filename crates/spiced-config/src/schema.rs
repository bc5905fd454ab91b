//! The JSON Schema of `spicepod.yaml`, derived from the types that read it. Editors use it, and the configuration
//! reference and `config explain` are generated from it.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::raw::spanned::{SecretInput, SecretText, Spanned, Templated};
use crate::raw::spicepod::{self, Spicepod};
use crate::raw::units;
use crate::raw::unsupported_keys::FOREIGN;
use crate::settings::{EndpointKind, Role, TlsVersion};

/// A value that contains a reference, whatever its replacement is.
const REFERENCE: &str = r"\$\{";

/// Returns the JSON Schema (draft 2020-12) of `spicepod.yaml`.
///
/// Each key has its description and, under `default`, the value that applies if it is not set (under `x-unset` in
/// words, if that is not a value). If a number, a boolean or one of several words is expected, text with a
/// `${store:KEY}` reference is accepted too. Keys that Spice.ai supports and this program does not are marked
/// `deprecated`.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut root = settings.into_generator().into_root_schema_for::<Spicepod>().to_value();
    root["title"] = json!("spicepod.yaml");
    root["description"] = json!("The configuration of `spiced`.");
    take_references(&mut root);
    for (path, names) in FOREIGN {
        let mut at = &mut root;
        for step in *path {
            at = if *step == "[]" { &mut at["items"] } else { &mut at["properties"][*step] };
        }
        if let Some(properties) = at["properties"].as_object_mut() {
            for name in *names {
                let description = "A key of Spice.ai that `spiced` ignores, with a warning.";
                properties.entry(*name).or_insert_with(|| json!({ "description": description, "deprecated": true }));
            }
        }
    }
    root
}

/// Allows every scalar below `schema` to be a reference.
fn take_references(schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    for name in ["properties", "items", "additionalProperties"] {
        match schema.get_mut(name) {
            Some(Value::Object(inner)) if name == "properties" => inner.values_mut().for_each(take_references),
            Some(inner) => take_references(inner),
            None => {}
        }
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let scalar = types.iter().any(|t| ["boolean", "integer", "number"].contains(t)) && !types.contains(&"string");
    if !scalar && !schema.contains_key("enum") && !schema.contains_key("oneOf") {
        return;
    }
    let said: Map<String, Value> =
        ["description", "default", "x-unset", "examples"].iter().filter_map(|k| schema.remove_entry(*k)).collect();
    let strict = Value::Object(std::mem::take(schema));
    *schema = said;
    schema.insert("anyOf".to_owned(), json!([strict, { "type": "string", "pattern": REFERENCE }]));
}

/// In the schema, a value has the form that it has without its place.
impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

macro_rules! schemas {
    ($($type:ty: $schema:tt,)*) => {
        $(impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        })*
    };
}

schemas! {
    Templated: { "type": "string" },
    // YAML reads some text as numbers and booleans, a port for example.
    SecretInput: { "type": ["string", "number", "boolean"] },
    SecretText: { "type": ["string", "number", "boolean"] },
    units::Span: { "type": ["string", "integer"], "examples": ["250ms", "10s", "5m"] },
    units::Size: { "type": ["string", "integer"], "examples": ["16MiB", "2GB"] },
    // YAML reads 1.2 as a number and false as a boolean.
    Role: { "type": "string", "enum": ["ro", "rw"] },
    EndpointKind: { "type": "string", "enum": ["http", "flight", "grpc", "metrics"] },
    TlsVersion: { "enum": ["1.2", "1.3", 1.2, 1.3] },
    spicepod::Anonymous: { "enum": ["ro", "rw", "false", false] },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Collects every key of the schema that is not a map of keys itself, with its description.
    fn leaves<'s>(schema: &'s Value, path: &str, found: &mut Vec<(String, &'s Value)>) {
        let Some(properties) = schema["properties"].as_object() else { return };
        for (name, inner) in properties {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let item = if inner["items"]["properties"].is_object() { &inner["items"] } else { inner };
            found.push((path.clone(), inner));
            leaves(item, &path, found);
        }
    }

    #[test]
    fn every_key_says_what_it_is_for() {
        let schema = schema();
        let mut found = Vec::new();
        leaves(&schema, "", &mut found);
        assert!(found.len() > 60, "{}", found.len());
        for (path, inner) in found {
            assert!(inner["description"].is_string(), "{path} has no description: {inner}");
        }
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["properties"]["runtime"]["additionalProperties"], false);
        assert_eq!(schema["properties"]["models"]["deprecated"], true);
    }
}

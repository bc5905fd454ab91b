//! A JSON object as a set of secrets, one per field.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tls_core::Secret;

/// Why a secret has no fields. No variant contains anything of its text.
#[cfg(feature = "aws_secrets_manager")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoFields {
    #[error("it is binary")]
    Binary,
    #[error("it is JSON, but not an object with a field for each key")]
    NotAnObject,
    #[error("it is not JSON")]
    NotJson,
}

/// Returns the fields of `text`, which must be a JSON object.
#[cfg(feature = "aws_secrets_manager")]
pub(super) fn fields_of(text: &str) -> Result<BTreeMap<String, Secret>, NoFields> {
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields_from(fields)),
        Ok(_) => Err(NoFields::NotAnObject),
        Err(_) => Err(NoFields::NotJson),
    }
}

/// Converts each field to a secret: strings as they are, other values as JSON. A `null` field counts as absent.
pub(super) fn fields_from(fields: Map<String, Value>) -> BTreeMap<String, Secret> {
    fields
        .into_iter()
        .filter_map(|(key, value)| match value {
            Value::Null => None,
            Value::String(text) => Some((key, Secret::from(text))),
            other => Some((key, Secret::from(other.to_string()))),
        })
        .collect()
}

#[cfg(all(test, feature = "aws_secrets_manager"))]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let found = fields_of(r#"{"a": "x\ny", "n": 5432, "b": true, "z": null, "o": {"p": [1]}, "e": ""}"#).unwrap();
        let found: Vec<_> = found.iter().map(|(k, v)| (k.as_str(), v.expose_text().unwrap())).collect();
        assert_eq!(found, [("a", "x\ny"), ("b", "true"), ("e", ""), ("n", "5432"), ("o", r#"{"p":[1]}"#)]);
        for (text, why) in
            [("[1]", "it is JSON, but not an object"), ("hunter2", "it is not JSON"), ("", "it is not JSON")]
        {
            let error = fields_of(text).unwrap_err().to_string();
            assert!(error.starts_with(why) && !error.contains("hunter2"), "{error}");
        }
    }
}

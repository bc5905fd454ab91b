//! Conversion of OTLP values to column values: attributes as text, ids in hexadecimal, times in nanoseconds.

use std::fmt::Write;
use std::sync::Arc;

use arrow_schema::{DataType, Field, TimeUnit};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// The attribute that holds the name of the sending service (semantic conventions, "Service").
const SERVICE_NAME: &str = "service.name";

/// Names and values, in the order in which they were sent.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<(String, String)>);

impl Attributes {
    pub(super) fn of(sent: Vec<KeyValue>) -> Self {
        Self(sent.into_iter().map(|KeyValue { key, value, .. }| (key, text(value).unwrap_or_default())).collect())
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|(key, value)| key.len() + value.len()).sum()
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

/// The sender of an export (its OTLP resource).
#[derive(Debug, Default)]
pub(super) struct Sender {
    service_name: Option<String>,
    attributes: Attributes,
}

impl Sender {
    pub(super) fn of(resource: Option<Resource>) -> Arc<Self> {
        let attributes = resource.map(|resource| Attributes::of(resource.attributes)).unwrap_or_default();
        let service = attributes.0.iter().find(|(key, _)| key == SERVICE_NAME);
        Arc::new(Self { service_name: service.map(|(_, name)| name.clone()), attributes })
    }
}

/// The instrumentation scope: the part of the sender that produced the data.
#[derive(Debug, Default)]
pub(super) struct Scope {
    name: Option<String>,
    version: Option<String>,
    attributes: Attributes,
}

impl Scope {
    pub(super) fn of(scope: Option<InstrumentationScope>) -> Arc<Self> {
        let InstrumentationScope { name, version, attributes, .. } = scope.unwrap_or_default();
        Arc::new(Self { name: present(name), version: present(version), attributes: Attributes::of(attributes) })
    }
}

/// The values that all rows of one sender and scope share.
#[derive(Debug, Clone, Default)]
pub(super) struct Whence {
    sender: Arc<Sender>,
    scope: Arc<Scope>,
}

impl Whence {
    pub(super) fn new(sender: &Arc<Sender>, scope: Option<InstrumentationScope>) -> Self {
        Self { sender: sender.clone(), scope: Scope::of(scope) }
    }

    /// Returns the size of these values in each row, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.sender.attributes.bytes() + self.scope.attributes.bytes()
    }

    /// Returns the columns of these values.
    pub(super) fn fields() -> [Field; 5] {
        [
            text_field("service_name"),
            attributes_field("resource_attributes"),
            text_field("scope_name"),
            text_field("scope_version"),
            attributes_field("scope_attributes"),
        ]
    }
}

// Implemented by hand, because serde's `flatten` would serialize the whole row as a map.
impl Serialize for Whence {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("service_name", &self.sender.service_name)?;
        map.serialize_entry("resource_attributes", &self.sender.attributes)?;
        map.serialize_entry("scope_name", &self.scope.name)?;
        map.serialize_entry("scope_version", &self.scope.version)?;
        map.serialize_entry("scope_attributes", &self.scope.attributes)?;
        map.end()
    }
}

/// Returns a value as text (OpenTelemetry, "Mapping arbitrary data", for protocols that support only strings), or
/// `None` if the value is empty.
pub(super) fn text(value: Option<AnyValue>) -> Option<String> {
    Some(match value?.value? {
        Value::StringValue(text) => text,
        Value::BytesValue(bytes) => BASE64_STANDARD.encode(bytes),
        other => json(other).to_string(),
    })
}

/// Returns a value as JSON, the text form of lists and maps.
fn json(value: Value) -> serde_json::Value {
    let inner = |value: Option<AnyValue>| value.and_then(|value| value.value).map_or(serde_json::Value::Null, json);
    match value {
        Value::StringValue(text) => text.into(),
        Value::BoolValue(flag) => flag.into(),
        Value::IntValue(number) => number.into(),
        // JSON can express neither NaN nor infinity.
        Value::DoubleValue(number) if !number.is_finite() => number.to_string().into(),
        Value::DoubleValue(number) => number.into(),
        Value::BytesValue(bytes) => BASE64_STANDARD.encode(bytes).into(),
        Value::ArrayValue(list) => list.values.into_iter().map(|value| inner(Some(value))).collect(),
        Value::KvlistValue(map) => map.values.into_iter().map(|entry| (entry.key, inner(entry.value))).collect(),
        // This is an index into a string table, which only profiles have.
        Value::StringValueStrindex(_) => serde_json::Value::Null,
    }
}

/// Returns the id of a trace or span in hexadecimal, or `None` if it is missing.
pub(super) fn hex(id: &[u8]) -> Option<String> {
    if id.iter().all(|byte| *byte == 0) {
        return None;
    }
    Some(id.iter().fold(String::with_capacity(id.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}

/// Returns a time, or `None` for 0, which means unknown in OTLP.
pub(super) fn time(unix_nano: u64) -> Option<i64> {
    i64::try_from(unix_nano).ok().filter(|time| *time > 0)
}

/// Returns `None` for empty text, which is how protobuf encodes absent text.
pub(super) fn present(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

pub(super) fn text_field(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

pub(super) fn time_field(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())), true)
}

pub(super) fn attributes_field(name: &str) -> Field {
    let (key, value) = (Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, true));
    Field::new_map(name, "entries", key, value, false, true)
}

pub(super) fn list_field(name: &str, item: DataType) -> Field {
    Field::new_list(name, Field::new_list_field(item, true), true)
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};

    use super::*;

    fn any(value: Value) -> AnyValue {
        AnyValue { value: Some(value) }
    }

    #[test]
    fn values_as_text() {
        let list = Value::ArrayValue(ArrayValue { values: vec![any(Value::IntValue(1)), AnyValue { value: None }] });
        let entry = KeyValue { key: "k".into(), value: Some(any(Value::DoubleValue(f64::NAN))), ..KeyValue::default() };
        let cases = [
            (Value::StringValue("a \"b\"".into()), "a \"b\""),
            (Value::BoolValue(true), "true"),
            (Value::IntValue(i64::MIN), "-9223372036854775808"),
            (Value::DoubleValue(0.5), "0.5"),
            (Value::BytesValue(vec![1, 2, 3]), "AQID"),
            (list, "[1,null]"),
            (Value::KvlistValue(KeyValueList { values: vec![entry] }), r#"{"k":"NaN"}"#),
        ];
        for (value, expected) in cases {
            assert_eq!(text(Some(any(value))).as_deref(), Some(expected));
        }
        assert_eq!(text(Some(AnyValue { value: None })), None);
    }

    #[test]
    fn what_is_not_known_is_nothing() {
        assert_eq!((hex(&[]), hex(&[0; 16]), hex(&[1, 0xab])), (None, None, Some("01ab".to_owned())));
        assert_eq!((time(0), time(7), time(u64::MAX)), (None, Some(7), None));
    }
}

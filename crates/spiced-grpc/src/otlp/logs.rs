//! Log records.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs};
use serde::Serialize;
use tonic::Status;

use super::rows::Rows;
use super::values::{Attributes, Sender, Whence, attributes_field, hex, present, text, text_field, time, time_field};

/// A log record as a row of the table.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    time: Option<i64>,
    observed_time: Option<i64>,
    severity_number: Option<i32>,
    severity_text: Option<String>,
    event_name: Option<String>,
    body: Option<String>,
    attributes: Attributes,
    trace_id: Option<String>,
    span_id: Option<String>,
    flags: u32,
    #[serde(flatten)]
    whence: Whence,
}

/// The schema of the table.
pub(super) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let own = [
        time_field("time"),
        time_field("observed_time"),
        Field::new("severity_number", DataType::Int32, true),
        text_field("severity_text"),
        text_field("event_name"),
        text_field("body"),
        attributes_field("attributes"),
        text_field("trace_id"),
        text_field("span_id"),
        Field::new("flags", DataType::UInt32, false),
    ];
    Arc::new(Schema::new(own.into_iter().chain(Whence::fields()).collect::<Vec<_>>()))
});

pub(super) fn rows(sent: Vec<ResourceLogs>) -> Result<Rows<Row>, Status> {
    let mut rows = Rows::none();
    for resource in sent {
        let sender = Sender::of(resource.resource);
        for scope in resource.scope_logs {
            let whence = Whence::new(&sender, scope.scope);
            for record in scope.log_records {
                rows.push(Row::of(record, whence.clone()), whence.bytes())?;
            }
        }
    }
    Ok(rows)
}

impl Row {
    fn of(record: LogRecord, whence: Whence) -> Self {
        let observed_time = time(record.observed_time_unix_nano);
        Self {
            // "Use Timestamp if it is present, otherwise use ObservedTimestamp" (logs data model).
            time: time(record.time_unix_nano).or(observed_time),
            observed_time,
            severity_number: Some(record.severity_number).filter(|number| *number != 0),
            severity_text: present(record.severity_text),
            event_name: present(record.event_name),
            body: text(record.body),
            attributes: Attributes::of(record.attributes),
            trace_id: hex(&record.trace_id),
            span_id: hex(&record.span_id),
            flags: record.flags,
            whence,
        }
    }
}

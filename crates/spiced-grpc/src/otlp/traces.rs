//! Spans.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use serde::Serialize;
use tonic::Status;

use super::rows::Rows;
use super::values::{
    Attributes, Sender, Whence, attributes_field, hex, list_field, present, text_field, time, time_field,
};

/// A span as a row of the table.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    start_time: Option<i64>,
    end_time: Option<i64>,
    duration_ms: Option<f64>,
    trace_id: Option<String>,
    span_id: Option<String>,
    parent_span_id: Option<String>,
    trace_state: Option<String>,
    name: String,
    kind: Option<&'static str>,
    status: &'static str,
    status_message: Option<String>,
    attributes: Attributes,
    events: Vec<EventRow>,
    links: Vec<LinkRow>,
    flags: u32,
    #[serde(flatten)]
    whence: Whence,
}

/// An event of a span.
#[derive(Debug, Serialize)]
struct EventRow {
    time: Option<i64>,
    name: String,
    attributes: Attributes,
}

/// A link from a span to another one.
#[derive(Debug, Serialize)]
struct LinkRow {
    trace_id: Option<String>,
    span_id: Option<String>,
    trace_state: Option<String>,
    attributes: Attributes,
}

/// The schema of the table.
pub(super) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let event = vec![time_field("time"), text_field("name"), attributes_field("attributes")];
    let link =
        vec![text_field("trace_id"), text_field("span_id"), text_field("trace_state"), attributes_field("attributes")];
    let own = [
        time_field("start_time"),
        time_field("end_time"),
        Field::new("duration_ms", DataType::Float64, true),
        text_field("trace_id"),
        text_field("span_id"),
        text_field("parent_span_id"),
        text_field("trace_state"),
        text_field("name"),
        text_field("kind"),
        text_field("status"),
        text_field("status_message"),
        attributes_field("attributes"),
        list_field("events", DataType::Struct(event.into())),
        list_field("links", DataType::Struct(link.into())),
        Field::new("flags", DataType::UInt32, false),
    ];
    Arc::new(Schema::new(own.into_iter().chain(Whence::fields()).collect::<Vec<_>>()))
});

pub(super) fn rows(sent: Vec<ResourceSpans>) -> Result<Rows<Row>, Status> {
    let mut rows = Rows::none();
    for resource in sent {
        let sender = Sender::of(resource.resource);
        for scope in resource.scope_spans {
            let whence = Whence::new(&sender, scope.scope);
            for span in scope.spans {
                rows.push(Row::of(span, whence.clone()), whence.bytes())?;
            }
        }
    }
    Ok(rows)
}

impl Row {
    fn of(span: Span, whence: Whence) -> Self {
        let (start, end) = (time(span.start_time_unix_nano), time(span.end_time_unix_nano));
        let kind = match span.kind() {
            SpanKind::Unspecified => None,
            SpanKind::Internal => Some("internal"),
            SpanKind::Server => Some("server"),
            SpanKind::Client => Some("client"),
            SpanKind::Producer => Some("producer"),
            SpanKind::Consumer => Some("consumer"),
        };
        let status = span.status.unwrap_or_default();
        Self {
            start_time: start,
            end_time: end,
            duration_ms: start.zip(end).map(|(start, end)| (end - start) as f64 / 1e6),
            trace_id: hex(&span.trace_id),
            span_id: hex(&span.span_id),
            parent_span_id: hex(&span.parent_span_id),
            trace_state: present(span.trace_state),
            name: span.name,
            kind,
            status: match status.code() {
                StatusCode::Unset => "unset",
                StatusCode::Ok => "ok",
                StatusCode::Error => "error",
            },
            status_message: present(status.message),
            attributes: Attributes::of(span.attributes),
            events: span.events.into_iter().map(EventRow::of).collect(),
            links: span.links.into_iter().map(LinkRow::of).collect(),
            flags: span.flags,
            whence,
        }
    }
}

impl EventRow {
    fn of(event: Event) -> Self {
        Self { time: time(event.time_unix_nano), name: event.name, attributes: Attributes::of(event.attributes) }
    }
}

impl LinkRow {
    fn of(link: Link) -> Self {
        Self {
            trace_id: hex(&link.trace_id),
            span_id: hex(&link.span_id),
            trace_state: present(link.trace_state),
            attributes: Attributes::of(link.attributes),
        }
    }
}

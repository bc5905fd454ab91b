//! Metric points: one row for each point of any kind, with nulls in the columns of other kinds.

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, SummaryDataPoint, exemplar, number_data_point,
};
use serde::Serialize;
use tonic::Status;

use super::rows::Rows;
use super::values::{
    Attributes, Sender, Whence, attributes_field, hex, list_field, present, text_field, time, time_field,
};

/// A point as a row of the table.
#[derive(Debug, Default, Serialize)]
pub(super) struct Row {
    time: Option<i64>,
    start_time: Option<i64>,
    name: String,
    description: Option<String>,
    unit: Option<String>,
    kind: &'static str,
    temporality: Option<&'static str>,
    monotonic: Option<bool>,
    attributes: Attributes,
    value: Option<f64>,
    int_value: Option<i64>,
    count: Option<u64>,
    sum: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
    bucket_counts: Option<Vec<u64>>,
    explicit_bounds: Option<Vec<f64>>,
    scale: Option<i32>,
    zero_count: Option<u64>,
    zero_threshold: Option<f64>,
    positive_offset: Option<i32>,
    positive_bucket_counts: Option<Vec<u64>>,
    negative_offset: Option<i32>,
    negative_bucket_counts: Option<Vec<u64>>,
    quantiles: Option<Vec<Quantile>>,
    exemplars: Vec<ExemplarRow>,
    flags: u32,
    #[serde(flatten)]
    whence: Whence,
}

#[derive(Debug, Serialize)]
struct Quantile {
    quantile: f64,
    value: f64,
}

/// An individual measurement that contributed to a point.
#[derive(Debug, Serialize)]
struct ExemplarRow {
    time: Option<i64>,
    value: Option<f64>,
    trace_id: Option<String>,
    span_id: Option<String>,
    attributes: Attributes,
}

/// The schema of the table.
pub(super) static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let nullable = |name: &str, data_type| Field::new(name, data_type, true);
    let quantile = vec![nullable("quantile", DataType::Float64), nullable("value", DataType::Float64)];
    let exemplar = vec![
        time_field("time"),
        nullable("value", DataType::Float64),
        text_field("trace_id"),
        text_field("span_id"),
        attributes_field("attributes"),
    ];
    let own = [
        time_field("time"),
        time_field("start_time"),
        text_field("name"),
        text_field("description"),
        text_field("unit"),
        text_field("kind"),
        text_field("temporality"),
        nullable("monotonic", DataType::Boolean),
        attributes_field("attributes"),
        nullable("value", DataType::Float64),
        nullable("int_value", DataType::Int64),
        nullable("count", DataType::UInt64),
        nullable("sum", DataType::Float64),
        nullable("min", DataType::Float64),
        nullable("max", DataType::Float64),
        list_field("bucket_counts", DataType::UInt64),
        list_field("explicit_bounds", DataType::Float64),
        nullable("scale", DataType::Int32),
        nullable("zero_count", DataType::UInt64),
        nullable("zero_threshold", DataType::Float64),
        nullable("positive_offset", DataType::Int32),
        list_field("positive_bucket_counts", DataType::UInt64),
        nullable("negative_offset", DataType::Int32),
        list_field("negative_bucket_counts", DataType::UInt64),
        list_field("quantiles", DataType::Struct(quantile.into())),
        list_field("exemplars", DataType::Struct(exemplar.into())),
        Field::new("flags", DataType::UInt32, false),
    ];
    Arc::new(Schema::new(own.into_iter().chain(Whence::fields()).collect::<Vec<_>>()))
});

pub(super) fn rows(sent: Vec<ResourceMetrics>) -> Result<Rows<Row>, Status> {
    let mut rows = Rows::none();
    for resource in sent {
        let sender = Sender::of(resource.resource);
        for scope in resource.scope_metrics {
            let whence = Whence::new(&sender, scope.scope);
            for metric in scope.metrics {
                points(metric, &whence, &mut rows)?;
            }
        }
    }
    Ok(rows)
}

/// Adds the points of a metric.
fn points(metric: Metric, whence: &Whence, rows: &mut Rows<Row>) -> Result<(), Status> {
    let Metric { name, description, unit, data, .. } = metric;
    let bytes = whence.bytes() + name.len() + description.len() + unit.len();
    let (description, unit) = (present(description), present(unit));
    let mut push = |kind, temporality: Option<AggregationTemporality>, monotonic, point: Row| {
        let (name, description, unit) = (name.clone(), description.clone(), unit.clone());
        let temporality = temporality.and_then(named);
        let whence = whence.clone();
        rows.push(Row { name, description, unit, kind, temporality, monotonic, whence, ..point }, bytes)
    };
    match data {
        // A metric without points is ignored.
        None => Ok(()),
        Some(Data::Gauge(gauge)) => {
            gauge.data_points.into_iter().try_for_each(|point| push("gauge", None, None, number(point)))
        }
        Some(Data::Sum(sum)) => {
            let (temporality, monotonic) = (Some(sum.aggregation_temporality()), Some(sum.is_monotonic));
            sum.data_points.into_iter().try_for_each(|point| push("sum", temporality, monotonic, number(point)))
        }
        Some(Data::Histogram(all)) => {
            let temporality = Some(all.aggregation_temporality());
            all.data_points.into_iter().try_for_each(|point| push("histogram", temporality, None, histogram(point)))
        }
        Some(Data::ExponentialHistogram(all)) => {
            let temporality = Some(all.aggregation_temporality());
            let mut push = |point| push("exponential_histogram", temporality, None, exponential(point));
            all.data_points.into_iter().try_for_each(&mut push)
        }
        Some(Data::Summary(all)) => {
            all.data_points.into_iter().try_for_each(|point| push("summary", None, None, summary(point)))
        }
    }
}

fn named(temporality: AggregationTemporality) -> Option<&'static str> {
    match temporality {
        AggregationTemporality::Unspecified => None,
        AggregationTemporality::Delta => Some("delta"),
        AggregationTemporality::Cumulative => Some("cumulative"),
    }
}

fn number(point: NumberDataPoint) -> Row {
    let (value, int_value) = match point.value {
        None => (None, None),
        Some(number_data_point::Value::AsDouble(value)) => (Some(value), None),
        Some(number_data_point::Value::AsInt(value)) => (Some(value as f64), Some(value)),
    };
    Row {
        time: time(point.time_unix_nano),
        start_time: time(point.start_time_unix_nano),
        attributes: Attributes::of(point.attributes),
        value,
        int_value,
        exemplars: exemplars(point.exemplars),
        flags: point.flags,
        ..Row::default()
    }
}

fn histogram(point: HistogramDataPoint) -> Row {
    Row {
        time: time(point.time_unix_nano),
        start_time: time(point.start_time_unix_nano),
        attributes: Attributes::of(point.attributes),
        count: Some(point.count),
        sum: point.sum,
        min: point.min,
        max: point.max,
        bucket_counts: Some(point.bucket_counts),
        explicit_bounds: Some(point.explicit_bounds),
        exemplars: exemplars(point.exemplars),
        flags: point.flags,
        ..Row::default()
    }
}

fn exponential(point: ExponentialHistogramDataPoint) -> Row {
    let buckets = |buckets: Option<Buckets>| buckets.map(|b| (b.offset, b.bucket_counts)).unzip();
    let (positive_offset, positive_bucket_counts) = buckets(point.positive);
    let (negative_offset, negative_bucket_counts) = buckets(point.negative);
    Row {
        time: time(point.time_unix_nano),
        start_time: time(point.start_time_unix_nano),
        attributes: Attributes::of(point.attributes),
        count: Some(point.count),
        sum: point.sum,
        min: point.min,
        max: point.max,
        scale: Some(point.scale),
        zero_count: Some(point.zero_count),
        zero_threshold: Some(point.zero_threshold),
        positive_offset,
        positive_bucket_counts,
        negative_offset,
        negative_bucket_counts,
        exemplars: exemplars(point.exemplars),
        flags: point.flags,
        ..Row::default()
    }
}

fn summary(point: SummaryDataPoint) -> Row {
    let quantiles = point.quantile_values.into_iter().map(|at| Quantile { quantile: at.quantile, value: at.value });
    Row {
        time: time(point.time_unix_nano),
        start_time: time(point.start_time_unix_nano),
        attributes: Attributes::of(point.attributes),
        count: Some(point.count),
        sum: Some(point.sum),
        quantiles: Some(quantiles.collect()),
        flags: point.flags,
        ..Row::default()
    }
}

fn exemplars(sent: Vec<Exemplar>) -> Vec<ExemplarRow> {
    let row = |exemplar: Exemplar| ExemplarRow {
        time: time(exemplar.time_unix_nano),
        value: exemplar.value.map(|value| match value {
            exemplar::Value::AsDouble(value) => value,
            exemplar::Value::AsInt(value) => value as f64,
        }),
        trace_id: hex(&exemplar.trace_id),
        span_id: hex(&exemplar.span_id),
        attributes: Attributes::of(exemplar.filtered_attributes),
    };
    sent.into_iter().map(row).collect()
}

//! The system table `runtime.tls`: a row for each certificate of each endpoint.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use datafusion::arrow::array::builder::{ListBuilder, StringBuilder};
use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, StringArray, TimestampSecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use tls_core::Identity;
use tls_core::rotation::{Identities, Served};

use super::system_table::SystemTable;

/// Returns the table `runtime.tls` for `endpoints`, each of which presents `identities`. Without identities it has no
/// rows.
pub fn tls(endpoints: Vec<&'static str>, identities: Option<Identities>) -> SystemTable {
    let schema = schema();
    SystemTable::new("tls", schema.clone(), move |_| {
        let served = identities.as_ref().map(Identities::served);
        rows(&schema, &endpoints, served.as_ref())
    })
}

fn schema() -> SchemaRef {
    let time = || DataType::Timestamp(TimeUnit::Second, Some("UTC".into()));
    let names = DataType::new_list(DataType::Utf8, true);
    Arc::new(Schema::new(vec![
        Field::new("endpoint", DataType::Utf8, false),
        Field::new("is_default", DataType::Boolean, false),
        Field::new("subject", DataType::Utf8, false),
        Field::new("names", names, false),
        Field::new("issuer", DataType::Utf8, false),
        Field::new("fingerprint", DataType::Utf8, false),
        Field::new("not_before", time(), false),
        Field::new("not_after", time(), false),
        Field::new("health", DataType::Utf8, false),
        Field::new("origin", DataType::Utf8, false),
        Field::new("key_origin", DataType::Utf8, false),
        Field::new("last_swap", time(), false),
        Field::new("last_rejection", time(), true),
        Field::new("rejection_reason", DataType::Utf8, true),
    ]))
}

fn rows(schema: &SchemaRef, endpoints: &[&'static str], served: Option<&Served>) -> RecordBatch {
    let certificates: Vec<(usize, &Arc<Identity>)> =
        served.iter().flat_map(|served| served.identities.iter()).enumerate().collect();
    let each: Vec<(&str, usize, &Identity)> = endpoints
        .iter()
        .flat_map(|endpoint| certificates.iter().map(move |(at, identity)| (*endpoint, *at, identity.as_ref())))
        .collect();
    let text = |value: fn(&Identity) -> String| -> ArrayRef {
        Arc::new(each.iter().map(|(_, _, identity)| Some(value(identity))).collect::<StringArray>())
    };
    let times =
        |values: Vec<Option<i64>>| -> ArrayRef { Arc::new(TimestampSecondArray::from(values).with_timezone("UTC")) };
    let time = |value: fn(&Identity) -> i64| times(each.iter().map(|(.., identity)| Some(value(identity))).collect());
    let rejection = served.and_then(|served| served.rejection.as_ref());
    let mut names = ListBuilder::new(StringBuilder::new());
    for (.., identity) in &each {
        names.append_value(identity.leaf().names.iter().map(Some));
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(each.iter().map(|(endpoint, ..)| Some(*endpoint)).collect::<StringArray>()),
        Arc::new(each.iter().map(|(_, at, _)| Some(*at == 0)).collect::<BooleanArray>()),
        text(|identity| identity.leaf().subject.clone()),
        Arc::new(names.finish()),
        text(|identity| identity.leaf().issuer.clone()),
        text(|identity| identity.leaf().fingerprint.clone()),
        time(|identity| identity.leaf().not_before),
        time(|identity| identity.leaf().not_after),
        text(|identity| identity.leaf().validity(SystemTime::now()).name().to_owned()),
        text(|identity| identity.certificate_origin().to_string()),
        text(|identity| identity.key_origin().to_string()),
        time(|identity| seconds(identity.paired_at())),
        times(vec![rejection.map(|rejection| seconds(rejection.at)); each.len()]),
        Arc::new(
            vec![rejection.map(|rejection| rejection.reason.clone()); each.len()].into_iter().collect::<StringArray>(),
        ),
    ];
    RecordBatch::try_new(schema.clone(), columns).expect("the columns are those of the schema")
}

fn seconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

//! Statements: text to rows, updates, schemas, errors, and the caller's role.

use crate::toy::{Client, Flight, Toy, fetch, refused, texts, values};
use arrow_flight::sql::{CommandStatementQuery, ProstMessageExt};
use arrow_flight::{FlightDescriptor, FlightInfo};
use arrow_schema::{DataType, Schema};
use bytes::Bytes;
use futures::TryStreamExt;
use prost::Message;
use spiced_engine::Role;
use spiced_flight::FlightOptions;
use tonic::Code;

async fn info(client: &mut Client, descriptor: FlightDescriptor) -> FlightInfo {
    client.inner_mut().get_flight_info(descriptor).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_statement_becomes_rows() {
    let mut client = Toy::default().client();
    let info = client.execute("SELECT 7".into(), None).await.unwrap();
    assert_eq!((info.total_records, info.total_bytes, info.ordered), (-1, -1, true));
    assert_eq!(info.clone().try_decode_schema().unwrap().field(0).name(), "n");
    assert_eq!(values(&fetch(&mut client, info).await.unwrap()), [7]);
}

#[tokio::test]
async fn bare_sql_is_a_command_too() {
    let mut client = Toy::default().client();
    let descriptor = FlightDescriptor::new_cmd("SELECT 8");
    let info = info(&mut client, descriptor.clone()).await;
    assert_eq!(info.flight_descriptor, Some(descriptor));
    assert_eq!(values(&fetch(&mut client, info).await.unwrap()), [8]);
}

#[tokio::test]
async fn a_poll_is_complete_at_once() {
    let mut client = Toy::default().client();
    let poll = client.inner_mut().poll_flight_info(FlightDescriptor::new_cmd("SELECT 9")).await.unwrap().into_inner();
    assert_eq!((poll.progress, poll.flight_descriptor), (Some(1.0), None), "no descriptor: nothing is left to poll");
    assert_eq!(values(&fetch(&mut client, poll.info.unwrap()).await.unwrap()), [9]);
}

#[tokio::test]
async fn get_schema_is_what_the_rows_have() {
    let mut client = Toy::default().client();
    let query = CommandStatementQuery { query: "DICT".into(), transaction_id: None }.as_any().encode_to_vec();
    for command in [Bytes::from("DICT"), query.into()] {
        let descriptor = FlightDescriptor::new_cmd(command);
        let schema = client.inner_mut().get_schema(descriptor.clone()).await.unwrap().into_inner();
        let schema = Schema::try_from(schema).unwrap();
        let info = info(&mut client, descriptor).await;
        assert_eq!(info.clone().try_decode_schema().unwrap(), schema);
        assert_eq!(*schema.field(0).data_type(), DataType::Utf8, "dictionaries are sent as plain values");
        let batches = fetch(&mut client, info).await.unwrap();
        assert_eq!(*batches[0].schema(), schema);
        assert_eq!(texts(&batches, 0), ["a", "b", "a"]);
    }
}

#[tokio::test]
async fn an_empty_answer_has_its_schema() {
    let mut client = Toy::default().client();
    let info = client.execute("ROWS 0".into(), None).await.unwrap();
    let mut rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert!(rows.try_next().await.unwrap().is_none());
    assert_eq!(rows.schema().unwrap().field(0).name(), "n");
}

#[tokio::test]
async fn updates_count() {
    let mut client = Toy::default().client();
    for (sql, count) in [("ADD 4", 5), ("CREATE", 0), ("SET", 0), ("SELECT 1", -1)] {
        assert_eq!(client.execute_update(sql.into(), None).await.unwrap(), count, "{sql}");
    }
}

#[tokio::test]
async fn an_update_answers_before_the_client_has_ended_its_side() {
    use arrow_flight::sql::{CommandStatementUpdate, DoPutUpdateResult};
    let mut client = Toy::default().client();
    let update = CommandStatementUpdate { query: "ADD 1".into(), transaction_id: None };
    let descriptor = FlightDescriptor::new_cmd(update.as_any().encode_to_vec());
    let (sender, messages) = futures::channel::mpsc::unbounded();
    sender.unbounded_send(arrow_flight::FlightData::new().with_descriptor(descriptor)).unwrap();
    let mut results = client.do_put(messages).await.unwrap();
    let result = results.message().await.unwrap().unwrap();
    assert_eq!(DoPutUpdateResult::decode(result.app_metadata).unwrap().record_count, 2);
    drop(sender);
    assert!(results.message().await.unwrap().is_none());
}

#[tokio::test]
async fn failures_have_codes_and_reasons() {
    let mut client = Toy::default().client();
    let bad = refused(client.execute("SELEKT 1".into(), None).await);
    assert_eq!((bad.code(), bad.message()), (Code::InvalidArgument, "what is `SELEKT`?"));
    assert_eq!(refused(client.execute("LOST".into(), None).await).code(), Code::NotFound);
    let transaction = client.execute("SELECT 1".into(), Some(Bytes::from_static(b"t"))).await;
    assert_eq!(refused(transaction).code(), Code::Unimplemented);
    // The statement can be planned but fails when it runs.
    let info = client.execute("ECHO $1".into(), None).await.unwrap();
    assert_eq!(refused(fetch(&mut client, info).await).code(), Code::InvalidArgument);
    // A failure after the first row ends the stream with its code.
    let info = client.execute("BREAK".into(), None).await.unwrap();
    let mut rows = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    assert_eq!(rows.try_next().await.unwrap().unwrap().num_rows(), 1);
    let broken = refused(rows.try_next().await);
    assert_eq!((broken.code(), broken.message()), (Code::ResourceExhausted, "no memory is left"));
}

#[tokio::test]
async fn a_reader_may_not_write_by_any_way() {
    let toy = Toy::default();
    let mut reader = Client::new(toy.router(FlightOptions::default(), "reader", Role::ReadOnly));
    assert_eq!(values(&fetch_sql(&mut reader, "SELECT 1").await), [1]);
    for refusal in [
        refused(reader.execute_update("ADD 1".into(), None).await),
        refused(reader.execute("ADD 1".into(), None).await),
        refused(reader.prepare("INSERT $1".into(), None).await),
    ] {
        assert_eq!(refusal.code(), Code::PermissionDenied);
    }
}

#[tokio::test]
async fn every_call_needs_a_principal() {
    use arrow_flight::flight_service_client::FlightServiceClient;
    use arrow_flight::{Action, Criteria, Empty, FlightData, Ticket};
    let engine = std::sync::Arc::new(Toy::default());
    let mut client = FlightServiceClient::new(spiced_flight::router(engine, FlightOptions::default()));
    let nothing = || futures::stream::iter([FlightData::new()]);
    let refusals = [
        client.list_flights(Criteria::default()).await.err(),
        client.get_flight_info(FlightDescriptor::new_cmd("SELECT 1")).await.err(),
        client.poll_flight_info(FlightDescriptor::new_cmd("SELECT 1")).await.err(),
        client.get_schema(FlightDescriptor::new_cmd("SELECT 1")).await.err(),
        client.do_get(Ticket::new("x")).await.err(),
        client.do_put(nothing()).await.err(),
        client.do_exchange(nothing()).await.err(),
        client.do_action(Action::new("CancelQuery", "")).await.err(),
        client.list_actions(Empty {}).await.err(),
    ];
    for refusal in refusals {
        assert_eq!(refusal.unwrap().code(), Code::Unauthenticated);
    }
}

async fn fetch_sql(client: &mut Client, sql: &str) -> Vec<arrow_array::RecordBatch> {
    let info = client.execute(sql.into(), None).await.unwrap();
    fetch(client, info).await.unwrap()
}

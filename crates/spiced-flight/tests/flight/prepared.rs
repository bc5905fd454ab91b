//! Prepared statements: parameters in every form that clients send, and handles across replicas.

use std::time::Duration;

use crate::toy::{Client, Flight, Toy, fetch, parameters, refused, values};
use arrow_array::RecordBatch;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::PreparedStatement;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
    Any, CommandPreparedStatementQuery, CommandPreparedStatementUpdate, DoPutPreparedStatementResult,
    DoPutUpdateResult, ProstMessageExt,
};
use arrow_flight::{Action, FlightDescriptor, FlightInfo};
use arrow_schema::Schema;
use axum::Router;
use bytes::Bytes;
use futures::{TryStreamExt, stream};
use prost::Message;
use spiced_engine::Role;
use spiced_flight::FlightOptions;
use tls_core::Secret;
use tonic::Code;

/// Options with a secret that two servers can share.
fn shared(lifetime: Duration) -> FlightOptions {
    FlightOptions { signing_secret: Secret::from("shared"), handle_lifetime: lifetime, ..FlightOptions::default() }
}

const HOUR: Duration = Duration::from_secs(3600);

/// Returns the handle of a statement, which arrow-flight's client keeps private.
async fn create(client: &mut Client, query: &str) -> Bytes {
    let request = ActionCreatePreparedStatementRequest { query: query.into(), transaction_id: None };
    let action = Action::new("CreatePreparedStatement", request.as_any().encode_to_vec());
    let body = client.do_action(action).await.unwrap().message().await.unwrap().unwrap().body;
    let result: ActionCreatePreparedStatementResult = Any::decode(body).unwrap().unpack().unwrap().unwrap();
    result.prepared_statement_handle
}

async fn put(
    client: &mut Client,
    command: impl ProstMessageExt,
    batches: Vec<RecordBatch>,
) -> Result<Bytes, FlightError> {
    let descriptor = FlightDescriptor::new_cmd(command.as_any().encode_to_vec());
    let schema = batches.first().map_or_else(|| Schema::empty().into(), RecordBatch::schema);
    let messages: Vec<_> = FlightDataEncoderBuilder::new()
        .with_flight_descriptor(Some(descriptor))
        .with_schema(schema)
        .build(stream::iter(batches.into_iter().map(Ok)))
        .try_collect()
        .await?;
    let mut results = client.do_put(stream::iter(messages)).await?;
    let result = results.message().await?.expect("one result");
    assert!(results.message().await?.is_none());
    Ok(result.app_metadata)
}

async fn bind(client: &mut Client, handle: &Bytes, batches: Vec<RecordBatch>) -> Result<Bytes, FlightError> {
    let query = CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() };
    let result = put(client, query, batches).await?;
    Ok(DoPutPreparedStatementResult::decode(result).unwrap().prepared_statement_handle.unwrap())
}

async fn update(client: &mut Client, handle: &Bytes, batches: Vec<RecordBatch>) -> Result<i64, FlightError> {
    let update = CommandPreparedStatementUpdate { prepared_statement_handle: handle.clone() };
    Ok(DoPutUpdateResult::decode(put(client, update, batches).await?).unwrap().record_count)
}

async fn query(client: &mut Client, handle: &Bytes) -> Result<FlightInfo, FlightError> {
    let query = CommandPreparedStatementQuery { prepared_statement_handle: handle.clone() };
    let descriptor = FlightDescriptor::new_cmd(query.as_any().encode_to_vec());
    Ok(client.inner_mut().get_flight_info(descriptor).await?.into_inner())
}

async fn close(client: &mut Client, handle: &Bytes) -> Result<(), FlightError> {
    let request = ActionClosePreparedStatementRequest { prepared_statement_handle: handle.clone() };
    let mut results = client.do_action(Action::new("ClosePreparedStatement", request.as_any().encode_to_vec())).await?;
    assert!(results.message().await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_client_that_takes_the_new_handle() {
    let mut client = Toy::default().client();
    let mut statement: PreparedStatement<Router> = client.prepare("ECHO $1".into(), None).await.unwrap();
    assert_eq!(statement.dataset_schema().unwrap().field(0).name(), "value");
    assert_eq!(statement.parameter_schema().unwrap().field(0).name(), "$1");
    for value in [5, 6] {
        statement.set_parameters(parameters([value])).unwrap();
        let info = statement.execute().await.unwrap();
        assert_eq!(values(&fetch(&mut client, info).await.unwrap()), [value]);
    }
    statement.close().await.unwrap();
}

#[tokio::test]
async fn a_client_that_keeps_the_old_handle() {
    let mut client = Toy::default().client();
    let (one, two) = (create(&mut client, "ECHO $1").await, create(&mut client, "ECHO $1").await);
    assert_ne!(one, two, "two statements of the same text are two statements");
    bind(&mut client, &one, vec![parameters([1])]).await.unwrap();
    bind(&mut client, &two, vec![parameters([2])]).await.unwrap();
    bind(&mut client, &one, vec![parameters([3])]).await.unwrap();
    for (handle, value) in [(&one, 3), (&two, 2)] {
        let info = query(&mut client, handle).await.unwrap();
        assert_eq!(values(&fetch(&mut client, info).await.unwrap()), [value]);
    }
    close(&mut client, &one).await.unwrap();
    let info = query(&mut client, &one).await.unwrap();
    assert_eq!(refused(fetch(&mut client, info).await).code(), Code::InvalidArgument, "what was bound is gone");
}

#[tokio::test]
async fn a_handle_is_a_ticket_and_a_schema_too() {
    let mut client = Toy::default().client();
    let handle = create(&mut client, "ECHO $1").await;
    let bound = bind(&mut client, &handle, vec![parameters([4])]).await.unwrap();
    let command = CommandPreparedStatementQuery { prepared_statement_handle: bound }.as_any().encode_to_vec();
    let schema = client.inner_mut().get_schema(FlightDescriptor::new_cmd(command.clone())).await.unwrap();
    assert_eq!(Schema::try_from(schema.into_inner()).unwrap().field(0).name(), "value");
    let rows = client.do_get(arrow_flight::Ticket::new(command)).await.unwrap();
    assert_eq!(values(&rows.try_collect::<Vec<_>>().await.unwrap()), [4]);
}

#[tokio::test]
async fn updates_run_once_for_each_row_in_order() {
    let toy = Toy::default();
    let mut client = toy.client();
    let handle = create(&mut client, "INSERT $1").await;
    // The parameters are sent with the update, in two batches.
    assert_eq!(update(&mut client, &handle, vec![parameters([1, 2]), parameters([3])]).await.unwrap(), 3);
    // The parameters are bound first and are used through either handle.
    let bound = bind(&mut client, &handle, vec![parameters([4, 5])]).await.unwrap();
    assert_eq!(update(&mut client, &bound, vec![]).await.unwrap(), 2);
    assert_eq!(update(&mut client, &handle, vec![]).await.unwrap(), 2);
    // Columns without a row: the statement runs zero times.
    assert_eq!(update(&mut client, &handle, vec![parameters([])]).await.unwrap(), 0);
    assert_eq!(toy.inserted(), [1, 2, 3, 4, 5, 4, 5]);
}

#[tokio::test]
async fn an_update_without_parameters() {
    let mut client = Toy::default().client();
    let mut statement = client.prepare("ADD 2".into(), None).await.unwrap();
    assert!(statement.dataset_schema().unwrap().fields().is_empty(), "no answer to read, so an update");
    assert_eq!(statement.execute_update().await.unwrap(), 3, "the descriptor alone");
    let handle = create(&mut client, "ADD 2").await;
    let nothing = RecordBatch::new_empty(Schema::empty().into());
    assert_eq!(update(&mut client, &handle, vec![nothing]).await.unwrap(), 3, "a batch without columns");
}

#[tokio::test]
async fn a_query_takes_one_row() {
    let mut client = Toy::default().client();
    let handle = create(&mut client, "ECHO $1").await;
    let bound = bind(&mut client, &handle, vec![parameters([1]), parameters([2])]).await.unwrap();
    let refusal = refused(query(&mut client, &bound).await);
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(refusal.message().starts_with("2 rows of parameters are bound"), "{}", refusal.message());
}

#[tokio::test]
async fn parameters_are_bounded() {
    let mut client = Toy::default().client();
    let handle = create(&mut client, "INSERT $1").await;
    let large = parameters(0..200_000);
    let refusal = refused(bind(&mut client, &handle, vec![large.clone()]).await);
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    // Rows that are sent with the update are not stored, so their size is not limited.
    assert_eq!(update(&mut client, &handle, vec![large]).await.unwrap(), 200_000);
}

#[tokio::test]
async fn a_replica_takes_what_another_made() {
    let toy = Toy::default();
    let replica = || Client::new(toy.router(shared(HOUR), "a", Role::ReadWrite));
    let handle = create(&mut replica(), "ECHO $1").await;
    let bound = bind(&mut replica(), &handle, vec![parameters([9])]).await.unwrap();
    let info = query(&mut replica(), &bound).await.unwrap();
    assert_eq!(values(&fetch(&mut replica(), info).await.unwrap()), [9]);
    close(&mut replica(), &bound).await.unwrap();
}

#[tokio::test]
async fn handles_and_tickets_are_refused_where_they_do_not_belong() {
    let toy = Toy::default();
    let client = |options, caller| Client::new(toy.router(options, caller, Role::ReadWrite));
    let mut own = client(shared(HOUR), "a");
    let handle = create(&mut own, "SELECT 1").await;
    let info = query(&mut own, &handle).await.unwrap();

    let mut late = client(shared(Duration::ZERO), "a");
    let expired = create(&mut late, "SELECT 1").await;
    let mut forged = handle.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let cases = [
        (client(shared(HOUR), "b"), handle.clone(), Code::PermissionDenied),
        (client(FlightOptions::default(), "a"), handle.clone(), Code::NotFound),
        (client(FlightOptions { signing_secret: Secret::default(), ..shared(HOUR) }, "a"), handle, Code::NotFound),
        (client(shared(HOUR), "a"), forged.into(), Code::NotFound),
        (client(shared(HOUR), "a"), expired.clone(), Code::NotFound),
        (client(shared(HOUR), "a"), Bytes::from_static(b"SELECT 1"), Code::InvalidArgument),
    ];
    for (mut client, handle, code) in cases {
        assert_eq!(refused(query(&mut client, &handle).await).code(), code);
        assert_eq!(refused(bind(&mut client, &handle, vec![]).await).code(), code);
        assert_eq!(refused(update(&mut client, &handle, vec![]).await).code(), code);
    }
    assert_eq!(refused(fetch(&mut client(shared(HOUR), "b"), info.clone()).await).code(), Code::PermissionDenied);
    assert_eq!(refused(fetch(&mut client(FlightOptions::default(), "a"), info).await).code(), Code::NotFound);
    // Closing an expired handle succeeds: there is nothing left to close.
    close(&mut late, &expired).await.unwrap();
}

#[tokio::test]
async fn an_empty_secret_signs_nothing_that_another_server_takes() {
    let toy = Toy::default();
    let empty = || FlightOptions { signing_secret: Secret::default(), ..FlightOptions::default() };
    let mut one = Client::new(toy.router(empty(), "a", Role::ReadWrite));
    let mut two = Client::new(toy.router(empty(), "a", Role::ReadWrite));
    let handle = create(&mut one, "SELECT 1").await;
    query(&mut one, &handle).await.unwrap();
    assert_eq!(refused(query(&mut two, &handle).await).code(), Code::NotFound);
}

//! A query ends with its last row, its deadline, its cancellation or its connection. Rows are produced no faster than
//! they are read. The client connects over TCP.

use std::sync::Arc;
use std::time::Duration;

use crate::toy::{Flight, Toy};
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::{ActionCancelQueryRequest, ActionCancelQueryResult, Any, ProstMessageExt};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightData, FlightDescriptor, FlightInfo,
    Ticket,
};
use futures::StreamExt;
use prost::Message;
use spiced_engine::{Guarded, Role};
use spiced_flight::{FlightOptions, FlightState};
use spiced_middleware::Access;
use testkit::Server;
use tls_core::Acceptor;
use tls_core::server::drain::Trigger;
use tls_core::server::{Limits, Workers};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Streaming};

type Client = FlightServiceClient<Channel>;

/// Returns a server on a free port, and a client for it. The trigger ends the server.
async fn connect(toy: &Toy) -> (Client, Trigger) {
    let state = FlightState {
        engine: Arc::new(Guarded::new(toy.clone())),
        access: Access::anonymous(Some(Role::ReadWrite)),
        options: FlightOptions::default(),
    };
    let server = Server::start(|socket, drain| {
        let acceptor = Acceptor::plain("flight");
        spiced_flight::serve(socket, acceptor, state, Limits::default(), Workers::current(), drain)
    });
    let endpoint = Endpoint::try_from(format!("http://{}", server.address)).unwrap();
    (FlightServiceClient::new(endpoint.connect().await.unwrap()), server.trigger)
}

async fn info(client: &mut Client, sql: &str) -> FlightInfo {
    client.get_flight_info(FlightDescriptor::new_cmd(sql.to_owned())).await.unwrap().into_inner()
}

async fn start(client: &mut Client, ticket: impl tonic::IntoRequest<Ticket>) -> Streaming<FlightData> {
    let mut rows = client.do_get(ticket).await.unwrap().into_inner();
    rows.message().await.unwrap().expect("the schema");
    rows.message().await.unwrap().expect("the first row");
    rows
}

fn ticket(info: &FlightInfo) -> Ticket {
    info.endpoint[0].ticket.clone().unwrap()
}

#[tokio::test]
async fn dropping_the_rows_ends_the_query() {
    let toy = Toy::default();
    let (mut client, _trigger) = connect(&toy).await;
    let ticket = ticket(&info(&mut client, "HANG").await);
    let rows = start(&mut client, ticket).await;
    toy.hanging(1).await;
    drop(rows);
    toy.hanging(0).await;
}

#[tokio::test]
async fn the_deadline_ends_a_stream() {
    // The in-memory client has no timer, so the status comes from the server.
    let toy = Toy::default();
    let router = toy.router(FlightOptions::default(), "writer", Role::ReadWrite);
    let mut client = FlightServiceClient::new(router);
    let info = client.get_flight_info(FlightDescriptor::new_cmd("HANG")).await.unwrap().into_inner();
    let mut request = Request::new(ticket(&info));
    request.set_timeout(Duration::from_millis(50));
    let told: Vec<_> = client.do_get(request).await.unwrap().into_inner().collect().await;
    let last = told.last().unwrap().as_ref().unwrap_err();
    assert_eq!((last.code(), told.len()), (Code::DeadlineExceeded, 3), "the schema, one row, the end");
    toy.hanging(0).await;
}

#[tokio::test]
async fn the_deadline_ends_planning() {
    let router = Toy::default().router(FlightOptions::default(), "writer", Role::ReadWrite);
    let mut client = FlightServiceClient::new(router);
    let mut request = Request::new(FlightDescriptor::new_cmd("STUCK"));
    request.set_timeout(Duration::from_millis(10));
    let refusal = client.get_flight_info(request).await.unwrap_err();
    assert_eq!(refusal.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn both_cancel_actions_end_the_query() {
    let toy = Toy::default();
    let (mut client, _trigger) = connect(&toy).await;
    for name in ["CancelFlightInfo", "CancelQuery"] {
        let info = info(&mut client, "HANG").await;
        let mut rows = start(&mut client, ticket(&info)).await;
        toy.hanging(1).await;
        let body = match name {
            "CancelQuery" => ActionCancelQueryRequest { info: info.encode_to_vec().into() }.as_any().encode_to_vec(),
            _ => CancelFlightInfoRequest::new(info).encode_to_vec(),
        };
        let action = Action::new(name, body);
        let answer =
            client.do_action(action.clone()).await.unwrap().into_inner().message().await.unwrap().unwrap().body;
        let status = match name {
            "CancelQuery" => Any::decode(answer).unwrap().unpack::<ActionCancelQueryResult>().unwrap().unwrap().result,
            _ => CancelFlightInfoResult::decode(answer).unwrap().status,
        };
        assert_eq!(status, i32::from(CancelStatus::Cancelled));
        assert_eq!(rows.message().await.unwrap_err().code(), Code::Cancelled);
        toy.hanging(0).await;
        assert_eq!(client.do_action(action).await.unwrap_err().code(), Code::NotFound, "it has ended");
    }
}

#[tokio::test]
async fn nobody_cancels_another_callers_query() {
    let toy = Toy::default();
    let secret = tls_core::Secret::from("shared");
    let options = || FlightOptions { signing_secret: secret.clone(), ..FlightOptions::default() };
    let mut own = FlightServiceClient::new(toy.router(options(), "a", Role::ReadWrite));
    let mut other = FlightServiceClient::new(toy.router(options(), "b", Role::ReadWrite));
    let info = own.get_flight_info(FlightDescriptor::new_cmd("HANG")).await.unwrap().into_inner();
    let action = Action::new("CancelFlightInfo", CancelFlightInfoRequest::new(info).encode_to_vec());
    assert_eq!(other.do_action(action).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_drain_lets_what_runs_end() {
    let toy = Toy::default();
    let (mut client, trigger) = connect(&toy).await;
    let ticket = ticket(&info(&mut client, "ROWS 100000").await);
    let rows = start(&mut client, ticket).await;
    let drain = tokio::spawn(trigger.drain(Duration::from_secs(60)));
    assert_eq!(rows.filter(|row| std::future::ready(row.is_ok())).count().await, 99_999);
    assert_eq!(drain.await.unwrap(), 0, "no connection is left");
    let refusal = client.get_flight_info(FlightDescriptor::new_cmd("SELECT 1")).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);
}

#[tokio::test]
async fn rows_are_made_as_they_are_read() {
    const ROWS: usize = 1_000_000;
    let toy = Toy::default();
    let (mut client, _trigger) = connect(&toy).await;
    let ticket = ticket(&info(&mut client, &format!("ROWS {ROWS}")).await);
    let mut rows = start(&mut client, ticket).await;
    for _ in 0..1_000 {
        rows.message().await.unwrap().unwrap();
    }
    // HTTP/2 windows and buffers limit how many rows are produced ahead.
    let made = toy.made();
    assert!((1_001..ROWS / 10).contains(&made), "{made} rows were made for 1,001 read");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused() {
    let toy = Toy::default();
    let options = FlightOptions { max_message_bytes: 1024, ..FlightOptions::default() };
    let mut client = FlightServiceClient::new(toy.router(options, "writer", Role::ReadWrite));
    let sql = format!("SELECT {}", "1".repeat(2048));
    let refusal = client.get_flight_info(FlightDescriptor::new_cmd(sql)).await.unwrap_err();
    assert_eq!(refusal.code(), Code::OutOfRange);
}

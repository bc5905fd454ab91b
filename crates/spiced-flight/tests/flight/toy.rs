//! The toy engine behind a Flight router, and clients for it.

use std::sync::Arc;

use arrow_array::{Int64Array, RecordBatch};
use arrow_flight::FlightInfo;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use axum::{Extension, Router};
use futures::stream::TryStreamExt;
use spiced_engine::{Guarded, Principal, Role};
use spiced_flight::FlightOptions;
pub(crate) use testkit::Toy;
use testkit::numbers;
use tonic::Status;

pub(crate) type Client = FlightSqlServiceClient<Router>;

pub(crate) trait Flight {
    /// Returns a Flight router over this engine, for a caller with this name and role.
    fn router(&self, options: FlightOptions, caller: &str, role: Role) -> Router;

    /// Returns an in-memory client with the role of a writer and default options.
    fn client(&self) -> Client {
        Client::new(self.router(FlightOptions::default(), "writer", Role::ReadWrite))
    }
}

impl Flight for Toy {
    fn router(&self, options: FlightOptions, caller: &str, role: Role) -> Router {
        spiced_flight::router(Arc::new(Guarded::new(self.clone())), options)
            .layer(Extension(Principal::new(caller, role)))
    }
}

/// Returns parameters `$1`, one row for each number.
pub(crate) fn parameters(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    RecordBatch::try_from_iter([("$1", numbers(values))]).unwrap()
}

/// Returns all batches of a flight with a single ticket.
pub(crate) async fn fetch(client: &mut Client, info: FlightInfo) -> Result<Vec<RecordBatch>, FlightError> {
    assert_eq!(info.endpoint.len(), 1);
    assert!(info.endpoint[0].location.is_empty());
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    client.do_get(ticket).await?.try_collect().await
}

/// Returns the first column of all batches, as numbers.
pub(crate) fn values(batches: &[RecordBatch]) -> Vec<i64> {
    let column = |batch: &RecordBatch| batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
    batches.iter().flat_map(column).collect()
}

/// Returns the cells of a text column.
pub(crate) fn texts(batches: &[RecordBatch], column: usize) -> Vec<String> {
    use arrow_array::cast::AsArray;
    let cells = |batch: &RecordBatch| {
        let column = batch.column(column).as_string::<i32>().clone();
        column.iter().map(|cell| cell.unwrap().to_owned()).collect::<Vec<_>>()
    };
    batches.iter().flat_map(cells).collect()
}

/// Returns the status of a client's error.
pub(crate) fn refused<T>(answer: Result<T, FlightError>) -> Status {
    match answer.err().expect("a refusal") {
        FlightError::Tonic(status) => *status,
        other => panic!("not a status: {other}"),
    }
}

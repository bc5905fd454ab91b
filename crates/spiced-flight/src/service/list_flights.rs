//! The `ListFlights` call: every table that the caller may see, as a flight with the table's path.

use arrow_flight::{Criteria, FlightDescriptor, FlightInfo};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use spiced_engine::TableInfo;
use tonic::Status;

use crate::codec::command::Requested;
use crate::codec::ipc_encoder::wire_schema;
use crate::codec::responses;
use crate::handles::signed_handle::StatementHandle;
use crate::request_context::Answer;
use crate::session::{self, Caller};
use crate::sql::statement_query;
use crate::state::FlightServiceState;
use crate::status;

/// Lists the flights.
pub(crate) async fn run(
    state: &FlightServiceState,
    caller: &Caller,
    criteria: &Criteria,
) -> Result<Answer<FlightInfo>, Status> {
    if !criteria.expression.is_empty() {
        return Err(Status::unimplemented("ListFlights does not support criteria; leave the expression empty"));
    }
    let catalog = session::open(state, caller).await?.catalog().await.map_err(status::from_engine)?;
    let flights = catalog.tables.into_iter().map(|TableInfo { catalog, schema, name, columns, .. }| {
        let descriptor = FlightDescriptor::new_path(vec![catalog, schema, name]);
        let Requested::Sql(sql) = Requested::by(descriptor.clone())? else {
            return Err(Status::internal("the path of a table did not decode to a query"));
        };
        let ticket = statement_query::ticket(state, caller, &StatementHandle::new(sql, Bytes::new()))?;
        responses::info(descriptor, Some(&wire_schema(&columns)), ticket)
    });
    Ok(stream::iter(flights.collect::<Vec<_>>()).boxed())
}

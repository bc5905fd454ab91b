//! The calls of `arrow.flight.protocol.FlightService`: each determines its caller and deadline, and delegates
//! to [`FlightServiceState`].

pub(crate) mod do_action;
pub(crate) mod do_get;
pub(crate) mod do_put;
pub(crate) mod handshake;
pub(crate) mod serve;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::Command;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, Result as ActionResult, SchemaResult, Ticket,
};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use spiced_engine::TableInfo;
use tonic::{Request, Response, Status, Streaming};

use crate::codec::command::Requested;
use crate::codec::ipc_encoder::{Chunks, wire_schema};
use crate::codec::responses;
use crate::handles::signed_handle::StatementHandle;
use crate::request_context::{Answer, RequestDeadline};
use crate::session::Caller;
use crate::sql::prepared_statement::no_transaction;
use crate::state::FlightServiceState;
use crate::status;

const NO_SUBSTRAIT: &str = "Substrait plans are not supported; send SQL text";

#[tonic::async_trait]
impl FlightService for FlightServiceState {
    type HandshakeStream = Answer<HandshakeResponse>;
    type ListFlightsStream = Answer<FlightInfo>;
    type DoGetStream = stream::Empty<Result<FlightData, Status>>;
    type DoPutStream = stream::Empty<Result<PutResult, Status>>;
    type DoActionStream = Answer<ActionResult>;
    type ListActionsStream = Answer<ActionType>;
    type DoExchangeStream = Answer<FlightData>;

    /// Exchanges Basic credentials, as metadata or as the payload, for a bearer token: the key itself.
    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        handshake::answer(request).await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        let (caller, mut end) = (self.caller(&request)?, RequestDeadline::of(&request));
        end.within(async {
            if !request.get_ref().expression.is_empty() {
                return Err(Status::unimplemented("ListFlights does not support criteria; leave the expression empty"));
            }
            self.flights(&caller).await.map(Response::new)
        })
        .await
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let (caller, mut end) = (self.caller(&request)?, RequestDeadline::of(&request));
        end.within(self.info(&caller, request.into_inner())).await.map(Response::new)
    }

    /// A query is planned here and starts only when its rows are requested, so there is nothing to poll for.
    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let (caller, mut end) = (self.caller(&request)?, RequestDeadline::of(&request));
        let info = end.within(self.info(&caller, request.into_inner())).await?;
        let poll = PollInfo::new().with_info(info).try_with_progress(1.0).map_err(status::unencodable)?;
        Ok(Response::new(poll))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let (caller, mut end) = (self.caller(&request)?, RequestDeadline::of(&request));
        end.within(async {
            let schema = match Requested::by(request.into_inner())? {
                Requested::Sql(sql) => self.statement_schema(&caller, sql, &Bytes::new()).await?,
                Requested::Command(Command::CommandStatementQuery(query)) => {
                    self.statement_schema(&caller, query.query, &Bytes::new()).await?
                }
                Requested::Command(Command::CommandPreparedStatementQuery(query)) => {
                    self.prepared_schema(&caller, &query.prepared_statement_handle).await?
                }
                Requested::Command(command) => wire_schema(&self.metadata_schema(&command)?),
            };
            responses::schema_result(&schema).map(Response::new)
        })
        .await
    }

    /// Never called: [`get`](crate::service::do_get) serves this path.
    async fn do_get(&self, _: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        Err(Status::internal("DoGet is served by a separate route"))
    }

    /// Never called: [`put`](crate::service::do_put) serves this path.
    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        Err(Status::internal("DoPut is served by a separate route"))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let (caller, mut end) = (self.caller(&request)?, RequestDeadline::of(&request));
        end.within(self.act(&caller, request.into_inner())).await
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        self.caller(&request)?;
        Ok(Response::new(do_action::list()))
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        self.caller(&request)?;
        Err(Status::unimplemented("DoExchange is not supported; Flight SQL does not use it"))
    }
}

impl FlightServiceState {
    /// Decodes a ticket.
    pub(crate) async fn get(&self, request: Request<Ticket>) -> Result<Answer<Chunks>, Status> {
        let (caller, mut end) = (self.caller(&request)?, RequestDeadline::of(&request));
        match Requested::read(&request.into_inner().ticket)? {
            Requested::Command(Command::TicketStatementQuery(ticket)) => {
                self.statement_rows(&caller, end, &ticket.statement_handle).await
            }
            Requested::Command(Command::CommandPreparedStatementQuery(query)) => {
                self.prepared_rows(&caller, end, &query.prepared_statement_handle).await
            }
            Requested::Command(command) => {
                let rows = end.within(self.metadata_rows(&caller, command)).await?;
                Ok(end.limit(rows))
            }
            Requested::Sql(_) => {
                Err(Status::invalid_argument("this server did not issue the ticket; GetFlightInfo returns tickets"))
            }
        }
    }

    async fn info(&self, caller: &Caller, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
        match Requested::by(descriptor.clone())? {
            Requested::Sql(sql) => {
                self.statement_info(caller, descriptor, &StatementHandle::new(sql, Bytes::new())).await
            }
            Requested::Command(Command::CommandStatementQuery(query)) => {
                no_transaction(query.transaction_id.as_ref())?;
                self.statement_info(caller, descriptor, &StatementHandle::new(query.query, Bytes::new())).await
            }
            Requested::Command(Command::CommandPreparedStatementQuery(query)) => {
                self.prepared_info(caller, descriptor, &query.prepared_statement_handle).await
            }
            Requested::Command(Command::CommandStatementSubstraitPlan(_)) => Err(Status::unimplemented(NO_SUBSTRAIT)),
            Requested::Command(command) => self.metadata_info(descriptor, command),
        }
    }

    /// Lists every table that the caller may see, as a flight with the table's path.
    async fn flights(&self, caller: &Caller) -> Result<Answer<FlightInfo>, Status> {
        let catalog = self.session(caller).await?.catalog().await.map_err(status::from_engine)?;
        let flights = catalog.tables.into_iter().map(|TableInfo { catalog, schema, name, columns, .. }| {
            let descriptor = FlightDescriptor::new_path(vec![catalog, schema, name]);
            let Requested::Sql(sql) = Requested::by(descriptor.clone())? else {
                return Err(Status::internal("the path of a table did not decode to a query"));
            };
            let ticket = self.ticket(caller, &StatementHandle::new(sql, Bytes::new()))?;
            responses::info(descriptor, Some(&wire_schema(&columns)), ticket)
        });
        Ok(stream::iter(flights.collect::<Vec<_>>()).boxed())
    }
}

//! The calls of `arrow.flight.protocol.FlightService`, one file each, and their router. A call determines its caller
//! and deadline, and delegates to `sql`.

pub(crate) mod serve;

mod do_action;
mod do_get;
mod do_put;
mod get_flight_info;
mod get_schema;
pub(crate) mod handshake;
mod incoming;
mod list_actions;
mod list_flights;
mod poll_flight_info;

use std::sync::Arc;

use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, Result as ActionResult, SchemaResult, Ticket,
};
use axum::Router;
use axum::middleware::map_request;
use axum::routing::post;
use futures::stream;
use spiced_engine::Engine;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::options::FlightOptions;
use crate::request_context::{Answer, RequestDeadline};
use crate::session;
use crate::sql::sql_info;
use crate::state::FlightServiceState;

/// The full name of the gRPC service, for health and metrics.
pub const SERVICE_NAME: &str = <FlightServiceServer<FlightServiceState> as NamedService>::NAME;

/// Returns a router for Flight SQL over `engine`. It has no fallback, so it can be merged with other routers.
///
/// The principal is taken from the request's extensions; a request without one fails with UNAUTHENTICATED.
pub fn router(engine: Arc<dyn Engine>, options: FlightOptions) -> Router {
    let limit = options.max_message_bytes;
    let sql_info = sql_info::info(engine.dialect().as_ref());
    let state = Arc::new(FlightServiceState::new(engine, sql_info, options));
    let service = FlightServiceServer::from_arc(state.clone()).max_decoding_message_size(limit);
    let own = Router::new().route(do_get::PATH, post(do_get::get)).route(do_put::PATH, post(do_put::put));
    Routes::new(service)
        .into_axum_router()
        .reset_fallback()
        .layer(map_request(incoming::prepared))
        .merge(own.with_state(state))
}

#[tonic::async_trait]
impl FlightService for FlightServiceState {
    type HandshakeStream = Answer<HandshakeResponse>;
    type ListFlightsStream = Answer<FlightInfo>;
    type DoGetStream = stream::Empty<Result<FlightData, Status>>;
    type DoPutStream = stream::Empty<Result<PutResult, Status>>;
    type DoActionStream = Answer<ActionResult>;
    type ListActionsStream = Answer<ActionType>;
    type DoExchangeStream = Answer<FlightData>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        handshake::answer(request).await
    }

    async fn list_flights(&self, request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        let (caller, mut end) = (session::caller(self, &request)?, RequestDeadline::of(&request));
        end.within(list_flights::run(self, &caller, request.get_ref())).await.map(Response::new)
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let (caller, mut end) = (session::caller(self, &request)?, RequestDeadline::of(&request));
        end.within(get_flight_info::run(self, &caller, request.into_inner())).await.map(Response::new)
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let (caller, mut end) = (session::caller(self, &request)?, RequestDeadline::of(&request));
        end.within(poll_flight_info::run(self, &caller, request.into_inner())).await.map(Response::new)
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let (caller, mut end) = (session::caller(self, &request)?, RequestDeadline::of(&request));
        end.within(get_schema::run(self, &caller, request.into_inner())).await.map(Response::new)
    }

    /// Never called: [`do_get::get`] serves this path.
    async fn do_get(&self, _: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        Err(Status::internal("DoGet is served by a separate route"))
    }

    /// Never called: [`do_put::put`] serves this path.
    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        Err(Status::internal("DoPut is served by a separate route"))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let (caller, mut end) = (session::caller(self, &request)?, RequestDeadline::of(&request));
        end.within(do_action::run(self, &caller, request.into_inner())).await
    }

    async fn list_actions(&self, request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        session::caller(self, &request)?;
        Ok(Response::new(list_actions::list()))
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        session::caller(self, &request)?;
        Err(Status::unimplemented("DoExchange is not supported; Flight SQL does not use it"))
    }
}

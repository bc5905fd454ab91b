//! `grpc.health.v1.Health`, straight from the watch that says whether the program is ready.
//!
//! tonic-health's own reporter keeps a second copy of the state, which a task would have to feed;
//! here each answer reads the watch itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use futures::stream::{self, BoxStream, StreamExt};
use spiced_middleware::excerpt;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{self, HealthServer, SERVICE_NAME};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// The largest request, in bytes: the name of a service. Anybody may send one.
const MAX_MESSAGE: usize = 4 << 10;

/// The health service: every name it knows follows one watch. Cheap to clone.
///
/// A `Watch` ends when the watch's sender is dropped. Drop it when a drain begins, after it was
/// set to false, or the watchers hold their connections open for as long as the drain allows.
#[derive(Debug, Clone)]
pub struct Health {
    readiness: watch::Receiver<bool>,
    services: Arc<BTreeSet<String>>,
}

impl Health {
    /// Health that follows `readiness`, overall (`""`), for itself, and for each of `services`.
    pub fn new(readiness: watch::Receiver<bool>, services: &[&str]) -> Self {
        let names = services.iter().copied().chain(["", SERVICE_NAME]);
        Self { readiness, services: Arc::new(names.map(String::from).collect()) }
    }

    /// The service as a router.
    pub fn into_router(self) -> Router {
        crate::mergeable(Routes::new(HealthServer::new(self).max_decoding_message_size(MAX_MESSAGE)))
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !self.services.contains(&service) {
            return Err(Status::not_found(format!("service `{}` is not served here", excerpt(&service))));
        }
        Ok(Response::new(answer(serving(*self.readiness.borrow()))))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        // A watch of an unknown service stays open, as the protocol asks: the service may come.
        let status = if self.services.contains(&request.into_inner().service) {
            serving
        } else {
            |_| ServingStatus::ServiceUnknown
        };
        Ok(Response::new(changes(self.readiness.clone(), status).map(|s| Ok(answer(s))).boxed()))
    }
}

/// The status now and after each change, each once; ends with the watch's sender.
fn changes(
    readiness: watch::Receiver<bool>,
    status: fn(bool) -> ServingStatus,
) -> impl futures::Stream<Item = ServingStatus> + Send {
    stream::unfold((readiness, None), move |(mut readiness, last)| async move {
        loop {
            let now = status(*readiness.borrow_and_update());
            if last != Some(now) {
                return Some((now, (readiness, Some(now))));
            }
            readiness.changed().await.ok()?;
        }
    })
}

fn serving(ready: bool) -> ServingStatus {
    if ready { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

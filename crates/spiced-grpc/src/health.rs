//! `grpc.health.v1.Health`, which reads the readiness of the program from a watch channel.
//!
//! The reporter of tonic-health would need a task that copies the readiness into it; here each response reads the
//! channel.

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

use crate::routes::mergeable;

/// The maximum size of a request, in bytes. A request holds a service name, and any client may send one.
const MAX_MESSAGE: usize = 4 << 10;

/// The health service. All of its services share one readiness channel. Cheap to clone.
///
/// A `Watch` stream ends when the sender of the channel is dropped. When a drain begins, send false and drop the
/// sender; otherwise watching clients keep their connections open until the drain times out.
#[derive(Debug, Clone)]
pub struct Health {
    readiness: watch::Receiver<bool>,
    services: Arc<BTreeSet<String>>,
}

impl Health {
    /// Creates the service, which reports `readiness` overall (`""`), for itself, and for each of `services`.
    pub fn new(readiness: watch::Receiver<bool>, services: &[&str]) -> Self {
        let names = services.iter().copied().chain(["", SERVICE_NAME]);
        Self { readiness, services: Arc::new(names.map(String::from).collect()) }
    }

    /// Returns the service as a router.
    pub fn into_router(self) -> Router {
        mergeable(Routes::new(HealthServer::new(self).max_decoding_message_size(MAX_MESSAGE)))
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !self.services.contains(&service) {
            return Err(Status::not_found(format!("service `{}` is not on this server", excerpt(&service))));
        }
        Ok(Response::new(answer(serving(*self.readiness.borrow()))))
    }

    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        // The protocol keeps the watch of an unknown service open, because the service may be added later.
        let status = if self.services.contains(&request.into_inner().service) {
            serving
        } else {
            |_| ServingStatus::ServiceUnknown
        };
        Ok(Response::new(changes(self.readiness.clone(), status).map(|s| Ok(answer(s))).boxed()))
    }
}

/// Yields the current status and each different status after it. Ends when the sender of the channel is dropped.
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

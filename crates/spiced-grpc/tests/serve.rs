//! Tests the whole endpoint on a socket: the services open to anonymous callers, and what a drain waits for.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use spiced_grpc::GrpcState;
use spiced_middleware::Access;
use testkit::Server;
use tls_core::Acceptor;
use tls_core::server::drain::Trigger;
use tls_core::server::{Limits, Workers};
use tokio::sync::watch;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

async fn endpoint(readiness: watch::Receiver<bool>) -> (Channel, Trigger) {
    let (services, access) = (vec!["other.Endpoint".into()], Access::anonymous(None));
    let state = GrpcState { readiness, services, access, engine: None };
    let server = Server::start(|socket, drain| {
        spiced_grpc::serve(socket, Acceptor::plain("grpc"), state, Limits::default(), Workers::current(), drain)
    });
    let channel = Endpoint::try_from(format!("http://{}", server.address)).unwrap().connect().await.unwrap();
    (channel, server.trigger)
}

#[tokio::test]
async fn health_is_open_where_nobody_is_let_in() {
    let (_ready, readiness) = watch::channel(true);
    let (channel, _trigger) = endpoint(readiness).await;
    let asking = HealthCheckRequest { service: "other.Endpoint".into() };
    let answer = HealthClient::new(channel.clone()).check(asking).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    let asking = futures::stream::iter([ServerReflectionRequest::default()]);
    let refusal = ServerReflectionClient::new(channel).server_reflection_info(asking).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_drain_waits_for_no_watch_once_the_sender_is_gone() {
    let (ready, readiness) = watch::channel(true);
    let (channel, trigger) = endpoint(readiness).await;
    let asking = HealthCheckRequest { service: String::new() };
    let mut told = HealthClient::new(channel).watch(asking).await.unwrap().into_inner();
    assert_eq!(told.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    ready.send_replace(false);
    drop(ready);
    let left = trigger.drain(Duration::from_secs(60));
    assert_eq!(told.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(told.message().await.unwrap().is_none());
    assert_eq!(left.await, 0);
}

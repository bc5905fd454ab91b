//! The health service as clients see it, and how it follows the readiness channel.

#![allow(clippy::unwrap_used)]

use axum::Router;
use tokio::sync::watch;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const FLIGHT: &str = "arrow.flight.protocol.FlightService";

fn asking(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.into() }
}

fn open(ready: bool) -> (watch::Sender<bool>, HealthClient<Router>) {
    let (sender, readiness) = watch::channel(ready);
    (sender, HealthClient::new(spiced_grpc::health(readiness, &[FLIGHT])))
}

#[tokio::test]
async fn check_follows_readiness_for_each_name() {
    let (ready, mut client) = open(false);
    for (now, status) in [(false, ServingStatus::NotServing), (true, ServingStatus::Serving)] {
        ready.send_replace(now);
        for service in ["", FLIGHT, "grpc.health.v1.Health"] {
            let answer = client.check(asking(service)).await.unwrap().into_inner();
            assert_eq!(answer.status(), status, "{service:?}");
        }
    }
}

#[tokio::test]
async fn check_of_an_unknown_service_is_not_found() {
    let (_ready, mut client) = open(true);
    let refusal = client.check(asking("nobody.Knows")).await.unwrap_err();
    assert_eq!(refusal.code(), Code::NotFound);
    assert_eq!(refusal.message(), "service `nobody.Knows` is not on this server");
}

#[tokio::test]
async fn watch_tells_each_change_once_and_ends_with_the_sender() {
    let (ready, mut client) = open(true);
    let mut told = client.watch(asking(FLIGHT)).await.unwrap().into_inner();
    assert_eq!(told.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    ready.send_replace(true); // no change, so no message is sent
    ready.send_replace(false);
    assert_eq!(told.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    ready.send_replace(true);
    assert_eq!(told.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    drop(ready);
    assert!(told.message().await.unwrap().is_none());
}

#[tokio::test]
async fn watch_of_an_unknown_service_says_so_and_stays_open() {
    let (ready, mut client) = open(true);
    let mut told = client.watch(asking("nobody.Knows")).await.unwrap().into_inner();
    assert_eq!(told.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    ready.send_replace(false);
    let next = told.message();
    tokio::pin!(next);
    assert!(futures::poll!(next.as_mut()).is_pending(), "a change elsewhere is not this service's");
    drop(ready);
    assert!(next.await.unwrap().is_none());
}

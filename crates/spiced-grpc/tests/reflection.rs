//! Reflection v1 and v1alpha: the listed services, their descriptors, and the callers that may read them.

#![allow(clippy::unwrap_used)]

use axum::{Extension, Router};
use futures::stream;
use prost::Message;
use spiced_engine::{Principal, Role};
use tokio::sync::watch;
use tonic::Code;

const SERVICES: [&str; 3] =
    ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

fn endpoint() -> Router {
    let (_ready, readiness) = watch::channel(true);
    spiced_grpc::router(readiness, &[], None)
}

/// The part of `FileDescriptorProto` that identifies the file (descriptor.proto, fields 1 and 2).
#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    package: String,
}

/// The two versions differ only in their package, so one body tests both.
macro_rules! reflection {
    ($version:ident) => {
        mod $version {
            use super::*;
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;

            async fn ask(client: &mut ServerReflectionClient<Router>, ask: MessageRequest) -> MessageResponse {
                let request = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
                let answer = client.server_reflection_info(stream::iter([request])).await.unwrap();
                answer.into_inner().message().await.unwrap().unwrap().message_response.unwrap()
            }

            #[tokio::test]
            async fn lists_and_describes_every_service() {
                let caller = Principal::anonymous(Role::ReadOnly);
                let mut client = ServerReflectionClient::new(endpoint().layer(Extension(caller)));
                let MessageResponse::ListServicesResponse(list) =
                    ask(&mut client, MessageRequest::ListServices(String::new())).await
                else {
                    panic!("not a list")
                };
                let mut names: Vec<String> = list.service.into_iter().map(|s| s.name).collect();
                names.sort();
                assert_eq!(names, SERVICES);
                for name in names {
                    let MessageResponse::FileDescriptorResponse(files) =
                        ask(&mut client, MessageRequest::FileContainingSymbol(name.clone())).await
                    else {
                        panic!("no file for {name}")
                    };
                    let file = File::decode(files.file_descriptor_proto[0].as_slice()).unwrap();
                    assert!(name.starts_with(&format!("{}.", file.package)), "{name} in {file:?}");
                }
            }

            #[tokio::test]
            async fn needs_a_principal() {
                let mut client = ServerReflectionClient::new(endpoint());
                let refusal = client
                    .server_reflection_info(stream::iter([ServerReflectionRequest::default()]))
                    .await
                    .unwrap_err();
                assert_eq!(refusal.code(), Code::Unauthenticated);
            }
        }
    };
}

reflection!(v1);
reflection!(v1alpha);

#[tokio::test]
async fn health_answers_for_every_service_and_needs_nobody() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let mut client = HealthClient::new(endpoint());
    for service in SERVICES {
        client.check(HealthCheckRequest { service: service.into() }).await.unwrap();
    }
}

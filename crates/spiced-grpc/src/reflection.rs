//! Server reflection v1 and v1alpha, for authenticated callers.

use axum::Router;
use spiced_engine::Principal;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};
use tonic_reflection::pb::{v1, v1alpha};
use tonic_reflection::server::Builder;

use crate::otlp;
use crate::routes::mergeable;

/// The maximum size of a request, in bytes. A request holds the name of a file or symbol.
const MAX_MESSAGE: usize = 8 << 10;

/// The names of the two reflection services.
pub(crate) const NAMES: [&str; 2] =
    [v1::server_reflection_server::SERVICE_NAME, v1alpha::server_reflection_server::SERVICE_NAME];

/// The descriptors that both versions serve: health, and both versions of reflection. Those of OTLP are added if it is
/// enabled.
const DESCRIPTORS: [&[u8]; 3] =
    [tonic_health::pb::FILE_DESCRIPTOR_SET, v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET];

/// Returns both services as one router. `telemetry` adds the descriptors of the OTLP services.
pub(crate) fn router(telemetry: bool) -> Router {
    const VALID: &str = "the descriptors are generated together with the services";
    let v1 = InterceptedService::new(
        builder(telemetry).build_v1().expect(VALID).max_decoding_message_size(MAX_MESSAGE),
        known,
    );
    let v1alpha = InterceptedService::new(
        builder(telemetry).build_v1alpha().expect(VALID).max_decoding_message_size(MAX_MESSAGE),
        known,
    );
    mergeable(Routes::new(v1).add_service(v1alpha))
}

fn builder(telemetry: bool) -> Builder<'static> {
    DESCRIPTORS
        .into_iter()
        .chain(telemetry.then_some(otlp::DESCRIPTORS))
        .fold(Builder::configure().include_reflection_service(false), Builder::register_encoded_file_descriptor_set)
}

/// Accepts a request that carries a principal.
fn known(request: Request<()>) -> Result<Request<()>, Status> {
    match request.extensions().get::<Principal>() {
        Some(_) => Ok(request),
        None => Err(Status::unauthenticated("reflection requires an authenticated caller")),
    }
}

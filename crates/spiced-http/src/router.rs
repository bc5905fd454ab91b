//! The routes, their shared layers, and the responses for unknown routes and methods.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::Response;
use axum::{Extension, Router};
use http::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use http_body_util::BodyExt;
use spiced_middleware::{Dialect, Hsts, Problem, admission, excerpt};
use tokio::sync::Semaphore;
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{And, Predicate, SizeAbove};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::openapi::Api;
use crate::probe::{Probes, probe_router, probes};
use crate::routes::{openapi, reload, sql, status};
use crate::state::{AsIs, HttpOptions, HttpState};

/// The size in bytes below which responses are not worth compressing.
const COMPRESSED_ABOVE: u64 = 1024;

/// The maximum number of responses compressed at the same time.
const MAX_ENCODERS: usize = 128;

/// Returns the whole API.
pub fn router(state: HttpState) -> Router {
    let access = state.access.clone();
    let probed = Probes { readiness: state.readiness.clone(), responsive: state.options.responsive.clone() };
    let HttpOptions { allowed_origins, hsts, .. } = state.options.clone();
    let access = match &allowed_origins {
        Some(origins) => access.from_pages_of(origins.clone()),
        None => access,
    };
    let api = guarded()
        .split_for_parts()
        .0
        .route_layer(admission(access, Dialect::Http))
        .with_state(Arc::new(state))
        .route_layer(Extension(TEXT.clone()))
        .route_layer(compressed())
        .route_layer(from_fn_with_state(Encoders::default(), Encoders::bound))
        .merge(probe_router(probed))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(map_response(never_stored));
    // The CORS layer is outermost, so that pages can read error responses and a preflight needs no credentials.
    let api = match allowed_origins {
        Some(origins) => api.layer(origins.layer()),
        None => api,
    };
    match hsts {
        Some(hsts) => api.layer(from_fn_with_state(hsts, Hsts::apply)),
        None => api,
    }
}

/// The OpenAPI document.
static DOCUMENT: LazyLock<utoipa::openapi::OpenApi> = LazyLock::new(described);

/// The document as it is sent.
static TEXT: LazyLock<openapi::Document> = LazyLock::new(|| {
    let text = serde_json::to_vec(&*DOCUMENT).expect("every map of the document has text keys");
    openapi::Document(text.into())
});

/// Every route and its methods, for the responses 404 and 405.
static ROUTES: LazyLock<BTreeMap<&'static str, &'static str>> = LazyLock::new(|| {
    let methods = |item: &utoipa::openapi::PathItem| if item.get.is_some() { "GET,HEAD" } else { "POST" };
    DOCUMENT.paths.paths.iter().map(|(path, item)| (path.as_str(), methods(item))).collect()
});

/// Returns the OpenAPI document of all routes.
fn described() -> utoipa::openapi::OpenApi {
    [guarded().split_for_parts().1, probes().split_for_parts().1]
        .into_iter()
        .fold(Api::openapi(), utoipa::openapi::OpenApi::merge_from)
}

/// Returns the routes that require a principal.
fn guarded() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(sql::sql))
        .routes(routes!(status::datasets))
        .routes(routes!(status::status))
        .routes(routes!(reload::reload))
        .routes(routes!(openapi::openapi))
}

/// Compresses responses for clients that accept it (RFC 9110 §12.5.3), favouring speed over size. Small responses are
/// sent uncompressed.
fn compressed() -> CompressionLayer<And<SizeAbove, NotAsIs>> {
    let worth_it = SizeAbove::new(COMPRESSED_ABOVE).and(NotAsIs);
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(worth_it)
}

/// A predicate that is false for responses with the extension [`AsIs`].
#[derive(Debug, Clone, Copy)]
struct NotAsIs;

impl Predicate for NotAsIs {
    fn should_compress<B: axum::body::HttpBody>(&self, response: &http::Response<B>) -> bool {
        response.extensions().get::<AsIs>().is_none()
    }
}

/// The pool of encoders. Each holds up to a megabyte while its response waits for the client.
#[derive(Debug, Clone)]
struct Encoders(Arc<Semaphore>);

impl Default for Encoders {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_ENCODERS)))
    }
}

impl Encoders {
    /// Limits the number of encoders. If all are in use, responses are sent uncompressed.
    async fn bound(State(Self(encoders)): State<Self>, mut request: Request, next: Next) -> Response {
        if !request.headers().contains_key(ACCEPT_ENCODING) {
            return next.run(request).await;
        }
        let Ok(encoder) = encoders.try_acquire_owned() else {
            request.headers_mut().remove(ACCEPT_ENCODING);
            return next.run(request).await;
        };
        let response = next.run(request).await;
        if !response.headers().contains_key(CONTENT_ENCODING) || response.extensions().get::<AsIs>().is_some() {
            return response;
        }
        response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _in_use = &encoder;
                frame
            }))
        })
    }
}

async fn no_such_route(uri: Uri, headers: HeaderMap) -> Response {
    let known: Vec<String> = ROUTES.iter().map(|(path, methods)| format!("{methods} {path}")).collect();
    let detail = format!("there is no route {}; the routes are {}", excerpt(uri.path()), known.join(", "));
    Problem::new(StatusCode::NOT_FOUND, detail).respond(headers.get(ACCEPT))
}

async fn no_such_method(request: Request) -> Response {
    let (path, method) = (request.uri().path(), request.method());
    let known = ROUTES.get(path).copied().unwrap_or_default();
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{path} does not accept {}, but {known}", excerpt(method.as_str())),
    )
    .allow(known)
    .respond(request.headers().get(ACCEPT))
}

/// Forbids caching, because responses are specific to a caller and a moment, and forbids content sniffing.
async fn never_stored(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

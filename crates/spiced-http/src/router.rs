//! The routes, what they share, and what is said of a route or method that there is not.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::Response;
use http::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use http_body_util::BodyExt;
use spiced_engine::Engine;
use spiced_middleware::{Access, AllowedOrigins, Dialect, Hsts, Problem, admission, excerpt};
use tokio::sync::{Semaphore, watch};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{And, Predicate, SizeAbove};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::openapi::{self, Api, ROUTES};
use crate::probe::{Probes, probe_router, probes};
use crate::reload::{self, ReloadHandle};
use crate::sql;
use crate::status::{self, Status};

/// Answers below this many bytes are not worth compressing.
const COMPRESSED_ABOVE: u64 = 1024;

/// Answers that are compressed at a time.
const MAX_ENCODERS: usize = 128;

/// What the API needs of the program around it.
#[derive(Clone)]
pub struct HttpState {
    /// Where statements go.
    pub engine: Arc<dyn Engine>,
    /// True while `/v1/ready` says `ready`.
    pub readiness: watch::Receiver<bool>,
    /// Composes the document of `/v1/status`; called for each request, so it must be quick.
    pub status: Arc<dyn Fn() -> Status + Send + Sync>,
    /// Who may call.
    pub access: Access,
    /// The limits.
    pub options: HttpOptions,
}

impl fmt::Debug for HttpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpState")
            .field("access", &self.access)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The limits of the API, and what it may have besides. How long a query may run is the engine's to say.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// The largest request body, in bytes; 16 MiB unless set. Beyond it: 413.
    pub body_limit: usize,
    /// How long a request's body may take to arrive; 30 s unless set. Beyond it: 408.
    pub request_timeout: Duration,
    /// The web pages that may call, by origin; `None` for none, and no word about it.
    pub allowed_origins: Option<AllowedOrigins>,
    /// Whether browsers are told to come by HTTPS alone.
    pub hsts: Option<Hsts>,
    /// What `POST /v1/tls/reload` reloads; `None` where there is nothing of the kind.
    pub reload: Option<ReloadHandle>,
    /// False while the query engine has not answered for so long that `/health` says so; `None`: never.
    pub responsive: Option<watch::Receiver<bool>>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            body_limit: 16 * 1024 * 1024,
            request_timeout: Duration::from_secs(30),
            allowed_origins: None,
            hsts: None,
            reload: None,
            responsive: None,
        }
    }
}

/// The whole API.
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
        .route_layer(compressed())
        .route_layer(from_fn_with_state(Encoders::default(), Encoders::bound))
        .merge(probe_router(probed))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(map_response(never_stored));
    // Outermost, so that a refusal can be read too, and a preflight needs no credentials.
    let api = match allowed_origins {
        Some(origins) => api.layer(origins.layer()),
        None => api,
    };
    match hsts {
        Some(hsts) => api.layer(from_fn_with_state(hsts, Hsts::apply)),
        None => api,
    }
}

/// What describes every route.
pub(crate) fn described() -> utoipa::openapi::OpenApi {
    [guarded().split_for_parts().1, probes().split_for_parts().1]
        .into_iter()
        .fold(Api::openapi(), utoipa::openapi::OpenApi::merge_from)
}

/// The routes that need a principal.
fn guarded() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(sql::sql))
        .routes(routes!(status::datasets))
        .routes(routes!(status::status))
        .routes(routes!(reload::reload))
        .routes(routes!(openapi::openapi))
}

/// Answers are compressed for who accepts it (RFC 9110 §12.5.3), at the speed of a network rather than as small
/// as can be; small ones go out as they are.
fn compressed() -> CompressionLayer<And<SizeAbove, NotAsIs>> {
    let worth_it = SizeAbove::new(COMPRESSED_ABOVE).and(NotAsIs);
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(worth_it)
}

/// Marks an answer that is sent as it is, whatever its caller accepts; in the extensions of a response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AsIs;

/// True but for answers that are sent as they are.
#[derive(Debug, Clone, Copy)]
struct NotAsIs;

impl Predicate for NotAsIs {
    fn should_compress<B: axum::body::HttpBody>(&self, response: &http::Response<B>) -> bool {
        response.extensions().get::<AsIs>().is_none()
    }
}

/// The encoders in use: each holds up to a megabyte while its answer waits for its reader.
#[derive(Debug, Clone)]
struct Encoders(Arc<Semaphore>);

impl Default for Encoders {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_ENCODERS)))
    }
}

impl Encoders {
    /// Bounds the encoders: where all are in use, answers go out as they are.
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
    let detail = format!("there is no route {}; there are {}", excerpt(uri.path()), known.join(", "));
    Problem::new(StatusCode::NOT_FOUND, detail).respond(headers.get(ACCEPT))
}

async fn no_such_method(request: Request) -> Response {
    let (path, method) = (request.uri().path(), request.method());
    let known = ROUTES.get(path).copied().unwrap_or_default();
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{path} does not take {}, but {known}", excerpt(method.as_str())),
    )
    .allow(known)
    .respond(request.headers().get(ACCEPT))
}

/// Answers are a caller's own and of the moment, and no browser is to guess what they are.
async fn never_stored(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

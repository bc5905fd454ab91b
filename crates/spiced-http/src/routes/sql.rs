//! `POST /v1/sql`: runs one statement and returns its result.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use http::HeaderValue;
use http::header::{ACCEPT, CONTENT_TYPE, VARY};
use spiced_engine::{EngineError, ErrorKind, Execution, Principal};
use spiced_formats::Format;
use spiced_middleware::Problem;
use tokio::time::{Instant, timeout_at};

use crate::accept::{content_type, negotiate};
use crate::answer::Answer;
use crate::failure::problem;
use crate::openapi::{Problems, Rows, SpiceRows};
use crate::request::{Document, Query, wait};
use crate::state::HttpState;

/// A wait that exceeds every server's query timeout.
const MAX_WAIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Runs one statement and returns the result in the format that `Accept` prefers.
#[utoipa::path(
    post,
    path = "/v1/sql",
    request_body(content((String = "text/plain"), (Document = "application/json"))),
    params(("Prefer" = Option<String>, Header, description = "`wait=N`: the response is complete within N seconds, or \
                                                              fails (RFC 7240)")),
    responses(
        (status = 200, description = "the rows", content(
            (Rows = "application/json"),
            (SpiceRows = "application/vnd.spiceai.sql.v1+json"),
            (String = "application/x-ndjson"),
            (String = "text/csv"),
            (String = "text/plain"),
            (Vec<u8> = "application/vnd.apache.arrow.stream"),
        )),
        Problems,
    ),
    security(("api_key" = []), ("bearer" = []))
)]
pub(crate) async fn sql(
    State(state): State<Arc<HttpState>>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Response {
    let accept = request.headers().get(ACCEPT).cloned();
    answer(&state, &principal, request).await.unwrap_or_else(|problem| problem.respond(accept.as_ref()))
}

async fn answer(state: &HttpState, principal: &Principal, request: Request) -> Result<Response, Problem> {
    let format = negotiate(request.headers())?;
    let end = wait(request.headers()).map(Until::passed);
    let query = Query::read(request, &state.options).await?;
    let answer = match run(state, principal, query, format, end.as_ref()).await {
        Ok(answer) => answer,
        Err(error) => {
            let problem = problem(&error);
            if problem.status().is_server_error() {
                tracing::warn!(caller = principal.name(), kind = ?error.kind(), %error, "a statement failed");
            }
            return Err(problem);
        }
    };
    let (body, beside) = answer.into_body();
    let mut response = Response::new(body);
    response.extensions_mut().insert(beside);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(format)));
    headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding"));
    if let Some(Until { applied, .. }) = end {
        headers.insert("preference-applied", applied);
    }
    Ok(response)
}

/// The time by which the caller wants the complete response.
struct Until {
    deadline: Instant,
    error: EngineError,
    applied: HeaderValue,
}

impl Until {
    /// Computes the deadline from `wait`. The cap prevents an overflow; the server's own timeout is always shorter.
    fn passed(wait: Duration) -> Self {
        let wait = wait.min(MAX_WAIT);
        let seconds = wait.as_secs();
        let why = format!("the response was not complete within the caller's limit (Prefer: wait={seconds})");
        Self {
            deadline: Instant::now() + wait,
            error: EngineError::new(ErrorKind::Timeout, why),
            applied: HeaderValue::try_from(format!("wait={seconds}")).expect("digits are a header's value"),
        }
    }
}

/// Runs a statement up to its first rows.
async fn run(
    state: &HttpState,
    principal: &Principal,
    query: Query,
    format: Format,
    end: Option<&Until>,
) -> Result<Answer, EngineError> {
    let start = async {
        let session = state.engine.session(principal).await?;
        let prepared = session.prepare(query.statement).await?;
        let mut execution = prepared.execute(query.parameters).await?.limited(query.bounds);
        if let Some(Until { deadline, error, .. }) = end {
            execution = execution.until(*deadline, error.clone());
        }
        let Execution { schema, batches } = execution;
        Answer::start(schema, batches, format).await
    };
    match end {
        None => start.await,
        Some(Until { deadline, error, .. }) => {
            timeout_at(*deadline, start).await.unwrap_or_else(|_| Err(error.clone()))
        }
    }
}

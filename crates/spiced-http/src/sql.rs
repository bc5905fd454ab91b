//! `POST /v1/sql`: one statement in, its answer out.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use http::HeaderValue;
use http::header::{ACCEPT, CONTENT_TYPE, VARY};
use spiced_engine::{EngineError, Execution, Principal};
use spiced_middleware::Problem;

use crate::accept::Format;
use crate::answer::Answer;
use crate::failure::problem;
use crate::request::Query;
use crate::router::HttpState;

pub(crate) async fn sql(
    State(state): State<Arc<HttpState>>,
    Extension(principal): Extension<Principal>,
    request: Request,
) -> Response {
    let accept = request.headers().get(ACCEPT).cloned();
    answer(&state, &principal, request).await.unwrap_or_else(|problem| problem.respond(accept.as_ref()))
}

async fn answer(state: &HttpState, principal: &Principal, request: Request) -> Result<Response, Problem> {
    let format = Format::negotiate(request.headers())?;
    let query = Query::read(request, &state.options).await?;
    let body = match run(state, principal, query, format).await {
        Ok(answer) => answer,
        Err(error) => {
            let problem = problem(&error);
            if problem.status().is_server_error() {
                tracing::warn!(caller = principal.name(), kind = ?error.kind(), %error, "a statement failed");
            }
            return Err(problem);
        }
    };
    let mut response = Response::new(body.into_body());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// Runs a statement up to its first rows.
async fn run(state: &HttpState, principal: &Principal, query: Query, format: Format) -> Result<Answer, EngineError> {
    let session = state.engine.session(principal).await?;
    let prepared = session.prepare(query.statement).await?;
    let Execution { schema, batches } = prepared.execute(query.parameters).await?;
    Answer::start(schema, batches, format).await
}

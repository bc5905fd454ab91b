//! A request to `/v1/sql`: reads its body within limits, as a statement and parameters.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use spiced_engine::{Parameters, ResultLimits, Statement};
use spiced_middleware::{Problem, excerpt};
use tls_core::server::BodyError;
use utoipa::ToSchema;

use crate::failure::TRY_AGAIN_AFTER;
use crate::parameters::Given;
use crate::state::HttpOptions;

/// A statement and the values for its parameters.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) statement: Statement,
    pub(crate) parameters: Parameters,
    /// The limits of the result that the caller requests.
    pub(crate) bounds: ResultLimits,
}

/// A statement with its parameters and limits.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    /// One statement.
    sql: String,
    /// The values of `$1`, `$2` …, or of `$name`.
    #[schema(schema_with = crate::openapi::parameters)]
    parameters: Option<Given>,
    /// The maximum number of rows of the result. The statement fails if it returns more.
    max_result_rows: Option<u64>,
    /// The maximum size of the result in bytes, in Arrow's memory format.
    max_result_bytes: Option<u64>,
}

impl Query {
    /// Reads the body. It is JSON if its type is `application/json`, and SQL for any other type: `curl -d` declares a
    /// form.
    pub(crate) async fn read(request: Request, options: &HttpOptions) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        refuse_encoded(&parts.headers)?;
        let bytes = collect(&parts.headers, body, options).await?;
        let text = std::str::from_utf8(&bytes).map_err(|e| {
            bad(format!("the body is not UTF-8: byte {} is not part of a character", e.valid_up_to() + 1))
        })?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (sql, parameters, bounds) = if is_json(&parts.headers) {
            let document: Document = serde_json::from_str(text).map_err(|e| {
                bad(format!("the body is not the expected JSON, {{\"sql\": …, \"parameters\": …}}: {e}"))
            })?;
            let parameters = document.parameters.map_or(Ok(Parameters::none()), Given::into_parameters);
            let parameters = parameters.map_err(|error| bad(error.to_string()))?;
            let bounds = ResultLimits { rows: document.max_result_rows, bytes: document.max_result_bytes };
            (document.sql, parameters, bounds)
        } else if text.trim_start().starts_with('{') {
            return Err(bad("the body is JSON, but its type is not: send it with `content-type: application/json`"));
        } else {
            (text.to_owned(), Parameters::none(), ResultLimits::default())
        };
        if sql.trim().is_empty() {
            return Err(bad("there is no SQL in the body"));
        }
        Ok(Self { statement: Statement::Sql(sql), parameters, bounds })
    }
}

/// Returns how long the caller waits for the complete response: `Prefer: wait=N`, in seconds (RFC 7240 §4.3). Other and
/// malformed preferences are ignored (§2).
pub(crate) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    preferences.flat_map(|value| value.split(',')).find_map(|preference| {
        let (name, seconds) = preference.split(';').next()?.split_once('=')?;
        let seconds = seconds.trim().trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("wait").then(|| Duration::from_secs(seconds))
    })
}

/// Rejects a compressed body (RFC 9110 §8.4).
fn refuse_encoded(headers: &HeaderMap) -> Result<(), Problem> {
    let codings = headers.get_all(CONTENT_ENCODING).iter().flat_map(|v| v.as_bytes().split(|b| *b == b','));
    match codings.map(<[u8]>::trim_ascii).find(|c| !c.is_empty() && !c.eq_ignore_ascii_case(b"identity")) {
        None => Ok(()),
        Some(coding) => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "the body is encoded as {}; send it unencoded, without content-encoding",
                excerpt(&coding.escape_ascii().to_string())
            ),
        )),
    }
}

async fn collect(headers: &HeaderMap, body: Body, options: &HttpOptions) -> Result<Bytes, Problem> {
    let limit = options.body_limit;
    let too_large = || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {limit} bytes"));
    // A body with too large a Content-Length is refused without reading it.
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(options.request_timeout, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(e)) => Err(match BodyError::find(&*e) {
            Some(why @ BodyError::Late(_)) => Problem::new(StatusCode::REQUEST_TIMEOUT, why.to_string()),
            Some(why @ (BodyError::Exhausted | BodyError::Stopping)) => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, why.to_string()).retry_after(TRY_AGAIN_AFTER)
            }
            _ => bad("the body broke off"),
        }),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {:?}", options.request_timeout),
        )),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

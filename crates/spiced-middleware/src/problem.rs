//! HTTP error responses: problem JSON (RFC 9457), or one line of text for clients that ask for text.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, VARY, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;

/// An error response: a status and one sentence that says what to change.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    detail: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// Creates an error with a sentence for the caller.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let mut headers = Vec::new();
        if status == StatusCode::UNAUTHORIZED {
            headers.push((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        Self { status, detail: detail.into(), headers }
    }

    /// Adds an `Allow` header with the methods of the route (RFC 9110 §10.2.1); for a 405.
    #[must_use]
    pub fn allow(mut self, methods: &'static str) -> Self {
        self.headers.push((ALLOW, HeaderValue::from_static(methods)));
        self
    }

    /// Adds a `Retry-After` header (RFC 9110 §10.2.3).
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.headers.push((RETRY_AFTER, seconds.into()));
        self
    }

    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Builds the response in the form that the request's `Accept` prefers: one line of text if it begins with a text
    /// type (curl's `*/*` does not), otherwise `application/problem+json`.
    pub fn respond(&self, accept: Option<&HeaderValue>) -> Response {
        let wants_text = accept
            .and_then(|a| a.to_str().ok())
            .is_some_and(|a| a.trim_start().starts_with("text/plain") || a.trim_start().starts_with("text/csv"));
        let (kind, body) = if wants_text {
            ("text/plain; charset=utf-8", format!("{}\n", self.detail.replace('\n', " ")))
        } else {
            let title = self.status.canonical_reason().unwrap_or("Error");
            let problem =
                json!({ "type": "about:blank", "title": title, "status": self.status.as_u16(), "detail": self.detail });
            ("application/problem+json", format!("{problem}\n"))
        };
        let mut response = (self.status, Body::from(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.append(VARY, HeaderValue::from_static("accept"));
        headers.extend(self.headers.iter().cloned());
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn text(response: Response) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn json_by_default_and_one_line_for_text() {
        let problem = Problem::new(StatusCode::BAD_REQUEST, "no table\nt");
        let json = problem.respond(Some(&HeaderValue::from_static("*/*")));
        assert_eq!(json.headers()[CONTENT_TYPE], "application/problem+json");
        let parsed: serde_json::Value = serde_json::from_str(&text(json).await).unwrap();
        assert_eq!(parsed["status"], 400);
        assert_eq!(parsed["detail"], "no table\nt");

        let line = problem.respond(Some(&HeaderValue::from_static("text/plain, */*;q=0.1")));
        assert_eq!(text(line).await, "no table t\n");
    }
}

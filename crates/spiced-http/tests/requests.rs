//! Valid requests, and the error for each kind of invalid request.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use axum::body::Body;
use bytes::Bytes;
use common::{Api, Reply, Toy, call, query};
use futures::{StreamExt, stream};
use http::{Request, StatusCode};
use spiced_engine::{EngineError, ErrorKind, Role};
use spiced_http::{HttpOptions, Probes, probe_router};
use spiced_middleware::Access;
use tokio::sync::watch;

/// Returns an engine that echoes the request: the statement, and the names and types of the parameters.
fn echo() -> Toy {
    Toy::new(|sql, parameters| {
        let parameters = parameters.batch().map_or(String::new(), |batch| {
            let schema = batch.schema();
            let names: Vec<_> = schema.fields().iter().map(|f| format!("{}:{}", f.name(), f.data_type())).collect();
            names.join(",")
        });
        let column = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("sql", column(sql)), ("parameters", column(&parameters))]).unwrap();
        Ok((batch.schema(), stream::iter([Ok(batch)]).boxed()))
    })
}

async fn post(headers: &[(&str, &str)], body: impl Into<Body>) -> Reply {
    let request = headers.iter().fold(Request::post("/v1/sql"), |request, (name, value)| request.header(*name, *value));
    call(echo().api(), request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn bodies_that_are_taken() {
    let form = ("content-type", "application/x-www-form-urlencoded");
    let json = ("content-type", "application/json");
    for (header, body, sql, parameters) in [
        (form, "SELECT '%41+b' = 'a'", "SELECT '%41+b' = 'a'", ""),
        (("content-type", "text/plain"), "SELECT 1\n", "SELECT 1\n", ""),
        (("x-none", ""), "\u{feff}SELECT 'é'", "SELECT 'é'", ""),
        (("content-encoding", "identity"), "SELECT 1", "SELECT 1", ""),
        (json, r#"{"sql": "SELECT 1"}"#, "SELECT 1", ""),
        (("content-type", "Application/JSON; charset=utf-8"), r#"{"sql": "SELECT 1"}"#, "SELECT 1", ""),
        (json, r#"{"sql": "S", "parameters": null}"#, "S", ""),
        (json, r#"{"sql": "S", "parameters": [1, "x", null]}"#, "S", "$1:Int64,$2:Utf8,$3:Null"),
        (json, r#"{"parameters": {"a": 1.5, "$b": true}, "sql": "S"}"#, "S", "$b:Boolean,$a:Float64"),
    ] {
        let reply = post(&[header], body).await;
        assert_eq!(reply.status, 200, "{body}: {}", reply.text());
        let rows: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(rows[0]["sql"], sql, "{body}");
        let mut got: Vec<_> = rows[0]["parameters"].as_str().unwrap().split(',').collect();
        let mut expected: Vec<_> = parameters.split(',').collect();
        got.sort_unstable();
        expected.sort_unstable();
        assert_eq!(got, expected, "{body}");
    }
}

#[tokio::test]
async fn bodies_that_are_refused() {
    let json = ("content-type", "application/json");
    let plain = ("content-type", "text/plain");
    for (header, body, status, detail) in [
        (plain, b"".as_slice(), 400, "there is no SQL in the body"),
        (plain, b" \n", 400, "there is no SQL in the body"),
        (json, br#"{"sql": " "}"#, 400, "there is no SQL in the body"),
        (plain, b"SELECT '\xff'", 400, "the body is not UTF-8: byte 9 is not part of a character"),
        (plain, br#" {"sql": "SELECT 1"}"#, 400, "send it with `content-type: application/json`"),
        (json, b"SELECT 1", 400, "the body is not the expected JSON"),
        (
            json,
            br#"{"sql": "S", "paramters": []}"#,
            400,
            "unknown field `paramters`, expected one of `sql`, `parameters`",
        ),
        (json, br#"{"parameters": []}"#, 400, "missing field `sql`"),
        (json, br#"{"sql": "S", "parameters": 1}"#, 400, "an array of values, or an object of values by name"),
        (json, br#"{"sql": "S", "parameters": [[1]]}"#, 400, "parameter $1 is an array"),
        (("content-encoding", "gzip"), b"SELECT 1", 415, "the body is encoded as gzip"),
        (("content-encoding", "identity, br"), b"SELECT 1", 415, "the body is encoded as br"),
        (
            ("accept", "image/png, text/html"),
            b"SELECT 1",
            406,
            "supported are application/json, application/vnd.apache",
        ),
    ] {
        let reply = post(&[header], body.to_vec()).await;
        assert_eq!(reply.status, status, "{}", reply.text());
        assert!(reply.detail().contains(detail), "{}", reply.text());
    }
}

#[tokio::test]
async fn an_error_for_who_reads_text_is_a_line() {
    let reply = post(&[("accept", "text/csv")], "").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (400, "there is no SQL in the body\n"));
    assert!(reply.header("content-type").starts_with("text/plain"));
}

#[tokio::test]
async fn limits_of_the_body() {
    let options = HttpOptions { body_limit: 10, request_timeout: Duration::from_millis(50), ..HttpOptions::default() };
    let api = || echo().api_with(Access::anonymous(Some(Role::ReadOnly)), options.clone());
    let chunks = |chunks: Vec<&'static str>| Body::from_stream(stream::iter(chunks).map(Ok::<_, std::io::Error>));

    let taken = call(api(), Request::post("/v1/sql").body(chunks(vec!["SELECT", " 123"])).unwrap()).await;
    assert_eq!(taken.status, 200);
    let streamed = call(api(), Request::post("/v1/sql").body(chunks(vec!["SELECT", " 1234"])).unwrap()).await;
    assert_eq!((streamed.status.as_u16(), streamed.detail().as_str()), (413, "the body is larger than 10 bytes"));
    // The request is refused because of its Content-Length: this body never ends.
    let endless = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let announced = Request::post("/v1/sql").header("content-length", "11").body(endless).unwrap();
    assert_eq!(call(api(), announced).await.status, 413);

    let endless = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let late = call(api(), Request::post("/v1/sql").body(endless).unwrap()).await;
    assert_eq!((late.status.as_u16(), late.detail().as_str()), (408, "the body did not arrive within 50ms"));

    let broken = Body::from_stream(stream::iter([Ok("SEL"), Err(std::io::Error::other("gone"))]));
    assert_eq!(call(api(), Request::post("/v1/sql").body(broken).unwrap()).await.status, 400);
}

#[tokio::test]
async fn each_kind_of_failure_has_its_status() {
    for (kind, status) in [
        (ErrorKind::InvalidStatement, 400),
        (ErrorKind::Denied, 403),
        (ErrorKind::NotFound, 404),
        (ErrorKind::Unsupported, 501),
        (ErrorKind::Exhausted, 503),
        (ErrorKind::Timeout, 503),
        (ErrorKind::Unavailable, 503),
        (ErrorKind::Cancelled, 503),
        (ErrorKind::Internal, 500),
    ] {
        let early = Toy::new(move |_, _| Err(EngineError::new(kind, "why")));
        let first_item = Toy::new(move |_, _| {
            let failed = stream::iter([Err(EngineError::new(kind, "why"))]).boxed();
            Ok((Arc::new(arrow_schema::Schema::empty()), failed))
        });
        for engine in [early, first_item] {
            let reply = call(engine.api(), query("SELECT 1", "*/*")).await;
            assert_eq!((reply.status.as_u16(), reply.detail().as_str()), (status, "why"), "{kind:?}");
            assert_eq!(reply.headers.contains_key("retry-after"), kind == ErrorKind::Exhausted);
        }
    }
}

#[tokio::test]
async fn routes_and_who_may_call_them() {
    let open = Access::anonymous(Some(Role::ReadOnly));
    let closed = Access::anonymous(None);
    for (access, method, path, status, part) in [
        (&open, "GET", "/health", 200, "ok"),
        (&open, "GET", "/v1/ready", 200, "ready"),
        (&open, "HEAD", "/v1/ready", 200, ""),
        (&open, "GET", "/v1/status", 200, r#""endpoints":[],"tls":{"enabled":false,"#),
        (&open, "GET", "/v1/datasets", 200, r#"[{"name":"a","from":"memory:","writable":false,"status":"ready"},"#),
        (&closed, "GET", "/health", 200, "ok"),
        (&closed, "GET", "/v1/ready", 200, "ready"),
        (&closed, "GET", "/v1/status", 401, "no credentials"),
        (&closed, "GET", "/v1/datasets", 401, "no credentials"),
        (&closed, "POST", "/v1/sql", 401, "no credentials"),
        (&closed, "GET", "/openapi.json", 401, "no credentials"),
        (&open, "GET", "/openapi.json", 200, r#""/v1/tls/reload":{"post":"#),
        (&open, "GET", "/v1/sql", 405, "/v1/sql does not accept GET, but POST"),
        (&open, "POST", "/health", 405, "/health does not accept POST, but GET,HEAD"),
        (&open, "DELETE", "/v1/ready", 405, "but GET,HEAD"),
        (
            &open,
            "GET",
            "/v1/sqll",
            404,
            "there is no route /v1/sqll; the routes are GET,HEAD /health, GET,HEAD /openapi.json",
        ),
        (&open, "GET", "/", 404, "there is no route /"),
    ] {
        let api = echo().api_with(access.clone(), HttpOptions::default());
        let reply = call(api, Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        assert!(reply.text().contains(part), "{method} {path}: {}", reply.text());
        assert_eq!(reply.header("cache-control"), "no-store");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        let allowed: Vec<_> = reply.headers.get_all("allow").iter().collect();
        assert_eq!(allowed.len(), usize::from(status == 405), "{method} {path}: {allowed:?}");
    }
}

#[tokio::test]
async fn a_foreign_page_is_refused() {
    let request = Request::post("/v1/sql").header("host", "localhost:3000").header("origin", "https://evil.example");
    let reply = call(echo().api(), request.body(Body::from("SELECT 1")).unwrap()).await;
    assert_eq!(reply.status, 403);
}

#[tokio::test]
async fn probes_follow_readiness() {
    let ((readiness, ready), (responsive, responds)) = (watch::channel(false), watch::channel(true));
    let api = probe_router(Probes { readiness: ready, responsive: Some(responds) });
    let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    let reply = call(api.clone(), get("/v1/ready")).await;
    assert_eq!((reply.status, reply.text()), (StatusCode::SERVICE_UNAVAILABLE, "not ready"));
    assert!(reply.header("content-type").starts_with("text/plain"));
    readiness.send_replace(true);
    let reply = call(api.clone(), get("/v1/ready")).await;
    assert_eq!((reply.status, reply.text()), (StatusCode::OK, "ready"));
    assert_eq!(call(api.clone(), get("/health")).await.text(), "ok");
    responsive.send_replace(false);
    let reply = call(api.clone(), get("/health")).await;
    assert_eq!((reply.status, reply.text()), (StatusCode::SERVICE_UNAVAILABLE, "the query engine does not answer"));
    assert_eq!(call(api, get("/v1/sql")).await.status, 404);
}

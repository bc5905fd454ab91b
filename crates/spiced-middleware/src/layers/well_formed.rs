//! The layer that refuses requests that violate HTTP, before any decision depends on their content: a request must name
//! exactly one host, and the same one everywhere.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use futures::future::Either;
use http::header::{ACCEPT, CONNECTION, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version};
use tower_layer::Layer;
use tower_service::Service;

use crate::problem::Problem;

/// Maximum size of an HTTP/1 request head, in bytes. HTTP/2 has its own limit in its settings.
const MAX_HEAD: usize = 64 << 10;

/// Creates a layer that refuses requests with a missing, duplicate or invalid `Host`, a `Host` that contradicts the
/// request target, an unknown transfer coding, or a head that is too large.
pub fn well_formed() -> WellFormedLayer {
    WellFormedLayer
}

/// The layer created by [`well_formed`].
#[derive(Debug, Clone, Copy)]
pub struct WellFormedLayer;

impl<S> Layer<S> for WellFormedLayer {
    type Service = WellFormed<S>;

    fn layer(&self, inner: S) -> WellFormed<S> {
        WellFormed(inner)
    }
}

/// The service created by [`WellFormedLayer`].
#[derive(Debug, Clone)]
pub struct WellFormed<S>(S);

impl<S> Service<Request<Body>> for WellFormed<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response, Infallible>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some((status, why)) = fault(&request) else { return Either::Right(self.0.call(request)) };
        let mut response = Problem::new(status, why).respond(request.headers().get(ACCEPT));
        if request.version() < Version::HTTP_2 {
            // It may be ambiguous where one request ends and the next begins.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Either::Left(ready(Ok(response)))
    }
}

/// Returns what is wrong with a request, and the fix.
fn fault<B>(request: &Request<B>) -> Option<(StatusCode, &'static str)> {
    let (headers, target) = (request.headers(), request.uri().authority());
    let bad = |why| Some((StatusCode::BAD_REQUEST, why));
    if request.version() < Version::HTTP_2 {
        if let Some(fault) = transfer_fault(headers) {
            return Some(fault);
        }
        let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        let target = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
        if fields + target + request.method().as_str().len() > MAX_HEAD {
            return Some((
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the head of the request is larger than 64 KiB; send fewer or shorter header fields",
            ));
        }
    }
    if request.uri().scheme().is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
        return bad("the scheme of the request target is neither http nor https");
    }
    let mut hosts = headers.get_all(HOST).iter();
    let (host, other) = (hosts.next(), hosts.next());
    if other.is_some() {
        return bad("there are two Host headers; send one");
    }
    if target.is_some_and(|target| !is_valid(target)) {
        return bad(
            "the authority of the request target is not a valid host; send a name or an address, and a port if needed",
        );
    }
    match (host, target) {
        (Some(host), target) => {
            let Some(host) = Authority::try_from(host.as_bytes()).ok().filter(is_valid) else {
                return bad("the Host header is not a valid host; send a name or an address, and a port if needed");
            };
            match target {
                Some(target) if !target.as_str().eq_ignore_ascii_case(host.as_str()) => bad(
                    "the Host header names a different host than the request target (:authority); send the same in \
                     both",
                ),
                _ => None,
            }
        }
        // RFC 9112 §3.2: HTTP/1.1 requires a Host header even if the target names a host; HTTP/2 has `:authority`.
        // HTTP/1.0 has none, and without a body that could be misread such a request is harmless.
        (None, target)
            if request.version() == Version::HTTP_11 || (target.is_none() && request.version() == Version::HTTP_2) =>
        {
            bad("there is no Host header; send the host that the request is for")
        }
        (None, _) => None,
    }
}

/// RFC 9112 §6.1: an unknown transfer coding is answered with 501.
fn transfer_fault(headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_known = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    (!is_known).then_some((
        StatusCode::NOT_IMPLEMENTED,
        "the transfer coding of the body is not supported; send it without one, or only chunked",
    ))
}

/// Returns whether the authority has a host, no user, and a port that is a number.
fn is_valid(authority: &Authority) -> bool {
    let text = authority.as_str();
    let port = text.strip_prefix(authority.host()).unwrap_or("@");
    !authority.host().is_empty()
        && match port.strip_prefix(':') {
            Some(port) => port.is_empty() || (port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()),
            None => port.is_empty(),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_request_is_for_is_one_name() {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        let ok = None;
        let bad = Some(400);
        for (version, target, hosts, expected) in [
            (one, "/", &["localhost"][..], ok),
            (one, "/", &["localhost:3000"], ok),
            (one, "/", &["localhost:"], ok),
            (one, "/", &["[::1]:3000"], ok),
            (one, "/", &["127.0.0.1"], ok),
            (one, "/", &["a_b.example.com"], ok),
            (one, "/", &[], bad),
            (one, "/", &[""], bad),
            (one, "/", &[" "], bad),
            (one, "/", &["localhost", "localhost"], bad),
            (one, "/", &["localhost", "evil.example"], bad),
            (one, "/", &["evil example"], bad),
            (one, "/", &["user@localhost"], bad),
            (one, "/", &["localhost/path"], bad),
            (one, "/", &["http://localhost"], bad),
            (one, "/", &["localhost:http"], bad),
            (one, "/", &["localhost:99999"], bad),
            (one, "/", &["localhost:-1"], bad),
            (one, "/", &[":3000"], bad),
            (one, "/", &["[::1"], bad),
            (one, "/", &["a,b"], ok),
            (one, "/", &["a?b"], bad),
            (one, "/", &["a#b"], bad),
            (one, "/", &["a\u{e9}"], bad),
            (one, "http://localhost/", &["localhost"], ok),
            (one, "http://localhost/", &["LOCALHOST"], ok),
            (one, "http://localhost/", &["evil.example"], bad),
            (one, "http://localhost/", &[], bad),
            (one, "ftp://localhost/", &["localhost"], bad),
            (Version::HTTP_10, "http://localhost/", &[], ok),
            (Version::HTTP_10, "/", &[], ok),
            (Version::HTTP_10, "/", &["a", "a"], bad),
            (Version::HTTP_10, "/", &["a b"], bad),
            (two, "https://localhost/", &[], ok),
            (two, "https://localhost:3000/", &["localhost:3000"], ok),
            (two, "https://localhost/", &["evil.example"], bad),
            (two, "https://localhost/", &["localhost", "localhost"], bad),
            (two, "https://user@localhost/", &[], bad),
            (two, "/", &["localhost"], ok),
            (two, "/", &[], bad),
        ] {
            let mut request = Request::builder().version(version).uri(target);
            for host in hosts {
                request = request.header(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
            }
            let found = fault(&request.body(()).unwrap()).map(|(status, _)| status.as_u16());
            assert_eq!(found, expected, "{version:?} {target} {hosts:?}");
        }
    }

    #[test]
    fn transfer_codings_and_size() {
        let status = |headers: &[(&str, &str)]| {
            let request = Request::builder().uri("/").header(HOST, "localhost");
            let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
            fault(&request.body(()).unwrap()).map(|(status, _)| status.as_u16())
        };
        for (codings, expected) in [
            (&["chunked"][..], None),
            (&["Chunked"], None),
            (&["gzip, chunked"], Some(501)),
            (&["chunked, chunked"], Some(501)),
            (&["gzip"], Some(501)),
            (&["identity, chunked"], Some(501)),
            (&["chunked", "chunked"], Some(501)),
            (&["xchunked"], Some(501)),
            (&[""], Some(501)),
        ] {
            let headers: Vec<_> = codings.iter().map(|coding| ("transfer-encoding", *coding)).collect();
            assert_eq!(status(&headers), expected, "{codings:?}");
        }
        let long = "x".repeat(MAX_HEAD - 200);
        assert_eq!(status(&[("x-long", &long)]), None);
        assert_eq!(status(&[("x-long", &long), ("x-more", &"y".repeat(200))]), Some(431));
    }
}

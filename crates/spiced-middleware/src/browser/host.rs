//! The name under which a request addresses this server.

use std::borrow::Cow;

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Uri};

/// Returns the authority of the request: HTTP/2's pseudo-header, or HTTP/1's `Host`.
pub(crate) fn authority<'a>(headers: &HeaderMap, uri: Option<&'a Uri>) -> Option<Cow<'a, Authority>> {
    match uri.and_then(Uri::authority) {
        Some(authority) => Some(Cow::Borrowed(authority)),
        None => headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok()).map(Cow::Owned),
    }
}

/// Returns whether a name means this machine: `localhost`, a name below it, or a loopback address.
pub(crate) fn is_loopback_name(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    bare.eq_ignore_ascii_case("localhost")
        || bare.to_ascii_lowercase().ends_with(".localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

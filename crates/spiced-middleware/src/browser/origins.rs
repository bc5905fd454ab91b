//! The web pages that may call: the CORS protocol of the Fetch standard (§3.2), implemented by tower-http.

use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser may cache a preflight response.
const MAX_AGE: Duration = Duration::from_secs(600);

/// The origins whose pages may call.
#[derive(Debug, Clone, Default)]
pub struct AllowedOrigins {
    any: bool,
    origins: Vec<HeaderValue>,
}

/// Why a text is not an origin that a browser could send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError {
    /// It is not an origin.
    #[error("it is not an origin: a scheme, a host and, unless it is the scheme's default, a port; no path")]
    Malformed,
    /// Its host has a wildcard, which would match no page: origins are compared as a whole.
    #[error("an origin has no wildcard: each host is listed by itself, or `*` alone allows any")]
    Wildcard,
}

impl AllowedOrigins {
    /// Reads origins as browsers send them (RFC 6454 §6.1): `https://app.example.com`. `*` allows any origin.
    ///
    /// # Errors
    /// Fails if one of them is not an origin.
    pub fn read<'a>(origins: impl IntoIterator<Item = &'a str>) -> Result<Self, OriginError> {
        let mut read = Self::default();
        origins.into_iter().try_for_each(|origin| read.add(origin))?;
        Ok(read)
    }

    /// Adds one more origin.
    ///
    /// # Errors
    /// Fails if the text is not an origin.
    pub fn add(&mut self, origin: &str) -> Result<(), OriginError> {
        if origin == "*" {
            self.any = true;
            return Ok(());
        }
        if origin.contains('*') {
            return Err(OriginError::Wildcard);
        }
        let serialized = serialized(origin).ok_or(OriginError::Malformed)?;
        self.origins.push(HeaderValue::try_from(serialized).map_err(|_| OriginError::Malformed)?);
        Ok(())
    }

    /// Returns whether pages of an origin may call. A browser presents a client certificate for any page (`ambient`),
    /// so then the origin must be listed by name.
    pub(crate) fn allows(&self, origin: &HeaderValue, ambient: bool) -> bool {
        self.origins.contains(origin) || (self.any && !ambient)
    }

    /// Returns the layer that answers preflights and marks responses as readable for these origins.
    pub fn layer(&self) -> CorsLayer {
        let origins = if self.any { AllowOrigin::any() } else { AllowOrigin::list(self.origins.iter().cloned()) };
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::HEAD, Method::POST])
            .allow_headers([ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName::from_static("x-api-key")])
            .expose_headers([RETRY_AFTER, WWW_AUTHENTICATE])
            .max_age(MAX_AGE)
    }
}

/// Returns an origin as browsers send it: scheme and host in lower case, and no port that is the scheme's own.
fn serialized(origin: &str) -> Option<String> {
    let uri: http::Uri = origin.parse().ok()?;
    let (scheme, own_port) = match uri.scheme_str()? {
        "http" => ("http", 80),
        "https" => ("https", 443),
        _ => return None,
    };
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let has_path = uri.path_and_query().is_some_and(|path| path != "/") || origin.ends_with('/');
    // `https://host:` has a colon and no port.
    if has_path || authority.as_str().ends_with(':') {
        return None;
    }
    let host = authority.host().to_ascii_lowercase();
    Some(match authority.port_u16().filter(|port| *port != own_port) {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_send_them() {
        for good in ["https://app.example.com", "http://localhost:8080", "https://[::1]:3000", "*"] {
            assert!(AllowedOrigins::read([good]).is_ok(), "{good}");
        }
        for bad in [
            "app.example.com",
            "https://app.example.com/",
            "https://a/b",
            "ftp://a",
            "null",
            "",
            "https://u@a",
            "https://a:",
        ] {
            assert!(AllowedOrigins::read([bad]).is_err(), "{bad}");
        }
        for bad in ["https://*.example.com", "https://a*", "http*://a", "*.example.com"] {
            assert_eq!(AllowedOrigins::read([bad]).err(), Some(OriginError::Wildcard), "{bad}");
        }
        for (written, sent) in [
            ("https://a.example:443", "https://a.example"),
            ("http://a.example:80", "http://a.example"),
            ("HTTPS://A.example:8443", "https://a.example:8443"),
            ("https://a.example:80", "https://a.example:80"),
            ("http://[::1]:80", "http://[::1]"),
        ] {
            let allowed = AllowedOrigins::read([written]).unwrap();
            assert!(allowed.allows(&HeaderValue::from_static(sent), true), "{written}");
        }
        let allowed = AllowedOrigins::read(["https://App.example.com"]).unwrap();
        assert!(allowed.allows(&HeaderValue::from_static("https://app.example.com"), true));
        assert!(!allowed.allows(&HeaderValue::from_static("https://app.example.com.evil.example"), false));
        let any = AllowedOrigins::read(["*"]).unwrap();
        assert_eq!(
            [false, true].map(|ambient| any.allows(&HeaderValue::from_static("https://a"), ambient)),
            [true, false]
        );
    }
}

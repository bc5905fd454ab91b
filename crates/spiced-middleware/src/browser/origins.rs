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

/// Why a text is not an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not an origin: a scheme, a host and, unless it is the scheme's default, a port; no path")]
pub struct OriginError;

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
        let uri: http::Uri = origin.parse().map_err(|_| OriginError)?;
        let plain = matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.path_and_query().is_none_or(|path| path == "/")
            && !origin.ends_with('/')
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        if !plain {
            return Err(OriginError);
        }
        // Browsers send scheme and host in lower case.
        self.origins.push(HeaderValue::try_from(origin.to_ascii_lowercase()).map_err(|_| OriginError)?);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_send_them() {
        for good in ["https://app.example.com", "http://localhost:8080", "https://[::1]:3000", "*"] {
            assert!(AllowedOrigins::read([good]).is_ok(), "{good}");
        }
        for bad in ["app.example.com", "https://app.example.com/", "https://a/b", "ftp://a", "null", "", "https://u@a"]
        {
            assert!(AllowedOrigins::read([bad]).is_err(), "{bad}");
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

//! Reads the credentials of a request: a key, nothing, or something malformed.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use tls_core::Secret;

use crate::auth::dialect::Dialect;

/// Go's Flight client omits the padding.
const STANDARD: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The credentials of a request.
#[derive(Debug)]
pub(crate) enum Credentials {
    None,
    Key(Secret),
    /// An unsupported scheme, or a value that does not fit its scheme.
    Malformed,
    /// Two different keys, or a header given twice.
    Several,
}

impl Credentials {
    /// Reads `X-API-Key`, or else `Authorization` (RFC 9110 §11.6.2): Bearer (RFC 6750) on every endpoint, Basic (RFC
    /// 7617) for gRPC, as Flight SQL clients use it. An empty key counts as no key, because a client without one may
    /// send the bare scheme.
    pub(crate) fn read(headers: &HeaderMap, dialect: Dialect) -> Self {
        // A header with two different values is ambiguous.
        for name in [API_KEY, AUTHORIZATION] {
            let mut values = headers.get_all(&name).iter();
            let first = values.next();
            if values.any(|value| Some(value) != first) {
                return Self::Several;
            }
        }
        if let Some(key) = headers.get(API_KEY) {
            // A key is never ignored; an `Authorization` header for a proxy (Basic, for example) is not meant for this
            // server.
            return match (Self::key(key.as_bytes()), Self::authorization(headers, dialect)) {
                (Self::Key(one), Self::Key(two)) if one.expose() != two.expose() => Self::Several,
                (Self::None, other) => other,
                (key, _) => key,
            };
        }
        Self::authorization(headers, dialect)
    }

    fn authorization(headers: &HeaderMap, dialect: Dialect) -> Self {
        let Some(value) = headers.get(AUTHORIZATION) else { return Self::None };
        let text = value.as_bytes();
        let (scheme, rest) = match text.iter().position(|b| *b == b' ') {
            Some(at) => (&text[..at], text[at..].trim_ascii()),
            None => (text, [].as_slice()),
        };
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return Self::key(rest);
        }
        if dialect == Dialect::Grpc && scheme.eq_ignore_ascii_case(b"basic") {
            return Self::basic(rest);
        }
        Self::Malformed
    }

    fn basic(coded: &[u8]) -> Self {
        let Ok(pair) = STANDARD.decode(coded).map(zeroize::Zeroizing::new) else { return Self::Malformed };
        match pair.iter().position(|b| *b == b':') {
            Some(colon) => Self::key(&pair[colon + 1..]),
            None => Self::Malformed,
        }
    }

    fn key(key: &[u8]) -> Self {
        match key.trim_ascii() {
            [] => Self::None,
            key => Self::Key(Secret::new(key.to_vec())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_have_to_be_one() {
        let read = |authorization: &'static str| {
            let headers = HeaderMap::from_iter([
                (API_KEY, "k".parse().unwrap()),
                (AUTHORIZATION, authorization.parse().unwrap()),
            ]);
            Credentials::read(&headers, Dialect::Http)
        };
        assert!(matches!(read("Bearer k"), Credentials::Key(_)));
        assert!(matches!(read("Bearer other"), Credentials::Several));
        assert!(matches!(read("Basic eDp5"), Credentials::Key(_)));
    }

    #[test]
    fn a_header_that_is_given_twice() {
        let read = |second: &'static str| {
            let mut headers = HeaderMap::new();
            headers.append(API_KEY, "k".parse().unwrap());
            headers.append(API_KEY, second.parse().unwrap());
            Credentials::read(&headers, Dialect::Http)
        };
        assert!(matches!(read("k"), Credentials::Key(_)));
        assert!(matches!(read("wrong"), Credentials::Several));
    }

    #[test]
    fn a_key_is_found_where_clients_put_it() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for (name, value, dialect, key) in [
            ("x-api-key", "k".to_owned(), Dialect::Http, Ok(Some("k"))),
            ("authorization", "Bearer k".to_owned(), Dialect::Http, Ok(Some("k"))),
            ("authorization", "bearer  k ".to_owned(), Dialect::Grpc, Ok(Some("k"))),
            ("authorization", "Bearer ".to_owned(), Dialect::Http, Ok(None)),
            ("authorization", "Bearer".to_owned(), Dialect::Http, Ok(None)),
            ("x-api-key", String::new(), Dialect::Http, Ok(None)),
            ("authorization", basic("user:k:2"), Dialect::Grpc, Ok(Some("k:2"))),
            ("authorization", basic(":k"), Dialect::Grpc, Ok(Some("k"))),
            ("authorization", "Basic dTprMg".to_owned(), Dialect::Grpc, Ok(Some("k2"))),
            ("authorization", basic("user:k"), Dialect::Http, Err(())),
            ("authorization", basic("user"), Dialect::Grpc, Err(())),
            ("authorization", "Basic !".to_owned(), Dialect::Grpc, Err(())),
            ("authorization", "Negotiate x".to_owned(), Dialect::Http, Err(())),
        ] {
            let headers = HeaderMap::from_iter([(name.parse::<HeaderName>().unwrap(), value.parse().unwrap())]);
            let read = match Credentials::read(&headers, dialect) {
                Credentials::None => Ok(None),
                Credentials::Key(key) => Ok(Some(key.expose_text().unwrap().to_owned())),
                Credentials::Malformed | Credentials::Several => Err(()),
            };
            assert_eq!(read, key.map(|key: Option<&str>| key.map(str::to_owned)), "{name}: {value}");
        }
    }
}

//! The address of a Flight SQL server, as users write it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use tls_core::redact::may_be_secret;

/// The default port of the Flight endpoint.
const PORT: u16 = 50051;

/// A server's address and protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) asked: Requested,
    /// A host name, or an IP address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// The protocol that the scheme asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Requested {
    /// `grpc+tls://`, `https://`.
    Tls,
    /// `grpc://`, `grpc+tcp://`, `http://`.
    Plain,
    /// No scheme: TLS, or plain text if a server on this machine does not speak TLS.
    TlsFirst,
}

/// Each scheme with its protocol and default port.
const SCHEMES: [(&str, Requested, u16); 5] = [
    ("grpc+tls", Requested::Tls, PORT),
    ("https", Requested::Tls, 443),
    ("grpc", Requested::Plain, PORT),
    ("grpc+tcp", Requested::Plain, PORT),
    ("http", Requested::Plain, 80),
];

impl Endpoint {
    /// Returns whether only this machine can answer at this address.
    pub(crate) fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => {
                let name = self.host.trim_end_matches('.').to_ascii_lowercase();
                name == "localhost" || name.ends_with(".localhost")
            }
        }
    }

    /// Returns `host:port`, as in a URL.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Returns the same endpoint with another protocol and host name.
    pub(crate) fn to(&self, asked: Requested, host: &str) -> Self {
        Self { asked, host: host.to_owned(), port: self.port }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.asked {
            Requested::Tls => f.write_str("grpc+tls://")?,
            Requested::Plain => f.write_str("grpc://")?,
            Requested::TlsFirst => {}
        }
        f.write_str(&self.authority())
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.contains(char::is_control) {
            return Err(EndpointError::Path);
        }
        let (asked, default_port, rest) = match text.split_once("://") {
            None => (Requested::TlsFirst, PORT, text),
            Some((scheme, rest)) => {
                let known = SCHEMES.iter().find(|(name, ..)| scheme.eq_ignore_ascii_case(name));
                let (_, asked, port) = known.ok_or_else(|| match may_be_secret(scheme) {
                    true => EndpointError::Path,
                    false => EndpointError::Scheme(scheme.to_owned()),
                })?;
                (*asked, *port, rest.strip_suffix('/').unwrap_or(rest))
            }
        };
        // The text before an `@` may be a password, so it is not repeated.
        if rest.contains('@') {
            return Err(EndpointError::Credentials);
        }
        if rest.contains(['/', '?', '#', ' ']) || may_be_secret(rest) {
            return Err(EndpointError::Path);
        }
        let (host, port) = split(rest)?;
        let port = match port {
            None => default_port,
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or(EndpointError::Port)?,
        };
        if host.is_empty() {
            return Err(EndpointError::Host);
        }
        Ok(Self { asked, host: host.to_owned(), port })
    }
}

fn split(rest: &str) -> Result<(&str, Option<&str>), EndpointError> {
    if let Some(bracketed) = rest.strip_prefix('[') {
        let (address, after) = bracketed.split_once(']').ok_or(EndpointError::Host)?;
        address.parse::<Ipv6Addr>().map_err(|_| EndpointError::Host)?;
        return match (after, after.strip_prefix(':')) {
            ("", _) => Ok((address, None)),
            (_, Some(port)) => Ok((address, Some(port))),
            _ => Err(EndpointError::Port),
        };
    }
    if rest.parse::<Ipv6Addr>().is_ok() {
        return Ok((rest, None));
    }
    match rest.split_once(':') {
        None => Ok((rest, None)),
        Some((_, port)) if port.contains(':') => Err(EndpointError::Host),
        Some((host, port)) => Ok((host, Some(port))),
    }
}

/// Why a text is not a valid endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndpointError {
    #[error("there is no scheme `{0}`: write grpc+tls:// (or https://), grpc:// (or http://) for plain text, or none")]
    Scheme(String),
    #[error("credentials do not belong there: give a key by SPICED_SQL_API_KEY")]
    Credentials,
    #[error("it takes a host and a port, nothing after them")]
    Path,
    #[error("the port is a number from 1 to 65535")]
    Port,
    #[error("it takes HOST:PORT, an IPv6 address as [::1]:50051")]
    Host,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling() {
        for (text, shown, loopback) in [
            ("localhost", "localhost:50051", true),
            ("localhost:1", "localhost:1", true),
            (" db.example.com:5 ", "db.example.com:5", false),
            ("grpc+tls://localhost:50051/", "grpc+tls://localhost:50051", true),
            ("GRPC+TLS://db:1", "grpc+tls://db:1", false),
            ("https://db", "grpc+tls://db:443", false),
            ("https://db:9", "grpc+tls://db:9", false),
            ("grpc://127.0.0.2", "grpc://127.0.0.2:50051", true),
            ("grpc+tcp://db:2", "grpc://db:2", false),
            ("http://spice.localhost", "grpc://spice.localhost:80", true),
            ("[::1]:7", "[::1]:7", true),
            ("::1", "[::1]:50051", true),
            ("https://[2001:db8::1]", "grpc+tls://[2001:db8::1]:443", false),
        ] {
            let endpoint: Endpoint = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((endpoint.to_string().as_str(), endpoint.is_loopback()), (shown, loopback), "{text}");
        }
    }

    #[test]
    fn what_is_none() {
        for (text, error) in [
            ("ftp://db", EndpointError::Scheme("ftp".into())),
            ("grpc://me:secret@db", EndpointError::Credentials),
            ("https://db/sql", EndpointError::Path),
            ("db:0", EndpointError::Port),
            ("db:65536", EndpointError::Port),
            ("db:", EndpointError::Port),
            ("", EndpointError::Host),
            (":1", EndpointError::Host),
            ("a:b:c", EndpointError::Host),
            ("[::1", EndpointError::Host),
            ("[::1]x", EndpointError::Port),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text}");
        }
    }
}

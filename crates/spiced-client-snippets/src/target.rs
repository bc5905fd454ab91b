//! What a client needs to know about a server: the endpoints' addresses and the CA to trust.

use std::path::PathBuf;

use spiced_certs::Issued;
use tls_core::ListenAddress;

/// A server as its clients see it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The HTTP endpoint.
    pub http: EndpointUrl,
    /// The Flight SQL endpoint.
    pub flight: EndpointUrl,
    /// The gRPC endpoint.
    pub grpc: EndpointUrl,
    /// The metrics endpoint, if there is one.
    pub metrics: Option<EndpointUrl>,
    /// The probe endpoint, if there is one.
    pub probe: Option<EndpointUrl>,
    /// `None` if the endpoints use plain text.
    pub trust: Option<Trust>,
    /// A sample query.
    pub query: String,
    /// True if callers need an API key.
    pub key: bool,
    /// True if the metrics endpoint requires an API key too.
    pub metrics_key: bool,
    /// True if every connection needs a client certificate.
    pub certificate: bool,
}

/// The address of an endpoint.
#[derive(Debug, Clone)]
pub struct EndpointUrl {
    /// A host name or IP address; an IPv6 address is in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// True if only this machine can reach it.
    pub loopback: bool,
}

/// The CA that a client has to trust.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The system's trust store contains the root that signed the certificate.
    System,
    /// The CA certificate in this file.
    File(PathBuf),
    /// The name of a CA whose certificate only its operator has.
    Issuer(String),
}

impl Trust {
    /// Derives it from the certificate's issuer and the file that the certificate was read from, if any.
    pub fn of(issued: Issued, certificate_file: Option<PathBuf>) -> Self {
        match (issued, certificate_file) {
            (Issued::BySystemRoot, _) => Self::System,
            (Issued::ByPresentedRoot { .. }, Some(file)) => Self::File(file),
            (Issued::ByPresentedRoot { root: issuer } | Issued::ByUnknown { issuer }, _) => Self::Issuer(issuer),
        }
    }
}

impl Target {
    /// Returns true if the endpoints use TLS.
    pub fn tls(&self) -> bool {
        self.trust.is_some()
    }

    /// Returns the CA file that a client has to name, or `None` if it needs none.
    pub fn ca(&self) -> Option<String> {
        match self.trust.as_ref()? {
            Trust::System => None,
            Trust::File(path) => Some(path.display().to_string()),
            Trust::Issuer(_) => Some("ca.pem".to_owned()),
        }
    }

    /// Returns what the snippets require, as shell comments; empty if they require nothing.
    pub fn note(&self) -> String {
        let mut note = match &self.trust {
            Some(Trust::Issuer(name)) => {
                format!("# ca.pem: the certificate of the CA {name}, from its operator\n")
            }
            _ => String::new(),
        };
        if self.key {
            note.push_str("# SPICE_API_KEY: your API key, exported\n");
        }
        if self.certificate {
            note.push_str("# client.pem, client-key.pem: your client certificate and its key\n");
        }
        note
    }
}

impl EndpointUrl {
    /// Creates the URL of an endpoint that listens on `address`. Prefers a host in `names`, the names of the
    /// certificate (empty without TLS).
    pub fn new(address: &ListenAddress, port: u16, names: &[String]) -> Self {
        let asked = address.host();
        let everywhere = ["0.0.0.0", "::", "*"].contains(&asked);
        let candidates = if everywhere { vec!["localhost", "127.0.0.1", "::1"] } else { vec![asked] };
        let named = |host: &&str| names.iter().any(|name| name.eq_ignore_ascii_case(host));
        let dns = || names.iter().find(|name| !name.starts_with('*') && !name.contains([':', '/'])).map(String::as_str);
        let host = candidates.iter().copied().find(named).or_else(dns).unwrap_or(candidates[0]);
        let loopback = asked == "localhost" || asked.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        Self { host: if host.contains(':') { format!("[{host}]") } else { host.to_owned() }, port, loopback }
    }

    /// Returns `host:port`.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_endpoint_is_called_by_a_name_that_its_certificate_has() {
        for (listen, names, host) in [
            ("localhost:1", &["localhost", "127.0.0.1"] as &[&str], "localhost"),
            ("localhost:1", &[], "localhost"),
            ("localhost:1", &["*.example.com", "api.example.com"], "api.example.com"),
            ("0.0.0.0:1", &["api.example.com", "localhost"], "localhost"),
            ("0.0.0.0:1", &["spiffe://prod/x", "2001:db8::1", "api.example.com"], "api.example.com"),
            ("[::]:1", &[], "localhost"),
            ("[::1]:1", &["::1"], "[::1]"),
            ("10.0.0.1:1", &["10.0.0.1"], "10.0.0.1"),
        ] {
            let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
            assert_eq!(EndpointUrl::new(&listen.parse().unwrap(), 1, &names).host, host, "{listen} {names:?}");
        }
    }
}

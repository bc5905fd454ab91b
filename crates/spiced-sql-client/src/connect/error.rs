//! Why a server cannot be reached, and how to fix it.

use std::io;
use std::time::Duration;

use spiced_certs::outbound::{ClientTlsError, Refusal};

use crate::connect::endpoint::{Endpoint, Requested};

/// The name of the CA that `--tls-self-signed` creates.
const DEVELOPMENT_CA: &str = "spiced development CA";

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreachable {
    #[error("there is no host `{host}`: {reason}")]
    UnknownHost { host: String, reason: String },
    #[error("cannot connect to {}: {}", endpoint.authority(), tcp_text(*kind, reason))]
    Tcp { endpoint: Endpoint, kind: io::ErrorKind, reason: String },
    #[error("no connection to {} within {}", endpoint.authority(), humantime::format_duration(*after))]
    Late { endpoint: Endpoint, after: Duration },
    #[error("no TLS connection to {}: {refusal}", endpoint.authority())]
    Tls { endpoint: Endpoint, refusal: Refusal },
    #[error("{} does not speak TLS: it answers in plain text", endpoint.authority())]
    SpeaksPlain { endpoint: Endpoint },
    #[error("{} speaks TLS, and plain text was asked for", endpoint.authority())]
    SpeaksTls { endpoint: Endpoint },
    #[error("{} is no Flight SQL server: {reason}", endpoint.authority())]
    NotFlight { endpoint: Endpoint, reason: String },
    #[error(transparent)]
    Unset(#[from] ClientTlsError),
}

impl Unreachable {
    /// Returns what to change.
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::UnknownHost { .. } => "check the name in --endpoint".to_owned(),
            Self::Tcp { kind: io::ErrorKind::ConnectionRefused, .. } => {
                "is the server running there? It logs where its Flight endpoint listens (localhost:50051 by default); --endpoint names \
                 another"
                    .to_owned()
            }
            Self::Tcp { .. } => "check the host, the port, and what firewalls stand between".to_owned(),
            Self::Late { endpoint, .. } if endpoint.asked == Requested::TlsFirst => {
                format!(
                    "check the host and the port; if it speaks no TLS write {}; --connect-timeout waits longer",
                    to(endpoint, Requested::Plain)
                )
            }
            Self::Late { .. } => "check the host, the port, and what firewalls stand between; --connect-timeout waits longer".to_owned(),
            Self::SpeaksPlain { endpoint } => {
                format!("write {}; then nothing is encrypted, keys and answers included", to(endpoint, Requested::Plain))
            }
            Self::SpeaksTls { endpoint } => format!("write {}", to(endpoint, Requested::Tls)),
            Self::NotFlight { .. } => {
                "its Flight endpoint is another port (50051 by default); the server logs all of its endpoints at the start".to_owned()
            }
            Self::Unset(error) => error.hint().to_owned(),
            Self::Tls { endpoint, refusal } => of_refusal(endpoint, refusal),
        }
    }
}

fn to(endpoint: &Endpoint, asked: Requested) -> String {
    format!("--endpoint {}", endpoint.to(asked, &endpoint.host))
}

fn of_refusal(endpoint: &Endpoint, refusal: &Refusal) -> String {
    match refusal {
        Refusal::UnknownIssuer { issuer, .. } if issuer.contains(DEVELOPMENT_CA) => {
            "that is a development CA of spiced: run this in the pod's folder, or give --tls-root-certificate-file POD/.spice/tls/ca.pem"
                .to_owned()
        }
        Refusal::AnotherKey { .. } => {
            "the CA was made anew, it seems: give its new certificate with --tls-root-certificate-file".to_owned()
        }
        Refusal::UnknownIssuer { intermediates, .. } => {
            let missing = if *intermediates { "" } else { " (or the server leaves out an intermediate certificate)" };
            format!("if that is your CA, give its certificate: --tls-root-certificate-file CA.pem{missing}")
        }
        Refusal::SelfSigned { .. } => {
            "if that is your server, give its certificate: --tls-root-certificate-file CERTIFICATE.pem".to_owned()
        }
        Refusal::WrongName { names, .. } => match names.iter().find(|name| is_host(name)) {
            Some(name) => format!(
                "if that is the server you mean, write --endpoint {}, or have a certificate issued for `{}`",
                endpoint.to(Requested::Tls, name),
                endpoint.host
            ),
            None => format!("have a certificate issued with subjectAltName for `{}`", endpoint.host),
        },
        Refusal::Expired { .. } => "renew it on the server; if it is renewed already, reload the server (SIGHUP)".to_owned(),
        Refusal::NotYetValid { .. } => "check the clocks of this machine and of the server's CA".to_owned(),
        Refusal::NotForServers { .. } => {
            "have a server's certificate issued: CA:FALSE, extendedKeyUsage=serverAuth, and its host names as subjectAltName".to_owned()
        }
        Refusal::CertificateRequired => "give one: --client-certificate-file CERT.pem --client-key-file KEY.pem".to_owned(),
        Refusal::CertificateRefused(_) => {
            "check its end and that its CA is one the server trusts (runtime.tls.client_auth_ca_file)".to_owned()
        }
        Refusal::Closed => format!("if it speaks no TLS write {}", to(endpoint, Requested::Plain)),
        _ => "the server's log may tell more".to_owned(),
    }
}

/// Returns whether a name is neither a wildcard nor a URI.
fn is_host(name: &str) -> bool {
    !name.contains(['*', '/'])
}

/// Returns the operating system's error text without the error number at its end.
fn tcp_text(kind: io::ErrorKind, reason: &str) -> String {
    match kind {
        io::ErrorKind::ConnectionRefused => "nothing listens there (connection refused)".to_owned(),
        _ => reason.split(" (os error").next().unwrap_or(reason).to_ascii_lowercase(),
    }
}

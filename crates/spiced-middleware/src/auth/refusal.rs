//! Why a request is refused, and how each protocol names it.

use std::time::Duration;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// There are no credentials, and anonymous callers are refused here.
    Anonymous {
        /// Whether any credentials are configured that the caller could present.
        has_credentials: bool,
    },
    /// The key is unknown.
    WrongKey {
        /// Whether the address is throttled from now on.
        waits: bool,
    },
    /// The form of the credentials is not supported.
    Malformed,
    /// Two different keys were given.
    SeveralKeys,
    /// A key is required in addition to the certificate.
    KeyMissing,
    /// A certificate is required in addition to the key.
    CertificateMissing,
    /// The caller's credentials were revoked while its request ran.
    Revoked,
    /// The client's certificate has expired since its connection began.
    CertificateEnded,
    /// The client's certificate is no longer trusted, after a change of the CA or a revocation list.
    CertificateDistrusted,
    /// No identity matches the client's certificate.
    Unmapped,
    /// The address has failed too often.
    Throttled {
        /// Time until it may try again.
        after: Duration,
    },
    /// A browser sent the request for a page of another origin.
    CrossSite,
    /// The `Host` is not a name of this endpoint.
    ForeignHost,
}

/// The class of a refusal: an HTTP status and a gRPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 401, UNAUTHENTICATED: other credentials would help.
    Unauthenticated,
    /// 403, PERMISSION_DENIED: other credentials would not help.
    Denied,
    /// 429, RESOURCE_EXHAUSTED: a later attempt would help.
    Exhausted(Duration),
}

impl Refusal {
    /// Returns one sentence for the caller.
    pub fn message(self) -> &'static str {
        match self {
            Self::Anonymous { has_credentials: true } => {
                "no credentials: give an API key (X-API-Key, or Authorization: Bearer) or a client certificate"
            }
            Self::Anonymous { has_credentials: false } => {
                "no credentials, and callers without credentials are refused: this server listens beyond loopback; its \
                 operator can set up runtime.auth.api_key, or set runtime.auth.allow_anonymous to ro or rw"
            }
            Self::WrongKey { .. } => "the API key is not one of this server's",
            Self::Malformed => "the Authorization header has an unsupported form: send Bearer and the API key",
            Self::SeveralKeys => "X-API-Key and Authorization give two different keys; send one",
            Self::KeyMissing => {
                "an API key is required in addition to the client certificate (X-API-Key, or Authorization: Bearer)"
            }
            Self::CertificateMissing => "a client certificate is required in addition to the API key",
            Self::Revoked => "the credentials of this request were revoked, or lost rights, while it ran",
            Self::CertificateEnded => "the client certificate has expired since this connection began; renew it",
            Self::CertificateDistrusted => {
                "the client certificate is no longer trusted: it was revoked, or its CA was removed"
            }
            Self::Unmapped => {
                "no identity of this server matches the client certificate; its operator can add one to \
                 runtime.auth.mtls.identities"
            }
            Self::Throttled { .. } => "too many wrong keys from this address; try again later",
            Self::CrossSite => "a page of another origin may not use this server",
            Self::ForeignHost => {
                "the Host header is not a loopback name: this endpoint serves only this machine; use localhost, \
                 127.0.0.1 or [::1]"
            }
        }
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Anonymous { .. }
            | Self::WrongKey { .. }
            | Self::Malformed
            | Self::SeveralKeys
            | Self::KeyMissing
            | Self::CertificateMissing
            | Self::Revoked
            | Self::CertificateEnded
            | Self::CertificateDistrusted => Kind::Unauthenticated,
            Self::Unmapped | Self::CrossSite | Self::ForeignHost => Kind::Denied,
            Self::Throttled { after } => Kind::Exhausted(after),
        }
    }

    /// Returns the gRPC code (`google.rpc.Code`).
    pub fn grpc_code(self) -> i32 {
        match self.kind() {
            Kind::Unauthenticated => 16,
            Kind::Denied => 7,
            Kind::Exhausted(_) => 8,
        }
    }

    /// Returns the value of the label `reason` of `spiced_auth_failures_total`, also used in the audit log.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Anonymous { .. } => "anonymous",
            Self::WrongKey { .. } => "wrong_key",
            Self::Malformed => "malformed",
            Self::SeveralKeys => "several_keys",
            Self::KeyMissing => "key_missing",
            Self::CertificateMissing => "certificate_missing",
            Self::Revoked => "revoked",
            Self::CertificateEnded => "certificate_ended",
            Self::CertificateDistrusted => "certificate_distrusted",
            Self::Unmapped => "unmapped_certificate",
            Self::Throttled { .. } => "throttled",
            Self::CrossSite => "cross_site",
            Self::ForeignHost => "foreign_host",
        }
    }
}

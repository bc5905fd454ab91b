//! Who calls, and whether that caller is let in. The one place that decides it for every door.

use http::header::{HOST, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use spiced_engine::{Principal, Role};
use tls_core::ConnInfo;

/// Decides who calls. Cheap to clone.
///
/// Keys and client certificates are not built yet: every caller is anonymous, and what an
/// anonymous caller may do is set here.
#[derive(Debug, Clone)]
pub struct Access {
    anonymous: Option<Role>,
    loopback_only: bool,
}

impl Access {
    /// Callers without credentials get `role`, or nothing where it is `None`.
    pub fn anonymous(role: Option<Role>) -> Self {
        Self { anonymous: role, loopback_only: false }
    }

    /// The same for a door that listens on loopback alone: a `Host` that is no loopback name is
    /// refused, so that no web page reaches it by rebinding a name of its own.
    pub fn loopback(self) -> Self {
        Self { loopback_only: true, ..self }
    }

    /// Lets a request in, as whom, or says why not.
    ///
    /// # Errors
    /// The caller has no right to be here, or a browser sent the request for a foreign page.
    pub fn admit(&self, request: &Parts, connection: Option<&ConnInfo>) -> Result<Principal, Refusal> {
        let role = self.anonymous.ok_or(Refusal::Anonymous)?;
        self.refuse_foreign_pages(request, connection)?;
        Ok(Principal::anonymous(role))
    }

    /// No web page of another origin may use a developer's or an intranet's open door (Fetch
    /// Metadata, and RFC 6454 §7 for `Origin`).
    fn refuse_foreign_pages(&self, request: &Parts, connection: Option<&ConnInfo>) -> Result<(), Refusal> {
        let headers = &request.headers;
        if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site" || site == "same-site") {
            return Err(Refusal::CrossSite);
        }
        let host = authority(request);
        if let Some(origin) = headers.get(ORIGIN) {
            // Behind a proxy that ends TLS, the page is https and the connection is plain.
            let schemes: &[&str] =
                if connection.is_some_and(|c| c.tls.is_some()) { &["https"] } else { &["https", "http"] };
            let own = host.as_ref().is_some_and(|host| {
                schemes.iter().any(|s| origin.as_bytes().eq_ignore_ascii_case(format!("{s}://{host}").as_bytes()))
            });
            if !own {
                return Err(Refusal::CrossSite);
            }
        }
        match host {
            Some(host) if self.loopback_only && !is_loopback_name(host.host()) => Err(Refusal::ForeignHost),
            _ => Ok(()),
        }
    }
}

/// Why a request is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// No credentials, and callers without them are not let in here.
    Anonymous,
    /// A browser sent it for a page of another origin.
    CrossSite,
    /// The `Host` is no name of this door.
    ForeignHost,
}

impl Refusal {
    /// One sentence for the caller.
    pub fn message(self) -> &'static str {
        match self {
            Self::Anonymous => {
                "no credentials, and callers without credentials are not let in: this server listens beyond loopback; \
                 its operator may set runtime.auth.allow_anonymous to ro or rw"
            }
            Self::CrossSite => "a page of another origin may not use this server",
            Self::ForeignHost => {
                "the Host header is no loopback name: this door is for this machine alone; use localhost, 127.0.0.1 or [::1]"
            }
        }
    }

    /// True where credentials would help (401), false where they would not (403).
    pub fn is_unauthenticated(self) -> bool {
        self == Self::Anonymous
    }

    /// The value of the label `reason` of `spiced_auth_failures_total`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::CrossSite => "cross_site",
            Self::ForeignHost => "foreign_host",
        }
    }
}

/// The authority of the request: HTTP/2's pseudo-header, or HTTP/1's `Host`.
fn authority(request: &Parts) -> Option<Authority> {
    match request.uri.authority() {
        Some(authority) => Some(authority.clone()),
        None => request.headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok()),
    }
}

fn is_loopback_name(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    bare.eq_ignore_ascii_case("localhost")
        || bare.to_ascii_lowercase().ends_with(".localhost")
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::post("/v1/sql");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn who_is_let_in() {
        let open = Access::anonymous(Some(Role::ReadWrite)).loopback();
        let public = Access::anonymous(Some(Role::ReadOnly));
        type Case<'a> = (&'a Access, &'a [(&'a str, &'a str)], Option<Refusal>);
        let cases: &[Case<'_>] = &[
            (&open, &[("host", "localhost:3000")], None),
            (&open, &[("host", "127.0.0.1:3000")], None),
            (&open, &[("host", "[::1]:3000")], None),
            (&open, &[("host", "app.localhost")], None),
            (&open, &[], None),
            (&open, &[("host", "evil.example")], Some(Refusal::ForeignHost)),
            (&open, &[("host", "localhost.evil.example")], Some(Refusal::ForeignHost)),
            (&public, &[("host", "db.example.com")], None),
            (&open, &[("host", "localhost:3000"), ("origin", "http://localhost:3000")], None),
            (&open, &[("host", "localhost:3000"), ("origin", "http://localhost:8080")], Some(Refusal::CrossSite)),
            (&open, &[("host", "localhost:3000"), ("origin", "https://evil.example")], Some(Refusal::CrossSite)),
            (&open, &[("host", "localhost:3000"), ("origin", "null")], Some(Refusal::CrossSite)),
            (&public, &[("host", "db.example.com"), ("origin", "https://evil.example")], Some(Refusal::CrossSite)),
            (&public, &[("host", "db.example.com"), ("sec-fetch-site", "cross-site")], Some(Refusal::CrossSite)),
            (&public, &[("host", "db.example.com"), ("sec-fetch-site", "same-origin")], None),
            (&public, &[("host", "db.example.com"), ("sec-fetch-site", "none")], None),
        ];
        for (access, headers, expected) in cases {
            assert_eq!(access.admit(&parts(headers), None).err(), *expected, "{headers:?}");
        }
        let nobody = Access::anonymous(None);
        assert_eq!(nobody.admit(&parts(&[]), None).err(), Some(Refusal::Anonymous));
    }
}

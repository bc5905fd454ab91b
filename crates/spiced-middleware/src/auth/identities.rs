//! Maps client certificates to identities and roles by their names.

use spiced_engine::Role;
use tls_core::ClientCertificate;

/// A rule that gives a role to the certificates with a matching name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientIdentityRule {
    /// The kind of name to match.
    pub name: IdentityName,
    /// The pattern to match. `*` matches one or more characters within a segment: up to a `/` in a URI, up to a `.` in
    /// other names.
    pub pattern: String,
    /// The role of matching certificates.
    pub role: Role,
}

/// The kinds of names that a [`ClientIdentityRule`] can match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityName {
    /// A subject alternative name that is a URI, such as a SPIFFE id. Compared octet by octet.
    SanUri,
    /// A subject alternative name that is a DNS name, not a wildcard. Compared without regard to case (RFC 4343).
    SanDns,
    /// The common name of the subject, if it has exactly one. Compared octet by octet.
    SubjectCn,
}

impl IdentityName {
    fn label(self) -> &'static str {
        match self {
            Self::SanUri => "san_uri",
            Self::SanDns => "san_dns",
            Self::SubjectCn => "subject_cn",
        }
    }
}

/// The rules for verified client certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identities(Vec<ClientIdentityRule>);

impl Identities {
    /// Creates the rules; the first that matches decides. Without any, every verified certificate may read.
    pub fn new(identities: Vec<ClientIdentityRule>) -> Self {
        Self(identities)
    }

    /// Returns the number of rules.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if there are no rules.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the name and the role of a certificate's identity; `None` if no rule matches.
    pub(crate) fn find(&self, certificate: &ClientCertificate) -> Option<(String, Role)> {
        let uris = &certificate.names().uris;
        // An X509-SVID with more than one URI, or with a malformed one, must be rejected (SPIFFE X509-SVID §2, §5.2).
        if uris.iter().any(|uri| is_spiffe(uri)) && !matches!(uris.as_slice(), [only] if is_spiffe_id(only)) {
            return None;
        }
        if self.0.is_empty() {
            return Some((format!("subject:{}", certificate.summary().subject), Role::ReadOnly));
        }
        let names = certificate.names();
        self.0.iter().find_map(|ClientIdentityRule { name, pattern, role }| {
            let (borne, separator) = match name {
                // With several URIs it is unclear which one is meant.
                IdentityName::SanUri if names.uris.len() != 1 => return None,
                IdentityName::SanUri if names.uris.iter().any(|uri| is_ambiguous(uri)) => return None,
                IdentityName::SanUri => (&names.uris, '/'),
                IdentityName::SanDns => (&names.dns, '.'),
                // With several common names it is unclear as well which one is meant.
                IdentityName::SubjectCn if names.common.len() != 1 => return None,
                IdentityName::SubjectCn => (&names.common, '.'),
            };
            let fits = |text: &&String| match name {
                // A wildcard is the name of many servers, and of no client.
                IdentityName::SanDns if text.contains('*') => false,
                IdentityName::SanDns => fits(&pattern.to_ascii_lowercase(), &text.to_ascii_lowercase(), separator),
                _ => fits(pattern, text, separator),
            };
            borne.iter().find(fits).map(|text| (format!("{}:{text}", name.label()), *role))
        })
    }
}

fn is_spiffe(uri: &str) -> bool {
    uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"))
}

/// Returns whether a URI is a SPIFFE id (SPIFFE-ID §2): a trust domain and a path of plain segments, and nothing else.
fn is_spiffe_id(uri: &str) -> bool {
    const MAX_ID: usize = 2048;
    const MAX_DOMAIN: usize = 255;
    let Some(rest) = uri.strip_prefix("spiffe://").filter(|_| uri.len() <= MAX_ID) else { return false };
    let mut parts = rest.split('/');
    let domain = parts.next().unwrap_or_default();
    let is_domain_letter = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b".-_".contains(&c);
    let is_path_letter = |c: u8| c.is_ascii_alphanumeric() || b".-_".contains(&c);
    (1..=MAX_DOMAIN).contains(&domain.len())
        && domain.bytes().all(is_domain_letter)
        && parts.all(|part| !matches!(part, "" | "." | "..") && part.bytes().all(is_path_letter))
}

/// Returns whether a URI could be read as a different one: through dot segments, percent-encoding, a query or a
/// fragment.
fn is_ambiguous(uri: &str) -> bool {
    uri.contains(['%', '?', '#', '\\'])
        || uri.chars().any(|c| c.is_control() || c.is_whitespace())
        || uri.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// Returns whether `text` matches `pattern`, in which each `*` matches one or more characters other than `separator`.
fn fits(pattern: &str, text: &str, separator: char) -> bool {
    let (patterns, texts) = (pattern.split(separator), text.split(separator));
    patterns.clone().count() == texts.clone().count() && patterns.zip(texts).all(|(p, t)| fits_segment(p, t))
}

fn fits_segment(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            // Tries each possible end of the star's match, which has at least one character.
            rest.char_indices().any(|(at, c)| fits_segment(after, &rest[at + c.len_utf8()..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_spiffe_id() {
        for good in ["spiffe://prod/a", "spiffe://prod.example-1_x/ns/A.b_c-d/e", "spiffe://prod", "spiffe://1/..."] {
            assert!(is_spiffe_id(good), "{good}");
        }
        let long = format!("spiffe://prod/{}", "x".repeat(2048));
        for bad in [
            "spiffe://prod/ns/../admin",
            "spiffe://prod/./a",
            "spiffe://prod/..",
            "spiffe://prod/a%2Fb",
            "spiffe://prod/a%2fb",
            "spiffe://prod/%2e%2e/a",
            "spiffe://prod/a?b",
            "spiffe://prod/a#b",
            "spiffe://prod/",
            "spiffe://prod//a",
            "spiffe://prod/a/",
            "spiffe://Prod/a",
            "spiffe://me@prod/a",
            "spiffe://prod:1/a",
            "spiffe:///a",
            "spiffe:prod/a",
            "SPIFFE://prod/a",
            "spiffe://prod/a b",
            "spiffe://prod/\u{e9}",
            "spiffe://prod/a\n",
            "https://prod/a",
            long.as_str(),
        ] {
            assert!(!is_spiffe_id(bad), "{bad}");
        }
        for uri in ["https://a/../b", "https://a/%2e", "urn:a?b", "urn:a#b", "https://a/.", "urn:a b"] {
            assert!(is_ambiguous(uri), "{uri}");
        }
        assert!(!is_ambiguous("https://a.example/b..c/d"));
    }

    #[test]
    fn a_star_stays_within_its_segment() {
        for (pattern, text, fit) in [
            ("spiffe://prod/ns/etl/*", "spiffe://prod/ns/etl/job", true),
            ("spiffe://prod/ns/etl/*", "spiffe://prod/ns/etl/", false),
            ("spiffe://prod/ns/etl/*", "spiffe://prod/ns/etl", false),
            ("spiffe://prod/ns/etl/*", "spiffe://prod/ns/etl/job/2", false),
            ("spiffe://prod/ns/*/job", "spiffe://prod/ns/a/job", true),
            ("spiffe://prod/ns/etl-*/j*b", "spiffe://prod/ns/etl-1/job", true),
            ("spiffe://prod/ns/etl-*/j*b", "spiffe://prod/ns/etl-/job", false),
            ("spiffe://prod/a", "spiffe://prod/A", false),
            ("*", "a", true),
            ("*", "a/b", false),
            ("*a*a", "aaa", false),
            ("*a*a", "aaaa", true),
        ] {
            assert_eq!(fits(pattern, text, '/'), fit, "{pattern} {text}");
        }
        assert!(fits("*.example.com", "a.example.com", '.'));
        assert!(!fits("*.example.com", "a.b.example.com", '.'));
    }
}

//! Client certificates: which of their names is whom, and what that one may do.

use spiced_engine::Role;
use tls_core::ClientCertificate;

/// A name in a certificate, and the role of who bears it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Which name it is about.
    pub name: IdentityName,
    /// The name. `*` stands for one or more characters within a segment: up to a `/` in a URI, up to a
    /// `.` in the others.
    pub pattern: String,
    /// What its bearer may do.
    pub role: Role,
}

/// The kinds of names that an [`Identity`] may be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdentityName {
    /// A subject alternative name that is a URI, such as a SPIFFE id. Compared octet by octet.
    SanUri,
    /// A subject alternative name that is a DNS name. Compared without regard to case (RFC 4343).
    SanDns,
    /// A common name of the subject. Compared octet by octet.
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

/// Who the bearers of verified certificates are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identities(Vec<Identity>);

impl Identities {
    /// The first that fits decides. Without any, every verified certificate may read.
    pub fn new(identities: Vec<Identity>) -> Self {
        Self(identities)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Name and role of a certificate's holder; `None` where no identity names it.
    pub(crate) fn find(&self, certificate: &ClientCertificate) -> Option<(String, Role)> {
        if self.0.is_empty() {
            return Some((format!("subject:{}", certificate.summary().subject), Role::ReadOnly));
        }
        let names = certificate.names();
        self.0.iter().find_map(|Identity { name, pattern, role }| {
            let (borne, separator) = match name {
                IdentityName::SanUri => (&names.uris, '/'),
                IdentityName::SanDns => (&names.dns, '.'),
                IdentityName::SubjectCn => (&names.common, '.'),
            };
            let fits = |text: &&String| match name {
                IdentityName::SanDns => fits(&pattern.to_ascii_lowercase(), &text.to_ascii_lowercase(), separator),
                _ => fits(pattern, text, separator),
            };
            borne.iter().find(fits).map(|text| (format!("{}:{text}", name.label()), *role))
        })
    }
}

/// Whether `text` fits `pattern`, whose `*` each stand for one or more characters but `separator`.
fn fits(pattern: &str, text: &str, separator: char) -> bool {
    let (patterns, texts) = (pattern.split(separator), text.split(separator));
    patterns.clone().count() == texts.clone().count() && patterns.zip(texts).all(|(p, t)| fits_segment(p, t))
}

fn fits_segment(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            // Each further end of what the star stands for; it stands for one character at least.
            rest.char_indices().any(|(at, c)| fits_segment(after, &rest[at + c.len_utf8()..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

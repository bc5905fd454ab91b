//! A finding: a stable code, a severity, a sentence and a fix.

use serde::Serialize;

use super::compatibility::Clients;

/// The codes of findings for which clients refuse a certificate, or are themselves refused. These findings block a
/// reload.
pub const REFUSALS: [&str; 33] = [
    "TLS-CHAIN-REFUSED",
    "TLS-CHAIN-SIGNATURE",
    "TLS-CLIENT-CA-NOT-CA",
    "TLS-CRL-MISSING",
    "TLS-CRL-OLDER",
    "TLS-CRL-SIGNATURE",
    "TLS-CRITICAL-EXTENSION",
    "TLS-EMPTY-SUBJECT",
    "TLS-EXPIRED",
    "TLS-INTERMEDIATE-EXPIRED",
    "TLS-INTERMEDIATE-MISSING",
    "TLS-INTERMEDIATE-NOT-YET-VALID",
    "TLS-IP-AS-DNS",
    "TLS-ISSUER-KEY-ID",
    "TLS-ISSUER-KEY-USAGE",
    "TLS-ISSUER-NOT-CA",
    "TLS-ISSUER-USAGE",
    "TLS-KEY-USAGE",
    "TLS-LEAF-IS-CA",
    "TLS-NAME-CONSTRAINTS",
    "TLS-NAME-INVALID",
    "TLS-NAME-NOT-COVERED",
    "TLS-NAME-UNDERSCORE",
    "TLS-NO-SAN",
    "TLS-NO-SERVER-AUTH",
    "TLS-OTHER-CA",
    "TLS-PATH-LENGTH",
    "TLS-ROOT-EXPIRED",
    "TLS-UNUSUAL-KEY",
    "TLS-WEAK-KEY",
    "TLS-WEAK-SIGNATURE",
    "TLS-WILDCARD",
    "TLS-X509-V1",
];

/// The severity of a [`Finding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Information only.
    Info,
    /// Some clients refuse, or soon will.
    Warning,
    /// Clients refuse now.
    Error,
}

/// What an operator should know about a certificate or key in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable code, such as `TLS-EXPIRED`.
    pub code: &'static str,
    /// The severity.
    pub severity: Severity,
    /// Where the material came from.
    pub origin: String,
    /// The certificate's subject, or the key's file.
    pub subject: String,
    /// The finding, in one sentence.
    pub message: String,
    /// The fix.
    pub fix: String,
    /// The clients that refuse the certificate because of it.
    #[serde(skip_serializing_if = "Clients::is_empty")]
    pub refused_by: Clients,
}

impl Finding {
    /// Returns true if the finding affects clients enough to fail `spiced tls check`. With `strict`, every effect on
    /// clients counts, and so does every warning.
    pub fn fails(&self, strict: bool) -> bool {
        let refused = !self.refused_by.is_empty();
        match self.severity {
            Severity::Error => true,
            Severity::Warning => refused || strict,
            Severity::Info => refused && strict,
        }
    }
}

/// Returns the severity of a finding for which these clients refuse.
pub(crate) fn severity(refused_by: Clients) -> Severity {
    if refused_by.is_all() { Severity::Error } else { Severity::Warning }
}

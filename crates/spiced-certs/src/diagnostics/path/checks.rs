//! Faults of the single certificates of a path: of an issuer, of a root, of a signature and of the leaf.

use std::time::SystemTime;

use super::fault::{Fault, Verified};
use super::trust::Roots;
use crate::diagnostics::compatibility::Clients;
use crate::diagnostics::facts::{Facts, Hash};

/// Finds the faults for which `issuer` cannot issue `child`, with `below` intermediates between `issuer` and the leaf.
pub(super) fn issuer_faults(
    issuer: &Facts<'_>,
    child: &Facts<'_>,
    child_is_leaf: bool,
    below: usize,
    is_root: bool,
    found: &mut Verified,
) {
    let (name, below_name) = (issuer.subject(), child.subject());
    let again = || "have the certificate issued by a CA that may issue it, and replace the whole file".to_owned();
    let mut fault = |code, refused_by, message: String, fix: String| {
        found.faults.push(Fault { code, refused_by, message, fix });
    };
    // A version 1 root is a CA only because clients trust it.
    let is_ca = issuer.is_ca() || is_root && issuer.is_v1();
    if !is_ca {
        fault(
            "TLS-ISSUER-NOT-CA",
            Clients::ALL,
            format!("{name}, which issued {below_name}, is not a CA (basicConstraints does not say CA:TRUE)"),
            again(),
        );
    }
    if issuer.key_usage().is_some_and(|usage| !usage.key_cert_sign()) {
        fault(
            "TLS-ISSUER-KEY-USAGE",
            Clients::ALL,
            format!("{name}, which issued {below_name}, may not sign certificates (keyUsage lacks keyCertSign)"),
            again(),
        );
    }
    if let Some(most) = issuer.path_length().filter(|most| below > *most as usize) {
        let of_root = Clients::ALL.without(Clients::JAVA).without(Clients::GRPCIO).without(Clients::RUSTLS);
        fault(
            "TLS-PATH-LENGTH",
            if is_root { of_root } else { Clients::ALL },
            format!("{name} allows {most} intermediates below it (pathLenConstraint), and there are {below}"),
            again(),
        );
    }
    if let Some(usage) = issuer.extended_key_usage().filter(|usage| !usage.server_auth) {
        // Java, BoringSSL and webpki do not check the usage of a root.
        let of_root = Clients::LIBSSL.or(Clients::GO).or(Clients::BROWSERS);
        let all = if is_root { of_root } else { Clients::ALL.without(Clients::JAVA) };
        fault(
            "TLS-ISSUER-USAGE",
            if usage.any { all.without(Clients::GO) } else { all },
            format!("{name} may not issue certificates for servers (extendedKeyUsage lacks serverAuth)"),
            again(),
        );
    }
    if let Some(oid) = issuer.unknown_critical() {
        fault(
            "TLS-CRITICAL-EXTENSION",
            Clients::ALL,
            format!("{name} has a critical extension that clients do not know ({oid})"),
            again(),
        );
    }
    // Without a policy in the certificate, a CA that requires one makes the clients refuse that check policies.
    let requires_policy = issuer.has_critical(POLICY_CONSTRAINTS) && !child.has_extension(CERTIFICATE_POLICIES);
    for (applies, extension, refused_by) in [
        (requires_policy, "policyConstraints", Clients::ALL.without(Clients::LIBSSL)),
        (issuer.has_critical(INHIBIT_ANY_POLICY), "inhibitAnyPolicy", Clients::GO.or(Clients::RUSTLS)),
    ] {
        if applies && !is_root {
            fault(
                "TLS-CRITICAL-EXTENSION",
                refused_by,
                format!("{name} has the critical extension {extension}: {} what it issues", refused_by.refuse()),
                again(),
            );
        }
    }
    if let Some(id) = child.authority_key() {
        let names_key = id.key_identifier.as_ref().zip(issuer.subject_key()).is_some_and(|(id, key)| id.0 != key);
        let names_serial = id.authority_cert_serial.is_some_and(|serial| serial != issuer.x509.raw_serial());
        let refused = match (names_key, names_serial) {
            (true, _) if !child_is_leaf => Clients::LIBSSL.or(Clients::GRPCIO).or(Clients::JAVA),
            (true, _) | (_, true) => Clients::LIBSSL.or(Clients::GRPCIO),
            _ => Clients::NONE,
        };
        if !refused.is_empty() {
            fault(
                "TLS-ISSUER-KEY-ID",
                refused,
                format!(
                    "{below_name} names another certificate as its issuer's than that of {name} \
                     (authorityKeyIdentifier)"
                ),
                "replace the intermediate with the one that the CA delivered with the certificate".to_owned(),
            );
        }
    }
    if issuer.rsa_bits().is_some_and(|bits| bits < 2048) {
        fault(
            "TLS-WEAK-KEY",
            Clients::LIBSSL.or(Clients::RUSTLS).or(Clients::BROWSERS),
            format!("{name}, which issued {below_name}, has a key that is too short: {}", issuer.key()),
            "have the certificate issued by a CA with a P-256 key, or RSA of 2048 bits or more".to_owned(),
        );
    }
    if issuer.key().starts_with("Ed") {
        fault(
            "TLS-UNUSUAL-KEY",
            Clients::BROWSERS,
            format!("{name}, which issued {below_name}, has a key that browsers do not know: {}", issuer.key()),
            "have the certificate issued by a CA with a P-256 or an RSA key".to_owned(),
        );
    }
}

pub(super) fn expired_root(root: &Facts<'_>, now: SystemTime, found: &mut Verified) {
    let at = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    if root.x509.validity().not_after.timestamp() < at {
        found.faults.push(Fault {
            code: "TLS-ROOT-EXPIRED",
            refused_by: Clients::ALL.without(Clients::JAVA).without(Clients::RUSTLS),
            message: format!("the root {} has expired", root.subject()),
            fix: "have the certificate issued by a CA whose root is in date, and have clients trust that".to_owned(),
        });
    }
}

/// Reports a presented root that clients with the given roots do not trust.
pub(super) fn not_the_given(root: &Facts<'_>, roots: &Roots, found: &mut Verified) {
    if roots.are_given() && !roots.holds(root) {
        found.faults.push(Fault {
            code: "TLS-OTHER-CA",
            refused_by: Clients::ALL,
            message: format!("the chain leads to {}, which is not among the certificates of --ca", root.subject()),
            fix: "give clients that root, or have the certificate issued by the CA that they trust".to_owned(),
        });
    }
}

/// Finds faults in how a certificate of the path is signed. No client verifies a root's own signature.
pub(super) fn signature_faults(one: &Facts<'_>, found: &mut Verified) {
    if one.is_self_issued() {
        return;
    }
    let (hash, refused) = match one.hash() {
        Hash::Good => return,
        Hash::Md5 => ("MD5", Clients::ALL),
        Hash::Sha1 => ("SHA-1", Clients::ALL.without(Clients::JAVA).without(Clients::GRPCIO)),
        Hash::Sha224 => ("SHA-224", Clients::GO.or(Clients::RUSTLS).or(Clients::BROWSERS)),
    };
    found.faults.push(Fault {
        code: "TLS-WEAK-SIGNATURE",
        refused_by: refused,
        message: format!("{} is signed with {hash}: {} it", one.subject(), refused.refuse()),
        fix: "have it issued again, signed with SHA-256".to_owned(),
    });
}

/// Returns why a client that applies RFC 5280 §4.2.1 strictly refuses the certificate.
pub(super) fn strict_fault(one: &Facts<'_>) -> Option<String> {
    let name = one.subject();
    if one.is_v1() {
        return None;
    }
    if !one.is_self_issued() && one.authority_key().and_then(|id| id.key_identifier).is_none() {
        return Some(format!("{name} does not name its issuer's key (authorityKeyIdentifier)"));
    }
    if one.is_ca() && one.subject_key().is_none() {
        return Some(format!("{name} is a CA's and has no key identifier (subjectKeyIdentifier)"));
    }
    if one.is_ca() && one.key_usage().is_none() {
        return Some(format!("{name} is a CA's and has no key usage"));
    }
    None
}

const CERTIFICATE_POLICIES: &str = "2.5.29.32";

const POLICY_CONSTRAINTS: &str = "2.5.29.36";

const INHIBIT_ANY_POLICY: &str = "2.5.29.54";

/// Extensions that some clients do not support, and refuse if they are critical.
const CRITICAL: [(&str, &str, Clients); 7] = [
    ("1.3.6.1.5.5.7.1.1", "authorityInfoAccess", Clients::ALL.without(Clients::GO)),
    ("2.5.29.18", "issuerAltName", Clients::ALL),
    ("2.5.29.31", "cRLDistributionPoints", Clients::GRPCIO.or(Clients::JAVA)),
    (CERTIFICATE_POLICIES, "certificatePolicies", Clients::RUSTLS),
    (POLICY_CONSTRAINTS, "policyConstraints", Clients::RUSTLS),
    (INHIBIT_ANY_POLICY, "inhibitAnyPolicy", Clients::RUSTLS),
    ("2.16.840.1.113730.1.1", "netscapeCertType", Clients::RUSTLS),
];

pub(super) fn leaf_faults(leaf: &Facts<'_>, found: &mut Verified) {
    let mut fault = |code, refused_by: Clients, message: String, fix: &str| {
        found.faults.push(Fault { code, refused_by, message, fix: fix.to_owned() });
    };
    if leaf.is_v1() {
        fault(
            "TLS-X509-V1",
            Clients::GO.or(Clients::RUSTLS).or(Clients::BROWSERS),
            "the certificate is X.509 version 1, which has no subject alternative names: Go, browsers and rustls \
             refuse it; `openssl x509 -req` makes one without -extfile"
                .to_owned(),
            "have it issued again, with extensions: openssl x509 -req -extfile FILE",
        );
    }
    if leaf.is_ca() {
        fault(
            "TLS-LEAF-IS-CA",
            Clients::RUSTLS.or(Clients::BROWSERS),
            "the certificate is a CA's: rustls and browsers refuse it as a server's".to_owned(),
            "sign a server certificate with it, or make one with -addext basicConstraints=CA:FALSE",
        );
    }
    if let Some(usage) = leaf.extended_key_usage().filter(|usage| !usage.server_auth) {
        // Netscape's Server Gated Crypto, from the 1990s.
        let is_gated_crypto = usage.other.iter().any(|oid| oid.to_id_string() == "2.16.840.1.113730.4.1");
        let refused = match usage.any {
            _ if is_gated_crypto => Clients::ALL.without(Clients::LIBSSL).without(Clients::JAVA),
            true => Clients::ALL.without(Clients::GO).without(Clients::JAVA),
            false => Clients::ALL,
        };
        fault(
            "TLS-NO-SERVER-AUTH",
            refused,
            format!("the certificate's extended key usage leaves out server authentication: {} it", refused.refuse()),
            "have it issued with extendedKeyUsage=serverAuth",
        );
    }
    if let Some(usage) = leaf.key_usage().filter(|usage| !usage.digital_signature()) {
        let refused = Clients::JAVA.or(Clients::GRPCIO).or(Clients::BROWSERS);
        let refused = match usage.key_encipherment() || usage.key_agreement() {
            true => refused,
            false => refused.or(Clients::LIBSSL),
        };
        fault(
            "TLS-KEY-USAGE",
            refused,
            format!("the certificate's key usage leaves out digitalSignature: {} it", refused.refuse()),
            "have it issued with keyUsage=digitalSignature",
        );
    }
    if let Some(oid) = leaf.unknown_critical() {
        fault(
            "TLS-CRITICAL-EXTENSION",
            Clients::ALL,
            format!("the certificate has a critical extension that clients do not know ({oid})"),
            "have it issued without that extension, or with the extension not critical",
        );
    }
    for (oid, name, refused_by) in CRITICAL {
        if leaf.has_critical(oid) {
            fault(
                "TLS-CRITICAL-EXTENSION",
                refused_by,
                format!("the certificate's extension {name} is critical: {} it", refused_by.refuse()),
                "have it issued with that extension not critical",
            );
        }
    }
    let key = leaf.key();
    if ["Ed25519", "ECDSA on P-521"].contains(&key.as_str()) {
        fault(
            "TLS-UNUSUAL-KEY",
            Clients::GRPCIO.or(Clients::BROWSERS),
            format!("the key is {key}: browsers and grpcio (BoringSSL) refuse it"),
            "have it issued for a P-256 or an RSA key",
        );
    }
    if leaf.rsa_bits().is_some_and(|bits| bits < 2047) {
        fault(
            "TLS-WEAK-KEY",
            Clients::LIBSSL.or(Clients::RUSTLS).or(Clients::BROWSERS),
            format!("the key is too short: {key}"),
            "have it issued for a P-256 key, or RSA of 2048 bits or more",
        );
    }
    if leaf.x509.subject().as_raw().len() <= 2 && !leaf.alternative_names_are_critical() {
        fault(
            "TLS-EMPTY-SUBJECT",
            Clients::JAVA.or(Clients::BROWSERS),
            "the certificate has no subject, and its alternative names are not critical: Java and Chromium refuse it"
                .to_owned(),
            "have it issued with a subject, or with subjectAltName=critical,DNS:NAME",
        );
    }
}

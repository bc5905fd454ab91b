//! Metrics of the certificates in use, read from the rotation channel at each scrape, so that a replaced certificate
//! leaves no stale series behind.

use std::fmt::Write;

use tls_core::ClientAuthPolicy;
use tls_core::rotation::Identities;

use crate::metric::{CLIENT_CA_NOT_AFTER, METRICS, NOT_AFTER, NOT_BEFORE};

pub(crate) fn render(served: &[(&'static str, Identities)], out: &mut String) {
    if served.is_empty() {
        return;
    }
    for name in [NOT_AFTER, NOT_BEFORE] {
        let mut write = || -> std::fmt::Result {
            head(name, out)?;
            for (endpoint, identities) in served {
                for identity in identities.served().identities.iter() {
                    let leaf = identity.leaf();
                    let at = if name == NOT_AFTER { leaf.not_after } else { leaf.not_before };
                    writeln!(
                        out,
                        "{name}{{endpoint=\"{endpoint}\",subject=\"{}\",fingerprint=\"{}\",origin=\"{}\"}} {at}",
                        escaped(&leaf.subject),
                        leaf.fingerprint,
                        escaped(&identity.certificate_origin().to_string()),
                    )?;
                }
            }
            Ok(())
        };
        write().expect("writing to a String does not fail");
    }
}

/// Writes the metrics of the CAs whose client certificates are accepted.
pub(crate) fn render_clients(trust: &ClientAuthPolicy, out: &mut String) {
    if trust.authorities().is_empty() {
        return;
    }
    let mut write = || -> std::fmt::Result {
        head(CLIENT_CA_NOT_AFTER, out)?;
        for authority in trust.authorities() {
            writeln!(
                out,
                "{CLIENT_CA_NOT_AFTER}{{subject=\"{}\",fingerprint=\"{}\"}} {}",
                escaped(&authority.subject),
                authority.fingerprint,
                authority.not_after,
            )?;
        }
        Ok(())
    };
    write().expect("writing to a String does not fail");
}

fn head(name: &str, out: &mut String) -> std::fmt::Result {
    let help = METRICS.iter().find(|m| m.name == name).map_or("", |m| m.help);
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge")
}

/// Escapes a label's value for the text format.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn labels_are_escaped() {
        assert_eq!(super::escaped("O=\"A\\B\"\n"), "O=\\\"A\\\\B\\\"\\n");
    }
}

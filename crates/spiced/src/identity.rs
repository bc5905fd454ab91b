//! From the settings to what every door presents: read, checked, said, and put on the channel.

use std::path::PathBuf;

use spiced_certs::{Finding, Input, LoadError, Outcome, Pair, Reloader, SelfSigned, Severity, load};
use spiced_config::{Material, MaterialInput, Tls, TlsVersion};
use tls_core::rotation::{self, Identities};
use tls_core::{Derivation, MinVersion, Secret, Sourced, TlsOptions};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::failure::Failure;

/// What the doors need to speak TLS, and who changes it.
pub(crate) struct Served {
    pub(crate) identities: Identities,
    pub(crate) options: TlsOptions,
    pub(crate) reloader: Reloader,
    /// The CA file of a development certificate, for the lines to paste.
    pub(crate) development_ca: Option<PathBuf>,
}

/// Reads the material of `tls`. `ticket_secret` is what replicas share; `followed` are the values of
/// the settings that refer to secrets, as [`crate::secrets::follow`] gives them.
pub(crate) fn establish(
    tls: Tls,
    ticket_secret: Option<&Secret>,
    followed: Vec<watch::Receiver<Secret>>,
) -> Result<Served, Failure> {
    let (mut pair, development_ca) = material(tls.material, followed)?;
    let loaded = load(&mut pair).map_err(|e| Failure::configuration(&e, e.hint()))?;
    // A development CA of ours has no intermediates, and its user knows.
    let worth_saying = |finding: &&Finding| development_ca.is_none() || finding.severity > Severity::Info;
    loaded.findings.iter().filter(worth_saying).for_each(say);
    let tickets = match ticket_secret {
        Some(secret) => Derivation::new(secret),
        None => Derivation::random().map_err(|e| Failure::Other(e.to_string()))?,
    };
    let min_version = match tls.min_version {
        TlsVersion::Tls12 => MinVersion::Tls12,
        TlsVersion::Tls13 => MinVersion::Tls13,
    };
    let (publisher, identities) = rotation::channel(loaded.identity);
    Ok(Served {
        identities,
        options: TlsOptions { min_version, tickets },
        reloader: Reloader::new(pair, publisher),
        development_ca,
    })
}

/// Where certificate and key are, and the CA file of a development pair, which is made where it is missing.
/// `followed` are the values that refer to secrets, in order.
pub(crate) fn material(
    material: Material,
    followed: Vec<watch::Receiver<Secret>>,
) -> Result<(Pair, Option<PathBuf>), Failure> {
    let mut followed = followed.into_iter();
    match material {
        Material::Pair { certificate, key } => {
            Ok((Pair { certificate: input(certificate, &mut followed), key: input(key, &mut followed) }, None))
        }
        Material::SelfSigned { folder, origin } => {
            let made = SelfSigned::new(&folder);
            let pair = made.ensure(&origin).map_err(|e| {
                Failure::configuration(e, "make the pod's folder writable, or give a certificate and key of your own")
            })?;
            Ok((pair, Some(made.ca_file())))
        }
    }
}

/// How a reload ended, as far as it matters to what is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reloaded {
    /// Certificate and key are no pair: one of them may have changed before the other.
    Mismatch,
    /// Anything else.
    Done,
}

/// Reads the material again and says how that ended.
pub(crate) fn reload(reloader: &mut Reloader) -> Reloaded {
    match reloader.reload() {
        Outcome::Swapped(findings) => {
            info!("the TLS certificate was reloaded; the next handshake uses it");
            findings.iter().for_each(say);
        }
        Outcome::Unchanged => info!("the TLS certificate was read again and is unchanged"),
        Outcome::Rejected(reason) => {
            error!(%reason, hint = reason.hint(), "the new TLS certificate is rejected; the one before goes on serving");
            if matches!(reason, LoadError::NotAPair(_)) {
                return Reloaded::Mismatch;
            }
        }
    }
    Reloaded::Done
}

fn say(finding: &Finding) {
    let Finding { code, origin, subject, message, fix, .. } = finding;
    match finding.severity {
        Severity::Error => error!(code, origin, subject, fix, "{message}"),
        Severity::Warning => warn!(code, origin, subject, fix, "{message}"),
        Severity::Info => info!(code, origin, subject, fix, "{message}"),
    }
}

fn input(from: Sourced<MaterialInput>, followed: &mut impl Iterator<Item = watch::Receiver<Secret>>) -> Sourced<Input> {
    from.map(|value| match value {
        MaterialInput::File(path) => Input::File(path),
        MaterialInput::Text(text) => Input::Text(text),
        MaterialInput::Secrets { value, .. } => followed.next().map_or(Input::Text(value), Input::Watched),
    })
}

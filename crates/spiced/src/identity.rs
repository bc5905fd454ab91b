//! From the settings to what every door presents: read, checked, said, and put on the channel.

use std::path::PathBuf;
use std::sync::Arc;

use spiced_certs::{
    ClientMaterial, Finding, Input, LoadError, Outcome, Pair, Reloader, SelfSigned, Severity, load, load_clients,
};
use spiced_config::{Material, MaterialInput, Tls, TlsVersion};
use tls_core::rotation::{self, Identities};
use tls_core::{ClientAuth, ClientTrust, Derivation, MinVersion, Secret, ServerTls, Sourced, TlsOptions};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::failure::Failure;

/// What the doors need to speak TLS, and who changes it.
pub(crate) struct Served {
    pub(crate) identities: Identities,
    /// Whose client certificates are taken; `None` where no client is asked.
    pub(crate) clients: Option<watch::Receiver<Arc<ClientTrust>>>,
    pub(crate) tls: ServerTls,
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
    let mut followed = followed.into_iter();
    let (mut pair, development_ca) = material(tls.material, &mut followed)?;
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
    let options = TlsOptions { min_version, tickets };
    let (publisher, identities) = rotation::channel(loaded.identity);
    let reloader = Reloader::new(pair, publisher);
    let refused = |e: rustls::Error| Failure::Other(e.to_string());
    let (clients, server, reloader) = match tls.clients {
        None => (None, options.server(identities.clone()).map_err(refused)?, reloader),
        Some(clients) => {
            let mut material = ClientMaterial {
                mode: if clients.required { ClientAuth::Required } else { ClientAuth::Request },
                authority: input(clients.authority, &mut followed),
                lists: clients.lists.into_iter().map(|list| list.map(Input::File)).collect(),
            };
            let loaded = load_clients(&mut material).map_err(|e| Failure::configuration(&e, e.hint()))?;
            loaded.findings.iter().for_each(say);
            let (sender, trust) = watch::channel(Arc::new(loaded.trust));
            let server = options.server_asking(identities.clone(), trust.clone()).map_err(refused)?;
            (Some(trust), server, reloader.with_clients(material, sender))
        }
    };
    Ok(Served { identities, clients, tls: server, reloader, development_ca })
}

/// Where certificate and key are, and the CA file of a development pair, which is made where it is missing.
/// `followed` are the values that refer to secrets, in order.
pub(crate) fn material(
    material: Material,
    mut followed: &mut impl Iterator<Item = watch::Receiver<Secret>>,
) -> Result<(Pair, Option<PathBuf>), Failure> {
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

/// Reads the material again and says how that ended.
pub(crate) fn reload(reloader: &mut Reloader) -> Outcome {
    let outcome = reloader.reload();
    match &outcome {
        Outcome::Swapped(findings) => {
            info!("the TLS material was reloaded; the next handshake uses it");
            findings.iter().for_each(say);
        }
        Outcome::Unchanged => info!("the TLS material was read again and is unchanged"),
        Outcome::Rejected(reason) => {
            error!(%reason, hint = reason.hint(), "the new TLS material is rejected; what was before goes on serving");
        }
    }
    outcome
}

/// True where certificate and key are no pair: one of them may have changed before the other.
pub(crate) fn is_mismatch(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Rejected(LoadError::NotAPair(_)))
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

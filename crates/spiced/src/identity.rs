//! From the settings to what every door presents: read, checked, said, and put on the channel.

use std::path::PathBuf;
use std::sync::Arc;

use spiced_certs::{
    ClientMaterial, FileWatch, Finding, Input, Outcome, Pair, Reloader, SelfSigned, Severity, Sources, load,
    load_clients,
};
use spiced_config::{Clients, Material, MaterialInput, Tls, TlsVersion};
use tls_core::rotation::{self, Identities};
use tls_core::{ClientAuth, ClientTrust, Derivation, MinVersion, Secret, ServerTls, Sourced, TlsOptions};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::failure::Failure;

/// What the doors need to speak TLS, and who changes it.
pub(crate) struct Served {
    pub(crate) identities: Identities,
    /// Whose client certificates are taken.
    pub(crate) clients: watch::Receiver<Arc<ClientTrust>>,
    pub(crate) tls: ServerTls,
    pub(crate) reloader: Reloader,
    /// The files that it reloads from.
    pub(crate) files: FileWatch,
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
    let (mut sources, development_ca) = sources(tls.material, tls.clients, followed)?;
    // Before they are read: what changes meanwhile is seen later.
    let files = FileWatch::new(sources.files());
    let loaded = load(&mut sources.pair).map_err(|e| Failure::configuration(&e, e.hint()))?;
    // A development CA of ours has no intermediates, and its user knows.
    let worth_saying = |finding: &&Finding| development_ca.is_none() || finding.severity > Severity::Info;
    loaded.findings.iter().filter(worth_saying).for_each(say);
    let trust = match &mut sources.clients {
        Some(material) => {
            let loaded = load_clients(material).map_err(|e| Failure::configuration(&e, e.hint()))?;
            loaded.findings.iter().for_each(say);
            loaded.trust
        }
        None => ClientTrust::nobody(),
    };
    let tickets = match ticket_secret {
        Some(secret) => Derivation::new(secret),
        None => Derivation::random().map_err(|e| Failure::Other(e.to_string()))?,
    };
    let min_version = match tls.min_version {
        TlsVersion::Tls12 => MinVersion::Tls12,
        TlsVersion::Tls13 => MinVersion::Tls13,
    };
    let (publisher, identities) = rotation::channel(loaded.identity);
    let (sender, clients) = watch::channel(Arc::new(trust));
    let server = TlsOptions { min_version, tickets }
        .server_asking(identities.clone(), clients.clone())
        .map_err(|e| Failure::Other(e.to_string()))?;
    let reloader = Reloader::with_clients(sources, publisher, sender);
    Ok(Served { identities, clients, tls: server, reloader, files, development_ca })
}

/// Where the material is that the settings name. `followed` are the values that refer to secrets, in order.
pub(crate) fn sources(
    material: Material,
    clients: Option<Clients>,
    followed: Vec<watch::Receiver<Secret>>,
) -> Result<(Sources, Option<PathBuf>), Failure> {
    let mut followed = followed.into_iter();
    let (pair, development_ca) = self::material(material, &mut followed)?;
    let clients = clients.map(|clients| ClientMaterial {
        mode: if clients.required { ClientAuth::Required } else { ClientAuth::Request },
        authority: input(clients.authority, &mut followed),
        lists: clients.lists.into_iter().map(|list| list.map(Input::File)).collect(),
    });
    Ok((Sources { pair, clients }, development_ca))
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

/// Says how a reload ended.
pub(crate) fn tell(outcome: &Outcome) {
    match outcome {
        Outcome::Swapped(findings) => {
            info!("the TLS material was reloaded; the next handshake uses it");
            findings.iter().for_each(say);
        }
        Outcome::Unchanged => info!("the TLS material was read again and is unchanged"),
        Outcome::Rejected(reason) => {
            error!(%reason, hint = reason.hint(), "the new TLS material is rejected; what was before goes on serving");
        }
    }
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

//! From the settings to the certificates that every endpoint presents: loads, checks, reports and publishes them.

pub(crate) mod expiry;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use spiced_certs::{
    ClientMaterial, FileWatch, Finding, Input, LoadError, Outcome, Pair, Reloader, SelfSigned, Severity, Sources,
    Started,
};
use spiced_config::{Material, MaterialInput, Tls, TlsVersion};
use spiced_secrets::SecretValue;
use tls_core::rotation::Identities;
use tls_core::{ClientAuth, ClientAuthPolicy, KeyDeriver, MinVersion, Secret, ServerTls, Sourced, TlsOptions};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::failure::Failure;

/// The maximum number of causes that a failed start lists, and of findings of one kind that are logged.
const MAX_CAUSES: usize = 10;

/// The TLS state of the endpoints, and the reloader that changes it.
pub(crate) struct Served {
    pub(crate) identities: Identities,
    /// Which client certificates are accepted.
    pub(crate) clients: watch::Receiver<Arc<ClientAuthPolicy>>,
    pub(crate) tls: ServerTls,
    pub(crate) reloader: Reloader,
    /// The files that the reloader watches.
    pub(crate) files: FileWatch,
    /// The CA file of a development certificate, for client snippets.
    pub(crate) development_ca: Option<PathBuf>,
}

/// Subscribes to a value that refers to secrets; `None` for a value that does not, and if nothing is watched.
pub(crate) type Subscribe<'s> = &'s mut dyn FnMut(&Sourced<SecretValue>) -> Option<watch::Receiver<Secret>>;

/// Loads the certificates and keys of `tls`. `ticket_secret` is the secret that replicas share. With
/// `insecure_key_log`, TLS keys are logged.
pub(crate) fn establish(
    tls: Tls,
    ticket_secret: Option<&Secret>,
    subscribe: Subscribe<'_>,
    insecure_key_log: bool,
) -> Result<Served, Failure> {
    let min_version = match tls.min_version {
        TlsVersion::Tls12 => MinVersion::Tls12,
        TlsVersion::Tls13 => MinVersion::Tls13,
    };
    let (sources, development) = sources(tls, subscribe);
    let development_ca = match &development {
        Some(made) => {
            make(made)?;
            Some(made.ca_file())
        }
        None => None,
    };
    // Created before the files are read, so that a change in between is noticed.
    let files = FileWatch::new(sources.files());
    let Started { identities, clients, findings, reloader } =
        Reloader::start(sources).map_err(|errors| refused(&errors))?;
    // A development CA has no intermediates, and its user knows that.
    let worth_saying = |finding: &&Finding| development.is_none() || finding.severity > Severity::Info;
    say_all(findings.iter().filter(worth_saying));
    let tickets = match ticket_secret {
        Some(secret) => KeyDeriver::new(secret),
        None => KeyDeriver::random().map_err(|e| Failure::Other(e.to_string()))?,
    };
    let server = TlsOptions { min_version, tickets, insecure_key_log }
        .server_asking(identities.clone(), clients.clone())
        .map_err(|e| Failure::Other(e.to_string()))?;
    Ok(Served { identities, clients, tls: server, reloader, files, development_ca })
}

/// Reports each cause once, at most [`MAX_CAUSES`] of them.
fn refused(errors: &[LoadError]) -> Failure {
    let (mut causes, mut hints): (Vec<String>, Vec<String>) =
        errors.iter().take(MAX_CAUSES).map(|e| (e.to_string(), e.hint().to_owned())).unzip();
    if errors.len() > MAX_CAUSES {
        causes.push(format!("and {} more", errors.len() - MAX_CAUSES));
        hints.push("spiced tls check lists all".to_owned());
    }
    Failure::Configuration { causes, hints }
}

/// Creates the parts of a development CA and leaf certificate that are missing.
pub(crate) fn make(development: &SelfSigned) -> Result<(), Failure> {
    let made = development.ensure().map_err(|e| {
        Failure::configuration(e, "make the pod's directory writable, or set your own certificate and key")
    });
    made.map(|_new| ())
}

/// Returns the sources of the material that the settings name, and the development CA and leaf if the settings ask for
/// them. Creates nothing yet.
pub(crate) fn sources(tls: Tls, subscribe: Subscribe<'_>) -> (Sources, Option<SelfSigned>) {
    let (pair, development) = match tls.material {
        Material::Pair(pair) => (self::pair(*pair, subscribe), None),
        Material::SelfSigned { folder, origin } => {
            let made = SelfSigned::new(&folder);
            (made.pair(&origin), Some(made))
        }
    };
    let more = tls.more.into_iter().map(|one| self::pair(one, subscribe)).collect();
    let clients = tls.clients.map(|clients| ClientMaterial {
        mode: if clients.required { ClientAuth::Required } else { ClientAuth::Request },
        authority: input(clients.authority, subscribe),
        lists: clients.lists.into_iter().map(|list| list.map(Input::File)).collect(),
    });
    let accept_findings = tls.accept_findings;
    (Sources { pair, more, strict_sni: tls.strict_sni, clients, accept_findings }, development)
}

fn pair(pair: spiced_config::Pair, subscribe: Subscribe<'_>) -> Pair {
    Pair {
        certificate: input(pair.certificate, subscribe),
        key: input(pair.key, subscribe),
        passphrase: pair.passphrase.map(|passphrase| input(passphrase, subscribe)),
    }
}

/// Logs the outcome of a reload.
pub(crate) fn tell(outcome: &Outcome) {
    match outcome {
        Outcome::Swapped(findings) => {
            info!("the TLS material was reloaded; the next handshake uses it");
            say_all(findings);
        }
        Outcome::Unchanged => info!("the TLS material was read again and is unchanged"),
        Outcome::Rejected(reason) => {
            error!(%reason, hint = hint(reason), "the new TLS material is rejected; the current material stays in use");
        }
    }
}

/// Returns what to change, and, for a refusal, how to accept the material anyway.
pub(crate) fn hint(error: &LoadError) -> String {
    match error {
        LoadError::Refused { finding, .. } | LoadError::LocksOut { finding } | LoadError::OlderList { finding } => {
            format!(
                "{}; to accept it anyway: POST /v1/tls/reload?force=true, or runtime.tls.accept_findings: [{}]",
                finding.fix, finding.code
            )
        }
        other => other.hint().to_owned(),
    }
}

/// Logs the findings. Of many findings with the same code, logs the first few and the number of the others.
pub(crate) fn say_all<'f>(findings: impl IntoIterator<Item = &'f Finding>) {
    let mut said: BTreeMap<&str, usize> = BTreeMap::new();
    for finding in findings {
        let count = said.entry(finding.code).or_default();
        *count += 1;
        if *count <= MAX_CAUSES {
            say(finding);
        }
    }
    for (code, count) in said.into_iter().filter(|(_, count)| *count > MAX_CAUSES) {
        warn!(code, more = count - MAX_CAUSES, "there are more findings of this kind; spiced tls check lists all");
    }
}

pub(crate) fn say(finding: &Finding) {
    let Finding { code, origin, subject, message, fix, .. } = finding;
    match finding.severity {
        Severity::Error => error!(code, origin, subject, fix, "{message}"),
        Severity::Warning => warn!(code, origin, subject, fix, "{message}"),
        Severity::Info => info!(code, origin, subject, fix, "{message}"),
    }
}

fn input(from: Sourced<MaterialInput>, subscribe: Subscribe<'_>) -> Sourced<Input> {
    let Sourced { value, origin } = from;
    match value {
        MaterialInput::File(path) => Sourced::new(Input::File(path), origin),
        MaterialInput::Text(value) => {
            let value = Sourced::new(value, origin);
            let watched = subscribe(&value).map(Input::Watched);
            value.map(|value| watched.unwrap_or_else(|| Input::Text(value.current().clone())))
        }
    }
}

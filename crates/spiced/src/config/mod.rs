//! From the command line to the settings: reads the layers, opens the secret stores, and resolves the settings.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use spiced_config::{ConfigError, Layers, Problem, Settings, SettingsError};
use spiced_secrets::{ResolveErrors, Resolver, StoreEnv};
use tls_core::redact::without_secrets;

use crate::args::{PodArgs, known_options};
use crate::failure::Failure;

/// Loads the settings. Also returns the stores that resolved their references.
pub(crate) async fn settle(pod: &PodArgs) -> Result<(Settings, Resolver), Failure> {
    let layers = read(pod)?;
    let resolver = open(&layers).await?;
    let settings = layers.settle(async |values| resolver.resolve_all(values).await).await;
    let settings = settings.map_err(failed)?;
    let accepted = settings.runtime.tls.iter().flat_map(|tls| &tls.accept_findings);
    if let Some(unknown) = accepted.into_iter().find(|code| !spiced_certs::REFUSALS.contains(&code.as_str())) {
        return Err(Failure::configuration(
            without_secrets(&format!(
                "runtime.tls.accept_findings: `{unknown}` is not a finding for which clients refuse a certificate"
            )),
            format!("known here: {}", spiced_certs::REFUSALS.join(", ")),
        ));
    }
    Ok((settings, resolver))
}

/// Turns the errors of loading into the failure of the run.
pub(crate) fn failed(why: SettingsError<ResolveErrors>) -> Failure {
    match why {
        SettingsError::Config(e) => e.into(),
        SettingsError::Secrets(e) => secrets(&e),
        SettingsError::Both(config, e) => Failure::from(config).and(secrets(&e)),
    }
}

/// Returns the pod's files and those of the `env` store, whether or not they exist yet.
pub(crate) fn files(pod: &PodArgs) -> Vec<PathBuf> {
    let path = pod.path();
    let (folder, names): (&Path, &[&str]) = match path.is_dir() {
        true => (path, &["spicepod.yaml", "spicepod.yml"]),
        false => (path.parent().unwrap_or(path), &[]),
    };
    let pod = if path.is_dir() { None } else { Some(path.to_owned()) };
    let beside = names.iter().chain(&[".env.local", ".env"]).map(|name| folder.join(name));
    pod.into_iter().chain(beside).collect()
}

/// Reads the raw layers: pod file, environment and options.
pub(crate) fn read(pod: &PodArgs) -> Result<Layers, Failure> {
    Ok(Layers::read(pod.path(), variables()?, &pod.flags(), &known_options())?)
}

/// Opens the stores that the pod declares.
pub(crate) async fn open(layers: &Layers) -> Result<Resolver, Failure> {
    let stores = match layers.stores() {
        Ok(stores) => stores,
        // Reports all other errors together with this one.
        Err(error) => {
            let others = layers.clone().problems().await;
            let is_new = |problem: &Problem| !others.iter().any(|other| other.origin == problem.origin);
            let of_stores: Vec<Problem> = error.0.into_iter().filter(is_new).collect();
            return Err(ConfigError(of_stores.into_iter().chain(others).collect()).into());
        }
    };
    Ok(Resolver::open(stores, &StoreEnv::of_process(layers.folder().to_owned())).await)
}

/// Reads the environment. A variable that is not UTF-8 is ignored, unless it is a setting: a setting must not be lost.
fn variables() -> Result<Vec<(String, String)>, Failure> {
    let mut read = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => read.push((name, value)),
            (Ok(name), Err(_)) if name.starts_with("SPICED_") => {
                return Err(Failure::configuration(
                    format!("{name}: the value is not UTF-8 text"),
                    "set it again, as UTF-8",
                ));
            }
            _ => {}
        }
    }
    Ok(read)
}

/// Reports every reference that did not resolve, each once.
pub(crate) fn secrets(errors: &[ResolveErrors]) -> Failure {
    let mut wrong: Vec<(String, String)> = Vec::new();
    let mut seen = HashSet::new();
    for e in errors.iter().flat_map(|errors| &errors.0) {
        let one = (without_secrets(&format!("{}: {}: {}", e.origin, e.subject, e.problem)), e.hint.clone());
        if seen.insert(one.clone()) {
            wrong.push(one);
        }
    }
    let (causes, hints) = wrong.into_iter().unzip();
    Failure::several(causes, hints)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use testkit::PodDirectory;

    use super::*;
    use crate::args::Args;

    /// A panic may print values by `Debug`; here, all resolved settings.
    #[test]
    fn a_panic_shows_no_secret() {
        let pod = PodDirectory::new(
            "secrets:\n  - { name: v, from: \"hashicorp_vault:a/b\", params: { hashicorp_vault_address: \"https://localhost:1\", hashicorp_vault_token: \"${env:TOKEN}\" } }\n\
             runtime:\n  tls: { certificate: \"${env:CERT}\", key: inline-marked-5, session_ticket_secret: \"${env:TICKETS}\" }\n\
             datasets:\n  - { from: \"file:x\", name: x, params: { password: \"${env:PASSWORD}\" } }\n",
        )
        .with(".env", "TOKEN=marked-1\nCERT=marked-2\nTICKETS=marked-3-which-is-long-enough\nPASSWORD=marked-4\n");
        let args = Args::read(["spiced".into(), pod.path().as_os_str().to_owned()]);
        let Ok((_, pod_args, _)) = args.map(Args::split) else { panic!("the command line is right") };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let settled = runtime.block_on(settle(&pod_args)).map_err(|failure| format!("{failure:?}"));
        let (settings, resolver) = settled.unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| panic!("{:?}", (settings, resolver))));
        let payload = panicked.unwrap_err();
        let message = payload.downcast_ref::<String>().unwrap();
        assert!(message.contains("Secret(***)"), "{message}");
        assert!(!message.contains("marked"), "{message}");
    }
}

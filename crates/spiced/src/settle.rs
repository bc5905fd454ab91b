//! From the command line to the settings: the layers, the stores that answer their references, and
//! what was decided.

use spiced_config::{Explanation, Layers, Resolved, Settings};
use spiced_secrets::{DeclaredStore, Environment, ResolveErrors, Resolver, Surroundings};

use crate::args::PodArgs;
use crate::failure::Failure;

/// From what was said to what was decided, with the names of the stores.
pub(crate) async fn settle(pod: &PodArgs) -> Result<(Settings, Vec<String>), Failure> {
    let (layers, resolver) = read(pod)?;
    let stores = resolver.store_names().map(str::to_owned).collect();
    let settings = layers.settle(async |values| resolver.resolve_all(values).await).await;
    Ok((settings.map_err(failed)?, stores))
}

/// Who said what, and what counts.
pub(crate) async fn explain(pod: &PodArgs) -> Result<Explanation, Failure> {
    let (layers, resolver) = read(pod)?;
    layers.explain(async |values| resolver.resolve_all(values).await).await.map_err(failed)
}

/// What was said, and the stores that it names.
fn read(pod: &PodArgs) -> Result<(Layers, Resolver), Failure> {
    let layers = Layers::read(pod.path(), variables()?, &pod.flags())?;
    let surroundings = Surroundings { pod_folder: layers.folder().to_owned(), environment: Environment::process() };
    let declared = layers
        .stores()?
        .into_iter()
        .map(|s| DeclaredStore { name: s.name, from: s.from, params: s.params, origin: s.origin })
        .collect();
    let resolver = Resolver::new(declared, &surroundings).map_err(|e| secrets(&e))?;
    Ok((layers, resolver))
}

fn failed(why: Resolved<ResolveErrors>) -> Failure {
    match why {
        Resolved::Config(e) => e.into(),
        Resolved::Secrets(e) => secrets(&e),
    }
}

/// The environment. What is not UTF-8 is somebody else's, unless it is a setting: then it must not
/// be lost.
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

fn secrets(errors: &ResolveErrors) -> Failure {
    Failure::Configuration {
        causes: errors.0.iter().map(|e| format!("{}: {}: {}", e.origin, e.subject, e.problem)).collect(),
        hints: errors.0.iter().map(|e| e.hint.clone()).collect(),
    }
}

//! The layers, topmost first: the command line, the environment, `spicepod.yaml`, the defaults. Turns them into one
//! [`Settings`].

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use figment::value::Value;
use figment::{Figment, Provider};
use spiced_secrets::{DeclaredStore, Template};
use tls_core::{Origin, Secret, Sourced};

use crate::problem::{ConfigError, Problem, in_order};
use crate::providers::environment::{self, Environment, KnownOption};
use crate::providers::pod::{Pod, find, not_text, unreadable};
use crate::providers::{CommandLine, Flag, Layer, keys_over_values, merged, merged_values, pointer};
use crate::raw::spicepod::Spicepod;
use crate::resolve::decode::{decode, decode_all};
use crate::resolve::effective::Effective;
use crate::resolve::{api_keys, stores};
use crate::settings::{Settings, Warning};
use crate::tls_source::{self, Switches};

/// The maximum size of a pod file; a larger file is the wrong one.
const MAX_POD_SIZE: u64 = 4 * 1024 * 1024;

/// The raw settings of all layers; nothing is resolved, and no secret has been read yet.
#[derive(Clone)]
pub struct Layers {
    /// The layers, topmost first.
    layers: Vec<Layer>,
    folder: PathBuf,
    is_empty_pod: bool,
    warnings: Vec<Warning>,
    /// Problems of variables, and of values of the pod that are not in its tree.
    problems: Vec<Problem>,
}

/// Omits the values, which may be secrets.
impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Why the layers could not be resolved.
#[derive(Debug)]
pub enum SettingsError<E> {
    /// Settings are wrong.
    Config(ConfigError),
    /// References could not be replaced; one error for each time that they were requested.
    Secrets(Vec<E>),
    /// Both, in one report.
    Both(ConfigError, Vec<E>),
}

impl<E: fmt::Display> fmt::Display for SettingsError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (config, secrets) = match self {
            Self::Config(error) => (Some(error), [].as_slice()),
            Self::Secrets(errors) => (None, errors.as_slice()),
            Self::Both(error, errors) => (Some(error), errors.as_slice()),
        };
        let lines = config.map(ToString::to_string).into_iter().chain(secrets.iter().map(ToString::to_string));
        f.write_str(&lines.collect::<Vec<_>>().join("\n"))
    }
}

/// The message contains those of the causes, so the source is that of a cause.
impl<E: Error> Error for SettingsError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Config(error) | Self::Both(error, _) => error.source(),
            Self::Secrets(errors) => errors.iter().find_map(Error::source),
        }
    }
}

impl<E> From<ConfigError> for SettingsError<E> {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl<E> From<Problem> for SettingsError<E> {
    fn from(problem: Problem) -> Self {
        Self::Config(problem.into())
    }
}

impl Layers {
    /// Reads the pod at `path` (its directory, or the file), and merges the environment and the command line over it.
    /// `options` are all options of the command line: a variable whose name equals one of them, or is similar to a
    /// setting, is an error.
    ///
    /// # Errors
    /// Fails if there is no pod, or if it is not YAML.
    pub fn read(
        path: &Path,
        variables: impl IntoIterator<Item = (String, String)>,
        flags: &[Flag],
        options: &[KnownOption],
    ) -> Result<Self, ConfigError> {
        let (file, folder) = find(path)?;
        let content = spiced_files::read(&file, MAX_POD_SIZE).map_err(|e| unreadable(&e))?;
        let text = content.secret.expose_text().map_err(|_| not_text(&file, content.secret.expose()))?;
        let name = file.file_name().map_or_else(|| file.clone(), PathBuf::from);
        let mut layers = Self::from_text(&name, text, folder, variables, flags, options)?;
        if layers.is_empty_pod {
            let message =
                "the file has no content, so every setting has its default; was it written completely?".to_owned();
            let origin = Effective::of(&layers.layers).root().origin();
            layers.warnings.push(Warning { origin: Some(origin), message });
        }
        if path.is_dir() && path.join("spicepod.yaml").is_file() && path.join("spicepod.yml").is_file() {
            let message = "spicepod.yml beside it is not read".to_owned();
            let origin = Effective::of(&layers.layers).root().origin();
            layers.warnings.push(Warning { origin: Some(origin), message });
        }
        Ok(layers)
    }

    pub(crate) fn from_text(
        name: &Path,
        text: &str,
        folder: PathBuf,
        variables: impl IntoIterator<Item = (String, String)>,
        flags: &[Flag],
        options: &[KnownOption],
    ) -> Result<Self, ConfigError> {
        let pod = Pod::read(name, text);
        let referred = pod.as_ref().map(Pod::referred).unwrap_or_default();
        let mut environment = environment::read(variables, options, |name| referred.contains(name));
        let pod = match pod {
            Ok(pod) => pod,
            Err(error) => {
                let mut problems = environment.problems;
                problems.extend(before(name, text, &error));
                problems.extend(error.0);
                return Err(ConfigError(in_order(problems)));
            }
        };
        environment.check_lists(&pod.data);
        let command_line = CommandLine(flags);
        let layers = vec![
            Layer::new(&command_line, command_line.places(), false),
            Layer::new(&environment, environment.places().clone(), false),
            Layer::new(&pod, pod.places().clone(), true),
        ];
        let Environment { mut problems, warnings: of_variables, .. } = environment;
        let mut warnings = pod.warnings;
        problems.extend(pod.problems);
        warnings.extend(of_variables);
        Ok(Self { layers, folder, is_empty_pod: pod.is_empty, warnings, problems })
    }

    /// Returns the [`Figment`] merged from the command line, the environment and the pod file, for a program that reads
    /// more of it or adds providers.
    ///
    /// The values are in figment's default profile. Each has the tag of the provider that supplied it: `the command
    /// line`, `the environment` or `spicepod.yaml`. All scalars are text as written; references are not replaced, so
    /// `Debug` of the result prints secrets that are written in place.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// use figment::providers::Serialized;
    /// use spiced_config::Layers;
    ///
    /// std::fs::write(directory.path().join("spicepod.yaml"), "runtime: { shutdown_delay: 5s }\n")?;
    /// let layers = Layers::read(directory.path(), [], &[], &[])?;
    ///
    /// // One more provider, below the others, for a part of the program that has settings of its own.
    /// let figment = layers.figment().join(Serialized::default("my_app.greeting", "hello"));
    /// assert_eq!(figment.extract_inner::<String>("my_app.greeting")?, "hello");
    /// assert_eq!(figment.extract_inner::<String>("runtime.shutdown_delay")?, "5s");
    /// let supplied = figment.find_metadata("runtime.shutdown_delay").expect("the pod has it");
    /// assert_eq!(supplied.name, "spicepod.yaml");
    /// # Ok(())
    /// # }
    /// ```
    pub fn figment(&self) -> Figment {
        merged(&self.layers)
    }

    /// Adds a provider above all others, as [`Figment::merge`] does: it overrides them. Its values are literal, numbers
    /// or text; their origin is [`Origin::Program`].
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// use figment::providers::Serialized;
    /// use spiced_config::Layers;
    /// use spiced_secrets::Template;
    /// use tls_core::Sourced;
    ///
    /// std::fs::write(directory.path().join("spicepod.yaml"), "runtime: { limits: { connections: 5 } }\n")?;
    /// let layers = Layers::read(directory.path(), [], &[], &[])?
    ///     .merge(Serialized::default("runtime.limits.connections", 7))?
    ///     .join(Serialized::default("name", "my-app"))?;
    ///
    /// let resolve = async |_: &[Sourced<Template>]| Ok::<_, std::convert::Infallible>(vec![]);
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let settings = runtime.block_on(layers.settle(resolve))?;
    /// assert_eq!((settings.runtime.limits.connections, settings.name.as_str()), (7, "my-app"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Fails if the provider fails.
    pub fn merge(mut self, provider: impl Provider) -> Result<Self, Box<figment::Error>> {
        let layer = Layer::of_program(provider)?;
        self.refuse_keys(layer.root(), &merged_values(&self.layers));
        self.layers.insert(0, layer);
        Ok(self)
    }

    /// Adds a provider below all others, as [`Figment::join`] does: it supplies defaults. See [`merge`](Self::merge).
    ///
    /// # Errors
    /// Fails if the provider fails.
    pub fn join(mut self, provider: impl Provider) -> Result<Self, Box<figment::Error>> {
        let layer = Layer::of_program(provider)?;
        self.refuse_keys(&merged_values(&self.layers), layer.root());
        self.layers.push(layer);
        Ok(self)
    }

    /// Reports keys that `upper` sets below a value that is not a map in `lower`: one of the two would be ignored.
    fn refuse_keys(&mut self, upper: &Value, lower: &Value) {
        let mut found = Vec::new();
        keys_over_values(upper, lower, "", &mut found);
        for (pointer, _) in found {
            let key = pointer.trim_start_matches('/').replace('/', ".");
            let message = format!("`{key}` is a map of keys in one place and a value in another");
            self.problems.push(Problem::new(Origin::Program, message).hint("give both in the same form"));
        }
    }

    /// Returns the directory that relative paths in the pod are resolved against.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the secret stores that the pod declares.
    ///
    /// # Errors
    /// Fails if a declaration does not match the schema.
    pub fn stores(&self) -> Result<Vec<DeclaredStore>, ConfigError> {
        stores::read(&mut Effective::of(&self.layers))
    }

    pub(crate) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Returns the values of each layer, topmost first, and its name.
    pub(crate) fn each(&self) -> Vec<(String, Effective<'_>)> {
        let layers = self.layers.chunks(1);
        layers.map(|layer| (layer[0].name(), Effective::of(layer))).collect()
    }

    /// Returns every value of the pod that contains a reference, in order, whether it is overridden or not. References
    /// in the parameters of stores are in [`stores`](Self::stores).
    pub fn references(&self) -> Vec<Sourced<Template>> {
        let mut found = Vec::new();
        for (_, mut layer) in self.each() {
            layer.remove(stores::SECRETS);
            found.extend(layer.references().into_iter().map(|(_, reference)| reference));
        }
        found
    }

    /// Resolves the settings, including the source of the TLS material. `resolve` replaces the references of values, in
    /// order; references of overridden values are not resolved.
    ///
    /// # Errors
    /// Fails if a setting is wrong or contradicts another, or if a reference has no value.
    pub async fn settle<E>(
        self,
        resolve: impl AsyncFn(&[Sourced<Template>]) -> Result<Vec<Secret>, E>,
    ) -> Result<Settings, SettingsError<E>> {
        let Merged { mut tree, tls, warnings, mut problems, mut damaged, mut lost } = self.merge_all(&resolve).await;
        problems.extend(api_keys::split(&mut tree));
        if let Err(error) = replace_references(&mut tree, &resolve).await {
            lost.push(error);
            damaged.extend(tree.remove_references());
        }
        let is_damaged = damaged.iter().any(is_of_access);
        let (pod, wrong) = decode_all::<Spicepod>(&mut tree, &mut damaged);
        problems.extend(wrong);
        if let Some(pod) = pod {
            // A value that is missing because of an error elsewhere is reported there.
            let is_whole = lost.is_empty() && problems.is_empty();
            let of_access = |problem: &Problem| problem.origin.as_ref().is_none_or(is_of_access);
            let is_told = is_damaged || problems.iter().any(of_access);
            match pod.decide(tls, &self.folder, warnings, is_whole || !is_told) {
                Ok(settings) if is_whole => return Ok(settings),
                Ok(_) => {}
                Err(error) => problems.extend(error.0),
            }
        }
        Err(why(problems, lost))
    }

    /// Returns the problems of the layers that can be found without any secret store.
    pub async fn problems(self) -> Vec<Problem> {
        match self.settle(async |_| Err::<Vec<Secret>, ()>(())).await {
            Ok(_) | Err(SettingsError::Secrets(_)) => Vec::new(),
            Err(SettingsError::Config(error) | SettingsError::Both(error, _)) => error.0,
        }
    }

    /// Returns the effective values, whose references are not replaced yet, and whether TLS is on; also all problems so
    /// far, whose values are removed.
    pub(crate) async fn merge_all<E>(
        &self,
        resolve: &impl AsyncFn(&[Sourced<Template>]) -> Result<Vec<Secret>, E>,
    ) -> Merged<'_, E> {
        let mut tree = Effective::of(&self.layers);
        // The stores are read separately; other values may refer to them.
        tree.remove(stores::SECRETS);
        // A value that is missing because it is malformed is reported once.
        let mut damaged: Vec<Origin> = self.problems.iter().filter_map(|problem| problem.origin.clone()).collect();
        let (mut problems, mut lost) = (self.problems.clone(), Vec::new());
        // The two switches may be references, and determine which other values apply.
        for name in ["runtime.tls.enabled", "runtime.tls.self_signed"] {
            let Some(node) = tree.get(name) else { continue };
            let (pointer, origin) = (node.pointer().to_owned(), node.origin());
            let Some(template) = node.reference() else { continue };
            match resolve(&[Sourced::new(template, origin.clone())]).await {
                Ok(values) => replace(&mut tree, [pointer], values),
                Err(error) => {
                    lost.push(error);
                    tree.remove(name);
                    damaged.push(origin);
                }
            }
        }
        // The source of the material is chosen before the schema is applied; a typo among its keys must not be reported
        // as missing material.
        for (pointer, problem) in tls_source::misplaced(&tree, &self.folder) {
            damaged.extend(tree.remove_at(&pointer));
            problems.push(problem);
        }
        let mut switch = |name: &str| {
            let node = tree.get(name).filter(|node| !node.is_null())?;
            let origin = node.origin();
            match decode::<bool>(node) {
                Ok(on) => Some((on, origin)),
                Err(problem) => {
                    damaged.extend(tree.remove_at(&pointer(name)));
                    problems.push(problem);
                    None
                }
            }
        };
        let switches =
            Switches { enabled: switch("runtime.tls.enabled"), self_signed: switch("runtime.tls.self_signed") };
        let mut warnings = self.warnings.clone();
        let is_whole = damaged.is_empty();
        let tls = tls_source::choose(&mut tree, switches, &mut warnings).unwrap_or_else(|problem| {
            damaged.extend(problem.origin.clone());
            if is_whole {
                problems.push(problem);
            }
            false
        });
        Merged { tree, tls, warnings, problems, damaged, lost }
    }
}

/// Combines all problems, each one once.
pub(crate) fn why<E>(problems: Vec<Problem>, lost: Vec<E>) -> SettingsError<E> {
    match (problems.is_empty(), lost.is_empty()) {
        (_, true) => SettingsError::Config(ConfigError(in_order(problems))),
        (true, false) => SettingsError::Secrets(lost),
        (false, false) => SettingsError::Both(ConfigError(in_order(problems)), lost),
    }
}

/// Returns whether a problem at `origin` may affect TLS or access.
fn is_of_access(origin: &Origin) -> bool {
    const OTHERS: [&str; 12] = [
        "version",
        "kind",
        "name",
        "secrets",
        "datasets",
        "views",
        "runtime.listen",
        "runtime.shutdown_delay",
        "runtime.shutdown_timeout",
        "runtime.sql",
        "runtime.limits",
        "runtime.otel",
    ];
    let Origin::File { key, .. } = origin else { return true };
    !OTHERS
        .iter()
        .any(|other| key.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
}

/// The result of [`Layers::merge_all`].
pub(crate) struct Merged<'l, E> {
    pub(crate) tree: Effective<'l>,
    pub(crate) tls: bool,
    pub(crate) warnings: Vec<Warning>,
    /// The problems so far; their values are removed.
    pub(crate) problems: Vec<Problem>,
    /// The places from which a value was removed because it is wrong or missing.
    pub(crate) damaged: Vec<Origin>,
    /// The references of the switches that have no value.
    pub(crate) lost: Vec<E>,
}

/// Replaces all references with one call.
async fn replace_references<E>(
    tree: &mut Effective<'_>,
    resolve: &impl AsyncFn(&[Sourced<Template>]) -> Result<Vec<Secret>, E>,
) -> Result<(), E> {
    let (pointers, wanted): (Vec<_>, Vec<_>) = tree.references().into_iter().unzip();
    let values = resolve(&wanted).await?;
    replace(tree, pointers, values);
    Ok(())
}

fn replace(tree: &mut Effective<'_>, pointers: impl IntoIterator<Item = String>, values: Vec<Secret>) {
    let mut values = values.into_iter();
    for pointer in pointers {
        tree.replace(pointer, values.next().expect("one answer for each question"));
    }
}

/// The number of lines before a syntax error in which the error may have begun.
const MAX_LINES_BACK: usize = 32;

/// Returns the problems in the lines before a syntax error, as far as the schema finds them.
fn before(name: &Path, text: &str, error: &ConfigError) -> Vec<Problem> {
    let at = error.0.iter().rev().find_map(|problem| match &problem.origin {
        Some(Origin::File { line, key, .. }) if key.is_empty() => Some(*line),
        _ => None,
    });
    let Some(line) = at else { return Vec::new() };
    // A syntax error may begin some lines before the parser finds it.
    let lines: Vec<&str> = text.split_inclusive('\n').take(line.saturating_sub(1)).collect();
    let read = (0..lines.len().min(MAX_LINES_BACK))
        .find_map(|back| Pod::read(name, &lines[..lines.len() - back].concat()).ok());
    let Some(pod) = read else { return Vec::new() };
    let layers = [Layer::new(&pod, pod.places().clone(), true)];
    let mut tree = Effective::of(&layers);
    // References have no value yet, and the innermost value at the error may lack the lines that follow.
    let mut not_told: Vec<Origin> = tree.references().into_iter().map(|(_, reference)| reference.origin).collect();
    let mut last = Some(tree.root());
    while let Some(node) = last {
        not_told.push(node.origin());
        let below = node.entries().and_then(|entries| entries.into_iter().next_back());
        last = below.map(|(_, node)| node).or_else(|| node.items()?.pop());
    }
    let mut problems = api_keys::split(&mut tree);
    problems.extend(decode_all::<Spicepod>(&mut tree, &mut Vec::new()).1);
    problems.into_iter().filter(|problem| problem.origin.as_ref().is_some_and(|o| !not_told.contains(o))).collect()
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::at_once;

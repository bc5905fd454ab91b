//! The layers, topmost first: the command line, the environment, `spicepod.yaml`, the defaults. How
//! they become one [`Settings`].

use std::path::{Path, PathBuf};

use spiced_secrets::Template;
use tls_core::{Origin, Secret, Sourced};

use crate::decode::{decode, keys_of, unknown_key};
use crate::error::{ConfigError, Problem};
use crate::settings::{Settings, Store, Warning};
use crate::spicepod::Spicepod;
use crate::tls::Said;
use crate::tree::{Kind, Node, Text};
use crate::{environment, foreign, keys, spicepod, stores, tls, yaml};

/// A pod is a few pages; more is the wrong file.
const LARGEST_POD: u64 = 4 * 1024 * 1024;

/// A setting that the command line gives.
#[derive(Debug, Clone)]
pub struct Flag {
    /// The option as it was written: `--tls-key-file`.
    pub name: String,
    /// The setting: `runtime.tls.key_file`.
    pub setting: &'static str,
    /// Its value, literal.
    pub value: String,
}

/// What was said, by whom; nothing is decided and nothing secret is read yet.
#[derive(Debug, Clone)]
pub struct Layers {
    flags: Node,
    environment: Node,
    pod: Node,
    folder: PathBuf,
    warnings: Vec<Warning>,
}

/// Why the layers could not be settled.
#[derive(Debug)]
pub enum Resolved<E> {
    /// What was said is wrong.
    Config(ConfigError),
    /// A reference could not be replaced.
    Secrets(E),
}

impl<E> From<ConfigError> for Resolved<E> {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl<E> From<Problem> for Resolved<E> {
    fn from(problem: Problem) -> Self {
        Self::Config(problem.into())
    }
}

impl Layers {
    /// Reads the pod at `path` (a folder that holds one, or the file) and lays environment and
    /// command line over it.
    ///
    /// # Errors
    /// There is no pod, or it is not YAML.
    pub fn read(
        path: &Path,
        variables: impl IntoIterator<Item = (String, String)>,
        flags: &[Flag],
    ) -> Result<Self, ConfigError> {
        let (file, folder) = find(path)?;
        let size = std::fs::metadata(&file).map_err(|e| unreadable(&file, &e))?.len();
        if size > LARGEST_POD {
            let problem = format!("{} has {size} bytes; a pod has {LARGEST_POD} at most", file.display());
            return Err(Problem::new(None, problem).hint("is this the right file?").into());
        }
        let text = std::fs::read_to_string(&file).map_err(|e| unreadable(&file, &e))?;
        let name = file.file_name().map_or_else(|| file.clone(), PathBuf::from);
        let mut layers = Self::from_text(&name, &text, folder, variables, flags)?;
        if path.is_dir() && path.join("spicepod.yaml").is_file() && path.join("spicepod.yml").is_file() {
            let message = "spicepod.yml beside it is not read".to_owned();
            layers.warnings.push(Warning { origin: Some(layers.pod.origin.clone()), message });
        }
        Ok(layers)
    }

    pub(crate) fn from_text(
        name: &Path,
        text: &str,
        folder: PathBuf,
        variables: impl IntoIterator<Item = (String, String)>,
        flags: &[Flag],
    ) -> Result<Self, ConfigError> {
        let mut pod = yaml::read(name, text)?;
        let warnings = foreign::prune(&mut pod);
        keys::rename(&mut pod);
        let mut root = Node::map(Origin::Default);
        for Flag { name, setting, value } in flags {
            let path: Vec<&str> = setting.split('.').collect();
            root.put(&path, environment::literal(value.clone(), Origin::Flag(name.clone())));
        }
        Ok(Self { flags: root, environment: environment::read(variables), pod, folder, warnings })
    }

    /// The folder that the pod's relative paths start from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The secret stores that the pod declares.
    ///
    /// # Errors
    /// A declaration is not as the schema wants it.
    pub fn stores(&self) -> Result<Vec<Store>, ConfigError> {
        self.pod.get(&["secrets"]).map_or_else(|| Ok(Vec::new()), |node| stores::read(node.clone()))
    }

    /// The three layers as they were said, topmost first.
    pub(crate) fn trees(&self) -> [Node; 3] {
        [self.flags.clone(), self.environment.clone(), self.pod.clone()]
    }

    /// Every value of the pod that holds a reference, in order, whether it is beaten or not; those of
    /// the stores' own parameters are with [`stores`](Self::stores).
    pub fn references(&self) -> Vec<Sourced<Template>> {
        let mut root = self.pod.clone();
        root.take(&["secrets"]);
        let mut found = Vec::new();
        root.each_text(&mut |origin, text| match text {
            Text::Written(template) if !template.is_literal() => {
                found.push(Sourced::new(template.clone(), origin.clone()));
            }
            _ => {}
        });
        found
    }

    /// Decides: who gives the TLS material, what every setting is. `resolve` replaces the references
    /// of values, in order; it is asked for nothing that a loser wrote.
    ///
    /// # Errors
    /// A setting is wrong or contradicts another, or a reference has no value.
    pub async fn settle<E>(
        self,
        resolve: impl AsyncFn(&[Sourced<Template>]) -> Result<Vec<Secret>, E>,
    ) -> Result<Settings, Resolved<E>> {
        let folder = self.folder.clone();
        let Merged { mut root, tls, warnings } = self.merge(&resolve).await?;
        keys::split(&mut root);
        let written = Written::of(&root);
        replace_references(&mut root, &resolve).await.map_err(Resolved::Secrets)?;
        let pod: Spicepod = decode(root)?;
        Ok(pod.decide(tls, &folder, written, warnings)?)
    }

    /// One tree of the winners alone, its references not yet replaced, and whether TLS is on.
    pub(crate) async fn merge<E>(
        mut self,
        resolve: &impl AsyncFn(&[Sourced<Template>]) -> Result<Vec<Secret>, E>,
    ) -> Result<Merged, Resolved<E>> {
        // The two switches may be references themselves, and say which of the others count.
        for name in ["enabled", "self_signed"] {
            let path = ["runtime", "tls", name];
            let beaten = [&self.flags, &self.environment].into_iter().any(|upper| upper.get(&path).is_some());
            if beaten {
                self.pod.take(&path);
            }
            if let Some(node) = self.pod.get_mut(&["runtime", "tls", name]) {
                replace_references(node, resolve).await.map_err(Resolved::Secrets)?;
            }
        }
        let mut layers = [self.flags, self.environment, self.pod];
        // Who gives the material is decided before the schema is asked; a slip of the pen among its
        // keys must not read as "nothing is given".
        let slips: Vec<Problem> = layers.iter().flat_map(unknown_tls_keys).collect();
        if !slips.is_empty() {
            return Err(ConfigError(slips).into());
        }
        let said = layers.iter().map(said).collect::<Result<Vec<_>, Problem>>()?;
        let mut warnings = self.warnings;
        let tls = tls::settle(&mut layers, &said, &mut warnings)?;

        let [flags, environment, mut root] = layers;
        if root.is_null() {
            root.kind = Kind::Map(Vec::new());
        }
        if !matches!(root.kind, Kind::Map(_)) {
            return Err(Problem::new(root.origin, "a pod is a map of keys, such as `datasets:`, not this")
                .hint("see docs/configuration.md for what a pod may hold")
                .into());
        }
        if let Some(origin) = root.keys_over_lists(&environment) {
            return Err(Problem::new(origin, "speaks of an item of a list, which a variable cannot")
                .hint("write a reference such as ${env:NAME} at the item in spicepod.yaml")
                .into());
        }
        root.overlay(environment);
        root.overlay(flags);
        // The stores are read on their own; the rest may refer to them.
        root.take(&["secrets"]);
        Ok(Merged { root, tls, warnings })
    }
}

/// Values whose references go on being followed, as they were written.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) pair: WrittenPair,
    /// Those of `certificates`, in their order.
    pub(crate) more: Vec<WrittenPair>,
    pub(crate) client_ca: Option<Template>,
    pub(crate) api_keys: Vec<Option<Template>>,
}

/// A pair's values whose references go on being followed.
#[derive(Debug, Default)]
pub(crate) struct WrittenPair {
    pub(crate) certificate: Option<Template>,
    pub(crate) key: Option<Template>,
    pub(crate) passphrase: Option<Template>,
}

impl Written {
    fn of(root: &Node) -> Self {
        let Some(tls) = root.get(&["runtime", "tls"]) else {
            return Self { api_keys: keys::written(root), ..Self::default() };
        };
        let more = match tls.get(&["certificates"]).map(|node| &node.kind) {
            Some(Kind::List(items)) => items.iter().map(WrittenPair::of).collect(),
            _ => Vec::new(),
        };
        let client_ca = referring(tls, "client_auth_ca");
        Self { pair: WrittenPair::of(tls), more, client_ca, api_keys: keys::written(root) }
    }
}

impl WrittenPair {
    fn of(node: &Node) -> Self {
        Self {
            certificate: referring(node, "certificate"),
            key: referring(node, "key"),
            passphrase: referring(node, "key_passphrase"),
        }
    }
}

/// A value as it was written, where it holds references.
fn referring(node: &Node, name: &str) -> Option<Template> {
    match &node.get(&[name])?.kind {
        Kind::Text(Text::Written(template)) if !template.is_literal() => Some(template.clone()),
        _ => None,
    }
}

/// What [`Layers::merge`] leaves.
pub(crate) struct Merged {
    pub(crate) root: Node,
    pub(crate) tls: bool,
    pub(crate) warnings: Vec<Warning>,
}

fn unknown_tls_keys(root: &Node) -> Vec<Problem> {
    match root.get(&["runtime", "tls"]).map(|node| &node.kind) {
        Some(Kind::Map(entries)) => {
            entries.iter().filter_map(|(key, _)| unknown_key(key, keys_of::<spicepod::Tls>())).collect()
        }
        _ => Vec::new(),
    }
}

/// What a layer says of the switches.
fn said(root: &Node) -> Result<Said, Problem> {
    let switch = |name: &str| -> Result<Option<(bool, Origin)>, Problem> {
        match root.get(&["runtime", "tls", name]).filter(|node| !node.is_null()) {
            None => Ok(None),
            Some(node) => decode::<bool>(node.clone()).map(|on| Some((on, node.origin.clone()))),
        }
    };
    Ok(Said { enabled: switch("enabled")?, self_signed: switch("self_signed")? })
}

/// Replaces every reference below `root`, all in one question.
async fn replace_references<E>(
    root: &mut Node,
    resolve: &impl AsyncFn(&[Sourced<Template>]) -> Result<Vec<Secret>, E>,
) -> Result<(), E> {
    let mut wanted = Vec::new();
    root.each_text(&mut |origin, text| {
        if let Text::Written(template) = text {
            wanted.push(Sourced::new(template.clone(), origin.clone()));
        }
    });
    let mut values = resolve(&wanted).await?.into_iter();
    root.each_text(&mut |_, text| {
        if let Text::Written(template) = text {
            let secret = !template.is_literal();
            let value = values.next().expect("one answer for each question");
            *text = Text::Final { value, secret, list: false };
        }
    });
    Ok(())
}

fn find(path: &Path) -> Result<(PathBuf, PathBuf), ConfigError> {
    if path.is_dir() {
        for name in ["spicepod.yaml", "spicepod.yml"] {
            if path.join(name).is_file() {
                // The current folder is not worth a `./` in every message.
                let folder = if path == Path::new(".") { PathBuf::new() } else { path.to_owned() };
                return Ok((path.join(name), folder));
            }
        }
        let folder = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let message = format!("there is no spicepod.yaml (or spicepod.yml) in {}", folder.display());
        return Err(Problem::new(None, message).hint("name the folder that holds one: spiced [OPTIONS] PATH").into());
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match path.metadata() {
        Ok(_) => Ok((path.to_owned(), folder.to_owned())),
        Err(e) => Err(unreadable(path, &e)),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> ConfigError {
    let why = match error.kind() {
        std::io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    };
    Problem::new(None, format!("cannot read {}: {why}", path.display()))
        .hint("PATH is a folder that holds spicepod.yaml, or such a file itself")
        .into()
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::at_once;

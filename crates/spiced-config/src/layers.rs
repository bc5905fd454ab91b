//! The layers, topmost first: the command line, the environment, `spicepod.yaml`, the defaults. How
//! they become one [`Settings`].

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use spiced_files::Unreadable;
use spiced_secrets::Template;
use tls_core::{Origin, Secret, Sourced};

use crate::decode::{decode, decode_all, keys_of, unknown_key};
use crate::environment::{Environment, KnownOption};
use crate::error::{ConfigError, Problem, in_order};
use crate::settings::{Settings, Store, Warning};
use crate::shown::{may_be_secret, shown_path};
use crate::spicepod::Spicepod;
use crate::tls::Said;
use crate::tree::{Key, Kind, Node, Text};
use crate::{environment, keys, spicepod, stores, tls, unsupported_keys, yaml};

/// A pod is a few pages; more is the wrong file.
const MAX_POD_SIZE: u64 = 4 * 1024 * 1024;

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
    /// What is wrong with variables, and with values of the pod that are not in its tree.
    problems: Vec<Problem>,
}

/// Why the layers could not be settled.
#[derive(Debug)]
pub enum Resolved<E> {
    /// What was said is wrong.
    Config(ConfigError),
    /// References could not be replaced; a problem each time that they were asked for.
    Secrets(Vec<E>),
    /// Both: everything in one report.
    Both(ConfigError, Vec<E>),
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
    /// Reads the pod at `path` (a directory that holds one, or the file) and lays environment and
    /// command line over it. `options` are all that the command line knows: a variable that is called like one of them,
    /// or nearly like a setting, is an error.
    ///
    /// # Errors
    /// There is no pod, or it is not YAML.
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
        if layers.pod.is_null() {
            let message = "the file has no content, so every setting has its default; was it written whole?".to_owned();
            layers.warnings.push(Warning { origin: Some(layers.pod.origin.clone()), message });
        }
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
        options: &[KnownOption],
    ) -> Result<Self, ConfigError> {
        let pod = yaml::read(name, text);
        let referred = pod.as_ref().map(|(pod, _)| referred(pod)).unwrap_or_default();
        let Environment { settings, mut problems, warnings: of_variables } =
            environment::read(variables, options, |name| referred.contains(name));
        let mut pod = match pod {
            Ok((pod, wrong)) => {
                problems.extend(wrong);
                pod
            }
            Err(error) => {
                problems.extend(before(name, text, &error));
                problems.extend(error.0);
                return Err(ConfigError(in_order(problems)));
            }
        };
        let mut warnings = unsupported_keys::prune(&mut pod);
        warnings.extend(of_variables);
        keys::rename(&mut pod);
        let mut root = Node::map(Origin::Default);
        for Flag { name, setting, value } in flags {
            let path: Vec<&str> = setting.split('.').collect();
            root.put(&path, environment::literal(value.clone(), Origin::Flag(name.clone())));
        }
        Ok(Self { flags: root, environment: settings, pod, folder, warnings, problems })
    }

    /// The directory that the pod's relative paths start from.
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

    /// Every value of the pod that holds a reference, in order, whether it is overridden or not; those of
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
    /// of values, in order; references of overridden values are not resolved.
    ///
    /// # Errors
    /// A setting is wrong or contradicts another, or a reference has no value.
    pub async fn settle<E>(
        self,
        resolve: impl AsyncFn(&[Sourced<Template>]) -> Result<Vec<Secret>, E>,
    ) -> Result<Settings, Resolved<E>> {
        let folder = self.folder.clone();
        let Merged { mut root, tls, warnings, mut problems, mut damaged, mut lost } = self.merge(&resolve).await;
        problems.extend(keys::split(&mut root));
        let written = SecretTemplate::of(&root);
        if let Err(error) = replace_references(&mut root, &resolve).await {
            lost.push(error);
            damaged.extend(root.take_references());
        }
        let is_damaged = damaged.iter().any(is_of_access);
        let (pod, wrong) = decode_all::<Spicepod>(root, &mut damaged);
        problems.extend(wrong);
        if let Some(pod) = pod {
            // What is missing because it is wrong elsewhere is told there.
            let is_whole = lost.is_empty() && problems.is_empty();
            let of_access = |problem: &Problem| problem.origin.as_ref().is_none_or(is_of_access);
            let is_told = is_damaged || problems.iter().any(of_access);
            match pod.decide(tls, &folder, written, warnings, is_whole || !is_told) {
                Ok(settings) if is_whole => return Ok(settings),
                Ok(_) => {}
                Err(error) => problems.extend(error.0),
            }
        }
        Err(why(problems, lost))
    }

    /// What is wrong with the layers, as far as it can be told without any secret store.
    pub async fn problems(self) -> Vec<Problem> {
        match self.settle(async |_| Err::<Vec<Secret>, ()>(())).await {
            Ok(_) | Err(Resolved::Secrets(_)) => Vec::new(),
            Err(Resolved::Config(error) | Resolved::Both(error, _)) => error.0,
        }
    }

    /// One tree of the effective values alone, its references not yet replaced, and whether TLS is on; also everything
    /// that is wrong so far, which is not in the tree any more.
    pub(crate) async fn merge<E>(
        mut self,
        resolve: &impl AsyncFn(&[Sourced<Template>]) -> Result<Vec<Secret>, E>,
    ) -> Merged<E> {
        // What has no value because it is malformed is told once.
        let mut damaged: Vec<Origin> = self.problems.iter().filter_map(|problem| problem.origin.clone()).collect();
        let (mut problems, mut lost) = (self.problems, Vec::new());
        // The two switches may be references themselves, and say which of the others count.
        for name in ["enabled", "self_signed"] {
            let path = ["runtime", "tls", name];
            let beaten = [&self.flags, &self.environment].into_iter().any(|upper| upper.get(&path).is_some());
            if beaten {
                self.pod.take(&path);
            }
            let Some(node) = self.pod.get_mut(&path) else { continue };
            if let Err(error) = replace_references(node, resolve).await {
                lost.push(error);
                damaged.extend(self.pod.take(&path).map(|node| node.origin));
            }
        }
        let mut layers = [self.flags, self.environment, self.pod];
        // Who gives the material is decided before the schema is asked; a typo among its keys must not read as "nothing
        // is given".
        for layer in &mut layers {
            for problem in tls_problems(layer, &self.folder) {
                damaged.extend(problem.origin.as_ref().and_then(|origin| layer.get_mut(&TLS)?.take_at(origin)));
                problems.push(problem);
            }
        }
        let said = layers.each_mut().map(|layer| {
            said(layer).unwrap_or_else(|problem| {
                damaged.extend(problem.origin.as_ref().and_then(|origin| layer.get_mut(&TLS)?.take_at(origin)));
                problems.push(problem);
                Said::default()
            })
        });
        let mut warnings = self.warnings;
        let is_whole = damaged.is_empty();
        let tls = tls::settle(&mut layers, &said, &mut warnings).unwrap_or_else(|problem| {
            damaged.extend(problem.origin.clone());
            if is_whole {
                problems.push(problem);
            }
            false
        });

        let [flags, environment, mut root] = layers;
        if root.is_null() {
            root.kind = Kind::Map(Vec::new());
        }
        if !matches!(root.kind, Kind::Map(_)) {
            let problem = Problem::new(root.origin.clone(), "a pod is a map of keys, such as `datasets:`, not this")
                .hint("see docs/configuration.md for what a pod may hold");
            problems.push(problem);
            damaged.push(root.origin.clone());
            root.kind = Kind::Map(Vec::new());
        }
        if let Some(origin) = root.keys_over_lists(&environment) {
            let problem = Problem::new(origin.clone(), "speaks of an item of a list, which a variable cannot")
                .hint("write a reference such as ${env:NAME} at the item in spicepod.yaml");
            problems.push(problem);
            damaged.push(origin);
        } else {
            root.overlay(environment);
        }
        root.overlay(flags);
        // The stores are read on their own; the rest may refer to them.
        root.take(&["secrets"]);
        Merged { root, tls, warnings, problems, damaged, lost }
    }
}

/// Everything that is wrong, each thing once.
pub(crate) fn why<E>(problems: Vec<Problem>, lost: Vec<E>) -> Resolved<E> {
    match (problems.is_empty(), lost.is_empty()) {
        (_, true) => Resolved::Config(ConfigError(in_order(problems))),
        (true, false) => Resolved::Secrets(lost),
        (false, false) => Resolved::Both(ConfigError(in_order(problems)), lost),
    }
}

/// Whether something at `origin` may have to do with TLS or with who may do what; else it has nothing to do with
/// either.
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

/// The names of variables that the pod's references may be answered by.
fn referred(pod: &Node) -> HashSet<String> {
    let mut names = HashSet::new();
    pod.clone().each_text(&mut |_, text| {
        let Text::Written(template) = text else { return };
        for reference in template.references() {
            for key in [reference.key().to_owned(), reference.key().to_ascii_uppercase()] {
                names.insert(format!("SPICE_{key}"));
                names.insert(key);
            }
        }
    });
    names
}

/// Values whose references go on being followed, as they were written.
#[derive(Debug, Default)]
pub(crate) struct SecretTemplate {
    pub(crate) pair: PairTemplate,
    /// Those of `certificates`, in their order.
    pub(crate) more: Vec<PairTemplate>,
    pub(crate) client_ca: Option<Template>,
    pub(crate) api_keys: Vec<Option<Template>>,
}

/// A pair's values whose references go on being followed.
#[derive(Debug, Default)]
pub(crate) struct PairTemplate {
    pub(crate) certificate: Option<Template>,
    pub(crate) key: Option<Template>,
    pub(crate) passphrase: Option<Template>,
}

impl SecretTemplate {
    fn of(root: &Node) -> Self {
        let Some(tls) = root.get(&["runtime", "tls"]) else {
            return Self { api_keys: keys::written(root), ..Self::default() };
        };
        let more = match tls.get(&["certificates"]).map(|node| &node.kind) {
            Some(Kind::List(items)) => items.iter().map(PairTemplate::of).collect(),
            _ => Vec::new(),
        };
        let client_ca = referring(tls, "client_auth_ca");
        Self { pair: PairTemplate::of(tls), more, client_ca, api_keys: keys::written(root) }
    }
}

impl PairTemplate {
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
pub(crate) struct Merged<E> {
    pub(crate) root: Node,
    pub(crate) tls: bool,
    pub(crate) warnings: Vec<Warning>,
    /// What is wrong so far; it is not in the tree any more.
    pub(crate) problems: Vec<Problem>,
    /// Where something was taken out that is wrong, or has no value.
    pub(crate) damaged: Vec<Origin>,
    /// The references of the switches that have no value.
    pub(crate) lost: Vec<E>,
}

const TLS: [&str; 2] = ["runtime", "tls"];

/// What is wrong with the keys of `runtime.tls`: those that nobody knows, and several files where one belongs.
fn tls_problems(root: &Node, folder: &Path) -> Vec<Problem> {
    let Some(Kind::Map(entries)) = root.get(&TLS).map(|node| &node.kind) else { return Vec::new() };
    let wrong = |(key, value): &(Key, Node)| {
        unknown_key(key, keys_of::<spicepod::Tls>()).or_else(|| several_files(&key.name, value, folder))
    };
    entries.iter().filter_map(wrong).collect()
}

/// A list where the path of one file belongs: the files can be put into one.
fn several_files(name: &str, value: &Node, folder: &Path) -> Option<Problem> {
    let Kind::List(items) = &value.kind else { return None };
    let (targets, order) = match name {
        "certificate_file" => (
            ["fullchain.pem", "tls-chain.pem", "spiced-chain.pem"],
            "the server's own certificate first, then its intermediates",
        ),
        "client_auth_ca_file" => (["client-cas.pem", "clients-ca.pem", "spiced-client-cas.pem"], "in any order"),
        "key_file" => {
            let problem = Problem::new(value.origin.clone(), "takes the path of one file, not a list");
            return Some(problem.hint("name the one file that holds the certificate's key"));
        }
        _ => return None,
    };
    let path = |item: &Node| match &item.kind {
        Kind::Text(Text::Written(template)) => {
            template.as_literal().filter(|text| !may_be_secret(text)).map(str::to_owned)
        }
        _ => None,
    };
    let files: Option<Vec<String>> = items.iter().map(path).collect();
    let problem = Problem::new(value.origin.clone(), "takes the path of one file, not a list");
    let one = |files: Vec<String>| {
        // A command that is followed from anywhere, and that writes over none of what is there.
        let is_free =
            |target: &&&str| !files.iter().any(|file| file.ends_with(**target)) && !folder.join(target).exists();
        let target = targets.iter().find(is_free)?;
        let shell = |path: &str| quoted(&folder.join(path).to_string_lossy());
        let sources: Vec<String> = files.iter().map(|file| shell(file)).collect();
        let command = format!("`cat {} > {}`", sources.join(" "), shell(target));
        Some(format!("put them into one file, {order}: {command}; then write {name}: {target}"))
    };
    let hint = files.filter(|files| !files.is_empty()).and_then(one);
    Some(problem.hint(hint.unwrap_or_else(|| format!("put them into one file, {order}, and name that"))))
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,".contains(c);
    if !path.is_empty() && path.chars().all(is_plain) {
        path.to_owned()
    } else {
        format!("'{}'", path.replace('\'', "'\\''"))
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
            match path.join(name).metadata() {
                Ok(found) if found.is_file() => {}
                Ok(_) => {
                    let problem = format!("cannot read {}: it is not a regular file", shown_path(&path.join(name)));
                    return Err(Problem::new(None, problem).hint("make it a file").into());
                }
                Err(e) if e.kind() != std::io::ErrorKind::NotFound || path.join(name).is_symlink() => {
                    return Err(unreadable(&Unreadable::of(&path.join(name), &e)));
                }
                _ => continue,
            }
            // The current directory is not worth a `./` in every message.
            let folder = if path == Path::new(".") { PathBuf::new() } else { path.to_owned() };
            return Ok((path.join(name), folder));
        }
        let folder = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let message = format!("there is no spicepod.yaml (or spicepod.yml) in {}", shown_path(&folder));
        return Err(Problem::new(None, message).hint("name the folder that holds one: spiced [OPTIONS] PATH").into());
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match path.metadata() {
        Ok(_) => Ok((path.to_owned(), folder.to_owned())),
        Err(e) => Err(unreadable(&Unreadable::of(path, &e))),
    }
}

fn unreadable(error: &Unreadable) -> ConfigError {
    if may_be_secret(&error.path.to_string_lossy()) {
        let problem = format!("cannot read {}: there is no such file", shown_path(&error.path));
        return Problem::new(None, problem).hint("give the path of a directory that holds spicepod.yaml").into();
    }
    let problem = format!("cannot read {}: {}", shown_path(&error.path), error.reason);
    Problem::new(None, problem).hint(error.fix.clone()).into()
}

/// Says where a file stops to be UTF-8, and what it is instead, if that can be told.
fn not_text(path: &Path, bytes: &[u8]) -> ConfigError {
    let (why, fix) = match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            ("it is UTF-16, as PowerShell writes it, not UTF-8".to_owned(), "save it as UTF-8".to_owned())
        }
        _ => {
            let good = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
            let line = bytes[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
            let what = bytes.get(good).map_or_else(String::new, |byte| format!(", byte 0x{byte:02x}"));
            (format!("it is not UTF-8 text: line {line}{what}"), "save it as UTF-8, or correct that line".to_owned())
        }
    };
    Problem::new(None, format!("cannot read {}: {why}", shown_path(path))).hint(fix).into()
}

/// Lines before an error of syntax in which it may have begun.
const MAX_LINES_BACK: usize = 32;

/// What is wrong in the lines before those that are not YAML, as far as the schema can tell.
fn before(name: &Path, text: &str, error: &ConfigError) -> Vec<Problem> {
    let at = error.0.iter().rev().find_map(|problem| match &problem.origin {
        Some(Origin::File { line, key, .. }) if key.is_empty() => Some(*line),
        _ => None,
    });
    let Some(line) = at else { return Vec::new() };
    // What is not YAML may have begun some lines before it was found.
    let lines: Vec<&str> = text.split_inclusive('\n').take(line.saturating_sub(1)).collect();
    let read = (0..lines.len().min(MAX_LINES_BACK))
        .find_map(|back| yaml::read(name, &lines[..lines.len() - back].concat()).ok());
    let Some((mut pod, _)) = read else { return Vec::new() };
    unsupported_keys::prune(&mut pod);
    keys::rename(&mut pod);
    // References have no value yet, and what holds the place of the error may lack what follows it.
    let mut not_told = Vec::new();
    pod.each_text(&mut |origin, text| {
        if matches!(text, Text::Written(template) if !template.is_literal()) {
            not_told.push(origin.clone());
        }
    });
    let mut last = Some(&pod);
    while let Some(node) = last {
        not_told.push(node.origin.clone());
        last = match &node.kind {
            Kind::Map(entries) => entries.last().map(|(_, value)| value),
            Kind::List(items) => items.last(),
            _ => None,
        };
    }
    let mut problems = keys::split(&mut pod);
    problems.extend(decode_all::<Spicepod>(pod, &mut Vec::new()).1);
    problems.into_iter().filter(|problem| problem.origin.as_ref().is_some_and(|o| !not_told.contains(o))).collect()
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::at_once;

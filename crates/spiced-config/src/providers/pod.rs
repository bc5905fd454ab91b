//! The pod file as a figment provider.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Error, Metadata, Profile, Provider, Source};
use spiced_files::Unreadable;
use spiced_secrets::Template;

use super::{Place, Places, child, yaml};
use crate::problem::shown::{may_be_secret, shown_path};
use crate::problem::{ConfigError, Problem};
use crate::raw::unsupported_keys::FOREIGN;
use crate::settings::Warning;

/// The values of a pod file. All scalars are text, as written.
pub(crate) struct Pod {
    file: PathBuf,
    pub(crate) data: Dict,
    places: Places,
    /// Whether the file has no content.
    pub(crate) is_empty: bool,
    pub(crate) warnings: Vec<Warning>,
    /// Problems after which the rest can still be read; their values are missing.
    pub(crate) problems: Vec<Problem>,
}

impl Pod {
    /// Reads the text of a pod file. `name` is the file's name in messages.
    ///
    /// # Errors
    /// Fails if it is not YAML, or contains several documents; reports also the other problems before that.
    pub(crate) fn read(name: &Path, text: &str) -> Result<Self, ConfigError> {
        let yaml::Document { root, places, mut problems } = yaml::read(name, text)?;
        let is_empty = matches!(root, Value::Empty(..));
        let mut data = match root {
            Value::Dict(_, data) => data,
            Value::Empty(..) => Dict::new(),
            _ => {
                let origin = places.nearest("").map(|place| place.value.clone());
                let problem = Problem::new(origin, "a pod is a map of keys, such as `datasets:`, not this");
                problems.push(problem.hint("see docs/configuration.md for what a pod may hold"));
                Dict::new()
            }
        };
        let warnings = prune(&mut data, &places);
        Ok(Self { file: name.to_owned(), data, places, is_empty, warnings, problems })
    }

    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// Returns the names of variables that the pod's references may read.
    pub(crate) fn referred(&self) -> HashSet<String> {
        let mut names = HashSet::new();
        self.data.values().for_each(|value| {
            each_text(value, &mut |text| {
                let Ok(template) = Template::parse(text) else { return };
                for reference in template.references() {
                    for key in [reference.key().to_owned(), reference.key().to_ascii_uppercase()] {
                        names.insert(format!("SPICE_{key}"));
                        names.insert(key);
                    }
                }
            });
        });
        names
    }
}

impl Provider for Pod {
    fn metadata(&self) -> Metadata {
        Metadata::from("spicepod.yaml", Source::File(self.file.clone())).interpolater(|_, keys| keys.join("."))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.data.clone()))
    }
}

/// Removes the keys of the table from a pod, with a warning for each.
fn prune(pod: &mut Dict, places: &Places) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (path, names) in FOREIGN {
        prune_at(pod, "", path, names, places, &mut warnings);
    }
    warnings
}

fn prune_at(
    entries: &mut Dict,
    pointer: &str,
    path: &[&str],
    names: &[&str],
    places: &Places,
    warnings: &mut Vec<Warning>,
) {
    let Some((first, rest)) = path.split_first() else {
        let mut foreign: Vec<_> = names
            .iter()
            .filter_map(|name| entries.remove(*name).map(|_| (name, places.nearest(&child(pointer, name)))))
            .collect();
        foreign.sort_by_key(|(_, place)| place.map(Place::position));
        for (name, place) in foreign {
            let message = format!("`{name}` is known to Spice.ai and does nothing here; it is left out");
            warnings.push(Warning { origin: place.map(|place| place.key.clone()), message });
        }
        return;
    };
    let pointer = child(pointer, first);
    match (entries.get_mut(*first), rest.split_first()) {
        (Some(Value::Array(_, items)), Some((&"[]", rest))) => {
            for (at, item) in items.iter_mut().enumerate() {
                let Value::Dict(_, inner) = item else { continue };
                prune_at(inner, &child(&pointer, &at.to_string()), rest, names, places, warnings);
            }
        }
        (Some(Value::Dict(_, inner)), _) => prune_at(inner, &pointer, rest, names, places, warnings),
        _ => {}
    }
}

/// Returns the pod file at `path` (a directory or the file), and the directory that its relative paths are resolved
/// against.
pub(crate) fn find(path: &Path) -> Result<(PathBuf, PathBuf), ConfigError> {
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
            // A leading `./` for the current directory would only clutter messages.
            let folder = if path == Path::new(".") { PathBuf::new() } else { path.to_owned() };
            return Ok((path.join(name), folder));
        }
        let folder = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let message = format!("there is no spicepod.yaml (or spicepod.yml) in {}", shown_path(&folder));
        return Err(Problem::new(None, message).hint("name the directory that has one: spiced [OPTIONS] PATH").into());
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match path.metadata() {
        Ok(_) => Ok((path.to_owned(), folder.to_owned())),
        Err(e) => Err(unreadable(&Unreadable::of(path, &e))),
    }
}

pub(crate) fn unreadable(error: &Unreadable) -> ConfigError {
    if may_be_secret(&error.path.to_string_lossy()) {
        let problem = format!("cannot read {}: there is no such file", shown_path(&error.path));
        return Problem::new(None, problem).hint("name a directory that has a spicepod.yaml").into();
    }
    let problem = format!("cannot read {}: {}", shown_path(&error.path), error.reason);
    Problem::new(None, problem).hint(error.fix.clone()).caused_by(error.clone()).into()
}

/// Reports where a file stops being UTF-8, and its actual encoding if that can be detected.
pub(crate) fn not_text(path: &Path, bytes: &[u8]) -> ConfigError {
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

fn each_text(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::String(_, text) => visit(text),
        Value::Dict(_, entries) => entries.values().for_each(|value| each_text(value, visit)),
        Value::Array(_, items) => items.iter().for_each(|item| each_text(item, visit)),
        _ => {}
    }
}

//! The environment as a layer: `SPICED_RUNTIME__TLS__ENABLED=true` is `runtime.tls.enabled`. Other `SPICED_…` names
//! (such as Kubernetes' service links) are ignored. A name that is almost that of a setting is an error, because its
//! author expects it to take effect; a name that is only similar is a warning.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use figment::value::{Dict, Map, Value};
use figment::{Error, Metadata, Profile, Provider};
use serde_json::Value as Json;
use tls_core::Origin;

use super::{Places, keys_over_values, pointer, put};

use crate::problem::Problem;
use crate::raw::aliases::meant;
use crate::schema::schema;
use crate::settings::Warning;

const PREFIX: &str = "SPICED_RUNTIME__";

/// The maximum number of wrong letters in a typo.
const MAX_TYPOS: usize = 2;

/// An option of the command line, which variables are compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownOption {
    /// Its long name without dashes: `tls-key-file`.
    pub name: String,
    /// The setting that it sets, if any.
    pub setting: Option<&'static str>,
}

/// The layer of the environment.
pub(crate) struct Environment {
    settings: Dict,
    places: Places,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<Warning>,
}

/// Returns the layer of the `variables` that are settings of the runtime, and the problems of those that resemble one.
/// `referred` returns true for names that the pod reads as secrets.
pub(crate) fn read(
    variables: impl IntoIterator<Item = (String, String)>,
    options: &[KnownOption],
    referred: impl Fn(&str) -> bool,
) -> Environment {
    let (mut settings, mut places) = (Dict::new(), Places::default());
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let mut given: Vec<(String, String)> = Vec::new();
    let mut variables: Vec<_> = variables.into_iter().collect();
    // The environment has no order; messages are sorted.
    variables.sort_unstable();
    let names = Names::new(options);
    for (name, value) in variables {
        match names.of(&name) {
            Meaning::Setting(path) => {
                if let Some((_, other)) = given.iter().find(|(other, _)| is_same_or_below(other, &path)) {
                    let message =
                        format!("sets the same setting as {other}, or a part of it, so one of them has no effect");
                    problems.push(Problem::new(Origin::Variable(name), message).hint("unset one of the two"));
                    continue;
                }
                given.push((path.clone(), name.clone()));
                places.insert(pointer(&path), Origin::Variable(name));
                put(&mut settings, &path, value.into());
            }
            Meaning::Elsewhere => {}
            // A variable that the pod references is not a typo.
            _ if referred(&name) => {}
            Meaning::Misspelled(right) => problems.push(misspelled(name, &right)),
            Meaning::Unknown(near) => {
                let hint = match near {
                    Some(right) => format!("did you mean {right}?"),
                    None => "the settings and their variables are in docs/reference/configuration.md".to_owned(),
                };
                problems.push(Problem::new(Origin::Variable(name), "there is no such setting").hint(hint));
            }
            Meaning::Similar(right) => {
                let message = match right {
                    Some(right) => format!("this variable is no setting and does nothing; did you mean {right}?"),
                    None => "this variable is no setting and does nothing".to_owned(),
                };
                warnings.push(Warning { origin: Some(Origin::Variable(name)), message });
            }
        }
    }
    Environment { settings, places, problems, warnings }
}

impl Environment {
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// Reports variables that set keys below a list of the pod. Keys below text are refused by the schema.
    pub(crate) fn check_lists(&mut self, pod: &Dict) {
        let (settings, pod) = (Value::from(self.settings.clone()), Value::from(pod.clone()));
        let mut conflicts = Vec::new();
        keys_over_values(&settings, &pod, "", &mut conflicts);
        for (pointer, _) in conflicts.iter().filter(|(_, is_list)| *is_list) {
            let origin = self.places.below(pointer).map(|place| place.value.clone());
            let problem = Problem::new(origin, "speaks of an item of a list, which a variable cannot")
                .hint("write a reference such as ${env:NAME} at the item in spicepod.yaml");
            self.problems.push(problem);
        }
    }
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named("the environment")
            .interpolater(|_, keys| format!("SPICED_{}", keys.join("__").to_ascii_uppercase()))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.settings.clone()))
    }
}

/// Returns true if one of two settings equals or contains the other.
fn is_same_or_below(one: &str, other: &str) -> bool {
    let below = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    below(one, other) || below(other, one)
}

fn misspelled(name: String, right: &Right) -> Problem {
    let problem =
        Problem::new(Origin::Variable(name), "this variable does nothing: it is not quite the name of a setting");
    problem.hint(match right {
        Right::Variable(right) => format!("write {right}, or unset it"),
        Right::Option(option) => format!("no variable stands for it: give --{option} on the command line, or unset it"),
    })
}

/// The meaning of a variable's name.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// A setting, by its dotted path.
    Setting(String),
    /// Unrelated to this program.
    Elsewhere,
    /// A setting or an option, except for underscores, case or the prefix.
    Misspelled(Right),
    /// In the form of a setting, but unknown.
    Unknown(Option<String>),
    /// Similar to a setting.
    Similar(Option<String>),
}

/// The correct name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Right {
    Variable(String),
    Option(String),
}

/// The correct names, each with its form for comparison.
struct Names {
    /// `RUNTIME_TLS_KEY_FILE`, and the variable for it.
    settings: Vec<(String, String)>,
    /// `TLS_KEY_FILE`: an option, or a setting without `RUNTIME`.
    short: Vec<(String, Right)>,
}

impl Names {
    fn new(options: &[KnownOption]) -> Self {
        let variable = |path: &str| format!("SPICED_{}", path.to_uppercase().replace('.', "__"));
        let settings: Vec<_> = paths().leaves.iter().map(|path| (collapsed(path), variable(path))).collect();
        let given = options.iter().map(|KnownOption { name, setting }| {
            let right = setting.map_or_else(|| Right::Option(name.clone()), |path| Right::Variable(variable(path)));
            (collapsed(name), right)
        });
        let without = settings.iter().filter_map(|(form, variable)| {
            Some((form.strip_prefix("RUNTIME_")?.to_owned(), Right::Variable(variable.clone())))
        });
        Self { short: given.chain(without).collect(), settings }
    }

    fn of(&self, name: &str) -> Meaning {
        let path =
            name.strip_prefix(PREFIX).map(|rest| format!("runtime.{}", rest.to_ascii_lowercase().replace("__", ".")));
        if let Some(path) = path.filter(|path| paths().speaks_of(path)) {
            return Meaning::Setting(path);
        }
        let form = collapsed(name);
        const PREFIXES: [&str; 4] = ["SPICED_", "SPICE_AI_", "SPICEAI_", "SPICE_"];
        let Some(rest) = PREFIXES.iter().find_map(|prefix| form.strip_prefix(prefix)) else {
            // The prefix may be mistyped or missing; a name without levels is unrelated.
            let bare = || self.settings.iter().find(|(setting, _)| *setting == form).map(|(_, right)| right.clone());
            let near = name.contains("__").then(|| bare().or_else(|| self.near(&form))).flatten();
            return near.map_or(Meaning::Elsewhere, |right| Meaning::Similar(Some(right)));
        };
        if OURS.contains(&name) {
            return Meaning::Elsewhere;
        }
        let exact = self.settings.iter().find(|(setting, _)| setting == rest);
        if let Some((_, variable)) = exact {
            return Meaning::Misspelled(Right::Variable(variable.clone()));
        }
        if let Some((_, right)) = self.short.iter().find(|(option, _)| option == rest) {
            return Meaning::Misspelled(right.clone());
        }
        if name.starts_with(PREFIX) {
            return Meaning::Unknown(self.near(&format!("SPICED_{rest}")).or_else(|| self.by_meaning(rest)));
        }
        if is_service_link(rest) || name.starts_with("SPICED_SQL_") {
            return Meaning::Elsewhere;
        }
        let near = self.near(&format!("SPICED_{rest}")).or_else(|| self.by_meaning(rest));
        if near.is_some() || rest.starts_with("RUNTIME_") { Meaning::Similar(near) } else { Meaning::Elsewhere }
    }

    /// Returns the variable that a form is a typo of.
    fn near(&self, form: &str) -> Option<String> {
        let settings = self.settings.iter().map(|(setting, variable)| (format!("SPICED_{setting}"), variable.clone()));
        let short = self.short.iter().filter_map(|(option, right)| match right {
            // Short names resemble many others.
            Right::Variable(variable) if option.len() > 8 => Some((format!("SPICED_{option}"), variable.clone())),
            _ => None,
        });
        settings
            .chain(short)
            .map(|(right, variable)| (strsim::damerau_levenshtein(form, &right), variable))
            .filter(|(typos, _)| *typos <= MAX_TYPOS)
            .min_by_key(|(typos, _)| *typos)
            .map(|(_, variable)| variable)
    }

    /// Returns the TLS setting that a name expresses in another product's terms: `TLS_CERT_FILE`, `SSL_KEY`.
    fn by_meaning(&self, rest: &str) -> Option<String> {
        let rest = rest.strip_prefix("RUNTIME_").unwrap_or(rest);
        let name = ["TLS_", "SSL_", "HTTPS_"].iter().find_map(|prefix| rest.strip_prefix(prefix))?;
        let known: Vec<&str> = paths().leaves.iter().filter_map(|path| path.strip_prefix("runtime.tls.")).collect();
        let setting = meant(&name.to_ascii_lowercase(), &known)?;
        Some(format!("SPICED_RUNTIME__TLS__{}", setting.to_uppercase()))
    }
}

/// Variables of this program that are not settings.
const OURS: [&str; 1] = ["SPICED_LOG"];

/// Returns a name in its form for comparison: in capitals, with one underscore for any run of separators.
fn collapsed(name: &str) -> String {
    let mut form = String::with_capacity(name.len());
    for letter in name.chars() {
        let letter = if letter == '-' || letter == '.' { '_' } else { letter.to_ascii_uppercase() };
        if letter != '_' || !form.ends_with('_') {
            form.push(letter);
        }
    }
    form.trim_matches('_').to_owned()
}

/// Returns true for the variables that Kubernetes and Docker set for a service called `spiced`, `spiced-http` and so
/// on: `SPICED_PORT`, `SPICED_HTTP_SERVICE_HOST`, `SPICED_PORT_3000_TCP_ADDR`.
fn is_service_link(rest: &str) -> bool {
    let words: Vec<&str> = rest.split('_').collect();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let is_protocol = |word: &str| ["TCP", "UDP", "SCTP"].contains(&word);
    (0..words.len()).any(|at| match &words[at..] {
        ["PORT"] | ["SERVICE", "HOST"] | ["SERVICE", "PORT", ..] => true,
        ["PORT", number, protocol] => is_number(number) && is_protocol(protocol),
        ["PORT", number, protocol, "ADDR" | "PORT" | "PROTO"] => is_number(number) && is_protocol(protocol),
        _ => false,
    })
}

/// The dotted paths of the runtime's settings.
struct Paths {
    leaves: Vec<String>,
    sections: BTreeSet<String>,
    lists: BTreeSet<String>,
}

impl Paths {
    /// Returns whether `path` is a setting, a section, or below a list.
    fn speaks_of(&self, path: &str) -> bool {
        self.leaves.iter().any(|leaf| leaf == path)
            || self.sections.contains(path)
            || self.lists.iter().any(|list| path.strip_prefix(list.as_str()).is_some_and(|rest| rest.starts_with('.')))
    }
}

fn paths() -> &'static Paths {
    static PATHS: OnceLock<Paths> = OnceLock::new();
    PATHS.get_or_init(|| {
        let mut paths = Paths { leaves: Vec::new(), sections: BTreeSet::new(), lists: BTreeSet::new() };
        gather(&schema()["properties"]["runtime"], "runtime", &mut paths);
        paths
    })
}

fn gather(schema: &Json, path: &str, paths: &mut Paths) {
    let Some(properties) = schema["properties"].as_object() else {
        if schema["type"] == "array" {
            paths.lists.insert(path.to_owned());
        }
        paths.leaves.push(path.to_owned());
        return;
    };
    paths.sections.insert(path.to_owned());
    for (name, inner) in properties.iter().filter(|(_, inner)| inner["deprecated"] != true) {
        gather(inner, &format!("{path}.{name}"), paths);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Vec<KnownOption> {
        let option = |name: &str, setting| KnownOption { name: name.to_owned(), setting };
        vec![
            option("http", Some("runtime.listen.http")),
            option("tls-enabled", Some("runtime.tls.enabled")),
            option("tls-certificate-file", Some("runtime.tls.certificate_file")),
            option("tls-key-file", Some("runtime.tls.key_file")),
            option("log-format", None),
        ]
    }

    #[test]
    fn variables_that_collide_are_errors() {
        for names in [
            ["SPICED_RUNTIME__TLS__ENABLED", "SPICED_RUNTIME__TLS__Enabled"],
            ["SPICED_RUNTIME__AUTH", "SPICED_RUNTIME__AUTH__ALLOW_ANONYMOUS"],
            ["SPICED_RUNTIME__AUTH__API_KEY", "SPICED_RUNTIME__AUTH__API_KEY__ENABLED"],
        ] {
            let given = names.map(|name| (name.to_owned(), "x".to_owned()));
            let problems = read(given, &options(), |_| false).problems;
            let said = problems.iter().map(ToString::to_string).collect::<String>();
            assert!(problems.len() == 1 && names.iter().all(|name| said.contains(name)), "{names:?}: {said}");
        }
        let both =
            ["SPICED_RUNTIME__TLS__KEY", "SPICED_RUNTIME__TLS__KEY_FILE"].map(|n| (n.to_owned(), "x".to_owned()));
        assert!(read(both, &options(), |_| false).problems.is_empty());
    }

    /// Tests every setting, with its name distorted in every way.
    #[test]
    fn a_name_that_is_nearly_a_setting_is_an_error_that_names_it() {
        let options = options();
        let names = Names::new(&options);
        assert!(paths().leaves.len() > 40, "{}", paths().leaves.len());
        for path in &paths().leaves {
            let right = format!("SPICED_{}", path.to_uppercase().replace('.', "__"));
            assert_eq!(names.of(&right), Meaning::Setting(path.clone()), "{right}");
            let misspelled = Meaning::Misspelled(Right::Variable(right.clone()));
            let mut wrong = vec![
                right.replace("__", "_"),
                right.replacen("__", "_", 1),
                right.replace("__", "___"),
                right.replace("SPICED_", "SPICE_"),
                right.replace("SPICED_", "SPICE_").replace("__", "_"),
                right.replace("SPICED_", "SPICED__"),
                right.replace("_RUNTIME__", "_"),
                right.replace("_RUNTIME__", "__"),
                right.to_lowercase(),
                right.replace("__", ".").to_lowercase(),
                format!("_{right}"),
            ];
            if let Some((head, last)) = right.rsplit_once("__").filter(|(head, _)| head.len() > PREFIX.len()) {
                wrong.push(format!("{head}_{last}"));
            }
            for wrong in wrong {
                assert_eq!(names.of(&wrong), misspelled, "{wrong}");
            }
        }
        for (wrong, right) in [
            ("SPICED_TLS_CERTIFICATE_FILE", "SPICED_RUNTIME__TLS__CERTIFICATE_FILE"),
            ("SPICE_TLS_ENABLED", "SPICED_RUNTIME__TLS__ENABLED"),
            ("SPICED_HTTP", "SPICED_RUNTIME__LISTEN__HTTP"),
            ("SPICEAI_RUNTIME__TLS__ENABLED", "SPICED_RUNTIME__TLS__ENABLED"),
            ("SPICE_AI_TLS_KEY_FILE", "SPICED_RUNTIME__TLS__KEY_FILE"),
        ] {
            assert_eq!(names.of(wrong), Meaning::Misspelled(Right::Variable(right.to_owned())), "{wrong}");
        }
        assert_eq!(names.of("SPICED_LOG_FORMAT"), Meaning::Misspelled(Right::Option("log-format".to_owned())));
    }

    #[test]
    fn typos_and_other_names_are_told() {
        let names = Names::new(&[]);
        for (name, right) in [
            ("SPICED_RUNTIME_TLS_CERTIFICAT_FILE", "SPICED_RUNTIME__TLS__CERTIFICATE_FILE"),
            ("SPCIED_RUNTIME__TLS__ENABLED", "SPICED_RUNTIME__TLS__ENABLED"),
            ("SPICED_RUNTIM__TLS__ENABLED", "SPICED_RUNTIME__TLS__ENABLED"),
            ("RUNTIME__TLS__ENABLED", "SPICED_RUNTIME__TLS__ENABLED"),
            ("SPICED_TLS_CERTFICATE_FILE", "SPICED_RUNTIME__TLS__CERTIFICATE_FILE"),
            ("SPICED_TLS_CERT_FILE", "SPICED_RUNTIME__TLS__CERTIFICATE_FILE"),
            ("SPICED_SSL_KEY", "SPICED_RUNTIME__TLS__KEY_FILE"),
            ("SPICE_RUNTIME_SSL_PRIVATE_KEY_FILE", "SPICED_RUNTIME__TLS__KEY_FILE"),
        ] {
            assert_eq!(names.of(name), Meaning::Similar(Some(right.to_owned())), "{name}");
        }
        assert_eq!(names.of("SPICED_RUNTIME_NONSENSE"), Meaning::Similar(None));
        for (name, right) in [
            ("SPICED_RUNTIME__TLS__CERTIFICAT_FILE", Some("SPICED_RUNTIME__TLS__CERTIFICATE_FILE")),
            ("SPICED_RUNTIME__TSL__ENABLED", Some("SPICED_RUNTIME__TLS__ENABLED")),
            ("SPICED_RUNTIME__TLS__CERT_FILE", Some("SPICED_RUNTIME__TLS__CERTIFICATE_FILE")),
            ("SPICED_RUNTIME__NONSENSE", None),
        ] {
            assert_eq!(names.of(name), Meaning::Unknown(right.map(str::to_owned)), "{name}");
        }
    }

    /// Service links of Kubernetes under any of these names, and Docker's, have no effect.
    #[test]
    fn service_links_pass() {
        let options = options();
        let names = Names::new(&options);
        for service in [
            "SPICED",
            "SPICE",
            "SPICED_HTTP",
            "SPICED_TLS",
            "SPICED_METRICS",
            "SPICED_RUNTIME",
            "SPICED_RUNTIME_TLS",
            "SPICED_TLS_KEY",
            "SPICED_SQL",
            "SPICED_TLS_CERTIFICATE",
            "SPICED_HEADLESS",
            "SPICE_SPICED",
            "SPICED_FLIGHT",
            "SPICED_TLS_ENABLE",
            "SPICED_LISTEN_HTTP",
        ] {
            for link in [
                "PORT",
                "SERVICE_HOST",
                "SERVICE_PORT",
                "SERVICE_PORT_HTTP",
                "SERVICE_PORT_HTTPS_TLS",
                "PORT_3000_TCP",
                "PORT_3000_TCP_ADDR",
                "PORT_3000_TCP_PORT",
                "PORT_3000_TCP_PROTO",
                "PORT_50051_UDP_ADDR",
            ] {
                let name = format!("{service}_{link}");
                assert_eq!(names.of(&name), Meaning::Elsewhere, "{name}");
            }
        }
        for name in [
            "SPICED_LOG",
            "SPICED_SQL_API_KEY",
            "SPICED_SQL_TLS_ROOT_CERTIFICATE_FILE",
            "SPICED_VERSION",
            "PATH",
            "SPICE_API_KEY_READONLY",
            "TLS_KEY_FILE",
            "SSL_CERT_FILE",
            "SPICED_CERT_NAME",
            "SPICED_KEY_MODE",
            "SPICED",
        ] {
            assert_eq!(names.of(name), Meaning::Elsewhere, "{name}");
        }
    }

    #[test]
    fn all_in_one_report_and_no_value() {
        let variables =
            ["SPICED_RUNTIME_TLS__ENABLED", "SPICE_TLS_KEY_FILE", "SPICED_TLS_CERTIFICATE_FILE", "SPICED_TLS_ENABLED"];
        let variables = variables.map(|name| (name.to_owned(), "hush".to_owned()));
        let read = read(variables, &options(), |name| name == "SPICED_TLS_ENABLED");
        assert_eq!(read.problems.len(), 3);
        assert!(!format!("{:?}", read.problems).contains("hush"));
    }
}

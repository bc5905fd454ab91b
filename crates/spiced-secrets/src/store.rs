//! What a secret store is, and the one table of the kinds there are.
//!
//! A new kind is one file below `store/` and one line in [`KINDS`].

mod dotenv;
mod env;
mod file;
mod read;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tls_core::{Secret, Sourced};

use crate::Template;

pub use env::Environment;

/// A place that secrets are read from. A value is read anew each time it is asked for.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// The secret called `key`; `None` where there is none by that name.
    ///
    /// # Errors
    /// The store cannot say: it is not reachable, what it holds is not readable, or `key` is no
    /// name that it could hold. No error holds any of a value.
    async fn get(&self, key: &str) -> Result<Option<Secret>, StoreError>;

    /// Where [`get`](Self::get) looks for `key`, for the message that it is not there.
    fn places(&self, key: &str) -> String;
}

/// Why a store could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No secret of this store could have such a name.
    #[error("`{key}` {why}")]
    Key {
        /// The name.
        key: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file or folder of the store cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// A file of the store is not written as it should be.
    #[error("{}:{line}: {what}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong; nothing of the file's text.
        what: &'static str,
    },
    /// The store did not answer in time.
    #[error("no answer within {0:?}")]
    Timeout(std::time::Duration),
    /// The declaration asks for something that no store does.
    #[error("{0}")]
    Declaration(String),
}

/// What a store may need of the world: handed in, so that tests need neither globals nor order.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The pod's folder; relative paths of a declaration are relative to it.
    pub pod_folder: PathBuf,
    /// The environment variables of the process.
    pub environment: Environment,
}

/// The text after `kind:` and the parameters, checked against the kind's line in the table.
struct Opening<'a> {
    argument: Option<&'a str>,
    params: BTreeMap<&'a str, &'a str>,
    surroundings: &'a Surroundings,
}

type Open = fn(&Opening<'_>) -> Result<Arc<dyn SecretStore>, StoreError>;

struct Kind {
    /// What stands before the `:` of `from`.
    name: &'static str,
    /// What stands after it.
    argument: Argument,
    /// The parameters it knows.
    params: &'static [&'static str],
    /// How it is opened; `None` for a kind of the contract that this version does not have.
    open: Option<Open>,
}

enum Argument {
    None,
    Optional,
    /// With what a person would call it.
    Required(&'static str),
}

const KINDS: &[Kind] = &[
    Kind { name: "env", argument: Argument::None, params: &["file_path"], open: Some(env::open) },
    Kind { name: "file", argument: Argument::Required("DIR"), params: &[], open: Some(file::open) },
    Kind { name: "kubernetes", argument: Argument::Required("SECRET"), params: &[], open: None },
    Kind { name: "aws_secrets_manager", argument: Argument::Optional, params: &[], open: None },
    Kind { name: "hashicorp_vault", argument: Argument::Required("PATH"), params: &[], open: None },
    Kind { name: "keyring", argument: Argument::None, params: &[], open: None },
];

/// Opens the store that `from` names.
pub(crate) fn open(
    from: &str,
    params: &BTreeMap<String, Sourced<Template>>,
    surroundings: &Surroundings,
) -> Result<Arc<dyn SecretStore>, StoreError> {
    let (name, argument) = match from.split_once(':') {
        Some((name, argument)) => (name.trim(), Some(argument.trim()).filter(|a| !a.is_empty())),
        None => (from.trim(), None),
    };
    let kind = KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| {
        let known = KINDS.iter().map(|kind| kind.name);
        declaration(format!("no kind of secret store is called `{name}`; {}", nearest(name, known)))
    })?;
    let Some(open) = kind.open else {
        let built = KINDS.iter().filter(|k| k.open.is_some()).map(|k| format!("`{}`", k.name)).collect::<Vec<_>>();
        return Err(declaration(format!(
            "stores of kind `{name}` are not built yet in this version; it has {}",
            built.join(" and ")
        )));
    };
    match (&kind.argument, argument) {
        (Argument::None, Some(_)) => return Err(declaration(format!("write `from: {name}`, with nothing after it"))),
        (Argument::Required(what), None) => return Err(declaration(format!("write `from: {name}:{what}`"))),
        _ => {}
    }
    let mut literal = BTreeMap::new();
    for (param, value) in params {
        if !kind.params.contains(&param.as_str()) {
            return Err(declaration(match kind.params {
                [] => format!("`{name}` takes no params, so not `{param}` ({})", value.origin),
                known => format!(
                    "`{name}` has no param `{param}` ({}); {}",
                    value.origin,
                    nearest(param, known.iter().copied())
                ),
            }));
        }
        let text = value.value.as_literal().ok_or_else(|| {
            declaration(format!(
                "param `{param}` ({}) is read before any store, so it holds no reference",
                value.origin
            ))
        })?;
        literal.insert(param.as_str(), text);
    }
    open(&Opening { argument, params: literal, surroundings })
}

fn declaration(message: String) -> StoreError {
    StoreError::Declaration(message)
}

/// A sentence that offers the known name nearest to `wrong`, or else all that are known.
pub(crate) fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    /// How alike two names must be, from 0 to 1, for one to be offered for the other.
    const ALIKE: f64 = 0.8;
    let near = known
        .clone()
        .map(|name| (strsim::jaro_winkler(wrong, name), name))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((_, name)) => format!("did you mean `{name}`"),
        None => format!("known: {}", known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    }
}

impl fmt::Debug for dyn SecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretStore")
    }
}

#[cfg(test)]
mod tests {
    use tls_core::Origin;

    use super::*;

    fn message(from: &str, params: &[(&str, &str)]) -> String {
        let surroundings = Surroundings { pod_folder: "/pod".into(), environment: Environment::of([("A", "b")]) };
        let params = params
            .iter()
            .map(|(k, v)| (k.to_string(), Sourced::new(Template::parse(v).unwrap(), Origin::Flag("--x".into()))))
            .collect();
        open(from, &params, &surroundings).map_or_else(|e| e.to_string(), |_| "opened".to_owned())
    }

    #[test]
    fn declarations() {
        for (from, params, expected) in [
            ("env", &[] as &[(&str, &str)], "opened"),
            (" file : secrets ", &[], "opened"),
            ("env", &[("file_path", "x.env")], "opened"),
            ("env:x", &[], "write `from: env`, with nothing after it"),
            ("file", &[], "write `from: file:DIR`"),
            ("file:", &[], "write `from: file:DIR`"),
            ("enw", &[], "no kind of secret store is called `enw`; did you mean `env`"),
            (
                "xyzzy",
                &[],
                "no kind of secret store is called `xyzzy`; known: `env`, `file`, `kubernetes`, `aws_secrets_manager`, `hashicorp_vault`, `keyring`",
            ),
            (
                "aws_secrets_manager:spice",
                &[],
                "stores of kind `aws_secrets_manager` are not built yet in this version; it has `env` and `file`",
            ),
            ("env", &[("file_pat", "x")], "`env` has no param `file_pat` (--x); did you mean `file_path`"),
            ("file:d", &[("x", "y")], "`file` takes no params, so not `x` (--x)"),
            (
                "env",
                &[("file_path", "${env:A}")],
                "param `file_path` (--x) is read before any store, so it holds no reference",
            ),
        ] {
            assert_eq!(message(from, params), expected);
        }
    }
}

//! The declaration of a store, checked against [`KINDS`] before anything is opened.

use std::collections::BTreeMap;
use std::sync::Arc;

use tls_core::{Secret, Sourced, suggest};

use super::{Argument, KINDS, Kind, Open, OpenArgs, SecretStore, StoreEnv, StoreError};
use crate::Template;

/// A declaration with a valid kind, argument and parameter names.
#[derive(Clone)]
pub(crate) struct Declared {
    kind: &'static str,
    argument: Option<String>,
    open: Open,
    /// The parameters, as written in the pod file.
    pub(crate) params: BTreeMap<String, Sourced<Template>>,
}

impl Declared {
    /// Parses the value of `from:`, and checks the names of the parameters.
    pub(crate) fn read(from: &str, params: BTreeMap<String, Sourced<Template>>) -> Result<Self, StoreError> {
        let (name, argument) = match from.split_once(':') {
            Some((name, argument)) => (name.trim(), Some(argument.trim()).filter(|a| !a.is_empty())),
            None => (from.trim(), None),
        };
        let kind = KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| {
            let known = KINDS.iter().map(|kind| kind.name);
            StoreError::declaration(format!("no kind of secret store is called `{name}`; {}", nearest(name, known)))
        })?;
        let Kind { name, argument: wanted, params: known, open } = kind;
        let Some(open) = *open else {
            return Err(StoreError::Declaration {
                message: format!("this build has no stores of kind `{name}`"),
                hint: format!("build spiced with the feature `{name}`"),
            });
        };
        match (wanted, argument) {
            (Argument::None, Some(_)) => {
                return Err(StoreError::declaration(format!("write `from: {name}`, with nothing after it")));
            }
            (Argument::Required(what), None) => {
                return Err(StoreError::declaration(format!("write `from: {name}:{what}`")));
            }
            _ => {}
        }
        if let Some((param, value)) = params.iter().find(|(param, _)| !known.contains(&param.as_str())) {
            let origin = &value.origin;
            return Err(StoreError::declaration(match known {
                [] => format!("`{name}` has no params, so `{param}` is unknown ({origin})"),
                known => {
                    format!("`{name}` has no param `{param}` ({origin}); {}", nearest(param, known.iter().copied()))
                }
            }));
        }
        Ok(Self { kind: name, argument: argument.map(str::to_owned), open, params })
    }

    /// Opens the store. `params` are the parameters with their references replaced.
    pub(crate) fn open(
        &self,
        params: &BTreeMap<String, Secret>,
        surroundings: &StoreEnv,
    ) -> Result<Arc<dyn SecretStore>, StoreError> {
        if let Some((name, _)) = params.iter().find(|(_, value)| value.is_blank()) {
            return Err(StoreError::declaration(format!("param `{name}` is empty")));
        }
        (self.open)(&OpenArgs { argument: self.argument.as_deref(), params, surroundings })
    }

    /// Returns the kind, such as `env` or `hashicorp_vault`.
    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }
}

/// Returns a sentence that suggests the known name closest to `wrong`, or lists all known names.
pub(crate) fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match suggest::nearest(wrong, known.clone()) {
        Some(name) => format!("did you mean `{name}`"),
        None => format!("known: {}", known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use tls_core::Origin;

    use super::*;

    fn message(from: &str, params: &[(&str, &str)]) -> String {
        let params = params
            .iter()
            .map(|(k, v)| (k.to_string(), Sourced::new(Template::parse(v).unwrap(), Origin::Flag("--x".into()))))
            .collect();
        Declared::read(from, params).map_or_else(|e| e.to_string(), |d| d.kind().to_owned())
    }

    #[test]
    fn declarations() {
        for (from, params, expected) in [
            ("env", &[] as &[(&str, &str)], "env"),
            (" file : secrets ", &[], "file"),
            ("env", &[("file_path", "x.env")], "env"),
            ("env", &[("file_path", "${env:A}")], "env"),
            ("env:x", &[], "write `from: env`, with nothing after it"),
            ("file", &[], "write `from: file:DIR`"),
            ("file:", &[], "write `from: file:DIR`"),
            ("enw", &[], "no kind of secret store is called `enw`; did you mean `env`"),
            (
                "xyzzy",
                &[],
                "no kind of secret store is called `xyzzy`; known: `env`, `file`, `kubernetes`, `aws_secrets_manager`, `hashicorp_vault`, `keyring`",
            ),
            ("env", &[("file_pat", "x")], "`env` has no param `file_pat` (--x); did you mean `file_path`"),
            ("file:d", &[("x", "y")], "`file` has no params, so `x` is unknown (--x)"),
        ] {
            assert_eq!(message(from, params), expected);
        }
    }

    #[cfg(not(feature = "keyring"))]
    #[test]
    fn a_kind_that_is_not_built_in_says_so() {
        let error = Declared::read("keyring", BTreeMap::new()).err().unwrap();
        assert_eq!(error.to_string(), "this build has no stores of kind `keyring`");
        assert_eq!(error.hint(), "build spiced with the feature `keyring`");
    }
}

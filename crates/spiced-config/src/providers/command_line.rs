//! The command line as a figment provider.

use std::collections::HashMap;

use figment::value::{Dict, Map};
use figment::{Error, Metadata, Profile, Provider};
use tls_core::Origin;

use super::{Places, pointer, put};

/// A setting from the command line.
#[derive(Clone)]
pub struct Flag {
    /// The option as written: `--tls-key-file`.
    pub name: String,
    /// The setting: `runtime.tls.key_file`.
    pub setting: &'static str,
    /// Its value, literal.
    pub value: String,
}

/// Omits the value, which may be a secret.
impl std::fmt::Debug for Flag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flag").field("name", &self.name).field("setting", &self.setting).finish_non_exhaustive()
    }
}

/// The options that set a value.
pub(crate) struct CommandLine<'f>(pub(crate) &'f [Flag]);

impl CommandLine<'_> {
    pub(crate) fn places(&self) -> Places {
        let mut places = Places::default();
        for flag in self.0 {
            places.insert(pointer(flag.setting), Origin::Flag(flag.name.clone()));
        }
        places
    }
}

impl Provider for CommandLine<'_> {
    fn metadata(&self) -> Metadata {
        let names: HashMap<String, String> =
            self.0.iter().map(|flag| (flag.setting.to_owned(), flag.name.clone())).collect();
        Metadata::named("the command line").interpolater(move |_, keys| {
            let setting = keys.join(".");
            names.get(&setting).cloned().unwrap_or(setting)
        })
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let mut data = Dict::new();
        self.0.iter().for_each(|flag| put(&mut data, flag.setting, flag.value.clone().into()));
        Ok(Profile::Default.collect(data))
    }
}

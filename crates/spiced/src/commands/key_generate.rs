//! `spiced key generate`: generates an API key for a caller, and its hash for the pod.

use spiced_middleware::generate_key;

use crate::args::{KeyGenerateArgs, KeyRole};
use crate::commands::print;
use crate::failure::Failure;

pub(crate) fn run(args: &KeyGenerateArgs) -> Result<(), Failure> {
    let (key, hash) = generate_key().map_err(|e| Failure::Other(e.to_string()))?;
    let role = match args.role {
        KeyRole::Ro => "ro",
        KeyRole::Rw => "rw",
    };
    // The only place that prints a key: the user asked for it.
    let key = key.expose_text().unwrap_or_default();
    print(&format!(
        "key:  {key}      give this to the caller; it is not shown again\n\
         pod:  {hash}:{role}   put this under runtime.auth.api_key.keys\n"
    ))
}

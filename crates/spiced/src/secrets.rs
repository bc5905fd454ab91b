//! Follows the pod's secret references, so that their values change with the stores.

use spiced_config::{Auth, Material, MaterialInput, Pair, Tls};
use spiced_secrets::{Resolver, Template, WatchedSecrets};
use tls_core::{Secret, Sourced};
use tokio::sync::watch;

/// The values that change with the stores, grouped by use.
pub(crate) struct Values {
    /// Certificates, keys, passphrases and the client CA, as far as they refer to secrets.
    pub(crate) tls: Vec<watch::Receiver<Secret>>,
    /// The API keys that refer to secrets, in order.
    pub(crate) keys: Vec<watch::Receiver<Secret>>,
}

/// Hands the stores over to be followed, and returns the watched values.
pub(crate) fn follow(resolver: Resolver, tls: Option<&Tls>, auth: &Auth) -> (Values, WatchedSecrets) {
    let mut written = tls.map_or_else(Vec::new, followed);
    let of_tls = written.len();
    let keys = auth.keys.iter().flatten();
    written.extend(keys.filter_map(|key| Some(Sourced::new(key.written.clone()?, key.key.origin.clone()))));
    let mut following = resolver.follow(written);
    let mut values = std::mem::take(&mut following.values);
    let keys = values.split_off(of_tls);
    (Values { tls: values, keys }, following)
}

/// Returns the TLS settings that refer to secrets: for each pair the certificate, the key and its passphrase, then the
/// client CA.
fn followed(tls: &Tls) -> Vec<Sourced<Template>> {
    let main = match &tls.material {
        Material::Pair(pair) => Some(&**pair),
        Material::SelfSigned { .. } => None,
    };
    let pairs = main.into_iter().chain(&tls.more).flat_map(Pair::inputs);
    let written = |input: &Sourced<MaterialInput>| match &input.value {
        MaterialInput::Secrets { written, .. } => Some(Sourced::new(written.clone(), input.origin.clone())),
        MaterialInput::File(_) | MaterialInput::Text(_) => None,
    };
    pairs.chain(tls.clients.as_ref().map(|clients| &clients.authority)).filter_map(written).collect()
}

//! From the pod's references to values that change with the stores that hold them.

use serde_json::{Value, json};
use spiced_config::{Auth, Material, MaterialInput, Pair, Tls};
use spiced_secrets::{Refresh, Resolver, StoreStatus, StoreTrouble, Template, WatchedSecrets};
use tls_core::{Secret, Sourced};
use tokio::sync::watch;

use crate::status::stamp;

/// The values that change with the stores, by who uses them.
pub(crate) struct Values {
    /// Certificates, keys, passphrases, the client CA: those that refer to any.
    pub(crate) tls: Vec<watch::Receiver<Secret>>,
    /// The API keys that refer to any, in their order.
    pub(crate) keys: Vec<watch::Receiver<Secret>>,
}

/// Hands the stores on to be followed.
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

/// The settings of TLS that change with the stores: pair by pair the certificate, the key, its passphrase, then the
/// client CA, where they refer to any.
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

/// A store, for `/v1/status`.
pub(crate) fn store_status(store: &StoreStatus) -> Value {
    let refresh = match store.refresh {
        Refresh::Told => "on reload".to_owned(),
        Refresh::Every(every) => format!("every {}", humantime::format_duration(every)),
        Refresh::Watch => "watch".to_owned(),
    };
    let state = match (&store.trouble, store.last_read) {
        (Some(_), _) => "failing",
        (None, Some(_)) => "ok",
        (None, None) => "not asked",
    };
    json!({
        "name": store.name,
        "kind": store.kind,
        "refresh": refresh,
        "state": state,
        "last_read": store.last_read.map(stamp),
        "trouble": store.trouble.as_ref().map(|StoreTrouble { since, problem }| {
            json!({ "since": stamp(*since), "problem": problem })
        }),
    })
}

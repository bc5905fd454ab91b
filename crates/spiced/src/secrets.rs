//! From the pod's references to values that change with the stores that hold them.

use serde_json::{Value, json};
use spiced_config::{Material, MaterialInput, Tls};
use spiced_secrets::{Followed, Refresh, Resolver, StoreStatus, StoreTrouble, Template};
use tls_core::Sourced;

use crate::status::stamp;

/// Hands the stores on to be followed: the values are those of [`followed`], in order.
pub(crate) fn follow(resolver: Resolver, tls: Option<&Tls>) -> Followed {
    resolver.follow(tls.map_or_else(Vec::new, |tls| followed(&tls.material)))
}

/// The settings of TLS that change with the stores: the certificate, then the key, where they refer
/// to any.
fn followed(material: &Material) -> Vec<Sourced<Template>> {
    let Material::Pair { certificate, key } = material else { return Vec::new() };
    let written = |input: &Sourced<MaterialInput>| match &input.value {
        MaterialInput::Secrets { written, .. } => Some(Sourced::new(written.clone(), input.origin.clone())),
        MaterialInput::File(_) | MaterialInput::Text(_) => None,
    };
    [certificate, key].into_iter().filter_map(written).collect()
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

//! The environment as a layer: `SPICED_RUNTIME__TLS__ENABLED=true` is `runtime.tls.enabled`. Other
//! `SPICED_…` names (Kubernetes' service links, say) are somebody else's.

use tls_core::{Origin, Secret};

use crate::tree::{Kind, Node, Text};

const PREFIX: &str = "SPICED_RUNTIME__";

/// The layer of those `variables` that are settings of the runtime.
pub(crate) fn read(variables: impl IntoIterator<Item = (String, String)>) -> Node {
    let mut root = Node::map(Origin::Default);
    let mut settings: Vec<_> = variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    // The environment has no order; messages have.
    settings.sort_unstable();
    for (name, value) in settings {
        let path: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
        let path: Vec<&str> = std::iter::once("runtime").chain(path.iter().map(String::as_str)).collect();
        root.put(&path, literal(value, Origin::Variable(name.clone())));
    }
    root
}

/// A value of the command line or the environment: literal, whatever it holds.
pub(crate) fn literal(value: String, origin: Origin) -> Node {
    Node { kind: Kind::Text(Text::Final { value: Secret::from(value), secret: false, list: true }), origin }
}

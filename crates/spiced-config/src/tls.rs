//! Who gives the TLS material, and whether TLS is on. Decided on the trees, before anything is
//! read: the effective source is chosen first, and a broken overridden one does no harm.

use tls_core::Origin;

use crate::error::Problem;
use crate::settings::Warning;
use crate::tree::{Kind, Node};

const TLS: [&str; 2] = ["runtime", "tls"];
const PAIR: [(&str, &str); 2] = [("certificate_file", "certificate"), ("key_file", "key")];
/// More pairs.
const MORE: &str = "certificates";
const PASSPHRASE: &str = "key_passphrase";
/// No material of the server's own: it turns nothing on.
const CLIENT_CA: (&str, &str) = ("client_auth_ca_file", "client_auth_ca");

/// What a layer says of TLS, with `enabled` and `self_signed` already known.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) enabled: Option<(bool, Origin)>,
    pub(crate) self_signed: Option<(bool, Origin)>,
}

/// Leaves in the layers (topmost first) no material but that of the effective source, and none at all if TLS is
/// off. Says whether it is on.
pub(crate) fn settle(layers: &mut [Node], said: &[Said], warnings: &mut Vec<Warning>) -> Result<bool, Problem> {
    let given: Vec<Vec<Origin>> = layers.iter().map(material).collect();
    let first_material = given.iter().flatten().next().cloned();
    let self_signed = said.iter().find_map(|s| s.self_signed.clone()).filter(|(on, _)| *on).map(|(_, origin)| origin);
    let switch = said.iter().enumerate().find_map(|(at, s)| s.enabled.clone().map(|(on, origin)| (at, on, origin)));
    let anything = first_material.clone().or(self_signed.clone());

    let on = match switch {
        None => anything.is_some(),
        Some((_, true, origin)) => {
            if anything.is_none() {
                return Err(nothing_given(origin));
            }
            true
        }
        Some((at, false, origin)) => {
            let above = given[..at].iter().flatten().next().cloned().or_else(|| {
                said[..at].iter().find_map(|s| s.self_signed.clone()).filter(|(on, _)| *on).map(|(_, origin)| origin)
            });
            if let Some(above) = above {
                return Err(Problem::new(
                    above.clone(),
                    format!(
                        "gives TLS material, and TLS is switched off at {origin}; it would be served in plain text"
                    ),
                )
                .hint(format!(
                    "take one of the two away, or switch TLS on where the material is given (beside {above})"
                )));
            }
            if let Some(beaten) = anything {
                warnings.push(Warning {
                    origin: Some(origin),
                    message: format!("TLS is off, so {beaten} is not used and all endpoints speak plain text"),
                });
            }
            false
        }
    };
    if on {
        if let (Some(origin), Some(other)) = (self_signed, first_material) {
            return Err(Problem::new(
                origin,
                format!("self_signed stands beside {other}; only one of them can be served"),
            )
            .hint("take one of the two away"));
        }
        for names in PAIR.into_iter().chain([CLIENT_CA]) {
            keep_winner(layers, &TLS, names);
        }
        // The passphrase of an overridden key is not used for another one.
        let [_, (file, text)] = PAIR;
        let gives_key = |layer: &Node| [file, text].iter().any(|name| layer.get(&[TLS[0], TLS[1], name]).is_some());
        if let Some(winner) = layers.iter().position(gives_key) {
            for beaten in &mut layers[winner + 1..] {
                beaten.take(&[TLS[0], TLS[1], PASSPHRASE]);
            }
        }
        for layer in layers {
            let Some(Node { kind: Kind::List(items), .. }) = layer.get_mut(&[TLS[0], TLS[1], MORE]) else { continue };
            for item in items {
                PAIR.into_iter().for_each(|names| keep_winner(std::slice::from_mut(item), &[], names));
            }
        }
    } else if first_material.is_some() {
        for layer in layers {
            for name in PAIR.into_iter().flat_map(|(file, text)| [file, text]).chain([MORE, PASSPHRASE]) {
                layer.take(&[TLS[0], TLS[1], name]);
            }
        }
    }
    Ok(on)
}

/// The order of the contract: the layers from the top; in the pod's, a value with a reference
/// before a plain one; within one of these, a file before inline text. The two stand below `place`.
fn keep_winner(layers: &mut [Node], place: &[&str], (file, text): (&str, &str)) {
    let path = |name| [place, &[name]].concat();
    let mut candidates = Vec::new();
    for (layer, root) in layers.iter().enumerate() {
        for (inline, name) in [(false, file), (true, text)] {
            if let Some(node) = root.get(&path(name)).filter(|node| !node.is_null()) {
                candidates.push(((layer, !node.has_reference(), inline), name));
            }
        }
    }
    candidates.sort_unstable();
    for ((layer, ..), name) in candidates.into_iter().skip(1) {
        layers[layer].take(&path(name));
    }
}

fn material(root: &Node) -> Vec<Origin> {
    PAIR.iter()
        .flat_map(|(file, text)| [file, text])
        .chain([&MORE])
        .filter_map(|name| root.get(&[TLS[0], TLS[1], name]).filter(|node| !node.is_nothing()))
        .map(|node| node.origin.clone())
        .collect()
}

/// The ways to give material, for an operator who gave none.
pub(crate) const WAYS: &str = "give a certificate and its key: --tls-certificate-file and --tls-key-file, \
    SPICED_RUNTIME__TLS__CERTIFICATE_FILE and SPICED_RUNTIME__TLS__KEY_FILE, or certificate_file and key_file (certificate \
    and key for PEM text) under runtime.tls in spicepod.yaml; or --tls-self-signed for development";

fn nothing_given(origin: Origin) -> Problem {
    Problem::new(origin, "TLS is switched on, and nothing gives a certificate").hint(WAYS)
}

//! The sources of settings as figment [`Provider`]s: the command line, the environment and the pod file.
//!
//! figment merges them and knows which one supplied a value. It keeps one `Metadata` per provider, so each layer also
//! has a table of [`Places`]: the option, the variable, or the line and column of each value.

mod command_line;
pub(crate) mod environment;
mod places;
pub(crate) mod pod;
mod yaml;

use figment::value::{Dict, Tag, Value};
use figment::{Figment, Provider};
use tls_core::Origin;

pub(crate) use command_line::CommandLine;
pub use command_line::Flag;
pub(crate) use places::{Place, Places, child, parent, pointer};

/// A provider: its values as figment holds them, and their places.
#[derive(Clone)]
pub(crate) struct Layer {
    figment: Figment,
    /// The values of this provider.
    root: Value,
    places: Places,
    /// Whether `${store:KEY}` in its values is a reference. Only the pod file has references.
    has_references: bool,
}

impl Layer {
    /// Creates a layer of this program, in which each value has a place.
    pub(crate) fn new(provider: impl Provider, places: Places, has_references: bool) -> Self {
        let figment = Figment::from(provider);
        let root = root_of(&figment);
        Self { figment, root, places, has_references }
    }

    /// Creates a layer from an embedding program's provider, whose values have no place.
    ///
    /// # Errors
    /// Fails if the provider fails.
    pub(crate) fn of_program(provider: impl Provider) -> Result<Self, Box<figment::Error>> {
        let layer = Self::new(provider, Places::of_all(Origin::Program), false);
        layer.figment.find_value("").map_err(Box::new)?;
        Ok(layer)
    }

    /// Returns the provider's name.
    pub(crate) fn name(&self) -> String {
        // figment orders metadata by age; the metadata of a provider that combines others comes last.
        self.figment.metadata().last().map(|metadata| metadata.name.to_string()).unwrap_or_default()
    }

    /// Returns the figment of this provider.
    pub(crate) fn figment(&self) -> &Figment {
        &self.figment
    }

    /// Returns true if this provider supplied the value with this tag.
    pub(crate) fn supplied(&self, tag: Tag) -> bool {
        self.figment.get_metadata(tag).is_some()
    }

    /// Returns the values.
    pub(crate) fn root(&self) -> &Value {
        &self.root
    }

    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    pub(crate) fn has_references(&self) -> bool {
        self.has_references
    }
}

/// Merges the layers, topmost first, with figment.
pub(crate) fn merged(layers: &[Layer]) -> Figment {
    layers.iter().rev().fold(Figment::new(), |figment, layer| figment.merge(layer.figment()))
}

/// Returns the merged values. If a layer sets keys below text or a list of a lower layer, figment would replace that
/// value; here it stays, and the schema refuses it.
pub(crate) fn merged_values(layers: &[Layer]) -> Value {
    let mut root = root_of(&merged(layers));
    layers.iter().rev().for_each(|layer| put_back(&mut root, &layer.root));
    root
}

fn put_back(merged: &mut Value, layer: &Value) {
    match (&mut *merged, layer) {
        (Value::Dict(_, merged), Value::Dict(_, entries)) => {
            for (name, value) in entries {
                if let Some(merged) = merged.get_mut(name) {
                    put_back(merged, value);
                }
            }
        }
        (Value::Dict(..), Value::Empty(..)) => {}
        (Value::Dict(..), value) => *merged = value.clone(),
        _ => {}
    }
}

/// Collects the pointers at which `upper` sets keys below a value that is not a map in `lower`, and whether that value
/// is a list.
pub(crate) fn keys_over_values(upper: &Value, lower: &Value, pointer: &str, found: &mut Vec<(String, bool)>) {
    match (upper, lower) {
        (Value::Dict(_, upper), Value::Dict(_, lower)) => {
            for (name, upper) in upper {
                if let Some(lower) = lower.get(name) {
                    keys_over_values(upper, lower, &child(pointer, name), found);
                }
            }
        }
        (Value::Dict(..), Value::Empty(..)) => {}
        (Value::Dict(..), lower) => found.push((pointer.to_owned(), lower.as_array().is_some())),
        _ => {}
    }
}

fn root_of(figment: &Figment) -> Value {
    figment.find_value("").unwrap_or_else(|_| Dict::new().into())
}

/// Returns the value at a dotted path, for modification.
pub(crate) fn find_mut<'v>(root: &'v mut Dict, path: &str) -> Option<&'v mut Value> {
    match path.split_once('.') {
        None => root.get_mut(path),
        Some((first, rest)) => match root.get_mut(first)? {
            Value::Dict(_, inner) => find_mut(inner, rest),
            _ => None,
        },
    }
}

/// Inserts a value at a dotted path, and creates the maps above it.
fn put(root: &mut Dict, path: &str, value: Value) {
    let Some((first, rest)) = path.split_once('.') else {
        root.insert(path.to_owned(), value);
        return;
    };
    let inner = root.entry(first.to_owned()).or_insert_with(|| Dict::new().into());
    if !matches!(inner, Value::Dict(..)) {
        *inner = Dict::new().into();
    }
    if let Value::Dict(_, inner) = inner {
        put(inner, rest, value);
    }
}

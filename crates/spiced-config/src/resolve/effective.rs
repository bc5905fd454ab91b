//! The effective values: figment's merged values, as text until the schema determines their types, with the places of
//! all layers.
//!
//! [`Effective`] does not modify figment's [`Value`]. Values that do not apply are marked, and the values of references
//! are [`Secret`]s in a table, by the path of their value. figment holds no resolved secret.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use figment::value::{Dict, Num, Value};
use spiced_secrets::Template;
use tls_core::{Origin, Secret, Sourced};

use crate::providers::{Layer, Place, child, find_mut, merged_values, parent, pointer};

/// The maximum number of items of a list that are kept although a reference was removed from them.
const MAX_DAMAGED_ITEMS: usize = 50;

/// The merged values of some layers.
pub(crate) struct Effective<'l> {
    layers: &'l [Layer],
    root: Value,
    /// Pointers of values that do not apply.
    removed: HashSet<String>,
    /// Values whose references have been replaced.
    resolved: HashMap<String, Secret>,
}

/// A value of the tree.
#[derive(Clone)]
pub(crate) struct Node<'t> {
    tree: &'t Effective<'t>,
    value: Cow<'t, Value>,
    pointer: String,
}

/// The text of a scalar.
pub(crate) enum Text<'n> {
    Literal(Cow<'n, str>),
    /// As written in the pod file, with references that are not replaced yet.
    Written(Template),
    /// The value of references; never shown.
    Resolved(&'n Secret),
}

impl<'l> Effective<'l> {
    /// Merges layers, topmost first.
    pub(crate) fn of(layers: &'l [Layer]) -> Self {
        Self { layers, root: merged_values(layers), removed: HashSet::new(), resolved: HashMap::new() }
    }

    pub(crate) fn root(&self) -> Node<'_> {
        Node { tree: self, value: Cow::Borrowed(&self.root), pointer: String::new() }
    }

    /// Returns the value of a setting, by its dotted path.
    pub(crate) fn get(&self, setting: &str) -> Option<Node<'_>> {
        setting.split('.').try_fold(self.root(), |node, name| node.get(name))
    }

    /// Returns the value of a setting, to be split before it is decoded.
    pub(crate) fn get_mut(&mut self, setting: &str) -> Option<&mut Value> {
        match &mut self.root {
            Value::Dict(_, root) => find_mut(root, setting),
            _ => None,
        }
    }

    /// Removes a setting from the effective values.
    pub(crate) fn remove(&mut self, setting: &str) {
        self.removed.insert(pointer(setting));
    }

    /// Removes the value at a pointer from the effective values. Returns the place of the map or list that contains it.
    pub(crate) fn remove_at(&mut self, pointer: &str) -> Option<Origin> {
        let around = parent(pointer)?;
        self.removed.insert(pointer.to_owned());
        Some(self.place(around, self.layer_at(around)).map_or(Origin::Default, |place| place.value.clone()))
    }

    /// Returns the layer of a value, by its precedence: 0 is the topmost.
    pub(crate) fn rank(&self, node: &Node<'_>) -> usize {
        let tag = node.value.tag();
        self.layers.iter().position(|layer| layer.supplied(tag)).unwrap_or(self.layers.len())
    }

    /// Returns every value that contains a reference that is not replaced yet, in order.
    pub(crate) fn references(&self) -> Vec<(String, Sourced<Template>)> {
        let mut found = Vec::new();
        self.root().each_scalar(&mut |node| {
            if let Some(template) = node.reference() {
                found.push((node.pointer.clone(), Sourced::new(template, node.origin())));
            }
        });
        found
    }

    /// Removes every value that contains a reference. Returns the places of the maps and lists that contain them. Each
    /// damaged item of a list costs another round of decoding, so beyond a limit whole items are removed.
    pub(crate) fn remove_references(&mut self) -> Vec<Origin> {
        let (mut items, mut damaged) = (HashMap::<String, HashSet<String>>::new(), Vec::new());
        for (pointer, _) in self.references() {
            let beyond = self.item_around(&pointer).filter(|item| {
                let list = items.entry(parent(item).unwrap_or_default().to_owned()).or_default();
                list.insert(item.clone());
                list.len() > MAX_DAMAGED_ITEMS
            });
            let origin = self.remove_at(beyond.as_ref().unwrap_or(&pointer));
            damaged.extend(origin.filter(|origin| damaged.last() != Some(origin)));
        }
        damaged
    }

    /// Returns the pointer of the outermost list item around a value.
    fn item_around(&self, pointer: &str) -> Option<String> {
        let mut value = &self.root;
        let mut at = String::new();
        for step in pointer.split('/').skip(1) {
            if value.as_array().is_some() {
                let item = [&at, "/", step].concat();
                return (item != pointer).then_some(item);
            }
            value = value.as_dict()?.get(&step.replace("~1", "/").replace("~0", "~"))?;
            at = [&at, "/", step].concat();
        }
        None
    }

    /// Replaces the references of the value at a pointer.
    pub(crate) fn replace(&mut self, pointer: String, value: Secret) {
        self.resolved.insert(pointer, value);
    }

    fn layer_at(&self, pointer: &str) -> Option<&Layer> {
        let mut value = &self.root;
        for step in pointer.split('/').skip(1) {
            value = match value {
                Value::Dict(_, entries) => entries.get(&step.replace("~1", "/").replace("~0", "~"))?,
                Value::Array(_, items) => items.get(step.parse::<usize>().ok()?)?,
                _ => break,
            };
        }
        self.layer(value)
    }

    fn layer(&self, value: &Value) -> Option<&Layer> {
        let tag = value.tag();
        self.layers.iter().find(|layer| layer.supplied(tag))
    }

    /// Returns the place of a value of `layer`. A map that several layers set has the place in the lowest of them.
    fn place<'t>(&'t self, pointer: &str, layer: Option<&'t Layer>) -> Option<&'t Place> {
        let places = || self.layers.iter().rev().map(Layer::places);
        let own = layer.and_then(|layer| layer.places().nearest(pointer));
        own.or_else(|| places().find_map(|places| places.exact(pointer)))
            .or_else(|| layer.and_then(|layer| layer.places().below(pointer)))
            .or_else(|| places().find_map(|places| places.nearest(pointer)))
    }
}

impl<'t> Node<'t> {
    fn layer(&self) -> Option<&'t Layer> {
        self.tree.layer(&self.value)
    }

    fn place(&self) -> Option<&'t Place> {
        self.tree.place(&self.pointer, self.layer())
    }

    /// Returns the place of the value.
    pub(crate) fn origin(&self) -> Origin {
        self.place().map_or(Origin::Default, |place| place.value.clone())
    }

    /// Returns the place of its key.
    pub(crate) fn key_origin(&self) -> Origin {
        self.place().map_or(Origin::Default, |place| place.key.clone())
    }

    pub(crate) fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Returns the entry `name` of a map.
    pub(crate) fn get(&self, name: &str) -> Option<Node<'t>> {
        self.below(name, self.dict()?.get(name)?)
    }

    /// Returns the entries of a map in the order of the file, entries from elsewhere last; `None` if the value is not a
    /// map. figment orders them by name.
    pub(crate) fn entries(&self) -> Option<Vec<(&'t str, Node<'t>)>> {
        let entries = self.dict()?.iter();
        let mut entries: Vec<_> =
            entries.filter_map(|(name, value)| Some((name.as_str(), self.below(name, value)?))).collect();
        entries.sort_by_cached_key(|(_, node)| node.place().map(|place| place.position()));
        Some(entries)
    }

    /// Returns the items of a list; `None` if the value is not a list.
    pub(crate) fn items(&self) -> Option<Vec<Node<'t>>> {
        let Cow::Borrowed(Value::Array(_, items)) = self.value else { return None };
        Some(items.iter().enumerate().filter_map(|(at, item)| self.below(&at.to_string(), item)).collect())
    }

    /// Returns the items of a list that is separated by commas, as on the command line and in the environment. Keeps
    /// only items that are not empty.
    pub(crate) fn split_at_commas(&self) -> Option<Vec<Node<'t>>> {
        let text = self.comma_list()?;
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty()).enumerate();
        let item = |(at, item): (usize, &str)| {
            let pointer = child(&self.pointer, &at.to_string());
            let value = Cow::Owned(Value::String(self.value.tag(), item.to_owned()));
            (!self.tree.removed.contains(&pointer)).then_some(Node { tree: self.tree, value, pointer })
        };
        Some(items.filter_map(item).collect())
    }

    /// Returns text that may be a list with commas.
    pub(crate) fn comma_list(&self) -> Option<&str> {
        if self.has_references() { None } else { self.value.as_str() }
    }

    fn dict(&self) -> Option<&'t Dict> {
        match self.value {
            Cow::Borrowed(value) => value.as_dict(),
            Cow::Owned(_) => None,
        }
    }

    fn below(&self, name: &str, value: &'t Value) -> Option<Node<'t>> {
        let pointer = child(&self.pointer, name);
        let counts = !self.tree.removed.contains(&pointer);
        counts.then_some(Node { tree: self.tree, value: Cow::Borrowed(value), pointer })
    }

    /// Returns true for a null value.
    pub(crate) fn is_null(&self) -> bool {
        matches!(*self.value, Value::Empty(..))
    }

    /// Returns true for a null value or an empty list.
    pub(crate) fn is_nothing(&self) -> bool {
        self.is_null() || self.value.as_array().is_some_and(<[Value]>::is_empty)
    }

    pub(crate) fn is_map(&self) -> bool {
        self.value.as_dict().is_some()
    }

    pub(crate) fn is_list(&self) -> bool {
        self.value.as_array().is_some()
    }

    fn has_references(&self) -> bool {
        self.layer().is_some_and(Layer::has_references)
    }

    /// Returns the text of a scalar; `None` for a map, a list and null.
    pub(crate) fn text(&self) -> Option<Text<'_>> {
        if let Some(secret) = self.tree.resolved.get(&self.pointer) {
            return Some(Text::Resolved(secret));
        }
        let text = scalar(&self.value)?;
        if !self.has_references() {
            return Some(Text::Literal(text));
        }
        let template = Template::parse(&text).unwrap_or_else(|_| Template::literal(text));
        Some(match template.as_literal() {
            Some(text) => Text::Literal(Cow::Owned(text.to_owned())),
            None => Text::Written(template),
        })
    }

    /// Returns the text of a literal scalar.
    pub(crate) fn literal(&self) -> Option<Cow<'_, str>> {
        match self.text()? {
            Text::Literal(text) => Some(text),
            Text::Written(_) | Text::Resolved(_) => None,
        }
    }

    /// Returns the text of a scalar as written, if it holds a reference.
    pub(crate) fn written(&self) -> Option<&str> {
        let text = self.value.as_str().filter(|_| self.has_references())?;
        Template::parse(text).is_ok_and(|template| !template.is_literal()).then_some(text)
    }

    /// Returns the references of this value, if they are not replaced yet.
    pub(crate) fn reference(&self) -> Option<Template> {
        match self.text()? {
            Text::Written(template) => Some(template),
            Text::Literal(_) | Text::Resolved(_) => None,
        }
    }

    /// Visits every scalar below this value.
    pub(crate) fn each_scalar(&self, visit: &mut impl FnMut(&Node<'t>)) {
        if let Some(entries) = self.entries() {
            entries.iter().for_each(|(_, node)| node.each_scalar(visit));
        } else if let Some(items) = self.items() {
            items.iter().for_each(|item| item.each_scalar(visit));
        } else if !self.is_null() {
            visit(self);
        }
    }
}

/// Returns the text of a scalar. Providers of an embedding program may supply numbers.
fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    Some(match value {
        Value::String(_, text) => Cow::Borrowed(text),
        Value::Char(_, letter) => Cow::Owned(letter.to_string()),
        Value::Bool(_, on) => Cow::Owned(on.to_string()),
        Value::Num(_, number) => Cow::Owned(digits(*number)?),
        Value::Empty(..) | Value::Dict(..) | Value::Array(..) => return None,
    })
}

fn digits(number: Num) -> Option<String> {
    let whole = number.to_u128().map(|n| n.to_string()).or_else(|| number.to_i128().map(|n| n.to_string()));
    whole.or_else(|| number.to_f64().map(|n| n.to_string()))
}

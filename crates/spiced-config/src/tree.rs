//! A layer as a tree of values, each with its origin: what YAML, the environment and the command
//! line have in common. Scalars stay text; the schema decides what they mean.

use spiced_secrets::Template;
use tls_core::{Origin, Secret};

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    pub(crate) origin: Origin,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Null,
    Text(Text),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a map and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) origin: Origin,
}

#[derive(Debug, Clone)]
pub(crate) enum Text {
    /// As written in the file, its references not yet replaced.
    Written(Template),
    /// Final. `secret`: a reference was replaced in it, so it is not to be shown; `list`: it came
    /// from where lists are written with commas.
    Final { value: Secret, secret: bool, list: bool },
}

/// The most items of a list that are kept although a reference was taken out of them.
const MAX_DAMAGED_ITEMS: usize = 50;

impl Node {
    pub(crate) fn map(origin: Origin) -> Self {
        Self { kind: Kind::Map(Vec::new()), origin }
    }

    /// The value under `path`.
    pub(crate) fn get(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, name| match &node.kind {
            Kind::Map(entries) => entries.iter().find(|(key, _)| key.name == *name).map(|(_, value)| value),
            _ => None,
        })
    }

    pub(crate) fn get_mut(&mut self, path: &[&str]) -> Option<&mut Node> {
        path.iter().try_fold(self, |node, name| match &mut node.kind {
            Kind::Map(entries) => entries.iter_mut().find(|(key, _)| key.name == *name).map(|(_, value)| value),
            _ => None,
        })
    }

    /// Takes the value under `path` out.
    pub(crate) fn take(&mut self, path: &[&str]) -> Option<Node> {
        let (last, parents) = path.split_last()?;
        let Kind::Map(entries) = &mut self.get_mut(parents)?.kind else { return None };
        let at = entries.iter().position(|(key, _)| key.name == *last)?;
        Some(entries.remove(at).1)
    }

    /// Puts a value under `path`, making the maps on the way.
    pub(crate) fn put(&mut self, path: &[&str], value: Node) {
        let Some((first, rest)) = path.split_first() else {
            *self = value;
            return;
        };
        if !matches!(self.kind, Kind::Map(_)) {
            self.kind = Kind::Map(Vec::new());
        }
        let Kind::Map(entries) = &mut self.kind else { unreachable!("made a map above") };
        if let Some((_, child)) = entries.iter_mut().find(|(key, _)| key.name == *first) {
            return child.put(rest, value);
        }
        let mut child = Node::map(value.origin.clone());
        let key = Key { name: (*first).to_owned(), origin: value.origin.clone() };
        child.put(rest, value);
        entries.push((key, child));
    }

    /// What `upper` says beats what is here: maps are merged, anything else is replaced. What should
    /// be a map and is not stays, so that the schema can say so.
    pub(crate) fn overlay(&mut self, upper: Node) {
        match (&mut self.kind, upper.kind) {
            (Kind::Map(mine), Kind::Map(theirs)) => {
                for (key, value) in theirs {
                    match mine.iter_mut().find(|(k, _)| k.name == key.name) {
                        Some((_, old)) => old.overlay(value),
                        None => mine.push((key, value)),
                    }
                }
            }
            (Kind::Text(_) | Kind::List(_), Kind::Map(_)) => {}
            (_, kind) => *self = Node { kind, origin: upper.origin },
        }
    }

    /// Where `upper` gives keys below what is a list here: they would say nothing.
    pub(crate) fn keys_over_lists(&self, upper: &Node) -> Option<Origin> {
        match (&self.kind, &upper.kind) {
            (Kind::Map(mine), Kind::Map(theirs)) => theirs.iter().find_map(|(key, value)| {
                mine.iter().find(|(k, _)| k.name == key.name).and_then(|(_, old)| old.keys_over_lists(value))
            }),
            (Kind::List(_), Kind::Map(theirs)) => theirs.first().map(|(_, value)| value.origin.clone()),
            _ => None,
        }
    }

    /// Takes out the innermost value that stands at `origin`, or whose key does. Gives where the map or list stands
    /// that it was in.
    pub(crate) fn take_at(&mut self, origin: &Origin) -> Option<Origin> {
        match &mut self.kind {
            Kind::Map(entries) => {
                if let Some(found) = entries.iter_mut().find_map(|(_, value)| value.take_at(origin)) {
                    return Some(found);
                }
                let at = entries.iter().position(|(key, value)| key.origin == *origin || value.origin == *origin)?;
                entries.remove(at);
            }
            Kind::List(items) => {
                if let Some(found) = items.iter_mut().find_map(|item| item.take_at(origin)) {
                    return Some(found);
                }
                let at = items.iter().position(|item| item.origin == *origin)?;
                items.remove(at);
            }
            Kind::Null | Kind::Text(_) => return None,
        }
        Some(self.origin.clone())
    }

    /// Takes out every value that holds a reference. Gives where the maps and lists stand that they were in.
    pub(crate) fn take_references(&mut self) -> Vec<Origin> {
        let mut damaged = Vec::new();
        let taken = match &mut self.kind {
            Kind::Map(entries) => {
                let before = entries.len();
                entries.retain(|(_, value)| !value.has_reference());
                entries.iter_mut().for_each(|(_, value)| damaged.extend(value.take_references()));
                before - entries.len()
            }
            Kind::List(items) => {
                let before = items.len();
                let mut damaged_items = 0;
                items.retain_mut(|item| {
                    if item.has_reference() {
                        return false;
                    }
                    let of_item = item.take_references();
                    damaged_items += usize::from(!of_item.is_empty());
                    // Each of them costs another reading of the tree, so of very many the rest is left out.
                    let stays = of_item.is_empty() || damaged_items <= MAX_DAMAGED_ITEMS;
                    damaged.extend(of_item.into_iter().filter(|_| stays));
                    stays
                });
                before - items.len()
            }
            Kind::Null | Kind::Text(_) => 0,
        };
        if taken > 0 {
            damaged.push(self.origin.clone());
        }
        damaged
    }

    /// True for a value that says nothing.
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.kind, Kind::Null)
    }

    /// True for a value that says nothing, or that there is nothing.
    pub(crate) fn is_nothing(&self) -> bool {
        self.is_null() || matches!(&self.kind, Kind::List(items) if items.is_empty())
    }

    /// True where a reference is written in this very value.
    pub(crate) fn has_reference(&self) -> bool {
        matches!(&self.kind, Kind::Text(Text::Written(template)) if !template.is_literal())
    }

    /// Visits every text below, in order.
    pub(crate) fn each_text(&mut self, visit: &mut impl FnMut(&Origin, &mut Text)) {
        match &mut self.kind {
            Kind::Null => {}
            Kind::Text(text) => visit(&self.origin, text),
            Kind::List(items) => items.iter_mut().for_each(|item| item.each_text(visit)),
            Kind::Map(entries) => entries.iter_mut().for_each(|(_, value)| value.each_text(visit)),
        }
    }
}

//! Chooses among several identities of a server by the name that the client requests (SNI, RFC 6066 §3).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::ClientHello;

use crate::Identity;

/// The identities of a server, each for the DNS names of its leaf. An exact name takes precedence over a wildcard (RFC
/// 9525 §6.3); among several identities for one name, the first whose key the client can verify is used. Any other
/// client gets the default, unless the resolver is strict.
#[derive(Debug)]
pub struct SniCertResolver {
    /// The default is the first.
    all: Vec<Arc<Identity>>,
    /// Indices by lower-case name; a wildcard as written.
    names: HashMap<Box<str>, Vec<usize>>,
    strict: bool,
}

impl SniCertResolver {
    /// Creates a resolver with a default. If `strict`, a client that requests an unknown name, or no name, is refused.
    pub fn new(default: Arc<Identity>, more: impl IntoIterator<Item = Arc<Identity>>, strict: bool) -> Self {
        let all: Vec<Arc<Identity>> = std::iter::once(default).chain(more).collect();
        let mut names: HashMap<Box<str>, Vec<usize>> = HashMap::new();
        for (at, identity) in all.iter().enumerate() {
            for name in identity.leaf().dns_names() {
                let these = names.entry(name.to_ascii_lowercase().into()).or_default();
                // A certificate may contain a name twice.
                if these.last() != Some(&at) {
                    these.push(at);
                }
            }
        }
        Self { all, names, strict }
    }

    /// Returns the identity for clients that request no name of another identity.
    pub fn default(&self) -> &Arc<Identity> {
        &self.all[0]
    }

    /// Returns all identities, the default first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Identity>> {
        self.all.iter()
    }

    /// Returns whether a client that requests an unknown name is refused.
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// Returns the identities for `name` in order of preference: by exact name, then by wildcard.
    pub fn for_name(&self, name: &str) -> impl Iterator<Item = &Arc<Identity>> {
        let name = name.to_ascii_lowercase();
        let wildcard = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let at = |name: &str| self.names.get(name).map_or(&[][..], Vec::as_slice);
        let wild = wildcard.map_or(&[][..], |wildcard| at(&wildcard));
        at(&name).iter().chain(wild).map(|at| &self.all[*at])
    }

    /// Returns the identity for a client that requests `name`, or no name.
    pub fn answer(&self, name: Option<&str>) -> Option<&Arc<Identity>> {
        self.choose(name, |_| true)
    }

    pub(crate) fn resolve(&self, hello: &ClientHello<'_>) -> Option<&Arc<Identity>> {
        let verifiable = |identity: &Identity| verifiable(identity, hello.signature_schemes());
        self.choose(hello.server_name(), verifiable)
    }

    fn choose(&self, name: Option<&str>, fits: impl Fn(&Identity) -> bool + Copy) -> Option<&Arc<Identity>> {
        if self.all.len() == 1 && !self.strict {
            return Some(self.default());
        }
        let named = name.and_then(|name| {
            let mut these = self.for_name(name).peekable();
            let first = these.peek().copied();
            // If none fits, the handshake reports that for the first.
            these.find(|identity| fits(identity)).or(first)
        });
        named.or_else(|| (!self.strict).then(|| self.fallback(fits)))
    }

    /// Returns the default, or another identity for one of its names if the client cannot verify the default's key.
    fn fallback(&self, fits: impl Fn(&Identity) -> bool) -> &Arc<Identity> {
        let default = self.default();
        if fits(default) {
            return default;
        }
        let mut twins = default.leaf().dns_names().flat_map(|name| self.for_name(name));
        twins.find(|twin| fits(twin)).unwrap_or(default)
    }

    /// Returns true if `other` presents the same chains, with the same origins, to the same clients.
    pub fn same(&self, other: &Self) -> bool {
        self.strict == other.strict
            && self.all.len() == other.all.len()
            && self.all.iter().zip(&other.all).all(|(mine, theirs)| {
                let origins =
                    |identity: &Identity| (identity.certificate_origin().clone(), identity.key_origin().clone());
                mine.same_chain(theirs) && origins(mine) == origins(theirs)
            })
    }
}

fn verifiable(identity: &Identity, schemes: &[SignatureScheme]) -> bool {
    identity.certified_key().key.choose_scheme(schemes).is_some()
}

impl From<Arc<Identity>> for SniCertResolver {
    fn from(identity: Arc<Identity>) -> Self {
        Self::new(identity, [], false)
    }
}

impl From<Identity> for SniCertResolver {
    fn from(identity: Identity) -> Self {
        Arc::new(identity).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::identity;

    fn set(names: &[&str], strict: bool) -> SniCertResolver {
        let mut made = names.iter().map(|name| Arc::new(identity(name)));
        SniCertResolver::new(made.next().unwrap(), made, strict)
    }

    fn answered(set: &SniCertResolver, name: Option<&str>) -> Option<String> {
        set.answer(name).map(|identity| identity.leaf().names[0].clone())
    }

    #[test]
    fn exact_before_wildcard_before_default() {
        let names = ["a.test", "*.apps.test", "x.apps.test", "b.test"];
        for (asked, default) in [("a.test", "a.test"), ("X.apps.test", "x.apps.test"), ("y.apps.test", "*.apps.test")] {
            for strict in [false, true] {
                assert_eq!(answered(&set(&names, strict), Some(asked)).as_deref(), Some(default), "{asked}");
            }
        }
        for asked in [None, Some("c.test"), Some("apps.test"), Some("z.y.apps.test"), Some("test")] {
            assert_eq!(answered(&set(&names, false), asked).as_deref(), Some("a.test"), "{asked:?}");
            assert_eq!(answered(&set(&names, true), asked), None, "{asked:?}");
        }
        assert_eq!(answered(&set(&["a.test"], true), None), None);
    }

    #[test]
    fn of_one_name_the_first_that_fits() {
        let set = set(&["a.test", "b.test", "b.test"], false);
        let these: Vec<_> = set.for_name("b.test").cloned().collect();
        assert_eq!(these.len(), 2);
        assert!(Arc::ptr_eq(set.choose(Some("b.test"), |_| true).unwrap(), &these[0]));
        let second = set.choose(Some("b.test"), |identity| identity.same_chain(&these[1])).unwrap();
        assert!(Arc::ptr_eq(second, &these[1]));
        assert!(Arc::ptr_eq(set.choose(Some("b.test"), |_| false).unwrap(), &these[0]));
    }

    #[test]
    fn beside_the_default_stands_its_twin() {
        let set = set(&["a.test", "b.test", "a.test"], false);
        let all: Vec<_> = set.iter().cloned().collect();
        let not_the_first = |identity: &Identity| !identity.same_chain(&all[0]);
        assert!(Arc::ptr_eq(set.choose(None, not_the_first).unwrap(), &all[2]));
        assert!(
            Arc::ptr_eq(set.choose(Some("127.0.0.1"), |_| true).unwrap(), &all[0]),
            "an address is asked by nobody"
        );
    }
}

//! API keys: stored as digests, each compared in constant time.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use aws_lc_rs::constant_time;
use spiced_engine::Role;
use tls_core::{Secret, Sourced};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::auth::throttle::{Source, Throttle};
use crate::digest::{SHA256, hex, sha256};

/// Maximum number of hashes computed concurrently; each takes a core and the memory that its hash specifies.
const SLOW_AT_A_TIME: usize = 2;

/// How long a request waits for a slot to compute a hash.
const SLOW_CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum memory of an argon2id hash, in KiB.
const MAX_MEMORY: u32 = 256 * 1024;

/// A shorter key can be guessed.
const SHORT: usize = 16;

/// A configured key: the key itself, `sha256:HEX`, or `argon2id:` and a PHC string.
#[derive(Debug, Clone)]
pub struct ApiKey {
    /// The key or its hash, and its origin.
    pub key: Sourced<Secret>,
    /// The role of callers with this key.
    pub role: Role,
}

/// The keys of a server. Only their digests and hashes are kept.
pub struct ApiKeys {
    fast: Vec<(Key, [u8; SHA256])>,
    slow: Vec<Argon2Key>,
    turns: Arc<Semaphore>,
}

/// The name and the role of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) name: Arc<str>,
    pub(crate) role: Role,
}

/// An argon2id hash. Once a key has matched it, that key's digest is enough.
struct Argon2Key {
    key: Key,
    hash: Secret,
    proven: OnceLock<[u8; SHA256]>,
}

/// The result of checking a key.
pub(crate) enum Checked<'a> {
    Known(&'a Key),
    Unknown,
    /// The key matches no digest, and there are slow hashes to check.
    Unclear,
}

/// No hash could be computed in time, because too many callers present unknown keys.
#[derive(Debug)]
pub(crate) struct Busy;

impl ApiKeys {
    /// Reads the configured keys.
    ///
    /// # Errors
    /// Fails with an error for each key that is empty, is a malformed hash, or appears twice.
    pub fn new(keys: &[ApiKey]) -> Result<Self, Vec<Sourced<KeyError>>> {
        let (mut fast, mut slow, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for ApiKey { key: Sourced { value, origin }, role } in keys {
            let form = match Form::read(value) {
                Ok(form) => form,
                Err(error) => {
                    errors.push(Sourced::new(error, origin.clone()));
                    continue;
                }
            };
            // For a chosen key, the name reveals nothing that can be tested faster than the hash.
            let digest = match &form {
                Form::Digest(digest) => *digest,
                Form::Slow(hash) => sha256(hash.expose()),
            };
            let key = Key { name: name(&digest), role: *role };
            if !seen.insert(digest) {
                errors.push(Sourced::new(KeyError::Twice, origin.clone()));
            }
            match form {
                Form::Digest(digest) => fast.push((key, digest)),
                Form::Slow(hash) => slow.push(Argon2Key { key, hash, proven: OnceLock::new() }),
            }
        }
        if errors.is_empty() {
            Ok(Self { fast, slow, turns: Arc::new(Semaphore::new(SLOW_AT_A_TIME)) })
        } else {
            Err(errors)
        }
    }

    /// Returns true if `other` has the same keys with the same roles, in any order.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let all = |keys: &Self| -> HashSet<(Vec<u8>, Role)> {
            let fast = keys.fast.iter().map(|(key, digest)| (digest.to_vec(), key.role));
            fast.chain(keys.slow.iter().map(|slow| (slow.hash.expose().to_vec(), slow.key.role))).collect()
        };
        all(self) == all(other)
    }

    /// Returns the name and the role of each key.
    pub(crate) fn bearers(&self) -> impl Iterator<Item = &Key> {
        self.fast.iter().map(|(key, _)| key).chain(self.slow.iter().map(|slow| &slow.key))
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.fast.len() + self.slow.len()
    }

    /// Returns true if there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Compares a key with all digests, in time that depends only on the key's length.
    pub(crate) fn check(&self, given: &[u8]) -> Checked<'_> {
        let digest = sha256(given);
        let mut found = None;
        let proven = self.slow.iter().filter_map(|slow| Some((&slow.key, slow.proven.get()?)));
        for (key, known) in self.fast.iter().map(|(key, digest)| (key, digest)).chain(proven) {
            if constant_time::verify_slices_are_equal(known, &digest).is_ok() {
                found = Some(key);
            }
        }
        match found {
            Some(key) => Checked::Known(key),
            None if self.slow.iter().any(|slow| slow.proven.get().is_none()) => Checked::Unclear,
            None => Checked::Unknown,
        }
    }

    /// Tries the hashes that no key has matched yet, on another thread. `guesses` decides whether the address must wait
    /// and how a wrong key counts, even if the caller no longer waits for the result.
    pub(crate) async fn check_slowly(
        self: Arc<Self>,
        given: Secret,
        guesses: AttemptTracker,
    ) -> Result<SlowCheck, Busy> {
        let turn = timeout(SLOW_CHECK_TIMEOUT, self.turns.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| Busy)?.map_err(|_| Busy)?;
        if let Some(after) = guesses.wait() {
            return Ok(SlowCheck::Waits(after));
        }
        let keys = self.clone();
        let computed = tokio::task::spawn_blocking(move || {
            // Held while the hash is computed: a caller that disconnects does not free the slot for another.
            let _turn = turn;
            match keys.compute(&given) {
                Some(key) => SlowCheck::Known(key),
                None => SlowCheck::Unknown { waits: guesses.failed() },
            }
        });
        computed.await.map_err(|_| Busy)
    }

    /// Returns the matching key, by a digest that another request has proven in the meantime or by a hash.
    fn compute(&self, given: &Secret) -> Option<Key> {
        let known = || match self.check(given.expose()) {
            Checked::Known(key) => Some(key.clone()),
            _ => None,
        };
        for slow in &self.slow {
            if let Some(key) = known() {
                return Some(key);
            }
            if slow.proven.get().is_none() && slow.fits(given) {
                // Another request may have been first with the same key.
                let _ = slow.proven.set(sha256(given.expose()));
            }
        }
        known()
    }

    /// Keeps the digests that `before` has already proven.
    #[must_use]
    pub fn remembering(self, before: &Self) -> Self {
        for slow in &self.slow {
            let same = before.slow.iter().find(|other| other.hash.expose() == slow.hash.expose());
            if let Some(digest) = same.and_then(|same| same.proven.get()) {
                let _ = slow.proven.set(*digest);
            }
        }
        self
    }
}

/// Tracks failed attempts by address while slow hashes are checked.
pub(crate) struct AttemptTracker {
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) source: Option<Source>,
}

impl AttemptTracker {
    fn wait(&self) -> Option<Duration> {
        self.source.and_then(|source| self.throttle.wait(source))
    }

    fn failed(&self) -> bool {
        self.source.is_some_and(|source| self.throttle.failed(source))
    }
}

/// The result of checking a slow hash.
pub(crate) enum SlowCheck {
    Known(Key),
    /// `waits`: the address is throttled from now on.
    Unknown {
        waits: bool,
    },
    /// The address has failed too often while this request waited for a slot.
    Waits(Duration),
}

impl Argon2Key {
    fn fits(&self, given: &Secret) -> bool {
        let text = self.hash.expose_text().unwrap_or_default();
        PasswordHash::new(text).is_ok_and(|hash| Argon2::default().verify_password(given.expose(), &hash).is_ok())
    }
}

impl std::fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKeys({})", self.len())
    }
}

/// Why a key cannot be configured. No variant contains any part of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key is empty or only white space.
    #[error("the API key is empty")]
    Empty,
    /// White space at either end, which is a typo, or characters that no header can carry.
    #[error("the API key begins or ends with white space, or contains what no header can carry")]
    Unsendable,
    /// The value is not 64 hex digits.
    #[error("the text after `sha256:` is not the 64 hex digits of a SHA-256")]
    Sha256,
    /// The value is not a PHC string of argon2id within the limits.
    #[error("the text after `argon2id:` is not a PHC string of argon2id, or requires more than 256 MiB")]
    Argon2id,
    /// Another entry has the same key.
    #[error("the API key is listed twice")]
    Twice,
}

impl KeyError {
    /// Returns the fix, in one sentence.
    pub fn hint(self) -> &'static str {
        match self {
            Self::Empty | Self::Unsendable => "create a key with: spiced key generate",
            Self::Sha256 => "create one with: printf %s \"$KEY\" | sha256sum",
            Self::Argon2id => {
                "write argon2id:$argon2id$v=19$m=19456,t=2,p=1$SALT$HASH; in a variable, commas separate keys, so put \
                 it into the pod"
            }
            Self::Twice => "remove one of the two: a key has one role",
        }
    }
}

enum Form {
    Digest([u8; SHA256]),
    /// A PHC string.
    Slow(Secret),
}

impl Form {
    fn read(key: &Secret) -> Result<Self, KeyError> {
        let text = key.expose();
        if key.is_blank() {
            return Err(KeyError::Empty);
        }
        if let Some(hex) = text.strip_prefix(b"sha256:") {
            return unhex(hex).map(Self::Digest).ok_or(KeyError::Sha256);
        }
        if let Some(phc) = text.strip_prefix(b"argon2id:") {
            let hash = std::str::from_utf8(phc).ok().and_then(|text| PasswordHash::new(text).ok());
            let within = |hash: &PasswordHash| {
                hash.algorithm.as_str() == "argon2id"
                    && hash.hash.is_some()
                    && hash.params.get_decimal("m").is_some_and(|m| m <= MAX_MEMORY)
                    && ["t", "p"].into_iter().all(|cost| hash.params.get_decimal(cost).is_some())
            };
            return hash.filter(within).map(|_| Self::Slow(Secret::new(phc.to_vec()))).ok_or(KeyError::Argon2id);
        }
        // The characters allowed in a header value (RFC 9110 §5.5), without blanks at either end.
        let sendable = text.iter().all(|b| (0x20..0x7f).contains(b) || *b >= 0x80);
        if !sendable || text.first() == Some(&b' ') || text.last() == Some(&b' ') {
            return Err(KeyError::Unsendable);
        }
        Ok(Self::Digest(sha256(text)))
    }
}

/// Returns true for a key that is configured in plain text and is short enough to be guessed.
pub fn is_weak(key: &Secret) -> bool {
    let text = key.expose();
    !text.starts_with(b"sha256:") && !text.starts_with(b"argon2id:") && text.len() < SHORT
}

/// Names a key by the beginning of its SHA-256, or of its argon2id hash's SHA-256, so that an operator can find the
/// entry in the pod. The name is the same on every replica.
fn name(digest: &[u8; SHA256]) -> Arc<str> {
    format!("key:{}", hex(&digest[..6])).into()
}

fn unhex(text: &[u8]) -> Option<[u8; SHA256]> {
    let mut digest = [0; SHA256];
    if text.len() != 2 * SHA256 || !text.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

/// The system provides no random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system provides no random bytes")]
pub struct NoRandom;

/// Generates a key of 256 random bits, and its hash in the form that a pod accepts.
///
/// # Errors
/// Fails if the system provides no random bytes.
pub fn generate_key() -> Result<(Secret, String), NoRandom> {
    let mut bytes = [0; SHA256];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandom)?;
    let key = Secret::from(format!("spk_{}", hex(&bytes)));
    let hash = format!("sha256:{}", hex(&sha256(key.expose())));
    Ok((key, hash))
}

#[cfg(test)]
mod tests {
    use tls_core::Origin;

    use super::*;

    fn key(text: &str, role: Role) -> ApiKey {
        ApiKey { key: Sourced::new(text.into(), Origin::Default), role }
    }

    fn errors(keys: &[&str]) -> Vec<KeyError> {
        let keys: Vec<_> = keys.iter().map(|text| key(text, Role::ReadOnly)).collect();
        ApiKeys::new(&keys).err().unwrap_or_default().into_iter().map(|e| e.value).collect()
    }

    #[test]
    fn a_key_is_itself_or_its_digest() {
        let (secret, hash) = generate_key().unwrap();
        let keys = [key("a plain key", Role::ReadWrite), key(&hash, Role::ReadOnly)];
        let keys = ApiKeys::new(&keys).unwrap();
        let role = |given: &[u8]| match keys.check(given) {
            Checked::Known(key) => Some(key.role),
            _ => None,
        };
        assert_eq!(role(b"a plain key"), Some(Role::ReadWrite));
        assert_eq!(role(secret.expose()), Some(Role::ReadOnly));
        for wrong in [b"a plain ke".as_slice(), b"a plain key2", b"", hash.as_bytes()] {
            assert_eq!(role(wrong), None);
        }
    }

    #[tokio::test]
    async fn a_slow_hash_is_computed_until_a_key_fits() {
        // printf %s chosen | argon2 saltsaltsalt -id -m 8 -t 1 -p 1 -e
        let phc = {
            use argon2::password_hash::CustomizedPasswordHasher;
            let params = argon2::Params::new(64, 1, 1, None).unwrap();
            Argon2::default()
                .hash_password_customized(b"chosen", b"saltsaltsalt", None, None, params)
                .unwrap()
                .to_string()
        };
        let entry = [key(&format!("argon2id:{phc}"), Role::ReadOnly)];
        let keys = Arc::new(ApiKeys::new(&entry).unwrap());
        let throttle = Arc::new(Throttle::new(std::num::NonZero::new(1).unwrap()));
        let source = Some(Source::from(std::net::IpAddr::from([192, 0, 2, 1])));
        let slowly = async |text: &str, source| {
            let guesses = AttemptTracker { throttle: throttle.clone(), source };
            keys.clone().check_slowly(text.into(), guesses).await.unwrap()
        };
        let unclear = |text: &str| matches!(keys.check(text.as_bytes()), Checked::Unclear);
        assert!(unclear("wrong") && unclear("chosen"));
        assert!(matches!(slowly("wrong", source).await, SlowCheck::Unknown { waits: false }));
        assert!(matches!(slowly("wrong", source).await, SlowCheck::Unknown { waits: true }));
        assert!(matches!(slowly("chosen", source).await, SlowCheck::Waits(_)), "it is not computed for who waits");
        assert!(unclear("wrong") && unclear("chosen"));
        // Concurrent requests are all accepted, whichever is first.
        let all = futures::future::join_all([0; 4].map(|_| slowly("chosen", None))).await;
        assert!(all.iter().all(|one| matches!(one, SlowCheck::Known(_))));
        assert!(matches!(keys.check(b"chosen"), Checked::Known(_)));
        assert!(matches!(keys.check(b"wrong"), Checked::Unknown));
        let again = ApiKeys::new(&entry).unwrap().remembering(&keys);
        assert!(matches!(again.check(b"chosen"), Checked::Known(_)));
    }

    #[test]
    fn what_cannot_be_a_key_is_refused() {
        assert_eq!(errors(&[""]), [KeyError::Empty]);
        assert_eq!(errors(&[" a"]), [KeyError::Unsendable]);
        assert_eq!(errors(&["a\nb"]), [KeyError::Unsendable]);
        assert_eq!(errors(&["sha256:12"]), [KeyError::Sha256]);
        assert_eq!(errors(&["argon2id:$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAA"]), [KeyError::Argon2id]);
        assert_eq!(errors(&["a", "b", "a"]), [KeyError::Twice]);
        let digest = format!("sha256:{}", hex(&sha256(b"a")));
        assert_eq!(errors(&["a", &digest]), [KeyError::Twice]);
    }
}

//! Keys for separate purposes, derived from one secret (HKDF-SHA256, RFC 5869).

use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

use crate::Secret;

/// Derives keys from a secret. Replicas with the same secret derive the same keys.
#[derive(Clone)]
pub struct KeyDeriver(hkdf::Prk);

impl KeyDeriver {
    /// Creates a deriver from `secret`.
    pub fn new(secret: &Secret) -> Self {
        Self(hkdf::Salt::new(hkdf::HKDF_SHA256, b"spiced").extract(secret.expose()))
    }

    /// Creates a deriver from 32 random bytes, so that no other process has its keys.
    ///
    /// # Errors
    /// Fails if the system provides no random bytes.
    pub fn random() -> Result<Self, rustls::Error> {
        let mut bytes = vec![0; 32];
        crate::provider().secure_random.fill(&mut bytes).map_err(|_| rustls::Error::FailedToGetRandomBytes)?;
        Ok(Self::new(&Secret::new(bytes)))
    }

    /// Derives the 32-byte key for a purpose. `label` names the purpose and anything else the key is bound to; each
    /// part is hashed with its length, so that different lists never collide.
    pub fn key(&self, label: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        let lengths: Vec<[u8; 8]> = label.iter().map(|part| (part.len() as u64).to_be_bytes()).collect();
        let info: Vec<&[u8]> = lengths.iter().zip(label).flat_map(|(len, part)| [len.as_slice(), *part]).collect();
        let mut key = Zeroizing::new([0; 32]);
        self.0
            .expand(&info, hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(key.as_mut_slice()))
            .expect("HKDF-SHA256 gives 32 bytes for any label");
        key
    }
}

impl std::fmt::Debug for KeyDeriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Derivation(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_secret_gives_one_key_a_label() {
        let (a, b) = (KeyDeriver::new(&"s".into()), KeyDeriver::new(&"s".into()));
        assert_eq!(*a.key(&[b"x", b"y"]), *b.key(&[b"x", b"y"]));
        assert_ne!(*a.key(&[b"x", b"y"]), *a.key(&[b"xy"]));
        assert_ne!(*a.key(&[b"x"]), *KeyDeriver::new(&"t".into()).key(&[b"x"]));
    }
}

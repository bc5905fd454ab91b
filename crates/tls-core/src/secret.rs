//! A secret value: zeroized when dropped, and never printed by accident.

use std::fmt;

use zeroize::Zeroizing;

/// Secret bytes, which are wiped from memory when dropped and which no `Debug` or `Display` shows.
///
/// There is no `Display`, no `Deref` and no `PartialEq`. The content is only accessible through two methods,
/// [`Secret::expose`] and [`Secret::expose_text`], whose calls are easy to search for.
///
/// ```
/// let key = tls_core::Secret::from("correct horse");
/// assert_eq!(format!("{key:?}"), "Secret(***)");
/// assert_eq!(key.expose_text(), Ok("correct horse"));
/// ```
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of `bytes`; they are wiped when the last clone is dropped.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the content. Every call is a place where a secret may leak.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Returns the content as text.
    ///
    /// # Errors
    /// Fails if the content is not UTF-8; the error carries the position, not the bytes.
    pub fn expose_text(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(&self.0)
    }

    /// Returns true if the content is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if there is nothing but ASCII white space.
    pub fn is_blank(&self) -> bool {
        self.0.iter().all(u8::is_ascii_whitespace)
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes().to_vec())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

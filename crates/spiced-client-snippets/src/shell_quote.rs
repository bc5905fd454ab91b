//! Quoting for shells.

/// Quotes `text` as one word of a shell command.
pub fn quoted(text: &str) -> String {
    // Quoting fails only for NUL, which no shell word can contain.
    shlex::try_quote(text).map_or_else(|_| String::new(), |word| word.into_owned())
}

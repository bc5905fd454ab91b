//! Text as a shell reads it.

/// `text` as one word of a shell's line.
pub(crate) fn quoted(text: &str) -> String {
    // No text that a person gives holds NUL, which no shell can be given.
    shlex::try_quote(text).map_or_else(|_| String::new(), |word| word.into_owned())
}

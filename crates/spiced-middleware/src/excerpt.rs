//! Text of a caller's in an answer, within bounds.

use std::borrow::Cow;

/// Bytes of a caller's text that an answer repeats at most.
const MAX: usize = 128;

/// The text, or its beginning where it is long, so that no answer is larger than what asked for it.
pub fn excerpt(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX {
        return Cow::Borrowed(text);
    }
    let end = (0..=MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    Cow::Owned(format!("{}…", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_between_two_characters() {
        assert_eq!(excerpt("/v1/sql"), "/v1/sql");
        assert_eq!(excerpt(&"x".repeat(MAX)).len(), MAX);
        let long = excerpt(&"é".repeat(60_000)).into_owned();
        assert!(long.len() <= MAX + '…'.len_utf8() && long.ends_with("é…"));
        assert_eq!(excerpt(&format!("x{}", "é".repeat(60_000))).chars().count(), 1 + 63 + 1);
    }
}

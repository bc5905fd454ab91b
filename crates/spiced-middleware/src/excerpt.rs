//! Excerpts of a caller's text for responses, bounded in length.

use std::borrow::Cow;

/// Maximum number of bytes of a caller's text that a response repeats.
const MAX: usize = 128;

/// Returns the text, or its beginning if it is long, so that no response is larger than its request.
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

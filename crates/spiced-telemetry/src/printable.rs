//! Formats the fields of a log line as text, so that no input from a peer can end a line, begin another, or control the
//! terminal.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;

/// Formats fields as `message name=value …` and escapes control characters.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PrintableFields;

impl<'w> FormatFields<'w> for PrintableFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line { writer, is_empty: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'w> {
    writer: Writer<'w>,
    is_empty: bool,
    result: fmt::Result,
}

impl Line<'_> {
    fn field(&mut self, field: &Field, value: fmt::Arguments<'_>) -> fmt::Result {
        // Skips the fields that the `log` crate adds.
        if field.name().starts_with("log.") {
            return Ok(());
        }
        if !std::mem::take(&mut self.is_empty) {
            self.writer.write_char(' ')?;
        }
        if field.name() != "message" {
            let name = field.name().strip_prefix("r#").unwrap_or(field.name());
            match self.writer.has_ansi_escapes() {
                // These escapes come from the program, not from a peer.
                true => write!(self.writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
                false => write!(self.writer, "{name}=")?,
            }
        }
        write!(Escaped(&mut self.writer), "{value}")
    }
}

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.record_debug(field, &format_args!("{value}")),
            _ => self.record_debug(field, &value),
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.result.is_ok() {
            self.result = self.field(field, format_args!("{value:?}"));
        }
    }
}

/// Writes text and escapes control and invisible characters.
struct Escaped<'w, W>(&'w mut W);

impl<W: Write> Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_escaped) {
            let (plain, tail) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut letters = tail.chars();
            match letters.next() {
                Some('\n') => self.0.write_str("\\n")?,
                Some('\r') => self.0.write_str("\\r")?,
                Some('\t') => self.0.write_str("\\t")?,
                Some(other) => write!(self.0, "\\u{{{:x}}}", u32::from(other))?,
                None => {}
            }
            rest = letters.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Returns true for control characters (C0, DEL and C1), line and paragraph separators, marks that change the text
/// direction, and invisible characters.
fn is_escaped(letter: char) -> bool {
    const UNSEEN: [std::ops::RangeInclusive<char>; 8] = [
        '\u{ad}'..='\u{ad}',
        '\u{61c}'..='\u{61c}',
        '\u{180e}'..='\u{180e}',
        '\u{200b}'..='\u{200f}',
        '\u{2028}'..='\u{202e}',
        '\u{2060}'..='\u{206f}',
        '\u{feff}'..='\u{feff}',
        '\u{fff9}'..='\u{fffb}',
    ];
    letter.is_control() || UNSEEN.iter().any(|range| range.contains(&letter))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'w> MakeWriter<'w> for Kept {
        type Writer = Self;

        fn make_writer(&'w self) -> Self {
            self.clone()
        }
    }

    fn logged(say: impl FnOnce()) -> String {
        let kept = Kept::default();
        let layer = tracing_subscriber::fmt::layer().fmt_fields(PrintableFields).with_ansi(false).without_time();
        let lines = tracing_subscriber::registry().with(layer.with_writer(kept.clone()));
        tracing::subscriber::with_default(lines, say);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// Tests all control characters in the message and in every kind of field, including those of a span.
    #[test]
    fn no_control_character_comes_through() {
        let hostile: String =
            (0..=0xa0).chain(0x200b..=0x206f).filter_map(char::from_u32).filter(|c| !c.is_alphanumeric()).collect();
        for text in [hostile.as_str(), "a\nERROR forged", "\x1b]0;title\x07", "a\u{202e}b", "\u{9b}31m"] {
            let line = logged(|| {
                let span = tracing::info_span!("request", path = %text, other = text);
                let _in = span.enter();
                let error = io::Error::other(text.to_owned());
                tracing::info!(shown = %text, debugged = ?text, plain = text, error = &error as &dyn std::error::Error, "said {text}");
            });
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            let inner = line.trim_end_matches('\n');
            assert!(!inner.chars().any(is_escaped), "{inner:?}");
        }
        let line = logged(|| tracing::info!(name = "caf\u{e9}", number = 7, "it is \u{fc}ber"));
        assert!(line.ends_with("it is \u{fc}ber name=\"caf\u{e9}\" number=7\n"), "{line:?}");
    }
}

//! The output of the prompt: results go to standard output, everything else to standard error.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Write};

use crate::error::SqlError;

/// The two outputs. Only results go to `out`, so that they can be piped.
pub(crate) struct Screen {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    /// Whether a user reads the messages.
    watched: bool,
    colour: bool,
}

impl Screen {
    /// Standard output and standard error.
    pub(crate) fn standard() -> Self {
        let watched = io::stderr().is_terminal();
        // https://no-color.org
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            out: Box::new(BufWriter::with_capacity(64 * 1024, io::stdout())),
            err: Box::new(io::stderr()),
            watched,
            colour: watched && !plain,
        }
    }

    /// Returns the output for results.
    pub(crate) fn out(&mut self) -> &mut dyn Write {
        &mut self.out
    }

    /// Prints a result that is the prompt's own text.
    pub(crate) fn answer(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", printable(text))?;
        self.out.flush()
    }

    /// Returns whether colours may be used.
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    /// Prints a message. Errors are ignored: there is no other place to report them.
    pub(crate) fn say(&mut self, text: &str) {
        let _ = writeln!(self.err, "{}", printable(text));
    }

    /// Prints a message only if the output is a terminal.
    pub(crate) fn aside(&mut self, text: &str) {
        if self.watched {
            self.say(text);
        }
    }

    /// Prints an error.
    pub(crate) fn trouble(&mut self, trouble: &SqlError) {
        let (red, end) = if self.colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        let _ = writeln!(self.err, "{red}error:{end} {}", printable(&trouble.text()));
    }
}

/// Escapes control characters, which could drive a terminal; keeps newlines.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let drives = |c: char| c.is_control() && c != '\n';
    if !text.contains(drives) {
        return Cow::Borrowed(text);
    }
    let escaped = |c: char| if drives(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(escaped).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_drives_the_terminal() {
        assert_eq!(printable("ä\nb"), "ä\nb");
        assert_eq!(printable("a\x1b[2J\tb\r"), "a\\u{1b}[2J\\tb\\r");
    }
}

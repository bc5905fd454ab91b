//! Where the prompt writes: answers to one place, everything else to another.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Write};

use super::error::SqlError;

/// Two ways out. Answers alone go to `out`, so that they can be piped.
pub(crate) struct Screen {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    /// Whether a person reads what is said beside answers.
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

    /// Where answers go.
    pub(crate) fn out(&mut self) -> &mut dyn Write {
        &mut self.out
    }

    /// An answer that is a text of our own.
    pub(crate) fn answer(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{}", printable(text))?;
        self.out.flush()
    }

    /// Whether colours may be used.
    pub(crate) fn colour(&self) -> bool {
        self.colour
    }

    /// Something that is said in any case. Where nobody can be told, nobody is.
    pub(crate) fn say(&mut self, text: &str) {
        let _ = writeln!(self.err, "{}", printable(text));
    }

    /// Something that only a person who watches wants to know.
    pub(crate) fn aside(&mut self, text: &str) {
        if self.watched {
            self.say(text);
        }
    }

    /// Something that went wrong.
    pub(crate) fn trouble(&mut self, trouble: &SqlError) {
        let (red, end) = if self.colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        let _ = writeln!(self.err, "{red}error:{end} {}", printable(&trouble.text()));
    }
}

/// The text without what would drive a terminal. Newlines stay.
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

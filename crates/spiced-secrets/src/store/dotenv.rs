//! The format of `.env` files: names and values, without any expansion.
//!
//! - `NAME=value`; blanks around either part and a leading `export ` are ignored. If a name occurs several times, the
//!   last line counts, as in a shell.
//! - An unquoted value ends at the end of the line, or at a `#` after a blank.
//! - In `'…'` everything is literal. In `"…"` the escapes `\n`, `\r`, `\t`, `\"` and `\\` are recognized; any other
//!   backslash is literal. Both may contain newlines.
//! - A byte order mark and CRLF are accepted. `$` has no special meaning.

use tls_core::Secret;

/// An error and its line, from 1. It contains nothing of the text, which may be secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) line: usize,
    pub(super) what: &'static str,
    /// The fix.
    pub(super) hint: &'static str,
}

const CORRECT: &str = "correct this line: NAME=value, or NAME=\"value\" if the value has several lines";
const CLOSE: &str = "close the quote after the value; a quote within it is written \\\" in double quotes";
const QUOTE_PEM: &str = "put double quotes around it, NAME=\"-----BEGIN …-----END …-----\", one before -----BEGIN and one after the last line";

const SAVE_AS_UTF8: &str = "save it as UTF-8: in PowerShell with `Out-File -Encoding utf8`";

/// Returns true for UTF-16 with a byte order mark, or with the zero bytes that it has between Latin letters.
fn is_utf16(text: &[u8]) -> bool {
    matches!(text, [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, 0, _, ..] | [_, 0, _, 0, ..])
}

/// Returns the names and values of a file, in order.
pub(super) fn parse(text: &[u8]) -> Result<Vec<(String, Secret)>, Problem> {
    if is_utf16(text) {
        return Err(Problem { line: 1, what: "it is in UTF-16, as PowerShell's `>` writes it", hint: SAVE_AS_UTF8 });
    }
    let mut cursor = Cursor { rest: text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text), line: 1 };
    let mut entries = Vec::new();
    loop {
        cursor.skip(|b| b.is_ascii_whitespace());
        match cursor.rest.first() {
            None => return Ok(entries),
            Some(b'#') => cursor.skip(|b| b != b'\n'),
            Some(_) => entries.push(cursor.entry()?),
        }
    }
}

/// The error for a PEM file pasted without quotes.
const UNQUOTED_PEM: &str =
    "PEM text of several lines begins in this line without quotes, so the value would end with this line";

struct Cursor<'a> {
    rest: &'a [u8],
    line: usize,
}

impl<'a> Cursor<'a> {
    fn entry(&mut self) -> Result<(String, Secret), Problem> {
        let line = self.line;
        let problem = |what| Problem { line, what, hint: CORRECT };
        if let Some(rest) = self.rest.strip_prefix(b"export").filter(|rest| rest.first().is_some_and(is_blank)) {
            self.rest = rest;
            self.skip(|b| is_blank(&b));
        }
        let name = self.take(|b| b != b'=' && b != b'\n').trim_ascii_end();
        if self.rest.first() != Some(&b'=') {
            return Err(problem("there is no `=` in this line; a value of several lines must be quoted"));
        }
        if name.is_empty() || !name.iter().all(|b| b.is_ascii_alphanumeric() || b"_.+@/-".contains(b)) {
            return Err(problem("the text before the `=` is not a name: letters, digits and `_ . + @ / -` only"));
        }
        self.rest = &self.rest[1..];
        let blanks = self.rest.iter().take_while(|b| is_blank(b)).count();
        let value = match self.rest.get(blanks) {
            Some(quote @ (b'\'' | b'"')) => {
                self.rest = &self.rest[blanks..];
                if *quote == b'"' { self.double_quoted()? } else { self.single_quoted()? }
            }
            _ => {
                let value = self.unquoted();
                let begins = |mark: &[u8]| value.expose().windows(mark.len()).any(|window| window == mark);
                // The lines that follow are not entries, although one that ends with Base64's `=` looks like one.
                if begins(b"-----BEGIN") && !begins(b"-----END") {
                    return Err(Problem { line, what: UNQUOTED_PEM, hint: QUOTE_PEM });
                }
                value
            }
        };
        Ok((String::from_utf8_lossy(name).into_owned(), value))
    }

    fn unquoted(&mut self) -> Secret {
        let line = self.take(|b| b != b'\n');
        // A `#` starts a comment only after a blank, as in a shell: `a#b` is a value.
        let comment = line.windows(2).position(|pair| is_blank(&pair[0]) && pair[1] == b'#');
        Secret::new(line[..comment.unwrap_or(line.len())].trim_ascii().to_vec())
    }

    fn single_quoted(&mut self) -> Result<Secret, Problem> {
        let line = self.line;
        self.rest = &self.rest[1..];
        let value = self.take(|b| b != b'\'').to_vec();
        self.close(line, b'\'')?;
        Ok(Secret::new(value))
    }

    fn double_quoted(&mut self) -> Result<Secret, Problem> {
        let line = self.line;
        self.rest = &self.rest[1..];
        let mut value = Vec::with_capacity(self.rest.iter().position(|b| *b == b'"').unwrap_or(0));
        loop {
            value.extend_from_slice(self.take(|b| b != b'"' && b != b'\\'));
            let [b'\\', escaped, ..] = self.rest else { break };
            match escaped {
                b'n' => value.push(b'\n'),
                b'r' => value.push(b'\r'),
                b't' => value.push(b'\t'),
                b'"' | b'\\' => value.push(*escaped),
                _ => {
                    // The backslash is literal, and so is the next character.
                    value.push(b'\\');
                    self.rest = &self.rest[1..];
                    continue;
                }
            }
            self.rest = &self.rest[2..];
        }
        self.close(line, b'"')?;
        Ok(Secret::new(value))
    }

    /// Consumes the closing quote of a value that began in `line`, and checks that nothing follows it.
    fn close(&mut self, line: usize, quote: u8) -> Result<(), Problem> {
        if self.rest.first() != Some(&quote) {
            return Err(Problem { line, what: "the quote that opens in this line is never closed", hint: CLOSE });
        }
        self.rest = &self.rest[1..];
        let after = self.take(|b| b != b'\n').trim_ascii();
        if after.is_empty() || after.starts_with(b"#") {
            return Ok(());
        }
        Err(Problem { line: self.line, what: "there is text after the closing quote", hint: CLOSE })
    }

    fn skip(&mut self, wanted: impl Fn(u8) -> bool) {
        self.take(wanted);
    }

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.rest.iter().position(|b| !wanted(*b)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(length);
        self.line += taken.iter().filter(|b| **b == b'\n').count();
        self.rest = rest;
        taken
    }
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(text: &str) -> Vec<(String, String)> {
        let entries = parse(text.as_bytes()).unwrap();
        entries.into_iter().map(|(name, value)| (name, value.expose_text().unwrap().to_owned())).collect()
    }

    #[test]
    fn values() {
        for (text, value) in [
            ("A=b", "b"),
            ("A = b ", "b"),
            ("export A=b", "b"),
            ("export\tA=b", "b"),
            ("\u{feff}A=b\r\n", "b"),
            ("A=", ""),
            ("A= # comment", ""),
            ("A=b # comment", "b"),
            ("A=b#c", "b#c"),
            ("A=#c", "#c"),
            ("A=b c", "b c"),
            ("A=b=c==", "b=c=="),
            ("A=$HOME ${B}", "$HOME ${B}"),
            ("A=\\n", "\\n"),
            ("A='b # c' # d", "b # c"),
            ("A='b\\n\"$C'", "b\\n\"$C"),
            ("A='b\nc'", "b\nc"),
            ("A=\"b\nc\"\r\n", "b\nc"),
            ("A=\"b\\nc\\t\\\"\\\\\\$\\x\"", "b\nc\t\"\\\\$\\x"),
            ("A=\"$B\"", "$B"),
            ("A=\"\"", ""),
            ("A=it's", "it's"),
            ("A=-----BEGIN X-----\\nx\\n-----END X-----", "-----BEGIN X-----\\nx\\n-----END X-----"),
            ("A=\"-----BEGIN X-----\nx\n-----END X-----\n\"", "-----BEGIN X-----\nx\n-----END X-----\n"),
        ] {
            assert_eq!(entries(text), [("A".to_owned(), value.to_owned())], "{text:?}");
        }
    }

    #[test]
    fn many_lines() {
        let text = "# first\n\nA=1\r\n  # indented\n  B='x\ny'\nexport C.d-e=3\nA=2";
        let pairs = [("A", "1"), ("B", "x\ny"), ("C.d-e", "3"), ("A", "2")];
        assert_eq!(entries(text), pairs.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert!(entries("").is_empty());
    }

    #[test]
    fn problems_name_the_line_and_nothing_of_the_text() {
        for (text, line, what) in [
            ("A=1\nhunter2", 2, "no `=`"),
            ("=hunter2", 1, "not a name"),
            ("hunter 2=x", 1, "not a name"),
            ("A='1\n2'\nB=\"hunter2\n\n", 3, "never closed"),
            ("A='hunter2", 1, "never closed"),
            ("A=\"hunter2\\", 1, "never closed"),
            ("A='x'hunter2", 1, "after the closing quote"),
            ("export", 1, "no `=`"),
            ("A=1\nB=-----BEGIN PRIVATE KEY-----\nhunter2=\n-----END PRIVATE KEY-----\n", 2, "without quotes"),
        ] {
            let problem = parse(text.as_bytes()).unwrap_err();
            assert_eq!(problem.line, line, "{text:?}");
            assert!(problem.what.contains(what) && !problem.what.contains("hunter"), "{text:?}: {}", problem.what);
        }
    }

    #[test]
    fn utf16_is_named() {
        for big in [false, true] {
            let coded = |mark: &str| -> Vec<u8> {
                let units = format!("{mark}A=b").encode_utf16().collect::<Vec<u16>>();
                units.iter().flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
            };
            for mark in ["\u{feff}", ""] {
                assert!(parse(&coded(mark)).unwrap_err().what.contains("UTF-16"));
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[A=\\\\'\"#$n \\n\\r]{0,60}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn any_text_without_a_quote_survives_single_quotes(value in "[^']{0,60}") {
            prop_assert_eq!(entries(&format!("A='{value}'")), [("A".to_owned(), value)]);
        }

        #[test]
        fn any_text_survives_escaping(value in "\\PC{0,30}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            prop_assert_eq!(entries(&format!("A=\"{escaped}\"")), [("A".to_owned(), value)]);
        }
    }
}

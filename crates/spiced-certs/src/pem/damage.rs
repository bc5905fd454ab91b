//! Damage to PEM text: what other programs put around its lines, and lines that are lost.

use crate::pem::der;

/// Text that other programs put around the lines of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Around {
    /// `> ` before each line: a reply to a mail.
    Quotes,
    /// `+` or `-` before each line: a diff.
    Diff,
    /// A number before each line.
    Numbers,
    /// Marks of a comment, a quote or a program's string around each line.
    Marks,
    /// A placeholder, where the lines should be.
    Placeholder,
    /// HTML's entities for `+`, `/` and `=`.
    Entities,
    /// A mail's quoted-printable form of `=`.
    QuotedPrintable,
}

impl Around {
    /// Recognizes it by the lines of a block's body.
    pub(crate) fn of(body: &str) -> Option<Self> {
        let lines: Vec<&str> = body.lines().map(str::trim_end).filter(|line| !line.trim().is_empty()).collect();
        let all = |fits: &dyn Fn(&str) -> bool| lines.len() > 1 && lines.iter().all(|line| fits(line));
        let has_number = |line: &str| {
            let line = line.trim_start();
            let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
            let rest_after = rest.trim_start_matches([':', '.', '|', ')']);
            // The last line is the number of the END line alone.
            let is_parted = rest_after.len() < rest.len() || rest_after.starts_with([' ', '\t', '|']);
            rest.len() < line.len() && (rest_after.is_empty() || is_parted)
        };
        match () {
            () if all(&|line| line.trim_start().starts_with('>')) => Some(Self::Quotes),
            () if all(&|line| line.starts_with('+')) || all(&|line| line.starts_with('-')) => Some(Self::Diff),
            () if all(&has_number) => Some(Self::Numbers),
            () if ["&#43;", "&#47;", "&#61;", "&#x2b;", "&#x2B;", "&#x3D;"].iter().any(|mark| body.contains(mark)) => {
                Some(Self::Entities)
            }
            () if body.contains("=3D") => Some(Self::QuotedPrintable),
            () if lines.iter().all(|line| !has_base64(line)) => Some(Self::Placeholder),
            () if all(&|line| without_marks(line).bytes().all(is_base64)) => Some(Self::Marks),
            () => None,
        }
    }

    /// Returns whether [`sed`](Self::sed) repairs it.
    pub(crate) fn can_be_taken_away(self) -> bool {
        self != Self::Placeholder
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Quotes => "each line begins with `>`, as in a reply to a mail",
            Self::Diff => "each line begins with `+` or `-`, as in a diff",
            Self::Numbers => "each line begins with its number",
            Self::Marks => "there are marks around each line, as of a comment or a program's string",
            Self::Placeholder => "there is only a placeholder between its lines",
            Self::Entities => "some of its letters are HTML entities",
            Self::QuotedPrintable => "it is in a mail's quoted-printable form",
        }
    }

    /// Returns the `sed` command that takes it away, without the file.
    pub(crate) fn sed(self) -> &'static str {
        match self {
            Self::Quotes => "sed 's/^[[:blank:]]*[>[:blank:]]*//'",
            Self::Diff => "sed -e '/^[-+][-+][-+] /d' -e 's/^[-+]//'",
            Self::Numbers => "sed -E 's/^[[:blank:]]*[0-9]+[:.|)]*[[:blank:]|]*//'",
            Self::Entities => {
                "sed -e 's/&#43;/+/g; s/&#47;/\\//g; s/&#61;/=/g' -e 's/&#[xX]2[bB];/+/g; s/&#[xX]2[fF];/\\//g; s/&#[xX]3[dD];/=/g'"
            }
            Self::Marks => {
                // `\` is literal in brackets, so `,` delimits what has a `/`. A `+` at the end of base64 stays.
                "sed -e 's/\\\\[nr]//g' -e 's,\\([^A-Za-z0-9+/=-]\\)[[:blank:]]*[+.]$,\\1,' \
                 -e 's,^[[:blank:]]*[-/][-/][[:blank:]],,' -e 's,^[^A-Za-z0-9+/-]*,,' -e 's,[^A-Za-z0-9+/=-]*$,,'"
            }
            Self::Placeholder => "",
            Self::QuotedPrintable => "sed -e 's/=2B/+/g; s/=2F/\\//g; s/=3D/=/g'",
        }
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)
}

/// Returns true if a line has as many letters of base64 in a row as no placeholder has.
fn has_base64(line: &str) -> bool {
    const RUN: usize = 24;
    line.as_bytes().split(|byte| !is_base64(*byte)).any(|run| run.len() >= RUN)
}

/// Returns a line of base64 without the text before and after it, as the command of [`Around::sed`] does it.
fn without_marks(line: &str) -> String {
    let is_mark = |c: char| !c.is_ascii() || !is_base64(c as u8);
    let line = line.replace("\\n", "").replace("\\r", "");
    let line = line.trim();
    let line = line.strip_suffix(['+', '.']).filter(|rest| rest.ends_with(is_mark)).unwrap_or(line);
    let comment =
        line.strip_prefix("//").or_else(|| line.strip_prefix("--")).filter(|rest| rest.starts_with([' ', '\t']));
    comment.unwrap_or(line).trim_matches(is_mark).to_owned()
}

/// Returns true if `text` has git's conflict markers.
pub(crate) fn is_conflict(text: &str) -> bool {
    let has =
        |mark: &str| text.lines().any(|line| line.strip_prefix(mark).is_some_and(|rest| !rest.starts_with(&mark[..1])));
    has("<<<<<<<") && has("=======") && has(">>>>>>>")
}

/// Returns true if a value in DER has fewer or more bytes than its outermost length states. `tail`: whether bytes may
/// follow the value.
pub(crate) fn is_cut(der: &[u8], tail: bool) -> bool {
    match der::stated_length(der) {
        Some(length) if tail => der.len() < length,
        Some(length) => der.len() != length,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_around_lines_is_recognized() {
        for (body, around) in [
            ("\n> MIIB\n> abcd\n> ", Some(Around::Quotes)),
            ("\n>> MIIB\n>> abcd\n", Some(Around::Quotes)),
            ("\n+MIIB\n+abcd\n", Some(Around::Diff)),
            ("\n  2  MIIB\n 3  ab+d\n", Some(Around::Numbers)),
            ("\n2: MIIB\n3: abcd\n4: ", Some(Around::Numbers)),
            ("\n  2  MIIB\n 3  abcd\n 4  ", Some(Around::Numbers)),
            ("\nMIIB\nab&#43;d\n", Some(Around::Entities)),
            ("\nMIIB\nabcd=3D\n", Some(Around::QuotedPrintable)),
            ("\nMIIBMIIBMIIBMIIBMIIBMIIB\nab!cd\n", None),
            ("\n# MIIBMIIBMIIBMIIBMIIBMIIB\n# abcd\n# ", Some(Around::Marks)),
            ("\\n\" +\n\"MIIBMIIBMIIBMIIBMIIBMIIB\\n\" +\n\"abcd\\n\" +\n\"", Some(Around::Marks)),
            ("$\nMIIBMIIBMIIBMIIBMIIBMIIB$\nab==$\n", Some(Around::Marks)),
            ("\n// MIIBMIIBMIIBMIIBMIIBMIIB\n// ab/+\n// ", Some(Around::Marks)),
            ("\n2:MIIBMIIBMIIBMIIBMIIBMIIB\n3:abcd\n4:", Some(Around::Numbers)),
            ("\n...\n", Some(Around::Placeholder)),
            ("\n<your certificate>\n", Some(Around::Placeholder)),
            ("\n+MIBMIIBMIIBMIIBMIIBMIIBMIIB!\nab!cd\n", None),
            ("\n12MIMIIBMIIBMIIBMIIBMIIB\n34!cd\n", None),
        ] {
            assert_eq!(Around::of(body), around, "{body:?}");
        }
    }

    #[test]
    fn conflicts_and_lost_lines_are_recognized() {
        assert!(is_conflict("<<<<<<< HEAD\na\n=======\nb\n>>>>>>> other\n"));
        assert!(!is_conflict("=======\n"));
        assert!(!is_conflict("<<<<<<<<<<\n==========\n>>>>>>>>>>\n"));
        for (der, tail, cut) in [
            (&[0x30, 2, 5, 0][..], false, false),
            (&[0x30, 2, 5], false, true),
            (&[0x30, 2, 5, 0, 0], false, true),
            (&[0x30, 2, 5, 0, 0], true, false),
            (&[0x30, 0x82, 1, 0], false, true),
            (&[0x30, 0x80, 0, 0], false, false),
            (&[4, 1], false, false),
        ] {
            assert_eq!(is_cut(der, tail), cut, "{der:?}");
        }
    }
}

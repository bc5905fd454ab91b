//! Removes possible credentials from the text of a statement, so that it may be stored, shown to other callers, and
//! logged.
//!
//! The statement is tokenized, not parsed, so that a malformed one is redacted as well. The following are replaced by
//! `***`: the values of `OPTIONS (…)`; every literal of `COPY` and `CREATE EXTERNAL TABLE`; a literal that is assigned
//! to, or compared with, a name such as `password`; a literal or comment that itself looks like a credential.

use std::borrow::Cow;

/// The replacement for a credential.
const MASK: &str = "***";

/// How much of a statement is read; the rest is dropped.
const MAX_TEXT: usize = 64 * 1024;

/// A word of at least this length with letters of both cases and digits counts as a key: an AWS secret has 40.
const MIN_CODED: usize = 40;

/// Shorter secrets are not replaced in error messages, because they would match parts of other words.
const MIN_QUOTED: usize = 4;

/// A redacted statement, and the secrets that were removed from it.
#[derive(Clone, PartialEq, Eq)]
pub struct Redacted<'a> {
    /// The text.
    pub text: Cow<'a, str>,
    secrets: Vec<String>,
    is_whole: bool,
}

impl std::fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redacted").field("text", &self.text).finish_non_exhaustive()
    }
}

impl<'a> Redacted<'a> {
    /// Removes possible credentials from `sql`. Only the beginning of a very long statement is kept.
    pub fn of(sql: &'a str) -> Self {
        let read = &sql[..sql.floor_char_boundary(MAX_TEXT)];
        let mut redactor = Redactor { out: String::with_capacity(read.len()), secrets: Vec::new(), from: 0, sql: read };
        redactor.run();
        let text = if redactor.secrets.is_empty() { Cow::Borrowed(read) } else { Cow::Owned(redactor.out) };
        Self { text, secrets: redactor.secrets, is_whole: read.len() == sql.len() }
    }

    /// Redacts an error message, which may quote the statement. Returns `None` if it may quote a part that was not
    /// read.
    pub fn message(&self, error: &str) -> Option<String> {
        if !self.is_whole {
            return None;
        }
        let mut message = error.to_owned();
        for secret in self.secrets.iter().filter(|secret| secret.len() >= MIN_QUOTED) {
            message = message.replace(secret.as_str(), MASK);
        }
        Some(message)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    /// A name in double quotes or backquotes.
    Name,
    Text,
    Number,
    Comment,
    Mark,
}

#[derive(Debug, Clone, Copy)]
struct Token<'a> {
    kind: Kind,
    /// The start and end.
    at: (usize, usize),
    /// The text between the quotes; for other kinds, the whole token.
    inner: &'a str,
}

struct Redactor<'a> {
    sql: &'a str,
    out: String,
    secrets: Vec<String>,
    /// Everything before this offset is already in `out`.
    from: usize,
}

/// The list of options being read: its nesting depth, and whether the key of the current item has been read.
struct Options {
    depth: usize,
    in_value: bool,
}

impl<'a> Redactor<'a> {
    fn run(&mut self) {
        let (mut depth, mut options, mut follows_options) = (0_usize, None::<Options>, false);
        // Set in a statement that moves data to or from elsewhere: each of its literals may be a location that includes
        // credentials.
        let mut outbound = false;
        // The name that the next value may belong to, and its kind, which decides whether a comma may separate them.
        let mut name: Option<(bool, Kind)> = None;
        let mut at = 0;
        while let Some(token) = token(self.sql, at) {
            at = token.at.1;
            let text = token.inner;
            match token.kind {
                Kind::Comment => {
                    if looks_secret(text) || is_secret_name(text) {
                        self.mask(token, "/* *** */");
                    }
                    continue;
                }
                Kind::Mark => {
                    match text {
                        "(" | "[" | "{" => {
                            depth += 1;
                            if follows_options {
                                options = Some(Options { depth, in_value: false });
                            }
                        }
                        ")" | "]" | "}" => {
                            if options.as_ref().is_some_and(|options| options.depth == depth) {
                                options = None;
                            }
                            depth = depth.saturating_sub(1);
                        }
                        "," => {
                            if let Some(options) = options.as_mut().filter(|options| options.depth == depth) {
                                options.in_value = false;
                            }
                        }
                        ";" => (outbound, options, depth) = (false, None, 0),
                        _ => {}
                    }
                    let keeps = match text {
                        "=" | ":" | "<" | ">" | "!" | "(" | "|" => true,
                        "," => name.is_some_and(|(_, kind)| kind == Kind::Text),
                        _ => false,
                    };
                    name = name.filter(|_| keeps);
                    follows_options = false;
                    continue;
                }
                _ => {}
            }
            let of_options = options.as_ref().is_some_and(|options| options.in_value || options.depth != depth);
            if let Some(options) = options.as_mut() {
                // A key may consist of several parts: format.delimiter.
                let goes_on = self.sql[at..].starts_with('.') || self.sql[..token.at.0].ends_with('.');
                options.in_value |= options.depth == depth && !(goes_on && self.sql[at..].starts_with('.'));
            }
            let is_value = name.is_some_and(|(is_secret, _)| is_secret);
            let is_masked = match token.kind {
                Kind::Text => of_options || outbound && options.is_none() || is_value || looks_secret(text),
                Kind::Word | Kind::Number if of_options => true,
                Kind::Number => is_value,
                Kind::Name => of_options || looks_secret(text),
                _ => looks_secret(text),
            };
            if is_masked {
                self.mask(token, if token.kind == Kind::Text { "'***'" } else { MASK });
            }
            let is_keyword =
                |words: &[&str]| token.kind == Kind::Word && words.iter().any(|w| text.eq_ignore_ascii_case(w));
            follows_options = is_keyword(&["options"]);
            outbound |= is_keyword(&["copy", "external", "unload"]);
            if !is_keyword(&["to", "is", "like", "ilike", "in", "not", "by", "as", "encrypted", "e", "b", "x", "n"]) {
                name = Some((!is_masked && is_secret_name(text), token.kind));
            }
        }
        self.out.push_str(&self.sql[self.from..]);
    }

    fn mask(&mut self, token: Token<'_>, mask: &str) {
        self.out.push_str(&self.sql[self.from..token.at.0]);
        self.out.push_str(mask);
        self.from = token.at.1;
        let unquoted = token.inner.replace("''", "'");
        if unquoted != token.inner {
            self.secrets.push(unquoted);
        }
        self.secrets.push(token.inner.to_owned());
    }
}

/// Returns the token at `at`, after any whitespace.
fn token(sql: &str, at: usize) -> Option<Token<'_>> {
    let begin = at + sql[at..].find(|c: char| !c.is_whitespace())?;
    let rest = &sql[begin..];
    let first = rest.chars().next()?;
    let whole = |kind, length: usize| Some(Token { kind, at: (begin, begin + length), inner: &rest[..length] });
    let until = |end: Option<usize>, mark: &str| end.map_or(rest.len(), |end| end + mark.len());
    match first {
        '\'' | '"' | '`' => {
            let before = sql[..begin].strip_suffix(['e', 'E']);
            let escapes =
                first == '\'' && before.is_some_and(|text| !text.ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            let (end, closed) = quoted(rest, first, escapes);
            let kind = if first == '\'' { Kind::Text } else { Kind::Name };
            let inner = &rest[1..if closed { end - 1 } else { end }];
            Some(Token { kind, at: (begin, begin + end), inner })
        }
        '$' => {
            let tag = rest[1..].find('$').map(|end| &rest[..end + 2]);
            let is_tag = |tag: &&str| tag[1..tag.len() - 1].chars().all(|c| c.is_alphanumeric() || c == '_');
            match tag.filter(is_tag).filter(|tag| !tag[1..].starts_with(|c: char| c.is_ascii_digit())) {
                Some(tag) => {
                    let close = rest[tag.len()..].find(tag).map(|end| end + tag.len());
                    let inner = &rest[tag.len()..close.unwrap_or(rest.len())];
                    Some(Token { kind: Kind::Text, at: (begin, begin + until(close, tag)), inner })
                }
                None => whole(Kind::Mark, 1),
            }
        }
        '-' if rest.starts_with("--") => whole(Kind::Comment, until(rest.find('\n'), "\n")),
        '/' if rest.starts_with("/*") => whole(Kind::Comment, until(rest.find("*/"), "*/")),
        c if c.is_alphabetic() || c == '_' => {
            whole(Kind::Word, rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()))
        }
        c if c.is_numeric() => {
            whole(Kind::Number, rest.find(|c: char| !c.is_alphanumeric() && c != '.').unwrap_or(rest.len()))
        }
        c => whole(Kind::Mark, c.len_utf8()),
    }
}

/// Returns the end of quoted text, and whether it is closed.
fn quoted(rest: &str, quote: char, escapes: bool) -> (usize, bool) {
    let mut letters = rest.char_indices().skip(1).peekable();
    while let Some((at, letter)) = letters.next() {
        if letter == '\\' && escapes {
            letters.next();
        } else if letter == quote && letters.next_if(|(_, next)| *next == quote).is_none() {
            return (at + quote.len_utf8(), true);
        }
    }
    (rest.len(), false)
}

/// Whether the name indicates that its value is a credential.
fn is_secret_name(name: &str) -> bool {
    const PARTS: [&str; 18] = [
        "secret",
        "password",
        "passwd",
        "passphrase",
        "pwd",
        "token",
        "credential",
        "apikey",
        "accesskey",
        "privatekey",
        "accountkey",
        "sharedkey",
        "encryptionkey",
        "signature",
        "authorization",
        "saskey",
        "connectionstring",
        "identified",
    ];
    let name: String = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    name == "pass" || name == "sig" || PARTS.iter().any(|part| name.contains(part))
}

/// Whether a text looks like a credential, or contains one.
fn looks_secret(text: &str) -> bool {
    const MARKS: [&str; 12] = [
        "-----BEGIN",
        "PRIVATE KEY",
        "AKIA",
        "ASIA",
        "eyJ",
        "ghp_",
        "github_pat_",
        "xoxb-",
        "xoxp-",
        "AIza",
        "sk-",
        "LS0tLS1CRUdJTi",
    ];
    let has_mark = MARKS.iter().any(|mark| {
        text.find(mark).is_some_and(|at| {
            let before = text[..at].chars().next_back();
            // A mark starts a word and is followed by more.
            before.is_none_or(|c| !c.is_alphanumeric()) && text.len() >= at + mark.len() + 6
        })
    });
    has_mark || has_user_info(text) || has_secret_parameter(text) || text.split_whitespace().any(is_coded)
}

/// `scheme://user:password@host`.
fn has_user_info(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', '?', '#', ' ']).next().unwrap_or_default();
        authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
    })
}

/// `password=…` in a connection string, `X-Amz-Signature=…` in a URL.
fn has_secret_parameter(text: &str) -> bool {
    text.match_indices(['=', ':']).any(|(at, _)| {
        let name = text[..at].trim_end().rsplit(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').next();
        let is_given = text[at + 1..].trim_start().starts_with(|c: char| !"&;,".contains(c));
        is_given && name.is_some_and(is_secret_name)
    })
}

fn is_coded(word: &str) -> bool {
    let word = word.trim_matches(['\'', '"', '(', ')', ',', ';']);
    word.len() >= MIN_CODED
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte))
        && word.bytes().any(|byte| byte.is_ascii_digit())
        && word.bytes().any(|byte| byte.is_ascii_uppercase())
        && word.bytes().any(|byte| byte.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_credential_is_taken_out() {
        for (sql, kept) in [
            (
                "COPY t TO 's3://b/x' OPTIONS ('aws.secret_access_key' 'hush hush', aws.region 'eu')",
                "COPY t TO '***' OPTIONS ('aws.secret_access_key' '***', aws.region '***')",
            ),
            ("copy (SELECT 1) to 'hush.csv'", "copy (SELECT 1) to '***'"),
            (
                "EXPLAIN COPY t TO 'hush' STORED AS CSV OPTIONS(k hush)",
                "EXPLAIN COPY t TO '***' STORED AS CSV OPTIONS(k ***)",
            ),
            (
                "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'hush' OPTIONS ('k' = 'hush', \"k\" \"hush\", n 1)",
                "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '***' OPTIONS ('k' = '***', \"k\" ***, n ***)",
            ),
            ("COPY t TO 'hush' OPTIONS ('k' 'it''s hush", "COPY t TO '***' OPTIONS ('k' '***'"),
            ("COPY t TO $x$hush$x$ OPTIONS ('k' $$hush$$)", "COPY t TO '***' OPTIONS ('k' '***')"),
            (
                "SELECT * FROM u WHERE password = 'hush' AND name = 'x'",
                "SELECT * FROM u WHERE password = '***' AND name = 'x'",
            ),
            ("SELECT * FROM u WHERE \"API_KEY\" IN ('hush')", "SELECT * FROM u WHERE \"API_KEY\" IN ('***')"),
            ("SET my.secret_access_key TO 'hush'", "SET my.secret_access_key TO '***'"),
            ("CREATE USER u WITH PASSWORD 'hush'", "CREATE USER u WITH PASSWORD '***'"),
            ("ALTER USER u IDENTIFIED BY 'hush'", "ALTER USER u IDENTIFIED BY '***'"),
            ("SELECT f('token', 'hush')", "SELECT f('token', '***')"),
            ("SELECT f(token => 'hush')", "SELECT f(token => '***')"),
            ("SELECT MAP {'password': 'hush'}", "SELECT MAP {'password': '***'}"),
            ("SELECT 'postgres://me:hush@db/x'", "SELECT '***'"),
            ("SELECT 'host=db password=hush'", "SELECT '***'"),
            ("SELECT 'https://b/x?X-Amz-Signature=hush'", "SELECT '***'"),
            ("SELECT '-----BEGIN PRIVATE KEY-----\nhush'", "SELECT '***'"),
            ("SELECT 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY'", "SELECT '***'"),
            ("SELECT 1 /* password: hush */", "SELECT 1 /* *** */"),
            ("SELECT E'a\\'b', pwd='hush'", "SELECT E'a\\'b', pwd='***'"),
        ] {
            let redacted = Redacted::of(sql);
            assert_eq!(redacted.text, kept, "{sql}");
            assert!(!format!("{redacted:?}").contains("hush"));
        }
    }

    #[test]
    fn what_is_none_stays() {
        for sql in [
            "SELECT a, 'b' FROM t WHERE c = 'd' AND e = $1",
            "SELECT 'token' AS kind, secret FROM t",
            "SELECT * FROM \"Secrets\" s JOIN options o ON s.id = o.id WHERE o.name = 'x'",
            "INSERT INTO t VALUES (1, '2026-01-01T00:00:00Z', 'http://h:1/p')",
            "SELECT id FROM t WHERE id = '0b1c2d3e-aaaa-bbbb-cccc-0123456789ab'",
            "SELECT '\u{e9}', \u{201e}x",
            "",
            "'",
            "$",
        ] {
            assert!(matches!(Redacted::of(sql).text, Cow::Borrowed(text) if text == sql), "{sql}");
        }
    }

    #[test]
    fn what_is_said_of_it_quotes_nothing() {
        let redacted = Redacted::of("COPY t TO 'x' OPTIONS (k 'it''s hush')");
        assert_eq!(redacted.message("bad value \"it's hush\"").as_deref(), Some("bad value \"***\""));
        let long = format!("SELECT '{}'", "x".repeat(MAX_TEXT));
        assert!(Redacted::of(&long).text.len() <= MAX_TEXT && Redacted::of(&long).message("x").is_none());
    }
}

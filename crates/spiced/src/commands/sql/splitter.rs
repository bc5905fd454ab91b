//! Cuts SQL text into statements, as it comes in: at each `;` that stands in no quote and no comment.
//!
//! What is a quote and what a comment is the server's dialect (DataFusion's generic one): `'…'`,
//! `E'…\'…'`, `"…"`, `` `…` ``, `$$…$$`, `$tag$…$tag$`, `-- …` and nested `/* … */`. From a backslash
//! where no statement has begun to the end of its line is a command of the prompt.
//!
//! Nothing is lost: the texts of all pieces, joined, are the text that was put in.

/// A statement that is longer than this, in bytes, is refused: no server takes it (gRPC messages
/// of this size are, by `spiced`'s own default).
pub(crate) const MAX_STATEMENT: usize = 16 * 1024 * 1024;

/// A piece of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// All of it, with the blanks before it and the `;` after it.
    pub(crate) text: String,
    pub(crate) kind: Kind,
    /// The line where it begins, from 1; blanks and comments before it do not count.
    pub(crate) line: usize,
}

/// What a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Blanks, comments, a `;` by itself.
    Blank,
    Statement,
    /// A backslash and the rest of its line.
    Command,
}

impl Piece {
    /// The statement without its `;`, or the command, without blanks around it.
    pub(crate) fn body(&self) -> &str {
        let text = self.text.trim();
        match self.kind {
            Kind::Statement => text.strip_suffix(';').unwrap_or(text).trim_end(),
            _ => text,
        }
    }
}

/// Takes text bit by bit.
#[derive(Debug)]
pub(crate) struct Splitter {
    at: At,
    /// What is taken and not yet given out.
    pending: String,
    kind: Kind,
    /// The line that is read, and the one where the pending piece, or its open quote, began.
    line: usize,
    began: usize,
    opened: usize,
}

/// Where in the text the next character stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    /// Outside of everything, after a character that matters or not.
    Open(Before),
    /// After a `-` or a `/` which may begin a comment.
    Dash,
    Slash,
    LineComment,
    /// In so many nested comments, after a `*` or a `/` which may end or begin one.
    Comment {
        depth: usize,
        before: char,
    },
    /// Between two of these. With `escapes`, a backslash takes the next character with it.
    Quoted {
        by: char,
        escapes: bool,
        escaped: bool,
    },
    /// After a `$`, in what may become a tag.
    Tag(String),
    /// In `$tag$…`; the end of what was read so far, which may be the beginning of the end.
    Dollar {
        end: String,
        seen: usize,
    },
    Command,
}

/// What a character that follows has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// Part of a name or number.
    Word,
    /// An `E` that is a word by itself: a quote after it knows escapes.
    Escape,
    /// The end of such a quote: one that follows at once goes on with it.
    EscapeEnd,
}

impl Default for Splitter {
    fn default() -> Self {
        let at = At::Open(Before::Nothing);
        Self { at, pending: String::new(), kind: Kind::Blank, line: 1, began: 1, opened: 1 }
    }
}

impl Splitter {
    /// Takes more text; gives the pieces that are complete.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for c in text.chars() {
            if c == '\\' && self.kind == Kind::Blank && matches!(self.at, At::Open(_)) {
                // A command. What stands before it is a piece of its own.
                if !self.pending.is_empty() {
                    pieces.push(self.cut());
                }
                (self.kind, self.began, self.at) = (Kind::Command, self.line, At::Command);
            }
            self.pending.push(c);
            let ends = self.step(c);
            if c == '\n' {
                self.line += 1;
            }
            if ends {
                pieces.push(self.cut());
            }
        }
        pieces
    }

    /// What is left at the end of the text. It is a statement even without its `;`.
    ///
    /// # Errors
    /// The text ends within a quote or a comment.
    pub(crate) fn finish(mut self) -> Result<Option<Piece>, Unfinished> {
        let what = match &self.at {
            At::Quoted { by: '\'', .. } => "a text in '…'",
            At::Quoted { .. } => "a quoted name",
            At::Comment { .. } => "a comment",
            At::Dollar { .. } => "a text in $…$",
            _ => return Ok((!self.pending.is_empty()).then(|| self.cut())),
        };
        Err(Unfinished { what, line: self.opened })
    }

    /// Whether a statement has begun and waits for its end.
    pub(crate) fn is_within(&self) -> bool {
        self.kind == Kind::Statement || !matches!(self.at, At::Open(_) | At::LineComment | At::Command)
    }

    /// What waits for its end.
    pub(crate) fn pending(&self) -> &str {
        &self.pending
    }

    /// Whether what comes next stands in a quote or a comment.
    pub(crate) fn is_quoted(&self) -> bool {
        !matches!(self.at, At::Open(_) | At::Dash | At::Slash | At::Tag(_) | At::Command)
    }

    fn cut(&mut self) -> Piece {
        let piece = Piece { text: std::mem::take(&mut self.pending), kind: self.kind, line: self.began };
        (self.kind, self.at) = (Kind::Blank, At::Open(Before::Nothing));
        piece
    }

    /// Takes one character; true where a piece ends with it.
    fn step(&mut self, c: char) -> bool {
        let next = match &mut self.at {
            At::Open(before) => {
                let before = *before;
                return self.open(c, before);
            }
            At::Dash if c == '-' => At::LineComment,
            At::Slash if c == '*' => At::Comment { depth: 1, before: ' ' },
            At::Dash | At::Slash => {
                // It was an operator.
                self.begin();
                return self.open(c, Before::Nothing);
            }
            At::LineComment if c == '\n' => At::Open(Before::Nothing),
            At::Command if c == '\n' => return true,
            At::LineComment | At::Command => return false,
            At::Comment { depth, before } => {
                match (*before, c) {
                    ('/', '*') => (*depth, *before) = (*depth + 1, ' '),
                    ('*', '/') => (*depth, *before) = (*depth - 1, ' '),
                    _ => *before = c,
                }
                if *depth > 0 {
                    return false;
                }
                At::Open(Before::Nothing)
            }
            At::Quoted { by, escapes, escaped } => {
                if c != *by || *escaped {
                    *escaped = *escapes && c == '\\' && !*escaped;
                    return false;
                }
                At::Open(if *escapes { Before::EscapeEnd } else { Before::Nothing })
            }
            At::Tag(tag) => {
                if c == '$' {
                    At::Dollar { end: format!("${tag}$"), seen: 0 }
                } else if c.is_alphanumeric() || c == '_' {
                    tag.push(c);
                    return false;
                } else {
                    // It was a parameter.
                    return self.open(c, Before::Word);
                }
            }
            At::Dollar { end, seen } => {
                // A `$` that breaks a beginning may begin the end itself.
                *seen = match end[*seen..].chars().next() {
                    Some(expected) if expected == c => *seen + c.len_utf8(),
                    _ if c == '$' => 1,
                    _ => 0,
                };
                if *seen < end.len() {
                    return false;
                }
                At::Open(Before::Nothing)
            }
        };
        self.at = next;
        false
    }

    fn open(&mut self, c: char, before: Before) -> bool {
        let quoted = |by, escapes| At::Quoted { by, escapes, escaped: false };
        let word = matches!(before, Before::Word | Before::Escape);
        self.at = match c {
            ';' => {
                self.at = At::Open(Before::Nothing);
                return true;
            }
            '-' => At::Dash,
            '/' => At::Slash,
            '\'' => quoted('\'', matches!(before, Before::Escape | Before::EscapeEnd)),
            '"' | '`' => quoted(c, false),
            '$' if !word => At::Tag(String::new()),
            'e' | 'E' if !word => At::Open(Before::Escape),
            _ if c.is_alphanumeric() || matches!(c, '_' | '$' | '@' | '#') => At::Open(Before::Word),
            _ => At::Open(Before::Nothing),
        };
        if matches!(self.at, At::Quoted { .. } | At::Tag(_) | At::Slash) {
            self.opened = self.line;
        }
        // A `-` or `/` may yet turn out to begin a comment.
        if !c.is_whitespace() && !matches!(self.at, At::Dash | At::Slash) {
            self.begin();
        }
        false
    }

    /// Something of a statement stands here.
    fn begin(&mut self) {
        if self.kind == Kind::Blank {
            (self.kind, self.began) = (Kind::Statement, self.line);
        }
    }
}

/// A text that ends where it must not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} that begins in line {line} has no end")]
pub(crate) struct Unfinished {
    what: &'static str,
    line: usize,
}

#[cfg(test)]
mod tests;

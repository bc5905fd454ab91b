//! Splits SQL text into statements as it arrives: at each `;` outside of quotes and comments.
//!
//! Quotes and comments follow the server's dialect (DataFusion's generic one): `'…'`, `E'…\'…'`, `"…"`, `` `…` ``,
//! `$$…$$`, `$tag$…$tag$`, `-- …` and nested `/* … */`. A backslash outside of any statement begins a command of the
//! prompt, up to the end of its line.
//!
//! No text is lost: the texts of all pieces, joined, equal the input.

/// The maximum length of a statement, in bytes. No server accepts a longer one: by `spiced`'s default, gRPC messages
/// are limited to this size.
pub(crate) const MAX_STATEMENT: usize = 16 * 1024 * 1024;

/// A piece of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The full text, with the whitespace before it and the `;` after it.
    pub(crate) text: String,
    pub(crate) kind: Kind,
    /// The line where it begins, from 1, not counting whitespace and comments before it.
    pub(crate) line: usize,
}

/// The kind of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Whitespace, comments, or a lone `;`.
    Blank,
    Statement,
    /// A backslash and the rest of its line.
    Command,
}

impl Piece {
    /// Returns the statement without its `;`, or the command, without surrounding whitespace.
    pub(crate) fn body(&self) -> &str {
        let text = self.text.trim();
        match self.kind {
            Kind::Statement => text.strip_suffix(';').unwrap_or(text).trim_end(),
            _ => text,
        }
    }
}

/// Splits text that arrives in chunks.
#[derive(Debug)]
pub(crate) struct Splitter {
    at: At,
    /// The text that has been read but not yet returned.
    pending: String,
    kind: Kind,
    /// The current line, and the lines where the pending piece and its open quote began.
    line: usize,
    began: usize,
    opened: usize,
}

/// The lexical state before the next character.
#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    /// Outside of quotes and comments.
    Open(Before),
    /// After a `-` or `/` that may begin a comment.
    Dash,
    Slash,
    LineComment,
    /// In nested comments, after a `*` or `/` that may end or begin one.
    Comment {
        depth: usize,
        before: char,
    },
    /// Within quotes of this character. With `escapes`, a backslash escapes the next character.
    Quoted {
        by: char,
        escapes: bool,
        escaped: bool,
    },
    /// After a `$`, in a possible tag.
    Tag(String),
    /// In `$tag$…`: the end tag, and how much of it has been seen.
    Dollar {
        end: String,
        seen: usize,
    },
    Command,
}

/// What precedes the next character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// Part of a name or number.
    Word,
    /// An `E` as a word of its own: a quote after it has escapes.
    Escape,
    /// The end of such a quote: a quote that follows directly continues it.
    EscapeEnd,
}

impl Default for Splitter {
    fn default() -> Self {
        let at = At::Open(Before::Nothing);
        Self { at, pending: String::new(), kind: Kind::Blank, line: 1, began: 1, opened: 1 }
    }
}

impl Splitter {
    /// Reads more text and returns the pieces that are complete.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for c in text.chars() {
            if c == '\\' && self.kind == Kind::Blank && matches!(self.at, At::Open(_)) {
                // A command. The text before it becomes a piece of its own.
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

    /// Returns the rest at the end of the text. It is a statement even without its `;`.
    ///
    /// # Errors
    /// Fails if the text ends within a quote or a comment.
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

    /// Returns whether a statement has begun and is incomplete.
    pub(crate) fn is_within(&self) -> bool {
        self.kind == Kind::Statement || !matches!(self.at, At::Open(_) | At::LineComment | At::Command)
    }

    /// Returns the incomplete text.
    pub(crate) fn pending(&self) -> &str {
        &self.pending
    }

    /// Returns whether the next character is within a quote or a comment.
    pub(crate) fn is_quoted(&self) -> bool {
        !matches!(self.at, At::Open(_) | At::Dash | At::Slash | At::Tag(_) | At::Command)
    }

    fn cut(&mut self) -> Piece {
        let piece = Piece { text: std::mem::take(&mut self.pending), kind: self.kind, line: self.began };
        (self.kind, self.at) = (Kind::Blank, At::Open(Before::Nothing));
        piece
    }

    /// Consumes one character; returns true if it ends a piece.
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
                // A `$` that breaks off the end tag may itself begin it.
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
        // A `-` or `/` may still begin a comment.
        if !c.is_whitespace() && !matches!(self.at, At::Dash | At::Slash) {
            self.begin();
        }
        false
    }

    /// Marks the pending piece as a statement.
    fn begin(&mut self) {
        if self.kind == Kind::Blank {
            (self.kind, self.began) = (Kind::Statement, self.line);
        }
    }
}

/// A text that ends within a quote or a comment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} that begins in line {line} has no end")]
pub(crate) struct Unfinished {
    what: &'static str,
    line: usize,
}

#[cfg(test)]
mod tests;

//! Reads statements from a file or from standard input while they run, never all at once.

pub(crate) mod splitter;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use tokio::sync::mpsc;

use crate::error::SqlError;
use crate::script::splitter::{MAX_STATEMENT, Piece, Splitter};

/// A script, read on a thread of its own: a pipe may deliver its next line much later, and Ctrl-C must not wait for it.
pub(crate) struct Script {
    /// The text before a line number in messages.
    place: String,
    pieces: mpsc::Receiver<Result<Piece, SqlError>>,
}

impl Script {
    /// Reads standard input.
    pub(crate) fn standard_input() -> Self {
        Self::read("line ".to_owned(), || Ok(Box::new(io::stdin().lock())))
    }

    /// Reads a file; `-` is standard input.
    pub(crate) fn file(path: &Path) -> Self {
        if path == Path::new("-") {
            return Self::standard_input();
        }
        let owned = path.to_owned();
        Self::read(format!("{}:", path.display()), move || {
            let file =
                File::open(&owned).map_err(|e| SqlError::new(format!("cannot read {}: {e}", owned.display())))?;
            Ok(Box::new(BufReader::new(file)))
        })
    }

    /// Returns the next piece, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Piece, SqlError>> {
        self.pieces.recv().await
    }

    /// Returns the position of a line, for messages.
    pub(crate) fn place(&self, line: usize) -> String {
        format!("{}{line}", self.place)
    }

    fn read(place: String, open: impl FnOnce() -> Result<Box<dyn BufRead>, SqlError> + Send + 'static) -> Self {
        let (send, pieces) = mpsc::channel(1);
        let at = place.clone();
        std::thread::spawn(move || {
            // Sending fails if the script is not run any more.
            let read =
                open().and_then(|mut from| pieces_of(&mut from, &at, &|piece| send.blocking_send(Ok(piece)).is_ok()));
            if let Err(trouble) = read {
                let _ = send.blocking_send(Err(trouble));
            }
        });
        Self { place, pieces }
    }
}

/// Passes each piece to `take` until it returns false.
fn pieces_of(from: &mut dyn BufRead, place: &str, take: &dyn Fn(Piece) -> bool) -> Result<(), SqlError> {
    let mut splitter = Splitter::default();
    let mut line = Vec::new();
    for number in 1_usize.. {
        line.clear();
        let room = MAX_STATEMENT.saturating_sub(splitter.pending().len());
        let read = (&mut *from).take(room as u64 + 1).read_until(b'\n', &mut line);
        read.map_err(|e| SqlError::new(format!("{place}{number}: cannot be read: {e}")))?;
        if line.is_empty() {
            break;
        }
        if line.len() > room {
            return Err(SqlError::new(format!(
                "{place}{number}: a statement is longer than {} MiB",
                MAX_STATEMENT >> 20
            )));
        }
        let text =
            std::str::from_utf8(&line).map_err(|_| SqlError::new(format!("{place}{number}: it is not UTF-8")))?;
        let text = if number == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
        for piece in splitter.push(text) {
            if !take(piece) {
                return Ok(());
            }
        }
    }
    if let Some(last) = splitter.finish().map_err(SqlError::new)? {
        take(last);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::script::splitter::Kind;

    fn read(text: &[u8]) -> Result<Vec<String>, SqlError> {
        let got = RefCell::new(Vec::new());
        let take = |piece: Piece| {
            if piece.kind != Kind::Blank {
                got.borrow_mut().push(piece.body().to_owned());
            }
            true
        };
        pieces_of(&mut &*text, "f:", &take)?;
        Ok(got.into_inner())
    }

    #[test]
    fn what_can_be_read_and_what_not() {
        assert_eq!(read(b"\xef\xbb\xbfSELECT 1;\r\n\\d\r\nSELECT\n2").unwrap(), ["SELECT 1", "\\d", "SELECT\n2"]);
        assert_eq!(read(b"SELECT 1;\n\xff").unwrap_err().what, "f:2: it is not UTF-8");
        assert_eq!(read(b"SELECT '").unwrap_err().what, "a text in '…' that begins in line 1 has no end");
        let long = [b"SELECT 1;\n".as_slice(), &vec![b'x'; MAX_STATEMENT], b"yy"].concat();
        assert_eq!(read(&long).unwrap_err().what, "f:2: a statement is longer than 16 MiB");
    }
}

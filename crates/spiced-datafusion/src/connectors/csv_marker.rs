//! Distinguishes an empty string (`""`) from NULL (an empty field) in CSV data, as PostgreSQL's `COPY … CSV` does.
//!
//! The reader of `arrow-csv` sees the same empty field for both. [`Marker`] therefore preprocesses its input and
//! inserts one control character, the mark, after an empty pair of quotes; a value that starts with the mark gets a
//! second one. Afterwards, [`unmarked`] removes one mark from the start of each value. Only text columns are marked.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, GenericStringArray, OffsetSizeTrait, RecordBatch, StringViewArray,
};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use memchr::{memchr, memchr_iter, memchr2, memrchr, memrchr2};

/// The CSV dialect of a file.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Syntax {
    pub(in super::super) delimiter: u8,
    pub(in super::super) quote: u8,
    pub(in super::super) escape: Option<u8>,
    /// The byte that ends a record; if `None`, CR, LF or both.
    pub(in super::super) terminator: Option<u8>,
    /// Lines that start with this byte are skipped.
    pub(in super::super) comment: Option<u8>,
    pub(in super::super) has_header: bool,
}

impl Syntax {
    /// Returns a control character that has no meaning in this dialect.
    pub(super) fn mark(&self) -> u8 {
        let taken = [Some(self.delimiter), Some(self.quote), self.escape, self.terminator, self.comment];
        (1..=8).find(|mark| !taken.contains(&Some(*mark))).expect("five characters cannot take eight")
    }

    fn ends_record(&self, byte: u8) -> bool {
        self.terminator.map_or(matches!(byte, b'\r' | b'\n'), |terminator| terminator == byte)
    }

    /// Returns where the last record within `bytes` ends.
    fn last_end(&self, bytes: &[u8]) -> Option<usize> {
        match self.terminator {
            Some(terminator) => memrchr(terminator, bytes),
            None => memrchr2(b'\r', b'\n', bytes),
        }
    }
}

/// Whether empty values of this type are distinguished from NULL.
pub(super) fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The states of `csv-core`, which reads the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    RecordStart,
    FieldStart,
    /// Within a field, outside of quotes.
    Unquoted,
    /// After the quote that opens a field.
    Opened,
    /// After the second quote of an otherwise empty field.
    Empty,
    Quoted,
    /// After a quote that ends the text of a field, or is the first of two.
    Closing,
    /// After an escape character.
    Escaped {
        is_first: bool,
    },
    Comment,
}

/// The bytes to insert.
#[derive(Debug, Clone, Copy)]
enum Insertion {
    Mark,
    /// An empty pair of quotes without a mark, which is read as NULL.
    Null,
}

/// Inserts marks into the bytes of one file, which arrive in chunks of any size.
#[derive(Debug)]
pub(in super::super) struct Marker {
    syntax: Syntax,
    mark: u8,
    /// Which columns are marked.
    text: Arc<[bool]>,
    /// Whether each byte outside of quotes must be checked: with a single column, because an empty line is a record
    /// there, and with comments.
    is_careful: bool,
    /// Whether the header has not been read yet.
    in_header: bool,
    state: State,
    column: usize,
    /// How many of the first bytes belong to a byte order mark.
    start: usize,
    /// Whether the previous byte was a CR that ended a record.
    after_return: bool,
    insertion: Option<Insertion>,
}

/// The number of bytes from which a search is faster than checking each byte.
const AT_ONCE: usize = 32;

const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];

impl Marker {
    pub(in super::super) fn new(syntax: Syntax, text: Arc<[bool]>) -> Self {
        Self {
            syntax,
            mark: syntax.mark(),
            is_careful: text.len() == 1 || syntax.comment.is_some(),
            text,
            in_header: syntax.has_header,
            state: State::RecordStart,
            column: 0,
            start: 0,
            after_return: false,
            insertion: None,
        }
    }

    /// Appends `input` to `output`, with marks.
    pub(in super::super) fn feed(&mut self, input: &[u8], output: &mut Vec<u8>) {
        let mut rest = input;
        while self.start < BYTE_ORDER_MARK.len() && rest.first() == Some(&BYTE_ORDER_MARK[self.start]) {
            output.push(rest[0]);
            rest = &rest[1..];
            self.start += 1;
        }
        if !rest.is_empty() {
            self.start = BYTE_ORDER_MARK.len();
        }
        let end = rest.len();
        // The number of bytes copied so far, and the current position.
        let (mut copied, mut at) = (0, 0);
        while let Some(&byte) = rest.get(at) {
            let is_taken = match self.state {
                State::RecordStart | State::FieldStart | State::Unquoted if self.is_careful => self.step(byte),
                State::RecordStart => {
                    // Most records have no quote, so they are skipped all at once.
                    let plain = memchr2(self.syntax.quote, self.mark, &rest[at..]).unwrap_or(end - at);
                    if plain >= AT_ONCE {
                        self.pass(&rest[at..at + plain]);
                        at += plain;
                        continue;
                    }
                    self.step(byte)
                }
                State::Unquoted => {
                    let is_inner = |byte: &u8| *byte != self.syntax.delimiter && !self.syntax.ends_record(*byte);
                    match rest[at..].iter().position(|byte| !is_inner(byte)) {
                        Some(inner) => {
                            at += inner;
                            self.step(rest[at])
                        }
                        None => break,
                    }
                }
                State::Quoted => {
                    let (quote, escape) = (self.syntax.quote, self.syntax.escape);
                    let is_inner = |byte: &u8| *byte != quote && Some(*byte) != escape;
                    // Most texts are short, for which setting up a search takes longer than a plain loop.
                    let near = &rest[at..end.min(at + AT_ONCE)];
                    let inner = near.iter().position(|byte| !is_inner(byte)).or_else(|| {
                        let far = &rest[at + near.len()..];
                        let found = match escape {
                            Some(escape) => memchr2(quote, escape, far),
                            None => memchr(quote, far),
                        };
                        found.map(|found| near.len() + found)
                    });
                    let Some(inner) = inner else { break };
                    at += inner;
                    let closes = rest[at] == quote;
                    self.state = if closes { State::Closing } else { State::Escaped { is_first: false } };
                    true
                }
                _ => self.step(byte),
            };
            match self.insertion.take() {
                None => {}
                Some(insertion) => {
                    output.extend_from_slice(&rest[copied..at]);
                    copied = at;
                    self.insert(insertion, output);
                }
            }
            at += usize::from(is_taken);
        }
        output.extend_from_slice(&rest[copied..]);
    }

    /// Whether the bytes so far end within quotes.
    pub(in super::super) fn is_within_quotes(&self) -> bool {
        matches!(self.state, State::Opened | State::Quoted | State::Escaped { .. })
    }

    /// Appends the mark that is due at the end of the file.
    pub(super) fn finish(&mut self, output: &mut Vec<u8>) {
        if self.state == State::Empty && self.is_text() {
            self.insert(Insertion::Mark, output);
        }
    }

    /// Processes one byte and returns whether it was consumed; if not, the state has changed. Bytes to insert before it
    /// are stored in `insertion`.
    fn step(&mut self, byte: u8) -> bool {
        let Syntax { delimiter, quote, escape, comment, .. } = self.syntax;
        let ends_record = self.syntax.ends_record(byte);
        let after_return = std::mem::take(&mut self.after_return);
        match self.state {
            State::RecordStart if comment == Some(byte) => self.state = State::Comment,
            State::RecordStart if ends_record => {
                let is_second_of_two = after_return && byte == b'\n' && self.syntax.terminator.is_none();
                if self.text.len() == 1 && !self.in_header && !is_second_of_two {
                    // The reader skips empty lines, but here an empty line is a record with the value NULL.
                    self.insertion = Some(Insertion::Null);
                }
                self.after_return = byte == b'\r';
            }
            State::RecordStart | State::FieldStart if byte == quote => self.state = State::Opened,
            State::RecordStart | State::FieldStart if byte == self.mark => {
                self.mark_here();
                self.state = State::Unquoted;
            }
            State::RecordStart | State::FieldStart | State::Unquoted => {
                self.state = State::Unquoted;
                if byte == delimiter {
                    self.column += 1;
                    self.state = State::FieldStart;
                } else if ends_record {
                    self.end_record();
                    self.after_return = byte == b'\r';
                }
            }
            State::Opened => {
                self.state = if byte == quote {
                    State::Empty
                } else if Some(byte) == escape {
                    State::Escaped { is_first: true }
                } else {
                    if byte == self.mark {
                        self.mark_here();
                    }
                    State::Quoted
                };
            }
            State::Empty if byte == quote => self.state = State::Quoted,
            State::Empty => {
                if byte == delimiter || ends_record || byte == self.mark {
                    self.mark_here();
                }
                self.state = State::Unquoted;
                return false;
            }
            State::Closing if byte == quote => self.state = State::Quoted,
            State::Closing => {
                self.state = State::Unquoted;
                return false;
            }
            State::Escaped { is_first } => {
                if is_first && byte == self.mark {
                    self.mark_here();
                }
                self.state = State::Quoted;
            }
            State::Comment if byte == b'\n' => self.state = State::RecordStart,
            State::Comment | State::Quoted => {}
        }
        true
    }

    /// Skips bytes outside of quotes that contain neither a quote nor the mark.
    fn pass(&mut self, bytes: &[u8]) {
        let Some(&last) = bytes.last() else { return };
        let mut record = bytes;
        if let Some(end) = self.syntax.last_end(bytes) {
            self.end_record();
            record = &bytes[end + 1..];
        }
        self.column += match record {
            [byte] => usize::from(*byte == self.syntax.delimiter),
            record => memchr_iter(self.syntax.delimiter, record).count(),
        };
        self.state = if self.syntax.ends_record(last) {
            State::RecordStart
        } else if last == self.syntax.delimiter {
            State::FieldStart
        } else {
            State::Unquoted
        };
    }

    fn end_record(&mut self) {
        self.column = 0;
        self.in_header = false;
        self.state = State::RecordStart;
    }

    fn is_text(&self) -> bool {
        self.text.get(self.column).copied().unwrap_or_default()
    }

    fn mark_here(&mut self) {
        self.insertion = self.is_text().then_some(Insertion::Mark);
    }

    fn insert(&self, insertion: Insertion, output: &mut Vec<u8>) {
        match insertion {
            Insertion::Mark => output.push(self.mark),
            Insertion::Null => output.extend_from_slice(&[self.syntax.quote, self.syntax.quote]),
        }
    }
}

/// Returns `batch` without the mark at the start of its texts.
pub(super) fn unmarked(batch: RecordBatch, mark: u8) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8 => unmarked_strings(column, column.as_string::<i32>(), mark),
        DataType::LargeUtf8 => unmarked_strings(column, column.as_string::<i64>(), mark),
        DataType::Utf8View => {
            let views = column.as_string_view();
            match views.iter().flatten().any(|value| value.as_bytes().first() == Some(&mark)) {
                true => Arc::new(views.iter().map(|value| without(value, mark)).collect::<StringViewArray>()),
                false => column.clone(),
            }
        }
        _ => column.clone(),
    });
    let columns: Vec<ArrayRef> = columns.collect();
    RecordBatch::try_new_with_options(
        batch.schema(),
        columns,
        &datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows())),
    )
}

fn unmarked_strings<O: OffsetSizeTrait>(column: &ArrayRef, strings: &GenericStringArray<O>, mark: u8) -> ArrayRef {
    match memchr(mark, strings.value_data()) {
        Some(_) => Arc::new(strings.iter().map(|value| without(value, mark)).collect::<GenericStringArray<O>>()),
        None => column.clone(),
    }
}

fn without(value: Option<&str>, mark: u8) -> Option<&str> {
    value.map(|value| value.strip_prefix(char::from(mark)).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::csv::ReaderBuilder;
    use datafusion::arrow::datatypes::{Field, Schema};

    use super::*;

    const PLAIN: Syntax =
        Syntax { delimiter: b',', quote: b'"', escape: None, terminator: None, comment: None, has_header: false };

    /// Returns the rows of a file with `columns` text columns that arrives in chunks of `piece` bytes: `NULL`, or the
    /// text within quotes.
    fn rows(syntax: Syntax, columns: usize, file: &[u8], piece: usize) -> Vec<String> {
        let mut marker = Marker::new(syntax, vec![true; columns].into());
        let mut marked = Vec::new();
        file.chunks(piece).for_each(|piece| marker.feed(piece, &mut marked));
        marker.finish(&mut marked);
        let fields: Vec<Field> = (0..columns).map(|at| Field::new(format!("c{at}"), DataType::Utf8, true)).collect();
        let mut builder = ReaderBuilder::new(Arc::new(Schema::new(fields)))
            .with_header(syntax.has_header)
            .with_delimiter(syntax.delimiter)
            .with_quote(syntax.quote);
        if let Some(escape) = syntax.escape {
            builder = builder.with_escape(escape);
        }
        if let Some(terminator) = syntax.terminator {
            builder = builder.with_terminator(terminator);
        }
        if let Some(comment) = syntax.comment {
            builder = builder.with_comment(comment);
        }
        let mut rows = Vec::new();
        for batch in builder.build(std::io::Cursor::new(marked)).unwrap() {
            let batch = unmarked(batch.unwrap(), syntax.mark()).unwrap();
            for row in 0..batch.num_rows() {
                let fields = batch.columns().iter().map(|column| match column.is_null(row) {
                    true => "NULL".to_owned(),
                    false => format!("{:?}", column.as_string::<i32>().value(row)),
                });
                rows.push(fields.collect::<Vec<_>>().join(" "));
            }
        }
        rows
    }

    #[test]
    fn empty_texts_are_told_from_nulls() {
        let single = Syntax { quote: b'\'', delimiter: b';', ..PLAIN };
        let escaped = Syntax { escape: Some(b'\\'), ..PLAIN };
        let header = Syntax { has_header: true, ..PLAIN };
        let commented = Syntax { comment: Some(b'#'), ..PLAIN };
        let piped = Syntax { terminator: Some(b'|'), ..PLAIN };
        let marks = Syntax { delimiter: 1, quote: 2, ..PLAIN };
        for (syntax, columns, file, expected) in [
            (PLAIN, 2, "\"\",\n,\"\"\n", &["\"\" NULL", "NULL \"\""][..]),
            (PLAIN, 2, "\"\",\"\"", &["\"\" \"\""]),
            (PLAIN, 2, "\"\",x\r\n\r\ny,\"\"\r\n", &["\"\" \"x\"", "\"y\" \"\""]),
            (PLAIN, 2, "\"a,\"\",b\",\"\"\n", &["\"a,\\\",b\" \"\""]),
            (PLAIN, 2, "\"\"\"\",\"\"\"\"\"\"\n", &["\"\\\"\" \"\\\"\\\"\""]),
            (PLAIN, 2, "\"\n\"\"\n\",\"\"\n", &["\"\\n\\\"\\n\" \"\""]),
            (PLAIN, 2, "a\"\",b\"\"\n", &["\"a\\\"\\\"\" \"b\\\"\\\"\""]),
            (PLAIN, 2, "\"\"a,\"a\"b\"\"\n", &["\"a\" \"ab\\\"\\\"\""]),
            (PLAIN, 2, "\u{1},\u{1}a\n\"\u{1}\",\"\"\u{1}\n", &["\"\\u{1}\" \"\\u{1}a\"", "\"\\u{1}\" \"\\u{1}\""]),
            (PLAIN, 2, "a\u{1},\"b\u{1}\"\n", &["\"a\\u{1}\" \"b\\u{1}\""]),
            (PLAIN, 2, "\u{feff}\"\",x\n", &["\"\" \"x\""]),
            (PLAIN, 3, "\"é\",\"\",\n", &["\"é\" \"\" NULL"]),
            (PLAIN, 1, "\"\"\n\nx\n\n", &["\"\"", "NULL", "\"x\"", "NULL"]),
            (PLAIN, 1, "\r\n\"\"\r\n\r\nx", &["NULL", "\"\"", "NULL", "\"x\""]),
            (PLAIN, 1, "\"a\n\n\"\n", &["\"a\\n\\n\""]),
            (header, 1, "\nname\n\n\"\"\n", &["NULL", "\"\""]),
            (header, 2, "\"\",\"b\"\n\"\",\n", &["\"\" NULL"]),
            (single, 2, "'';\n;''\n'it''s';\"\"\n", &["\"\" NULL", "NULL \"\"", "\"it's\" \"\\\"\\\"\""]),
            (escaped, 2, "\"\\\"\",\"\"\n\"\\\u{1}\",\"x\\\\\"\n", &["\"\\\"\" \"\"", "\"\\u{1}\" \"x\\\\\""]),
            (commented, 2, "#\"\n\"\",\n# it's \"\",\n,\"\"\n", &["\"\" NULL", "NULL \"\""]),
            (piped, 2, "\"\",|,\"\"|\"\n\",\n|", &["\"\" NULL", "NULL \"\"", "\"\\n\" \"\\n\""]),
            (
                marks,
                2,
                "\u{2}\u{2}\u{1}\n\u{1}\u{2}\u{2}\n\u{3}\u{1}\n",
                &["\"\" NULL", "NULL \"\"", "\"\\u{3}\" NULL"],
            ),
        ] {
            for piece in 1..=file.len() {
                assert_eq!(rows(syntax, columns, file.as_bytes(), piece), expected, "{file:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn other_columns_are_left_as_they_are() {
        let mut marker = Marker::new(PLAIN, [false, true, false].into());
        let mut marked = Vec::new();
        marker.feed(b"\"\",\"\",\"\"\n1,\"\",2\n\"\",x,\"\"", &mut marked);
        marker.finish(&mut marked);
        assert_eq!(marked, b"\"\",\"\"\x01,\"\"\n1,\"\"\x01,2\n\"\",x,\"\"");
    }

    proptest::proptest! {
        /// For any bytes and chunks: every non-empty value is what the reader alone returns, and data in PostgreSQL's
        /// notation round-trips.
        #[test]
        fn values_stay(
            values in proptest::collection::vec(
                proptest::collection::vec(proptest::option::of("[a\u{1}\", \r\n]{0,3}"), 3),
                1..6,
            ),
            quoted: bool,
            piece in 1_usize..9,
        ) {
            let field = |value: &Option<String>| match value {
                None => String::new(),
                Some(value) if quoted || value.is_empty() || value.contains([',', '"', '\r', '\n']) => {
                    format!("\"{}\"", value.replace('"', "\"\""))
                }
                Some(value) => value.clone(),
            };
            let lines = values.iter().map(|row| row.iter().map(field).collect::<Vec<_>>().join(",") + "\n");
            let file: String = lines.collect();
            let show = |value: &Option<String>| value.as_ref().map_or("NULL".to_owned(), |value| format!("{value:?}"));
            let expected: Vec<String> =
                values.iter().map(|row| row.iter().map(show).collect::<Vec<_>>().join(" ")).collect();
            proptest::prop_assert_eq!(rows(PLAIN, 3, file.as_bytes(), piece), expected);
        }
    }
}

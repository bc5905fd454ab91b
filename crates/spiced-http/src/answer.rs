//! Encoding of a result: batches in, frames of bytes out, a bounded amount at a time.
//!
//! Encoding happens when the body is polled, and so at the speed of the client. After each frame the task yields, so
//! that one fast reader does not delay the other connections of its thread.

mod csv;
mod ipc;
mod json;
mod nested;
mod out;
mod rows;
mod table;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Schema, SchemaRef};
use axum::body::Body;
use futures::{FutureExt, StreamExt, stream};
use spiced_engine::{Batches, EngineError, ErrorKind, rows_size};
use tls_core::buf_list::{BufList, VectoredBody};

use crate::accept::Format;
use out::Out;

pub use rows::{RowWriter, WriteError};

/// The number of bytes of rows that one step encodes, assuming that all rows of a batch have the same size.
const STEP_BYTES: u64 = 256 * 1024;

/// The encoder of one format.
trait Encode: Send {
    /// Returns how many rows of `batch` one step may encode. The limit applies to rows that are rewritten as text, by
    /// their size: encoding many wide rows in one step would block the other connections of the thread.
    fn rows_at_once(&self, batch: &RecordBatch) -> usize {
        let row = rows_size(batch) / (batch.num_rows().max(1) as u64);
        usize::try_from(STEP_BYTES / row.max(1)).unwrap_or(usize::MAX).max(1)
    }

    /// Returns how many rows may be encoded before the size of the frame is checked.
    fn step(&self, out: &Out) -> usize {
        out.fitting()
    }

    /// Writes the prologue.
    fn begin(&mut self, out: &mut Out) -> Result<(), ArrowError>;

    /// Writes the rows of a batch.
    fn rows(&mut self, batch: &RecordBatch, out: &mut Out) -> Result<(), ArrowError>;

    /// Writes the epilogue.
    fn end(&mut self, out: &mut Out) -> Result<(), ArrowError>;
}

/// A response body whose first frame is encoded.
pub(crate) struct Answer {
    first: BufList,
    rest: Rest,
}

impl Answer {
    /// Waits for the first rows, so that an error before them determines the HTTP status.
    pub(crate) async fn start(schema: SchemaRef, batches: Batches, format: Format) -> Result<Self, EngineError> {
        let encoder = encoder(format, &schema).map_err(|e| unwritable(format, &e))?;
        let mut rest =
            Rest { batches, encoder, format, current: None, out: Out::default(), has_rows: false, stage: Stage::Begin };
        let first = rest.next().await?.unwrap_or_default();
        Ok(Self { first, rest })
    }

    /// Returns the body, and the vectored part of the response. If a later batch fails, the body and the response are
    /// aborted.
    pub(crate) fn into_body(self) -> (Body, VectoredBody) {
        let beside = VectoredBody::default();
        let frames = stream::try_unfold((self, beside.clone()), |(mut answer, beside)| async {
            match answer.ready().await {
                Ok(ready) => Ok(beside.frame(ready).map(|data| (data, (answer, beside)))),
                Err(error) => {
                    tracing::warn!(kind = ?error.kind(), %error, "a statement failed after its first rows; the \
                                                                  response is aborted");
                    Err(error)
                }
            }
        });
        (Body::from_stream(frames), beside)
    }

    /// Returns the bytes to send next; empty at the end.
    async fn ready(&mut self) -> Result<&mut BufList, EngineError> {
        if self.first.is_empty() {
            tokio::task::yield_now().await;
            self.first = self.rest.next().await?.unwrap_or_default();
        }
        Ok(&mut self.first)
    }
}

struct Rest {
    batches: Batches,
    encoder: Box<dyn Encode>,
    format: Format,
    current: Option<Current>,
    out: Out,
    /// Whether `out` contains rows.
    has_rows: bool,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    Rows,
    End,
}

impl Rest {
    /// Encodes the next frame. Returns `None` after the last.
    async fn next(&mut self) -> Result<Option<BufList>, EngineError> {
        loop {
            if self.out.is_full() || self.stage == Stage::End {
                return Ok(self.take());
            }
            let format = self.format;
            let written = match (&mut self.current, self.stage) {
                (Some(current), _) => {
                    let written = current.step(self.encoder.as_mut(), &mut self.out);
                    self.has_rows = true;
                    if current.is_done() {
                        self.current = None;
                    }
                    written
                }
                (None, Stage::Begin) => {
                    self.stage = Stage::Rows;
                    self.encoder.begin(&mut self.out)
                }
                (None, _) => {
                    let next = match self.has_rows {
                        // Rows that are encoded already are sent without waiting for the next batch.
                        true => match self.batches.next().now_or_never() {
                            Some(next) => next,
                            None => return Ok(self.take()),
                        },
                        false => self.batches.next().await,
                    };
                    match next.transpose()? {
                        Some(batch) => {
                            self.current = Some(Current::new(batch, self.encoder.as_ref())).filter(|c| !c.is_done());
                            Ok(())
                        }
                        None => {
                            self.stage = Stage::End;
                            self.encoder.end(&mut self.out)
                        }
                    }
                }
            };
            written.map_err(|e| unwritable(format, &e))?;
        }
    }

    /// Takes the encoded bytes. Returns `None` if nothing is encoded.
    fn take(&mut self) -> Option<BufList> {
        self.has_rows = false;
        Some(self.out.take()).filter(|pieces| !pieces.is_empty())
    }
}

/// The batch being encoded.
struct Current {
    batch: RecordBatch,
    /// The number of its rows that are encoded.
    done: usize,
    /// The maximum number of rows that one step encodes.
    most: usize,
}

impl Current {
    fn new(batch: RecordBatch, encoder: &dyn Encode) -> Self {
        let most = encoder.rows_at_once(&batch);
        Self { batch, done: 0, most }
    }

    fn is_done(&self) -> bool {
        self.done == self.batch.num_rows()
    }

    /// Encodes the next rows.
    fn step(&mut self, encoder: &mut dyn Encode, out: &mut Out) -> Result<(), ArrowError> {
        let count = encoder.step(out).min(self.most).min(self.batch.num_rows() - self.done);
        let rows = self.batch.slice(self.done, count);
        self.done += count;
        out.rows(count, |out| encoder.rows(&rows, out))
    }
}

fn encoder(format: Format, schema: &Schema) -> Result<Box<dyn Encode>, ArrowError> {
    Ok(match format {
        Format::Json => Box::new(json::Json::array(schema)),
        Format::Ndjson => Box::new(json::Json::lines(schema)),
        Format::Spice => Box::new(json::Json::spice(schema)?),
        Format::Csv => Box::new(csv::Csv::new(schema)),
        Format::Table => Box::new(table::Table::new(schema)),
        Format::Arrow => Box::new(ipc::Ipc::new(schema)?),
    })
}

fn unwritable(format: Format, error: &ArrowError) -> EngineError {
    // A value without a text form is an error of the statement; any other failure is internal.
    let kind =
        if matches!(error, ArrowError::CastError(_)) { ErrorKind::InvalidStatement } else { ErrorKind::Internal };
    EngineError::new(kind, format!("the result cannot be written as {}: {error}", format.media_type()))
}

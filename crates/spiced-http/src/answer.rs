//! Encoding of a result: batches in, frames of bytes out, a bounded amount at a time.
//!
//! Encoding happens when the body is polled, and so at the speed of the client. After each frame the task yields, so
//! that one fast reader does not delay the other connections of its thread.

use arrow_schema::{ArrowError, SchemaRef};
use axum::body::Body;
use futures::{FutureExt, StreamExt, stream};
use spiced_engine::{Batches, EngineError, ErrorKind};
use spiced_formats::{Format, RowEncoder};
use tls_core::server::buf_list::{BufList, VectoredBody};

/// A response body whose first frame is encoded.
pub(crate) struct Answer {
    first: BufList,
    rest: Rest,
}

impl Answer {
    /// Waits for the first rows, so that an error before them determines the HTTP status.
    pub(crate) async fn start(schema: SchemaRef, batches: Batches, format: Format) -> Result<Self, EngineError> {
        let encoder = RowEncoder::new(format, &schema).map_err(|e| unwritable(format, &e))?;
        let mut rest = Rest { batches, encoder, format, has_rows: false, stage: Stage::Begin };
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
    encoder: RowEncoder,
    format: Format,
    /// Whether the encoder holds encoded rows that are not yet taken.
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
            if self.encoder.is_full() || self.stage == Stage::End {
                return Ok(self.take());
            }
            let written = if self.encoder.has_rows() {
                self.has_rows = true;
                self.encoder.step()
            } else if self.stage == Stage::Begin {
                self.stage = Stage::Rows;
                self.encoder.begin()
            } else {
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
                        self.encoder.push(batch);
                        Ok(())
                    }
                    None => {
                        self.stage = Stage::End;
                        self.encoder.end()
                    }
                }
            };
            written.map_err(|e| unwritable(self.format, &e))?;
        }
    }

    /// Takes the encoded bytes. Returns `None` if nothing is encoded.
    fn take(&mut self) -> Option<BufList> {
        self.has_rows = false;
        Some(self.encoder.take()).filter(|pieces| !pieces.is_empty())
    }
}

fn unwritable(format: Format, error: &ArrowError) -> EngineError {
    // A value without a text form is an error of the statement; any other failure is internal.
    let kind =
        if matches!(error, ArrowError::CastError(_)) { ErrorKind::InvalidStatement } else { ErrorKind::Internal };
    EngineError::new(kind, format!("the result cannot be written as {}: {error}", format.media_type()))
}

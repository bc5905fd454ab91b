//! The Arrow IPC stream format. Column data is sent from the memory of the batch without a copy, so large batches need
//! not be split.

use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamEncoder;
use arrow_schema::{ArrowError, Schema};

use crate::encode::Encode;
use crate::out::Out;

pub(crate) struct Ipc {
    /// `None` once the stream has ended.
    encoder: Option<StreamEncoder>,
}

impl Ipc {
    pub(crate) fn new(schema: &Schema) -> Result<Self, ArrowError> {
        Ok(Self { encoder: Some(StreamEncoder::try_new(schema)?) })
    }
}

impl Encode for Ipc {
    fn rows_at_once(&self, _: &RecordBatch) -> usize {
        usize::MAX
    }

    fn step(&self, _: &Out) -> usize {
        usize::MAX
    }

    fn begin(&mut self, _: &mut Out) -> Result<(), ArrowError> {
        Ok(())
    }

    fn rows(&mut self, batch: &RecordBatch, out: &mut Out) -> Result<(), ArrowError> {
        for buffer in self.encoder.as_mut().map(|e| e.encode(batch)).transpose()?.into_iter().flatten() {
            out.share(buffer);
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Out) -> Result<(), ArrowError> {
        for buffer in self.encoder.take().map(StreamEncoder::finish).transpose()?.into_iter().flatten() {
            out.share(buffer);
        }
        Ok(())
    }
}

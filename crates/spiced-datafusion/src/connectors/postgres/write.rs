//! `INSERT` as one COPY in a transaction: all rows are inserted, or none.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::sink::DataSink;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use futures::{SinkExt, Stream, StreamExt};
use tokio_postgres::Client;

use super::Relation;
use super::connect::{Busy, Pool, Trouble};
use super::texts::Texts;
use crate::connectors::source::quoted;

/// Appends the rows of a plan.
#[derive(Debug)]
pub(super) struct Copy {
    pool: Pool,
    statement: String,
    schema: SchemaRef,
}

impl Copy {
    pub(super) fn new(pool: Pool, relation: &Relation, schema: SchemaRef) -> Self {
        let columns = schema.fields().iter().map(|field| quoted(field.name())).collect::<Vec<_>>().join(", ");
        let statement = format!("COPY {} ({columns}) FROM STDIN", relation.quoted());
        Self { pool, statement, schema }
    }

    async fn append(&self, rows: SendableRecordBatchStream) -> Result<u64> {
        let mut busy = Busy::new(self.pool.clone()).await?;
        let client = busy.client().expect("it has just begun");
        // COPY ends before deferred constraints are checked: only COMMIT reports their violations.
        client.batch_execute("BEGIN").await.map_err(Trouble::from)?;
        let copied = copy(client, &self.statement, rows).await;
        let end = if copied.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = client.batch_execute(end).await.map_err(Trouble::from);
        if ended.is_ok() {
            busy.over();
        }
        let count = copied?;
        ended?;
        Ok(count)
    }
}

/// Sends the rows to a `COPY … FROM STDIN`: all of them, or none.
pub(super) async fn copy(
    client: &Client,
    statement: &str,
    rows: impl Stream<Item = Result<RecordBatch>>,
) -> Result<u64> {
    let sink = client.copy_in::<_, Bytes>(statement).await.map_err(Trouble::from)?;
    // If the sink is dropped before it is finished, the server discards all rows.
    let (mut sink, mut rows) = (pin!(sink), pin!(rows));
    while let Some(batch) = rows.next().await.transpose()? {
        for start in (0..batch.num_rows()).step_by(ROWS) {
            let part = batch.slice(start, ROWS.min(batch.num_rows() - start));
            sink.send(lines(&part)?).await.map_err(Trouble::from)?;
        }
    }
    Ok(sink.finish().await.map_err(Trouble::from)?)
}

/// The number of rows that are sent at once.
const ROWS: usize = 1024;

/// Formats rows in the text format of COPY (PostgreSQL, "COPY", "Text Format").
fn lines(batch: &RecordBatch) -> Result<Bytes> {
    let columns = batch.columns().iter().map(Texts::of).collect::<Result<Vec<_>>>()?;
    let mut out = BytesMut::new();
    let mut text = String::new();
    for row in 0..batch.num_rows() {
        for (at, column) in columns.iter().enumerate() {
            if at > 0 {
                out.put_u8(b'\t');
            }
            text.clear();
            match column.write(row, &mut text)? {
                true => escape(&text, &mut out),
                false => out.put_slice(b"\\N"),
            }
        }
        out.put_u8(b'\n');
    }
    Ok(out.freeze())
}

fn escape(text: &str, out: &mut BytesMut) {
    for byte in text.bytes() {
        match byte {
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            byte => out.put_u8(byte),
        }
    }
}

#[async_trait]
impl DataSink for Copy {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    async fn write_all(&self, data: SendableRecordBatchStream, _context: &Arc<TaskContext>) -> Result<u64> {
        self.append(data).await
    }
}

impl DisplayAs for Copy {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgreSQL")
    }
}

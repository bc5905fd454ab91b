//! `UPDATE` and `DELETE` of the rows that a query has found, in one transaction: each is still there as it was read, or
//! nothing is done.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::datasource::sink::DataSink;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use spiced_engine::ErrorKind;
use tokio_postgres::types::ToSql;

use super::connect::{Busy, Pool, Trouble};
use super::texts::Texts;
use super::{Relation, quoted};
use crate::error::refusal;
use crate::merging::gathered;

/// Rows that are sent at once.
const ROWS: usize = 1024;

/// Changes the rows whose addresses a plan gives.
#[derive(Debug)]
pub(super) struct Change {
    pool: Pool,
    statement: String,
    given: SchemaRef,
}

impl Change {
    /// Columns with the types that their new values become; to delete, there is none.
    pub(super) fn new<'a>(
        pool: Pool,
        relation: &Relation,
        set: impl Iterator<Item = (&'a str, &'a str)>,
        given: SchemaRef,
    ) -> Self {
        let set: Vec<String> =
            set.enumerate().map(|(at, (name, kind))| format!("{} = k.v{at}::{kind}", quoted(name))).collect();
        let values: String = (0..set.len()).map(|at| format!(", v{at}")).collect();
        let parameters: Vec<String> = (1..=set.len() + 3).map(|at| format!("${at}::text[]")).collect();
        let (relation, set) = (relation.quoted(), set.join(", "));
        let rows = format!("unnest({}) AS k(place, version, part{values})", parameters.join(", "));
        let same = "WHERE t.ctid = k.place::tid AND t.xmin = k.version::xid AND t.tableoid = k.part::oid";
        let statement = match set.is_empty() {
            true => format!("DELETE FROM {relation} AS t USING {rows} {same}"),
            false => format!("UPDATE {relation} AS t SET {set} FROM {rows} {same}"),
        };
        Self { pool, statement, given }
    }

    async fn change(&self, given: &[RecordBatch]) -> std::result::Result<Option<u64>, Trouble> {
        let mut busy = Busy::new(self.pool.clone()).await?;
        let client = busy.client().expect("it has just begun");
        client.batch_execute("BEGIN").await?;
        let statement = client.prepare(&self.statement).await?;
        let mut rows = 0;
        for batch in given {
            for start in (0..batch.num_rows()).step_by(ROWS) {
                let part = batch.slice(start, ROWS.min(batch.num_rows() - start));
                let values = texts(&part).map_err(|error| Trouble::unavailable(error.to_string()))?;
                let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|v| v as &(dyn ToSql + Sync)).collect();
                let changed = client.execute(&statement, &values).await?;
                if changed != part.num_rows() as u64 {
                    client.batch_execute("ROLLBACK").await?;
                    busy.over();
                    return Ok(None);
                }
                rows += changed;
            }
        }
        client.batch_execute("COMMIT").await?;
        busy.over();
        Ok(Some(rows))
    }
}

/// The columns, as arrays of text.
fn texts(batch: &RecordBatch) -> Result<Vec<Vec<Option<String>>>> {
    let column = |column| {
        let texts = Texts::of(column)?;
        let value = |row| {
            let mut text = String::new();
            Ok(texts.write(row, &mut text)?.then_some(text))
        };
        (0..batch.num_rows()).map(value).collect()
    };
    batch.columns().iter().map(column).collect()
}

#[async_trait]
impl DataSink for Change {
    fn schema(&self) -> &SchemaRef {
        &self.given
    }

    async fn write_all(&self, data: SendableRecordBatchStream, context: &Arc<TaskContext>) -> Result<u64> {
        // All of it first: what reads may have the last connection that is free.
        let coming = MemoryConsumer::new("changes for PostgreSQL").register(context.memory_pool());
        let (given, _) = gathered(data, &self.given, &coming).await?;
        self.change(&given).await?.ok_or_else(|| {
            let why = "some of the rows are no longer in PostgreSQL as they were read, or a trigger keeps them; nothing was \
                       changed: try it again";
            refusal(ErrorKind::Unavailable, why)
        })
    }
}

impl DisplayAs for Change {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL: {}", self.statement)
    }
}

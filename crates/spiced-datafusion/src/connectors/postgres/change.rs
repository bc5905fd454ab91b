//! `UPDATE` and `DELETE` of the rows that a query has found, in one transaction: each is still there as it was read, or
//! nothing is done. What is to be done goes into a temporary table whose columns are the table's own, so that values are
//! taken as an assignment takes them, and is done by one statement, as PostgreSQL's constraints and triggers expect it.

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
use futures::stream;
use spiced_engine::ErrorKind;
use tokio_postgres::Client;

use super::connect::{Busy, Pool, Trouble};
use super::write::copy;
use super::{Relation, quoted};
use crate::coalesce::collect;
use crate::error::refusal;

/// The temporary table.
const CHANGES: &str = "spiced_changes";

/// A part of a row's address.
pub(super) struct Address {
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

/// Where a row lies, which version of it that is, in which of a table's partitions, and in which file: a table that is
/// rewritten (VACUUM FULL, CLUSTER) has its rows elsewhere, with the versions that they had (PostgreSQL, "System Columns",
/// "Database Object Location Functions").
pub(super) const ADDRESSES: [Address; 4] = [
    Address { name: "ctid", sql: "ctid" },
    Address { name: "xmin", sql: "xmin" },
    Address { name: "tableoid", sql: "tableoid" },
    Address { name: "file", sql: "pg_relation_filenode(tableoid)" },
];

/// Changes the rows whose addresses a plan gives.
#[derive(Debug)]
pub(super) struct Change {
    pool: Pool,
    given: SchemaRef,
    /// Makes the temporary table.
    make: String,
    fill: String,
    /// How many rows it has decides how those of the target are best looked for.
    look: String,
    /// Does what the table says.
    apply: String,
}

impl Change {
    /// Gives `columns` new values; where there are none, deletes the rows.
    pub(super) fn new(pool: Pool, relation: &Relation, columns: &[&str], given: SchemaRef) -> Self {
        // No name of the statement's own target.
        let changes = if relation.table == CHANGES { "spiced_changes_" } else { CHANGES };
        let (table, relation) = (format!("pg_temp.{changes}"), relation.quoted());
        let places = ADDRESSES.iter().enumerate().map(|(at, address)| format!("{} AS a{at}", address.sql));
        let values = columns.iter().enumerate().map(|(at, name)| format!("{} AS v{at}", quoted(name)));
        let selected = places.chain(values).collect::<Vec<_>>().join(", ");
        let same = ADDRESSES.iter().enumerate().map(|(at, address)| format!("{} = {changes}.a{at}", address.sql));
        let same = same.collect::<Vec<_>>().join(" AND ");
        let set = columns.iter().enumerate().map(|(at, name)| format!("{} = {changes}.v{at}", quoted(name)));
        let set = set.collect::<Vec<_>>().join(", ");
        // As a query: a table would have a `ctid` of its own.
        let from = format!("(SELECT * FROM {table}) AS {changes}");
        let apply = match columns.is_empty() {
            true => format!("DELETE FROM {relation} USING {from} WHERE {same}"),
            false => format!("UPDATE {relation} SET {set} FROM {from} WHERE {same}"),
        };
        let make = format!(
            "BEGIN; CREATE TEMPORARY TABLE {changes} ON COMMIT DROP AS SELECT {selected} FROM {relation} WITH NO DATA"
        );
        let (fill, look) = (format!("COPY {table} FROM STDIN"), format!("ANALYZE {table}"));
        Self { pool, given, make, fill, look, apply }
    }

    async fn change(&self, given: Vec<RecordBatch>) -> Result<u64> {
        let mut busy = Busy::new(self.pool.clone()).await?;
        let client = busy.client().expect("it has just begun");
        // Where it fails, the connection ends, and the transaction with it.
        let changed = self.run(client, given).await?;
        busy.over();
        changed.ok_or_else(|| {
            let why = "some of the rows are no longer in PostgreSQL as they were read, or a trigger or a policy keeps them; nothing \
                       was changed: try it again";
            refusal(ErrorKind::Unavailable, why)
        })
    }

    async fn run(&self, client: &Client, given: Vec<RecordBatch>) -> Result<Option<u64>> {
        client.batch_execute(&self.make).await.map_err(Trouble::from)?;
        let asked = copy(client, &self.fill, stream::iter(given.into_iter().map(Ok))).await?;
        client.batch_execute(&self.look).await.map_err(Trouble::from)?;
        let changed = client.execute(&self.apply, &[]).await.map_err(Trouble::from)?;
        let end = if changed == asked { "COMMIT" } else { "ROLLBACK" };
        client.batch_execute(end).await.map_err(Trouble::from)?;
        Ok(Some(changed).filter(|changed| *changed == asked))
    }
}

#[async_trait]
impl DataSink for Change {
    fn schema(&self) -> &SchemaRef {
        &self.given
    }

    async fn write_all(&self, data: SendableRecordBatchStream, context: &Arc<TaskContext>) -> Result<u64> {
        // All of it first: what reads may have the last connection that is free.
        let coming = MemoryConsumer::new("changes for PostgreSQL").register(context.memory_pool());
        let (given, rows) = collect(data, &self.given, &coming).await?;
        if rows == 0 { Ok(0) } else { self.change(given).await }
    }
}

impl DisplayAs for Change {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL: {}", self.apply)
    }
}

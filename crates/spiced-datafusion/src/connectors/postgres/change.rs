//! `UPDATE` and `DELETE` of the rows that a query has found, in one transaction: either each row is unchanged since it
//! was read, or no row is changed. The changes are written to a temporary table whose columns have the types of the
//! table, so that values are converted as by an assignment. One statement then applies them, as PostgreSQL's
//! constraints and triggers expect.

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

use super::Relation;
use super::connect::{Busy, Pool, Trouble};
use super::write::copy;
use crate::connectors::source::quoted;
use crate::error::refusal;
use crate::execution::coalesce::collect;

/// The name of the temporary table.
const CHANGES: &str = "spiced_changes";

/// A part of a row id.
pub(super) struct Address {
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

/// The row id: the location of a row, its version, its partition, and the file. The file is included because a table
/// rewrite (VACUUM FULL, CLUSTER) moves rows without changing their versions (PostgreSQL, "System Columns", "Database
/// Object Location Functions").
pub(super) const ADDRESSES: [Address; 4] = [
    Address { name: "ctid", sql: "ctid" },
    Address { name: "xmin", sql: "xmin" },
    Address { name: "tableoid", sql: "tableoid" },
    Address { name: "file", sql: "pg_relation_filenode(tableoid)" },
];

/// Changes the rows whose ids a plan returns.
#[derive(Debug)]
pub(super) struct Change {
    pool: Pool,
    given: SchemaRef,
    /// Creates the temporary table.
    make: String,
    fill: String,
    /// Analyzes it, because its size decides how the rows of the target are best found.
    look: String,
    /// Applies the changes.
    apply: String,
}

impl Change {
    /// Updates `columns`; deletes the rows if `columns` is empty.
    pub(super) fn new(pool: Pool, relation: &Relation, columns: &[&str], given: SchemaRef) -> Self {
        // Must differ from the name of the target.
        let changes = if relation.table == CHANGES { "spiced_changes_" } else { CHANGES };
        let (table, relation) = (format!("pg_temp.{changes}"), relation.quoted());
        let places = ADDRESSES.iter().enumerate().map(|(at, address)| format!("{} AS a{at}", address.sql));
        let values = columns.iter().enumerate().map(|(at, name)| format!("{} AS v{at}", quoted(name)));
        let selected = places.chain(values).collect::<Vec<_>>().join(", ");
        let same = ADDRESSES.iter().enumerate().map(|(at, address)| format!("{} = {changes}.a{at}", address.sql));
        let same = same.collect::<Vec<_>>().join(" AND ");
        let set = columns.iter().enumerate().map(|(at, name)| format!("{} = {changes}.v{at}", quoted(name)));
        let set = set.collect::<Vec<_>>().join(", ");
        // A subquery, because a table would have a `ctid` itself.
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
        // On an error, the connection is closed, which ends the transaction.
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
        // Read completely first: the source may be using the last free connection.
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

//! The table: its schema from PostgreSQL, its rows by one statement a scan.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::SchemaExt;
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use futures::{StreamExt, TryStreamExt};
use spiced_engine::ErrorKind;
use tokio_postgres::RowStream;
use tokio_postgres::types::ToSql;

use super::change::{ADDRESSES, Change};
use super::connect::{Busy, Pool, Trouble};
use super::types::{Raw, Reading};
use super::write::Copy;
use super::{Relation, filter, quoted};
use crate::changes::{Changeable, address};
use crate::error::refusal;

/// A batch is full with this many bytes as they came, however few rows that is.
const BATCH_BYTES: usize = 8 << 20;

/// A table or view of a server.
#[derive(Debug, Clone)]
pub(super) struct PostgresTable {
    pool: Pool,
    relation: Relation,
    schema: SchemaRef,
    readings: Vec<Reading>,
    /// How many of the columns are the table's own; the rest are addresses.
    own: usize,
    /// Whether its rows have addresses: it is a table, and no view.
    has_addresses: bool,
    writable: bool,
}

impl PostgresTable {
    /// Asks the server what the table is.
    pub(super) async fn open(pool: Pool, relation: Relation, writable: bool) -> std::result::Result<Self, Trouble> {
        let client = pool.get().await?;
        let name = relation.quoted();
        let statement = client.prepare(&format!("SELECT * FROM {name}")).await?;
        // Rows of a foreign table, and of one that is a part of this one, have no version.
        let query = "WITH RECURSIVE parts(oid) AS ( \
                         SELECT $1::text::regclass::oid UNION \
                         SELECT inhrelid FROM pg_catalog.pg_inherits JOIN parts ON inhparent = parts.oid \
                     ) \
                     SELECT attname::text, attnotnull, relkind IN ('r', 'p') AND NOT EXISTS ( \
                         SELECT FROM parts JOIN pg_catalog.pg_foreign_table ON ftrelid = parts.oid \
                     ) \
                     FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_class ON attrelid = pg_class.oid \
                     WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped";
        let known = client.query(query, &[&name]).await?;
        let has_addresses = known.iter().all(|row| row.get(2));
        let never_null: HashMap<String, bool> = known.iter().map(|row| (row.get(0), row.get(1))).collect();
        let columns = statement.columns();
        let readings: Vec<Reading> = columns.iter().map(|c| Reading::of(c.type_(), c.type_modifier())).collect();
        let fields = columns.iter().zip(&readings).map(|(column, reading)| {
            let nullable = !never_null.get(column.name()).is_some_and(|never_null| *never_null);
            Field::new(column.name(), reading.data_type(), nullable)
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        if schema.fields().is_empty() {
            return Err(Trouble::unavailable(format!("PostgreSQL: {name} has no columns")));
        }
        let own = readings.len();
        Ok(Self { pool, relation, schema, readings, own, has_addresses, writable })
    }

    fn statement(&self, columns: &[usize], filters: &[Expr], limit: Option<usize>) -> Result<String> {
        let column = |at: &usize| {
            if let Some(address) = at.checked_sub(self.own) {
                return format!("({})::text", ADDRESSES[address].sql);
            }
            let name = quoted(self.schema.field(*at).name());
            if self.readings[*at].is_text() { format!("{name}::text") } else { name }
        };
        let selected = columns.iter().map(column).collect::<Vec<_>>().join(", ");
        let mut sql = format!("SELECT {selected} FROM {}", self.relation.quoted());
        for (at, filter) in filters.iter().enumerate() {
            let condition = filter::sql(filter)
                .ok_or_else(|| DataFusionError::Internal(format!("a filter has no SQL: {filter}")))?;
            sql += if at == 0 { " WHERE " } else { " AND " };
            sql += &condition;
        }
        if let Some(limit) = limit {
            sql += &format!(" LIMIT {limit}");
        }
        Ok(sql)
    }

    fn native(&self) -> Vec<bool> {
        self.readings.iter().map(|reading| reading.native).collect()
    }
}

#[async_trait]
impl TableProvider for PostgresTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let native = self.native();
        Ok(filters.iter().map(|filter| filter::support(filter, &self.schema, &native)).collect())
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.readings.len()).collect());
        let sql = self.statement(&columns, filters, limit)?;
        let schema = Arc::new(self.schema.project(&columns)?);
        let scan = Scan {
            pool: self.pool.clone(),
            sql,
            schema: schema.clone(),
            readings: columns.iter().map(|at| self.readings[*at].clone()).collect(),
        };
        Ok(Arc::new(StreamingTableExec::try_new(schema, vec![Arc::new(scan)], None, [], false, None)?))
    }

    async fn insert_into(
        &self,
        _state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if !self.writable || op != InsertOp::Append {
            let why = "a PostgreSQL data set takes INSERT INTO where its access is read_write, and does not overwrite";
            return Err(refusal(ErrorKind::Unsupported, why));
        }
        self.schema.logically_equivalent_names_and_types(&input.schema())?;
        let copy = Copy::new(self.pool.clone(), &self.relation, self.schema.clone());
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(copy), None)))
    }
}

impl Changeable for PostgresTable {
    fn addressed(&self) -> Result<Arc<dyn TableProvider>> {
        let text = Reading::address();
        let fields =
            ADDRESSES.map(|part| Arc::new(Field::new(address(part.name, &self.schema), text.data_type(), false)));
        let fields = self.schema.fields().iter().cloned().chain(fields);
        let readings = self.readings.iter().cloned().chain(ADDRESSES.map(|_| text.clone()));
        let (schema, readings) = (Arc::new(Schema::new(fields.collect::<Vec<_>>())), readings.collect());
        Ok(Arc::new(Self { schema, readings, ..self.clone() }))
    }

    fn change(&self, columns: &[usize], given: SchemaRef) -> Result<Arc<dyn DataSink>> {
        if !self.writable || !self.has_addresses {
            let why = "a PostgreSQL data set takes UPDATE and DELETE where its access is read_write and it is a table there; a \
                       view or a foreign table, or one with foreign parts, is not";
            return Err(refusal(ErrorKind::Unsupported, why));
        }
        let columns: Vec<&str> = columns.iter().map(|at| self.schema.field(*at).name().as_str()).collect();
        Ok(Arc::new(Change::new(self.pool.clone(), &self.relation, &columns, given)))
    }
}

/// One statement.
struct Scan {
    pool: Pool,
    sql: String,
    schema: SchemaRef,
    readings: Vec<Reading>,
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What EXPLAIN shows; it is made of the caller's own statement.
        write!(f, "PostgreSQL: {}", self.sql)
    }
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (pool, sql) = (self.pool.clone(), self.sql.clone());
        let (schema, readings) = (self.schema.clone(), self.readings.clone());
        let rows = context.session_config().batch_size();
        let batches = async move {
            let running = Running::start(pool, &sql).await?;
            Ok::<_, DataFusionError>(batches(running, schema, readings, rows))
        };
        let stream = futures::stream::once(batches).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream))
    }
}

/// A statement that runs.
struct Running {
    rows: Pin<Box<RowStream>>,
    busy: Busy,
}

impl Running {
    async fn start(pool: Pool, sql: &str) -> std::result::Result<Self, Trouble> {
        let none: [&(dyn ToSql + Sync); 0] = [];
        // Before anything is sent: the first word of an answer may take as long as all of it.
        let busy = Busy::new(pool).await?;
        let client = busy.client().expect("it has just begun");
        let rows = Box::pin(client.query_raw(sql, none).await?);
        Ok(Self { rows, busy })
    }
}

fn batches(
    running: Running,
    schema: SchemaRef,
    readings: Vec<Reading>,
    most: usize,
) -> impl futures::Stream<Item = Result<RecordBatch>> + Send {
    futures::stream::try_unfold(running, move |mut running| {
        let (schema, readings) = (schema.clone(), readings.clone());
        async move {
            if running.busy.client().is_none() {
                return Ok(None);
            }
            let mut fillers: Vec<_> = readings.iter().map(Reading::filler).collect();
            let (mut rows, mut bytes) = (0, 0);
            while rows < most && bytes < BATCH_BYTES {
                let Some(row) = running.rows.next().await else {
                    running.busy.over();
                    break;
                };
                let row = row.map_err(Trouble::from)?;
                for (at, filler) in fillers.iter_mut().enumerate() {
                    let raw: Option<Raw<'_>> = row.try_get(at).map_err(Trouble::from)?;
                    bytes += raw.as_ref().map_or(0, |raw| raw.0.len());
                    filler.push(raw.map(|raw| raw.0)).map_err(|why| {
                        let name = schema.field(at).name();
                        refusal(ErrorKind::InvalidStatement, format!("the column `{name}` of PostgreSQL {why}"))
                    })?;
                }
                rows += 1;
            }
            if rows == 0 {
                return Ok(None);
            }
            let columns = fillers.iter_mut().map(|filler| filler.finish()).collect();
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            Ok(Some((RecordBatch::try_new_with_options(schema, columns, &options)?, running)))
        }
    })
}

//! A PostgreSQL table: it has the schema from the server, and each scan is one statement.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Column, DFSchema, SchemaExt};
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use spiced_engine::ErrorKind;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{RowStream, Statement};

use super::super::outdated::Outdated;
use super::super::remote::RemoteScan;
use super::change::{ADDRESSES, Change};
use super::connect::{Busy, Pool, Trouble};
use super::expression::{Condition, Value, compared_by_own_rules, condition};
use super::keys::Keys;
use super::types::{Collation, Reading};
use super::values::Raw;
use super::write::Copy;
use super::{Keyed, Relation};
use crate::connectors::source::quoted;
use crate::error::refusal;
use crate::tables::updatable::{UpdatableTable, left_out, row_id_column};

/// A batch is full at this many bytes on the wire, however few rows it has.
const BATCH_BYTES: usize = 8 << 20;

/// The source of the rows.
#[derive(Debug, Clone)]
enum From {
    /// A table or view.
    Relation(Relation),
    /// A statement with generated column names.
    Query(String),
}

impl From {
    /// Returns the SQL for use in a statement.
    fn sql(&self) -> String {
        match self {
            Self::Relation(relation) => relation.quoted(),
            Self::Query(sql) => format!("({sql}) AS q"),
        }
    }
}

/// A table or view of a server, or the result of a statement over several.
#[derive(Debug, Clone)]
pub(super) struct PostgresTable {
    pool: Pool,
    from: From,
    schema: SchemaRef,
    readings: Vec<Reading>,
    /// How many of the columns belong to the table; the rest are parts of the row id.
    own: usize,
    /// Whether its rows have ids: it is a table, not a view.
    has_addresses: bool,
    writable: bool,
    keys: Arc<Keys>,
    outdated: Outdated,
}

impl PostgresTable {
    /// Reads the definition of the table from the server.
    pub(super) async fn open(
        pool: Pool,
        relation: Relation,
        writable: bool,
        outdated: Outdated,
    ) -> std::result::Result<Self, Trouble> {
        let client = pool.get().await?;
        let name = relation.quoted();
        let statement = client.prepare(&format!("SELECT * FROM {name}")).await?;
        // Rows of foreign tables, including foreign partitions and children, have no version.
        let query = "WITH RECURSIVE parts(oid) AS ( \
                         SELECT $1::text::regclass::oid UNION \
                         SELECT inhrelid FROM pg_catalog.pg_inherits JOIN parts ON inhparent = parts.oid \
                     ) \
                     SELECT attname::text, \
                         attnotnull AND (relkind = 'p' OR NOT EXISTS ( \
                             SELECT FROM pg_catalog.pg_inherits WHERE inhparent = attrelid \
                         )), \
                         relkind IN ('r', 'p') AND NOT EXISTS ( \
                         SELECT FROM parts JOIN pg_catalog.pg_foreign_table ON ftrelid = parts.oid \
                     ), \
                     attcollation NOT IN (0, 100), \
                     current_setting('server_encoding') <> 'UTF8', \
                     EXISTS ( \
                         SELECT FROM pg_catalog.pg_collation AS known WHERE known.oid = attcollation \
                         AND to_jsonb(known) ->> 'collisdeterministic' = 'false' \
                     ) \
                     FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_class ON attrelid = pg_class.oid \
                     WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped";
        let known = client.query(query, &[&name]).await?;
        let has_addresses = known.iter().all(|row| row.get(2));
        // Whether a column is never null (which children of the table may not guarantee), and how its texts are
        // compared (100 is the database default).
        let collation = |is_other: bool, is_lax: bool, is_nondeterministic: bool| {
            if is_nondeterministic {
                Collation::Nondeterministic
            } else if is_lax {
                Collation::Lax
            } else if is_other {
                Collation::Other
            } else {
                Collation::Default
            }
        };
        let known: HashMap<String, (bool, Collation)> =
            known.iter().map(|row| (row.get(0), (row.get(1), collation(row.get(3), row.get(4), row.get(5))))).collect();
        let (mut fields, mut readings) = (Vec::new(), Vec::new());
        for column in statement.columns() {
            let (never_null, collation) = known.get(column.name()).copied().unwrap_or((false, Collation::Lax));
            let reading = Reading::of(column.type_(), column.type_modifier(), collation);
            fields.push(Field::new(column.name(), reading.data_type(), !never_null));
            readings.push(reading);
        }
        let schema = Arc::new(Schema::new(fields));
        if schema.fields().is_empty() {
            return Err(Trouble::unavailable(format!("PostgreSQL: {name} has no columns")));
        }
        let own = readings.len();
        let mut keys = Keys::of(&client, &name).await;
        // A column that is hidden from `SELECT *` is not a column here.
        keys.primary.take_if(|key| !key.columns.iter().all(|column| schema.index_of(column).is_ok()));
        let keys = Arc::new(keys);
        let from = From::Relation(relation);
        Ok(Self { pool, from, schema, readings, own, has_addresses, writable, keys, outdated })
    }

    /// Creates a table from the result of `sql`; `outdated` is the signal of the tables in it.
    pub(super) fn of_query(
        pool: Pool,
        sql: String,
        schema: SchemaRef,
        readings: Vec<Reading>,
        outdated: Outdated,
    ) -> Self {
        let (own, from, keys) = (readings.len(), From::Query(sql), Arc::default());
        Self { pool, from, schema, readings, own, has_addresses: false, writable: false, keys, outdated }
    }

    /// Returns the signal that the table has changed.
    pub(super) fn outdated(&self) -> &Outdated {
        &self.outdated
    }

    pub(super) fn keyed(&self) -> Keyed<'_> {
        Keyed { pool: &self.pool, keys: &self.keys }
    }

    /// Returns the table if it may become part of a larger statement: it is a relation of the server and has no row id
    /// columns.
    pub(super) fn whole(&self) -> Option<(&Pool, &Relation)> {
        match &self.from {
            From::Relation(relation) if self.own == self.readings.len() && self.pool.takes_whole_queries() => {
                Some((&self.pool, relation))
            }
            _ => None,
        }
    }

    /// Returns the columns that PostgreSQL compares by type-specific rules.
    pub(super) fn of_own_rules(&self) -> impl Iterator<Item = &str> {
        let columns = self.schema.fields().iter().zip(&self.readings);
        columns.filter(|(_, reading)| reading.has_own_rules()).map(|(field, _)| field.name().as_str())
    }

    /// Returns the number of columns.
    pub(super) fn width(&self) -> usize {
        self.readings.len()
    }

    /// Returns a column for a statement about this table alone, where `of` is its prefix.
    pub(super) fn column(&self, of: &str, at: usize) -> Value {
        Value::new(format!("{of}{}", quoted(self.schema.field(at).name())), self.readings[at].clone())
    }

    /// Returns a column by name.
    pub(super) fn named(&self, of: &str, column: &Column) -> Option<Value> {
        Some(self.column(of, self.schema.index_of(column.name()).ok()?))
    }

    fn condition(&self, filter: &Expr) -> Option<Condition> {
        condition(filter, &|column| self.named("", column))
    }

    fn statement(&self, columns: &[usize], filters: &[Condition], limit: Option<usize>) -> String {
        let column = |at: &usize| {
            if let Some(address) = at.checked_sub(self.own) {
                return format!("({})::text", ADDRESSES[address].sql);
            }
            let Value { sql, reading, .. } = self.column("", *at);
            if reading.is_text() { format!("{sql}::text") } else { sql }
        };
        let selected = columns.iter().map(column).collect::<Vec<_>>().join(", ");
        let mut sql = format!("SELECT {selected} FROM {}", self.from.sql());
        for (at, filter) in filters.iter().enumerate() {
            sql += if at == 0 { " WHERE " } else { " AND " };
            sql += &filter.sql;
        }
        if let Some(limit) = limit {
            sql += &format!(" LIMIT {limit}");
        }
        sql
    }

    /// Returns the relation if it is writable.
    fn written(&self) -> Option<&Relation> {
        match &self.from {
            From::Relation(relation) if self.writable => Some(relation),
            _ => None,
        }
    }
}

/// Returns the reason to refuse a condition that cannot be pushed down and that this engine would evaluate by different
/// rules.
fn own_rules(column: &str) -> String {
    format!(
        "PostgreSQL compares the column `{column}` by rules of its type, and this condition cannot be left to it as a whole; put the \
         comparison into a condition of its own (AND), or compare its text: `{column}::text`"
    )
}

impl PostgresTable {
    /// Plans a scan.
    fn plan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut columns: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.readings.len()).collect());
        let (mut conditions, mut rest) = (Vec::new(), Vec::new());
        for filter in filters {
            match self.condition(filter) {
                Some(condition) => conditions.push(condition),
                None => rest.push(filter.clone()),
            }
        }
        // The optimizer may rewrite a filter that was already pushed down into one that has no equivalent in
        // PostgreSQL.
        let Some(rest) = conjunction(rest) else { return self.scanned(&columns, &conditions, limit) };
        let wanted = columns.len();
        for column in rest.column_refs() {
            let at = self.schema.index_of(column.name())?;
            if !columns.contains(&at) {
                columns.push(at);
            }
        }
        let scan = self.scanned(&columns, &conditions, None)?;
        let schema = DFSchema::try_from(scan.schema())?;
        let predicate = state.create_physical_expr(rest, &schema)?;
        let filter = FilterExecBuilder::new(predicate, scan).apply_projection(Some((0..wanted).collect()))?.build()?;
        Ok(Arc::new(filter))
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
        let support = |filter: &&Expr| {
            let condition = self.condition(filter);
            let column = match condition {
                Some(_) => None,
                None => compared_by_own_rules(filter, &|column| self.named("", column)),
            };
            match column {
                Some(column) => Err(refusal(ErrorKind::Unsupported, own_rules(&column))),
                None => Ok(Condition::support(condition.as_ref())),
            }
        };
        filters.iter().map(support).collect()
    }

    // No `async fn`: see `crate::proven`.
    fn scan<'a, 'b, 'c, 'd, 'f>(
        &'a self,
        state: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        filters: &'d [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'f, Result<Arc<dyn ExecutionPlan>>>
    where
        Self: 'f,
        'a: 'f,
        'b: 'f,
        'c: 'f,
        'd: 'f,
    {
        Box::pin(std::future::ready(self.plan(state, projection, filters, limit)))
    }

    /// PostgreSQL fills in the columns that an INSERT leaves out.
    fn get_column_default(&self, column: &str) -> Option<&Expr> {
        static LEFT_OUT: LazyLock<Expr> = LazyLock::new(left_out);
        (self.written().is_some() && self.schema.index_of(column).is_ok()).then(|| &*LEFT_OUT)
    }

    async fn insert_into(
        &self,
        _state: &dyn Session,
        input: Arc<dyn ExecutionPlan>,
        op: InsertOp,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Some(relation) = self.written().filter(|_| op == InsertOp::Append) else {
            return Err(takes_no_rows());
        };
        self.schema.logically_equivalent_names_and_types(&input.schema())?;
        let copy = Copy::new(self.pool.clone(), relation, self.schema.clone());
        Ok(Arc::new(DataSinkExec::new(input, Arc::new(copy), None)))
    }
}

impl PostgresTable {
    fn scanned(
        &self,
        columns: &[usize],
        conditions: &[Condition],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let sql = self.statement(columns, conditions, limit);
        let schema = Arc::new(self.schema.project(columns)?);
        let scan = Scan {
            pool: self.pool.clone(),
            sql,
            schema,
            readings: columns.iter().map(|at| self.readings[*at].clone()).collect(),
            is_own: matches!(self.from, From::Relation(_)),
            outdated: self.outdated.clone(),
        };
        Ok(RemoteScan::plan(scan))
    }
}

impl UpdatableTable for PostgresTable {
    fn addressed(&self) -> Result<Arc<dyn TableProvider>> {
        let text = Reading::address();
        let fields =
            ADDRESSES.map(|part| Arc::new(Field::new(row_id_column(part.name, &self.schema), text.data_type(), false)));
        let fields = self.schema.fields().iter().cloned().chain(fields);
        let readings = self.readings.iter().cloned().chain(ADDRESSES.map(|_| text.clone()));
        let (schema, readings) = (Arc::new(Schema::new(fields.collect::<Vec<_>>())), readings.collect());
        Ok(Arc::new(Self { schema, readings, ..self.clone() }))
    }

    fn change(&self, columns: &[usize], given: SchemaRef) -> Result<Arc<dyn DataSink>> {
        let Some(relation) = self.written().filter(|_| self.has_addresses) else {
            let why = "a PostgreSQL data set takes UPDATE and DELETE where its access is read_write and it is a table there; a \
                       view or a foreign table, or one with foreign parts, is not";
            return Err(refusal(ErrorKind::Unsupported, why));
        };
        let columns: Vec<&str> = columns.iter().map(|at| self.schema.field(*at).name().as_str()).collect();
        Ok(Arc::new(Change::new(self.pool.clone(), relation, &columns, given)))
    }

    fn insert(&self, columns: &[usize]) -> Result<Option<Arc<dyn DataSink>>> {
        let Some(relation) = self.written() else { return Err(takes_no_rows()) };
        let schema = Arc::new(self.schema.project(columns)?);
        Ok(Some(Arc::new(Copy::new(self.pool.clone(), relation, schema))))
    }
}

fn takes_no_rows() -> DataFusionError {
    let why = "a PostgreSQL data set takes INSERT INTO where its access is read_write, and does not overwrite";
    refusal(ErrorKind::Unsupported, why)
}

/// A scan by one statement.
#[derive(Clone)]
struct Scan {
    pool: Pool,
    sql: String,
    schema: SchemaRef,
    readings: Vec<Reading>,
    /// Whether its columns belong to the table.
    is_own: bool,
    outdated: Outdated,
}

impl Scan {
    /// Converts the server's error. If the server rejects the statement, the known definition of the table is outdated,
    /// because the statement was generated from it (PostgreSQL, "Error Codes", class 42).
    fn refused(&self, error: tokio_postgres::Error) -> Trouble {
        let code = error.as_db_error().map(|said| said.code());
        if code.is_some_and(|code| code.code().starts_with("42") && *code != SqlState::INSUFFICIENT_PRIVILEGE) {
            self.outdated.notify();
        }
        Trouble::from(error)
    }

    /// Returns how the columns of the result differ from those expected; their values would be misread.
    fn changed(&self, statement: &Statement) -> Option<String> {
        let mut columns = statement.columns().iter().zip(&self.readings).zip(self.schema.fields());
        columns.find_map(|((column, reading), field)| {
            let same = reading.reads(column.type_(), column.type_modifier(), self.is_own);
            (!same).then(|| {
                format!(
                    "PostgreSQL: the column `{}` is {} now, and was read as {} when the data set was loaded; the data set is \
                     being loaded again, so send the statement again",
                    field.name(),
                    column.type_().name(),
                    field.data_type()
                )
            })
        })
    }
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The SQL is derived from the caller's own statement.
        write!(f, "PostgreSQL: {}", self.sql)
    }
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (scan, rows) = (self.clone(), context.session_config().batch_size());
        let batches = async move {
            let running = Running::start(&scan).await?;
            Ok::<_, DataFusionError>(batches(running, scan.schema, scan.readings, rows))
        };
        let stream = futures::stream::once(batches).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), stream))
    }
}

/// A running statement.
struct Running {
    rows: Pin<Box<RowStream>>,
    busy: Busy,
}

impl Running {
    async fn start(scan: &Scan) -> std::result::Result<Self, Trouble> {
        let none: [&(dyn ToSql + Sync); 0] = [];
        // Created before anything is sent: the first response may take as long as the whole result.
        let mut busy = Busy::new(scan.pool.clone()).await?;
        let client = busy.client().expect("it has just begun");
        let statement = match client.prepare(&scan.sql).await {
            Ok(statement) => statement,
            Err(error) => {
                busy.over();
                return Err(scan.refused(error));
            }
        };
        if let Some(changed) = scan.changed(&statement) {
            busy.over();
            scan.outdated.notify();
            return Err(Trouble::unavailable(changed));
        }
        let rows = Box::pin(client.query_raw(&statement, none).await?);
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

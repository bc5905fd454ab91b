//! `postgres:` data sets: a table or view of a PostgreSQL server. A query requests by SQL what it needs: its columns,
//! the filters that have the same meaning there, and its limit. If the data set is writable, `INSERT` appends by COPY,
//! and `UPDATE` and `DELETE` are one transaction: all rows or none.

mod change;
mod connect;
mod expression;
mod keys;
mod query;
mod table;
mod text_of;
mod texts;
mod types;
mod values;
mod write;

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::execution::context::SessionState;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Notify;

use self::connect::{Params, Pool};
pub(crate) use self::keys::Reference;
use self::keys::{Keys, Place};
pub(super) use self::query::WholeQueries;
use self::table::PostgresTable;
pub(super) use self::text_of::TextOf;
use super::Loading;
use super::outdated::Outdated;
use super::{Connector, Opened, Request, Source, quoted};
use crate::planning::dml::UpdatableTable;

pub(super) const CONNECTOR: Connector =
    Connector { name: "postgres", writable: true, params: &[connect::PARAMS], columns: false, open };

/// Returns the table as one whose rows can be changed, if it is a PostgreSQL table.
pub(super) fn changeable(table: &dyn TableProvider) -> Option<&dyn UpdatableTable> {
    table.downcast_ref::<PostgresTable>().map(|table| table as &dyn UpdatableTable)
}

/// A PostgreSQL table with its keys.
#[derive(Clone, Copy)]
pub(super) struct Keyed<'t> {
    pool: &'t Pool,
    pub(super) keys: &'t Keys,
}

impl<'t> Keyed<'t> {
    pub(super) fn of(table: &'t dyn TableProvider) -> Option<Self> {
        table.downcast_ref::<PostgresTable>().map(PostgresTable::keyed)
    }

    /// Whether `other` is the table that `to` denotes on this table's server.
    pub(super) fn refers_to(&self, to: &Place, other: &Self) -> bool {
        *to == other.keys.place && self.pool.is_of_one_server(other.pool)
    }
}

fn open(request: Request<'_>) -> Opened {
    let mut wrong = Vec::new();
    let relation = match TableReference::parse_str(request.rest) {
        _ if request.rest.is_empty() => {
            wrong.push("from: no table stands after `postgres:`; write `postgres:schema.table`".to_owned());
            None
        }
        TableReference::Full { .. } => {
            wrong.push(format!(
                "from: `{}` has three parts; write `postgres:schema.table`, and the database as `pg_db`",
                request.rest
            ));
            None
        }
        reference => {
            Some(Relation { schema: reference.schema().map(str::to_owned), table: reference.table().to_owned() })
        }
    };
    match (Params::read(request.spec, &mut wrong), relation) {
        (Some(params), Some(relation)) if wrong.is_empty() => Ok(Arc::new(Postgres {
            pool: Pool::new(params, request.spec.writable),
            relation,
            writable: request.spec.writable,
            changed: Arc::default(),
        })),
        _ => Err(wrong),
    }
}

/// A table or view, by its PostgreSQL name.
#[derive(Debug, Clone)]
struct Relation {
    schema: Option<String>,
    table: String,
}

impl Relation {
    /// Returns the quoted name for use in a statement.
    fn quoted(&self) -> String {
        let table = quoted(&self.table);
        self.schema.as_ref().map_or(table.clone(), |schema| format!("{}.{table}", quoted(schema)))
    }
}

struct Postgres {
    pool: Pool,
    relation: Relation,
    writable: bool,
    /// Notified when the table has changed.
    changed: Arc<Notify>,
}

impl Source for Postgres {
    fn load<'a>(&'a self, _state: &'a SessionState) -> Loading<'a> {
        Box::pin(async move {
            let outdated = Outdated::new(self.changed.clone());
            let table = PostgresTable::open(self.pool.clone(), self.relation.clone(), self.writable, outdated).await;
            Ok(Arc::new(table.map_err(|trouble| trouble.to_string())?) as Arc<dyn TableProvider>)
        })
    }

    fn outdated(&self) -> BoxFuture<'_, ()> {
        async move {
            self.changed.notified().await;
        }
        .boxed()
    }
}

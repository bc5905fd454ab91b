//! `postgres:` data sets: a table or view of a PostgreSQL server. A query requests by SQL what it needs: its columns,
//! the filters that have the same meaning there, and its limit. If the data set is writable, `INSERT` appends by COPY,
//! and `UPDATE` and `DELETE` are one transaction: all rows or none.

mod change;
mod connect;
mod expression;
mod keep_casts;
mod keys;
mod query;
mod relation;
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
use self::keep_casts::KeepCasts;
use self::query::WholeQueries;
use self::relation::{Keyed, Relation};
use self::table::PostgresTable;

use super::outdated::Outdated;
use crate::connectors::source::Loading;
use crate::connectors::source::{Connector, ForeignKey, Keys, Opened, Request, Source};
use crate::engine::start_error::SpecPart;
use crate::tables::updatable::UpdatableTable;

pub(super) const CONNECTOR: Connector = Connector {
    name: "postgres",
    writable: true,
    params: &[connect::PARAMS],
    open,
    changeable: |table| table.downcast_ref::<PostgresTable>().map(|table| table as &dyn UpdatableTable),
    keys: enter_keys,
    analyzer_rules: || vec![Arc::new(KeepCasts)],
    optimizer_rules: || vec![Arc::new(WholeQueries)],
    ..Connector::READER
};

/// Enters the keys that PostgreSQL reports for its tables.
fn enter_keys(tables: &[Arc<dyn TableProvider>], keys: &mut [Keys]) {
    let keyed = tables.iter().map(|table| table.downcast_ref::<PostgresTable>().map(PostgresTable::keyed));
    let keyed: Vec<Option<Keyed<'_>>> = keyed.collect();
    for (at, own) in keyed.iter().enumerate() {
        let Some(own) = own else { continue };
        let foreign = own.keys.foreign.iter().filter_map(|reference| {
            let is_meant =
                |other: &Option<Keyed<'_>>| other.as_ref().is_some_and(|other| own.refers_to(&reference.to, other));
            // A self-referencing table that is listed under several names references itself under its own name.
            let to = if is_meant(&keyed[at]) { at } else { keyed.iter().position(is_meant)? };
            let keys::Reference { key, referred, on_update, on_delete, .. } = reference.clone();
            Some(ForeignKey { to, key, referred, on_update, on_delete })
        });
        keys[at] = Keys { primary: own.keys.primary.clone(), foreign: foreign.collect() };
    }
}

fn open(request: Request<'_>) -> Opened {
    let mut wrong = Vec::new();
    let relation = match TableReference::parse_str(request.rest) {
        _ if request.rest.is_empty() => {
            wrong.push(SpecPart::From.error("no table stands after `postgres:`; write `postgres:schema.table`"));
            None
        }
        TableReference::Full { .. } => {
            wrong.push(SpecPart::From.error(format!(
                "`{}` has three parts; write `postgres:schema.table`, and the database as `pg_db`",
                request.rest
            )));
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

//! The keys of a table, from the PostgreSQL catalog.

use spiced_engine::{Key, KeyRule};
use tokio_postgres::{Client, Row};

/// A table by its name on the server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Place {
    schema: String,
    table: String,
}

/// The known keys of a table, and its place.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    pub(super) place: Place,
    pub(super) primary: Option<Key>,
    pub(super) foreign: Vec<Reference>,
}

/// A foreign key.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    pub(super) key: Key,
    pub(super) to: Place,
    pub(super) referred: Key,
    pub(super) on_update: KeyRule,
    pub(super) on_delete: KeyRule,
}

/// Reads the keys of a table. A foreign key of or to a partitioned table has child constraints that repeat it; these
/// are left out. (PostgreSQL 10 has neither `conparentid` nor constraints that would need it.) The key of a table does
/// not cover the rows of its inheritance children.
const QUERY: &str = "SELECT space.nspname::text, own.relname::text, con.contype::text, con.conname::text, \
         ARRAY(SELECT attname::text FROM unnest(con.conkey) WITH ORDINALITY AS at(number, place) \
               JOIN pg_catalog.pg_attribute ON attrelid = con.conrelid AND attnum = at.number ORDER BY place), \
         other_space.nspname::text, other.relname::text, \
         (SELECT conname::text FROM pg_catalog.pg_constraint AS key \
          WHERE key.conindid = con.conindid AND key.conrelid = con.confrelid AND key.contype IN ('p', 'u') LIMIT 1), \
         ARRAY(SELECT attname::text FROM unnest(con.confkey) WITH ORDINALITY AS at(number, place) \
               JOIN pg_catalog.pg_attribute ON attrelid = con.confrelid AND attnum = at.number ORDER BY place), \
         con.confupdtype::text, con.confdeltype::text \
     FROM pg_catalog.pg_class AS own \
     JOIN pg_catalog.pg_namespace AS space ON space.oid = own.relnamespace \
     LEFT JOIN pg_catalog.pg_constraint AS con ON con.conrelid = own.oid AND con.contype IN ('p', 'f') \
         AND (con.contype = 'f' OR own.relkind = 'p' OR NOT EXISTS ( \
             SELECT FROM pg_catalog.pg_inherits WHERE inhparent = own.oid \
         )) \
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint AS above \
                         WHERE above.oid::text = to_jsonb(con) ->> 'conparentid' AND above.conrelid = con.conrelid) \
     LEFT JOIN pg_catalog.pg_class AS other ON other.oid = con.confrelid \
     LEFT JOIN pg_catalog.pg_namespace AS other_space ON other_space.oid = other.relnamespace \
     WHERE own.oid = $1::text::regclass ORDER BY con.conname";

impl Keys {
    /// Reads the keys of the table `name`, which is quoted. A server that speaks the PostgreSQL protocol but lacks
    /// these catalogs yields no keys.
    pub(super) async fn of(client: &Client, name: &str) -> Self {
        Self::told(client, name).await.unwrap_or_else(|error| {
            tracing::debug!(table = name, %error, "the keys of a table are not known");
            Self::default()
        })
    }

    async fn told(client: &Client, name: &str) -> Result<Self, tokio_postgres::Error> {
        let mut keys = Self::default();
        for row in client.query(QUERY, &[&name]).await? {
            keys.place = Place { schema: row.try_get(0)?, table: row.try_get(1)? };
            match row.try_get(2)? {
                Some("p") => keys.primary = Some(Key { name: row.try_get(3)?, columns: row.try_get(4)? }),
                Some("f") => keys.foreign.push(reference(&row)?),
                _ => {}
            }
        }
        Ok(keys)
    }
}

fn reference(row: &Row) -> Result<Reference, tokio_postgres::Error> {
    Ok(Reference {
        key: Key { name: row.try_get(3)?, columns: row.try_get(4)? },
        to: Place { schema: row.try_get(5)?, table: row.try_get(6)? },
        referred: Key { name: row.try_get(7)?, columns: row.try_get(8)? },
        on_update: rule(row.try_get(9)?),
        on_delete: rule(row.try_get(10)?),
    })
}

/// Converts `pg_constraint.confupdtype`.
fn rule(said: &str) -> KeyRule {
    match said {
        "c" => KeyRule::Cascade,
        "r" => KeyRule::Restrict,
        "n" => KeyRule::SetNull,
        "d" => KeyRule::SetDefault,
        _ => KeyRule::NoAction,
    }
}

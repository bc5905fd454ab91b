//! External tables whose LOCATION has a wildcard, addressed through the object store of their directory, so that plans
//! and `input_file_name()` reveal no location on the host.
//!
//! DataFusion accepts wildcards only in a path of the host and not in a URL. The table that it creates is therefore
//! rebuilt.

use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::catalog::{Session, TableProvider, TableProviderFactory};
use datafusion::datasource::listing::{ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::datasource::listing_table_factory::ListingTableFactory;
use datafusion::error::Result;
use datafusion::logical_expr::CreateExternalTable;
use futures::future::BoxFuture;

use crate::catalog::host_paths::HostPaths;
use crate::proven::Proven;

/// The factory for the tables of `CREATE EXTERNAL TABLE`.
#[derive(Debug)]
pub(crate) struct ExternalTables {
    host_paths: HostPaths,
    listing: ListingTableFactory,
}

impl ExternalTables {
    pub(crate) fn new(host_paths: HostPaths) -> Self {
        Self { host_paths, listing: ListingTableFactory::new() }
    }
}

impl TableProviderFactory for ExternalTables {
    // No `async fn`: see `crate::proven`.
    fn create<'a, 'b, 'c, 'f>(
        &'a self,
        state: &'b dyn Session,
        create: &'c CreateExternalTable,
    ) -> BoxFuture<'f, Result<Arc<dyn TableProvider>>>
    where
        Self: 'f,
        'a: 'f,
        'b: 'f,
        'c: 'f,
    {
        let (made, create) = (self.listing.create(state, create), Proven::new(create.clone()));
        Box::pin(async move { self.rooted(state, made.await?, &create) })
    }
}

impl ExternalTables {
    /// Returns `made`, addressed through the object store of its directory if its files are on this host.
    fn rooted(
        &self,
        state: &dyn Session,
        made: Arc<dyn TableProvider>,
        create: &CreateExternalTable,
    ) -> Result<Arc<dyn TableProvider>> {
        let Some(table) = made.downcast_ref::<ListingTable>() else { return Ok(made) };
        let is_of_host = |url: &ListingTableUrl| url.scheme() == "file";
        if !table.table_paths().iter().any(is_of_host) {
            return Ok(made);
        }
        let paths =
            table.table_paths().iter().map(|url| self.host_paths.rooted_listing(url)).collect::<Option<Vec<_>>>();
        let Some(paths) = paths else { return Ok(made) };
        let schema = table.schema();
        // The partition columns from the directories' names come last.
        let of_files = schema.fields().len() - table.options().table_partition_cols.len();
        let schema = Schema::new_with_metadata(&schema.fields()[..of_files], schema.metadata().clone());
        let config = ListingTableConfig::new_with_multi_paths(paths)
            .with_listing_options(table.options().clone())
            .with_schema(Arc::new(schema));
        let table = ListingTable::try_new(config)?
            .with_cache(state.runtime_env().cache_manager.get_file_statistic_cache())
            .with_definition(create.definition.clone())
            .with_constraints(create.constraints.clone())
            .with_column_defaults(create.column_defaults.clone());
        Ok(Arc::new(table))
    }
}

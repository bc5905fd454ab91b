//! A schema of the pod: its data sets, each with its load state, and the tables created with SQL.

pub(crate) mod ddl;
pub(crate) mod external_tables;
pub(crate) mod host_paths;
pub(crate) mod host_store;
pub(crate) mod loader;
pub(crate) mod name;
pub(crate) mod policy;
pub(crate) mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::catalog::{MemorySchemaProvider, SchemaProvider, TableProvider};
use datafusion::error::{DataFusionError, Result};
use spiced_engine::ErrorKind;
use tokio::sync::watch;

use crate::error::refusal;

/// How long a query waits for the first load of a data set that it references.
const WAIT_FOR_FIRST_LOAD: Duration = Duration::from_secs(10);

/// The load state of a data set.
#[derive(Debug, Clone)]
pub(crate) enum LoadState {
    /// The first load is in progress.
    Loading,
    /// The data set can be queried.
    Ready(Arc<dyn TableProvider>),
    /// The last load failed, for this reason.
    Failed(String),
}

/// A schema of the pod.
#[derive(Debug)]
pub(crate) struct PodSchema {
    datasets: BTreeMap<String, watch::Receiver<LoadState>>,
    made: MemorySchemaProvider,
}

impl PodSchema {
    /// Creates a schema with these data sets.
    pub(crate) fn new(datasets: BTreeMap<String, watch::Receiver<LoadState>>) -> Self {
        Self { datasets, made: MemorySchemaProvider::new() }
    }
}

#[async_trait]
impl SchemaProvider for PodSchema {
    /// Only tables that can be queried now: `information_schema` fetches each of them, and a failed one would make its
    /// whole result fail.
    fn table_names(&self) -> Vec<String> {
        let ready = self.datasets.iter().filter(|(_, slot)| matches!(&*slot.borrow(), LoadState::Ready(_)));
        let mut names: Vec<String> = ready.map(|(name, _)| name.clone()).collect();
        names.extend(self.made.table_names());
        names
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(slot) = self.datasets.get(name) else {
            return self.made.table(name).await;
        };
        let mut slot = slot.clone();
        let settled = slot.wait_for(|slot| !matches!(slot, LoadState::Loading));
        let state = match tokio::time::timeout(WAIT_FOR_FIRST_LOAD, settled).await {
            Ok(Ok(slot)) => slot.clone(),
            Ok(Err(_)) => LoadState::Failed("the engine is stopping".to_owned()),
            Err(_) => LoadState::Loading,
        };
        match state {
            LoadState::Ready(table) => Ok(Some(table)),
            LoadState::Loading => Err(refusal(
                ErrorKind::NotFound,
                format!("the data set `{name}` is not loaded yet; its first load is still under way"),
            )),
            LoadState::Failed(why) => Err(refusal(
                ErrorKind::NotFound,
                format!("the data set `{name}` is not loaded: {why}; it is tried again by itself"),
            )),
        }
    }

    fn register_table(&self, name: String, table: Arc<dyn TableProvider>) -> Result<Option<Arc<dyn TableProvider>>> {
        self.refuse_datasets(&name)?;
        self.made.register_table(name, table)
    }

    fn deregister_table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        self.refuse_datasets(name)?;
        self.made.deregister_table(name)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.datasets.contains_key(name) || self.made.table_exist(name)
    }
}

impl PodSchema {
    fn refuse_datasets(&self, name: &str) -> Result<(), DataFusionError> {
        if self.datasets.contains_key(name) {
            return Err(refusal(ErrorKind::Denied, format!("`{name}` is defined by the pod; SQL cannot redefine it")));
        }
        Ok(())
    }
}

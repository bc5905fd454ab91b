//! Views of the pod: a named query, planned once the data sets that it reads are loaded.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::datasource::ViewTable;
use datafusion::execution::context::SessionState;
use spiced_engine::Effect;

use crate::connectors::{LoadError, Loading, Source};
use crate::engine::start_error::{SpecError, SpecPart};
use crate::sql::complexity;
use crate::sql::effect;
use crate::sql::names;
use crate::sql::statement;

/// A named query.
pub(crate) struct View {
    sql: String,
}

impl View {
    /// # Errors
    /// Fails if `sql` is not exactly one statement.
    pub(crate) fn open(sql: &str, state: &SessionState) -> Result<Self, SpecError> {
        statement::parse(sql, state).map_err(|e| SpecPart::Sql.error(e.to_string()))?;
        Ok(Self { sql: sql.to_owned() })
    }
}

impl Source for View {
    fn load<'a>(&'a self, state: &'a SessionState) -> Loading<'a> {
        Box::pin(async move {
            let statement = statement::parse(&self.sql, state).map_err(|e| e.to_string())?;
            // Waits for the data sets that the query names.
            let (plan, names) = names::plan(&statement, state).await.map_err(LoadError::engine)?;
            if !names.is_empty() {
                return Err("two of its columns have one name; give one of them an alias".into());
            }
            complexity::plan::check(&plan).map_err(LoadError::engine)?;
            match effect::of(&plan).map_err(LoadError::engine)? {
                Effect::Read => Ok(Arc::new(ViewTable::new(plan, Some(self.sql.clone()))) as Arc<dyn TableProvider>),
                _ => Err("its statement does more than read; a view is a SELECT".into()),
            }
        })
    }

    fn reads_others(&self) -> bool {
        true
    }
}

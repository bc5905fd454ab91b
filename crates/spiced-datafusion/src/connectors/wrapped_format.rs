//! Formats of ours in front of DataFusion's, under the same name.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::Session;
use datafusion::common::GetExt;
use datafusion::datasource::file_format::{FileFormat, FileFormatFactory};
use datafusion::error::Result;

/// A factory whose formats are those of another one, wrapped.
#[derive(Debug)]
pub(super) struct Wrapped {
    factory: Arc<dyn FileFormatFactory>,
    wrap: fn(Arc<dyn FileFormat>) -> Arc<dyn FileFormat>,
}

impl Wrapped {
    pub(super) fn new(
        factory: impl FileFormatFactory + 'static,
        wrap: fn(Arc<dyn FileFormat>) -> Arc<dyn FileFormat>,
    ) -> Self {
        Self { factory: Arc::new(factory), wrap }
    }
}

impl FileFormatFactory for Wrapped {
    fn create(&self, state: &dyn Session, options: &HashMap<String, String>) -> Result<Arc<dyn FileFormat>> {
        self.factory.create(state, options).map(self.wrap)
    }

    fn default(&self) -> Arc<dyn FileFormat> {
        (self.wrap)(self.factory.default())
    }
}

impl GetExt for Wrapped {
    fn get_ext(&self) -> String {
        self.factory.get_ext()
    }
}

//! CSV and TSV files: those of data sets, those of external tables, and those that `COPY` writes.
//!
//! They differ from DataFusion's format in three ways: DataFusion reads `""` as NULL, treats line ends within quotes as
//! record ends when it splits a file, and infers the schema from the first records only.

mod sink;
mod source;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::config::CsvOptions;
use datafusion::common::{GetExt, Statistics};
use datafusion::datasource::file_format::csv::{CsvFormat, CsvFormatFactory};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::file_format::{FileFormat, FileFormatFactory};
use datafusion::datasource::physical_plan::{FileScanConfig, FileScanConfigBuilder, FileSinkConfig, FileSource};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::dml::InsertOp;
use datafusion::object_store::{ObjectMeta, ObjectStore};
use datafusion::physical_expr::LexRequirement;
use datafusion::physical_plan::ExecutionPlan;

use self::sink::CsvFileSink;
use self::source::CsvFileSource;
use super::inferred::{self, Separated, Text};

/// The format of `STORED AS CSV` and `COPY … STORED AS CSV`.
#[derive(Debug)]
pub(super) struct CsvFilesFactory(CsvFormatFactory);

impl CsvFilesFactory {
    pub(super) fn new() -> Self {
        Self(CsvFormatFactory::new())
    }
}

impl FileFormatFactory for CsvFilesFactory {
    fn create(&self, state: &dyn Session, options: &HashMap<String, String>) -> Result<Arc<dyn FileFormat>> {
        let format = self.0.create(state, options)?;
        let format = format.downcast_ref::<CsvFormat>();
        let options = format.ok_or_else(|| DataFusionError::Internal("it is no CSV format".to_owned()))?.options();
        Ok(Arc::new(CsvFiles::new(options.clone())))
    }

    fn default(&self) -> Arc<dyn FileFormat> {
        Arc::new(CsvFiles::new(CsvOptions::default()))
    }
}

impl GetExt for CsvFilesFactory {
    fn get_ext(&self) -> String {
        self.0.get_ext()
    }
}

/// The CSV format.
#[derive(Debug)]
pub(super) struct CsvFiles {
    options: CsvOptions,
    /// The format of DataFusion, for everything that does not differ.
    format: CsvFormat,
}

impl CsvFiles {
    pub(super) fn new(options: CsvOptions) -> Self {
        Self { format: CsvFormat::default().with_options(options.clone()), options }
    }

    fn options(&self, state: &dyn Session) -> CsvOptions {
        let has_header = self.options.has_header.unwrap_or(state.config_options().catalog.has_header);
        CsvOptions { has_header: Some(has_header), ..self.options.clone() }
    }
}

#[async_trait]
impl FileFormat for CsvFiles {
    fn get_ext(&self) -> String {
        self.format.get_ext()
    }

    fn get_ext_with_compression(&self, compression: &FileCompressionType) -> Result<String> {
        self.format.get_ext_with_compression(compression)
    }

    fn compression_type(&self) -> Option<FileCompressionType> {
        self.format.compression_type()
    }

    async fn infer_schema(
        &self,
        state: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        objects: &[ObjectMeta],
    ) -> Result<SchemaRef> {
        let CsvOptions { delimiter, quote, escape, terminator, comment, schema_infer_max_rec, .. } = self.options;
        let is_plain = terminator.is_none()
            && comment.is_none()
            && schema_infer_max_rec != Some(0)
            && !self.options.truncated_rows.unwrap_or(false)
            && self.compression_type() == Some(FileCompressionType::UNCOMPRESSED);
        if !is_plain {
            return self.format.infer_schema(state, store, objects).await;
        }
        let has_header = self.options(state).has_header.unwrap_or(true);
        let separated = Separated { has_header, delimiter, quote, escape, records: schema_infer_max_rec };
        inferred::of_objects(Text::Separated(separated), store, objects).await
    }

    async fn infer_stats(
        &self,
        state: &dyn Session,
        store: &Arc<dyn ObjectStore>,
        schema: SchemaRef,
        object: &ObjectMeta,
    ) -> Result<Statistics> {
        self.format.infer_stats(state, store, schema, object).await
    }

    async fn create_physical_plan(&self, state: &dyn Session, scan: FileScanConfig) -> Result<Arc<dyn ExecutionPlan>> {
        let source = scan.file_source.downcast_ref::<CsvFileSource>();
        let source = source.ok_or_else(|| DataFusionError::Internal("it is no source of CSV".to_owned()))?;
        let source = Arc::new(source.with_options(self.options(state)));
        let scan = FileScanConfigBuilder::from(scan)
            .with_file_compression_type(self.options.compression.into())
            .with_source(source)
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }

    async fn create_writer_physical_plan(
        &self,
        input: Arc<dyn ExecutionPlan>,
        state: &dyn Session,
        sink: FileSinkConfig,
        order: Option<LexRequirement>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if !sink::writes(&self.options) || sink.insert_op != InsertOp::Append {
            return self.format.create_writer_physical_plan(input, state, sink, order).await;
        }
        let sink = Arc::new(CsvFileSink::new(sink, self.options(state)));
        Ok(Arc::new(DataSinkExec::new(input, sink, order)))
    }

    fn file_source(&self, table_schema: TableSchema) -> Arc<dyn FileSource> {
        Arc::new(CsvFileSource::new(table_schema, self.options.clone()))
    }
}

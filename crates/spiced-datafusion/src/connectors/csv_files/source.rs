//! Reads CSV files in which NULL and an empty string are distinct.

use std::fmt;
use std::io::{BufRead, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::csv::ReaderBuilder;
use datafusion::arrow::csv::reader::Decoder;
use datafusion::common::config::CsvOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::projection::{ProjectionOpener, SplitProjection};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::object_store::{GetOptions, GetResultPayload, ObjectStore};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion::physical_plan::{DisplayFormatType, apply_expression_roots};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};

use super::super::csv_marker::{Marker, Syntax, is_text, unmarked};

/// How many bytes of a file are read at once.
const PIECE: usize = 64 << 10;

/// The source of CSV files. A file is never split, because a line end may be within quotes.
#[derive(Debug, Clone)]
pub(super) struct CsvFileSource {
    options: CsvOptions,
    batch_size: usize,
    table_schema: TableSchema,
    projection: SplitProjection,
    metrics: ExecutionPlanMetricsSet,
}

impl CsvFileSource {
    pub(super) fn new(table_schema: TableSchema, options: CsvOptions) -> Self {
        Self {
            options,
            batch_size: datafusion::config::ExecutionOptions::default().batch_size.get(),
            projection: SplitProjection::unprojected(&table_schema),
            table_schema,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    pub(super) fn with_options(&self, options: CsvOptions) -> Self {
        Self { options, ..self.clone() }
    }

    fn has_header(&self) -> bool {
        self.options.has_header.unwrap_or(true)
    }

    fn builder(&self) -> ReaderBuilder {
        let CsvOptions { delimiter, quote, escape, terminator, comment, truncated_rows, .. } = self.options;
        let mut builder = ReaderBuilder::new(self.table_schema.file_schema().clone())
            .with_delimiter(delimiter)
            .with_quote(quote)
            .with_batch_size(self.batch_size)
            .with_header(self.has_header())
            .with_truncated_rows(truncated_rows.unwrap_or(false))
            .with_projection(self.projection.file_indices.clone());
        if let Some(escape) = escape {
            builder = builder.with_escape(escape);
        }
        if let Some(terminator) = terminator {
            builder = builder.with_terminator(terminator);
        }
        if let Some(comment) = comment {
            builder = builder.with_comment(comment);
        }
        builder
    }

    fn syntax(&self) -> Syntax {
        let CsvOptions { delimiter, quote, escape, terminator, comment, .. } = self.options;
        Syntax { delimiter, quote, escape, terminator, comment, has_header: self.has_header() }
    }

    fn marker(&self) -> Marker {
        let fields = self.table_schema.file_schema().fields();
        let is_marked = |(at, field): (usize, &Arc<datafusion::arrow::datatypes::Field>)| {
            is_text(field.data_type()) && self.projection.file_indices.contains(&at)
        };
        Marker::new(self.syntax(), fields.iter().enumerate().map(is_marked).collect())
    }
}

impl FileSource for CsvFileSource {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let opener = Opener {
            source: self.clone(),
            compression: config.file_compression_type,
            store,
            metrics: BaselineMetrics::new(&self.metrics, partition),
        };
        ProjectionOpener::try_new(self.projection.clone(), Arc::new(opener), self.table_schema.file_schema())
    }

    fn table_schema(&self) -> &TableSchema {
        &self.table_schema
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(Self { batch_size, ..self.clone() })
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        let merged = self.projection.source.try_merge(projection)?;
        let projection = SplitProjection::new(self.table_schema.file_schema(), &merged);
        Ok(Some(Arc::new(Self { projection, ..self.clone() })))
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        Some(&self.projection.source)
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        &self.metrics
    }

    fn file_type(&self) -> &'static str {
        "csv"
    }

    fn supports_repartitioning(&self) -> bool {
        false
    }

    fn fmt_extra(&self, form: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match form {
            DisplayFormatType::TreeRender => Ok(()),
            _ => write!(f, ", has_header={}", self.has_header()),
        }
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.projection.source.iter(), f)
    }
}

struct Opener {
    source: CsvFileSource,
    compression: FileCompressionType,
    store: Arc<dyn ObjectStore>,
    metrics: BaselineMetrics,
}

impl FileOpener for Opener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let (source, compression, store) = (self.source.clone(), self.compression, self.store.clone());
        let metrics = self.metrics.clone();
        Ok(Box::pin(async move {
            let mark = source.syntax().mark();
            let batches = match store.get_opts(&file.object_meta.location, GetOptions::default()).await?.payload {
                GetResultPayload::File(file, _) => {
                    let marked = Marked::new(compression.convert_read(file)?, source.marker());
                    let mut reader = source.builder().build_buffered(marked)?;
                    let batches = std::iter::from_fn(move || {
                        let timer = metrics.elapsed_compute().timer();
                        let batch = reader.next();
                        timer.done();
                        batch
                    });
                    futures::stream::iter(batches).map_err(DataFusionError::from).boxed()
                }
                GetResultPayload::Stream(pieces) => {
                    let pieces = compression.convert_stream(pieces.map_err(DataFusionError::from).boxed())?;
                    decoded(marked(pieces, source.marker()), source.builder().build_decoder())
                }
            };
            Ok(batches.map(move |batch| Ok(unmarked(batch?, mark)?)).boxed())
        }))
    }
}

/// The bytes of a file, with marks.
struct Marked<R> {
    file: R,
    marker: Marker,
    piece: Box<[u8]>,
    output: Vec<u8>,
    /// How much of `output` has been consumed.
    taken: usize,
    is_over: bool,
}

impl<R: Read> Marked<R> {
    fn new(file: R, marker: Marker) -> Self {
        let output = Vec::with_capacity(PIECE + PIECE / 4);
        Self { file, marker, piece: vec![0; PIECE].into(), output, taken: 0, is_over: false }
    }
}

impl<R: Read> Read for Marked<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> BufRead for Marked<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.taken == self.output.len() && !self.is_over {
            self.output.clear();
            self.taken = 0;
            match self.file.read(&mut self.piece) {
                Ok(0) => {
                    self.marker.finish(&mut self.output);
                    self.is_over = true;
                }
                Ok(count) => self.marker.feed(&self.piece[..count], &mut self.output),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(&self.output[self.taken..])
    }

    fn consume(&mut self, count: usize) {
        self.taken += count;
    }
}

type Pieces = BoxStream<'static, Result<Bytes>>;

/// Adds marks to the chunks of a file.
fn marked(pieces: Pieces, marker: Marker) -> Pieces {
    let next = |(mut pieces, marker): (Pieces, Option<Marker>)| async move {
        let Some(mut marker) = marker else { return Ok(None) };
        let mut output = Vec::new();
        let marker = match pieces.try_next().await? {
            Some(piece) => {
                output.reserve(piece.len() + piece.len() / 8);
                marker.feed(&piece, &mut output);
                Some(marker)
            }
            None => {
                marker.finish(&mut output);
                None
            }
        };
        Ok::<_, DataFusionError>(Some((Bytes::from(output), (pieces, marker))))
    };
    futures::stream::try_unfold((pieces, Some(marker)), next).boxed()
}

/// Returns the batches that `decoder` produces from the chunks of a file.
fn decoded(pieces: Pieces, decoder: Decoder) -> BoxStream<'static, Result<RecordBatch>> {
    let next = |(mut pieces, mut decoder, mut piece): (Pieces, Decoder, Bytes)| async move {
        loop {
            while piece.is_empty() {
                match pieces.try_next().await? {
                    Some(next) => piece = next,
                    None => break,
                }
            }
            // At the end of the input, an empty chunk signals the end of the file to the decoder.
            let read = decoder.decode(&piece)?;
            piece.advance(read);
            if read == 0 || decoder.capacity() == 0 {
                return Ok::<_, DataFusionError>(decoder.flush()?.map(|batch| (batch, (pieces, decoder, piece))));
            }
        }
    };
    futures::stream::try_unfold((pieces, decoder, Bytes::new()), next).boxed()
}

//! Writes CSV files in which NULL (an empty field) and an empty string (`""`) are distinct.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::array::{Array, RecordBatch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::config::CsvOptions;
use datafusion::common::parsers::CsvQuoteStyle;
use datafusion::common::runtime::SpawnedTask;
use datafusion::datasource::file_format::write::BatchSerializer;
use datafusion::datasource::file_format::write::demux::DemuxedStreamReceiver;
use datafusion::datasource::file_format::write::orchestration::spawn_writer_tasks_and_join;
use datafusion::datasource::physical_plan::{FileSink, FileSinkConfig};
use datafusion::datasource::sink::DataSink;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::object_store::ObjectStore;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};

/// Whether files with these `options` are written here; otherwise DataFusion writes them, without the distinction.
pub(super) fn writes(options: &CsvOptions) -> bool {
    options.quote_style == CsvQuoteStyle::Necessary
        && options.terminator.is_none()
        && options.null_value.as_ref().is_none_or(String::is_empty)
        && options.double_quote.unwrap_or(true)
        && !options.ignore_leading_whitespace.unwrap_or(false)
        && !options.ignore_trailing_whitespace.unwrap_or(false)
}

/// The sink for CSV files that a statement writes.
#[derive(Debug)]
pub(super) struct CsvFileSink {
    config: FileSinkConfig,
    options: CsvOptions,
}

impl CsvFileSink {
    pub(super) fn new(config: FileSinkConfig, options: CsvOptions) -> Self {
        Self { config, options }
    }
}

impl DisplayAs for CsvFileSink {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CsvSink")
    }
}

#[async_trait]
impl FileSink for CsvFileSink {
    fn config(&self) -> &FileSinkConfig {
        &self.config
    }

    async fn spawn_writer_tasks_and_join(
        &self,
        context: &Arc<TaskContext>,
        demux: SpawnedTask<Result<()>>,
        files: DemuxedStreamReceiver,
        store: Arc<dyn ObjectStore>,
    ) -> Result<u64> {
        let compression = self.options.compression.into();
        let level = self.options.compression_level;
        let serializer = Arc::new(Serializer(self.options.clone()));
        spawn_writer_tasks_and_join(context, serializer, compression, level, store, demux, files).await
    }
}

#[async_trait]
impl DataSink for CsvFileSink {
    fn schema(&self) -> &SchemaRef {
        self.config.output_schema()
    }

    async fn write_all(&self, data: SendableRecordBatchStream, context: &Arc<TaskContext>) -> Result<u64> {
        FileSink::write_all(self, data, context).await
    }
}

struct Serializer(CsvOptions);

impl BatchSerializer for Serializer {
    fn serialize(&self, batch: RecordBatch, initial: bool) -> Result<Bytes> {
        Ok(self.text(&batch, initial && self.0.has_header.unwrap_or(true))?.into())
    }
}

impl Serializer {
    fn text(&self, batch: &RecordBatch, has_header: bool) -> Result<Vec<u8>, ArrowError> {
        let CsvOptions { date_format, datetime_format, timestamp_format, timestamp_tz_format, time_format, .. } =
            &self.0;
        let mut out = Vec::with_capacity(4096);
        let schema = batch.schema_ref();
        if has_header {
            for (at, field) in schema.fields().iter().enumerate() {
                self.separate(at, &mut out);
                self.field(field.name(), &mut out);
            }
            out.push(b'\n');
        }
        if let Some(nested) = schema.fields().iter().find(|field| field.data_type().is_nested()) {
            return Err(ArrowError::InvalidArgumentError(format!(
                "the column `{}` is a {}, which CSV has no form for; write Parquet or JSON",
                nested.name(),
                nested.data_type()
            )));
        }
        let options = FormatOptions::new()
            .with_display_error(false)
            .with_date_format(date_format.as_deref())
            .with_datetime_format(datetime_format.as_deref())
            .with_timestamp_format(timestamp_format.as_deref())
            .with_timestamp_tz_format(timestamp_tz_format.as_deref())
            .with_time_format(time_format.as_deref());
        let formatters: Vec<ArrayFormatter<'_>> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<_, _>>()?;
        let nulls: Vec<_> = batch.columns().iter().map(|column| column.logical_nulls()).collect();
        let mut text = String::new();
        for row in 0..batch.num_rows() {
            for (at, formatter) in formatters.iter().enumerate() {
                self.separate(at, &mut out);
                if nulls[at].as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                    continue;
                }
                text.clear();
                formatter.value(row).write(&mut text).map_err(|_| {
                    let field = schema.field(at);
                    let (name, data_type) = (field.name(), field.data_type());
                    ArrowError::InvalidArgumentError(format!("a value of `{name}` has no text: it is a {data_type}"))
                })?;
                self.field(&text, &mut out);
            }
            out.push(b'\n');
        }
        Ok(out)
    }

    fn separate(&self, at: usize, out: &mut Vec<u8>) {
        if at > 0 {
            out.push(self.0.delimiter);
        }
    }

    /// Writes a text as a field. It is quoted if it is empty, or would be read differently without quotes.
    fn field(&self, text: &str, out: &mut Vec<u8>) {
        let CsvOptions { delimiter, quote, escape, comment, .. } = self.0;
        let is_special =
            |byte| matches!(byte, b'\n' | b'\r') || byte == delimiter || byte == quote || Some(byte) == comment;
        if !text.is_empty() && !text.bytes().any(is_special) {
            return out.extend_from_slice(text.as_bytes());
        }
        out.push(quote);
        for byte in text.bytes() {
            if byte == quote {
                out.push(quote);
            } else if Some(byte) == escape {
                out.push(byte);
            }
            out.push(byte);
        }
        out.push(quote);
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    #[test]
    fn fields_are_written_as_they_are_read() {
        let texts = ["", "a", "a,b", "it's \"x\"", "two\nlines", "#", "b\\s", " "];
        let texts: ArrayRef = Arc::new(StringArray::from_iter(std::iter::once(None).chain(texts.map(Some))));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter((0..9).map(|n| (n % 2 == 0).then_some(n))));
        let batch = RecordBatch::try_from_iter([("t", texts), ("", numbers)]).unwrap();
        let plain = CsvOptions::default();
        let other =
            CsvOptions { delimiter: b';', quote: b'\'', escape: Some(b'\\'), comment: Some(b'#'), ..plain.clone() };
        for (options, has_header, expected) in [
            (plain, true, "t,\"\"\n,0\n\"\",\na,2\n\"a,b\",\n\"it's \"\"x\"\"\",4\n\"two\nlines\",\n#,6\nb\\s,\n ,8\n"),
            (other, false, ";0\n'';\na;2\na,b;\n'it''s \"x\"';4\n'two\nlines';\n'#';6\nb\\s;\n ;8\n"),
        ] {
            let written = Serializer(options).text(&batch, has_header).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), expected);
        }
    }
}

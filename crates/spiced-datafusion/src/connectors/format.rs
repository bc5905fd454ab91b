//! File formats, and the params that specify how to read them. The params have the names of Spice.ai.

use std::sync::Arc;

use datafusion::common::config::CsvOptions;
use datafusion::config::TableParquetOptions;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::execution::context::SessionState;

use super::csv_files::CsvFiles;
use super::inferred::{Separated, Text};
use super::parquet_files::ParquetFiles;
use crate::DatasetSpec;
use crate::connectors::source::text;
use crate::engine::start_error::{SpecError, SpecPart};

/// The params of connectors that read files.
pub(super) const PARAMS: &[&str] = &[
    "file_format",
    "file_compression_type",
    "hive_partitioning_enabled",
    "schema_infer_max_records",
    "csv_has_header",
    "csv_delimiter",
    "csv_quote",
    "csv_escape",
    "csv_schema_infer_max_records",
    "tsv_has_header",
    "tsv_quote",
    "tsv_escape",
    "tsv_schema_infer_max_records",
];

/// A file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Parquet,
    Csv,
    Tsv,
    Json,
}

impl Format {
    /// Returns the format for a file extension, without the dot.
    pub(super) fn of_extension(extension: &str) -> Option<Self> {
        match extension.to_ascii_lowercase().as_str() {
            "parquet" => Some(Self::Parquet),
            "csv" => Some(Self::Csv),
            "tsv" => Some(Self::Tsv),
            "ndjson" | "jsonl" | "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Specifies how to read the files of a data set.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    /// The format, if the pod names one.
    pub(super) format: Option<Format>,
    /// Whether directories named `column=value` become columns.
    pub(super) hive: bool,
    /// How many records of a text file are read to infer its schema; all of them if no param specifies it.
    infer_records: Option<usize>,
    csv: Separated,
    tsv: Separated,
}

impl Reading {
    /// Reads the params of `spec`.
    ///
    /// # Errors
    /// Fails with every error, one sentence each.
    pub(super) fn new(spec: &DatasetSpec) -> Result<Self, Vec<SpecError>> {
        let mut params = Params { spec, wrong: Vec::new() };
        let format = params.get("file_format", "`parquet`, `csv`, `tsv`, `json`, `jsonl` or `ndjson`", |value| {
            Format::of_extension(value)
        });
        params.get("file_compression_type", "`uncompressed`; this build reads no compressed text files", |value| {
            value.eq_ignore_ascii_case("uncompressed").then_some(())
        });
        let reading = Self {
            format,
            hive: params.get("hive_partitioning_enabled", "`true` or `false`", boolean).unwrap_or(false),
            infer_records: params.get("schema_infer_max_records", COUNT, count),
            csv: params.separated("csv", b','),
            tsv: params.separated("tsv", b'\t'),
        };
        if params.wrong.is_empty() { Ok(reading) } else { Err(params.wrong) }
    }

    /// Returns the DataFusion reader for files of `format`.
    pub(super) fn reader(&self, format: Format, state: &SessionState) -> Arc<dyn FileFormat> {
        match format {
            Format::Parquet => {
                let options = TableParquetOptions {
                    global: state.config_options().execution.parquet.clone(),
                    ..TableParquetOptions::default()
                };
                Arc::new(ParquetFiles::new(options))
            }
            Format::Csv => Arc::new(reader(&self.csv)),
            Format::Tsv => Arc::new(reader(&self.tsv)),
            Format::Json => Arc::new(JsonFormat::default()),
        }
    }

    /// Returns how the schema of files of `format` is inferred, if the files do not declare it.
    pub(super) fn text(&self, format: Format) -> Option<Text> {
        let separated = |separated: &Separated| {
            let records = separated.records.or(self.infer_records);
            Some(Text::Separated(Separated { records, ..separated.clone() }))
        };
        match format {
            Format::Parquet => None,
            Format::Csv => separated(&self.csv),
            Format::Tsv => separated(&self.tsv),
            Format::Json => Some(Text::Json { records: self.infer_records }),
        }
    }
}

fn reader(separated: &Separated) -> CsvFiles {
    let Separated { has_header, delimiter, quote, escape, .. } = *separated;
    CsvFiles::new(CsvOptions { has_header: Some(has_header), delimiter, quote, escape, ..CsvOptions::default() })
}

const CHARACTER: &str = "one ASCII character";
const COUNT: &str = "a count from 1";

struct Params<'a> {
    spec: &'a DatasetSpec,
    wrong: Vec<SpecError>,
}

impl Params<'_> {
    fn get<T>(&mut self, name: &str, wanted: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = match text(name, self.spec.params.get(name)?) {
            Ok(value) => value,
            Err(why) => {
                self.wrong.push(why);
                return None;
            }
        };
        let read = read(value);
        if read.is_none() {
            self.wrong.push(SpecPart::Params.error(format!("`{name}` wants {wanted}")));
        }
        read
    }

    fn separated(&mut self, prefix: &str, delimiter: u8) -> Separated {
        Separated {
            has_header: self.get(&format!("{prefix}_has_header"), "`true` or `false`", boolean).unwrap_or(true),
            delimiter: self.get(&format!("{prefix}_delimiter"), CHARACTER, character).unwrap_or(delimiter),
            quote: self.get(&format!("{prefix}_quote"), CHARACTER, character).unwrap_or(b'"'),
            escape: self.get(&format!("{prefix}_escape"), CHARACTER, character),
            records: self.get(&format!("{prefix}_schema_infer_max_records"), COUNT, count),
        }
    }
}

fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "enabled" => Some(true),
        "false" | "disabled" => Some(false),
        _ => None,
    }
}

fn character(value: &str) -> Option<u8> {
    match value.as_bytes() {
        // The usual way to write a tab in YAML without quotes.
        b"\\t" => Some(b'\t'),
        [byte] if byte.is_ascii() => Some(*byte),
        _ => None,
    }
}

fn count(value: &str) -> Option<usize> {
    value.parse().ok().filter(|count| *count > 0)
}

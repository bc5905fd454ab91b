//! What the work behind a door costs without one: DataFusion, or Arrow's writers, by themselves, in this process.

use std::io;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use super::spiced::columns;
use crate::Outcome;
use crate::figures::SMALL_ROWS;
use crate::meter::{Sample, own_cpu};

/// Work that needs no door.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// A statement is planned and run, so often at a time.
    Statement { sql: &'static str, at_a_time: usize },
    /// The small table is written as JSON,
    Json,
    /// or as CSV, to nowhere.
    Csv,
}

impl Work {
    /// What the table of figures calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Statement { .. } => "DataFusion alone",
            Self::Json => "arrow-json alone",
            Self::Csv => "arrow-csv alone",
        }
    }
}

/// A session, and the runtime that its queries run on, as the server has one.
pub(crate) struct Alone {
    context: SessionContext,
    small: OnceCell<Vec<RecordBatch>>,
    /// `None` once it is dropped.
    runtime: Option<Runtime>,
}

impl Alone {
    pub(crate) fn start() -> Outcome<Self> {
        let runtime = Runtime::new().map_err(|e| e.to_string())?;
        Ok(Self { context: SessionContext::new(), small: OnceCell::new(), runtime: Some(runtime) })
    }

    /// Does it over and over for `slice`.
    pub(crate) async fn run(&self, work: Work, slice: Duration) -> Outcome<Sample> {
        let table = match work {
            Work::Statement { .. } => &Vec::new(),
            Work::Json | Work::Csv => self.small.get_or_try_init(|| self.make_small()).await?,
        };
        let (cpu, started) = (own_cpu()?, Instant::now());
        let units = match work {
            Work::Statement { sql, at_a_time } => self.repeat(sql, at_a_time, started + slice).await?,
            Work::Json | Work::Csv => write(work, table, started + slice).map_err(|e| e.to_string())?,
        };
        Ok(Sample { units, server: own_cpu()? - cpu, client: Duration::ZERO, wall: started.elapsed() })
    }

    async fn repeat(&self, sql: &'static str, at_a_time: usize, end: Instant) -> Outcome<f64> {
        let runtime = self.runtime.as_ref().ok_or("it has ended")?;
        let work: Vec<_> = (0..at_a_time)
            .map(|_| {
                let context = self.context.clone();
                runtime.spawn(async move {
                    let mut done = 0.0;
                    while Instant::now() < end {
                        let rows = context.sql(sql).await?.collect().await?;
                        debug_assert!(!rows.is_empty());
                        done += 1.0;
                    }
                    Ok::<_, DataFusionError>(done)
                })
            })
            .collect();
        let mut done = 0.0;
        for work in work {
            done += work.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        }
        Ok(done)
    }

    async fn make_small(&self) -> Outcome<Vec<RecordBatch>> {
        let named = columns().map(|(name, expression)| format!("{expression} AS {name}")).collect::<Vec<_>>();
        let sql = format!("SELECT {} FROM generate_series(1, {SMALL_ROWS})", named.join(", "));
        let rows = self.context.sql(&sql).await.map_err(|e| e.to_string())?;
        rows.collect().await.map_err(|e| e.to_string())
    }
}

fn write(work: Work, table: &[RecordBatch], end: Instant) -> Result<f64, arrow_schema::ArrowError> {
    let mut done = 0.0;
    while Instant::now() < end {
        if matches!(work, Work::Csv) {
            let mut writer = arrow_csv::Writer::new(io::sink());
            table.iter().try_for_each(|batch| writer.write(batch))?;
        } else {
            let mut writer = arrow_json::ArrayWriter::new(io::sink());
            table.iter().try_for_each(|batch| writer.write(batch))?;
            writer.finish()?;
        }
        done += 1.0;
    }
    Ok(done)
}

impl Drop for Alone {
    /// It is dropped within another runtime, where it must not block.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

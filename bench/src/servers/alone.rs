//! What the work behind an endpoint costs without one: DataFusion, or Arrow's writers, by themselves, in this process.

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

/// Work that needs no endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// A statement is planned and run.
    Statement(&'static str),
    /// The small table is written as JSON,
    Json,
    /// or as CSV, to nowhere.
    Csv,
}

impl Work {
    /// What the table of figures calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Statement(_) => "DataFusion alone",
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

    /// Does it over and over for `slice`, so often at a time.
    pub(crate) async fn run(&self, work: Work, at_a_time: usize, slice: Duration) -> Outcome<Sample> {
        let small = self.small.get_or_try_init(|| self.make_small()).await?;
        let runtime = self.runtime.as_ref().ok_or("it has ended")?;
        let (cpu, started) = (own_cpu()?, Instant::now());
        let repeated: Vec<_> = (0..at_a_time)
            .map(|_| {
                let (context, small) = (self.context.clone(), small.clone());
                runtime.spawn(async move {
                    let mut done = 0.0;
                    while started.elapsed() < slice {
                        once(work, &context, &small).await?;
                        done += 1.0;
                    }
                    Ok::<_, DataFusionError>(done)
                })
            })
            .collect();
        let mut units = 0.0;
        for repeated in repeated {
            units += repeated.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        }
        Ok(Sample { units, server: own_cpu()? - cpu, client: Duration::ZERO, wall: started.elapsed() })
    }

    async fn make_small(&self) -> Outcome<Vec<RecordBatch>> {
        let named = columns().map(|(name, expression)| format!("{expression} AS {name}")).collect::<Vec<_>>();
        let sql = format!("SELECT {} FROM generate_series(1, {SMALL_ROWS})", named.join(", "));
        let rows = self.context.sql(&sql).await.map_err(|e| e.to_string())?;
        rows.collect().await.map_err(|e| e.to_string())
    }
}

async fn once(work: Work, context: &SessionContext, small: &[RecordBatch]) -> Result<(), DataFusionError> {
    match work {
        Work::Statement(sql) => {
            let rows = context.sql(sql).await?.collect().await?;
            debug_assert!(!rows.is_empty());
        }
        Work::Json => {
            let mut writer = arrow_json::ArrayWriter::new(io::sink());
            small.iter().try_for_each(|batch| writer.write(batch))?;
            writer.finish()?;
        }
        Work::Csv => {
            let mut writer = arrow_csv::Writer::new(io::sink());
            small.iter().try_for_each(|batch| writer.write(batch))?;
        }
    }
    Ok(())
}

impl Drop for Alone {
    /// It is dropped within another runtime, where it must not block.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

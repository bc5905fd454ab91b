//! The cost of the work behind an endpoint without the endpoint: DataFusion or Arrow's writers alone, in this process.

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
    /// Plans and runs a statement.
    Statement(&'static str),
    /// Writes the small table as JSON.
    Json,
    /// Writes the small table as CSV.
    Csv,
}

impl Work {
    /// Returns its name in the table of figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Statement(_) => "DataFusion alone",
            Self::Json => "arrow-json alone",
            Self::Csv => "arrow-csv alone",
        }
    }
}

/// A session and the runtime for its queries, as in the server.
pub(crate) struct Alone {
    context: SessionContext,
    small: OnceCell<Vec<RecordBatch>>,
    /// `None` once dropped.
    runtime: Option<Runtime>,
}

impl Alone {
    pub(crate) fn start() -> Outcome<Self> {
        let runtime = Runtime::new().map_err(|e| e.to_string())?;
        Ok(Self { context: SessionContext::new(), small: OnceCell::new(), runtime: Some(runtime) })
    }

    /// Repeats the work for `slice`, with `at_a_time` concurrent tasks.
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
    /// Shuts the runtime down without blocking, because this is dropped within another runtime.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

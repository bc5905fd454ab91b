//! DataFusion by itself, in this process: what a statement costs without a door.

use std::time::{Duration, Instant};

use datafusion::error::DataFusionError;
use datafusion::prelude::SessionContext;
use tokio::runtime::Runtime;

use crate::Outcome;
use crate::meter::{Sample, own_cpu};

/// A session, and the runtime that its queries run on, as the server has one.
pub(crate) struct Alone {
    context: SessionContext,
    /// `None` once it is dropped.
    runtime: Option<Runtime>,
}

impl Alone {
    pub(crate) fn start() -> Outcome<Self> {
        let runtime = Runtime::new().map_err(|e| e.to_string())?;
        Ok(Self { context: SessionContext::new(), runtime: Some(runtime) })
    }

    /// Plans and runs `sql` over and over for `slice`, so often at a time.
    pub(crate) async fn run(&self, sql: &'static str, at_a_time: usize, slice: Duration) -> Outcome<Sample> {
        let (cpu, started) = (own_cpu()?, Instant::now());
        let runtime = self.runtime.as_ref().ok_or("it has ended")?;
        let work: Vec<_> = (0..at_a_time)
            .map(|_| {
                let context = self.context.clone();
                runtime.spawn(async move {
                    let mut done = 0.0;
                    while started.elapsed() < slice {
                        let rows = context.sql(sql).await?.collect().await?;
                        debug_assert!(!rows.is_empty());
                        done += 1.0;
                    }
                    Ok::<_, DataFusionError>(done)
                })
            })
            .collect();
        let mut units = 0.0;
        for work in work {
            units += work.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        }
        Ok(Sample { units, server: own_cpu()? - cpu, client: Duration::ZERO, wall: started.elapsed() })
    }
}

impl Drop for Alone {
    /// It is dropped within another runtime, where it must not block.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

//! An engine with a fixed result, which counts the rows that it is sent.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use spiced_engine::{
    Catalog, DatasetStatus, Effect, Engine, EngineError, ErrorKind, Execution, Ingest, Parameters, Prepared, Principal,
    Session, Statement,
};
use tokio::sync::{Mutex, watch};

/// Returns a batch of eight columns of eight bytes.
pub(crate) fn batch(rows: usize) -> RecordBatch {
    let whole = |turn: i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|n| n * turn))) };
    let broken = |part: i64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values((0..rows as i64).map(|n| (n * part) as f64 / 8.0)))
    };
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let columns = names.into_iter().zip(1..).map(|(name, n)| (name, if n <= 4 { whole(n) } else { broken(n) }));
    RecordBatch::try_from_iter(columns).expect("the columns are of one length")
}

/// Returns these batches as the result of each statement.
#[derive(Clone)]
pub(crate) struct Ready(pub(crate) Arc<Vec<RecordBatch>>);

#[async_trait]
impl Engine for Ready {
    async fn session(&self, _: &Principal) -> Result<Box<dyn Session>, EngineError> {
        Ok(Box::new(self.clone()))
    }

    fn datasets(&self) -> watch::Receiver<Vec<DatasetStatus>> {
        watch::channel(Vec::new()).1
    }
}

#[async_trait]
impl Session for Ready {
    async fn prepare(&self, _: Statement) -> Result<Box<dyn Prepared>, EngineError> {
        Ok(Box::new(Answer { batches: self.0.clone(), parameters: Schema::empty() }))
    }

    async fn ingest(&self, ingest: Ingest) -> Result<Box<dyn Prepared>, EngineError> {
        Ok(Box::new(Count { rows: Mutex::new(Some(ingest.rows)), parameters: Schema::empty() }))
    }

    async fn catalog(&self) -> Result<Catalog, EngineError> {
        Ok(Catalog::default())
    }
}

struct Answer {
    batches: Arc<Vec<RecordBatch>>,
    parameters: Schema,
}

#[async_trait]
impl Prepared for Answer {
    fn schema(&self) -> SchemaRef {
        self.batches[0].schema()
    }

    fn parameters(&self) -> &Schema {
        &self.parameters
    }

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(&self, _: Parameters) -> Result<Execution, EngineError> {
        let batches = stream::iter(self.batches.to_vec()).map(Ok).boxed();
        Ok(Execution { schema: self.schema(), batches })
    }
}

struct Count {
    rows: Mutex<Option<Execution>>,
    parameters: Schema,
}

#[async_trait]
impl Prepared for Count {
    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("count", DataType::UInt64, false)]))
    }

    fn parameters(&self) -> &Schema {
        &self.parameters
    }

    fn effect(&self) -> Effect {
        Effect::Write
    }

    async fn execute(&self, _: Parameters) -> Result<Execution, EngineError> {
        let rows = self.rows.lock().await.take();
        let rows = rows.ok_or_else(|| EngineError::new(ErrorKind::Internal, "the rows were read already"))?;
        let count = rows.batches.try_fold(0, async |count, batch| Ok(count + batch.num_rows() as u64)).await?;
        let count: ArrayRef = Arc::new(UInt64Array::from(vec![count]));
        let batch = RecordBatch::try_new(self.schema(), vec![count]);
        Ok(Execution::of(vec![batch.map_err(|e| EngineError::new(ErrorKind::Internal, e.to_string()))?]))
    }
}

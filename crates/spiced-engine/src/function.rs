//! An engine made from one function, for tests and for applications that embed an endpoint without a query engine.

use std::sync::{Arc, Mutex};

use arrow_schema::{Schema, SchemaRef};
use async_trait::async_trait;
use tokio::sync::watch;

use crate::{
    Catalog, DatasetStatus, Effect, Engine, EngineError, ErrorKind, Execution, Parameters, Prepared, Principal,
    Session, Statement,
};

/// Creates an engine that answers every SQL statement by calling `answer`, and treats each as a read.
///
/// `answer` is called when a statement is prepared, without parameters, to get the result schema. It is called again
/// for each execution with parameters and for each execution after the first. The actual work should therefore be done
/// in the stream.
///
/// ```
/// use std::sync::Arc;
/// use arrow_array::{Int64Array, RecordBatch};
/// use futures::StreamExt;
/// use spiced_engine::{Engine, Execution, Parameters, Principal, Role, Statement, engine_fn};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1, 2, 3])) as _)]).unwrap();
/// let engine = engine_fn(move |_sql: &str, _: &Parameters| Ok(Execution::of(vec![batch.clone()])));
///
/// let session = engine.session(&Principal::anonymous(Role::ReadOnly)).await.unwrap();
/// let prepared = session.prepare(Statement::Sql("SELECT n".to_owned())).await.unwrap();
/// let mut execution = prepared.execute(Parameters::none()).await.unwrap();
/// assert_eq!(execution.batches.next().await.unwrap().unwrap().num_rows(), 3);
/// # });
/// ```
pub fn engine_fn<F>(answer: F) -> impl Engine + Clone
where
    F: Fn(&str, &Parameters) -> Result<Execution, EngineError> + Send + Sync + 'static,
{
    FunctionEngine(Arc::new(answer))
}

type Answer = dyn Fn(&str, &Parameters) -> Result<Execution, EngineError> + Send + Sync;

#[derive(Clone)]
struct FunctionEngine(Arc<Answer>);

#[async_trait]
impl Engine for FunctionEngine {
    async fn session(&self, _: &Principal) -> Result<Box<dyn Session>, EngineError> {
        Ok(Box::new(self.clone()))
    }

    /// Returns an empty list, because the function can respond to any statement.
    fn datasets(&self) -> watch::Receiver<Vec<DatasetStatus>> {
        watch::channel(Vec::new()).1
    }
}

#[async_trait]
impl Session for FunctionEngine {
    async fn prepare(&self, statement: Statement) -> Result<Box<dyn Prepared>, EngineError> {
        let Statement::Sql(sql) = statement else {
            return Err(EngineError::new(ErrorKind::Unsupported, "this engine accepts only SQL text"));
        };
        let first = (self.0)(&sql, &Parameters::none())?;
        let schema = first.schema.clone();
        let first = Mutex::new(Some(first));
        Ok(Box::new(Planned { answer: self.0.clone(), sql, schema, first, parameters: Schema::empty() }))
    }

    async fn catalog(&self) -> Result<Catalog, EngineError> {
        Ok(Catalog::default())
    }
}

struct Planned {
    answer: Arc<Answer>,
    sql: String,
    schema: SchemaRef,
    /// The execution that provided the schema, for the first run.
    first: Mutex<Option<Execution>>,
    parameters: Schema,
}

#[async_trait]
impl Prepared for Planned {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn parameters(&self) -> &Schema {
        &self.parameters
    }

    fn effect(&self) -> Effect {
        Effect::Read
    }

    async fn execute(&self, parameters: Parameters) -> Result<Execution, EngineError> {
        let first = self.first.lock().expect("nothing panics while it is held").take();
        match first {
            Some(first) if parameters.batch().is_none() => Ok(first),
            _ => (self.answer)(&self.sql, &parameters),
        }
    }
}

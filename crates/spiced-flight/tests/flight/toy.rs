//! A toy engine that understands a few words, and clients for it.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use arrow_array::{ArrayRef, DictionaryArray, Int64Array, RecordBatch, UInt64Array, types::Int32Type};
use arrow_flight::FlightInfo;
use arrow_flight::error::FlightError;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use axum::{Extension, Router};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use spiced_engine::{
    Catalog, DatasetStatus, Effect, Engine, EngineError, ErrorKind, Execution, ForeignKey, Guarded, Key, KeyRule,
    Parameters, Prepared, Principal, Role, Session, Statement, TableInfo,
};
use spiced_flight::FlightOptions;
use tokio::sync::watch;
use tonic::Status;

pub(crate) type Client = FlightSqlServiceClient<Router>;

/// What the engine has done, for tests to inspect.
#[derive(Default)]
pub(crate) struct Seen {
    /// The parameters of `INSERT` statements.
    pub(crate) inserted: Mutex<Vec<i64>>,
    /// The number of batches that `ROWS` has produced.
    pub(crate) made: AtomicUsize,
    /// The number of running `HANG`s.
    pub(crate) hanging: watch::Sender<usize>,
}

#[derive(Clone, Default)]
pub(crate) struct Toy(pub(crate) Arc<Seen>);

impl Toy {
    /// Returns a Flight router over this engine, for a caller with this name and role.
    pub(crate) fn router(&self, options: FlightOptions, caller: &str, role: Role) -> Router {
        spiced_flight::router(Arc::new(Guarded::new(self.clone())), options)
            .layer(Extension(Principal::new(caller, role)))
    }

    /// Returns an in-memory client with the role of a writer and default options.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.router(FlightOptions::default(), "writer", Role::ReadWrite))
    }

    /// Waits until this number of `HANG`s is running.
    pub(crate) async fn hanging(&self, number: usize) {
        self.0.hanging.subscribe().wait_for(|now| *now == number).await.unwrap();
    }
}

#[async_trait]
impl Engine for Toy {
    async fn session(&self, _: &Principal) -> Result<Box<dyn Session>, EngineError> {
        Ok(Box::new(self.clone()))
    }

    fn datasets(&self) -> watch::Receiver<Vec<DatasetStatus>> {
        watch::channel(Vec::new()).1
    }
}

#[async_trait]
impl Session for Toy {
    async fn prepare(&self, statement: Statement) -> Result<Box<dyn Prepared>, EngineError> {
        let Statement::Sql(sql) = statement else {
            return Err(EngineError::new(ErrorKind::Unsupported, "SQL alone"));
        };
        let (word, rest) = sql.split_once(' ').unwrap_or((&sql, ""));
        let number = rest.parse().unwrap_or(0);
        let none = Schema::empty();
        let one = |name: &str, kind| Arc::new(Schema::new(vec![Field::new(name, kind, true)]));
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let parameter = Schema::new(vec![Field::new("$1", DataType::Int64, true)]);
        let (word, effect, schema, parameters) = match word {
            "SELECT" if rest.parse::<i64>().is_ok() => (Word::Select, Effect::Read, one("n", DataType::Int64), none),
            "ECHO" => (Word::Echo, Effect::Read, one("value", DataType::Int64), parameter),
            "ROWS" => (Word::Rows, Effect::Read, one("n", DataType::Int64), none),
            "HANG" => (Word::Hang, Effect::Read, one("n", DataType::Int64), none),
            "BREAK" => (Word::Break, Effect::Read, one("n", DataType::Int64), none),
            "DICT" => (Word::Dict, Effect::Read, one("word", dictionary), none),
            "INSERT" => (Word::Insert, Effect::Write, one("count", DataType::UInt64), parameter),
            "ADD" => (Word::Add, Effect::Write, one("count", DataType::UInt64), none),
            "CREATE" => (Word::Nothing, Effect::Ddl, Arc::new(Schema::empty()), none),
            "SET" => (Word::Nothing, Effect::Session, Arc::new(Schema::empty()), none),
            "LOST" | "SELECT" => return Err(EngineError::new(ErrorKind::NotFound, "there is no such table")),
            "STUCK" => std::future::pending().await,
            _ => return Err(EngineError::new(ErrorKind::InvalidStatement, format!("what is `{word}`?"))),
        };
        Ok(Box::new(Planned { toy: self.clone(), word, number, effect, schema, parameters }))
    }

    async fn catalog(&self) -> Result<Catalog, EngineError> {
        let key = |name: &str| Key { name: Some(name.to_owned()), columns: vec!["id".to_owned()] };
        let table = |schema: &str, name: &str, kind| TableInfo {
            catalog: "spice".into(),
            schema: schema.into(),
            name: name.into(),
            kind,
            columns: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false)])),
            primary_key: (name == "zones").then(|| key("zones_key")),
            foreign_keys: Vec::from_iter((kind == "BASE TABLE" && name != "zones").then(|| ForeignKey {
                key: key("in_zone"),
                table: ["spice", "public", "zones"].map(str::to_owned),
                referred: key("zones_key"),
                on_update: KeyRule::Cascade,
                on_delete: KeyRule::NoAction,
            })),
        };
        Ok(Catalog {
            schemas: vec![
                ("other".into(), "empty".into()),
                ("spice".into(), "private".into()),
                ("spice".into(), "public".into()),
            ],
            tables: vec![
                table("private", "trips", "BASE TABLE"),
                table("public", "taxi_trips", "BASE TABLE"),
                table("public", "taxi_view", "VIEW"),
                table("public", "zones", "BASE TABLE"),
            ],
        })
    }
}

#[derive(Clone, Copy)]
enum Word {
    Select,
    Echo,
    Rows,
    Hang,
    Break,
    Dict,
    Insert,
    Add,
    Nothing,
}

struct Planned {
    toy: Toy,
    word: Word,
    number: i64,
    effect: Effect,
    schema: SchemaRef,
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
        self.effect
    }

    async fn execute(&self, parameters: Parameters) -> Result<Execution, EngineError> {
        let given = parameters.batch().map(|batch| batch.column(0).clone());
        if self.parameters.fields().len() != usize::from(given.is_some()) {
            return Err(EngineError::new(ErrorKind::InvalidStatement, "the parameters do not fit"));
        }
        let schema = self.schema.clone();
        let batch = |column: ArrayRef| Ok(RecordBatch::try_new(self.schema.clone(), vec![column]).unwrap());
        let batches: BoxStream<'static, Result<RecordBatch, EngineError>> = match self.word {
            Word::Select => stream::iter([batch(numbers([self.number]))]).boxed(),
            Word::Echo => stream::iter([batch(given.unwrap())]).boxed(),
            Word::Rows => {
                let (seen, schema) = (self.toy.0.clone(), schema.clone());
                stream::iter(0..self.number)
                    .map(move |n| {
                        seen.made.fetch_add(1, Ordering::SeqCst);
                        Ok(RecordBatch::try_new(schema.clone(), vec![numbers([n])]).unwrap())
                    })
                    .boxed()
            }
            Word::Hang => stream::iter([batch(numbers([1]))]).chain(Hang::new(self.toy.0.clone())).boxed(),
            Word::Break => {
                let broken = EngineError::new(ErrorKind::Exhausted, "no memory is left");
                stream::iter([batch(numbers([1])), Err(broken)]).boxed()
            }
            Word::Dict => {
                let words: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
                stream::iter([batch(Arc::new(words))]).boxed()
            }
            Word::Insert => {
                let given = given.unwrap();
                let given = given.as_any().downcast_ref::<Int64Array>().unwrap().value(0);
                self.toy.0.inserted.lock().unwrap().push(given);
                stream::iter([batch(count(1))]).boxed()
            }
            Word::Add => stream::iter([batch(count(self.number.unsigned_abs())), batch(count(1))]).boxed(),
            Word::Nothing => stream::empty().boxed(),
        };
        Ok(Execution { schema, batches })
    }
}

fn count(number: u64) -> ArrayRef {
    Arc::new(UInt64Array::from(vec![number]))
}

/// A stream that never ends, and reports when it is dropped.
struct Hang(Arc<Seen>);

impl Hang {
    fn new(seen: Arc<Seen>) -> Self {
        seen.hanging.send_modify(|number| *number += 1);
        Self(seen)
    }
}

impl stream::Stream for Hang {
    type Item = Result<RecordBatch, EngineError>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Pending
    }
}

impl Drop for Hang {
    fn drop(&mut self) {
        self.0.hanging.send_modify(|number| *number -= 1);
    }
}

/// Returns a column of numbers.
pub(crate) fn numbers(numbers: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(numbers))
}

/// Returns parameters `$1`, one row for each number.
pub(crate) fn parameters(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    RecordBatch::try_from_iter([("$1", numbers(values))]).unwrap()
}

/// Returns all batches of a flight with a single ticket.
pub(crate) async fn fetch(client: &mut Client, info: FlightInfo) -> Result<Vec<RecordBatch>, FlightError> {
    assert_eq!(info.endpoint.len(), 1);
    assert!(info.endpoint[0].location.is_empty());
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    client.do_get(ticket).await?.try_collect().await
}

/// Returns the first column of all batches, as numbers.
pub(crate) fn values(batches: &[RecordBatch]) -> Vec<i64> {
    let column = |batch: &RecordBatch| batch.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values().to_vec();
    batches.iter().flat_map(column).collect()
}

/// Returns the cells of a text column.
pub(crate) fn texts(batches: &[RecordBatch], column: usize) -> Vec<String> {
    use arrow_array::cast::AsArray;
    let cells = |batch: &RecordBatch| {
        let column = batch.column(column).as_string::<i32>().clone();
        column.iter().map(|cell| cell.unwrap().to_owned()).collect::<Vec<_>>()
    };
    batches.iter().flat_map(cells).collect()
}

/// Returns the status of a client's error.
pub(crate) fn refused<T>(answer: Result<T, FlightError>) -> Status {
    match answer.err().expect("a refusal") {
        FlightError::Tonic(status) => *status,
        other => panic!("not a status: {other}"),
    }
}

//! An engine in memory. It understands a few words, or answers every statement with one function.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::SystemTime;

use arrow_array::{ArrayRef, DictionaryArray, Int64Array, RecordBatch, UInt64Array, types::Int32Type};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use spiced_engine::{
    Batches, Catalog, DatasetState, DatasetStatus, Effect, Engine, EngineError, ErrorKind, Execution, ForeignKey, Key,
    KeyRule, Parameters, Prepared, Principal, Session, Statement, TableInfo, engine_fn,
};
use tokio::sync::watch;

/// What the engine has done, for tests to inspect.
#[derive(Default)]
struct Seen {
    /// The parameters of `INSERT` statements.
    inserted: Mutex<Vec<i64>>,
    /// The number of batches that `ROWS` has produced.
    made: AtomicUsize,
    /// The number of running `HANG`s.
    hanging: watch::Sender<usize>,
}

/// An engine in memory, with two data sets, one of them lost. Its clones share what it has done.
///
/// By default it understands these statements:
///
/// | statement | effect | result |
/// | --- | --- | --- |
/// | `SELECT 7` | read | `n`, the number |
/// | `ECHO $1` | read | `value`, the parameters |
/// | `ROWS 7` | read | `n`, this many batches of one row, made as they are read |
/// | `HANG` | read | `n`, one row, and no end |
/// | `BREAK` | read | `n`, one row, then a failure |
/// | `DICT` | read | `word`, a dictionary |
/// | `INSERT $1` | write | `count`, 1 |
/// | `ADD 7` | write | `count`, the number and 1 in two batches |
/// | `CREATE`, `SET` | DDL, session | none |
/// | `LOST`, any other `SELECT` | | refused, because there is no such table |
/// | `STUCK` | | is planned forever |
#[derive(Clone, Default)]
pub struct Toy {
    seen: Arc<Seen>,
    answers: Option<Arc<dyn Engine>>,
}

impl Toy {
    /// Creates an engine that answers every statement with this function, as [`engine_fn`] does.
    pub fn new(
        answer: impl Fn(&str, &Parameters) -> Result<(SchemaRef, Batches), EngineError> + Send + Sync + 'static,
    ) -> Self {
        let engine = engine_fn(move |sql, parameters| {
            let (schema, batches) = answer(sql, parameters)?;
            Ok(Execution { schema, batches })
        });
        Self { answers: Some(Arc::new(engine)), ..Self::default() }
    }

    /// Creates an engine that returns these batches for every statement.
    pub fn batches(batches: Vec<RecordBatch>) -> Self {
        Self::new(move |_, _| Ok((batches[0].schema(), stream::iter(batches.clone()).map(Ok).boxed())))
    }

    /// Returns the parameters of the `INSERT` statements so far.
    pub fn inserted(&self) -> Vec<i64> {
        self.seen.inserted.lock().unwrap().clone()
    }

    /// Returns the number of batches that `ROWS` has produced.
    pub fn made(&self) -> usize {
        self.seen.made.load(Ordering::SeqCst)
    }

    /// Waits until this number of `HANG`s is running.
    pub async fn hanging(&self, number: usize) {
        self.seen.hanging.subscribe().wait_for(|now| *now == number).await.unwrap();
    }
}

impl std::fmt::Debug for Toy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Toy")
    }
}

#[async_trait]
impl Engine for Toy {
    async fn session(&self, caller: &Principal) -> Result<Box<dyn Session>, EngineError> {
        match &self.answers {
            Some(engine) => engine.session(caller).await,
            None => Ok(Box::new(self.clone())),
        }
    }

    fn datasets(&self) -> watch::Receiver<Vec<DatasetStatus>> {
        let failed = DatasetState::Failed { error: "no such file".into(), next_attempt: SystemTime::UNIX_EPOCH };
        let dataset =
            |name: &str, state| DatasetStatus { name: name.into(), from: "memory:".into(), writable: false, state };
        watch::channel(vec![dataset("a", DatasetState::Ready), dataset("b", failed)]).1
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
                let (seen, schema) = (self.toy.seen.clone(), schema.clone());
                stream::iter(0..self.number)
                    .map(move |n| {
                        seen.made.fetch_add(1, Ordering::SeqCst);
                        Ok(RecordBatch::try_new(schema.clone(), vec![numbers([n])]).unwrap())
                    })
                    .boxed()
            }
            Word::Hang => stream::iter([batch(numbers([1]))]).chain(Hang::new(self.toy.seen.clone())).boxed(),
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
                self.toy.seen.inserted.lock().unwrap().push(given);
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
pub fn numbers(numbers: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(numbers))
}

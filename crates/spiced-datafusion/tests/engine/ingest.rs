//! Bulk ingestion into an existing table, and into one created for the rows.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use futures::{StreamExt, TryStreamExt, stream};
use spiced_engine::{
    Effect, EngineError, ErrorKind, Execution, IfExists, IfMissing, Ingest, Parameters, Session, TablePath,
};

use crate::{Pod, run};

fn rows(columns: &[(&str, ArrayRef)]) -> Execution {
    Execution::of(vec![RecordBatch::try_from_iter(columns.iter().map(|(n, c)| (*n, c.clone()))).unwrap()])
}

fn numbers(name: &str) -> Execution {
    rows(&[(name, Arc::new(Int32Array::from(vec![1, 2])))])
}

fn into(table: &str, if_missing: IfMissing, if_exists: IfExists, rows: Execution) -> Ingest {
    let table = TablePath { catalog: None, schema: None, name: table.to_owned() };
    Ingest { table, if_missing, if_exists, rows, routine: false }
}

async fn put(session: &dyn Session, ingest: Ingest) -> Result<Effect, EngineError> {
    let planned = session.ingest(ingest).await?;
    planned.execute(Parameters::none()).await?.batches.try_for_each(|_| async { Ok(()) }).await?;
    Ok(planned.effect())
}

#[tokio::test]
async fn columns_are_told_by_name_and_fitted() {
    let mut pod = Pod::new();
    pod.memory("notes", true);
    let session = pod.session().await;
    let given = rows(&[
        ("name", Arc::new(StringArray::from(vec![Some("a"), None]))),
        ("id", Arc::new(Int32Array::from(vec![1, 2]))),
    ]);
    let append = |rows| into("notes", IfMissing::Fail, IfExists::Append, rows);
    assert_eq!(put(session.as_ref(), append(given)).await.unwrap(), Effect::Write);
    assert_eq!(put(session.as_ref(), append(numbers("id"))).await.unwrap(), Effect::Write);
    assert_eq!(run(session.as_ref(), "SELECT count(*), sum(id), count(name) FROM notes").await, ["4 | 6 | 1"]);

    for (wrong, said) in [
        (numbers("nr"), "has no column `nr`"),
        (rows(&[("name", Arc::new(StringArray::from(vec!["x"])))]), "takes no NULL"),
    ] {
        let refused = put(session.as_ref(), append(wrong)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidStatement);
        assert!(refused.to_string().contains(said), "{refused}");
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_leaves_nothing() {
    let mut pod = Pod::new();
    pod.memory("notes", true);
    let session = pod.session().await;
    let batch = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    let broken = EngineError::new(ErrorKind::InvalidStatement, "the stream broke off");
    let schema = batch.schema();
    let rows = Execution { schema, batches: stream::iter([Ok(batch), Err(broken)]).boxed() };
    let refused = put(session.as_ref(), into("notes", IfMissing::Fail, IfExists::Append, rows)).await.unwrap_err();
    assert!(refused.to_string().contains("broke off"), "{refused}");
    assert_eq!(run(session.as_ref(), "SELECT count(*) AS n FROM notes").await, ["0"]);
}

#[tokio::test]
async fn a_table_is_made_and_replaced() {
    let mut pod = Pod::new();
    pod.memory("notes", true);
    let session = pod.session().await;
    let make = |if_exists| into("made", IfMissing::Create, if_exists, numbers("id"));
    assert_eq!(put(session.as_ref(), make(IfExists::Fail)).await.unwrap(), Effect::Ddl);
    let twice = put(session.as_ref(), make(IfExists::Fail)).await.unwrap_err();
    assert!(twice.to_string().contains("already exists"), "{twice}");
    put(session.as_ref(), make(IfExists::Append)).await.unwrap();
    assert_eq!(run(session.as_ref(), "SELECT count(*) AS n FROM made").await, ["4"]);
    put(session.as_ref(), make(IfExists::Replace)).await.unwrap();
    assert_eq!(run(session.as_ref(), "SELECT count(*) AS n FROM made").await, ["2"]);
    let missing = into("nowhere", IfMissing::Fail, IfExists::Append, numbers("id"));
    assert_eq!(put(session.as_ref(), missing).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_the_pod_keeps_is_kept() {
    let mut pod = Pod::new();
    pod.memory("notes", false);
    let session = pod.session().await;
    for if_exists in [IfExists::Append, IfExists::Replace] {
        let refused =
            put(session.as_ref(), into("notes", IfMissing::Fail, if_exists, numbers("id"))).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Denied, "{refused}");
    }
}

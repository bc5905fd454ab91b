//! Plans are cached for repeated statements. The only visible effect is the time saved.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use spiced_datafusion::SystemTable;
use spiced_engine::{Engine, Principal, Role};

use crate::{Pod, fails, run, session};

#[tokio::test(flavor = "multi_thread")]
async fn what_has_changed_is_seen() {
    let engine = Pod::new().start();
    let ask = async |sql: &str| run(&*session(&engine).await, sql).await;
    ask("CREATE TABLE t AS SELECT 1 AS a").await;
    for rows in 1..=3 {
        for _ in 0..2 {
            assert_eq!(ask("SELECT a FROM t").await.len(), rows);
        }
        ask("INSERT INTO t VALUES (1)").await;
    }
    ask("CREATE OR REPLACE TABLE t AS SELECT 'other' AS a").await;
    assert_eq!(ask("SELECT a FROM t").await, ["other"]);
    ask("DROP TABLE t").await;
    fails(&*session(&engine).await, "SELECT a FROM t").await;
    ask("CREATE VIEW t AS SELECT 5 AS a").await;
    assert_eq!(ask("SELECT a FROM t").await, ["5"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_is_that_of_the_execution() {
    let engine = Pod::new().start();
    let ask = async |sql: &str| run(&*session(&engine).await, sql).await;
    ask("CREATE VIEW clock AS SELECT now() AS n").await;
    for sql in
        ["SELECT now()", "SELECT n FROM clock", "SELECT x FROM (SELECT 1 AS x) WHERE x IN (SELECT 1) AND random() < 2"]
    {
        let (first, second) = (ask(sql).await, ask(sql).await);
        assert_eq!(first == second, sql.contains("random"), "{sql}: {first:?}");
    }
    assert_ne!(ask("SELECT random()").await, ask("SELECT random()").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_is_the_one_who_asks() {
    let mut pod = Pod::new();
    let schema = Arc::new(Schema::new(vec![Field::new("name", DataType::Utf8, false)]));
    let of = schema.clone();
    let rows = move |caller: &Principal| {
        RecordBatch::try_new(of.clone(), vec![Arc::new(StringArray::from(vec![caller.name()]))]).unwrap()
    };
    pod.options.system = vec![SystemTable::new("me", schema, rows)];
    let engine = pod.start();
    for name in ["one", "two", "one"] {
        let session = engine.session(&Principal::new(name, Role::ReadOnly)).await.unwrap();
        assert_eq!(run(&*session, "SELECT name FROM runtime.me").await, [name]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_has_set_is_its_own() {
    let engine = Pod::new().start();
    let (plain, other) = (session(&engine).await, session(&engine).await);
    run(&*plain, "CREATE TABLE t AS SELECT 'public' AS a").await;
    let kept = "SELECT arrow_typeof(1 + 1), a FROM t";
    assert_eq!(run(&*plain, kept).await, ["Int64 | public"]);
    run(&*other, "SET datafusion.catalog.default_schema = 'runtime'").await;
    fails(&*other, kept).await;
    assert_eq!(run(&*plain, kept).await, ["Int64 | public"]);
}

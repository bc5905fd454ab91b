//! Time, memory, streams and panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use spiced_datafusion::{DataFusionEngine, EngineOptions};
use spiced_engine::{Engine, ErrorKind, Parameters, Principal, Role, Statement};

use crate::{Pod, fails, prepare, run};

/// Rows without end, near enough.
const ENDLESS: &str = "SELECT a.value, b.value FROM generate_series(1, 1000000000) a, generate_series(1, 1000000000) b";

#[tokio::test(flavor = "multi_thread")]
async fn a_query_ends_when_its_time_is_up() {
    let mut pod = Pod::new();
    pod.options.query_timeout = Duration::from_millis(300);
    let session = pod.session().await;
    for sql in [
        format!("SELECT count(*) FROM ({ENDLESS})"),
        ENDLESS.to_owned(),
        "CREATE TABLE t AS SELECT sum(value) FROM generate_series(1, 100000000000)".to_owned(),
    ] {
        let started = Instant::now();
        let error = fails(&*session, &sql).await;
        assert_eq!(error.kind(), ErrorKind::Timeout, "{sql}: {error}");
        assert_eq!(error.to_string(), "the query was not done within its limit of 300ms");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
    assert_eq!(run(&*session, "SELECT 1").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_does_not_fetch_runs_out_of_time_too() {
    let mut pod = Pod::new();
    pod.options.query_timeout = Duration::from_millis(300);
    let session = pod.session().await;
    let prepared = prepare(&*session, ENDLESS).await.unwrap();
    let mut answer = prepared.execute(Parameters::none()).await.unwrap();
    assert!(answer.batches.next().await.unwrap().is_ok());
    // The query's own clock goes on while nobody fetches.
    tokio::time::timeout(Duration::from_secs(30), async {
        let mut fetched = 0;
        let error = loop {
            match answer.batches.next().await {
                Some(Ok(_)) => fetched += 1,
                Some(Err(error)) => break error,
                None => panic!("ended without an error"),
            }
        };
        assert_eq!(error.kind(), ErrorKind::Timeout, "after {fetched}");
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_has_a_limit_that_all_share() {
    let mut pod = Pod::new();
    pod.memory("m", true);
    pod.options.memory_limit = 4 << 20;
    let session = pod.session().await;
    for sql in [
        "SELECT count(*) FROM (SELECT array_agg(value) FROM generate_series(1, 10000000))",
        "INSERT INTO m SELECT value, repeat('x', 100) FROM generate_series(1, 1000000)",
        "CREATE TABLE t AS SELECT value FROM generate_series(1, 10000000)",
    ] {
        let error = fails(&*session, sql).await;
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{sql}: {error}");
    }
    // What failed left nothing behind, and gave back what it held.
    assert_eq!(run(&*session, "SELECT count(*) FROM m").await, ["0"]);
    assert_eq!(run(&*session, "INSERT INTO m SELECT value, 'x' FROM generate_series(1, 10000)").await, ["10000"]);
    assert_eq!(fails(&*session, "SELECT * FROM t").await.kind(), ErrorKind::InvalidStatement);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_stream_ends_the_query() {
    let pod = Pod::new();
    let engine = pod.start();
    let session = crate::session(&engine).await;
    let prepared = prepare(&*session, ENDLESS).await.unwrap();
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut answer = prepared.execute(Parameters::none()).await.unwrap();
    assert!(answer.batches.next().await.unwrap().is_ok());
    drop(answer);
    tokio::time::timeout(Duration::from_secs(10), async {
        while tokio::runtime::Handle::current().metrics().num_alive_tasks() > before {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the query's tasks end");
}

/// The caller needs neither tokio nor a timer: all work is on the engine's runtime.
#[test]
fn the_caller_only_waits() {
    let busy = Arc::new(AtomicUsize::new(0));
    let seen = busy.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(move || {
            seen.fetch_add(1, Ordering::SeqCst);
        })
        .build()
        .unwrap();
    let engine = DataFusionEngine::start(EngineOptions::new(runtime.handle().clone())).unwrap();
    futures::executor::block_on(async {
        let session = engine.session(&Principal::anonymous(Role::ReadOnly)).await.unwrap();
        let sql = "SELECT value FROM generate_series(1, 100000) ORDER BY value DESC";
        let prepared = session.prepare(Statement::Sql(sql.to_owned())).await.unwrap();
        let mut answer = prepared.execute(Parameters::none()).await.unwrap();
        let mut rows = 0;
        while let Some(batch) = answer.batches.next().await {
            rows += batch.unwrap().num_rows();
        }
        assert_eq!(rows, 100_000);
        assert_eq!(session.catalog().await.unwrap().schemas.len(), 1);
    });
    assert!(busy.load(Ordering::SeqCst) >= 2);
    drop(runtime);
    let after = futures::executor::block_on(async {
        let session = engine.session(&Principal::anonymous(Role::ReadOnly)).await.unwrap();
        session.prepare(Statement::Sql("SELECT 1".to_owned())).await.map(|_| ()).unwrap_err()
    });
    assert_eq!(after.kind(), ErrorKind::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_their_class() {
    let mut pod = Pod::new();
    pod.memory("m", true);
    let session = pod.session().await;
    for (sql, kind, part) in [
        ("SELECT 1/0", ErrorKind::InvalidStatement, "divide by zero"),
        ("SELECT CAST('x' AS INT)", ErrorKind::InvalidStatement, "'x'"),
        ("SELECT nope FROM m", ErrorKind::InvalidStatement, "nope"),
        ("SELECT * FROM nope", ErrorKind::InvalidStatement, "table 'spice.public.nope' not found"),
        ("SELECT nope(1)", ErrorKind::InvalidStatement, "nope"),
        ("SELECT 'a' + 1 + true", ErrorKind::InvalidStatement, ""),
        ("SELEC 1", ErrorKind::InvalidStatement, "SELEC"),
        ("SELECT 1; SELECT 2", ErrorKind::InvalidStatement, "one statement at a time"),
        ("", ErrorKind::InvalidStatement, "no statement"),
        ("BEGIN", ErrorKind::Unsupported, "transactions"),
        ("COMMIT", ErrorKind::Unsupported, "transactions"),
        ("CREATE TEMPORARY TABLE t (a INT)", ErrorKind::Unsupported, "temporary"),
        ("CREATE TABLE t AS SELECT 1 AS a, 2 AS a", ErrorKind::InvalidStatement, "a"),
        ("DROP TABLE nope", ErrorKind::InvalidStatement, "nope"),
    ] {
        let error = fails(&*session, sql).await;
        assert_eq!(error.kind(), kind, "{sql}: {error}");
        assert!(error.to_string().contains(part), "{sql}: {error}");
        assert!(!error.to_string().contains("Error during planning"), "{sql}: {error}");
    }
    let plan = session.prepare(Statement::Substrait(vec![1, 2, 3])).await.map(|_| ()).unwrap_err();
    assert_eq!(plan.kind(), ErrorKind::Unsupported);
}

/// None of these may end the process: a stack that overflows cannot be caught.
#[tokio::test(flavor = "multi_thread")]
async fn shapes_that_eat_stack() {
    let session = Pod::new().session().await;
    let chain = |part: &str, n: usize| part.repeat(n);
    for sql in [
        format!("SELECT 1{}", chain("+1", 1_900)),
        format!("SELECT true{}", chain(" AND true", 1_900)),
        format!("SELECT 1{}", chain("::int", 900)),
        format!("SELECT {} true", chain("NOT ", 1_900)),
        format!("SELECT 1{}", chain(" UNION ALL SELECT 1", 900)),
        format!("SELECT {}1{}", "(".repeat(2_000), ")".repeat(2_000)),
        format!("SELECT * FROM {}(SELECT 1){}", "(SELECT * FROM ".repeat(2_000), ")".repeat(2_000)),
        format!("SELECT {}1{}", "abs(".repeat(2_000), ")".repeat(2_000)),
        format!("SELECT {}1{}", "[".repeat(2_000), "]".repeat(2_000)),
        format!("SELECT 1 IN (1{})", chain(",1", 20_000)),
    ] {
        match crate::rows(&*session, &sql).await {
            Ok(rows) => assert_eq!(rows.is_empty(), false),
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidStatement, "{}: {error}", &sql[..30]),
        }
    }
}

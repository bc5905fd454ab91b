//! Time, memory, streams and panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use futures::StreamExt;
use spiced_datafusion::{DataFusionEngine, EngineOptions};
use spiced_engine::{
    Engine, ErrorKind, Execution, IfExists, IfMissing, Ingest, Parameters, Principal, Role, Statement, TablePath,
};

use crate::{Pod, fails, prepare, run};

/// A practically endless result.
const ENDLESS: &str = "SELECT value FROM generate_series(1, 1000000000000)";

#[tokio::test(flavor = "multi_thread")]
async fn a_query_ends_when_its_time_is_up() {
    let mut pod = Pod::new();
    pod.options.query_timeout = Duration::from_millis(300);
    let session = pod.session().await;
    for sql in [
        format!("SELECT sum(value) FROM ({ENDLESS})"),
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
    // The query's own deadline keeps running while the client does not fetch.
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
        "SELECT array_length(array_agg(value)) FROM generate_series(1, 10000000)",
        "INSERT INTO m SELECT value, repeat('x', 100) FROM generate_series(1, 1000000)",
        "CREATE TABLE t AS SELECT value FROM generate_series(1, 10000000)",
    ] {
        let error = fails(&*session, sql).await;
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{sql}: {error}");
    }
    // The failed statement left no rows and released its memory.
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
    let before = crate::queries().metrics().num_alive_tasks();
    let mut answer = prepared.execute(Parameters::none()).await.unwrap();
    assert!(answer.batches.next().await.unwrap().is_ok());
    drop(answer);
    until_tasks(before).await;
}

/// Waits until at most `left` tasks remain.
async fn until_tasks(left: usize) {
    tokio::time::timeout(Duration::from_secs(10), async {
        while crate::queries().metrics().num_alive_tasks() > left {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the query's tasks end");
}

/// The caller needs neither tokio nor a timer: all work runs on the engine's runtime.
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
        // The value is omitted, since it may come from a row.
        ("SELECT CAST('x' AS INT)", ErrorKind::InvalidStatement, "cannot cast string '…' to value of Int32 type"),
        ("SELECT nope FROM m", ErrorKind::InvalidStatement, "nope"),
        ("SELECT * FROM nope", ErrorKind::InvalidStatement, "table 'spice.public.nope' not found"),
        ("SELECT nope(1)", ErrorKind::InvalidStatement, "nope"),
        ("SELECT 'a' + 1 + true", ErrorKind::InvalidStatement, ""),
        ("SELEC 1", ErrorKind::InvalidStatement, "SELEC"),
        ("SELECT 1; SELECT 2", ErrorKind::InvalidStatement, "one statement at a time"),
        ("", ErrorKind::InvalidStatement, "no statement"),
        ("BEGIN", ErrorKind::Unsupported, "BEGIN"),
        ("START TRANSACTION", ErrorKind::Unsupported, "transactions"),
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

/// No such statement may end the process: a stack overflow cannot be caught.
#[tokio::test(flavor = "multi_thread")]
async fn shapes_that_eat_stack() {
    let session = Pod::new().session().await;
    let repeat = |part: &str, n: usize| part.repeat(n);
    let from = " FROM generate_series(1, 3) g(x)";
    for n in [480, 100_000] {
        for sql in [
            format!("SELECT 1{}", repeat("+1", n)),
            format!("SELECT x{}{from}", repeat("+x", n)),
            format!("SELECT x{from} WHERE x = 0{}", repeat(" OR x > 1", n / 2)),
            format!("SELECT 1{}", repeat("::int", n / 2)),
            format!("SELECT x{}{from}", repeat(" IS NULL", n / 2)),
            format!("SELECT x || 'x'{}{from}", repeat(" || 'x'", n)),
            format!("SELECT 1{}", repeat(" UNION ALL SELECT 1", n / 5)),
            format!("SELECT 1 FROM (SELECT 1) t{}", numbered(n / 5, " JOIN (SELECT 1) t# ON true")),
            format!("SELECT 1 FROM (SELECT 1) t{}", numbered(n / 5, ", (SELECT 1) t#")),
            format!("WITH t AS (SELECT 1){} SELECT 1", numbered(n / 5, ", t# AS (SELECT 1)")),
        ] {
            let (shown, seen) = (&sql[..30], crate::rows(&*session, &sql).await);
            match seen {
                // Some of these have two operators, or no operator, where others have one.
                Ok(_) => assert!(n < 1_000, "{shown}… with {n} is answered"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::InvalidStatement, "{shown}… with {n}: {error}");
                    assert!(n > 500, "{shown}… with {n}: {error}");
                }
            }
        }
    }
    for sql in [
        format!("SELECT {}1{}", "(".repeat(2_000), ")".repeat(2_000)),
        format!("SELECT * FROM {}(SELECT 1){}", "(SELECT * FROM ".repeat(2_000), ")".repeat(2_000)),
        format!("SELECT {}1{}", "abs(".repeat(2_000), ")".repeat(2_000)),
        format!("SELECT {}1{}", "[".repeat(2_000), "]".repeat(2_000)),
        format!("SELECT {} true", repeat("NOT ", 2_000)),
        format!("SELECT {} 1", repeat("- ", 2_000)),
        format!("SELECT a{}", repeat("[1]", 100_000)),
        // Commas, branches and braces within the links of a chain.
        format!("SELECT 1{}", repeat(" + CASE WHEN true THEN 1 ELSE 2 END", 20_000)),
        format!("SELECT 1{}", repeat(" = {a: 1, b: 2}", 60_000)),
        format!("SELECT 1{}", repeat("::STRUCT<a INT, b INT>", 40_000)),
        // Nested types, as SQL and as text.
        format!("SELECT NULL::INT{}", repeat("[]", 400)),
        format!("SELECT CAST(NULL AS {}INT{})", repeat("ARRAY<", 100), repeat(">", 100)),
        format!("SELECT arrow_cast(NULL, '{}Int8{}')", repeat("List(", 3_000), repeat(")", 3_000)),
        format!("SELECT arrow_cast(NULL, '{}Int8{}')", repeat("List(", 80_000), repeat(")", 80_000)),
        format!("SELECT {}1{}", repeat("[", 40), repeat("]", 40)),
        // An error at the end of a long text.
        format!("SELECT 1{} FROM FROM", repeat(" + 1", 200_000)),
        format!("SELECT 1{}", repeat(",1", 5_000)),
        "x".repeat(2 << 20),
    ] {
        assert_eq!(fails(&*session, &sql).await.kind(), ErrorKind::InvalidStatement, "{}", &sql[..30]);
    }
    let list = format!("SELECT 1 IN (2{})", repeat(", -1", 10_000));
    assert_eq!(run(&*session, &list).await, ["false"]);
    let cases = format!("SELECT max(CASE {} END){from}", repeat("WHEN x = 1 THEN 7 ", 1_000));
    assert_eq!(run(&*session, &cases).await, ["7"]);
}

/// A pushed-down condition is expanded with the expressions of its columns.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_that_grow_out_of_a_short_text() {
    let mut pod = Pod::new();
    pod.options.query_timeout = Duration::from_secs(20);
    let session = pod.session().await;
    let steps: String = (1..60).map(|n| format!(", t{n} AS (SELECT c + c AS c FROM t{})", n - 1)).collect();
    let sql = format!("WITH t0 AS (SELECT value AS c FROM generate_series(1, 2)){steps} SELECT * FROM t59 WHERE c > 0");
    let error = fails(&*session, &sql).await;
    assert!(error.to_string().starts_with("a condition of the statement"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_spilled_lies_in_a_private_directory_within_a_limit() {
    use std::os::unix::fs::PermissionsExt;

    let mut pod = Pod::new();
    pod.options.memory_limit = 16 << 20;
    pod.options.spill_directory = Some(pod.path());
    pod.options.spill_limit = 1 << 20;
    let engine = pod.start();
    let directory = std::fs::read_dir(pod.path()).unwrap().next().unwrap().unwrap();
    assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let session = crate::session(&engine).await;
    let sort = "SELECT * FROM (SELECT repeat(md5(value::text), 16) AS x FROM generate_series(1, 80000)) ORDER BY x";
    assert_eq!(fails(&*session, sort).await.kind(), ErrorKind::Exhausted);
    drop((session, engine));
    tokio::time::timeout(Duration::from_secs(10), async {
        while directory.path().exists() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it goes with the engine");
    pod.options.spill_directory = Some(pod.path().join("not-there"));
    let error = DataFusionEngine::start(pod.options.clone()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("nothing can be spilled to"), "{error}");
}

/// Views and common table expressions multiply the size of a short text.
#[tokio::test(flavor = "multi_thread")]
async fn plans_that_grow_out_of_a_short_text() {
    let session = Pod::new().session().await;
    let doubling: Vec<String> =
        (1..40).map(|n| format!("t{n} AS (SELECT count(*) AS c FROM t{} l, t{} r)", n - 1, n - 1)).collect();
    let sql = format!("WITH t0 AS (SELECT 1 AS c), {} SELECT * FROM t39", doubling.join(", "));
    let error = fails(&*session, &sql).await;
    assert_eq!(error.kind(), ErrorKind::InvalidStatement, "{error}");
    assert!(error.to_string().starts_with("the common table expressions"), "{error}");

    run(&*session, "CREATE VIEW v0 AS SELECT 1 AS c").await;
    let mut last = String::new();
    for n in 1..400 {
        let sql = format!("CREATE VIEW v{n} AS SELECT c + 1 AS c FROM v{}", n - 1);
        if let Err(error) = crate::rows(&*session, &sql).await {
            last = error.to_string();
            break;
        }
    }
    assert!(last.contains("the plan of the statement"), "{last}");
}

fn numbered(n: usize, part: &str) -> String {
    (0..n).map(|at| part.replace('#', &at.to_string())).collect()
}

/// In-memory rows are returned unchanged and in order, without a task, in batches as large as one message allows.
#[tokio::test(flavor = "multi_thread")]
async fn rows_in_memory_are_handed_out_as_they_lie() {
    let mut pod = Pod::new();
    pod.options.query_timeout = Duration::from_millis(500);
    let engine = pod.start();
    let session = crate::session(&engine).await;
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..200_000));
    let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
    let table = TablePath { catalog: None, schema: None, name: "t".to_owned() };
    let rows = Execution::of(vec![batch]);
    let ingest = Ingest { table, if_missing: IfMissing::Create, if_exists: IfExists::Fail, rows, routine: false };
    let put = session.ingest(ingest).await.unwrap().execute(Parameters::none()).await.unwrap();
    assert!(put.batches.all(async |batch| batch.is_ok()).await);

    let prepared = prepare(&*session, "SELECT * FROM t").await.unwrap();
    let sizes = |answer: Execution| answer.batches.map(|batch| batch.unwrap().num_rows()).collect::<Vec<_>>();
    let answer = prepared.execute(Parameters::none()).await.unwrap();
    assert_eq!(sizes(answer).await, [65_536, 65_536, 65_536, 3_392]);
    let before = crate::queries().metrics().num_alive_tasks();
    let mut answer = prepared.execute(Parameters::none()).await.unwrap();
    until_tasks(before).await;
    let first = answer.batches.next().await.unwrap().unwrap();
    assert_eq!(first.column(0).as_primitive::<Int64Type>().values()[..3], [0, 1, 2]);

    // Its deadline expires even if the client does not fetch: later statements have timed out by then.
    for _ in 0..2 {
        assert_eq!(fails(&*session, ENDLESS).await.kind(), ErrorKind::Timeout);
    }
    assert_eq!(answer.batches.next().await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    assert!(answer.batches.next().await.is_none());

    // A batch size that the session requests is respected.
    assert!(run(&*session, "SET datafusion.execution.batch_size = 50000").await.is_empty());
    let prepared = prepare(&*session, "SELECT * FROM t").await.unwrap();
    assert!(sizes(prepared.execute(Parameters::none()).await.unwrap()).await.iter().all(|rows| *rows <= 50_000));
}

/// An operator that repeats wide rows makes small batches of them, whatever the operator.
#[tokio::test(flavor = "multi_thread")]
async fn wide_rows_are_not_repeated_by_the_thousand() {
    const ROW: usize = 100_000;
    let mut pod = Pod::new();
    pod.options.memory_limit = 64 << 20;
    let session = pod.session().await;
    let wide = format!("(SELECT repeat('a', {ROW}) AS x, 1 AS k)");
    let list = format!("(SELECT range(0, {ROW}) AS x, 1 AS k)");
    let many = "(SELECT value AS v, 1 AS k FROM generate_series(1, 2000))";
    for from in [
        format!("{wide} s, {many} t"),
        format!("{list} s, {many} t"),
        format!("{many} t, {wide} s"),
        format!("{wide} s JOIN {many} t ON s.k = t.k"),
        format!("{many} t JOIN {wide} s ON s.k = t.k"),
        format!("{wide} s JOIN {many} t ON s.k <= t.v"),
        format!("{wide} s LEFT JOIN {many} t ON s.k <= t.v"),
        format!("{many} t FULL JOIN {list} s ON s.k = t.k"),
        format!("(SELECT (SELECT repeat('a', {ROW})) AS x FROM {many}) s"),
    ] {
        let answer = prepare(&*session, &format!("SELECT s.x FROM {from}")).await.unwrap();
        let mut answer = answer.execute(Parameters::none()).await.unwrap();
        let (mut rows, mut most) = (0, 0);
        while let Some(batch) = answer.batches.next().await {
            let batch = batch.unwrap();
            rows += batch.num_rows();
            most = most.max(batch.get_array_memory_size());
        }
        assert_eq!(rows, 2000, "{from}");
        assert!(most <= 16 << 20, "{from}: a batch of {most} bytes");
    }
}

/// A wide row that comes after the first rows of the result, or in an INSERT, where a statement cannot start again.
#[tokio::test(flavor = "multi_thread")]
async fn a_wide_row_that_comes_late_is_no_error() {
    let mut pod = Pod::new();
    pod.options.memory_limit = 1 << 30;
    let session = pod.session().await;
    let wide = |at: usize, rows: usize| {
        let text = format!("CASE WHEN value = {at} THEN repeat('x', 300000) ELSE 'y' END");
        format!("(SELECT value AS v, {text} AS t FROM range({rows}))")
    };
    let join = format!("{} a JOIN (SELECT value AS v FROM range(1000)) b ON a.v % 1000 = b.v", wide(90_000, 100_000));
    assert_eq!(
        run(&*session, &format!("SELECT count(*), max(length(t)) FROM (SELECT t FROM {join})")).await,
        ["100000 | 300000"]
    );
    let answer = prepare(&*session, &format!("SELECT t FROM {join}")).await.unwrap();
    let batches = answer.execute(Parameters::none()).await.unwrap().batches;
    let rows = batches.map(|batch| batch.unwrap().num_rows()).fold(0, async |sum, rows| sum + rows).await;
    assert_eq!(rows, 100_000);
    run(&*session, "CREATE TABLE m (v bigint, t text)").await;
    let join = format!("{} a JOIN (SELECT value AS v FROM range(10)) b ON a.v = b.v", wide(9, 10));
    run(&*session, &format!("INSERT INTO m SELECT a.v, t FROM {join}")).await;
    assert_eq!(run(&*session, "SELECT count(*), max(length(t)) FROM m").await, ["10 | 300000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_of_sort_keys_are_refused() {
    let session = Pod::new().session().await;
    let keys = |count: usize| (0..count).map(|at| format!("a + {at}")).collect::<Vec<_>>().join(", ");
    for list in ["ORDER BY", "GROUP BY k ORDER BY"] {
        let select = if list == "ORDER BY" { "SELECT a FROM t" } else { "SELECT max(a) AS a FROM t" };
        let sql = format!("WITH t AS (SELECT 1 AS a, 2 AS k) {select} {list} {}", keys(480));
        let error = fails(&*session, &sql).await;
        assert!(error.to_string().contains("sorts or partitions by too many"), "{error}");
    }
    let window = format!("SELECT row_number() OVER (PARTITION BY {}) FROM (SELECT 1 AS a)", keys(480));
    assert!(fails(&*session, &window).await.to_string().contains("sorts or partitions by too many"));
    run(&*session, &format!("SELECT a FROM (SELECT 1 AS a) ORDER BY {}", keys(40))).await;
}

//! How data sets start, fail, recover and are listed.

use spiced_datafusion::{DataFusionEngine, DatasetSpec};
use spiced_engine::{DatasetState, Engine};

use crate::{Pod, column, fails, run, session, until};

#[tokio::test(flavor = "multi_thread")]
async fn one_that_heals_comes_by_itself_and_hurts_no_other() {
    let mut pod = Pod::new();
    pod.write("good.csv", "a\n1\n");
    pod.dataset("good", "file:good.csv").dataset("late", "file:late.csv");
    let engine = pod.start();
    let session = session(&engine).await;
    let failed = until(&engine, 1, |state| matches!(state, DatasetState::Failed { .. })).await;
    let DatasetState::Failed { next_attempt, .. } = failed else { unreachable!() };
    assert!(next_attempt > std::time::SystemTime::now() - std::time::Duration::from_secs(5));
    until(&engine, 0, |state| *state == DatasetState::Ready).await;
    assert_eq!(run(&*session, "SELECT * FROM good").await, ["1"]);
    assert_eq!(run(&*session, "SHOW TABLES").await.iter().filter(|row| row.contains("late")).count(), 0);
    fails(&*session, "SELECT * FROM late").await;

    pod.write("late.csv", "a\n2\n");
    until(&engine, 1, |state| *state == DatasetState::Ready).await;
    assert_eq!(run(&*session, "SELECT * FROM late").await, ["2"]);
    let status = engine.datasets().borrow()[1].clone();
    assert_eq!((status.name.as_str(), status.from.as_str(), status.writable), ("late", "file:late.csv", false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_waits_for_the_first_load() {
    let mut pod = Pod::new();
    pod.write("a.csv", "a\n1\n");
    pod.dataset("a", "file:a.csv");
    for _ in 0..20 {
        assert_eq!(run(&*pod.session().await, "SELECT * FROM a").await, ["1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_work_is_said_at_once() {
    let mut pod = Pod::new();
    pod.dataset("a", "flie:x.csv").dataset("b", "x.csv").dataset("c", "flightsql:t");
    pod.dataset("d", "file:x.csv").dataset("d", "file:y.csv").dataset("public.d", "file:z.csv");
    pod.dataset("e f", "file:x.csv").dataset("g", "memory:");
    pod.dataset("h", "file:x.csv").params(&[
        ("file_formt", "csv"),
        ("csv_delimiter", "ab"),
        ("csv_has_header", "maybe"),
    ]);
    pod.dataset("i", "file:x.csv").params(&[("file_format", "xlsx"), ("file_compression_type", "gzip")]);
    pod.dataset("j", "file:").dataset("k", "file:a/*/b.csv").dataset("l", "memory:x");
    let bad = DatasetSpec {
        columns: vec![
            column("a", "NOTATYPE", true),
            column("b", "INT) , (SELECT 1", true),
            column("c", "DECIMAL(10, 2)", false),
            column("c", "TIMESTAMP", false),
        ],
        ..DatasetSpec::new("m", "memory:", pod.path())
    };
    pod.options.datasets.push(bad);
    pod.dataset("n", "file:x.csv");
    pod.options.datasets.last_mut().unwrap().writable = true;
    let error = DataFusionEngine::start(pod.options.clone()).map(|_| ()).unwrap_err();
    let expected = [
        "data set `a`: from: there is no connector `flie` (the nearest is `file`); there are `file`, `memory`, `postgres`",
        "data set `b`: from: `x.csv` names no connector; it begins with one of `file:`, `memory:`, `postgres:`",
        "data set `c`: params: `flightsql_endpoint` is missing",
        "data set `d`: name: another table has the same",
        "data set `public.d`: name: another table has the same",
        "data set `e f`: name: `e f` holds ' '; letters, digits, `_`, `-` and `$` may stand in a name",
        "data set `g`: columns: a `memory:` data set needs at least one",
        "data set `h`: params: the connector `file` does not know `file_formt` (the nearest is `file_format`)",
        "data set `h`: params: `csv_has_header` wants `true` or `false`",
        "data set `h`: params: `csv_delimiter` wants one ASCII character",
        "data set `i`: params: `file_format` wants `parquet`, `csv`",
        "data set `i`: params: `file_compression_type` wants `uncompressed`",
        "data set `j`: from: no path stands after `file:`",
        "data set `k`: from: `a/*/b.csv` has a wildcard in the name of a folder",
        "data set `l`: from: nothing stands after `memory:`",
        "data set `l`: columns: a `memory:` data set needs at least one",
        "data set `m`: columns: the type of `a`, `NOTATYPE`, is none that SQL knows here",
        "data set `m`: columns: the type of `b`, `INT) , (SELECT 1`, is none that SQL knows here",
        "data set `m`: columns: `c` is there twice",
        "data set `n`: access: the connector `file` cannot write; say `access: read`",
    ];
    for (cause, start) in error.causes().iter().zip(expected) {
        assert!(cause.to_string().starts_with(start), "{cause}\n  is not\n{start}");
    }
    assert_eq!(error.causes().len(), expected.len(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_lists_what_is_there() {
    let mut pod = Pod::new();
    pod.memory("b", true).memory("a", false).memory("sales.orders", false).dataset("gone", "file:gone.csv");
    let engine = pod.start();
    for index in 0..3 {
        until(&engine, index, |state| *state == DatasetState::Ready).await;
    }
    let session = session(&engine).await;
    run(&*session, "CREATE VIEW v AS SELECT 1 AS one").await;
    run(&*session, "CREATE SCHEMA empty").await;
    let catalog = session.catalog().await.unwrap();
    let schemas: Vec<String> = catalog.schemas.iter().map(|(c, s)| format!("{c}.{s}")).collect();
    assert_eq!(schemas, ["spice.empty", "spice.public", "spice.sales"]);
    let tables: Vec<String> =
        catalog.tables.iter().map(|t| format!("{}.{}.{} {}", t.catalog, t.schema, t.name, t.kind)).collect();
    assert_eq!(
        tables,
        [
            "spice.public.a BASE TABLE",
            "spice.public.b BASE TABLE",
            "spice.public.v VIEW",
            "spice.sales.orders BASE TABLE"
        ]
    );
    assert_eq!(catalog.tables[0].columns.field(0).to_string(), "Field { \"id\": Int64 }");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_tables_take_rows_and_keep_their_rules() {
    let mut pod = Pod::new();
    pod.memory("m", true);
    let engine = pod.start();
    let (one, two) = (session(&engine).await, session(&engine).await);
    for id in 0..50 {
        assert_eq!(run(&*one, &format!("INSERT INTO m VALUES ({id}, 'x')")).await, ["1"]);
    }
    assert_eq!(run(&*two, "SELECT count(*), sum(id) FROM m").await, ["50 | 1225"]);
    assert_eq!(run(&*two, "INSERT INTO m (id) SELECT id FROM m").await, ["50"]);
    assert_eq!(run(&*one, "SELECT count(*), count(name) FROM m").await, ["100 | 50"]);
    for sql in
        ["INSERT INTO m VALUES (NULL, 'x')", "INSERT INTO m VALUES ('no number', 'x')", "INSERT INTO m VALUES (1)"]
    {
        assert_eq!(fails(&*one, sql).await.kind(), spiced_engine::ErrorKind::InvalidStatement, "{sql}");
    }
    assert_eq!(run(&*one, "SELECT count(*) FROM m").await, ["100"]);
    run(&*one, "CREATE TABLE d (a INT DEFAULT 7, b INT)").await;
    run(&*one, "INSERT INTO d (b) VALUES (1)").await;
    assert_eq!(run(&*two, "SELECT * FROM d").await, ["7 | 1"]);
}

//! UPDATE, DELETE and TRUNCATE of in-memory tables. `conformance` compares their semantics with DuckDB's results.

use spiced_engine::ErrorKind;

use crate::{Pod, fails, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_fails_changes_nothing() {
    let mut pod = Pod::new();
    pod.memory("m", true);
    let session = pod.session().await;
    run(&*session, "INSERT INTO m VALUES (1, 'a'), (2, 'b'), (0, 'c')").await;
    for (sql, words) in [
        ("UPDATE m SET id = 10 / id", "divide by zero"),
        ("UPDATE m SET id = NULL WHERE id = 2", "non-nullable"),
        ("UPDATE m SET name = name", "the value that it has"),
        ("DELETE FROM m WHERE 10 / id > 0", "divide by zero"),
    ] {
        let error = fails(&*session, sql).await;
        assert_eq!(error.kind(), ErrorKind::InvalidStatement, "{sql}: {error}");
        assert!(error.to_string().contains(words), "{sql}: {error}");
        assert_eq!(run(&*session, "SELECT id, name FROM m ORDER BY id").await, ["0 | c", "1 | a", "2 | b"], "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_no_change_says_so() {
    let mut pod = Pod::new();
    pod.memory("m", true).dataset("f", "file:f.csv").write("f.csv", "a,b\n1,x\n");
    pod.options.datasets[1].writable = false;
    let session = pod.session().await;
    run(&*session, "CREATE VIEW v AS SELECT 1 AS a").await;
    let error = fails(&*session, "DELETE FROM v").await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(error.to_string(), "`v` takes no DELETE: tables in memory and those of PostgreSQL do");
    run(&*session, "INSERT INTO m VALUES (1, 'a'), (2, 'b')").await;
    for sql in [
        "UPDATE m RIGHT JOIN f ON m.id = f.a SET name = 'x'",
        "UPDATE m CROSS JOIN f SET name = f.b",
        "UPDATE m TABLESAMPLE SYSTEM (1) SET name = 'x'",
        "DELETE FROM m PARTITION (p0)",
        "DELETE FROM m TABLESAMPLE SYSTEM (1)",
        "PREPARE p AS DELETE FROM m PARTITION (p0)",
        "EXPLAIN DELETE FROM m PARTITION (p0)",
    ] {
        let error = fails(&*session, sql).await;
        assert!(error.to_string().contains("the name of a table alone"), "{sql}: {error}");
    }
    assert_eq!(run(&*session, "SELECT name FROM m ORDER BY id").await, ["a", "b"]);
    let error = fails(&*session, "MERGE INTO m USING f ON m.id = f.a WHEN MATCHED THEN DELETE").await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("no MERGE here"), "{error}");
}

/// An update does not overwrite rows that another statement has changed since they were read.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_changes_at_once_none_is_lost() {
    let mut pod = Pod::new();
    pod.memory("m", true);
    let engine = pod.start();
    let session = crate::session(&engine).await;
    run(&*session, "INSERT INTO m VALUES (0, 'n')").await;
    let writers = (0..8).map(|_| {
        let engine = &engine;
        async move {
            let session = crate::session(engine).await;
            let mut done = 0;
            while done < 20 {
                match crate::rows(&*session, "UPDATE m SET id = id + 1").await {
                    Ok(rows) => {
                        assert_eq!(rows, ["1"]);
                        done += 1;
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
                }
            }
        }
    });
    futures::future::join_all(writers).await;
    assert_eq!(run(&*session, "SELECT id FROM m").await, ["160"]);
}

/// Rows keep their positions however their batches are split, and deleted rows release their memory.
#[tokio::test(flavor = "multi_thread")]
async fn large_tables() {
    let mut pod = Pod::new();
    pod.options.memory_limit = 64 << 20;
    pod.memory("m", true);
    let session = pod.session().await;
    for turn in 0..12 {
        let filled = "INSERT INTO m SELECT value, repeat('x', 100) FROM generate_series(1, 100000)";
        assert_eq!(run(&*session, filled).await, ["100000"], "turn {turn}");
        let sql = "UPDATE m SET name = 'y' || CAST(id AS VARCHAR), id = -id WHERE id % 10 = 3";
        assert_eq!(run(&*session, sql).await, ["10000"]);
        let sums = "SELECT count(*), sum(id), count(DISTINCT name) FROM m";
        // The sum of 1 to 100,000 is 5,000,050,000; each tenth of the rows is about 500 million, negated.
        assert_eq!(run(&*session, sums).await, ["100000 | 4000090000 | 10001"]);
        assert_eq!(run(&*session, "SELECT name FROM m WHERE id = -77773").await, ["y77773"]);
        assert_eq!(run(&*session, "DELETE FROM m WHERE id < 0").await, ["10000"]);
        assert_eq!(run(&*session, "DELETE FROM m WHERE id < 0").await, ["0"]);
        assert_eq!(run(&*session, "TRUNCATE TABLE m").await, ["90000"]);
        assert_eq!(run(&*session, sums).await, ["0 |  | 0"]);
    }
}

/// A value that a column cannot hold is an error that names the column; only floats, decimals and times are rounded.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_column_cannot_hold_is_not_written() {
    let session = Pod::new().session().await;
    run(&*session, "CREATE TABLE w (s smallint, i int, r real, d decimal(5, 2), b bigint, f double, t text)").await;
    for sql in [
        "INSERT INTO w (s) VALUES (1.9)",
        "INSERT INTO w (s) VALUES (1), (1.9)",
        "INSERT INTO w (i, s) VALUES (1, 70000)",
        "INSERT INTO w (i) SELECT 33.7",
        "INSERT INTO w (i) SELECT x FROM (VALUES (33.7)) v(x)",
        "INSERT INTO w (r) VALUES (1e39)",
        "INSERT INTO w (d) VALUES (1000.5)",
        "INSERT INTO w (i) VALUES (true)",
        "INSERT INTO w (i) VALUES (date '2024-01-01')",
        "INSERT INTO w (f) VALUES (9007199254740993)",
    ] {
        let error = fails(&*session, sql).await;
        assert_eq!(error.kind(), ErrorKind::InvalidStatement, "{sql}: {error}");
        assert!(!error.to_string().contains("33.7"), "{sql}: {error}");
    }
    assert_eq!(run(&*session, "SELECT count(*) FROM w").await, ["0"]);
    let error = fails(&*session, "INSERT INTO w (t, i) VALUES ('a', 33.7)").await;
    assert!(error.to_string().contains("the column `i`"), "{error}");
    run(&*session, "INSERT INTO w VALUES (2.0, '7', 0.1, 1.005, 9007199254740993.0, 3.14159265358979323846, 5)").await;
    assert_eq!(run(&*session, "SELECT s, i, r, d, b, t FROM w").await, ["2 | 7 | 0.1 | 1.01 | 9007199254740993 | 5"]);
    // A cast is the statement's own will, and rows of a query have the types of the query.
    run(&*session, "INSERT INTO w (i, t) VALUES (CAST(33.7 AS int), 'cast')").await;
    run(&*session, "INSERT INTO w (i, t) SELECT x * 10, 'query' FROM (VALUES (33.7)) v(x)").await;
    run(&*session, "INSERT INTO w (i) SELECT x FROM (VALUES (1, 'a'), (2, 'b')) v(x, y) WHERE y = 'b'").await;
    run(&*session, "UPDATE w SET s = CAST(2.5 AS smallint) WHERE t = 'cast'").await;
    let rows = run(&*session, "SELECT s, i, t FROM w WHERE t <> '5' OR t IS NULL ORDER BY i").await;
    assert_eq!(rows, [" | 2 |", "2 | 33 | cast", " | 337 | query"]);
    run(&*session, "DELETE FROM w WHERE t <> '5' OR t IS NULL").await;
    for sql in ["UPDATE w SET s = 2.5", "UPDATE w SET i = i + 0.5", "UPDATE w SET r = 1e39"] {
        let error = fails(&*session, sql).await;
        assert!(error.to_string().contains("does not fit"), "{sql}: {error}");
    }
    run(&*session, "UPDATE w SET s = i + 1.0, d = 2, i = NULL").await;
    assert_eq!(run(&*session, "SELECT s, i, d FROM w").await, ["8 |  | 2.00"]);
}

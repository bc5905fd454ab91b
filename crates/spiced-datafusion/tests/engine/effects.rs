//! The effect that each kind of statement is classified as.

use spiced_engine::{Effect, ErrorKind};

use crate::{Pod, effect, fails, prepare, run};

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_statement() {
    let mut pod = Pod::new();
    pod.memory("m", true).dataset("f", "file:f.csv");
    pod.write("f.csv", "a,b\n1,x\n");
    pod.options.host_paths = vec![pod.path()];
    let session = pod.session().await;
    let out = pod.path().join("out.parquet").display().to_string();
    let csv = pod.path().join("f.csv").display().to_string();

    let cases = [
        ("SELECT 1", Effect::Read),
        ("VALUES (1), (2)", Effect::Read),
        ("SELECT * FROM m WHERE id IN (SELECT a FROM f) ORDER BY 1 LIMIT 3", Effect::Read),
        ("SELECT DISTINCT a, rank() OVER (ORDER BY a) FROM f JOIN m ON a = id", Effect::Read),
        ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT * FROM r", Effect::Read),
        ("SELECT unnest([1, 2])", Effect::Read),
        ("SELECT * FROM generate_series(1, 3)", Effect::Read),
        ("SELECT a FROM f UNION SELECT id FROM m EXCEPT SELECT 1", Effect::Read),
        ("SELECT count(*), b FROM f GROUP BY ROLLUP (b) HAVING count(*) > 0", Effect::Read),
        ("SELECT * FROM f WHERE EXISTS (SELECT 1 FROM m WHERE id = a)", Effect::Read),
        ("SHOW TABLES", Effect::Read),
        ("SHOW ALL", Effect::Read),
        ("SHOW COLUMNS FROM m", Effect::Read),
        ("DESCRIBE m", Effect::Read),
        ("SELECT * FROM information_schema.tables", Effect::Read),
        ("EXPLAIN SELECT 1", Effect::Read),
        ("EXPLAIN VERBOSE SELECT * FROM m", Effect::Read),
        ("EXPLAIN INSERT INTO m VALUES (1, 'a')", Effect::Read),
        ("EXPLAIN DELETE FROM m", Effect::Read),
        ("EXPLAIN ANALYZE SELECT * FROM m", Effect::Read),
        ("EXPLAIN ANALYZE INSERT INTO m VALUES (1, 'a')", Effect::Write),
        ("EXPLAIN ANALYZE VERBOSE DELETE FROM m", Effect::Write),
        ("INSERT INTO m VALUES (1, 'a')", Effect::Write),
        ("INSERT INTO m SELECT a, b FROM f", Effect::Write),
        ("INSERT OVERWRITE m VALUES (1, 'a')", Effect::Write),
        ("UPDATE m SET name = 'x' WHERE id = 1", Effect::Write),
        ("DELETE FROM m", Effect::Write),
        ("TRUNCATE TABLE m", Effect::Write),
        ("INSERT INTO m WITH w AS (SELECT 1 AS id) SELECT id, 'a' FROM w", Effect::Write),
        ("CREATE TABLE t (a INT)", Effect::Ddl),
        ("CREATE TABLE t AS SELECT * FROM m", Effect::Ddl),
        ("CREATE OR REPLACE VIEW v AS SELECT * FROM m", Effect::Ddl),
        ("CREATE SCHEMA s", Effect::Ddl),
        ("CREATE DATABASE d", Effect::Ddl),
        ("DROP TABLE IF EXISTS t", Effect::Ddl),
        ("DROP VIEW IF EXISTS v", Effect::Ddl),
        ("DROP SCHEMA IF EXISTS s", Effect::Ddl),
        ("SET datafusion.execution.time_zone = '+02:00'", Effect::Session),
        ("SET TIME ZONE = '+02:00'", Effect::Session),
        ("RESET datafusion.execution.time_zone", Effect::Session),
        ("PREPARE p AS SELECT $1 + 1", Effect::Session),
        ("PREPARE p AS INSERT INTO m VALUES ($1, 'a')", Effect::Write),
        ("DEALLOCATE p", Effect::Session),
        (&format!("COPY m TO '{out}'"), Effect::Admin),
        (&format!("COPY (SELECT 1) TO '{out}' STORED AS PARQUET"), Effect::Admin),
        (&format!("EXPLAIN COPY m TO '{out}'"), Effect::Read),
        (&format!("EXPLAIN ANALYZE COPY m TO '{out}'"), Effect::Admin),
        (&format!("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '{csv}'"), Effect::Admin),
        ("CREATE FUNCTION f1(INT) RETURNS INT RETURN $1 + 1", Effect::Admin),
        ("DROP FUNCTION IF EXISTS abs", Effect::Admin),
    ];
    for (sql, expected) in cases {
        assert_eq!(effect(&*session, sql).await, expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn execute_is_what_was_prepared_under_its_name() {
    let mut pod = Pod::new();
    pod.memory("m", true);
    let engine = pod.start();
    let session = crate::session(&engine).await;
    run(&*session, "PREPARE w(BIGINT) AS INSERT INTO m VALUES ($1, 'a')").await;
    run(&*session, "PREPARE r AS SELECT count(*) FROM m").await;
    assert_eq!(effect(&*session, "EXECUTE w(1)").await, Effect::Write);
    assert_eq!(effect(&*session, "EXECUTE r").await, Effect::Read);
    assert_eq!(run(&*session, "EXECUTE r").await, ["0"], "preparing EXECUTE ran it");
    assert_eq!(run(&*session, "EXECUTE w(7)").await, ["1"]);
    assert_eq!(run(&*session, "EXECUTE r").await, ["1"]);
    run(&*session, "DEALLOCATE r").await;
    let gone = fails(&*session, "EXECUTE r").await;
    assert_eq!(gone.kind(), ErrorKind::InvalidStatement);
    assert_eq!(gone.to_string(), "prepared statement 'r' does not exist");

    let other = crate::session(&engine).await;
    assert_eq!(fails(&*other, "EXECUTE w(1)").await.kind(), ErrorKind::InvalidStatement);
}

/// DataFusion 55 deletes rows during planning; this engine must not.
#[tokio::test(flavor = "multi_thread")]
async fn explaining_a_change_changes_nothing() {
    let mut pod = Pod::new();
    pod.memory("m", true);
    let session = pod.session().await;
    run(&*session, "INSERT INTO m VALUES (1, 'a'), (2, 'b')").await;
    run(&*session, "CREATE TABLE t AS SELECT * FROM m").await;
    for table in ["m", "t"] {
        for statement in ["DELETE FROM {}", "INSERT INTO {} VALUES (3, 'c')", "UPDATE {} SET name = 'x'", "TRUNCATE {}"]
        {
            let statement = statement.replace("{}", table);
            run(&*session, &format!("EXPLAIN {statement}")).await;
            prepare(&*session, &statement).await.unwrap();
        }
        assert_eq!(run(&*session, &format!("SELECT count(*) FROM {table}")).await, ["2"], "{table}");
    }
    assert_eq!(fails(&*session, "INSERT OVERWRITE m VALUES (1, 'a')").await.kind(), ErrorKind::Unsupported);
}

//! Conditions with NULLs: each row belongs to exactly one of the parts true, false and unknown, and to the right one.

use crate::{Pod, rows, run};

/// Rows with and without NULLs. The expectations refer to them by id.
const ROWS: &str = "(VALUES (1, 5, NULL), (2, 2, 2), (3, NULL, 4), (4, 1, 1), (5, 9, 5)) t(id, a, b)";

/// The ids of the [`ROWS`] for which a condition is true in PostgreSQL 17.
const TRUE: &[(&str, &[i64])] = &[
    ("a NOT IN (1, id) OR a NOT IN (b, 2)", &[1, 5]),
    ("a NOT IN (1, 2) OR a NOT IN (3, 4)", &[1, 2, 4, 5]),
    ("NOT (a IN (1, 2) AND a IN (3, 4))", &[1, 2, 4, 5]),
    ("(a IN (1, 2) AND a IN (3, 4)) IS NULL", &[3]),
    ("(a NOT IN (1, 2) OR a NOT IN (3, 4)) IS NULL", &[3]),
    ("a IN (1, b) AND a IN (2, id)", &[2]),
    ("a IN (1, b) AND a NOT IN (2, b)", &[]),
    ("a IN (1, 2, 5) AND a NOT IN (2) AND a IN (5, 1)", &[1, 4]),
    ("a NOT IN (1, NULL)", &[]),
    ("a IN (1, NULL)", &[4]),
    ("a NOT IN (1, NULL) OR a NOT IN (2, NULL)", &[]),
    ("(a IN (9, NULL)) IS NULL", &[1, 2, 3, 4]),
    ("a IN (1, 2) OR a IN (9)", &[2, 4, 5]),
    ("a NOT IN (1) AND a NOT IN (2)", &[1, 5]),
    ("a IN (1) AND b > 0 AND a IN (1, 2)", &[4]),
    ("a NOT IN (SELECT b FROM u) OR a > 100", &[]),
    ("a NOT IN (SELECT b FROM u WHERE b IS NOT NULL) OR a > 100", &[2, 5]),
    ("a NOT IN (SELECT b FROM u WHERE false) OR a > 100", &[1, 2, 3, 4, 5]),
    ("a IN (SELECT b FROM u) OR b = 2", &[1, 2, 4]),
    ("(a IN (SELECT b FROM u)) IS NULL", &[2, 3, 5]),
    ("CASE WHEN a IN (SELECT b FROM u) THEN true ELSE id = 3 END", &[1, 3, 4]),
    ("a NOT IN (SELECT b FROM u)", &[]),
    ("a NOT IN (SELECT b FROM u WHERE u.b > t.id)", &[2, 4, 5]),
    ("a IN (CASE WHEN a > 4 THEN 1 ELSE a END, 2)", &[2, 4]),
    ("a IS DISTINCT FROM b AND id < 4", &[1, 3]),
    ("a IS NOT DISTINCT FROM b AND id > 2", &[4]),
    ("id = 5 OR a IS NOT DISTINCT FROM b AND id > 2", &[4, 5]),
];

/// More conditions, for which the test checks only that they divide the rows into three parts.
const MORE: &[&str] = &[
    "a IN (1, id) OR a NOT IN (b, 2)",
    "a NOT IN (b, NULL) AND a IN (1, 2, 5, 9)",
    "a IN (b, 1) OR b IN (a, 2) OR a NOT IN (5)",
    "a IN (SELECT b FROM u WHERE u.b > t.id) OR b IS NULL",
    "a NOT IN (SELECT b FROM u WHERE u.b >= t.id OR u.b IS NULL) OR b = 1",
    "(a NOT IN (SELECT b FROM u)) = (b = 1)",
    "a IS DISTINCT FROM b OR NOT b IS DISTINCT FROM id AND a > 1",
    "a BETWEEN b AND id OR a NOT IN (1, b)",
];

#[tokio::test]
async fn each_condition_is_true_of_the_rows_that_postgresql_names() {
    let session = Pod::new().session().await;
    let with = "WITH u(b) AS (VALUES (1), (5), (NULL))";
    for (condition, expected) in TRUE {
        let sql = format!("{with} SELECT id FROM {ROWS} WHERE {condition} ORDER BY id");
        let expected: Vec<String> = expected.iter().map(i64::to_string).collect();
        let found = run(&*session, &sql).await;
        let found: Vec<&str> = found.iter().map(|line| line.trim()).collect();
        assert_eq!(found, expected, "{condition}");
    }
}

#[tokio::test]
async fn each_row_is_in_one_of_three_parts() {
    let session = Pod::new().session().await;
    let with = "WITH u(b) AS (VALUES (1), (5), (NULL))";
    let conditions = TRUE.iter().map(|(condition, _)| condition).chain(MORE);
    for condition in conditions {
        let mut ids = Vec::new();
        for part in [format!("({condition})"), format!("NOT ({condition})"), format!("({condition}) IS NULL")] {
            let sql = format!("{with} SELECT id FROM {ROWS} WHERE {part}");
            ids.extend(rows(&*session, &sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")));
        }
        let mut ids: Vec<String> = ids.iter().map(|id| id.trim().to_owned()).collect();
        ids.sort();
        assert_eq!(ids, ["1", "2", "3", "4", "5"], "{condition}");
    }
}

/// IN and EXISTS as values, which have three.
#[tokio::test(flavor = "multi_thread")]
async fn subqueries_are_values_too() {
    let session = Pod::new().session().await;
    run(&*session, "CREATE TABLE v AS SELECT * FROM (VALUES (1, 'a'), (2, 'b'), (NULL, 'c')) t(a, g)").await;
    run(&*session, "CREATE TABLE u AS SELECT * FROM (VALUES (1, 'a'), (NULL, 'b'), (3, 'b')) t(b, h)").await;
    for (expr, expected) in [
        ("EXISTS (SELECT 1)", "true; true; true"),
        ("EXISTS (SELECT 1 FROM u WHERE b > 5)", "false; false; false"),
        ("NOT EXISTS (SELECT b FROM u WHERE h = g)", "false; false; true"),
        ("EXISTS (SELECT b FROM u WHERE h = g AND b = 3)", "false; true; false"),
        ("a IN (SELECT b FROM u)", "true; ; "),
        ("a NOT IN (SELECT b FROM u)", "false; ; "),
        ("a IN (SELECT b FROM u WHERE b IS NOT NULL)", "true; false; "),
        ("a IN (SELECT b FROM u WHERE b > 5)", "false; false; false"),
        ("a NOT IN (SELECT b FROM u WHERE b > 5)", "true; true; true"),
        ("a IN (SELECT b FROM u WHERE h = g)", "true; ; false"),
        ("CASE WHEN a IN (SELECT b FROM u) THEN 1 ELSE 0 END", "1; 0; 0"),
        ("(a IN (SELECT b FROM u)) IS NULL", "false; true; true"),
        ("1 IN (SELECT b FROM u) AND EXISTS (SELECT 1 FROM u)", "true; true; true"),
    ] {
        let sql = format!("SELECT {expr} FROM v ORDER BY g");
        assert_eq!(run(&*session, &sql).await.join("; "), expected, "{sql}");
    }
    for (sql, expected) in [
        ("SELECT EXISTS (SELECT 1), 1 IN (SELECT 2), (SELECT max(a) FROM v)", "true | false | 2"),
        ("SELECT x FROM (SELECT EXISTS (SELECT 1 FROM u WHERE h = g) AS x FROM v) WHERE x", "true; true"),
    ] {
        assert_eq!(run(&*session, sql).await.join("; "), expected, "{sql}");
    }
}

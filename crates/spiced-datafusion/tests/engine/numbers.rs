//! Numbers are never altered, and statements have PostgreSQL's semantics: a value out of its type's range is an error.

use spiced_engine::ErrorKind;

use crate::{Pod, fails, run};

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_its_type_is_an_error() {
    let session = Pod::new().session().await;
    run(&*session, "CREATE TABLE n (i int, b bigint, s smallint, u bigint unsigned, d decimal(38, 0))").await;
    let most = format!("'{}'::decimal(38, 0)", "9".repeat(38));
    let rows = format!("(2147483647, 9223372036854775807, 32767, 0, {most}), (1, 2, 3, 4, 5)");
    run(&*session, &format!("INSERT INTO n VALUES {rows}")).await;
    for expr in [
        "b + 1",
        "i * i * i * i",
        "-2 - b",
        "-(-b - 1)",
        "b * 2",
        "9223372036854775807 + 1",
        "2147483647::int + 1::int",
        "(0 - b - 1) / -1",
        "CAST(b AS int)",
        "abs(-b - 1)",
        "d + 1",
        "d * 10",
        "d - (0 - d)",
        "sum(b)",
        "sum(d)",
        "sum(DISTINCT b)",
        "sum(b) OVER (ORDER BY i)",
        "sum(b) OVER (ORDER BY i ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)",
        "count(*) FILTER (WHERE b + 1 > 0)",
    ] {
        let why = fails(&*session, &format!("SELECT {expr} AS v FROM n")).await;
        assert_eq!(why.kind(), ErrorKind::InvalidStatement, "{expr}: {why}");
    }
    for sql in [
        "SELECT i FROM n WHERE b + 1 > 0",
        "SELECT i FROM n ORDER BY b + 1",
        "SELECT s > 5, sum(b) FROM n GROUP BY s > 0",
        "SELECT n.i FROM n JOIN n m ON n.b + 1 = m.b",
        "UPDATE n SET b = b + 1",
        "SELECT CASE WHEN true THEN 9223372036854775807 ELSE 1 END + 1",
        "SELECT x + 1 FROM (SELECT 9223372036854775807 AS x)",
    ] {
        let why = fails(&*session, sql).await;
        assert_eq!(why.kind(), ErrorKind::InvalidStatement, "{sql}: {why}");
    }
    for (sql, expected) in [
        ("SELECT i + 1 AS v FROM n ORDER BY v", "2; 2147483648"),
        ("SELECT b - 1 AS v FROM n ORDER BY v", "1; 9223372036854775806"),
        ("SELECT b + NULL FROM n WHERE s = 3", ""),
        ("SELECT count(*) FROM n WHERE s + 1 > 4 AND s * 2 < 70000", "1"),
        ("SELECT b + 1 FROM n WHERE s = 3 GROUP BY b + 1 ORDER BY b + 1", "3"),
        ("SELECT sum(s + 1) FROM n", "32772"),
        ("SELECT CAST(b AS decimal(38, 0)) + 1 AS v FROM n ORDER BY v DESC LIMIT 1", "9223372036854775808"),
        ("WITH RECURSIVE r AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM r WHERE x < 4) SELECT sum(x) FROM r", "10"),
        ("SELECT i FROM n ORDER BY i LIMIT 2 - 1", "1"),
        ("SELECT s FROM n WHERE s IN (SELECT max(s) - 32764 FROM n)", "3"),
        // Neither intermediate sums nor the order matter.
        ("SELECT sum(x) FROM (VALUES (9223372036854775807), (1), (-5)) t(x)", "9223372036854775803"),
        (
            "SELECT sum(x) OVER (ORDER BY y ROWS BETWEEN CURRENT ROW AND CURRENT ROW) \
             FROM (VALUES (9223372036854775807, 1), (1, 2)) t(x, y) ORDER BY y",
            "9223372036854775807; 1",
        ),
        ("SELECT sum(x) FROM (VALUES (1, 1), (2, 1), (NULL, 2)) t(x, g) GROUP BY g ORDER BY g", "3;"),
        ("SELECT -9223372036854775808, 1 + 2 * 3 - 4 / 2 % 3, -7 % 3", "-9223372036854775808 | 5 | -1"),
        ("SELECT CASE WHEN false THEN 9223372036854775807 + 1 ELSE 7 END", "7"),
        ("SELECT (SELECT max(b) - 1 FROM n m WHERE m.i = n.i) FROM n WHERE n.s = 3", "1"),
    ] {
        assert_eq!(run(&*session, sql).await.join("; ").trim_end(), expected, "{sql}");
    }
    for (sql, expected) in [
        (
            "SELECT count(*) FROM (VALUES (date '9999-12-31'), (date '0001-01-01')) t(d) WHERE d - DATE '2024-01-01' > 0",
            "1",
        ),
        ("SELECT date '2024-03-01' - date '2024-02-28', -(date '2024-01-01' - date '2024-01-03') * 2", "2 | 4"),
        ("SELECT arrow_cast(date '2024-01-01', 'Date64')::timestamp", "2024-01-01T00:00:00"),
    ] {
        assert_eq!(run(&*session, sql).await.join("; "), expected, "{sql}");
    }
    let far = "SELECT arrow_cast(date '9999-12-31', 'Date64')::timestamp";
    assert_eq!(fails(&*session, far).await.kind(), ErrorKind::InvalidStatement);
    // The whole chain becomes one function.
    let chain = vec!["s"; 499].join(" + ");
    assert_eq!(run(&*session, &format!("SELECT {chain} FROM n WHERE s = 3")).await, ["1497"]);
}

/// DataFusion drops one of two projections with the same list.
#[tokio::test(flavor = "multi_thread")]
async fn steps_that_list_the_same_are_all_done() {
    let session = Pod::new().session().await;
    for (sql, expected) in [
        ("SELECT x + x AS x FROM (SELECT x + x AS x FROM (SELECT x + x AS x FROM (VALUES (1), (3)) t(x)))", "8; 24"),
        ("SELECT x + x AS x FROM (SELECT x + x AS x FROM (VALUES (1), (3)) t(x)) WHERE x > 4", "12"),
        (
            "SELECT x AS y, y AS x FROM (SELECT x AS y, y AS x FROM (SELECT x AS y, y AS x FROM (VALUES (1, 2)) t(x, y)))",
            "1 | 2",
        ),
        (
            "SELECT x + 1 AS x FROM (SELECT x AS x FROM (SELECT x + 1 AS x FROM (SELECT x + 1 AS x FROM (VALUES (1)) t(x))))",
            "4",
        ),
    ] {
        assert_eq!(run(&*session, sql).await.join("; "), expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_mean_what_they_mean_in_postgresql() {
    let session = Pod::new().session().await;
    run(&*session, "CREATE TABLE cs (id int PRIMARY KEY, s varchar)").await;
    run(&*session, "INSERT INTO cs VALUES (1, 'a'), (2, 'b'), (3, NULL)").await;
    for (sql, expected) in [
        // The columns of both sides have the same name.
        ("SELECT id FROM cs WHERE s = ANY (SELECT s FROM cs WHERE id = 1)", "1"),
        ("SELECT id FROM cs WHERE s <> ALL (SELECT s FROM cs WHERE id = 1)", "2"),
        ("SELECT id FROM cs WHERE id > ANY (SELECT id FROM cs WHERE id > 1) ORDER BY id", "3"),
        ("SELECT id FROM cs WHERE id >= ALL (SELECT id FROM cs)", "3"),
        ("SELECT id FROM cs WHERE id < ANY (SELECT x.id FROM cs x WHERE x.id = cs.id + 1) ORDER BY id", "1; 2"),
        ("SELECT id FROM cs WHERE id > ALL (SELECT id FROM cs UNION SELECT 0) OR id = 1", "1"),
        ("SELECT id FROM cs WHERE id = ANY (ARRAY[2])", "2"),
        ("SELECT *, * FROM (VALUES (1, 2)) t(a, b)", "1 | 2 | 1 | 2"),
        ("SELECT t.a, *, u.* FROM (VALUES (1, 2)) t(a, b), (VALUES (3, 4)) u(a, c)", "1 | 1 | 2 | 3 | 4 | 3 | 4"),
        ("SELECT c SIMILAR TO 'a%', c NOT SIMILAR TO '_b' FROM (VALUES ('abc')) t(c)", "true | true"),
        ("SELECT 'a%' SIMILAR TO 'a#%' ESCAPE '#', 'ab' SIMILAR TO 'a#%' ESCAPE '#'", "true | false"),
        ("SELECT NULL::text SIMILAR TO 'a'", ""),
        ("SELECT count(*) FROM (SELECT c FROM (VALUES ('a', 'a|b'), ('c', 'a|b')) t(c, p) WHERE c SIMILAR TO p)", "1"),
    ] {
        assert_eq!(run(&*session, sql).await.join("; ").trim_end(), expected, "{sql}");
    }
    let listed = fails(&*session, "SELECT id >= ANY (SELECT id FROM cs) FROM cs").await;
    assert_eq!(listed.kind(), ErrorKind::Unsupported, "{listed}");
    for sql in ["SELECT c SIMILAR TO '(' FROM (VALUES ('a')) t(c)", "SELECT c SIMILAR TO c FROM (VALUES ('(')) t(c)"] {
        assert_eq!(fails(&*session, sql).await.kind(), ErrorKind::InvalidStatement, "{sql}");
    }
    // Keys are reported but not enforced, so no plan relies on them.
    run(&*session, "INSERT INTO cs VALUES (1, 'c')").await;
    assert_eq!(run(&*session, "SELECT DISTINCT id FROM cs WHERE id = 1").await, ["1"]);
    assert_eq!(fails(&*session, "SELECT id, s FROM cs GROUP BY id").await.kind(), ErrorKind::InvalidStatement);
    assert_eq!(run(&*session, "DELETE FROM cs WHERE s = ANY (SELECT s FROM cs WHERE s = 'c')").await, ["1"]);
}

/// Literals that a 64-bit float would change, in PostgreSQL's meaning: a number with a point is a decimal.
#[tokio::test(flavor = "multi_thread")]
async fn literals_are_the_numbers_that_are_written() {
    let session = Pod::new().session().await;
    run(&*session, "CREATE TABLE l (b bigint, u bigint unsigned, d decimal(38, 20), f double)").await;
    let rows = "(9007199254740993, 18446744073709551615, 0.12345678901234567890, 1e20), (5, 5, 5.5, 5.5)";
    run(&*session, &format!("INSERT INTO l VALUES {rows}")).await;
    for (sql, expected) in [
        ("SELECT 9007199254740992 = 9007199254740993.0, 9007199254740993 = 9007199254740992.0", "false | false"),
        ("SELECT 9007199254740993 > 9007199254740992.5, -9223372036854775808 > -9223372036854775809", "true | true"),
        (
            "SELECT 1152921504606847000 = 1152921504606847000.0, 1152921504606846976 = 1152921504606847000.0",
            "true | false",
        ),
        ("SELECT b FROM l WHERE b = 9007199254740992.0", ""),
        ("SELECT b FROM l WHERE b > 9007199254740992.0", "9007199254740993"),
        ("SELECT b FROM l WHERE b BETWEEN 9007199254740992.5 AND 9007199254740993.0", "9007199254740993"),
        ("SELECT b FROM l WHERE b IN (9007199254740992.0, 5.0)", "5"),
        ("SELECT b FROM l WHERE b IS NOT DISTINCT FROM 9007199254740992.0", ""),
        ("SELECT b FROM l WHERE u = 18446744073709551616.0", ""),
        ("SELECT b FROM l WHERE u > 18446744073709551614.5", "9007199254740993"),
        ("SELECT b FROM l WHERE d = 0.12345678901234567", ""),
        ("SELECT b FROM l WHERE d = 0.12345678901234567890", "9007199254740993"),
        ("SELECT b FROM l WHERE d < 5.49999999999999999999", "9007199254740993"),
        // A decimal next to a float column is a float.
        ("SELECT b FROM l WHERE f > 3.14159265358979323846 ORDER BY b", "5; 9007199254740993"),
        ("SELECT b FROM l WHERE f = d", "5"),
        (
            "SELECT 99999999999999999999, 123456789012345678901234567890::decimal(38, 0)",
            "99999999999999999999 | 123456789012345678901234567890",
        ),
        ("SELECT CAST(12345678901234567.89 AS decimal(20, 2)), 1.005::decimal(5, 2)", "12345678901234567.89 | 1.01"),
        ("SELECT arrow_typeof(1.5), arrow_typeof(1e3), arrow_typeof(0.1 + 1)", "Float64 | Float64 | Float64"),
        ("SELECT round(3.14159265358979323846 * 2 * 5.0::double, 3)", "31.416"),
        ("SELECT count(*) FROM generate_series(1, 2 + 3 * 4)", "14"),
        ("SELECT count(*) FROM generate_series(-(2), 5 - 6)", "2"),
    ] {
        assert_eq!(run(&*session, sql).await.join("; "), expected, "{sql}");
    }
    for sql in [
        "SELECT 1e400",
        "SELECT b * 1e-400 FROM l",
        "SELECT count(*) FROM generate_series(1, 9223372036854775807 + 1)",
        "SELECT * FROM range(9223372036854775807 * 2, 1)",
    ] {
        let why = fails(&*session, sql).await;
        assert_eq!(why.kind(), ErrorKind::InvalidStatement, "{sql}: {why}");
    }
}

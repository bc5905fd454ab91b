//! Integers are never changed: what leaves its type is an error.

use spiced_engine::ErrorKind;

use crate::{Pod, fails, run};

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_its_type_is_an_error() {
    let session = Pod::new().session().await;
    run(&*session, "CREATE TABLE n (i int, b bigint, s smallint, u bigint unsigned)").await;
    run(&*session, "INSERT INTO n VALUES (2147483647, 9223372036854775807, 32767, 0), (1, 2, 3, 4)").await;
    for expr in ["b + 1", "i * i * i * i", "-2 - b", "b * 2", "9223372036854775807 + 1", "CAST(b AS int)"] {
        let why = fails(&*session, &format!("SELECT {expr} AS v FROM n")).await;
        assert_eq!(why.kind(), ErrorKind::InvalidStatement, "{expr}: {why}");
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
    ] {
        assert_eq!(run(&*session, sql).await.join("; "), expected, "{sql}");
    }
}

//! Functions whose results are larger than their arguments, and the errors that they fail with.

use spiced_engine::ErrorKind;

use crate::{Pod, fails, rows, run};

/// Returns a pod in which a value has at most 32 MiB.
fn pod() -> Pod {
    let mut pod = Pod::new();
    pod.options.memory_limit = 256 << 20;
    pod
}

/// None of these statements allocates the memory that it requests, neither during planning nor when it runs.
#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_too_large_is_refused() {
    let session = pod().session().await;
    let column = "FROM (VALUES ('a', 1), ('b', 2)) t(c, n)";
    for sql in [
        "SELECT repeat(arrow_cast('a', 'LargeUtf8'), 1000000000000000)".to_owned(),
        "SELECT repeat(arrow_cast('a', 'LargeUtf8'), 9223372036854775807)".to_owned(),
        "SELECT repeat(arrow_cast('a', 'Utf8View'), 2000000000)".to_owned(),
        "SELECT repeat('a', 40000000)".to_owned(),
        format!("SELECT repeat(arrow_cast(c, 'LargeUtf8'), 10000000000000) {column}"),
        format!("SELECT count(*) {column} WHERE length(repeat(c, 1000000000)) > 1"),
        format!("SELECT max(length(repeat(c, 1000000000))) {column}"),
        format!("SELECT n {column} ORDER BY repeat(c, 1000000000)"),
        format!("SELECT count(*) {column} GROUP BY repeat(c, 1000000000)"),
        "SELECT lpad('abc', 2147483647, 'year')".to_owned(),
        "SELECT rpad('abc', 2147483647, 'year')".to_owned(),
        "SELECT length(lpad('a', 2147483640, 'ü'))".to_owned(),
        format!("SELECT lpad(c, 2147483640) {column}"),
        "SELECT replace(repeat('a', 1000000), 'a', repeat('b', 1000))".to_owned(),
        "SELECT regexp_replace(repeat('a', 1000000), 'a', repeat('b', 1000), 'g')".to_owned(),
        "SELECT regexp_replace(repeat('a', 1000000), '(.*)', repeat('\\1', 1000))".to_owned(),
        "SELECT regexp_match(repeat('a', 1000000), concat(repeat('(', 200), '.*', repeat(')', 200)))".to_owned(),
        "SELECT array_to_string(range(1, 1000000), repeat(',', 1000))".to_owned(),
        "SELECT array_repeat(1, 10000000000000)".to_owned(),
        "SELECT array_repeat([1, 2, 3], 4000000000)".to_owned(),
        "SELECT array_repeat(repeat('a', 1000000), 1000)".to_owned(),
        "SELECT array_resize([1], 10000000000000, 1)".to_owned(),
        "SELECT array_resize([1], 9223372036854775807)".to_owned(),
        "SELECT cardinality(range(0, 10000000000))".to_owned(),
        "SELECT range(0, 10000000000000)".to_owned(),
        "SELECT generate_series(1, 9223372036854775807)".to_owned(),
        "SELECT generate_series(timestamp '1700-01-01', timestamp '2200-01-01', interval '1 nanosecond')".to_owned(),
        "SELECT range(date '0001-01-01', date '9999-01-01', interval '1 month -30 days')".to_owned(),
        format!("SELECT range(n, 10000000000) {column}"),
        "SELECT array_replace_all(array_repeat('a', 100000), 'a', repeat('b', 10000))".to_owned(),
        "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))".to_owned(),
        "SELECT sha512(repeat('a', 1000000000))".to_owned(),
        "SELECT encode(repeat('a', 30000000), 'hex')".to_owned(),
        "SELECT to_char(now(), repeat('%c', 10000000))".to_owned(),
        "SELECT arrow_cast(NULL, 'FixedSizeBinary(2147483647)')".to_owned(),
        "SELECT arrow_cast(NULL, 'FixedSizeList(2147483647, Int64)')".to_owned(),
        "SELECT arrow_cast(NULL, 'FixedSizeList(2147483647, FixedSizeList(2147483647, Int64))')".to_owned(),
        "SELECT arrow_cast([NULL], 'List(FixedSizeList(2147483647, Int64))')".to_owned(),
        format!("SELECT arrow_cast(NULL, '{}Int64{}')", "List(".repeat(300), ")".repeat(300)),
        format!("SELECT cast_to_type(NULL, arrow_cast(NULL, '{}Int64{}'))", "List(".repeat(300), ")".repeat(300)),
        "SELECT approx_percentile_cont(value, 0.5, 1000000000000000) FROM generate_series(1, 100)".to_owned(),
        "SELECT value % 2, approx_percentile_cont(value, 0.5, 20000) FROM generate_series(1, 100) GROUP BY 1"
            .to_owned(),
        // A constant composed of several parts, and a text concatenated with itself.
        format!("SELECT {}", vec!["repeat('a', 30000000)"; 20].join(" || ")),
        format!("SELECT {}", ('a'..'u').map(|c| format!("repeat('{c}', 30000000)")).collect::<Vec<_>>().join(", ")),
        format!("SELECT concat({})", vec!["repeat('a', 30000000)"; 20].join(", ")),
        doubled(40),
        format!("SELECT count(*) FROM generate_series(1, 10) t(v) GROUP BY CUBE({})", columns(40)),
    ] {
        let error = fails(&*session, &sql).await;
        let shown = &sql[..sql.len().min(80)];
        assert_eq!(error.kind(), ErrorKind::InvalidStatement, "{shown}: {error}");
    }
    assert_eq!(run(&*session, "SELECT 1").await, ["1"]);
}

fn columns(n: usize) -> String {
    (0..n).map(|at| format!("v + {at}")).collect::<Vec<_>>().join(", ")
}

/// Returns a query for a text that doubles in length at each level.
fn doubled(levels: usize) -> String {
    let inner = "SELECT column1 || 'x' AS x FROM (VALUES ('a'), ('b'))".to_owned();
    (0..levels).fold(inner, |inner, _| format!("SELECT x || x AS x FROM ({inner})"))
}

/// Results within the limits are unchanged, wherever they are computed.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_within_the_bounds_is_answered() {
    let session = pod().session().await;
    for (sql, expected) in [
        ("SELECT length(repeat('ab', 10000000))", "20000000"),
        ("SELECT length(repeat(c, 10000000)) FROM (VALUES ('ab')) t(c)", "20000000"),
        (
            "SELECT lpad('abc', 5, 'x'), rpad('abc', 5), lpad('abc', -1), lpad('abc', 1000000000, '')",
            "xxabc | abc |  | abc",
        ),
        ("SELECT replace('banana', 'a', 'oo'), regexp_replace('banana', 'a(n)', '<\\1>', 'g')", "boonoonoo | b<n><n>a"),
        (
            "SELECT array_to_string([1, 2, NULL], '-', 'x'), array_resize([1], 3, 7), array_repeat('a', 2)",
            "1-2-x | [1, 7, 7] | [a, a]",
        ),
        (
            "SELECT cardinality(range(0, 1000000)), range(0, 10, 3), generate_series(3, 1, -1)",
            "1000000 | [0, 3, 6, 9] | [3, 2, 1]",
        ),
        ("SELECT 'a' || 'b' || NULL, 'a' || 1, [1] || [2]", " | a1 | [1, 2]"),
        // These would take 80 MB and 800 MB at once, so they are computed piece by piece.
        ("SELECT sum(length(x)) FROM (SELECT repeat('x', 10000) AS x FROM generate_series(1, 8192))", "81920000"),
        (
            "SELECT sum(length(x)), count(DISTINCT v) FROM (SELECT v, repeat('x', 100000) || v AS x FROM generate_series(1, 8000) t(v))",
            "800030893 | 8000",
        ),
        ("SELECT count(c ORDER BY c) FROM (VALUES ('a', 1), ('b', 1), (NULL, 2)) t(c, g) GROUP BY g ORDER BY 1", "0"),
        ("SELECT approx_percentile_cont(value, 0.5, 200) FROM generate_series(1, 101)", "51.0"),
        (
            "SELECT last_value(v) OVER (ORDER BY v ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM (VALUES (1)) t(v)",
            "1",
        ),
    ] {
        assert_eq!(run(&*session, sql).await[0], expected, "{sql}");
    }
    // DataFusion would confuse the second step with the first.
    assert_eq!(run(&*session, &doubled(2)).await, ["axaxaxax", "bxbxbxbx"]);
}

/// A panic or an internal error of DataFusion becomes an error of the statement.
#[tokio::test(flavor = "multi_thread")]
async fn what_functions_cannot_do_is_said() {
    let session = pod().session().await;
    for sql in [
        "SELECT last_value() OVER ()",
        "SELECT first_value() OVER (ORDER BY 1)",
        "SELECT first_value(1) OVER (ROWS BETWEEN 18446744073709551615 PRECEDING AND 18446744073709551615 FOLLOWING)",
        "SELECT lag() OVER ()",
        "SELECT arrow_cast(arrow_cast('2020-01-01', 'Date32'), 'Date64') - 0",
        "SELECT arrow_cast(d, 'Date64') - 0 FROM (VALUES (date '2020-01-01')) t(d)",
        "SELECT regexp_like('a', '(')",
        "SELECT regexp_match(c, '[') FROM (VALUES ('a')) t(c)",
        "SELECT regexp_replace(c, '*', 'x') FROM (VALUES ('a')) t(c)",
        "SELECT regexp_count(c, '(') FROM (VALUES ('a')) t(c)",
        "SELECT 'a' ~ '('",
        "SELECT c ~ '(' FROM (VALUES ('a')) t(c)",
        "SELECT array_resize([1], -1)",
    ] {
        match rows(&*session, sql).await {
            Ok(answer) => assert!(sql.contains("Date64"), "{sql} answers {answer:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidStatement, "{sql}: {error}"),
        }
    }
    for sql in ["SELECT rpad('x', -3, NULL)", "SELECT rpad(c, -3, NULL) FROM (VALUES ('x')) t(c)"] {
        if let Err(error) = rows(&*session, sql).await {
            assert_eq!(error.kind(), ErrorKind::InvalidStatement, "{sql}: {error}");
        }
    }
}

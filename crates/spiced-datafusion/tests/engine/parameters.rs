//! Parameters: discovery and binding.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, Int64Array, NullArray, RecordBatch,
    StringArray, Time64MicrosecondArray, TimestampMicrosecondArray, UInt64Array, UnionArray,
};
use datafusion::arrow::datatypes::{DataType, Field, UnionFields};
use futures::TryStreamExt;
use spiced_engine::{ErrorKind, Parameters, Session};

use crate::{Pod, lines, prepare};

fn batch(columns: Vec<(&str, ArrayRef)>) -> Parameters {
    Parameters::from_batch(
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap(),
    )
    .unwrap()
}

fn int(value: i64) -> ArrayRef {
    Arc::new(Int64Array::from(vec![value]))
}

fn text(value: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![value]))
}

/// Encodes a value as flightsql-dbapi sends it.
fn one_of_a_union(value: &str) -> ArrayRef {
    let fields = UnionFields::try_new(
        [0, 1],
        [Field::new("int", DataType::Int64, false), Field::new("string", DataType::Utf8, false)],
    );
    let children = vec![Arc::new(Int64Array::from(Vec::<i64>::new())) as ArrayRef, text(value)];
    Arc::new(UnionArray::try_new(fields.unwrap(), vec![1].into(), Some(vec![0].into()), children).unwrap())
}

async fn with(session: &dyn Session, sql: &str, parameters: Parameters) -> Result<String, spiced_engine::EngineError> {
    let prepared = prepare(session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let batches: Vec<_> = prepared.execute(parameters).await?.batches.try_collect().await?;
    Ok(lines(&batches).join("; "))
}

async fn session() -> Box<dyn Session> {
    let mut pod = Pod::new();
    pod.memory("m", true);
    let session = pod.session().await;
    crate::run(&*session, "INSERT INTO m VALUES (1, 'a'), (2, 'b'), (3, 'c')").await;
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn which_there_are_and_of_what_type() {
    let session = session().await;
    for (sql, expected) in [
        ("SELECT 1", ""),
        ("SELECT * FROM m WHERE id = $1", "$1 Int64"),
        ("SELECT * FROM m WHERE id = ? AND name = ?", "$1 Int64, $2 Utf8"),
        ("SELECT $10, $2, $1 FROM m WHERE id > $3", "$1 Null, $2 Null, $3 Int64, $10 Null"),
        ("SELECT * FROM m WHERE id = $low OR name LIKE $pattern", "$low Int64, $pattern Utf8"),
        ("SELECT * FROM m WHERE id IN (SELECT id FROM m WHERE name = $1)", "$1 Utf8"),
        ("SELECT * FROM m WHERE id BETWEEN $1 AND $2 LIMIT $3", "$1 Int64, $2 Int64, $3 Null"),
        ("INSERT INTO m VALUES ($1, $2)", "$1 Int64, $2 Utf8"),
        ("SELECT CAST($1 AS INT), $2::varchar, TRY_CAST($3 AS INT)", "$1 Int32, $2 Utf8, $3 Null"),
        ("SELECT $1::int AS a, $1::varchar AS b", "$1 Null"),
        ("SELECT * FROM m WHERE id = $1 OR name = $1", "$1 Null"),
        ("EXPLAIN SELECT * FROM m WHERE id = $1", "$1 Int64"),
    ] {
        let prepared = prepare(&*session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let seen: Vec<String> =
            prepared.parameters().fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
        assert_eq!(seen.join(", "), expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_find_their_parameter() {
    let session = session().await;
    let both = "SELECT name FROM m WHERE id = $1 OR name = $2 ORDER BY 1";
    let named = "SELECT name FROM m WHERE id = $id OR name = $name ORDER BY 1";
    for (sql, parameters, expected) in [
        (both, batch(vec![("$1", int(1)), ("$2", text("c"))]), "a; c"),
        (both, batch(vec![("$2", text("c")), ("$1", int(1))]), "a; c"),
        (both, batch(vec![("2", text("c")), ("1", int(1))]), "a; c"),
        (both, batch(vec![("x", int(1)), ("y", text("c"))]), "a; c"),
        (both, batch(vec![("$1", text("1")), ("$2", text("c"))]), "a; c"),
        (both, batch(vec![("$1", Arc::new(Float64Array::from(vec![1.0]))), ("$2", text("c"))]), "a; c"),
        (both, batch(vec![("$1", Arc::new(NullArray::new(1))), ("$2", text("c"))]), "c"),
        (named, batch(vec![("name", text("c")), ("id", int(1))]), "a; c"),
        (named, batch(vec![("$name", text("c")), ("$id", int(1))]), "a; c"),
        (
            "SELECT name FROM m WHERE id = ? OR name = ? ORDER BY 1",
            batch(vec![("a", int(1)), ("b", text("c"))]),
            "a; c",
        ),
        ("SELECT $1 + $1", batch(vec![("$1", Arc::new(Int32Array::from(vec![4])))]), "8"),
        ("SELECT $1", batch(vec![("param_0", one_of_a_union("x"))]), "x"),
        ("SELECT name FROM m WHERE name = $1", batch(vec![("param_0", one_of_a_union("b"))]), "b"),
        ("SELECT CAST($1 AS INT) + 2", batch(vec![("$1", text("40"))]), "42"),
        ("SELECT TRY_CAST($1 AS INT) IS NULL", batch(vec![("$1", text("x"))]), "true"),
        ("SELECT $1 IS NULL", batch(vec![("$1", Arc::new(NullArray::new(1)))]), "true"),
        ("SELECT name FROM m ORDER BY id LIMIT $1", batch(vec![("$1", int(2))]), "a; b"),
        ("INSERT INTO m VALUES ($1, $2)", batch(vec![("$1", int(9)), ("$2", text("z"))]), "1"),
        ("SELECT 1", Parameters::none(), "1"),
    ] {
        assert_eq!(with(&*session, sql, parameters).await.unwrap(), expected, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_too_much_is_named() {
    let session = session().await;
    let both = "SELECT name FROM m WHERE id = $1 OR name = $2";
    let named = "SELECT name FROM m WHERE id = $id OR name = $name";
    for (sql, parameters, expected) in [
        (both, Parameters::none(), "no value for `$1`, `$2`"),
        (both, batch(vec![("$1", int(1))]), "no value for `$2`"),
        (both, batch(vec![("x", int(1))]), "no value for `$2`"),
        (
            both,
            batch(vec![("$1", int(1)), ("$2", text("c")), ("$3", int(3))]),
            "the statement has no parameter for `3`; it has `$1`, `$2`",
        ),
        (
            both,
            batch(vec![("x", int(1)), ("y", text("c")), ("z", int(3))]),
            "the statement has no parameter for `z`; it has `$1`, `$2`",
        ),
        (named, batch(vec![("id", int(1)), ("nam", text("c"))]), "no value for `$name`"),
        (named, batch(vec![("id", int(1)), ("$id", int(1)), ("name", text("c"))]), "the parameter `id` has two values"),
        (named, batch(vec![("$a", int(1)), ("$b", text("c"))]), "no value for `$id`, `$name`"),
        ("SELECT 1", batch(vec![("$1", int(1))]), "the statement has no parameters, and 1 came with it"),
        // The same error as for `id = 'one'`.
        (both, batch(vec![("$1", text("one")), ("$2", text("c"))]), "cannot cast string '…' to value of Int64 type"),
    ] {
        let error = with(&*session, sql, parameters).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidStatement);
        assert!(error.to_string().starts_with(expected), "{sql}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drivers_that_number_their_columns_are_taken_in_order() {
    let session = session().await;
    let sql = "SELECT name FROM m WHERE id = $1 AND name = $2";
    for names in [["0", "1"], ["1", "2"], ["", ""], ["a", "b"]] {
        let values = batch(vec![(names[0], int(3)), (names[1], text("c"))]);
        assert_eq!(with(&*session, sql, values).await.unwrap(), "c", "{names:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_plan_runs_many_times() {
    let session = session().await;
    let prepared = prepare(&*session, "SELECT name FROM m WHERE id = $1").await.unwrap();
    for (id, name) in [(1, "a"), (2, "b"), (3, "c"), (1, "a")] {
        let answer = prepared.execute(batch(vec![("$1", int(id))])).await.unwrap();
        assert_eq!(answer.schema, prepared.schema());
        assert_eq!(lines(&answer.batches.try_collect::<Vec<_>>().await.unwrap()), [name]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_prepared_runs_again() {
    let session = session().await;
    let update = prepare(&*session, "UPDATE m SET name = $1 WHERE id = $2").await.unwrap();
    for (name, id, count) in [("x", 1, "1"), ("y", 1, "1"), ("z", 9, "0")] {
        let answer = update.execute(batch(vec![("$1", text(name)), ("$2", int(id))])).await.unwrap();
        let batches: Vec<_> = answer.batches.try_collect().await.unwrap();
        assert_eq!(lines(&batches), [count]);
    }
    assert_eq!(crate::run(&*session, "SELECT name FROM m ORDER BY id").await, ["y", "b", "c"]);
}

/// Pairs each value with the equivalent literal.
fn values() -> Vec<(&'static str, ArrayRef)> {
    let day = 19_723;
    vec![
        ("2", int(2)),
        ("1099511627776", int(1 << 40)),
        ("-1", int(-1)),
        ("18446744073709551615", Arc::new(UInt64Array::from(vec![u64::MAX]))),
        ("2.5", Arc::new(Float64Array::from(vec![2.5]))),
        ("2.0", Arc::new(Float64Array::from(vec![2.0]))),
        ("1.005", Arc::new(Float64Array::from(vec![1.005]))),
        ("'2'", text("2")),
        ("'2.5'", text("2.5")),
        ("'x'", text("x")),
        ("'2024-01-01 12:00:00'", text("2024-01-01 12:00:00")),
        ("true", Arc::new(BooleanArray::from(vec![true]))),
        ("NULL", Arc::new(NullArray::new(1))),
        ("DATE '2024-01-01'", Arc::new(Date32Array::from(vec![day]))),
        (
            "arrow_cast(TIMESTAMP '2024-01-01 12:00:00', 'Timestamp(Microsecond, None)')",
            Arc::new(TimestampMicrosecondArray::from(vec![(i64::from(day) * 86_400 + 43_200) * 1_000_000])),
        ),
        ("arrow_cast('12:00:00', 'Time64(Microsecond)')", Arc::new(Time64MicrosecondArray::from(vec![43_200_000_000]))),
        (
            "arrow_cast(1.005, 'Decimal128(10, 3)')",
            Arc::new(Decimal128Array::from(vec![1005]).with_precision_and_scale(10, 3).unwrap()),
        ),
    ]
}

/// Returns the result with its types, or the kind of the error.
async fn outcome(session: &dyn Session, sql: &str, parameters: Parameters) -> Result<String, ErrorKind> {
    let run = async {
        let prepared = prepare(session, sql).await?;
        let promised = prepared.schema_with(&parameters).await?;
        let answer = prepared.execute(parameters).await?;
        assert_eq!(promised, answer.schema, "{sql}: the schema is not the one that was promised");
        let schema = answer.schema.clone();
        let batches: Vec<_> = answer.batches.try_collect().await?;
        assert!(batches.iter().all(|batch| batch.schema() == schema), "{sql}");
        let types: Vec<String> = schema.fields().iter().map(|field| field.data_type().to_string()).collect();
        Ok::<_, spiced_engine::EngineError>(format!("{}: {}", types.join(", "), lines(&batches).join("; ")))
    };
    run.await.map_err(|error| error.kind())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_means_what_the_literal_means() {
    let pod = Pod::new();
    let session = pod.session().await;
    crate::run(
        &*session,
        "CREATE TABLE t (i int, b bigint, u bigint unsigned, f double, p decimal(10, 2), s varchar, d date, \
         ts timestamp, tm time, bo boolean)",
    )
    .await;
    let row = "2, 2, 2, 2.0, 1.00, '2', DATE '2024-01-01', TIMESTAMP '2024-01-01 12:00:00', '12:00:00', true";
    let other = "3, 3, 3, 2.5, 1.01, 'x', DATE '2024-01-02', TIMESTAMP '2024-01-01 00:00:00', '13:00:00', false";
    crate::run(&*session, &format!("INSERT INTO t VALUES ({row}), ({other})")).await;
    let columns = ["i", "f", "p", "s", "d", "ts"];
    let mut forms: Vec<String> = Vec::new();
    for column in columns {
        for form in ["{c} = $1", "$1 < {c}", "{c} >= $1", "{c} IN ($1, NULL)", "{c} BETWEEN $1 AND $1"] {
            forms.push(format!("SELECT b FROM t WHERE {} ORDER BY b", form.replace("{c}", column)));
        }
        for form in ["{c} * $1", "$1 - {c}", "coalesce({c}, $1)", "CASE WHEN b = 2 THEN {c} ELSE $1 END"] {
            forms.push(format!("SELECT {} AS v FROM t ORDER BY b", form.replace("{c}", column)));
        }
        forms.push(format!("SELECT {column} AS v FROM t UNION ALL SELECT $1 ORDER BY v NULLS FIRST"));
    }
    let further = [
        "SELECT $1 AS v",
        "SELECT sum(i) * $1 AS v FROM t",
        "SELECT 10 / $1 AS v",
        "SELECT * FROM (VALUES (1, $1), (2, $1)) AS v(x, y)",
        "SELECT greatest(i, $1) AS v FROM t ORDER BY b",
        "SELECT b FROM t WHERE i = (SELECT max(x) FROM (VALUES ($1)) AS v(x))",
        "SELECT b, count(*) AS n FROM t GROUP BY b HAVING count(*) < $1 ORDER BY b",
        "WITH w AS (SELECT $1 AS x) SELECT b FROM t JOIN w ON t.f > w.x ORDER BY b",
    ];
    forms.extend(further.map(str::to_owned));
    for sql in forms {
        for (literal, value) in values() {
            let with_literal = outcome(&*session, &sql.replace("$1", literal), Parameters::none()).await;
            let bound = outcome(&*session, &sql, batch(vec![("$1", value)])).await;
            assert_eq!(bound.ok(), with_literal.ok(), "{sql} with {literal}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_with_a_parameter_does_what_the_literal_does() {
    let pod = Pod::new();
    let session = pod.session().await;
    let changes = [
        "DELETE FROM t WHERE i = $1",
        "DELETE FROM t WHERE f > $1",
        "UPDATE t SET s = $1 WHERE b = 2",
        "UPDATE t SET i = $1 WHERE i < $1",
        "UPDATE t SET p = p * $1",
        "INSERT INTO t (i) VALUES ($1)",
        "INSERT INTO t (f, p) SELECT $1, $1",
        "INSERT INTO t (s, d) VALUES ($1, NULL), ('y', NULL)",
    ];
    for sql in changes {
        for (literal, value) in values() {
            let mut left = Vec::new();
            for (sql, parameters) in
                [(sql.replace("$1", literal), Parameters::none()), (sql.to_owned(), batch(vec![("$1", value.clone())]))]
            {
                crate::run(
                    &*session,
                    "CREATE OR REPLACE TABLE t AS SELECT arrow_cast(i, 'Int32') AS i, arrow_cast(i, 'Int64') AS b, \
                     arrow_cast(i, 'Float64') AS f, arrow_cast(i, 'Decimal128(10, 2)') AS p, arrow_cast(i, 'Utf8') AS s, \
                     arrow_cast(NULL, 'Date32') AS d FROM (VALUES (1), (2), (3)) AS v(i)",
                )
                .await;
                let count = outcome(&*session, &sql, parameters).await.ok();
                left.push((count, crate::run(&*session, "SELECT * FROM t ORDER BY b, i, f, s").await));
            }
            assert_eq!(left[0], left[1], "{sql} with {literal}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_executed_keeps_its_values_too() {
    let session = session().await;
    crate::run(&*session, "PREPARE p AS SELECT id FROM m WHERE id >= $1 ORDER BY id").await;
    assert_eq!(crate::run(&*session, "EXECUTE p(1.5)").await, ["2", "3"]);
    assert_eq!(crate::run(&*session, "EXECUTE p(2)").await, ["2", "3"]);
    crate::run(&*session, "PREPARE q(int) AS SELECT $1 + 1").await;
    assert_eq!(crate::run(&*session, "EXECUTE q('41')").await, ["42"]);
    for (sql, why) in [
        ("EXECUTE p", "the prepared statement `p` has 1 parameters, and 0 came with it"),
        ("EXECUTE p(1, 2)", "the prepared statement `p` has 1 parameters, and 2 came with it"),
        ("EXECUTE none", "prepared statement 'none' does not exist"),
    ] {
        assert_eq!(crate::fails(&*session, sql).await.to_string(), why, "{sql}");
    }
    crate::run(&*session, "DEALLOCATE p").await;
    assert!(crate::fails(&*session, "EXECUTE p(1)").await.to_string().contains("does not exist"));
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_one_name_are_both_answered() {
    let session = session().await;
    for (sql, names, rows) in [
        ("SELECT 1, 1", "Int64(1), Int64(1)", "1 | 1"),
        ("SELECT name, name FROM m WHERE id = 1", "name, name", "a | a"),
        ("SELECT count(*), count(*) FROM m", "count(*), count(*)", "3 | 3"),
        ("SELECT *, id FROM m WHERE id = 1", "id, name, id", "1 | a | 1"),
        ("SELECT id AS x, name AS x FROM m WHERE id = 2", "x, x", "2 | b"),
        ("SELECT name, upper(name), name FROM m ORDER BY name LIMIT 1", "name, upper(m.name), name", "a | A | a"),
        ("SELECT DISTINCT 1, 1 FROM m", "Int64(1), Int64(1)", "1 | 1"),
        ("SELECT 1, 1 UNION ALL SELECT 2, 2 ORDER BY 1", "Int64(1), Int64(1)", "1 | 1; 2 | 2"),
        ("SELECT * FROM (SELECT 1, 1) AS s", "Int64(1), Int64(1)", "1 | 1"),
        ("SELECT CAST(id AS text) FROM (VALUES (2), (10)) AS a(id) ORDER BY id", "a.id", "10; 2"),
        ("WITH w AS (SELECT 2 AS a) SELECT a, a FROM w", "a, a", "2 | 2"),
    ] {
        let prepared = prepare(&*session, sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let schema = prepared.schema();
        let seen: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        assert_eq!(seen.join(", "), names, "{sql}");
        assert_eq!(crate::run(&*session, sql).await.join("; "), rows, "{sql}");
    }
    for sql in ["CREATE TABLE c AS SELECT 1, 1", "CREATE VIEW v AS SELECT 1 AS a, 2 AS a", "SELECT id, nothing FROM m"]
    {
        crate::fails(&*session, sql).await;
    }
    crate::run(&*session, "CREATE TABLE two (a bigint, b bigint)").await;
    crate::run(&*session, "INSERT INTO two SELECT 1, 1").await;
    assert_eq!(crate::run(&*session, "SELECT * FROM two").await, ["1 | 1"]);
    assert_eq!(with(&*session, "SELECT $1, $1", batch(vec![("$1", int(7))])).await.unwrap(), "7 | 7");
}

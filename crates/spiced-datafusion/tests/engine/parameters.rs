//! Parameters: which there are, and binding.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, NullArray, RecordBatch, StringArray, UnionArray,
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

/// As flightsql-dbapi sends a value.
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
        (
            both,
            batch(vec![("$1", text("one")), ("$2", text("c"))]),
            "the value of the parameter `$1` does not fit Int64: ",
        ),
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

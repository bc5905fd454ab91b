//! The six response formats: their exact text, and every Arrow type in each of them.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Cursor;
use std::sync::Arc;

use arrow_array::builder::{Int32Builder, ListBuilder, MapBuilder, StringBuilder, TimestampSecondBuilder};
use arrow_array::types::*;
use arrow_array::*;
use arrow_ipc::reader::StreamReader;
use arrow_schema::{DataType, Field, IntervalUnit, Schema, TimeUnit, UnionFields};
use common::{Api, Toy, call, query};

const FORMS: [(&str, &str); 6] = [
    ("application/json", "application/json"),
    ("application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.stream"),
    ("text/csv", "text/csv; charset=utf-8; header=present"),
    ("text/plain", "text/plain; charset=utf-8"),
    ("application/x-ndjson", "application/x-ndjson"),
    ("application/vnd.spiceai.sql.v1+json", "application/vnd.spiceai.sql.v1+json"),
];

fn column(array: impl Array + 'static) -> ArrayRef {
    Arc::new(array)
}

fn small() -> Vec<RecordBatch> {
    let batch = |ids: Vec<Option<i64>>, names: Vec<Option<&str>>| {
        let schema =
            Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("na,me", DataType::Utf8, true)]);
        RecordBatch::try_new(Arc::new(schema), vec![column(Int64Array::from(ids)), column(StringArray::from(names))])
            .unwrap()
    };
    vec![
        batch(vec![Some(1), None], vec![Some("a \"b\"\nc"), Some("")]),
        batch(vec![], vec![]),
        batch(vec![Some(-3)], vec![None]),
    ]
}

#[tokio::test]
async fn exact_texts() {
    let api = Toy::batches(small()).api();
    for (accept, text) in [
        (
            "application/json",
            r#"[{"id":1,"na,me":"a \"b\"\nc"},{"id":null,"na,me":""},{"id":-3,"na,me":null}]"#.to_owned(),
        ),
        (
            "application/x-ndjson",
            "{\"id\":1,\"na,me\":\"a \\\"b\\\"\\nc\"}\n{\"id\":null,\"na,me\":\"\"}\n{\"id\":-3,\"na,me\":null}\n"
                .into(),
        ),
        ("text/csv", "id,\"na,me\"\n1,\"a \"\"b\"\"\nc\"\n,\"\"\n-3,\n".into()),
        (
            "text/plain",
            "+----+----------+\n\
             | id | na,me    |\n\
             +----+----------+\n\
             | 1  | a \"b\"\\nc |\n\
             |    |          |\n\
             | -3 |          |\n\
             +----+----------+\n"
                .into(),
        ),
    ] {
        let reply = call(api.clone(), query("SELECT 1", accept)).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, text.as_str()), "{accept}");
    }
}

#[tokio::test]
async fn what_the_spice_sdks_read() {
    let reply = call(Toy::batches(small()).api(), query("S", "application/vnd.spiceai.sql.v1+json")).await;
    assert!(!reply.text().contains('\n'));
    let answer: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(answer["row_count"], 3);
    assert_eq!(answer["schema"]["fields"][0]["name"], "id");
    assert_eq!(answer["schema"]["fields"][0]["data_type"], "Int64");
    assert_eq!(answer["schema"]["fields"][0]["nullable"], true);
    assert_eq!(answer["data"][2]["id"], -3);
    let schema: Schema = serde_json::from_value(answer["schema"].clone()).unwrap();
    assert_eq!(schema, *small()[0].schema());
}

#[tokio::test]
async fn an_arrow_stream_is_the_same_rows() {
    let reply = call(Toy::batches(small()).api(), query("S", "application/vnd.apache.arrow.stream")).await;
    let reader = StreamReader::try_new(Cursor::new(reply.body), None).unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    assert_eq!(batches, [small().remove(0), small().remove(2)]);
}

#[tokio::test]
async fn no_rows_is_an_answer_too() {
    let api = Toy::batches(vec![small().remove(1)]).api();
    for (accept, content_type) in FORMS {
        let reply = call(api.clone(), query("SELECT 1", accept)).await;
        assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, content_type));
        assert_eq!(reply.header("vary"), "accept, accept-encoding");
        match accept {
            "application/json" => assert_eq!(reply.text(), "[]"),
            "application/x-ndjson" => assert_eq!(reply.text(), ""),
            "text/csv" => assert_eq!(reply.text(), "id,\"na,me\"\n"),
            "text/plain" => {
                assert_eq!(reply.text(), "+----+-------+\n| id | na,me |\n+----+-------+\n+----+-------+\n")
            }
            "application/vnd.apache.arrow.stream" => {
                let reader = StreamReader::try_new(Cursor::new(reply.body), None).unwrap();
                assert_eq!((reader.schema(), reader.count()), (small()[0].schema(), 0));
            }
            _ => assert!(reply.text().ends_with(r#","data":[],"row_count":0}"#), "{}", reply.text()),
        }
    }
}

/// Returns a column of three values for each type, with a null in the middle if the type has nulls. If set, the texts
/// are what JSON and CSV show for the first value.
fn every_type() -> Vec<(&'static str, ArrayRef, Option<&'static str>, Option<&'static str>)> {
    macro_rules! primitive {
        ($t:ty, $v:expr) => {
            column(PrimitiveArray::<$t>::from_iter([
                Some($v),
                None,
                Some(<$t as ArrowPrimitiveType>::Native::default()),
            ]))
        };
    }
    let mut lists = ListBuilder::new(Int32Builder::new());
    lists.append_value([Some(1), None]);
    lists.append_null();
    lists.append_value([]);
    let lists = lists.finish();
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    maps.keys().append_value("k\"");
    maps.values().append_value(1);
    maps.append(true).unwrap();
    maps.append(false).unwrap();
    maps.append(true).unwrap();
    let mut numbered = MapBuilder::new(None, Int32Builder::new(), StringBuilder::new());
    numbered.keys().append_value(7);
    numbered.values().append_value("seven\"");
    numbered.append(true).unwrap();
    numbered.append(false).unwrap();
    numbered.append(true).unwrap();
    let structs = StructArray::try_new(
        vec![Field::new("x", DataType::Int32, true), Field::new("l", lists.data_type().clone(), true)].into(),
        vec![column(Int32Array::from(vec![Some(1), None, Some(3)])), column(lists.clone())],
        Some(vec![true, false, true].into()),
    )
    .unwrap();
    let fields = UnionFields::try_new(
        vec![0, 1],
        vec![Field::new("i", DataType::Int32, true), Field::new("s", DataType::Utf8, true)],
    )
    .unwrap();
    let union = UnionArray::try_new(
        fields,
        vec![0_i8, 1, 1].into(),
        Some(vec![0_i32, 0, 1].into()),
        vec![column(Int32Array::from(vec![5])), column(StringArray::from(vec![None, Some("q\"")]))],
    )
    .unwrap();
    // The nulls are in the values of the dictionary, not in its keys.
    let null_value = DictionaryArray::<Int8Type>::new(
        Int8Array::from(vec![0, 1, 0]),
        column(StringArray::from(vec![Some("v"), None])),
    );
    let of_lists = DictionaryArray::<Int32Type>::new(Int32Array::from(vec![0, 1, 2]), column(lists.clone()));
    let empty_dictionary =
        DictionaryArray::<Int8Type>::new(Int8Array::from(vec![None, None, None]), column(StringArray::new_null(0)));
    let runs = RunArray::<Int32Type>::try_new(&Int32Array::from(vec![2, 3]), &StringArray::from(vec![Some("r"), None]))
        .unwrap();
    let interval = IntervalMonthDayNano::new(1, 2, 3);
    vec![
        ("null", column(NullArray::new(3)), Some("null"), Some("")),
        ("bool", column(BooleanArray::from(vec![Some(true), None, Some(false)])), Some("true"), Some("true")),
        ("i8", primitive!(Int8Type, -8), Some("-8"), None),
        ("i64", primitive!(Int64Type, i64::MIN), Some("-9223372036854775808"), Some("-9223372036854775808")),
        ("u64", primitive!(UInt64Type, u64::MAX), Some("18446744073709551615"), None),
        ("f16", column(new_null_array(&DataType::Float16, 3)), Some("null"), None),
        ("f32", primitive!(Float32Type, 1.5), Some("1.5"), None),
        ("nan", primitive!(Float64Type, f64::NAN), Some("null"), Some("NaN")),
        ("infinite", primitive!(Float64Type, f64::INFINITY), Some("null"), Some("inf")),
        ("utf8", column(StringArray::from(vec![Some("\u{1}\"\\é"), None, Some("")])), Some(r#""\u0001\"\\é""#), None),
        ("large_utf8", column(LargeStringArray::from(vec![Some("x"), None, Some("")])), Some("\"x\""), Some("x")),
        ("utf8_view", column(StringViewArray::from(vec![Some("x"), None, Some("")])), Some("\"x\""), Some("x")),
        (
            "binary",
            column(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), None, Some(b"")])),
            Some("\"00ff\""),
            Some("00ff"),
        ),
        (
            "large_binary",
            column(LargeBinaryArray::from(vec![Some(&b"\xff"[..]), None, None])),
            Some("\"ff\""),
            Some("ff"),
        ),
        (
            "binary_view",
            column(BinaryViewArray::from(vec![Some(&b"\xff"[..]), None, None])),
            Some("\"ff\""),
            Some("ff"),
        ),
        (
            "fixed_binary",
            column(
                FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some([1, 2]), None, None].into_iter(), 2)
                    .unwrap(),
            ),
            Some("\"0102\""),
            Some("0102"),
        ),
        (
            "decimal128",
            column(
                Decimal128Array::from(vec![Some(10_i128.pow(38) - 1), None, Some(0)])
                    .with_precision_and_scale(38, 2)
                    .unwrap(),
            ),
            Some("999999999999999999999999999999999999.99"),
            Some("999999999999999999999999999999999999.99"),
        ),
        (
            "decimal256",
            column(Decimal256Array::from(vec![Some(i256(-5)), None, None]).with_precision_and_scale(76, -3).unwrap()),
            Some("-5000"),
            Some("-5000"),
        ),
        ("date32", primitive!(Date32Type, 20_000), Some("\"2024-10-04\""), Some("2024-10-04")),
        ("date64", primitive!(Date64Type, 86_400_000), Some("\"1970-01-02T00:00:00\""), None),
        ("time32", primitive!(Time32SecondType, 3_661), Some("\"01:01:01\""), None),
        ("time64", primitive!(Time64NanosecondType, 1), Some("\"00:00:00.000000001\""), None),
        ("timestamp", primitive!(TimestampNanosecondType, 1), Some("\"1970-01-01T00:00:00.000000001\""), None),
        (
            "timestamp_utc",
            column(TimestampSecondArray::from(vec![Some(0), None, Some(1)]).with_timezone("UTC")),
            Some("\"1970-01-01T00:00:00Z\""),
            Some("1970-01-01T00:00:00Z"),
        ),
        (
            "timestamp_offset",
            column(TimestampMillisecondArray::from(vec![Some(0), None, Some(1)]).with_timezone("+02:00")),
            Some("\"1970-01-01T02:00:00+02:00\""),
            None,
        ),
        ("duration", primitive!(DurationSecondType, 5), Some("\"PT5S\""), Some("PT5S")),
        ("interval", primitive!(IntervalMonthDayNanoType, interval), None, None),
        (
            "interval_months",
            column(new_null_array(&DataType::Interval(IntervalUnit::YearMonth), 3)),
            Some("null"),
            None,
        ),
        ("list", column(lists.clone()), Some("[1,null]"), Some("\"[1,null]\"")),
        ("struct", column(structs), Some(r#"{"x":1,"l":[1,null]}"#), Some(r#""{""x"":1,""l"":[1,null]}""#)),
        ("map", column(maps.finish()), Some(r#"{"k\"":1}"#), None),
        ("numbered_map", column(numbered.finish()), Some(r#"{"7":"seven\""}"#), None),
        ("union", column(union), Some("\"{i=5}\""), None),
        ("dictionary", column(null_value), Some("\"v\""), Some("v")),
        ("dictionary_of_lists", column(of_lists), Some("[1,null]"), Some("\"[1,null]\"")),
        ("empty_dictionary", column(empty_dictionary), Some("null"), Some("")),
        ("runs", column(runs), Some("\"r\""), Some("r")),
        ("time_null", column(new_null_array(&DataType::Timestamp(TimeUnit::Second, None), 3)), Some("null"), Some("")),
    ]
}

/// An object contains no key twice, at any depth.
#[tokio::test]
async fn keys_that_repeat_within_values_get_numbers() {
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for (key, value) in [("k", 1), ("k", 2), ("k_2", 3)] {
        maps.keys().append_value(key);
        maps.values().append_value(value);
    }
    maps.append(true).unwrap();
    let field = |name: &str| Field::new(name, DataType::Int32, true);
    let columns = vec![column(Int32Array::from(vec![1])), column(Int32Array::from(vec![None]))];
    let structs = StructArray::try_new(vec![field("a"), field("a")].into(), columns, None).unwrap();
    let batch = RecordBatch::try_from_iter([("m", column(maps.finish())), ("s", column(structs))]).unwrap();
    let reply = call(Toy::batches(vec![batch]).api(), query("SELECT 1", "application/json")).await;
    assert_eq!(reply.text(), r#"[{"m":{"k":1,"k_3":2,"k_2":3},"s":{"a":1,"a_2":null}}]"#);
}

/// Arrow's formatter writes a placeholder for a duration that it cannot compute.
#[tokio::test]
async fn a_duration_that_has_no_text_is_an_error() {
    let seconds = |value| column(arrow_array::DurationSecondArray::from(vec![Some(1), value]));
    for (accept, _) in FORMS {
        for (value, status) in [(Some(1_i64 << 62), 400), (Some(1 << 50), 200), (None, 200)] {
            let batch = RecordBatch::try_from_iter_with_nullable([("c", seconds(value), true)]).unwrap();
            let reply = call(Toy::batches(vec![batch]).api(), query("SELECT 1", accept)).await;
            let wanted = if accept.contains("arrow") { 200 } else { status };
            assert_eq!(reply.status, wanted, "{accept}: {}", String::from_utf8_lossy(&reply.body));
        }
    }
}

fn i256(value: i64) -> <Decimal256Type as ArrowPrimitiveType>::Native {
    value.into()
}

#[tokio::test]
async fn every_type_in_every_form() {
    for (name, array, json, csv) in every_type() {
        let nulls = array.logical_nulls();
        let batch = RecordBatch::try_from_iter_with_nullable([("c", array, true)]).unwrap();
        let api = Toy::batches(vec![batch.clone()]).api();
        for (accept, _) in FORMS {
            let reply = call(api.clone(), query("SELECT 1", accept)).await;
            assert_eq!(reply.status, 200, "{name} as {accept}: {}", String::from_utf8_lossy(&reply.body));
            if accept.contains("arrow") {
                let mut reader = StreamReader::try_new(Cursor::new(reply.body), None).unwrap();
                assert_eq!(reader.next().unwrap().unwrap(), batch, "{name}");
                continue;
            }
            let text = reply.text();
            match accept {
                "application/json" => {
                    let rows: Vec<serde_json::Map<String, serde_json::Value>> =
                        serde_json::from_str(text).unwrap_or_else(|e| panic!("{name}: {e}: {text}"));
                    for (at, row) in rows.iter().enumerate() {
                        if nulls.as_ref().is_some_and(|nulls| nulls.is_null(at)) {
                            assert!(row["c"].is_null(), "{name}: {text}");
                        }
                    }
                    if let Some(json) = json {
                        assert!(text.starts_with(&format!("[{{\"c\":{json}}},")), "{name}: {text}");
                    }
                }
                "application/x-ndjson" => assert_eq!(text.lines().count(), 3, "{name}: {text}"),
                "text/csv" => {
                    if let Some(csv) = csv {
                        let line = text.split('\n').nth(1).unwrap();
                        assert_eq!(line, csv, "{name}: {text}");
                    }
                }
                "text/plain" => assert_eq!(text.lines().count(), 7, "{name}: {text}"),
                _ => {
                    let answer: serde_json::Value = serde_json::from_str(text).unwrap();
                    assert_eq!(answer["row_count"], 3, "{name}");
                    let schema: Schema = serde_json::from_value(answer["schema"].clone()).unwrap();
                    assert_eq!(schema, *batch.schema(), "{name}");
                }
            }
        }
    }
}

/// A value without a text form is an error in a text format. The message of the formatter never appears as a value.
#[tokio::test]
async fn what_has_no_text_is_an_error() {
    let beyond = || TimestampSecondArray::from(vec![Some(0), Some(i64::MAX)]).with_timezone("UTC");
    let mut list = ListBuilder::new(TimestampSecondBuilder::new());
    list.append_value([Some(0)]);
    list.append_value([Some(i64::MAX)]);
    for array in [column(beyond()), column(Date32Array::from(vec![0, i32::MAX])), column(list.finish())] {
        let batch = RecordBatch::try_from_iter([("when", array)]).unwrap();
        let api = Toy::batches(vec![batch.clone()]).api();
        for (accept, _) in FORMS {
            let reply = call(api.clone(), query("SELECT 1", accept)).await;
            if accept.contains("arrow") {
                assert_eq!(reply.status, 200);
                continue;
            }
            assert_eq!(reply.status, 400, "{accept}: {}", reply.text());
            assert!(reply.text().contains("holds a value that has no text"), "{accept}: {}", reply.text());
        }
    }
}

#[tokio::test]
async fn null_and_the_empty_text_are_two_things_in_csv() {
    let text = StringArray::from(vec![Some(""), None, Some("a,\"b\""), Some("line\nbreak")]);
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("t", column(text), true),
        ("n", column(Int64Array::from(vec![None, Some(1), Some(2), Some(3)])), true),
    ]);
    let reply = call(Toy::batches(vec![batch.unwrap()]).api(), query("S", "text/csv")).await;
    assert_eq!(reply.text(), "t,n\n\"\",\n,1\n\"a,\"\"b\"\"\",2\n\"line\nbreak\",3\n");
}

#[tokio::test]
async fn keys_of_an_object_are_distinct() {
    let one = || column(Int64Array::from(vec![1]));
    let schema = Schema::new(["a", "b", "a"].map(|name| Field::new(name, DataType::Int64, false)).to_vec());
    let batch = RecordBatch::try_new(Arc::new(schema), vec![one(), one(), one()]).unwrap();
    let api = Toy::batches(vec![batch]).api();
    let reply = call(api.clone(), query("S", "application/json")).await;
    assert_eq!(reply.text(), r#"[{"a":1,"b":1,"a_2":1}]"#);
    let reply = call(api.clone(), query("S", "application/x-ndjson")).await;
    assert_eq!(reply.text(), "{\"a\":1,\"b\":1,\"a_2\":1}\n");
    let reply = call(api.clone(), query("S", "text/csv")).await;
    assert_eq!(reply.text(), "a,b,a\n1,1,1\n");
    let reply = call(api, query("S", "application/vnd.spiceai.sql.v1+json")).await;
    let answer: serde_json::Value = serde_json::from_str(reply.text()).unwrap();
    let names = answer["schema"]["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["a", "b", "a_2"]);
    assert_eq!(answer["data"][0]["a_2"], 1);
}

#[tokio::test]
async fn a_table_is_as_wide_as_its_first_rows_and_shows_no_control_characters() {
    let texts = |values: Vec<&str>| RecordBatch::try_from_iter([("t", column(StringArray::from(values)))]).unwrap();
    let api = Toy::batches(vec![texts(vec!["é", "\u{1b}[2J\t"]), texts(vec!["much longer than before"])]).api();
    let reply = call(api, query("S", "text/plain")).await;
    let rule = "+-------------+\n";
    let expected = [
        rule,
        "| t           |\n",
        rule,
        "| é           |\n",
        "| \\u{1b}[2J\\t |\n",
        "| much longer than before |\n",
        rule,
    ];
    assert_eq!(reply.text(), expected.concat());
}

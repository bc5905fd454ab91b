//! `file:` data sets.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use spiced_engine::{DatasetState, ErrorKind};

use crate::{Pod, fails, run, until};

fn parquet(pod: &Pod, name: &str, ids: &[i64]) {
    let path = pod.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let names: Vec<String> = ids.iter().map(|id| format!("n{id}")).collect();
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(ids.to_vec())) as ArrayRef),
        ("name", Arc::new(StringArray::from(names)) as ArrayRef),
    ])
    .unwrap();
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_format_and_each_way_to_name_files() {
    let mut pod = Pod::new();
    parquet(&pod, "one.parquet", &[1, 2, 3]);
    parquet(&pod, "many/a.parquet", &[1, 2]);
    parquet(&pod, "many/b.parquet", &[3]);
    pod.write("many/README.md", "not data").write("many/.hidden.csv", "a\n1\n").write("many/_SUCCESS", "");
    pod.write("x.csv", "id,name\n1,a\n2,\"b, c\"\n").write("x.tsv", "id\tname\n1\ta\n");
    pod.write("x.ndjson", "{\"id\":1,\"name\":\"a\"}\n{\"id\":2,\"name\":null}\n");
    pod.write("x.jsonl", "{\"id\":1}\n").write("x.json", "{\"id\":1}\n");
    pod.write("semi.csv", "1;'x;y'\n2;z\n").write("noext", "id\n5\n");
    pod.write("mixed/a.csv", "id\n1\n").write("mixed/b.json", "{\"id\":1}\n");
    pod.write("odd name/100% [x]/it's.csv", "id\n7\n");
    pod.write("hive/year=2024/a.csv", "id\n1\n").write("hive/year=2025/a.csv", "id\n2\n");
    let root = pod.path().display().to_string();
    pod.dataset("d0", "file:one.parquet");
    pod.dataset("d1", &format!("file:{root}/one.parquet"));
    pod.dataset("d2", &format!("file://{root}/one.parquet"));
    pod.dataset("d3", "file:./many/../many");
    pod.dataset("d4", "file:many/");
    pod.dataset("d5", "file:many/*.parquet");
    pod.dataset("d6", "file:many/[a].parquet");
    pod.dataset("d7", "file:x.csv");
    pod.dataset("d8", "file:x.tsv");
    pod.dataset("d9", "file:x.ndjson");
    pod.dataset("d10", "file:x.jsonl");
    pod.dataset("d11", "file:x.json");
    pod.dataset("d12", "file:semi.csv").params(&[
        ("csv_has_header", "false"),
        ("csv_delimiter", ";"),
        ("csv_quote", "'"),
        ("file_compression_type", "UNCOMPRESSED"),
    ]);
    pod.dataset("d13", "file:noext").params(&[("file_format", "csv")]);
    pod.dataset("d14", "file:mixed/*.csv");
    pod.dataset("d15", "file:hive").params(&[("hive_partitioning_enabled", "true")]);
    let session = pod.session().await;
    for (name, expected) in [
        ("d0", "1 | n1; 2 | n2; 3 | n3"),
        ("d1", "1 | n1; 2 | n2; 3 | n3"),
        ("d2", "1 | n1; 2 | n2; 3 | n3"),
        ("d3", "1 | n1; 2 | n2; 3 | n3"),
        ("d4", "1 | n1; 2 | n2; 3 | n3"),
        ("d5", "1 | n1; 2 | n2; 3 | n3"),
        ("d6", "1 | n1; 2 | n2"),
        ("d7", "1 | a; 2 | b, c"),
        ("d8", "1 | a"),
        ("d9", "1 | a; 2 |"),
        ("d10", "1"),
        ("d11", "1"),
        ("d12", "1 | x;y; 2 | z"),
        ("d13", "5"),
        ("d14", "1"),
        ("d15", "1 | 2024; 2 | 2025"),
    ] {
        let rows = run(&*session, &format!("SELECT * FROM {name} ORDER BY 1")).await;
        assert_eq!(rows.join("; "), expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_is_plain_text() {
    let mut pod = Pod::new();
    parquet(&pod, "p.parquet", &[1]);
    pod.write("c.csv", "a\nx\n");
    pod.dataset("p", "file:p.parquet").dataset("c", "file:c.csv");
    let session = pod.session().await;
    for sql in [
        "SELECT name FROM p",
        "SELECT a FROM c",
        "SELECT upper(name), name || 'x' FROM p",
        "SELECT arrow_cast('x', 'Utf8View')",
    ] {
        for batch in crate::batches(&*session, sql).await.unwrap() {
            for field in batch.schema().fields() {
                assert_eq!(field.data_type().to_string(), "Utf8", "{sql}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_grows_and_a_file_goes() {
    let mut pod = Pod::new();
    pod.write("many/a.csv", "id\n1\n").write("one.csv", "id\n1\n");
    pod.dataset("many", "file:many").dataset("one", "file:one.csv");
    let session = pod.session().await;
    assert_eq!(run(&*session, "SELECT count(*) FROM many").await, ["1"]);
    pod.write("many/b.csv", "id\n2\n3\n");
    assert_eq!(run(&*session, "SELECT count(*) FROM many").await, ["3"]);

    assert_eq!(run(&*session, "SELECT sum(id) FROM one").await, ["1"]);
    pod.write("one.csv", "id\n10\n20\n");
    assert_eq!(run(&*session, "SELECT sum(id) FROM one").await, ["30"]);
    std::fs::remove_file(pod.path().join("one.csv")).unwrap();
    if let Err(error) = crate::rows(&*session, "SELECT sum(id) FROM one").await {
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(!error.to_string().contains(&pod.path().display().to_string()), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_load_says_why() {
    let mut pod = Pod::new();
    pod.write("mixed/a.csv", "id\n1\n").write("mixed/b.json", "{\"id\":1}\n");
    pod.write("bad.parquet", "this is no parquet").write("unknown.xyz", "?").write("docs/README.md", "x");
    std::fs::create_dir(pod.path().join("empty")).unwrap();
    let cases = [
        ("file:gone.csv", "there is no file or folder at `gone.csv`"),
        (
            "file:mixed",
            "`mixed` holds files of several kinds (`.csv`, `.json`); pick one with a wildcard, such as `*.csv`",
        ),
        ("file:empty", "there is no file in `empty`"),
        ("file:mixed/*.parquet", "no file matches `mixed/*.parquet`"),
        (
            "file:unknown.xyz",
            "the format of `unknown.xyz` cannot be told from its name; say `file_format` in its params",
        ),
        ("file:docs", "the format of `docs` cannot be told from its name; say `file_format` in its params"),
        ("file:bad.parquet", "`bad.parquet` cannot be read: "),
    ];
    for (index, (from, _)) in cases.iter().enumerate() {
        pod.dataset(&format!("d{index}"), from);
    }
    let engine = pod.start();
    let session = crate::session(&engine).await;
    for (index, (from, expected)) in cases.iter().enumerate() {
        let state = until(&engine, index, |state| *state != DatasetState::Loading).await;
        let DatasetState::Failed { error, .. } = state else { panic!("{from}: {state:?}") };
        assert!(error.starts_with(expected), "{from}: {error}");
        let seen = fails(&*session, &format!("SELECT * FROM d{index}")).await;
        assert_eq!(seen.kind(), ErrorKind::NotFound);
        assert_eq!(
            seen.to_string(),
            format!("the data set `d{index}` is not loaded: {error}; it is tried again by itself")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_told_when_it_is_loaded() {
    let mut pod = Pod::new();
    let batch = RecordBatch::try_from_iter([("v", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    let twice = batch.schema().field(0).clone();
    let schema = Arc::new(datafusion::arrow::datatypes::Schema::new(vec![twice.clone(), twice]));
    let column = batch.column(0).clone();
    let batch = RecordBatch::try_new(schema.clone(), vec![column.clone(), column]).unwrap();
    let mut writer =
        ArrowWriter::try_new(File::create(pod.path().join("twice.parquet")).unwrap(), schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    pod.write("mixed.ndjson", "{\"v\":1}\n{\"v\":\"secret\"}\n").write("ragged.csv", "a,b\n1,2\n3\n");
    let deep = |depth: usize| format!("{{\"a\":{}1{}}}\n", "[".repeat(depth), "]".repeat(depth));
    pod.write("deep.ndjson", &format!("{}{}", deep(31), deep(32)));
    pod.write("hive/day=1/a.csv", "day,n\n1,2\n").write("two/a.csv", "x,y\n1,2\n").write("two/b.csv", "y,x\n1,2\n");
    let cases = [
        ("file:twice.parquet", "`twice.parquet` has two columns called `v`; give each a name of its own"),
        (
            "file:mixed.ndjson",
            "`mixed.ndjson`, line 2: `v` is text here, and a number before; values of one name are of one type",
        ),
        ("file:deep.ndjson", "`deep.ndjson`, line 2: `a` nests deeper than 32 levels"),
        (
            "file:ragged.csv",
            "`ragged.csv`, line 3: it has 1 fields, and there are 2 columns; a delimiter may be missing, or stand outside of \
             quotes",
        ),
        (
            "file:hive",
            "`hive`: the column `day` is in the files and in the names of their folders; leave it out of the files, or say \
             `hive_partitioning_enabled: false`",
        ),
        (
            "file:two",
            "`b.csv`, line 1: its columns are (y, x), and those of `a.csv` are (x, y); files of one data set have the same, in \
             one order",
        ),
    ];
    for (index, (from, _)) in cases.iter().enumerate() {
        pod.dataset(&format!("d{index}"), from);
        if *from == "file:hive" {
            pod.params(&[("hive_partitioning_enabled", "true")]);
        }
    }
    let engine = pod.start();
    for (index, (from, expected)) in cases.iter().enumerate() {
        let state = until(&engine, index, |state| *state != DatasetState::Loading).await;
        let DatasetState::Failed { error, .. } = state else { panic!("{from}: {state:?}") };
        assert_eq!(error, *expected, "{from}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_becomes_another_one_is_loaded_again_or_marked() {
    let mut pod = Pod::new();
    pod.write("x.csv", "id\n1\n");
    pod.dataset("x", "file:x.csv");
    let engine = pod.start();
    let session = crate::session(&engine).await;
    assert_eq!(run(&*session, "SELECT sum(id) FROM x").await, ["1"]);
    pod.write("x.csv", "id\nsecret\n");
    let error = fails(&*session, "SELECT sum(id) FROM x").await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!error.to_string().contains("secret"), "{error}");
    // The reload follows, after which the column is text.
    let seen = tokio::time::timeout(std::time::Duration::from_secs(60), async {
        loop {
            if let Ok(rows) = crate::rows(&*session, "SELECT max(id) FROM x").await {
                return rows;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(seen.await.unwrap(), ["secret"]);
}

/// PostgreSQL's rule for CSV: an empty field is NULL, and `""` is an empty text.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_text_is_no_null_in_csv() {
    let mut pod = Pod::new();
    let many: String = (0..20_000).map(|n| format!("{n},{}\n", ["", "\"\"", "\"x\ny\""][n % 3])).collect();
    pod.write("x.csv", "id,t,n\r\n1,\"\",\r\n2,,5\r\n3,\"a,\"\"\",\"\"\r\n").write("one.csv", "v\na\n\n\"\"\n");
    pod.write("q.tsv", "1\t''\n2\t\n").write("many.csv", &format!("id,t\n{many}")).write("out/here", "");
    pod.options.host_paths = vec![pod.path().join("out")];
    pod.dataset("x", "file:x.csv");
    pod.dataset("one", "file:one.csv");
    pod.dataset("q", "file:q.tsv").params(&[("tsv_quote", "'"), ("tsv_has_header", "false")]);
    pod.dataset("many", "file:many.csv");
    let session = pod.session().await;
    let out = pod.path().join("out").display().to_string();
    let texts = "SELECT id, CASE WHEN t IS NULL THEN 'NULL' ELSE '<' || t || '>' END";
    assert_eq!(run(&*session, &format!("{texts}, n FROM x ORDER BY id")).await.len(), 3);
    let expected = ["1 | <> | -1", "2 | NULL | 5", "3 | <a,\"> | -1"];
    assert_eq!(run(&*session, &format!("{texts}, coalesce(n, -1) FROM x ORDER BY id")).await, expected);
    assert_eq!(run(&*session, "SELECT count(*), count(t), count(n) FROM x").await, ["3 | 2 | 1"]);
    assert_eq!(run(&*session, "SELECT id FROM x WHERE t = ''").await, ["1"]);
    assert_eq!(run(&*session, "SELECT coalesce('<' || v || '>', 'NULL') FROM one").await, ["<a>", "NULL", "<>"]);
    assert_eq!(run(&*session, "SELECT column_1, column_2 IS NULL FROM q ORDER BY 1").await, ["1 | false", "2 | true"]);
    let counts = "SELECT count(*), count(t), count(*) FILTER (WHERE t = ''), sum(id) FROM";
    let expected = ["20000 | 13333 | 6667 | 199990000"];
    assert_eq!(run(&*session, &format!("{counts} many")).await, expected);
    // Rows that are written can be read back, also through a listing.
    run(&*session, &format!("COPY many TO '{out}/m/' STORED AS CSV")).await;
    run(&*session, &format!("CREATE EXTERNAL TABLE back STORED AS CSV LOCATION '{out}/m/'")).await;
    assert_eq!(run(&*session, &format!("{counts} back")).await, expected);
    run(&*session, &format!("COPY one TO '{out}/one.csv'")).await;
    run(&*session, &format!("CREATE EXTERNAL TABLE one_back STORED AS CSV LOCATION '{out}/on*.csv'")).await;
    assert_eq!(run(&*session, "SELECT coalesce('<' || v || '>', 'NULL') FROM one_back").await, ["<a>", "NULL", "<>"]);
}

/// The statistics of a Parquet file ignore NaN.
#[tokio::test(flavor = "multi_thread")]
async fn nan_in_a_parquet_file_stays() {
    let mut pod = Pod::new();
    for (name, values) in [("constant", [0.1, 0.1, f64::NAN]), ("ordered", [0.1, 0.2, f64::NAN])] {
        let values: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let batch = RecordBatch::try_from_iter([("id", ids), ("v", values)]).unwrap();
        let file = File::create(pod.path().join(format!("{name}.parquet"))).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        pod.dataset(name, &format!("file:{name}.parquet"));
    }
    let session = pod.session().await;
    assert_eq!(run(&*session, "SELECT v FROM constant").await, ["0.1", "0.1", "NaN"]);
    assert_eq!(run(&*session, "SELECT id FROM ordered WHERE v > 5").await, ["3"]);
    assert_eq!(run(&*session, "SELECT id FROM ordered WHERE v = 'NaN'::double").await, ["3"]);
    assert_eq!(run(&*session, "SELECT max(v), count(*), count(v) FROM ordered").await, ["NaN | 3 | 3"]);
    assert_eq!(run(&*session, "SELECT id FROM ordered WHERE id > 2").await, ["3"]);
    assert_eq!(run(&*session, "SELECT id FROM ordered ORDER BY v DESC LIMIT 1").await, ["3"]);
}

/// Numbers that a float cannot represent exactly become decimals.
#[tokio::test(flavor = "multi_thread")]
async fn decimals_in_text_files_are_not_rounded() {
    let mut pod = Pod::new();
    pod.write("x.csv", "a\n0.1\n12345678901234567.89\n");
    pod.write("x.ndjson", "{\"a\":0.1}\n{\"a\":12345678901234567.89}\n{\"a\":1.5e2}\n");
    pod.dataset("c", "file:x.csv");
    pod.dataset("j", "file:x.ndjson");
    let session = pod.session().await;
    assert_eq!(run(&*session, "SELECT a FROM c").await, ["0.10", "12345678901234567.89"]);
    assert_eq!(run(&*session, "SELECT a FROM j").await, ["0.10", "12345678901234567.89", "150.00"]);
}

/// A damaged page is found when it is read, and a damaged footer when the data set is loaded.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_parquet_file_is_named() {
    let mut pod = Pod::new();
    for name in ["page.parquet", "many/a.parquet", "many/b.parquet", "footer.parquet"] {
        parquet(&pod, name, &(0..1000).collect::<Vec<_>>());
    }
    let damage = |name: &str, at: Range<usize>| {
        let mut bytes = std::fs::read(pod.path().join(name)).unwrap();
        bytes[at].fill(0xab);
        std::fs::write(pod.path().join(name), bytes).unwrap();
    };
    damage("page.parquet", 4..60);
    damage("many/b.parquet", 4..60);
    let size = std::fs::metadata(pod.path().join("footer.parquet")).unwrap().len() as usize;
    damage("footer.parquet", size - 40..size - 8);
    pod.dataset("page", "file:page.parquet").dataset("many", "file:many").dataset("footer", "file:footer.parquet");
    let engine = pod.start();
    for index in 0..2 {
        until(&engine, index, |state| *state == DatasetState::Ready).await;
    }
    let session = crate::session(&engine).await;
    for (name, expected) in
        [("page", "`page.parquet` is damaged"), ("many", "one of `a.parquet`, `b.parquet` is damaged")]
    {
        for sql in [format!("SELECT * FROM {name}"), format!("SELECT sum(id) FROM {name} WHERE id > 5")] {
            let error = fails(&*session, &sql).await;
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{sql}: {error}");
            assert!(error.to_string().starts_with(expected), "{sql}: {error}");
        }
    }
    let state = until(&engine, 2, |state| *state != DatasetState::Loading).await;
    let DatasetState::Failed { error, .. } = state else { panic!("{state:?}") };
    assert!(error.starts_with("`footer.parquet` cannot be read: it is damaged"), "{error}");
}

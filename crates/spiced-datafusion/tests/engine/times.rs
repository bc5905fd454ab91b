//! Times, time zones and time literals give PostgreSQL's results.

use std::fs::File;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, Time64MicrosecondArray, TimestampMicrosecondArray};
use datafusion::parquet::arrow::ArrowWriter;

use crate::{Pod, fails, run};

#[tokio::test(flavor = "multi_thread")]
async fn at_time_zone_is_what_postgresql_has() {
    let session = Pod::new().session().await;
    for (sql, expected) in [
        (
            "SELECT ('2024-08-28T17:08:20Z'::timestamptz AT TIME ZONE 'America/Denver')::timestamp",
            "2024-08-28T11:08:20",
        ),
        ("SELECT TIMESTAMPTZ '2024-08-28 17:08:20+00' AT TIME ZONE 'America/Denver'", "2024-08-28T11:08:20"),
        (
            "SELECT (z AT TIME ZONE 'America/Denver')::timestamp FROM (SELECT '2024-08-28T17:08:20Z'::timestamptz AS z)",
            "2024-08-28T11:08:20",
        ),
        ("SELECT (TIMESTAMP '2024-08-28 11:08:20' AT TIME ZONE 'America/Denver')::timestamp", "2024-08-28T17:08:20"),
        // A local time that is skipped, and one that occurs twice.
        ("SELECT (TIMESTAMP '2024-03-31 02:30:00' AT TIME ZONE 'Europe/Berlin')::timestamp", "2024-03-31T01:30:00"),
        ("SELECT (TIMESTAMP '2024-10-27 02:30:00' AT TIME ZONE 'Europe/Berlin')::timestamp", "2024-10-27T01:30:00"),
        ("SELECT (TIMESTAMP '2024-10-27 01:59:59' AT TIME ZONE 'Europe/Berlin')::timestamp", "2024-10-26T23:59:59"),
        ("SELECT (TIMESTAMP '2011-12-30 12:00:00' AT TIME ZONE 'Pacific/Apia')::timestamp", "2011-12-30T22:00:00"),
        ("SELECT TIMESTAMP '2024-03-31 02:30:00' AT TIME ZONE 'Europe/Berlin'", "2024-03-31T03:30:00+02:00"),
        ("SELECT '2024-08-28T17:08:20Z'::timestamptz AT TIME ZONE '+02:00'", "2024-08-28T19:08:20"),
        (
            "SELECT '2024-08-28T17:08:20Z'::timestamptz AT TIME ZONE z FROM (VALUES ('UTC')) AS v(z)",
            "2024-08-28T17:08:20",
        ),
        ("SELECT TIMESTAMP '2024-08-28 17:08:20' AT TIME ZONE NULL", ""),
        ("SELECT NULL::timestamptz AT TIME ZONE 'UTC'", ""),
        ("SELECT DATE '2024-08-28' AT TIME ZONE 'America/Denver'", "2024-08-28T00:00:00-06:00"),
        (
            "SELECT to_local_time('2024-04-01T00:00:20'::timestamp AT TIME ZONE 'Europe/Brussels')",
            "2024-04-01T00:00:20",
        ),
        ("SELECT arrow_typeof('2024-08-28T17:08:20Z'::timestamptz)", "Timestamp(ns, \"UTC\")"),
        ("SELECT '2024-08-28 17:08:20+02'::timestamptz", "2024-08-28T15:08:20Z"),
    ] {
        assert_eq!(run(&*session, sql).await, [expected], "{sql}");
    }
    let why = fails(&*session, "SELECT now() AT TIME ZONE 'Mars/Olympus'").await;
    assert!(why.to_string().contains("there is no time zone `Mars/Olympus`"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn times_are_compared_whatever_their_unit() {
    let mut pod = Pod::new();
    let far = 253_370_764_800_000_000;
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from(vec![1, 2]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![far, 1_704_067_200_000_000]))),
        ("t", Arc::new(Time64MicrosecondArray::from(vec![46_800_000_000, 32_400_000_000]))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = File::create(pod.path().join("x.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    pod.dataset("x", "file:x.parquet");
    let session = pod.session().await;
    for (condition, expected) in [
        ("at = '9999-01-01'", "1"),
        ("'9999-01-01' = at", "1"),
        ("at = TIMESTAMP '9999-01-01 00:00:00'", "1"),
        ("at >= CAST('9999-01-01' AS TIMESTAMP)", "1"),
        ("at < '9999-01-01'", "2"),
        ("at IN ('9999-01-01', '2024-01-01')", "1; 2"),
        ("at NOT IN (TIMESTAMP '9999-01-01', '2000-01-01')", "2"),
        ("at BETWEEN '2000-01-01' AND '2100-01-01'", "2"),
        ("at BETWEEN '2000-01-01' AND '9999-12-31'", "1; 2"),
        ("at > DATE '2100-01-01'", "1"),
        ("at > now()", "1"),
        ("at IS DISTINCT FROM '2024-01-01'", "1"),
        ("t > TIME '12:00:00'", "1"),
        ("TIME '12:00:00' > t", "2"),
        ("t > '12:00:00'", "1"),
        ("t BETWEEN TIME '08:00:00' AND TIME '10:00:00'", "2"),
        ("t IN (TIME '09:00:00')", "2"),
        ("CASE WHEN t < TIME '10:00' THEN true ELSE false END", "2"),
    ] {
        let sql = format!("SELECT id FROM x WHERE {condition} ORDER BY id");
        assert_eq!(run(&*session, &sql).await.join("; "), expected, "{sql}");
    }
    assert_eq!(run(&*session, "SELECT TIMESTAMP '9999-12-31 00:00:00' AS v").await, ["9999-12-31T00:00:00"]);
    let fine = "SELECT TIMESTAMP '2024-01-01 00:00:00.123456789' = '2024-01-01 00:00:00.123456788' AS v";
    assert_eq!(run(&*session, fine).await, ["false"]);
}

/// Days beyond the range of nanoseconds are compared with times that have them.
#[tokio::test(flavor = "multi_thread")]
async fn distant_days_are_compared_with_times() {
    let session = Pod::new().session().await;
    run(&*session, "CREATE TABLE days (d date, at timestamp)").await;
    let rows = "('9999-12-31', '2024-01-01T00:00:00'), ('0001-01-01', '2024-01-01T00:00:00'), \
                ('2024-01-01', '2024-01-01T00:00:00'), ('2024-01-02', '2024-01-01T12:00:00'), (NULL, NULL)";
    run(&*session, &format!("INSERT INTO days VALUES {rows}")).await;
    for (condition, expected) in [
        ("d > timestamp '2024-01-01'", "2024-01-02; 9999-12-31"),
        ("d >= timestamp '2024-01-01'", "2024-01-01; 2024-01-02; 9999-12-31"),
        ("d >= timestamp '2024-01-01 12:00:00'", "2024-01-02; 9999-12-31"),
        ("timestamp '2024-01-01 12:00:00' > d", "0001-01-01; 2024-01-01"),
        ("d < timestamp '2024-01-02'", "0001-01-01; 2024-01-01"),
        ("d = timestamp '2024-01-01'", "2024-01-01"),
        ("d = timestamp '2024-01-01 12:00:00'", ""),
        ("d <> timestamp '2024-01-01 12:00:00'", "0001-01-01; 2024-01-01; 2024-01-02; 9999-12-31"),
        ("d > at", "2024-01-02; 9999-12-31"),
        ("d < at", "0001-01-01"),
        ("d = at", "2024-01-01"),
        ("d > now()", "9999-12-31"),
        ("d BETWEEN timestamp '2024-01-01' AND timestamp '2025-01-01'", "2024-01-01; 2024-01-02"),
        ("d IN (timestamp '2024-01-01')", "2024-01-01"),
    ] {
        let sql = format!("SELECT d FROM days WHERE {condition} ORDER BY d");
        assert_eq!(run(&*session, &sql).await.join("; "), expected, "{condition}");
    }
    assert_eq!(run(&*session, "SELECT date '9999-12-31' > timestamp '2024-01-01'").await, ["true"]);
}

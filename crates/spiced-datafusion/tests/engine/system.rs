//! Tables whose rows the program supplies.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use datafusion::arrow::array::{Int64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use spiced_datafusion::SystemTable;
use spiced_engine::ErrorKind;

use crate::{Pod, fails, run};

#[tokio::test(flavor = "multi_thread")]
async fn it_is_asked_anew_and_never_written() {
    let mut pod = Pod::new();
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let asked = AtomicI64::new(0);
    let rows = {
        let schema = schema.clone();
        move |_: &spiced_engine::Principal| {
            let n = asked.fetch_add(1, Ordering::Relaxed);
            RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![n, n + 100]))]).unwrap()
        }
    };
    pod.options.system = vec![SystemTable::new("asked", schema, rows)];
    let session = pod.session().await;
    for n in 0..3 {
        assert_eq!(run(&*session, "SELECT n FROM runtime.asked WHERE n > 50").await, [format!("{}", n + 100)]);
    }
    assert_eq!(run(&*session, "SELECT count(*) FROM runtime.asked").await, ["2"]);
    for sql in [
        "INSERT INTO runtime.asked VALUES (1)",
        "DELETE FROM runtime.asked",
        "DROP TABLE runtime.asked",
        "CREATE OR REPLACE TABLE runtime.asked AS SELECT 1",
        "DROP SCHEMA runtime CASCADE",
        "CREATE TABLE runtime.mine (a INT)",
        "CREATE VIEW runtime.mine AS SELECT 1",
    ] {
        assert_eq!(fails(&*session, sql).await.kind(), ErrorKind::Denied, "{sql}");
    }
}

//! Views of the pod.

use spiced_datafusion::{DataFusionEngine, ViewSpec};
use spiced_engine::{DatasetState, ErrorKind};

use crate::{Pod, fails, run, session, until};

fn view(name: &str, sql: &str) -> ViewSpec {
    ViewSpec { name: name.into(), sql: sql.into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_reads_what_is_there_now() {
    let mut pod = Pod::new();
    pod.memory("m", true);
    pod.options.views = vec![
        view("s.sum", "SELECT sum(n) AS n FROM doubled"),
        view("doubled", "SELECT id * 2 AS n FROM m WHERE id > 1"),
    ];
    let session = pod.session().await;
    run(&*session, "INSERT INTO m VALUES (1, 'a'), (2, 'b'), (3, 'c')").await;
    assert_eq!(run(&*session, "SELECT n FROM s.sum").await, ["10"]);
    run(&*session, "INSERT INTO m VALUES (4, 'd')").await;
    assert_eq!(run(&*session, "SELECT n FROM s.sum").await, ["18"]);
    for sql in ["INSERT INTO doubled VALUES (1)", "DROP VIEW doubled", "CREATE OR REPLACE VIEW doubled AS SELECT 1"] {
        assert_eq!(fails(&*session, sql).await.kind(), ErrorKind::Denied, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_view_says_so() {
    let mut pod = Pod::new();
    pod.memory("m", true);
    pod.options.views = vec![view("w", "INSERT INTO m VALUES (1, 'a')"), view("n", "SELECT * FROM nowhere")];
    let engine = pod.start();
    for (index, words) in [(1, "does more than read"), (2, "nowhere")] {
        let state = until(&engine, index, |state| matches!(state, DatasetState::Failed { .. })).await;
        assert!(format!("{state:?}").contains(words), "{state:?}");
    }
    assert_eq!(run(&*session(&engine).await, "SELECT count(*) FROM m").await, ["0"]);
    pod.options.views = vec![view("m", "SELECT 1"), view("x", "SELEC 1"), view("y", "SELECT 1; SELECT 2")];
    let error = DataFusionEngine::start(pod.options.clone()).map(|_| ()).unwrap_err();
    assert_eq!(error.causes().len(), 3, "{error}");
}

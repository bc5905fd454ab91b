//! Sessions are independent of each other, and cheap.

use std::time::{Duration, Instant};

use spiced_engine::{Engine, Principal, Role};

use crate::{Pod, run, session};

#[tokio::test(flavor = "multi_thread")]
async fn what_one_sets_no_other_sees() {
    let pod = Pod::new();
    let engine = pod.start();
    let (one, two) = (session(&engine).await, session(&engine).await);
    let show = "SELECT value FROM information_schema.df_settings WHERE name = 'datafusion.execution.batch_size'";
    run(&*one, "SET datafusion.execution.batch_size = 100").await;
    assert_eq!(run(&*one, show).await, ["100"]);
    assert_eq!(run(&*two, show).await, ["8192"]);
    assert_eq!(run(&*session(&engine).await, show).await, ["8192"]);
    run(&*one, "RESET datafusion.execution.batch_size").await;
    assert_eq!(run(&*one, show).await, ["8192"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_shared() {
    let pod = Pod::new();
    let engine = pod.start();
    run(&*session(&engine).await, "CREATE TABLE t AS SELECT 1 AS a").await;
    assert_eq!(run(&*session(&engine).await, "SELECT a FROM t").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_set_at_once_both_do() {
    let pod = Pod::new();
    let session = pod.session().await;
    let statements: Vec<String> = (0..20).map(|n| format!("PREPARE p{n} AS SELECT {n}")).collect();
    futures::future::join_all(statements.iter().map(|sql| run(&*session, sql))).await;
    for n in 0..20 {
        assert_eq!(run(&*session, &format!("EXECUTE p{n}")).await, [n.to_string()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_costs_next_to_nothing() {
    let pod = Pod::new();
    let engine = pod.start();
    let started = Instant::now();
    for _ in 0..10_000 {
        engine.session(&Principal::anonymous(Role::ReadOnly)).await.unwrap();
    }
    let each = started.elapsed() / 10_000;
    // About a microsecond in a debug build; copying DataFusion's state takes a hundred times that.
    assert!(each < Duration::from_micros(50), "{each:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn now_moves_on_between_executions() {
    let pod = Pod::new();
    let session = pod.session().await;
    let prepared = crate::prepare(&*session, "SELECT now()").await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        use futures::TryStreamExt;
        let answer = prepared.execute(spiced_engine::Parameters::none()).await.unwrap();
        seen.insert(crate::lines(&answer.batches.try_collect::<Vec<_>>().await.unwrap()));
    }
    assert_eq!(seen.len(), 3);
}

//! Slots belong to work: an unread result does not keep others from running, and the memory it holds is counted.

use std::time::Duration;

use futures::StreamExt;
use spiced_engine::{
    AdmissionControl, Engine, EngineError, ErrorKind, Execution, Guarded, Parameters, Principal, Role, RoleLimits,
    Statement,
};

use crate::Pod;

/// A practically endless result, one kilobyte a row.
const ENDLESS: &str = "SELECT value, repeat('x', 1000) AS x FROM generate_series(1, 1000000000000)";

/// Runs one statement at a time, without a queue.
fn one_at_a_time() -> AdmissionControl {
    let limits = RoleLimits { running: 1, waiting: 0 };
    AdmissionControl::new(limits, limits, Duration::ZERO)
}

async fn ask(engine: &impl Engine, caller: &str, sql: &str) -> Result<Execution, EngineError> {
    let session = engine.session(&Principal::new(caller, Role::ReadOnly)).await?;
    session.prepare(Statement::Sql(sql.to_owned())).await?.execute(Parameters::none()).await
}

/// Retries until a slot is free, for at most a minute.
async fn eventually(engine: &impl Engine, caller: &str, sql: &str) -> Execution {
    let answered = async {
        loop {
            match ask(engine, caller, sql).await {
                Ok(answer) => return answer,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}"),
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), answered).await.expect("a slot comes free")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_nobody_reads_keeps_nobody_from_running() {
    let mut pod = Pod::new();
    pod.options.query_timeout = Duration::from_secs(60);
    let engine = Guarded::new(pod.start()).admitted_by(one_at_a_time());
    let mut unread = Vec::new();
    for _ in 0..3 {
        unread.push(eventually(&engine, "slow", ENDLESS).await);
        let mut other = eventually(&engine, "other", "SELECT 1").await;
        assert!(other.batches.next().await.unwrap().is_ok());
    }
    // The limit on open results applies per caller and does not affect the others.
    let refused = async {
        loop {
            let error = ask(&engine, "slow", ENDLESS).await.unwrap_err();
            // Until then the slot was in use: a result that is being read takes it again.
            if error.to_string().contains("unread results") {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), refused).await.expect("one too many is refused");
    assert!(eventually(&engine, "other", "SELECT 1").await.batches.next().await.unwrap().is_ok());
    // A client that keeps reading gets the whole result.
    for _ in 0..20 {
        assert!(unread[0].batches.next().await.unwrap().is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_limit_ends_a_result_that_nobody_reads() {
    let mut pod = Pod::new();
    pod.options.query_timeout = Duration::from_millis(300);
    let engine = Guarded::new(pod.start()).admitted_by(one_at_a_time());
    let mut unread = Vec::new();
    // Each of these would exceed the limit if the earlier ones were still open.
    for _ in 0..6 {
        unread.push(eventually(&engine, "slow", ENDLESS).await);
    }
    for mut answer in unread {
        let ends = async {
            while let Some(batch) = answer.batches.next().await {
                if let Err(error) = batch {
                    return error;
                }
            }
            panic!("a result that was cut off ended as if it were whole")
        };
        let error = tokio::time::timeout(Duration::from_secs(60), ends).await.unwrap();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_wait_count_against_the_memory() {
    let mut pod = Pod::new();
    pod.options.memory_limit = 40 << 20;
    pod.options.query_timeout = Duration::from_secs(60);
    let engine = pod.start();
    let mut unread = Vec::new();
    // Eight megabytes a batch: some of them fit, the others do not.
    let mut refused = 0;
    for _ in 0..12 {
        let mut answer = ask(&engine, "slow", ENDLESS).await.unwrap();
        match answer.batches.next().await.unwrap() {
            Ok(_) => unread.push(answer),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
                refused += 1;
            }
        }
    }
    assert!(!unread.is_empty() && refused > 0, "{refused} of 12 were refused");
    drop(unread);
    let again = async {
        loop {
            let mut answer = ask(&engine, "slow", ENDLESS).await.unwrap();
            if answer.batches.next().await.unwrap().is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), again).await.expect("what they held is given back");
}

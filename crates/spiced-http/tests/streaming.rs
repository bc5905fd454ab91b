//! Responses are streamed in bounded memory. No batch is produced before it is requested. A failed or abandoned
//! response ends.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use common::{Api, Toy, call, numbers, query};
use futures::{StreamExt, stream};
use http_body_util::BodyExt;
use spiced_engine::{EngineError, ErrorKind};
use tower::ServiceExt;

const TEXT_FORMS: [&str; 5] =
    ["application/json", "text/csv", "text/plain", "application/x-ndjson", "application/vnd.spiceai.sql.v1+json"];

#[tokio::test]
async fn a_huge_batch_goes_out_in_small_chunks() {
    let rows = 500_000;
    let api = Toy::batches(vec![numbers(rows)]).api();
    for accept in TEXT_FORMS {
        let mut body = api.clone().oneshot(query("S", accept)).await.unwrap().into_body();
        let (mut largest, mut total) = (0, 0);
        while let Some(frame) = body.frame().await {
            let length = frame.unwrap().into_data().unwrap().len();
            (largest, total) = (largest.max(length), total + length);
        }
        assert!(total > 3_000_000, "{accept}: {total}");
        assert!(largest < 100_000, "{accept}: a chunk of {largest}");
    }
}

#[tokio::test]
async fn large_values_do_not_pile_up() {
    let value = "x".repeat(100_000);
    let batch = RecordBatch::try_from_iter([("s", Arc::new(StringArray::from(vec![value.as_str(); 300])) as ArrayRef)])
        .unwrap();
    let body = call(Toy::batches(vec![batch]).api(), query("S", "application/json")).await;
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&body.body).unwrap();
    assert!(rows.len() == 300 && rows.iter().all(|row| row["s"] == value));
}

#[tokio::test]
async fn wide_rows_are_encoded_a_few_at_a_time() {
    let value = "x".repeat(50_000);
    let values = Arc::new(StringArray::from(vec![value.as_str(); 2_000])) as ArrayRef;
    let batch = RecordBatch::try_from_iter([("s", values)]).unwrap();
    let api = Toy::batches(vec![batch]).api();
    for accept in TEXT_FORMS {
        let mut body = api.clone().oneshot(query("S", accept)).await.unwrap().into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap().len();
        assert!(first < 1_000_000, "{accept}: {first} bytes at once");
    }
}

#[tokio::test]
async fn an_arrow_column_is_not_copied() {
    let batch = numbers(100_000);
    let data = batch.column(0).to_data().buffers()[0].as_ptr();
    let api = Toy::batches(vec![batch]).api();
    let mut body = api.oneshot(query("S", "application/vnd.apache.arrow.stream")).await.unwrap().into_body();
    let mut found = false;
    while let Some(frame) = body.frame().await {
        found |= frame.unwrap().into_data().unwrap().as_ptr() == data;
    }
    assert!(found);
}

#[tokio::test]
async fn batches_are_made_as_the_client_reads() {
    let made = Arc::new(AtomicUsize::new(0));
    let engine = Toy::new({
        let made = made.clone();
        move |_, _| {
            let made = made.clone();
            let batches = stream::repeat_with(move || {
                made.fetch_add(1, Ordering::SeqCst);
                // The batch exceeds one frame.
                Ok(numbers(20_000))
            });
            Ok((numbers(0).schema(), batches.boxed()))
        }
    });
    for accept in TEXT_FORMS {
        made.store(0, Ordering::SeqCst);
        let mut body = engine.api().oneshot(query("S", accept)).await.unwrap().into_body();
        assert_eq!(made.load(Ordering::SeqCst), 1, "{accept}");
        for read in 1..=5 {
            body.frame().await.unwrap().unwrap();
            assert!(made.load(Ordering::SeqCst) <= read, "{accept}");
        }
    }
}

#[tokio::test]
async fn small_batches_that_are_there_go_together() {
    let api = Toy::batches(vec![numbers(10); 50]).api();
    for accept in TEXT_FORMS.into_iter().chain(["application/vnd.apache.arrow.stream"]) {
        let mut body = api.clone().oneshot(query("S", accept)).await.unwrap().into_body();
        let mut frames = 0;
        while body.frame().await.is_some() {
            frames += 1;
        }
        assert_eq!(frames, 1, "{accept}");
    }
}

#[tokio::test]
async fn rows_that_are_there_do_not_wait_for_those_that_are_not() {
    let engine =
        Toy::new(|_, _| Ok((numbers(0).schema(), stream::iter([Ok(numbers(1))]).chain(stream::pending()).boxed())));
    let mut body = engine.api().oneshot(query("S", "application/json")).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, r#"[{"n":0}"#);
}

#[tokio::test]
async fn a_late_failure_breaks_the_answer_off() {
    let engine = Toy::new(|_, _| {
        let rest = async {
            tokio::task::yield_now().await;
            stream::iter([Err(EngineError::new(ErrorKind::Internal, "disk")), Ok(numbers(1))])
        };
        Ok((numbers(0).schema(), stream::iter([Ok(numbers(2))]).chain(stream::once(rest).flatten()).boxed()))
    });
    for accept in TEXT_FORMS.into_iter().chain(["application/vnd.apache.arrow.stream"]) {
        let response = engine.api().oneshot(query("S", accept)).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        assert!(body.frame().await.unwrap().is_ok(), "{accept}");
        assert!(body.frame().await.unwrap().is_err(), "{accept}");
        assert!(body.frame().await.is_none(), "{accept}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_query() {
    let running = Arc::new(());
    let engine = Toy::new({
        let running = running.clone();
        move |_, _| {
            let held = running.clone();
            let batches = stream::repeat_with(move || {
                let _ = &held;
                Ok(numbers(1))
            });
            Ok((numbers(0).schema(), batches.boxed()))
        }
    });
    let before = Arc::strong_count(&running);
    let response = engine.api().oneshot(query("S", "*/*")).await.unwrap();
    assert_eq!(Arc::strong_count(&running), before + 1);
    drop(response);
    assert_eq!(Arc::strong_count(&running), before);
}

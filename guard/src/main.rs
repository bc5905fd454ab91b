//! Runs the endpoints' work without sockets and without a query engine, to count its instructions. `spiced-guard NAME`
//! runs one piece of work twice, and callgrind counts only the second run, which is [`counted`]. Without a name,
//! `spiced-guard` lists the names.

// It prints for the caller that counts.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod engine;
mod work;

use std::process::ExitCode;

use axum::Router;
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use tokio::runtime::Runtime;
use tower::ServiceExt;

use work::Work;

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        work::ALL.iter().for_each(|work| println!("{}", work.name));
        return ExitCode::SUCCESS;
    };
    let Some(work) = work::ALL.iter().find(|work| work.name == name) else {
        eprintln!("there is no {name}; there are {}", work::ALL.map(|work| work.name).join(", "));
        return ExitCode::FAILURE;
    };
    match run(work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{name}: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(work: &Work) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(|e| e.to_string())?;
    let endpoint = (work.endpoint)();
    let ask = || runtime.block_on((work.request)(endpoint.clone()));
    // The first run does the one-time initialization.
    let (first, second) = (ask()?, ask()?);
    let warm = answered(&runtime, endpoint.clone(), first)?;
    // The endpoint outlives the counted call, so dropping it is not counted.
    let bytes = counted(&runtime, endpoint.clone(), second)?;
    if bytes != warm || bytes < work.least {
        return Err(format!("an answer of {bytes} bytes, and of {warm} before; there are {} at least", work.least));
    }
    Ok(())
}

/// The function that callgrind counts; `cargo xtask guard` knows it by name.
#[inline(never)]
fn counted(runtime: &Runtime, endpoint: Router, request: Request<Body>) -> Result<usize, String> {
    answered(runtime, endpoint, request)
}

/// Sends the request and returns the size of the response in bytes.
fn answered(runtime: &Runtime, endpoint: Router, request: Request<Body>) -> Result<usize, String> {
    runtime.block_on(async {
        let answer = endpoint.oneshot(request).await.map_err(|never: std::convert::Infallible| never.to_string())?;
        let (head, mut body) = answer.into_parts();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| e.to_string())?;
            if let Some(status) = frame.trailers_ref().and_then(|trailers| trailers.get("grpc-status"))
                && status != "0"
            {
                return Err(format!("{frame:?}"));
            }
            bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
        }
        if head.status.is_success() { Ok(bytes) } else { Err(format!("{head:?}")) }
    })
}

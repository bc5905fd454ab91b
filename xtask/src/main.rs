//! What `just` runs: `cargo xtask test`, `check`, `edges`, `first-command`, `bench`.

mod bench;
mod check;
mod edges;
mod first_command;
mod tests;
mod tools;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let outcome = match words.next().as_deref() {
        Some("test") => tests::run(&words.collect::<Vec<_>>()),
        Some("check") => check::run(),
        Some("edges") => edges::run(),
        Some("first-command") => first_command::run(),
        Some("bench") => bench::run(&words.collect::<Vec<_>>()),
        _ => Err("usage: cargo xtask test [PYTEST ARGS] | check | edges | first-command | bench [--quick] [--only NAME…] [--write]".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

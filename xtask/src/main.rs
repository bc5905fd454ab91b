//! What `just` runs: `cargo xtask test`, `check`, `edges`, `first-command`, `clients`, `clients-table`.

mod check;
mod clients;
mod edges;
mod first_command;
mod tests;
mod tools;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let outcome = match words.next().as_deref() {
        Some("test") => tests::run(&words.collect::<Vec<_>>()),
        Some("clients") => clients::print(),
        Some("clients-table") => tests::clients_table(),
        Some("check") => check::run(),
        Some("edges") => edges::run(),
        Some("first-command") => first_command::run(),
        _ => Err("usage: cargo xtask test [PYTEST ARGS] | clients | clients-table | check | edges | first-command"
            .to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

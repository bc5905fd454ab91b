//! What `just` runs: `cargo xtask test`, `clients`, `clients-table`, `check`, `edges`, `alone`, `docs`, `first-command`.

mod alone;
mod book;
mod check;
mod clients;
mod docs;
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
        Some("alone") => alone::run(),
        Some("docs") => docs::run(),
        Some("first-command") => first_command::run(),
        _ => Err("usage: cargo xtask test [PYTEST ARGS] | clients | clients-table | check | edges | alone | docs | first-command"
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

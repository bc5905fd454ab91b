//! The tasks behind `just`: `cargo xtask test`, `soak`, `clients`, `clients-table`, `check`, `edges`, `alone`, `docs`,
//! `docs-lint`, `bench`, `guard`, `first-command`.

mod alone;
mod bench;
mod book;
mod check;
mod clients;
mod docs;
mod docs_lint;
mod edges;
mod first_command;
mod guard;
mod tests;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask test [PYTEST ARGS] | soak | clients | clients-table | check | edges | alone | docs | docs-lint | \
                     bench [--quick] [--only NAME…] [--write] | guard [--write] | first-command";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let outcome = match words.next().as_deref() {
        Some("test") => tests::run(&words.collect::<Vec<_>>()),
        Some("soak") => tests::soak(),
        Some("clients") => clients::print(),
        Some("clients-table") => tests::clients_table(),
        Some("check") => check::run(),
        Some("edges") => edges::run(),
        Some("alone") => alone::run(),
        Some("docs") => docs::run(),
        Some("docs-lint") => docs_lint::run(),
        Some("first-command") => first_command::run(),
        Some("guard") => guard::run(words.any(|word| word == "--write")),
        Some("bench") => bench::run(&words.collect::<Vec<_>>()),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

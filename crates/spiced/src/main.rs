//! `spiced`: reads the command line, runs, and says how it ended.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let outcome = spiced::Args::read(std::env::args_os()).and_then(spiced::run);
    spiced::report(outcome)
}

//! `just bench`: measures what `spiced` costs compared with the alternatives, in one run.
//!
//! A figure is the CPU time of the server's process for a unit of work (a handshake, a request, a gigabyte), because
//! wall time depends more on the machine's other tenants than on the server. The servers take turns in each round, so
//! that a disturbance affects them all; the figure is the median of the rounds.
//!
//! This crate calls no code of the servers: they are processes, reached by socket. Only DataFusion and Arrow's writers
//! run in this process, to measure their cost without a server.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod certificate;
mod figures;
mod growth;
mod load;
mod machine;
mod meter;
mod plot;
mod process;
mod report;
mod run;
mod servers;
mod statistics;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;

/// The allocator of `spiced`, for the work that runs in this process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The result of a step: a value, or an error message.
pub(crate) type Outcome<T = ()> = Result<T, String>;

fn main() -> ExitCode {
    match run::run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            say(&format!("bench: {message}"));
            ExitCode::FAILURE
        }
    }
}

/// Reports progress on standard error; the figures go to standard output.
pub(crate) fn say(line: &str) {
    // Standard error may be closed; the run continues.
    let _ = writeln!(std::io::stderr(), "{line}");
}

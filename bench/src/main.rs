//! `just bench`: what `spiced` costs, beside what users would pick instead, in one run.
//!
//! A figure is CPU seconds of the server's process for a piece of work (a handshake, a request, a
//! gigabyte), since wall time says more about the machine's other tenants than about the server.
//! Servers take turns in each round, so that whatever disturbs one disturbs its peers; of the
//! rounds the median counts.
//!
//! What is absent on purpose: any call into the servers' code. They are programs, reached by socket. DataFusion and Arrow's
//! writers alone, whose cost is that of no server, are what runs in here.
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

/// The one of `spiced`, for what runs in here beside it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a step returns: something, or one sentence.
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

/// Tells whoever waits how far it is; the figures themselves go to standard output.
pub(crate) fn say(line: &str) {
    // A closed standard error is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{line}");
}

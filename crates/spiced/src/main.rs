//! The `spiced` binary: parses the command line, runs the command, and reports the outcome.

use std::hint::black_box;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all: a signal that arrives before this ends the process in its own way.
    let signals = spiced::StartSignals::listen();
    // Without this thread the server works, but keeps more memory than it needs.
    let _ = thread::Builder::new().name("memory".to_owned()).spawn(purge_allocator);
    let outcome = spiced::Args::read(std::env::args_os()).and_then(|args| spiced::run(args, signals));
    spiced::report(outcome)
}

/// Makes mimalloc return freed memory to the system. mimalloc does so with a delay of one second, but only when
/// something else is freed, so the memory of a burst would be kept while the server is idle. This loop therefore frees
/// an untouched allocation once a second.
fn purge_allocator() {
    const EACH: Duration = Duration::from_secs(1);
    /// Large enough for a page of its own, which mimalloc does not keep for the next allocation.
    const SOMETHING: usize = 4 << 20;
    loop {
        thread::sleep(EACH);
        drop(black_box(Vec::<u8>::with_capacity(SOMETHING)));
    }
}

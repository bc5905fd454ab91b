//! `spiced`: reads the command line, runs, and says how it ended.

use std::hint::black_box;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Without it all runs, and keeps more than it needs.
    let _ = thread::Builder::new().name("memory".to_owned()).spawn(purge_allocator);
    let outcome = spiced::Args::read(std::env::args_os()).and_then(spiced::run);
    spiced::report(outcome)
}

/// Has mimalloc give freed memory back to the system. It does so a second later, but only as it frees some more: what a burst
/// has left would stay for as long as nothing happens. So once a second something is freed, which nobody has touched.
fn purge_allocator() {
    const EACH: Duration = Duration::from_secs(1);
    /// So large that it is a page of its own, which is not kept for the next one.
    const SOMETHING: usize = 4 << 20;
    loop {
        thread::sleep(EACH);
        drop(black_box(Vec::<u8>::with_capacity(SOMETHING)));
    }
}

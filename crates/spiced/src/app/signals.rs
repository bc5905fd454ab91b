//! Signals that stop or reload the server, from the first moment of its start.
//!
//! One thread receives them for the lifetime of the process and counts them; nothing hands over, so none is lost or
//! counted twice.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::sync::watch;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// SIGTERM, SIGINT, or SIGHUP after the terminal is gone.
    Stop,
    /// SIGHUP.
    Reload,
}

/// How long a start that is stopped may take to end in order.
const LAST_WAIT: Duration = Duration::from_secs(3);

/// The signals of the server. As process 1 of a container, the kernel drops signals without a handler; therefore the
/// handlers are installed before anything that takes time.
#[derive(Debug)]
pub(crate) struct Signals {
    /// The number of requests to stop.
    stops: watch::Receiver<u32>,
    /// The number of requests to reload. One that arrives during the start is served after it.
    reloads: watch::Receiver<u32>,
    serving: Arc<AtomicBool>,
}

impl Signals {
    /// Installs the handlers, which stay for the lifetime of the process.
    ///
    /// # Errors
    /// Fails if the system refuses a handler or the thread.
    pub(crate) fn listen() -> io::Result<Self> {
        let (stops, reloads) = (watch::Sender::new(0), watch::Sender::new(0));
        let serving = Arc::new(AtomicBool::new(false));
        let signals = Self { stops: stops.subscribe(), reloads: reloads.subscribe(), serving: serving.clone() };
        // Distinguishes losing the terminal from never having had one (systemd, a container) and from `nohup`.
        let had_terminal = has_terminal() && !ignores_hang_up();
        let mut received = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let work = move || {
            for signal in received.forever() {
                match signal {
                    // A terminal that closes sends SIGHUP more than once; that is one request.
                    SIGHUP if had_terminal && !has_terminal() => stops.send_modify(|count| *count = (*count).max(1)),
                    SIGHUP => reloads.send_modify(|count| *count = count.saturating_add(1)),
                    _ => stops.send_modify(|count| *count = count.saturating_add(1)),
                }
                if !serving.load(Ordering::SeqCst) {
                    stop_the_start(*stops.borrow(), &serving);
                }
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(work)?;
        Ok(signals)
    }

    /// Waits for a signal that stops the start.
    pub(crate) async fn stopped(&mut self) {
        // The sender lives as long as the process.
        let _ = self.stops.wait_for(|count| *count >= 1).await;
    }

    /// Returns whether a signal has stopped the start. If not, the server serves from now on.
    pub(crate) fn stopped_the_start(&mut self) -> bool {
        let stopped = *self.stops.borrow() >= 1;
        self.serving.store(!stopped, Ordering::SeqCst);
        stopped
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> Told {
        tokio::select! {
            biased;
            _ = self.stops.wait_for(|count| *count >= 1) => Told::Stop,
            _ = self.reloads.changed() => Told::Reload,
        }
    }

    /// Waits for a second stop signal during the shutdown.
    pub(crate) async fn stop(&mut self) {
        let _ = self.stops.wait_for(|count| *count >= 2).await;
    }
}

/// Ends a start that does not end in order: at once after a second signal, and after [`LAST_WAIT`] otherwise.
fn stop_the_start(stops: u32, serving: &Arc<AtomicBool>) {
    match stops {
        0 => {}
        1 => {
            let serving = serving.clone();
            let end = move || {
                thread::sleep(LAST_WAIT);
                if !serving.load(Ordering::SeqCst) {
                    std::process::exit(0);
                }
            };
            if thread::Builder::new().name("last-wait".to_owned()).spawn(end).is_err() {
                std::process::exit(0);
            }
        }
        _ => std::process::exit(0),
    }
}

/// Returns whether there is a controlling terminal; opening `/dev/tty` fails otherwise.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Returns whether SIGHUP is ignored, as under `nohup`.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask & (1 << (SIGHUP - 1)) != 0
}

//! Signals that stop or reload the program.

use std::fs::File;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// SIGTERM, SIGINT, or SIGHUP after the terminal is gone.
    Stop,
    /// SIGHUP.
    Reload,
}

/// The signals that the program handles.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// Whether there was a terminal at startup. Distinguishes losing the terminal from never having had one (systemd, a
    /// container).
    had_terminal: bool,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        let had_terminal = has_terminal() && !ignores_hang_up();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            had_terminal,
        })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hang_up.recv() => {
                if self.had_terminal && !has_terminal() { Told::Stop } else { Told::Reload }
            }
        }
    }

    /// Waits for a second stop signal during the shutdown. SIGHUP does not count, because a terminal that closes sends
    /// it more than once.
    pub(crate) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Returns whether there is a controlling terminal; opening `/dev/tty` fails otherwise.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Returns true if SIGHUP is ignored, as under `nohup`: it must not stop the program, so it reloads.
fn ignores_hang_up() -> bool {
    const HANG_UP: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & HANG_UP != 0)
}

//! What the process is told from outside: stop, or reload.

use std::fs::File;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// SIGTERM, SIGINT, or SIGHUP where the terminal is gone.
    Stop,
    /// SIGHUP.
    Reload,
}

/// The signals that the program listens to.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// Whether there was a terminal at the start, so that losing it can be told from never having
    /// had one (systemd, a container).
    had_terminal: bool,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            had_terminal: has_terminal(),
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hang_up.recv() => {
                if self.had_terminal && !has_terminal() { Told::Stop } else { Told::Reload }
            }
        }
    }

    /// Waits for one that asks to stop.
    pub(crate) async fn stop(&mut self) {
        while self.next().await != Told::Stop {}
    }
}

/// Opening the controlling terminal fails where there is none any more.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

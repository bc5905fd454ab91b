//! Signals that stop or reload the program.

use std::fs::File;
use std::io;
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::signal::unix::{Signal, SignalKind, signal};
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

/// What a signal does before [`Signals`] takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The server starts: SIGTERM and SIGINT stop it, with success. SIGHUP changes nothing, because the start reads
    /// everything anyway.
    Starting,
    /// [`StartSignals::stopped`] has been reported.
    Stopped,
    /// [`Signals`] handles the signals.
    Serving,
}

/// Handles signals from the first moment of a start until the server serves. A signal during the start thus stops the
/// server in order, also as process 1 of a container, for which the kernel drops signals without a handler.
#[derive(Debug)]
pub(crate) struct StartSignals {
    phase: watch::Sender<Phase>,
    /// Whether SIGHUP was ignored, as under `nohup`: it must not stop the program, so it reloads.
    ignores_hang_up: bool,
}

impl StartSignals {
    /// Installs the handlers, which stay for the lifetime of the process.
    pub(crate) fn listen() -> Self {
        let phase = watch::Sender::new(Phase::Starting);
        let ignores_hang_up = ignores_hang_up();
        // Without handlers, every signal keeps its default.
        if let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP]) {
            let seen = phase.clone();
            let work = move || signals.forever().for_each(|signal| handle(signal, &seen));
            // The server can do without this thread.
            let _ = thread::Builder::new().name("signals".to_owned()).spawn(work);
        }
        Self { phase, ignores_hang_up }
    }

    /// Waits for a signal that stops the start.
    pub(crate) async fn stopped(&self) {
        // The sender is alive as long as this borrow.
        let _ = self.phase.subscribe().wait_for(|phase| *phase == Phase::Stopped).await;
    }

    /// Returns whether a signal has stopped the start.
    pub(crate) fn is_stopped(&self) -> bool {
        *self.phase.borrow() == Phase::Stopped
    }
}

/// Handles one signal, on the thread for signals.
fn handle(signal: i32, phase: &watch::Sender<Phase>) {
    if signal == SIGHUP {
        return;
    }
    let now = *phase.borrow();
    match now {
        Phase::Starting => {
            phase.send_if_modified(|phase| {
                let is_starting = *phase == Phase::Starting;
                if is_starting {
                    *phase = Phase::Stopped;
                }
                is_starting
            });
            let phase = phase.clone();
            let end = move || {
                thread::sleep(LAST_WAIT);
                if *phase.borrow() == Phase::Stopped {
                    std::process::exit(0);
                }
            };
            // What keeps the start from ending in order is left as it is.
            let _ = thread::Builder::new().name("last-wait".to_owned()).spawn(end);
        }
        // A second signal ends at once.
        Phase::Stopped => std::process::exit(0),
        Phase::Serving => {}
    }
}

/// The signals that the program handles.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    /// Whether there was a terminal at startup. Distinguishes losing the terminal from never having had one (systemd, a
    /// container).
    had_terminal: bool,
    /// Whether the start was stopped after it had ended.
    stops_at_once: bool,
}

impl Signals {
    /// Takes over from `start`.
    pub(crate) fn listen(start: &StartSignals) -> io::Result<Self> {
        let had_terminal = has_terminal() && !start.ignores_hang_up;
        let signals = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            had_terminal,
            stops_at_once: false,
        };
        let before = start.phase.send_replace(Phase::Serving);
        Ok(Self { stops_at_once: before == Phase::Stopped, ..signals })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> Told {
        if std::mem::take(&mut self.stops_at_once) {
            return Told::Stop;
        }
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

/// Returns whether SIGHUP is ignored, as under `nohup`.
fn ignores_hang_up() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask & (1 << (SIGHUP - 1)) != 0
}

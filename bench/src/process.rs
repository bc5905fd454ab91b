//! A server's process: its output, its CPU time, and its termination.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;

/// Clock ticks per second of CPU time: 100 on every Linux (`USER_HZ`, proc(5)).
const TICKS: u64 = 100;

/// How long a server may take to exit after SIGTERM.
const FAREWELL: Duration = Duration::from_secs(5);

/// A running server; dropping it stops it.
pub(crate) struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    /// The process and those of its children that do its work.
    family: Vec<u32>,
}

impl Process {
    /// Starts `command`. `name` is its name in messages.
    pub(crate) fn start(name: impl Into<String>, command: &mut Command) -> Outcome<Self> {
        let name = name.into();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("cannot start {name} ({command:?}): {e}"))?;
        let (sender, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            forward(stdout, sender.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            forward(stderr, sender);
        }
        let family = vec![child.id()];
        Ok(Self { name, child, lines, family })
    }

    /// Reads the output up to the first line for which `wanted` returns a value.
    pub(crate) fn wait_for<T>(&mut self, patience: Duration, mut wanted: impl FnMut(&str) -> Option<T>) -> Outcome<T> {
        let end = Instant::now() + patience;
        let mut said = Vec::new();
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(found) = wanted(&line) {
                        return Ok(found);
                    }
                    said.push(line);
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!(
                        "{} does not serve after {patience:?}; it said:\n{}",
                        self.name,
                        said.join("\n")
                    ));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(format!("{} ended before it served; it said:\n{}", self.name, said.join("\n")));
                }
            }
        }
    }

    /// Includes the child processes (nginx's workers) in the measurements, and returns their number.
    pub(crate) fn adopt_children(&mut self) -> Outcome<usize> {
        let all = fs::read_dir("/proc").map_err(|e| format!("/proc: {e}"))?;
        let ids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        self.family.truncate(1);
        self.family.extend(ids.filter(|id| stat(*id).is_ok_and(|stat| parent(&stat) == Some(self.child.id()))));
        Ok(self.family.len() - 1)
    }

    /// Returns the user and system CPU time so far. It includes the kernel's work for a sender over loopback, even on
    /// the receiving side.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        self.family.iter().map(|id| cpu_of(*id)).sum::<Outcome<_>>().map_err(|e| format!("{}: {e}", self.name))
    }

    /// Returns the resident memory in bytes.
    pub(crate) fn resident(&self) -> Outcome<u64> {
        let of = |id: &u32| {
            let file = format!("/proc/{id}/status");
            let status = fs::read_to_string(&file).map_err(|e| format!("{file}: {e}"))?;
            resident(&status).ok_or_else(|| format!("{file} has no VmRSS"))
        };
        self.family.iter().map(of).sum::<Outcome<_>>().map_err(|e| format!("{}: {e}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The standard library can only send SIGKILL, which would leave nginx's workers behind.
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let end = Instant::now() + FAREWELL;
        while told.as_ref().is_ok_and(|status| status.success()) && Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the CPU time of a process with all its threads, including those that have ended.
pub(crate) fn cpu_of(id: u32) -> Outcome<Duration> {
    let stat = stat(id)?;
    ticks(&stat)
        .map(|ticks| Duration::from_millis(ticks * 1000 / TICKS))
        .ok_or_else(|| format!("/proc/{id}/stat: {stat}"))
}

fn stat(id: u32) -> Outcome<String> {
    fs::read_to_string(format!("/proc/{id}/stat")).map_err(|e| format!("/proc/{id}/stat: {e}"))
}

/// Returns the fields after the name, which may contain any character.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace()
}

fn parent(stat: &str) -> Option<u32> {
    fields(stat).nth(1)?.parse().ok()
}

fn ticks(stat: &str) -> Option<u64> {
    let mut times = fields(stat).skip(11);
    let (user, system): (u64, u64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some(user + system)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn forward(output: impl Read + Send + 'static, to: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // Keeps reading without a receiver: a full pipe would block the server.
            let _ = to.send(line);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_found() {
        assert_eq!(resident("VmHWM:\t 9000 kB\nVmRSS:\t    1234 kB\nThreads:\t3\n"), Some(1_263_616));
        assert_eq!(resident("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 9 0 0 0 150 25 3 4 20 0 1 0 100 0 0";
        assert_eq!(parent(stat), Some(1));
        assert_eq!(ticks(stat), Some(175));
        assert_eq!(ticks("7 (x) S 1"), None);
    }
}

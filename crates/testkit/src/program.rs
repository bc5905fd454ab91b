//! A program that runs in a process of its own: a command to its end, or a server until it is stopped.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// How long an event of the log may take. A debug build on a busy machine starts in a second.
const DEADLINE: Duration = Duration::from_secs(60);

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// Runs a program to its end.
pub fn run(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ended {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// A running server. It is killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    lines: Receiver<String>,
    log: String,
}

impl Program {
    /// Starts a server that writes its log to standard error, a JSON document in each line.
    pub fn start(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stderr.lines() {
                if sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, log: String::new() }
    }

    /// Waits for the next record of the log with this message, and returns its fields.
    pub fn logged(&mut self, message: &str) -> Value {
        loop {
            let line = match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => panic!("no {message:?} within {DEADLINE:?} in:\n{}", self.log),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended without {message:?}:\n{}", self.log),
            };
            self.log.push_str(&line);
            self.log.push('\n');
            let record: Value = serde_json::from_str(&line).unwrap_or_default();
            if record["fields"]["message"] == message {
                return record["fields"].clone();
            }
        }
    }

    /// Waits until an endpoint listens, and returns its address. The endpoints listen in the order of `http`, `flight`,
    /// `grpc`, `metrics`, `probe`.
    pub fn address(&mut self, endpoint: &str) -> SocketAddr {
        loop {
            let listening = self.logged("listening");
            if listening["endpoint"] == endpoint {
                return listening["address"].as_str().unwrap().parse().unwrap();
            }
        }
    }

    /// Sends a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end.
    pub fn ended(mut self) -> Ended {
        let code = self.child.wait().unwrap().code();
        let mut stdout = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        let mut stderr = std::mem::take(&mut self.log);
        stderr.extend(self.lines.iter().map(|line| line + "\n"));
        Ended { code, stdout, stderr }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

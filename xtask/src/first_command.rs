//! Runs the README's first command as a new user does: `cargo run -p spiced` in this directory, then the command that
//! it prints, then Ctrl-C.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use crate::tools::{Outcome, cargo, need};

/// Includes a cold build.
const TIMEOUT: Duration = Duration::from_secs(40 * 60);

pub fn run() -> Outcome {
    need(&[("curl", "curl")])?;
    let mut child = cargo()
        .args(["run", "-p", "spiced", "--"])
        // Free ports, so that they do not conflict with a developer's own instance.
        .args(["--http", "localhost:0", "--flight", "localhost:0", "--grpc", "localhost:0"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let outcome = paste(&mut child);
    let stopped = stop(&mut child);
    outcome.and(stopped)
}

/// Waits for the command, runs it in a shell, and checks the response.
fn paste(child: &mut Child) -> Outcome {
    let lines = lines(child)?;
    let end = Instant::now() + TIMEOUT;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let line = lines.recv_timeout(left).map_err(|_| "`cargo run -p spiced` printed no curl line".to_owned())?;
        let line = line.trim();
        if !line.starts_with("curl ") || !line.contains("/v1/sql") {
            continue;
        }
        eprintln!("+ {line}");
        let answer = Command::new("sh").args(["-c", line]).output().map_err(|e| e.to_string())?;
        let text = String::from_utf8_lossy(&answer.stdout);
        print!("{text}");
        let rows = text.lines().filter(|row| row.contains("2013")).count();
        let failed = String::from_utf8_lossy(&answer.stderr);
        return if rows == 5 { Ok(()) } else { Err(format!("the pasted line gave {rows} rows, not 5: {failed}")) };
    }
}

fn lines(child: &mut Child) -> Outcome<Receiver<String>> {
    let stdout = child.stdout.take().ok_or("no standard output")?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

/// Sends Ctrl-C to the program (cargo may have replaced itself with it), and checks for a clean exit.
fn stop(child: &mut Child) -> Outcome {
    let id = child.id().to_string();
    let told = Command::new("sh")
        .args(["-c", "pkill -INT -P \"$1\" || kill -INT \"$1\"", "sh", &id])
        .status()
        .map_err(|e| e.to_string())?;
    let status = child.wait().map_err(|e| e.to_string())?;
    if told.success() && status.success() { Ok(()) } else { Err(format!("it did not stop cleanly: {status}")) }
}

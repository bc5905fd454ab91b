//! No option or argument prints a value that may be a key. Every option of every command, taken from clap's own tree,
//! is given marked key material in every form that users have it in, and all output is searched for the mark.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::CommandFactory;

/// The mark in every form of the material; encoded forms contain its encoding.
const MARK: &str = "MARKEDiKEYiMATERIALi0123456789abcdef";

/// The timeout of a run.
const DEADLINE: Duration = Duration::from_secs(60);

/// Returns the forms of the material, and what must not be printed of each.
fn forms() -> Vec<(&'static str, String, Vec<String>)> {
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{MARK}\n-----END PRIVATE KEY-----\n");
    let plain = |text: String| (text, vec![MARK.to_owned(), "BEGIN PRIVATE".to_owned()]);
    let coded = |text: &str| {
        let coded = STANDARD.encode(text);
        let parts = [8, 24, 40].map(|at| coded[at..at + 16].to_owned());
        (coded, parts.to_vec())
    };
    let all = [
        ("PEM", plain(pem.clone())),
        ("PEM after a line break", plain(format!("\r\n{pem}"))),
        ("PEM after attributes", plain(format!("Bag Attributes\n    localKeyID: 01\n{pem}"))),
        ("PEM with CRLF", plain(pem.replace('\n', "\r\n"))),
        ("PEM with literal line breaks", plain(pem.replace('\n', "\\n"))),
        ("PEM on one line", plain(pem.replace('\n', " "))),
        ("PEM in quotes", plain(format!("\"{pem}\""))),
        ("PEM in Base64", coded(&pem)),
        ("PEM in Base64 twice", coded(&STANDARD.encode(&pem))),
        ("a body without its frame", (MARK.repeat(3), vec![MARK.to_owned()])),
        ("a line of the body", (format!("{MARK}{}", &MARK[..28]), vec![MARK.to_owned()])),
        ("a line that begins like a path", (format!("/{MARK}{}", &MARK[..27]), vec![MARK.to_owned()])),
    ];
    all.into_iter().map(|(name, (text, hidden))| (name, text, hidden)).collect()
}

/// Returns every command with the words that select it.
fn commands() -> Vec<(Vec<String>, clap::Command)> {
    fn gather(command: &clap::Command, words: &[String], found: &mut Vec<(Vec<String>, clap::Command)>) {
        found.push((words.to_vec(), command.clone()));
        for inner in command.get_subcommands() {
            let words: Vec<String> = words.iter().cloned().chain([inner.get_name().to_owned()]).collect();
            gather(inner, &words, found);
        }
    }
    let mut root = spiced::Args::command();
    root.build();
    let mut found = Vec::new();
    gather(&root, &[], &mut found);
    found
}

/// Returns the command lines that pass `value` to each option and argument of a command.
fn lines(words: &[String], command: &clap::Command, value: &str) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    let mut line = |more: &[&str]| {
        lines.push(words.iter().map(String::as_str).chain(more.iter().copied()).map(str::to_owned).collect())
    };
    for arg in command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())) {
        if let Some(long) = arg.get_long() {
            line(&[&format!("--{long}"), value]);
            line(&[&format!("--{long}={value}")]);
        }
        if let Some(short) = arg.get_short() {
            line(&[&format!("-{short}{value}")]);
        }
    }
    // As an argument, as one after `--`, as a surplus argument, and as an unknown option.
    line(&[value]);
    line(&["--", value]);
    line(&[".", value, value]);
    line(&[&format!("--{value}")]);
    line(&[&format!("--tls-key-fil={value}")]);
    // As a shell splits it without quotes.
    let split: Vec<&str> = value.split_whitespace().collect();
    if split.len() > 1 {
        line(&[&["--tls-key-file"], split.as_slice()].concat());
        line(&split);
    }
    lines
}

#[test]
fn no_option_of_any_command_prints_its_value() {
    let pod = tempfile::tempdir().unwrap();
    std::fs::write(pod.path().join("spicepod.yaml"), "name: options\n").unwrap();
    let mut runs = Vec::new();
    for (at, (form, value, hidden)) in forms().into_iter().enumerate() {
        for (words, command) in commands() {
            // The settings' options are the same for every command that has a pod. PEM is tried everywhere; of the
            // other forms, which the same code reports, each gets a part of the lines.
            let is_server = words.is_empty();
            for (nth, line) in lines(&words, &command, &value).into_iter().enumerate() {
                if at == 0 || (nth + at) % if is_server { 2 } else { 12 } == 0 {
                    runs.push((form, line, hidden.clone()));
                }
            }
        }
    }
    assert!(runs.len() > 500, "{}", runs.len());
    let (next, leaks) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from).min(8) {
            scope.spawn(|| {
                while let Some((form, line, hidden)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let printed = run(pod.path(), line);
                    if hidden.iter().any(|hidden| printed.contains(hidden.as_str())) {
                        leaks.lock().unwrap().push(format!("{form}: {line:?}:\n{printed}"));
                    }
                }
            });
        }
    });
    let leaks = leaks.into_inner().unwrap();
    assert!(
        leaks.is_empty(),
        "{} of {} command lines print it:\n{}",
        leaks.len(),
        runs.len(),
        leaks[..leaks.len().min(5)].join("\n")
    );
}

/// Runs the command until it exits or serves; by then it has reported everything about its options.
fn run(pod: &Path, line: &[String]) -> String {
    let out = tempfile::NamedTempFile::new().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_spiced"))
        .args(line)
        .current_dir(pod)
        .env_clear()
        .env("HOME", pod)
        .env("SPICED_RUNTIME__LISTEN__HTTP", "127.0.0.1:0")
        .env("SPICED_RUNTIME__LISTEN__FLIGHT", "127.0.0.1:0")
        .env("SPICED_RUNTIME__LISTEN__GRPC", "127.0.0.1:0")
        .env("SPICED_SQL_ENDPOINT", "grpc://127.0.0.1:1")
        .stdin(Stdio::null())
        .stdout(out.reopen().unwrap())
        .stderr(out.reopen().unwrap())
        .spawn()
        .unwrap();
    let since = Instant::now();
    let printed = || String::from_utf8_lossy(&std::fs::read(out.path()).unwrap()).into_owned();
    loop {
        let is_over = child.try_wait().unwrap().is_some();
        // Once the server serves, it has printed all its messages.
        let serves = !is_over && since.elapsed() > Duration::from_millis(200) && printed().contains("serving");
        if is_over || serves || since.elapsed() > DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            assert!(is_over || serves, "{line:?} neither ended nor served:\n{}", printed());
            return printed();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

//! Where and when the figures were measured.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::SystemTime;

use serde_json::{Value, json};

/// The state of a machine at one moment.
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// `2026-11-24`
    pub(crate) date: String,
    /// The version of `spiced`, and the commit of this build if git knows it.
    pub(crate) spiced: String,
    /// The load average at the start and at the end, which shows what else ran.
    load: Vec<String>,
}

impl Machine {
    pub(crate) fn look(spiced: &Path) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(':').nth(1));
        let said = |program: &Path, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
            output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
        };
        let commit = said(Path::new("git"), &["describe", "--always", "--dirty"]);
        Self {
            processor: model.map_or("unknown", str::trim).to_owned(),
            cores: thread::available_parallelism().map_or(0, std::num::NonZero::get),
            kernel: read("/proc/sys/kernel/osrelease"),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string().chars().take(10).collect(),
            spiced: format!("{} {commit}", said(spiced, &["--version"])).trim().to_owned(),
            load: vec![read("/proc/loadavg")],
        }
    }

    /// Records the current load.
    pub(crate) fn look_again(&mut self) {
        self.load.push(read("/proc/loadavg"));
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "processor": self.processor, "cores": self.cores, "kernel": self.kernel, "date": self.date,
            "spiced": self.spiced, "load": self.load,
        })
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

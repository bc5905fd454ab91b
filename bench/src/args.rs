//! The command line. `cargo xtask bench` fills in the paths.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Measures what spiced costs, compared with nginx and a pyarrow Flight server
#[derive(Debug, Parser)]
#[command(name = "spiced-bench")]
pub(crate) struct Args {
    /// The release build of spiced to measure
    #[arg(long, value_name = "PATH")]
    pub(crate) spiced: PathBuf,
    /// Another build of spiced, measured in the same rounds for comparison
    #[arg(long, value_name = "PATH")]
    pub(crate) against: Option<PathBuf>,
    /// nginx
    #[arg(long, value_name = "PATH", default_value = "nginx")]
    pub(crate) nginx: PathBuf,
    /// A Python with pyarrow
    #[arg(long, value_name = "PATH", default_value = "python3")]
    pub(crate) python: PathBuf,
    /// Measure how cost grows with connections, streams, size and certificates, instead of the figures
    #[arg(long)]
    pub(crate) growth: bool,
    /// Only the figures whose name contains one of these
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub(crate) only: Vec<String>,
    /// A tenth of the data and short rounds: shows little more than that everything works
    #[arg(long)]
    pub(crate) quick: bool,
    /// How often each figure is measured
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// The directory for the raw results, as JSON
    #[arg(long, value_name = "FOLDER", default_value = "target/bench")]
    pub(crate) out: PathBuf,
    /// Writes the page of the docs here, with pictures in a directory of the same name
    #[arg(long, value_name = "PATH")]
    pub(crate) page: Option<PathBuf>,
}

impl Args {
    /// Returns the scale of the run.
    pub(crate) fn scale(&self) -> Scale {
        let scale = if self.quick {
            Scale { rounds: 3, slice: Duration::from_millis(300), rows: 1_562_500 }
        } else {
            Scale { rounds: 9, slice: Duration::from_secs(1), rows: 15_625_000 }
        };
        let rounds = if self.growth { 3 } else { scale.rounds };
        Scale { rounds: self.rounds.unwrap_or(rounds).max(1), ..scale }
    }
}

/// The scale of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// How often each figure is measured for each server.
    pub(crate) rounds: usize,
    /// How long small work is repeated in a round.
    pub(crate) slice: Duration,
    /// Rows of the large table, 64 bytes each.
    pub(crate) rows: u64,
}

//! Regenerates the parts of the docs that come from the code: the reference of keys, options and metrics.

use crate::book;
use crate::tools::{self, Outcome, cargo};

pub fn run() -> Outcome {
    tools::run(cargo().args(["test", "-p", "spiced", "--test", "reference"]).env("SPICED_WRITE_DOCS", "1"))?;
    book::run()
}

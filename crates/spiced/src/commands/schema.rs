//! `spiced schema`: the JSON Schema of `spicepod.yaml`, for editors.

use crate::commands::print;
use crate::failure::Failure;

pub(crate) fn run() -> Result<(), Failure> {
    print(&format!("{:#}\n", spiced_config::schema()))
}

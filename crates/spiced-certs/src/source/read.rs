//! Reads the bytes of an [`Input`] once, with a size limit.

use tls_core::{Secret, Sourced};

use crate::load::error::LoadError;
use crate::source::{Input, watched};

/// The largest file that is read. A chain with a dozen certificates is 30 KB; a larger file is the wrong one.
const MAX_FILE: u64 = 1024 * 1024;

/// Reads the bytes of `input`. A FIFO (`<(…)` in a shell) can be read only once, so its content replaces it as text.
pub(crate) fn read(input: &mut Sourced<Input>) -> Result<Secret, LoadError> {
    let path = match &mut input.value {
        Input::Text(text) => return Ok(text.clone()),
        Input::Watched(receiver) => return Ok(watched::newest(receiver)),
        Input::File(path) => path.clone(),
    };
    let content = spiced_files::read(&path, MAX_FILE).map_err(|error| LoadError::Unreadable {
        path,
        origin: input.origin.clone(),
        reason: error.reason,
        fix: error.fix,
    })?;
    if !content.is_regular {
        input.value = Input::Text(content.secret.clone());
    }
    Ok(content.secret)
}

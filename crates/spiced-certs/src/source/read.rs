//! Reads the bytes of an [`Input`], once and bounded.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;

use tls_core::{Secret, Sourced};

use crate::load::LoadError;
use crate::source::{Input, unreadable, watched};

/// A chain with a dozen certificates has 30 KB; more is the wrong file.
const LARGEST: u64 = 1024 * 1024;

/// The bytes of `input`. A FIFO (`<(…)` of a shell) gives its bytes once, so it becomes text.
pub(crate) fn read(input: &mut Sourced<Input>) -> Result<Secret, LoadError> {
    let path = match &mut input.value {
        Input::Text(text) => return Ok(text.clone()),
        Input::Watched(receiver) => return Ok(watched::newest(receiver)),
        Input::File(path) => path.clone(),
    };
    let origin = input.origin.clone();
    let unreadable = |cause: std::io::Error| {
        let (reason, fix) = unreadable::explain(&cause, &path);
        LoadError::Unreadable { path: path.clone(), origin: origin.clone(), reason, fix }
    };
    let file = File::open(&path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Err(unreadable(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
    }
    // Sized beforehand, so that no half-filled copy is left behind unwiped; only a file knows its size.
    let most = match metadata.len() {
        0 => LARGEST,
        size if metadata.is_file() => size.min(LARGEST),
        _ => LARGEST,
    };
    let mut bytes = Vec::with_capacity(most as usize + 1);
    file.take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > most && most < LARGEST {
        return Err(unreadable(std::io::Error::other("it changed while it was read")));
    }
    if bytes.len() as u64 > LARGEST {
        return Err(unreadable(std::io::Error::other(format!(
            "it has more than {LARGEST} bytes; is it the right file?"
        ))));
    }
    let secret = Secret::new(bytes);
    if kind.is_fifo() {
        input.value = Input::Text(secret.clone());
    }
    Ok(secret)
}

//! Reads the bytes of an [`Input`], once and bounded.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;

use tls_core::{Secret, Sourced};

use crate::load::LoadError;
use crate::source::{Input, watched};

/// A chain with a dozen certificates has 30 KB; more is the wrong file.
const LARGEST: u64 = 1024 * 1024;

/// The bytes of `input`. A FIFO (`<(…)` of a shell) gives its bytes once, so it becomes text.
pub(crate) fn read(input: &mut Sourced<Input>) -> Result<Secret, LoadError> {
    let path = match &mut input.value {
        Input::Text(text) => return Ok(text.clone()),
        Input::Watched(receiver) => return Ok(watched::newest(receiver)),
        Input::File(path) => path.clone(),
    };
    let unreadable = |cause: std::io::Error| LoadError::Unreadable {
        path: path.clone(),
        origin: input.origin.clone(),
        reason: reason(&cause, &path),
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

fn reason(cause: &std::io::Error, path: &std::path::Path) -> String {
    use std::io::ErrorKind::{IsADirectory, NotFound, PermissionDenied};
    match cause.kind() {
        NotFound if path.is_symlink() => "it is a link to a file that is not there".to_owned(),
        NotFound => "there is no such file".to_owned(),
        PermissionDenied => "this process may not read it; check its owner and mode".to_owned(),
        IsADirectory => "it is a folder, not a file".to_owned(),
        _ => cause.to_string(),
    }
}

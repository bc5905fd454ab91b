//! Reads the bytes of an [`Input`] once, with a size limit.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc::O_NONBLOCK;

use tls_core::{Secret, Sourced};

use crate::load::LoadError;
use crate::source::{Input, unreadable, watched};

/// The largest file that is read. A chain with a dozen certificates is 30 KB; a larger file is the wrong one.
const MAX_FILE: u64 = 1024 * 1024;

/// Reads the bytes of `input`. A FIFO (`<(…)` in a shell) can be read only once, so its content replaces it as text.
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
    // Nonblocking, so that opening a FIFO without a writer does not hang.
    let open = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(&path);
    let mut file = open.map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        return Err(unreadable(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
    }
    // Allocate the full size up front, because growing would leave partial copies behind that are not wiped. Only a
    // regular file knows its size.
    let most = match metadata.len() {
        0 => MAX_FILE,
        size if metadata.is_file() => size.min(MAX_FILE),
        _ => MAX_FILE,
    };
    let mut bytes = Vec::with_capacity(most as usize + 1);
    match kind.is_file() {
        true => file.take(most + 1).read_to_end(&mut bytes).map(|_| ()).map_err(unreadable)?,
        false => wait_for(&mut file, kind.is_fifo(), most + 1, &mut bytes).map_err(unreadable)?,
    }
    if bytes.len() as u64 > most && most < MAX_FILE {
        return Err(unreadable(std::io::Error::other("it changed while it was read")));
    }
    if bytes.len() as u64 > MAX_FILE {
        return Err(unreadable(std::io::Error::other(format!(
            "it has more than {MAX_FILE} bytes; is it the right file?"
        ))));
    }
    let secret = Secret::new(bytes);
    if kind.is_fifo() {
        input.value = Input::Text(secret.clone());
    }
    Ok(secret)
}

/// How long a FIFO may be without a writer, and how long its writer may take. The writer may be a program that queries
/// a secret store.
const NO_WRITER: Duration = Duration::from_secs(5);
const WRITER: Duration = Duration::from_secs(60);

/// The time between two polls of a FIFO.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Reads an input that is not a regular file to its end, at most `most` bytes, with a timeout.
fn wait_for(file: &mut File, is_fifo: bool, most: u64, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    let began = Instant::now();
    let mut chunk = zeroize::Zeroizing::new([0; 4096]);
    while (bytes.len() as u64) < most {
        let left = usize::try_from(most - bytes.len() as u64).unwrap_or(usize::MAX).min(chunk.len());
        match file.read(&mut chunk[..left]) {
            Ok(0) if !is_fifo || !bytes.is_empty() => return Ok(()),
            Ok(0) if began.elapsed() > NO_WRITER => {
                let message =
                    format!("it is not a regular file, and nothing arrived from it within {} s", NO_WRITER.as_secs());
                return Err(std::io::Error::other(message));
            }
            Ok(0) => thread::sleep(POLL_INTERVAL),
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock && began.elapsed() < WRITER => {
                thread::sleep(POLL_INTERVAL);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(std::io::Error::other("nothing more was written into it within 60 s"));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

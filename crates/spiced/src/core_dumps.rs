//! A crash leaves nothing behind that holds secrets.

use std::io;

/// Forbids core dumps of this process. On Linux it is made undumpable too: the limit alone does not
/// count where dumps are piped to a program, as systemd does it, and other processes of the same user
/// cannot look into its memory any more.
pub(crate) fn forbid() -> io::Result<()> {
    let hard = rlimit::Resource::CORE.get_hard()?;
    rlimit::Resource::CORE.set(0, hard)?;
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn they_are_off() {
        super::forbid().unwrap();
        assert_eq!(rlimit::Resource::CORE.get_soft().unwrap(), 0);
        #[cfg(target_os = "linux")]
        assert!(!nix::sys::prctl::get_dumpable().unwrap());
    }
}

//! Prevents core dumps, which would contain secrets.

use std::io;

/// Disables core dumps of this process. On Linux the process is also made non-dumpable: the limit alone has no effect
/// if dumps are piped to a program, as systemd does. Other processes of the same user then cannot read its memory
/// either.
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

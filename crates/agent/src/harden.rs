//! No core dumps, no debugger, private files; called first in `main`.

use std::io;

/// Makes this process unreadable for others and its files private.
///
/// # Errors
///
/// When the system refuses; the agent does not start then, for it would hold a key unprotected.
#[cfg(unix)]
pub fn harden() -> io::Result<()> {
    use rustix::fs::Mode;
    use rustix::process::{Resource, Rlimit, setrlimit, umask};

    umask(Mode::RWXG | Mode::RWXO);
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    // Also refuses debuggers and readers of /proc/PID/mem of the same user.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Does nothing: Windows writes no dump of a process that does not ask for it, and files lie in the
/// user's profile.
#[cfg(windows)]
pub fn harden() -> io::Result<()> {
    Ok(())
}

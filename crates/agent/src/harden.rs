//! No core dumps, no debugger, private files, no new rights; called first in `main`.

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod filter;

use std::io;

/// Makes this process unreadable for others and its files private, and keeps setuid programs that it starts
/// from gaining rights.
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
    #[cfg(target_os = "linux")]
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Does nothing: Windows writes no dump of a process that does not ask for it, and files lie in the
/// user's profile.
#[cfg(windows)]
pub fn harden() -> io::Result<()> {
    Ok(())
}

/// Has the kernel refuse what neither the agent nor a key command needs, where it can. Called before any
/// thread is started, since each has a filter of its own.
///
/// # Errors
///
/// When the kernel does not take the filter. No key depends on it, so the agent runs all the same.
pub fn refuse_calls() -> io::Result<()> {
    #[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
    filter::install()?;
    Ok(())
}

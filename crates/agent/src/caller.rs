//! Which program is at the other end, as far as the system tells.

use std::path::PathBuf;

use dph_agent_ipc::{Peer, Uid};

/// The program that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its user.
    pub uid: Uid,
    /// Its process, where the system says.
    pub pid: Option<u32>,
    /// Its executable, where the system says.
    pub exe: Option<PathBuf>,
    /// The systemd unit that it runs in, where it does.
    pub unit: Option<String>,
}

impl Caller {
    /// Looks up who `peer` is; it asks the kernel alone, which does not wait for a disk.
    #[cfg_attr(unix, expect(clippy::clone_on_copy, reason = "on Windows a user is a text"))]
    pub fn of(peer: &Peer) -> Self {
        let pid = peer.pid;
        Self { uid: peer.uid.clone(), pid, exe: pid.and_then(system::exe), unit: pid.and_then(system::unit) }
    }
}

/// Returns the unit in `/proc/PID/cgroup`: the last part of the path that names a service or a scope.
#[cfg(any(target_os = "linux", test))]
fn unit_of(cgroup: &str) -> Option<String> {
    let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    // Version 2 has one line, `0::/…`; of version 1 the line of systemd's own hierarchy counts.
    let line = cgroup.lines().find(|line| line.starts_with("0::") || line.contains(":name=systemd:"))?;
    line.split('/').rfind(is_unit).map(str::to_owned)
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs;
    use std::path::PathBuf;

    pub(super) fn exe(pid: u32) -> Option<PathBuf> {
        fs::read_link(format!("/proc/{pid}/exe")).ok()
    }

    pub(super) fn unit(pid: u32) -> Option<String> {
        super::unit_of(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
    }
}

/// Elsewhere the process is known by its number alone.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::path::PathBuf;

    pub(super) fn exe(_pid: u32) -> Option<PathBuf> {
        None
    }

    pub(super) fn unit(_pid: u32) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_last_service_or_scope_of_the_path() {
        let user = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run-u7.scope\n";
        assert_eq!(unit_of(user).as_deref(), Some("run-u7.scope"));
        let job = "12:cpu:/\n1:name=systemd:/system.slice/nightly.service/inner\n";
        assert_eq!(unit_of(job).as_deref(), Some("nightly.service"));
        assert_eq!(unit_of("0::/init\n"), None);
        assert_eq!(unit_of(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_known_by_its_executable() {
        let caller = Caller::of(&Peer { uid: 0, pid: Some(std::process::id()) });
        assert_eq!(caller.exe, Some(std::env::current_exe().unwrap()));
    }
}

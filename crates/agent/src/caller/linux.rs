//! What `/proc` tells of a process, and how it is made sure that it is told of the right one.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use dph_agent_ipc::Peer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Caller, Doubt, FileId, plain};
use crate::clock::Steady;

/// What the kernel puts behind the path of a file that is no longer there.
const DELETED: &[u8] = b" (deleted)";

/// Looks up who made a connection at `connected`; `process` is the kernel's handle on it.
pub(super) fn look(peer: Peer, process: io::Result<OwnedFd>, connected: Steady) -> Caller {
    let Some(pid) = peer.pid else { return Caller::unknown(peer, Doubt::OutOfSight) };
    match Hold::on(pid, process, connected) {
        Ok(hold) => hold.look(peer, pid),
        Err(doubt) => Caller::unknown(peer, doubt),
    }
}

/// As [`look`], by what the kernel has in its own memory.
pub(super) fn note(peer: Peer, process: io::Result<OwnedFd>, connected: Steady) -> Caller {
    let Some(pid) = peer.pid else { return Caller::unknown(peer, Doubt::OutOfSight) };
    match Hold::on(pid, process, connected) {
        Ok(hold) => hold.note(peer, pid),
        Err(doubt) => Caller::unknown(peer, doubt),
    }
}

/// Looks up a process that has made no connection.
pub(super) fn look_at(pid: u32) -> io::Result<Caller> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(ErrorKind::NotFound)?;
    let hold = Hold::Handle(pidfd_open(number, PidfdFlags::empty())?);
    let peer = Peer { uid: effective_user(pid).ok_or(ErrorKind::NotFound)?, pid: Some(pid) };
    Ok(hold.look(peer, pid))
}

/// What tells whether a number still means the same process.
#[derive(Debug)]
enum Hold {
    /// The kernel's handle on it.
    Handle(OwnedFd),
    /// When it was started, in clock ticks since the machine was, where the kernel has no handles to give.
    Start(u64),
}

impl Hold {
    fn on(pid: u32, process: io::Result<OwnedFd>, connected: Steady) -> Result<Self, Doubt> {
        match process {
            Ok(handle) => Ok(Self::Handle(handle)),
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                // Who was started after the connection was made has taken over the number.
                let start = Stat::of(pid).map(|stat| stat.start).filter(|start| *start <= ticks(connected));
                start.map(Self::Start).ok_or(Doubt::Gone)
            }
            Err(error) => Err(doubt(&error)),
        }
    }

    /// Reads what is known of the process, and believes it only if the number meant the same one to the end.
    fn look(&self, peer: Peer, pid: u32) -> Caller {
        let unit = fs::read_to_string(proc(pid, "cgroup")).ok().and_then(|groups| unit_in(&groups));
        let parent = parent_of(pid);
        let (exe, file) = match executable(pid) {
            Ok((exe, file)) => (Some(exe), file),
            Err(error) => (None, Err(doubt(&error))),
        };
        if self.is_same(pid) {
            Caller { uid: peer.uid, pid: peer.pid, exe, unit, parent, file }
        } else {
            Caller::unknown(peer, Doubt::Gone)
        }
    }

    fn note(&self, peer: Peer, pid: u32) -> Caller {
        let unit = fs::read_to_string(proc(pid, "cgroup")).ok().and_then(|groups| unit_in(&groups));
        let exe = fs::read_link(proc(pid, "exe")).ok();
        if self.is_same(pid) {
            Caller { uid: peer.uid, pid: peer.pid, exe, unit, parent: None, file: Err(Doubt::NotAsked) }
        } else {
            Caller::unknown(peer, Doubt::Gone)
        }
    }

    fn is_same(&self, pid: u32) -> bool {
        match self {
            Self::Handle(handle) => is_alive(handle),
            Self::Start(start) => Stat::of(pid).is_some_and(|stat| stat.start == *start),
        }
    }
}

/// Whether the process has not ended: its handle becomes readable when it does.
fn is_alive(handle: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&now)) == Ok(0)
}

fn doubt(error: &io::Error) -> Doubt {
    let gone = [Errno::SRCH, Errno::NOENT, Errno::INVAL].map(|errno| errno.raw_os_error());
    let is_gone = error.raw_os_error().is_some_and(|errno| gone.contains(&errno));
    if is_gone || error.kind() == ErrorKind::NotConnected { Doubt::Gone } else { Doubt::Closed }
}

/// Returns what a process runs: where it was when it was started, and the file itself.
fn executable(pid: u32) -> io::Result<(PathBuf, Result<FileId, Doubt>)> {
    let link = proc(pid, "exe");
    let (path, running) = (fs::read_link(&link)?, FileId::at(&link)?);
    let Some(before) = path.as_os_str().as_bytes().strip_suffix(DELETED) else {
        return Ok((path, Ok(running)));
    };
    // A file may also be called so.
    if FileId::at(&path).is_ok_and(|found| found == running) {
        return Ok((path, Ok(running)));
    }
    Ok((std::ffi::OsString::from_vec(before.to_vec()).into(), Err(Doubt::Replaced)))
}

/// Returns the executable of the process that started another. A parent that ends meanwhile is replaced by
/// the system, so that one which is the same before and after was it all the time.
fn parent_of(pid: u32) -> Option<PathBuf> {
    let parent = Stat::of(pid)?.parent;
    let exe = fs::read_link(proc(parent, "exe")).ok()?;
    (Stat::of(pid)?.parent == parent).then_some(exe)
}

/// What is read of `/proc/PID/stat`.
struct Stat {
    parent: u32,
    start: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&String::from_utf8_lossy(&fs::read(proc(pid, "stat")).ok()?))
    }

    /// Reads the fields behind the name, which may itself hold spaces and parentheses.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.rsplit_once(')')?.1.split_ascii_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let start = fields.nth(17)?.parse().ok()?;
        Some(Self { parent, start })
    }
}

fn ticks(at: Steady) -> u64 {
    let ticks = at.0.as_micros() * u128::from(rustix::param::clock_ticks_per_second()) / 1_000_000;
    // The one that has begun counts, too.
    u64::try_from(ticks).unwrap_or(u64::MAX).saturating_add(1)
}

/// Returns the innermost unit among the control groups of a process.
fn unit_in(groups: &str) -> Option<String> {
    let of_systemd = |line: &&str| line.starts_with("0::") || line.contains(":name=systemd:");
    let group = groups.lines().find(of_systemd)?;
    let is_unit = |part: &&str| part.ends_with(".service") || part.ends_with(".scope");
    group.rsplit('/').find(is_unit).map(plain)
}

/// Returns the user whose rights a process has.
fn effective_user(pid: u32) -> Option<u32> {
    let status = fs::read(proc(pid, "status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn proc(pid: u32, name: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::clock::{Clock as _, SystemClock};

    /// A program of its own name that sleeps until it is killed.
    struct Sleeper {
        folder: tempfile::TempDir,
        child: Child,
    }

    impl Sleeper {
        fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("sleeper");
            fs::copy("/bin/sleep", &path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            let mut command = Command::new(&path);
            command.arg("600").stdin(Stdio::null());
            let child = loop {
                match command.spawn() {
                    // Another test that starts a program at this moment holds a copy of what was just written.
                    Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {}
                    started => break started.unwrap(),
                }
            };
            Self { folder, child }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().canonicalize().unwrap().join("sleeper")
        }

        fn peer(&self) -> Peer {
            Peer { uid: 1000, pid: Some(self.child.id()) }
        }

        fn handle(&self) -> io::Result<OwnedFd> {
            Ok(pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?)
        }

        fn end(&mut self) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            drop((self.child.kill(), self.child.wait()));
        }
    }

    fn without_handles() -> io::Result<OwnedFd> {
        Err(ErrorKind::Unsupported.into())
    }

    #[test]
    fn a_process_is_known_by_its_executable_and_who_started_it() {
        let sleeper = Sleeper::start();
        for handle in [sleeper.handle(), without_handles()] {
            let caller = look(sleeper.peer(), handle, SystemClock.steady());
            assert_eq!(caller.exe, Some(sleeper.path()));
            assert_eq!(caller.file, Ok(FileId::at(&sleeper.path()).unwrap()));
            assert_eq!(caller.parent, std::env::current_exe().ok());
        }
        let explained = look_at(sleeper.child.id()).unwrap();
        assert_eq!(explained.exe, Some(sleeper.path()));
        assert_eq!(explained.uid, rustix::process::geteuid().as_raw());
    }

    #[test]
    fn a_process_that_has_ended_is_not_known_though_its_number_is_anothers() {
        let (mut gone, other) = (Sleeper::start(), Sleeper::start());
        let handle = gone.handle();
        gone.end();
        // The number of a process that lives, and the handle of the one that connected.
        let caller = look(other.peer(), handle, SystemClock.steady());
        assert_eq!((caller.exe, caller.file), (None, Err(Doubt::Gone)));
        assert_eq!(look(gone.peer(), without_handles(), SystemClock.steady()).file, Err(Doubt::Gone));
    }

    #[test]
    fn a_process_that_ends_while_it_is_looked_at_is_not_known() {
        let (mut sleeper, other) = (Sleeper::start(), Sleeper::start());
        let hold = Hold::on(0, sleeper.handle(), Steady::default()).unwrap();
        sleeper.end();
        assert_eq!(hold.look(other.peer(), other.child.id()).file, Err(Doubt::Gone));
        let start = Stat::of(other.child.id()).unwrap().start;
        let hold = Hold::Start(start.wrapping_sub(1));
        assert_eq!(hold.look(other.peer(), other.child.id()).file, Err(Doubt::Gone));
    }

    #[test]
    fn without_handles_a_process_that_was_started_after_the_connection_is_not_believed() {
        let before = SystemClock.steady().before(std::time::Duration::from_millis(50));
        let sleeper = Sleeper::start();
        assert_eq!(look(sleeper.peer(), without_handles(), before).file, Err(Doubt::Gone));
    }

    #[test]
    fn an_executable_that_was_replaced_or_deleted_is_no_ground_for_a_decision() {
        let sleeper = Sleeper::start();
        let new = sleeper.folder.path().join("new");
        fs::copy("/bin/sleep", &new).unwrap();
        fs::rename(&new, sleeper.path()).unwrap();
        let caller = look(sleeper.peer(), sleeper.handle(), SystemClock.steady());
        assert_eq!((caller.exe, caller.file), (Some(sleeper.path()), Err(Doubt::Replaced)));
        fs::remove_file(sleeper.path()).unwrap();
        let caller = look(sleeper.peer(), sleeper.handle(), SystemClock.steady());
        assert_eq!((caller.exe, caller.file), (Some(sleeper.path()), Err(Doubt::Replaced)));
    }

    #[test]
    fn an_executable_that_is_only_called_deleted_is_one_like_others() {
        let sleeper = Sleeper::start();
        let odd = sleeper.folder.path().canonicalize().unwrap().join("x (deleted)");
        fs::rename(sleeper.path(), &odd).unwrap();
        let caller = look(sleeper.peer(), sleeper.handle(), SystemClock.steady());
        assert_eq!((caller.exe, caller.file), (Some(odd.clone()), Ok(FileId::at(&odd).unwrap())));
    }

    #[test]
    fn a_process_out_of_sight_is_not_known() {
        let peer = Peer { uid: 1000, pid: None };
        assert_eq!(look(peer, without_handles(), Steady::default()).file, Err(Doubt::OutOfSight));
        assert!(look_at(u32::MAX).is_err());
    }

    #[test]
    fn the_unit_is_the_innermost_one() {
        let unit = |groups| unit_in(groups);
        let deep = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/job.service/sub\n";
        assert_eq!(unit(deep).as_deref(), Some("job.service"));
        assert_eq!(
            unit("0::/user.slice/user-1000.slice/session-3.scope\n").as_deref(),
            Some("session-3.scope")
        );
        let first_version = "12:pids:/a.service\n1:name=systemd:/system.slice/cron.service\n";
        assert_eq!(unit(first_version).as_deref(), Some("cron.service"));
        assert_eq!(unit("0::/\n"), None);
    }

    #[test]
    fn a_name_with_parentheses_does_not_move_the_fields() {
        let line = "7 (a) R 1 ) (b) S 42 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 1";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.parent, stat.start), (42, 987_654));
    }
}

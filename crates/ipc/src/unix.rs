//! The channel on Unix: a socket in a folder of this user.

#![expect(
    unsafe_code,
    reason = "the peer's identity and macOS's folder are told by calls that have no safe wrapper"
)]

#[cfg(feature = "tokio")]
mod listener;
#[cfg(feature = "tokio")]
mod lock;
#[cfg(feature = "tokio")]
mod watch;

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
#[cfg(all(target_os = "linux", feature = "tokio"))]
use std::os::fd::FromRawFd;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::SocketAddrUnix;
use rustix::process::geteuid;

use crate::endpoint::{Candidate, Endpoint, EndpointError, Rule, Surroundings};
use crate::error::ConnectError;
use crate::folder;
use crate::peer::Uid;

#[cfg(feature = "tokio")]
pub use listener::Listener;
#[cfg(feature = "tokio")]
pub(crate) use tokio::net::UnixStream as RawConnection;

pub(crate) const KIND: &str = "a socket";

/// What fits into `sun_path` before the closing NUL.
const MAX_PATH_LEN: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// The client's end of a connection.
///
/// A read or write that takes longer than the timeout fails with [`ErrorKind::TimedOut`].
#[derive(Debug)]
pub struct Stream(UnixStream);

impl Stream {
    /// Connects to the agent at `endpoint`, having made sure that it runs as this user. `timeout`
    /// bounds connecting and then, until [`Stream::set_timeout`] says otherwise, each read and write.
    ///
    /// # Errors
    /// [`ConnectError`] says whether an agent is there at all.
    pub fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<Self, ConnectError> {
        Self::connect_trusting(endpoint, |_| false, timeout)
    }

    /// Connects as [`Stream::connect`] does, also to an agent of another user whom `trusts` accepts.
    ///
    /// # Errors
    /// As for [`Stream::connect`].
    pub fn connect_trusting(
        endpoint: &Endpoint,
        trusts: impl FnOnce(&Uid) -> bool,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let stream = Self(socket()?.into());
        // Linux bounds `connect` by the send timeout; elsewhere a full backlog refuses at once.
        stream.set_timeout(timeout)?;
        let address = SocketAddrUnix::new(endpoint.path()).map_err(io::Error::from)?;
        retry_on_intr(|| rustix::net::connect(&stream.0, &address))
            .map_err(|errno| connect_error(errno, endpoint))?;
        match server_uid(&stream.0)? {
            owner if is_own(owner) || trusts(&owner) => Ok(stream),
            owner => Err(ConnectError::ForeignServer { owner }),
        }
    }

    /// Bounds each of the following reads and writes; nothing is shorter than a nanosecond.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Some(timeout.max(Duration::from_nanos(1)));
        self.0.set_read_timeout(timeout)?;
        self.0.set_write_timeout(timeout)
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf).map_err(timed_out)
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf).map_err(timed_out)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.write_vectored(bufs).map_err(timed_out)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the effective user of this process.
///
/// # Errors
/// None on Unix.
pub fn own_uid() -> io::Result<Uid> {
    Ok(geteuid().as_raw())
}

pub(crate) fn check_name(path: &Path) -> Result<(), EndpointError> {
    let name = path.as_os_str().as_bytes();
    if name.is_empty() || name.ends_with(b"/") || name.contains(&0) {
        return Err(EndpointError::Invalid { path: path.to_owned() });
    }
    if name.len() > MAX_PATH_LEN {
        return Err(EndpointError::TooLong { path: path.to_owned(), len: name.len(), limit: MAX_PATH_LEN });
    }
    Ok(())
}

/// Returns the places that follow from `surroundings`, without the one that a variable names.
pub(crate) fn candidates(surroundings: &Surroundings) -> impl Iterator<Item = Candidate> {
    places(surroundings).map(|place| Candidate { rule: place.rule, endpoint: place.endpoint_for_client() })
}

pub(crate) fn place(surroundings: &Surroundings) -> Result<Endpoint, EndpointError> {
    let place = first_usable(surroundings);
    folder::make_private(folder_of(&place.socket))?;
    Endpoint::new(place.socket)
}

pub(crate) fn prepare_folder(endpoint: &Endpoint) -> Result<(), EndpointError> {
    folder::make_guarded(folder_of(endpoint.path()))
}

#[cfg(target_os = "macos")]
pub(crate) fn user_temp() -> Option<OsString> {
    let mut path = [0_u8; 1024];
    // SAFETY: `path` is valid for writes of the length that goes with it.
    let len = unsafe { libc::confstr(libc::_CS_DARWIN_USER_TEMP_DIR, path.as_mut_ptr().cast(), path.len()) };
    let path = path.get(..len.checked_sub(1)?)?; // `len` counts the NUL, and is 0 on failure
    Some(std::ffi::OsStr::from_bytes(path).to_owned())
}

#[cfg(not(target_os = "macos"))]
pub(crate) fn user_temp() -> Option<OsString> {
    None
}

/// Returns the places that [`place`] leaves aside, with what is wrong with each.
pub(crate) fn passed_over(surroundings: &Surroundings) -> impl Iterator<Item = (Rule, EndpointError)> {
    let relative = surroundings.runtime_dir.as_ref().filter(|dir| Path::new(dir).is_relative());
    let relative = relative.map(|dir| (Rule::RuntimeDir, EndpointError::Invalid { path: dir.into() }));
    let below_own = places(surroundings).take_while(|place| place.rule != Rule::Tmp);
    relative.into_iter().chain(below_own.map_while(|place| Some((place.rule, place.check().err()?))))
}

/// Where the socket may be, and the rule that led there.
struct Place {
    rule: Rule,
    socket: PathBuf,
}

impl Place {
    /// Returns where `rule` leads, if anywhere on this system.
    fn by(rule: Rule, surroundings: &Surroundings) -> Option<Self> {
        let socket = match rule {
            Rule::RuntimeDir => socket_below(runtime_dir(surroundings)?),
            Rule::RunUser => socket_below(run_user(surroundings)?.as_ref()),
            Rule::UserTemp => socket_below(surroundings.user_temp.as_ref()?.as_ref()),
            Rule::Tmp => return Some(Self::in_tmp()),
            Rule::SocketVar | Rule::Pipe => return None,
        };
        Some(Self { rule, socket })
    }

    fn in_tmp() -> Self {
        let socket = format!("/tmp/dph-agent-{}/agent.sock", geteuid().as_raw()).into();
        Self { rule: Rule::Tmp, socket }
    }

    /// Returns the endpoint unless somebody else made the folder first, as anybody can in `/tmp`.
    fn endpoint_for_client(self) -> Result<Endpoint, EndpointError> {
        if self.rule == Rule::Tmp {
            folder::check_private_if_there(folder_of(&self.socket))?;
        }
        Endpoint::new(self.socket)
    }

    /// Checks that the agent can make its folder and its socket there.
    fn check(&self) -> Result<(), EndpointError> {
        check_name(&self.socket)?;
        folder::check_own_target(folder_of(folder_of(&self.socket)))
    }
}

/// Returns the places in order. The client takes the first that answers, and each costs it an
/// allocation, so none is worked out before its turn.
fn places(surroundings: &Surroundings) -> impl Iterator<Item = Place> {
    let rules = [Rule::RuntimeDir, Rule::RunUser, Rule::UserTemp, Rule::Tmp];
    rules.into_iter().filter_map(|rule| Place::by(rule, surroundings))
}

/// Returns the first place in a folder of this user, or the one in `/tmp`, which is always there.
fn first_usable(surroundings: &Surroundings) -> Place {
    places(surroundings).find(|place| place.check().is_ok()).unwrap_or_else(Place::in_tmp)
}

fn runtime_dir(surroundings: &Surroundings) -> Option<&Path> {
    surroundings.runtime_dir.as_ref().map(Path::new).filter(|dir| dir.is_absolute())
}

/// Returns the runtime folder that Linux gives this user, unless the environment names the same.
fn run_user(surroundings: &Surroundings) -> Option<String> {
    let dir = format!("/run/user/{}", geteuid().as_raw());
    (cfg!(target_os = "linux") && runtime_dir(surroundings) != Some(Path::new(&dir))).then_some(dir)
}

fn socket_below(parent: &Path) -> PathBuf {
    const BELOW: &str = "dph-agent/agent.sock";
    let mut socket = PathBuf::with_capacity(parent.as_os_str().len() + 1 + BELOW.len());
    socket.push(parent);
    socket.push(BELOW);
    socket
}

/// Returns the folder that `socket` is in.
fn folder_of(socket: &Path) -> &Path {
    let parent = socket.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or_else(|| Path::new("."))
}

#[cfg(target_os = "linux")]
fn socket() -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

#[cfg(not(target_os = "linux"))]
fn socket() -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketType};
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    Ok(socket)
}

fn connect_error(errno: Errno, endpoint: &Endpoint) -> ConnectError {
    match errno {
        Errno::NOENT | Errno::NOTDIR => ConnectError::Absent,
        Errno::CONNREFUSED => ConnectError::Refused,
        Errno::AGAIN | Errno::TIMEDOUT => ConnectError::Timeout,
        Errno::ACCESS => denied(endpoint).unwrap_or_else(|| ConnectError::Other(errno.into())),
        _ => ConnectError::Other(errno.into()),
    }
}

/// Returns who keeps us from the socket at `endpoint`: its owner, or most often that of a folder that
/// was inherited through `su` or `sudo`.
fn denied(endpoint: &Endpoint) -> Option<ConnectError> {
    if let Ok(socket) = fs::symlink_metadata(endpoint.path()) {
        return Some(ConnectError::Closed { owner: socket.uid() });
    }
    let checked = folder::check_private(folder_of(endpoint.path()));
    checked
        .err()
        .filter(|error| matches!(error, EndpointError::Foreign { .. }))
        .map(ConnectError::UnsafeFolder)
}

/// Returns whether a server that runs as `owner` is this user's. On macOS it is launchd, hence
/// root, that listens for an agent that it activates; what root can do to us it can do anyway.
fn is_own(owner: Uid) -> bool {
    owner == geteuid().as_raw() || (cfg!(target_os = "macos") && owner == 0)
}

/// Returns the user who listens at the other end of `stream`. A wrapper that also insists on a
/// process id would fail where the server is in another pid namespace, which shows it as 0.
#[cfg(target_os = "linux")]
fn server_uid(stream: &UnixStream) -> io::Result<Uid> {
    let mut server = libc::ucred { pid: 0, uid: Uid::MAX, gid: 0 };
    #[expect(clippy::cast_possible_truncation, reason = "three words")]
    let mut len = size_of_val(&server) as libc::socklen_t;
    let fd = stream.as_raw_fd();
    // SAFETY: `server` and `len` outlive the call, and `len` is the size of `server`.
    let status = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut server).cast(), &raw mut len)
    };
    if status == 0 { Ok(server.uid) } else { Err(io::Error::last_os_error()) }
}

/// Returns a handle on the process that connected `stream`, or [`ErrorKind::Unsupported`] where the kernel
/// does not know how.
#[cfg(all(target_os = "linux", feature = "tokio"))]
pub(crate) fn peer_process(stream: &impl AsRawFd) -> io::Result<OwnedFd> {
    // Not in every libc yet; the number is the same for all but SPARC and PA-RISC.
    const SO_PEERPIDFD: libc::c_int = 77;
    let mut handle: libc::c_int = -1;
    #[expect(clippy::cast_possible_truncation, reason = "one word")]
    let mut len = size_of_val(&handle) as libc::socklen_t;
    let fd = stream.as_raw_fd();
    // SAFETY: `handle` and `len` outlive the call, and `len` is the size of `handle`.
    let status = unsafe {
        libc::getsockopt(fd, libc::SOL_SOCKET, SO_PEERPIDFD, (&raw mut handle).cast(), &raw mut len)
    };
    if status != 0 {
        let error = io::Error::last_os_error();
        let unknown = error.raw_os_error() == Some(libc::ENOPROTOOPT);
        return Err(if unknown { ErrorKind::Unsupported.into() } else { error });
    }
    // SAFETY: the kernel has just made this descriptor for us; it is closed on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(handle) })
}

/// Returns the user who listens at the other end of `stream`.
#[cfg(not(target_os = "linux"))]
fn server_uid(stream: &UnixStream) -> io::Result<Uid> {
    let (mut uid, mut gid) = (Uid::MAX, 0);
    // SAFETY: `uid` and `gid` outlive the call.
    let status = unsafe { libc::getpeereid(stream.as_raw_fd(), &raw mut uid, &raw mut gid) };
    if status == 0 { Ok(uid) } else { Err(io::Error::last_os_error()) }
}

/// Gives a timeout its own name: Unix reports it as an operation that would block.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::endpoint::candidates;

    fn found(surroundings: &Surroundings) -> Vec<(Rule, String)> {
        let name = |endpoint: Result<Endpoint, _>| endpoint.map(|e| e.to_string()).unwrap_or_default();
        candidates(surroundings).map(|c| (c.rule, name(c.endpoint))).collect()
    }

    fn own(pattern: &str) -> String {
        pattern.replace("UID", &own_uid().unwrap().to_string())
    }

    #[test]
    fn client_looks_where_it_was_told_then_where_the_system_says_then_in_tmp() {
        let surroundings = Surroundings {
            socket_var: Some("/somewhere/else.sock".into()),
            runtime_dir: Some("/run/mine".into()),
            user_temp: Some("/var/folders/mine".into()),
        };
        let mut expected = vec![
            (Rule::SocketVar, "/somewhere/else.sock".to_owned()),
            (Rule::RuntimeDir, "/run/mine/dph-agent/agent.sock".to_owned()),
            (Rule::RunUser, own("/run/user/UID/dph-agent/agent.sock")),
            (Rule::UserTemp, "/var/folders/mine/dph-agent/agent.sock".to_owned()),
            (Rule::Tmp, own("/tmp/dph-agent-UID/agent.sock")),
        ];
        expected.retain(|(rule, _)| *rule != Rule::RunUser || cfg!(target_os = "linux"));
        assert_eq!(found(&surroundings), expected);
    }

    #[test]
    fn no_place_is_tried_twice_and_a_relative_runtime_dir_is_ignored() {
        let rules = |dir: &str| {
            let surroundings = Surroundings { runtime_dir: Some(dir.into()), ..Surroundings::default() };
            found(&surroundings).into_iter().map(|(rule, _)| rule).collect::<Vec<_>>()
        };
        assert_eq!(rules(&own("/run/user/UID")), [Rule::RuntimeDir, Rule::Tmp]);
        assert!(!rules("relative").contains(&Rule::RuntimeDir));
    }

    #[test]
    fn agent_listens_in_the_first_folder_that_is_its_users() {
        let mine = tempfile::tempdir().unwrap();
        let at = |dir: &Path| Surroundings {
            socket_var: Some("/somewhere/else.sock".into()),
            runtime_dir: Some(dir.into()),
            ..Surroundings::default()
        };
        let expected = mine.path().join("dph-agent/agent.sock");
        assert_eq!(place(&at(mine.path())).unwrap().path(), expected);
        let mode = fs::metadata(mine.path().join("dph-agent")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        fs::set_permissions(mine.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_ne!(first_usable(&at(mine.path())).socket, expected);
    }

    #[test]
    fn places_that_are_left_aside_are_told_with_the_reason() {
        let mine = tempfile::tempdir().unwrap();
        let told = |dir: &Path| {
            let surroundings = Surroundings { runtime_dir: Some(dir.into()), ..Surroundings::default() };
            passed_over(&surroundings)
                .find(|(rule, _)| *rule == Rule::RuntimeDir)
                .map(|(_, error)| error.to_string())
        };
        assert_eq!(told(mine.path()), None);
        let long = mine.path().join("x".repeat(100));
        assert!(told(&long).unwrap().contains("bytes long"));
        assert!(told(&mine.path().join("gone")).unwrap().contains("gone"));
        assert!(told(Path::new("relative")).unwrap().contains("relative"));
        fs::set_permissions(mine.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(told(mine.path()).unwrap().contains("has mode 0777"));
    }

    #[test]
    fn agent_refuses_its_folder_when_others_can_look_into_it() {
        let mine = tempfile::tempdir().unwrap();
        let folder = mine.path().join("dph-agent");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o750)).unwrap();
        let surroundings = Surroundings { runtime_dir: Some(mine.path().into()), ..Surroundings::default() };
        let error = place(&surroundings).unwrap_err();
        assert!(error.to_string().contains("has mode 0750"), "{error}");
    }

    #[test]
    fn path_that_does_not_fit_is_refused_with_its_length_and_the_limit() {
        let limit = if cfg!(target_os = "linux") { 107 } else { 103 };
        let path = |len: usize| format!("/{}", "x".repeat(len - 1));
        assert!(Endpoint::new(path(limit)).is_ok());
        let error = Endpoint::new(path(limit + 1)).unwrap_err().to_string();
        assert!(error.contains(&format!("is {} bytes long", limit + 1)), "{error}");
        assert!(error.ends_with(&format!("at most {limit}")), "{error}");
    }

    #[test]
    fn name_that_is_no_file_is_refused() {
        for path in ["", "/", "folder/", "a\0b"] {
            assert!(matches!(Endpoint::new(path), Err(EndpointError::Invalid { .. })), "{path:?}");
        }
    }
}

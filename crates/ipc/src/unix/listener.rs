//! The agent's listening socket: made under a lock, guarded while it lasts, removed only if it is ours.

use std::fs::{self, Metadata, Permissions};
use std::future::pending;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use interprocess::local_socket::{GenericFilePath, ListenerOptions, ToFsName};
use interprocess::os::unix::uds_local_socket::tokio::Listener as Socket;
use rustix::net::{SocketAddrUnix, getsockname};
use tokio::net::UnixStream;

use super::folder_of;
use super::lock::Lock;
use super::watch::Watch;
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::BindError;
use crate::folder;
use crate::peer::Peer;

/// A socket on which the agent listens.
///
/// Dropping it leaves the socket file behind; [`Listener::close`] removes it.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    endpoint: Endpoint,
    /// Nothing when systemd or launchd made the socket, which is then theirs to keep and remove.
    own: Option<Own>,
}

/// What is needed to keep a socket that we made.
#[derive(Debug)]
struct Own {
    lock: Lock,
    watch: Watch,
    file: FileId,
}

impl Listener {
    /// Makes the socket at `endpoint` and listens on it. The folder must have been made or checked
    /// by [`crate::place`] or [`crate::prepare_folder`].
    ///
    /// The lock file `….lock` beside the socket is held as long as this listener lives, so that of
    /// several agents one wins; it is never removed. A socket that a killed agent left is removed
    /// once a connection to it was refused.
    ///
    /// # Errors
    /// [`BindError::InUse`] if another process has the lock or answers on the socket.
    pub async fn bind(endpoint: &Endpoint) -> Result<Self, BindError> {
        let lock = Lock::acquire(endpoint)?;
        Self::bind_under(lock, endpoint).await
    }

    async fn bind_under(lock: Lock, endpoint: &Endpoint) -> Result<Self, BindError> {
        remove_stale(endpoint).await?;
        let failed = |source| BindError::Listen { endpoint: endpoint.clone(), source };
        let socket = listen(endpoint.path()).map_err(failed)?;
        let file = FileId::at(endpoint.path()).map_err(failed)?;
        let watch = Watch::new(folder_of(endpoint.path()));
        Ok(Self { socket, endpoint: endpoint.clone(), own: Some(Own { lock, watch, file }) })
    }

    /// Listens on a socket that systemd or launchd made and passed on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if `fd` is not a listening Unix socket with a path.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        if !is_listening(&fd)? {
            return Err(io::Error::new(ErrorKind::InvalidInput, "the socket does not listen"));
        }
        let endpoint = endpoint_of(&fd)?;
        // It is inherited without this flag, and the programs that the agent runs must not have it.
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        Ok(Self { socket: Socket::try_from(fd)?, endpoint, own: None })
    }

    /// Returns where this listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Waits for the next connection and asks the kernel who made it; nothing of it has been read.
    /// Whether that peer is served is for [`crate::Accepted`] to say.
    ///
    /// # Cancel safety
    /// Safe: no connection is lost when the future is dropped while it waits.
    ///
    /// # Errors
    /// They concern one connection, or a shortage (descriptors, memory) that passes: the listener
    /// stays good. The connection that met a shortage stays queued and is reported again at once,
    /// so wait, say a tenth of a second, before the next call.
    pub async fn accept(&self) -> io::Result<(Connection, Peer)> {
        let (stream, _) = self.socket.inner().accept().await?;
        let peer = peer(&stream)?;
        Ok((Connection::new(stream), peer))
    }

    /// Waits until the socket file is removed or replaced, so that no client finds us any more;
    /// then [`Listener::rebind`] helps. Waits for ever on a socket that was passed on.
    ///
    /// # Cancel safety
    /// Safe: what happens between two calls is seen by the second.
    pub async fn removed(&self) {
        let Some(own) = &self.own else { return pending().await };
        while own.file.is_at(self.endpoint.path()) {
            own.watch.changed().await;
        }
    }

    /// Makes the socket anew, and its folder if that is gone, too. Connections that are open stay
    /// so; those not yet accepted are lost.
    ///
    /// # Errors
    /// As for [`Listener::bind`], and [`BindError::Folder`]. The listener is gone then.
    pub async fn rebind(self) -> Result<Self, BindError> {
        let Self { socket, endpoint, own: Some(own) } = self else { return Ok(self) };
        drop(socket);
        folder::make_guarded(folder_of(endpoint.path()))?;
        let lock = own.lock.renew(&endpoint)?;
        Self::bind_under(lock, &endpoint).await
    }

    /// Lets other users connect, or this one alone; [`Listener::accept`] tells who does. A socket that
    /// was made anew is open to this user alone, and one that was passed on is left as it is.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn open_to_others(&self, open: bool) -> io::Result<()> {
        let path = self.endpoint.path();
        if self.own.as_ref().is_none_or(|own| !own.file.is_at(path)) {
            return Ok(());
        }
        let mode = if open { 0o666 } else { 0o600 };
        fs::set_permissions(path, Permissions::from_mode(mode))
    }

    /// Stops listening and removes the socket file if it is still the one that this listener made.
    pub fn close(self) {
        let path = self.endpoint.path();
        if self.own.as_ref().is_some_and(|own| own.file.is_at(path)) {
            // Should it fail, the file is what a killed agent leaves, and the next one removes it.
            drop(fs::remove_file(path));
        }
    }
}

/// Identifies a file for as long as somebody holds it open, as a listener does with its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino() }
    }

    pub(super) fn at(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|file| Self::of(&file))
    }

    pub(super) fn is_at(self, path: &Path) -> bool {
        Self::at(path).is_ok_and(|found| found == self)
    }
}

/// Removes the socket at `endpoint` if nobody listens on it. Only under the lock: between the
/// `bind` and the `listen` of another agent its socket refuses connections, too.
async fn remove_stale(endpoint: &Endpoint) -> Result<(), BindError> {
    let path = endpoint.path();
    let endpoint = || endpoint.clone();
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket { endpoint: endpoint() });
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        _ => {}
    }
    let probe = |source| BindError::Probe { endpoint: endpoint(), source };
    match UnixStream::connect(path).await {
        Ok(live) => Err(BindError::InUse { endpoint: endpoint(), pid: peer(&live).ok().and_then(|p| p.pid) }),
        // A full backlog: somebody lives there, but is busy.
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(BindError::InUse { endpoint: endpoint(), pid: None })
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(probe),
        Err(error) => Err(probe(error)),
    }
}

fn listen(path: &Path) -> io::Result<Socket> {
    let name = path.to_fs_name::<GenericFilePath>()?;
    // Reclaiming would remove whatever bears our name when we go, be it our successor's.
    let options = ListenerOptions::new().name(name).reclaim_name(false);
    create_private(options, path)
}

/// Creates the socket with mode 0600 from its first moment.
#[cfg(target_os = "linux")]
fn create_private(options: ListenerOptions<'_>, _: &Path) -> io::Result<Socket> {
    use interprocess::os::unix::local_socket::ListenerOptionsExt as _;
    options.mode(0o600).create_tokio_as()
}

/// Creates the socket, then narrows its mode, as macOS cannot set it before: until then the folder
/// keeps others out.
#[cfg(not(target_os = "linux"))]
fn create_private(options: ListenerOptions<'_>, path: &Path) -> io::Result<Socket> {
    let socket = options.create_tokio_as()?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(socket)
}

fn peer(stream: &UnixStream) -> io::Result<Peer> {
    let peer = stream.peer_cred()?;
    // A process outside our pid namespace shows as 0.
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid != 0);
    Ok(Peer { uid: peer.uid(), pid })
}

fn endpoint_of(socket: &OwnedFd) -> io::Result<Endpoint> {
    let invalid = |what| io::Error::new(ErrorKind::InvalidInput, what);
    let address = SocketAddrUnix::try_from(getsockname(socket)?)?;
    let path = address.path_bytes().ok_or_else(|| invalid("the socket has no path"))?;
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(path));
    Endpoint::new(path).map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))
}

#[cfg(target_os = "linux")]
fn is_listening(socket: &OwnedFd) -> io::Result<bool> {
    Ok(rustix::net::sockopt::socket_acceptconn(socket)?)
}

/// macOS has the question but no answer to it; `accept` will tell.
#[cfg(not(target_os = "linux"))]
fn is_listening(_: &OwnedFd) -> io::Result<bool> {
    Ok(true)
}

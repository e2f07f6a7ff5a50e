//! The agent's named pipe: ours from the first instance on, and for nobody else.

use std::future::pending;
use std::io;
use std::mem;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::process;
use std::ptr::null_mut;
use std::time::Duration;

use interprocess::os::windows::security_descriptor::{AsSecurityDescriptorExt, SecurityDescriptor};
use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};
use tokio::sync::Mutex;
use widestring::U16CString;
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::Security::{RevertToSelf, SECURITY_ATTRIBUTES, TOKEN_QUERY};
use windows_sys::Win32::System::Pipes::{
    GetNamedPipeClientProcessId, GetNamedPipeServerProcessId, ImpersonateNamedPipeClient,
};
use windows_sys::Win32::System::Threading::{GetCurrentThread, OpenThreadToken};
use windows_sys::core::BOOL;

use super::{own_uid, security, succeeded};
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::error::BindError;
use crate::peer::{Peer, Uid};

/// How long to wait for the holder of a pipe, only to learn its process id.
const HOLDER_TIMEOUT: Duration = Duration::from_millis(200);

/// A named pipe on which the agent listens. It is gone when this is dropped.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    access: SecurityDescriptor,
    /// The instance that takes the next client. There always is one, so the name stays ours.
    idle: Mutex<NamedPipeServer>,
}

impl Listener {
    /// Makes the pipe at `endpoint`, for this user alone and never from another machine.
    ///
    /// # Errors
    /// [`BindError::InUse`] if there is a pipe of that name, whoever made it.
    #[expect(clippy::unused_async, reason = "on Unix it waits")]
    pub async fn bind(endpoint: &Endpoint) -> Result<Self, BindError> {
        let failed = |source| BindError::Listen { endpoint: endpoint.clone(), source };
        let access = own_access().map_err(failed)?;
        match instance(endpoint, &access, true) {
            Ok(first) => Ok(Self { endpoint: endpoint.clone(), access, idle: first.into() }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(BindError::InUse { endpoint: endpoint.clone(), pid: holder(endpoint) })
            }
            Err(error) => Err(failed(error)),
        }
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
    /// They concern one connection, or a shortage (handles, memory) that passes: the listener stays
    /// good. A shortage is reported again at once, so wait, say a tenth of a second, before the next call.
    pub async fn accept(&self) -> io::Result<(Connection, Peer)> {
        let mut idle = self.idle.lock().await;
        let connected = idle.connect().await;
        // Also after a failure: a client that went away at once leaves its instance unusable.
        let next = instance(&self.endpoint, &self.access, false)?;
        let pipe = mem::replace(&mut *idle, next);
        drop(idle);
        connected?;
        let peer = Peer { uid: client_uid(&pipe)?, pid: process_id(&pipe, GetNamedPipeClientProcessId) };
        Ok((Connection::new(pipe), peer))
    }

    /// Waits for ever: nobody can remove a pipe.
    pub async fn removed(&self) {
        pending().await
    }

    /// Returns the listener as it is: nobody can remove a pipe.
    ///
    /// # Errors
    /// None on Windows.
    #[expect(clippy::unused_async, reason = "on Unix it waits")]
    pub async fn rebind(self) -> Result<Self, BindError> {
        Ok(self)
    }

    /// Changes nothing: a pipe is for this user alone.
    ///
    /// # Errors
    /// None on Windows.
    pub fn open_to_others(&self, _open: bool) -> io::Result<()> {
        Ok(())
    }

    /// Stops listening.
    pub fn close(self) {
        drop(self);
    }
}

/// Returns a descriptor that makes this user the owner and lets nobody else in, inherited or not.
fn own_access() -> io::Result<SecurityDescriptor> {
    let sid = own_uid()?;
    let text = U16CString::from_str(format!("O:{sid}D:P(A;;GA;;;{sid})")).map_err(io::Error::other)?;
    SecurityDescriptor::deserialize(&text)
}

/// Makes an instance of the pipe; the first one fails if anybody has that name already.
fn instance(endpoint: &Endpoint, access: &SecurityDescriptor, first: bool) -> io::Result<NamedPipeServer> {
    let mut attributes = SECURITY_ATTRIBUTES::default();
    access.write_to_security_attributes(&mut attributes);
    #[expect(clippy::cast_possible_truncation, reason = "three words")]
    let len = size_of_val(&attributes) as u32;
    attributes.nLength = len;
    let mut options = ServerOptions::new();
    options.first_pipe_instance(first).reject_remote_clients(true);
    // SAFETY: `attributes` is complete, and it and the descriptor in it outlive the call.
    unsafe { options.create_with_security_attributes_raw(endpoint.path(), (&raw mut attributes).cast()) }
}

/// Returns the process that has a pipe at `endpoint`, if it lets us look.
fn holder(endpoint: &Endpoint) -> Option<u32> {
    let pipe = super::open(endpoint.path(), HOLDER_TIMEOUT).ok()?;
    process_id(&pipe, GetNamedPipeServerProcessId)
}

fn process_id(
    pipe: &impl AsRawHandle,
    ask: unsafe extern "system" fn(HANDLE, *mut u32) -> BOOL,
) -> Option<u32> {
    let mut pid = 0;
    // SAFETY: both functions that are passed write one number, and `pid` outlives the call.
    succeeded(unsafe { ask(pipe.as_raw_handle(), &raw mut pid) }).ok().map(|()| pid)
}

/// Returns the user at the other end of `pipe`. The kernel keeps it from when the client connected;
/// one that wants it kept otherwise, or wants to stay anonymous, gets an error.
fn client_uid(pipe: &NamedPipeServer) -> io::Result<Uid> {
    // SAFETY: the handle is that of a connected pipe.
    succeeded(unsafe { ImpersonateNamedPipeClient(pipe.as_raw_handle()) })?;
    let token = thread_token();
    // SAFETY: it takes nothing; this thread acts as the client.
    if succeeded(unsafe { RevertToSelf() }).is_err() {
        process::abort(); // whatever this thread did next would be done as somebody else
    }
    security::user_of(&token?)
}

/// Returns the token of the user as whom this thread acts.
fn thread_token() -> io::Result<OwnedHandle> {
    // SAFETY: it takes nothing and returns a constant.
    let thread = unsafe { GetCurrentThread() };
    let mut token = null_mut();
    // SAFETY: `token` outlives the call. Access is checked as the process, not as the client.
    succeeded(unsafe { OpenThreadToken(thread, TOKEN_QUERY, 1, &raw mut token) })?;
    // SAFETY: the handle was just made and nobody else has it.
    Ok(unsafe { OwnedHandle::from_raw_handle(token) })
}

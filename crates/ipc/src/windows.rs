//! The channel on Windows: a named pipe that bears this user's security identifier.

#![expect(unsafe_code, reason = "overlapped I/O and security identifiers have no safe wrapper")]

#[cfg(feature = "tokio")]
mod listener;
mod security;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::iter;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{
    ERROR_BROKEN_PIPE, ERROR_IO_PENDING, ERROR_PIPE_BUSY, ERROR_SEM_TIMEOUT, HANDLE, WAIT_TIMEOUT,
};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_OVERLAPPED, ReadFile, SECURITY_IDENTIFICATION, WriteFile,
};
use windows_sys::Win32::System::IO::{CancelIoEx, GetOverlappedResult, GetOverlappedResultEx, OVERLAPPED};
use windows_sys::Win32::System::Pipes::WaitNamedPipeW;
use windows_sys::Win32::System::Threading::CreateEventW;
use windows_sys::core::BOOL;

use crate::endpoint::{Candidate, Endpoint, EndpointError, Rule, Surroundings};
use crate::error::ConnectError;
use crate::peer::Uid;

#[cfg(feature = "tokio")]
pub use listener::Listener;
pub use security::own_uid;
#[cfg(feature = "tokio")]
pub(crate) use tokio::net::windows::named_pipe::NamedPipeServer as RawConnection;

pub(crate) const KIND: &str = "a pipe";

const PIPES: &str = r"\\.\pipe\";
/// The most characters that Windows takes in the whole name of a pipe.
const MAX_NAME_LEN: usize = 256;

/// The client's end of a connection.
///
/// A read or write that takes longer than the timeout fails with [`ErrorKind::TimedOut`].
#[derive(Debug)]
pub struct Stream {
    pipe: File,
    /// Signalled when the operation that is under way ends.
    done: OwnedHandle,
    timeout: std::cell::Cell<Duration>,
}

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
        let pipe = open(endpoint.path(), timeout)?;
        // The pipe's owner is fixed by the kernel; the server's process id could be chosen.
        let owner = security::owner(&pipe)?;
        if owner != own_uid()? && !trusts(&owner) {
            return Err(ConnectError::ForeignServer { owner });
        }
        Ok(Self { pipe, done: event()?, timeout: timeout.into() })
    }

    /// Bounds each of the following reads and writes.
    ///
    /// # Errors
    /// None on Windows.
    pub fn set_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.timeout.set(timeout);
        Ok(())
    }

    /// Runs the overlapped operation that `start` starts, and ends it when the time is over.
    fn run(&self, start: impl FnOnce(HANDLE, *mut OVERLAPPED) -> BOOL) -> io::Result<usize> {
        let mut operation = OVERLAPPED { hEvent: self.done.as_raw_handle(), ..OVERLAPPED::default() };
        let started = succeeded(start(self.pipe.as_raw_handle(), &raw mut operation));
        match started {
            Err(error) if !is(&error, ERROR_IO_PENDING) => Err(error),
            _ => self.finish(&mut operation),
        }
    }

    /// Waits for `operation` and cancels it when the time is over. Does not return before the
    /// operation, and thus the buffer that it uses, is done with.
    fn finish(&self, operation: &mut OVERLAPPED) -> io::Result<usize> {
        let pipe = self.pipe.as_raw_handle();
        let mut len = 0;
        // SAFETY: `operation` was started on `pipe` and outlives the call, as `len` does.
        let ended = succeeded(unsafe {
            GetOverlappedResultEx(pipe, operation, &raw mut len, milliseconds(self.timeout.get()), 0)
        });
        let Err(error) = ended else { return Ok(len as usize) };
        // SAFETY: `operation` was started on `pipe`; one that has ended is not found, which is fine.
        unsafe { CancelIoEx(pipe, operation) };
        // SAFETY: as above; waits for the operation, which is cancelled or has ended.
        let ended = succeeded(unsafe { GetOverlappedResult(pipe, operation, &raw mut len, 1) });
        match ended {
            Ok(()) => Ok(len as usize),
            Err(_) if is(&error, WAIT_TIMEOUT) => Err(ErrorKind::TimedOut.into()),
            Err(_) => Err(error),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = u32::try_from(buf.len()).unwrap_or(u32::MAX);
        // SAFETY: `buf` has room for `len` bytes, and `run` outlasts the operation.
        let read = self
            .run(|pipe, operation| unsafe { ReadFile(pipe, buf.as_mut_ptr(), len, null_mut(), operation) });
        match read {
            Err(error) if is(&error, ERROR_BROKEN_PIPE) => Ok(0), // how a pipe says that it ended
            read => read,
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let len = u32::try_from(buf.len()).unwrap_or(u32::MAX);
        // SAFETY: `buf` holds `len` bytes, and `run` outlasts the operation.
        self.run(|pipe, operation| unsafe { WriteFile(pipe, buf.as_ptr(), len, null_mut(), operation) })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn check_name(path: &Path) -> Result<(), EndpointError> {
    let name = path.to_str().and_then(|path| path.strip_prefix(PIPES)).unwrap_or_default();
    if name.is_empty() || name.contains(['\\', '\0']) {
        return Err(EndpointError::Invalid { path: path.to_owned() });
    }
    let len = path.as_os_str().len();
    if len > MAX_NAME_LEN {
        return Err(EndpointError::TooLong { path: path.to_owned(), len, limit: MAX_NAME_LEN });
    }
    Ok(())
}

/// Returns the place that is this user's by default, without the one that a variable names.
pub(crate) fn candidates(surroundings: &Surroundings) -> impl Iterator<Item = Candidate> {
    iter::once(Candidate { rule: Rule::Pipe, endpoint: place(surroundings) })
}

pub(crate) fn place(_: &Surroundings) -> Result<Endpoint, EndpointError> {
    let sid = own_uid().map_err(|source| EndpointError::Identity { source })?;
    Endpoint::new(PathBuf::from(format!("{PIPES}dph-agent-{sid}")))
}

/// There is but one place.
pub(crate) fn passed_over(_: &Surroundings) -> impl Iterator<Item = (Rule, EndpointError)> {
    iter::empty()
}

/// Pipes are in no folder; who may use one is written on the pipe itself.
pub(crate) fn prepare_folder(_: &Endpoint) -> Result<(), EndpointError> {
    Ok(())
}

pub(crate) fn user_temp() -> Option<OsString> {
    None
}

/// Opens the client's end of the pipe `name`, waiting while all its instances are taken.
fn open(name: &Path, timeout: Duration) -> Result<File, ConnectError> {
    let started = Instant::now();
    loop {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(FILE_FLAG_OVERLAPPED)
            // A server may learn who we are, but not act as us.
            .security_qos_flags(SECURITY_IDENTIFICATION)
            .open(name);
        match opened {
            Ok(pipe) => return Ok(pipe),
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(ConnectError::Absent),
            Err(error) if is(&error, ERROR_PIPE_BUSY) => {
                wait_for_instance(name, timeout.saturating_sub(started.elapsed()))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until somebody may take an instance of the pipe, or the pipe is gone.
fn wait_for_instance(name: &Path, timeout: Duration) -> Result<(), ConnectError> {
    if timeout.is_zero() {
        return Err(ConnectError::Timeout);
    }
    let name: Vec<u16> = name.as_os_str().encode_wide().chain([0]).collect();
    // SAFETY: `name` ends with a NUL and outlives the call.
    let waited = succeeded(unsafe { WaitNamedPipeW(name.as_ptr(), milliseconds(timeout)) });
    match waited {
        Ok(()) => Ok(()),
        Err(error) if is(&error, ERROR_SEM_TIMEOUT) => Err(ConnectError::Timeout),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(ConnectError::Absent),
        Err(error) => Err(error.into()),
    }
}

fn event() -> io::Result<OwnedHandle> {
    // SAFETY: no argument is a pointer to anything; the event is reset by hand, as overlapped I/O wants.
    let event = unsafe { CreateEventW(null(), 1, 0, null()) };
    if event.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the handle was just made and nobody else has it.
    Ok(unsafe { OwnedHandle::from_raw_handle(event) })
}

/// Returns `duration` in whole milliseconds, at least one, since 0 and the largest number have
/// meanings of their own.
fn milliseconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).clamp(1, u32::MAX - 1)
}

fn succeeded(result: BOOL) -> io::Result<()> {
    if result == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn is(error: &io::Error, code: u32) -> bool {
    error.raw_os_error().is_some_and(|found| found.cast_unsigned() == code)
}

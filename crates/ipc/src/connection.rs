//! The agent's end of one connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::sys::RawConnection;

/// The agent's end of one connection; `tokio::io::split` parts it into reader and writer.
#[derive(Debug)]
pub struct Connection(Arc<Mutex<RawConnection>>);

/// Asks the kernel about the other end of a connection, for as long as that is open, and keeps it from
/// closing no longer than an answer takes.
#[derive(Clone, Debug, Default)]
pub struct FarEnd(
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only Linux tells more"))]
    Weak<Mutex<RawConnection>>,
);

impl Connection {
    pub(crate) fn new(raw: RawConnection) -> Self {
        Self(Arc::new(Mutex::new(raw)))
    }

    /// Returns what tells more about the other end, when somebody wants to know.
    pub fn far_end(&self) -> FarEnd {
        FarEnd(Arc::downgrade(&self.0))
    }

    fn with<T>(&self, operate: impl FnOnce(Pin<&mut RawConnection>) -> T) -> T {
        operate(Pin::new(&mut *locked(&self.0)))
    }
}

#[cfg(target_os = "linux")]
impl FarEnd {
    /// Returns a handle on the process that made the connection. It never becomes another's, even if
    /// the process has ended and its number is used again.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] before Linux 6.5; else the connection is closed, the process has
    /// ended, or descriptors are short.
    pub fn process(&self) -> io::Result<std::os::fd::OwnedFd> {
        let raw = self.0.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        crate::sys::peer_process(&*locked(&raw))
    }
}

/// One who panicked while it held the lock left the stream as it was.
fn locked(raw: &Mutex<RawConnection>) -> MutexGuard<'_, RawConnection> {
    raw.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|raw| raw.poll_read(cx, buf))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|raw| raw.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with(|raw| raw.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        locked(&self.0).is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|raw| raw.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|raw| raw.poll_shutdown(cx))
    }
}

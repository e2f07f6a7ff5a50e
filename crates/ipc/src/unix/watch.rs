//! Tells when files come and go in a folder.

#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

#[cfg(target_os = "linux")]
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

/// How often to look where nothing tells of changes.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// A watch over a folder, by inotify: an idle folder wakes nobody.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(super) struct Watch(Option<AsyncFd<OwnedFd>>);

#[cfg(target_os = "linux")]
impl Watch {
    /// Watches `folder` from now on; by looking now and then if this user has no watch left.
    pub(super) fn new(folder: &Path) -> Self {
        Self(inotify(folder).ok())
    }

    /// Waits until the folder may have changed since the last call. Safe to cancel.
    pub(super) async fn changed(&self) {
        let Some(events) = &self.0 else { return sleep(POLL_INTERVAL).await };
        let Ok(mut ready) = events.readable().await else { return sleep(POLL_INTERVAL).await };
        // What happened does not matter, only that it did.
        let mut buf = [0; 4096];
        while rustix::io::read(events, &mut buf).is_ok_and(|len| len > 0) {}
        ready.clear_ready();
    }
}

#[cfg(target_os = "linux")]
fn inotify(folder: &Path) -> std::io::Result<AsyncFd<OwnedFd>> {
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    use tokio::io::Interest;

    let left = WatchFlags::DELETE | WatchFlags::MOVED_FROM | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
    let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    add_watch(&inotify, folder, left | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)?;
    // SAFETY: an `OwnedFd` stays open, and the same, until the `AsyncFd` drops it.
    Ok(unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) }?)
}

/// A watch over a folder, by looking now and then.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(super) struct Watch;

#[cfg(not(target_os = "linux"))]
impl Watch {
    pub(super) fn new(_: &Path) -> Self {
        Self
    }

    /// Waits until the folder may have changed since the last call. Safe to cancel.
    pub(super) async fn changed(&self) {
        sleep(POLL_INTERVAL).await;
    }
}

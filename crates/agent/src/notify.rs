//! Sockets from systemd, and telling it how the agent is.

use std::io;
use std::os::fd::OwnedFd;

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// Returns the socket that systemd listens on for the agent, if it started it for that.
///
/// # Errors
///
/// When what it passed on is something else.
pub fn activated_socket() -> io::Result<Option<OwnedFd>> {
    let wrong = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    let count = std::env::var("LISTEN_FDS").unwrap_or_default();
    let mut sockets = ListenFd::from_env();
    match sockets.len() {
        0 if !count.is_empty() && count.parse::<u32>().is_err() => wrong("LISTEN_FDS is not a number"),
        0 | 1 => Ok(sockets.take_unix_listener(0)?.map(OwnedFd::from)),
        _ => wrong("there are several"),
    }
}

/// Says that the agent answers.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Says that the agent reads its configuration; [`ready`] says that it has.
pub fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now().ok());
    tell(&states);
}

/// Says that the agent ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Without a supervisor there is nobody to tell.
fn tell(states: &[NotifyState<'_>]) {
    let _nobody_there = sd_notify::notify(states).is_err();
}

//! Sockets from systemd, and telling it how the agent is.

use sd_notify::NotifyState;

/// Returns the socket that systemd listens on for the agent, if it started it for that.
#[cfg(unix)]
pub fn activated_socket() -> Option<std::os::fd::OwnedFd> {
    listenfd::ListenFd::from_env().take_unix_listener(0).ok().flatten().map(Into::into)
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

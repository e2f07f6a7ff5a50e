//! A build without the operating system's keyring.

use dph_agent_platform::ApiKey;
use zeroize::Zeroizing;

use super::Found;
use crate::binding::Binding;
use crate::config::Profile;

/// Why the keyring did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// Nobody can ask it.
    #[error("this agent was built without the keyring")]
    Absent,
}

pub(super) fn read(_: &Profile) -> impl Future<Output = Result<Option<Found>, KeyringError>> {
    std::future::ready(Err(KeyringError::Absent))
}

pub(super) fn store(_: &Profile, _: &ApiKey, _: &Binding) -> impl Future<Output = Result<(), KeyringError>> {
    std::future::ready(Err(KeyringError::Absent))
}

pub(super) fn clear(_: &Profile) -> impl Future<Output = Result<(), KeyringError>> {
    std::future::ready(Err(KeyringError::Absent))
}

pub(super) fn store_aside(
    _: &Profile,
    _: Zeroizing<Vec<u8>>,
) -> impl Future<Output = Result<(), KeyringError>> {
    std::future::ready(Err(KeyringError::Absent))
}

pub(super) fn read_aside(
    _: &Profile,
) -> impl Future<Output = Result<Option<Zeroizing<Vec<u8>>>, KeyringError>> {
    std::future::ready(Err(KeyringError::Absent))
}

pub(super) fn clear_aside(_: &Profile) -> impl Future<Output = Result<(), KeyringError>> {
    std::future::ready(Err(KeyringError::Absent))
}

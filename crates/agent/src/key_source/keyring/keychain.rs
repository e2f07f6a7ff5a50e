//! The login keychain of macOS.

use std::sync::{Mutex, PoisonError};

use apple_native_keyring_store::keychain::{Store, decode_error};
use keyring_core::api::CredentialStoreApi as _;
use keyring_core::{Entry, Result};
use security_framework::os::macos::keychain::{KeychainUserInteractionLock, SecKeychain};

use super::{ItemName, SERVICE};

/// Returns the item of this name, which need not exist yet.
pub(super) fn entry(name: &ItemName) -> Result<Entry> {
    never_ask()?;
    Store::new()?.build(SERVICE, &name.profile, None)
}

/// Makes errors of what would bring up a window; this holds for the whole process, for good.
fn never_ask() -> Result<()> {
    static SILENCE: Mutex<Option<KeychainUserInteractionLock>> = Mutex::new(None);
    let mut silence = SILENCE.lock().unwrap_or_else(PoisonError::into_inner);
    if silence.is_none() {
        *silence = Some(SecKeychain::disable_user_interaction().map_err(decode_error)?);
    }
    Ok(())
}

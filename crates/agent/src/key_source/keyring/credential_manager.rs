//! The Credential Manager of Windows. It keeps items for the user who is logged on, and asks nothing.

use std::collections::HashMap;

use keyring_core::api::CredentialStoreApi as _;
use keyring_core::{Entry, Result};
use windows_native_keyring_store::Store;

use super::{ItemName, SERVICE};

/// Returns the item of this name, which need not exist yet.
pub(super) fn entry(name: &ItemName) -> Result<Entry> {
    let target = format!("{SERVICE}:{}", name.profile);
    // By default it would follow the user to other machines.
    let modifiers = HashMap::from([("target", target.as_str()), ("persistence", "Local")]);
    Store::new()?.build(SERVICE, &name.profile, Some(&modifiers))
}

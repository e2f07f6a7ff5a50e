//! Who changes a key when: two profiles may have one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::config::Profile;

/// One change at a time for each user at a platform.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>);

impl Turns {
    pub(super) async fn take(&self, profile: &Profile) -> OwnedMutexGuard<()> {
        let whose = format!("{} {}", profile.auth_url, profile.username().unwrap_or_default());
        let turn =
            Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(whose).or_default());
        turn.lock_owned().await
    }
}

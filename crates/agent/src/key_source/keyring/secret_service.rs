//! The Secret Service of a Linux or BSD desktop.
//!
//! The ready-made store unlocks whatever its searches meet, which brings up a window, and knows items by
//! two attributes only. This one looks first, and takes a lock for an answer.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use keyring_core::api::{Credential, CredentialApi};
use keyring_core::{Entry, Error, Result};
use secret_service::{Collection, EncryptionType, Item, SecretService};
use tokio::runtime;

use super::{ItemName, SERVICE};

/// Returns the item of this name, which need not exist yet.
#[expect(clippy::unnecessary_wraps, reason = "the same signature as on other systems")]
pub(super) fn entry(name: &ItemName) -> Result<Entry> {
    Ok(Entry::new_with_credential(Arc::new(OneItem(name.clone()))))
}

/// Why the keyring cannot be used.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("it is locked")]
    Locked,
    #[error("it was never set up: there is no default collection")]
    NoCollection,
    #[error("it holds several items for this profile")]
    Several,
    #[error("{0}")]
    Service(secret_service::Error),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::NoStorageAccess(Box::new(refusal))
    }
}

fn service(error: secret_service::Error) -> Error {
    Refusal::Service(error).into()
}

#[derive(Debug)]
struct OneItem(ItemName);

impl CredentialApi for OneItem {
    fn set_secret(&self, secret: &[u8]) -> Result<()> {
        block_on(self.set(secret))
    }

    fn get_secret(&self) -> Result<Vec<u8>> {
        block_on(self.get())
    }

    fn delete_credential(&self) -> Result<()> {
        block_on(self.delete())
    }

    fn get_credential(&self) -> Result<Option<Arc<Credential>>> {
        Ok(None)
    }

    fn get_specifiers(&self) -> Option<(String, String)> {
        Some((SERVICE.to_owned(), self.0.profile.clone()))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Runs a call to its end on this thread, which is the keyring's own.
fn block_on<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Error::PlatformFailure(Box::new(error)))?.block_on(call)
}

async fn connect() -> Result<SecretService<'static>> {
    SecretService::connect(EncryptionType::Dh).await.map_err(service)
}

impl OneItem {
    async fn set(&self, secret: &[u8]) -> Result<()> {
        let keyring = connect().await?;
        let before = self.found(&keyring).await?;
        let place = open_collection(&keyring).await?;
        let label = self.label();
        let new = place.create_item(&label, self.attributes(), secret, true, "text/plain");
        let new = new.await.map_err(service)?;
        // Only now, so that there is one at all times.
        for old in before.iter().filter(|old| old.item_path != new.item_path) {
            old.delete().await.map_err(service)?;
        }
        Ok(())
    }

    async fn get(&self) -> Result<Vec<u8>> {
        let keyring = connect().await?;
        match self.found(&keyring).await?.as_slice() {
            [] => Err(Error::NoEntry),
            [item] => item.get_secret().await.map_err(service),
            [..] => Err(Refusal::Several.into()),
        }
    }

    async fn delete(&self) -> Result<()> {
        let keyring = connect().await?;
        for item in self.found(&keyring).await? {
            item.delete().await.map_err(service)?;
        }
        Ok(())
    }

    /// Returns the items of this profile, none of which is locked.
    async fn found<'a>(&self, keyring: &'a SecretService<'_>) -> Result<Vec<Item<'a>>> {
        let wanted = HashMap::from([("service", SERVICE), ("profile", &self.0.profile)]);
        let found = keyring.search_items(wanted).await.map_err(service)?;
        if !found.locked.is_empty() {
            return Err(Refusal::Locked.into());
        }
        if found.unlocked.is_empty() {
            // A keyring that is closed or was never made seems to be an empty one.
            open_collection(keyring).await?;
        }
        Ok(found.unlocked)
    }

    fn label(&self) -> String {
        format!("{SERVICE}: {} at {}", self.0.profile, self.0.origin)
    }

    fn attributes(&self) -> HashMap<&str, &str> {
        let mut attributes =
            HashMap::from([("service", SERVICE), ("profile", &self.0.profile), ("origin", &self.0.origin)]);
        attributes.extend(self.0.username.as_deref().map(|username| ("username", username)));
        attributes
    }
}

/// Returns where new items go, unless that is locked.
async fn open_collection<'a>(keyring: &'a SecretService<'_>) -> Result<Collection<'a>> {
    let collection = keyring.get_default_collection().await.map_err(|error| {
        let absent = matches!(error, secret_service::Error::NoResult);
        if absent { Refusal::NoCollection.into() } else { service(error) }
    })?;
    if collection.is_locked().await.map_err(service)? {
        return Err(Refusal::Locked.into());
    }
    Ok(collection)
}

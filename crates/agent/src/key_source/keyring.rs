//! A key in the operating system's keyring: one item for each profile, which holds the key together
//! with what it was given for.
//!
//! Every call opens the keyring anew, so that one which appears or opens later is found without a
//! restart. The libraries behind it copy a secret on its way; those copies are out of our reach.

use std::error::Error as StdError;
use std::thread;
use std::time::Duration;

use dph_agent_platform::ApiKey;
use keyring_core::{Entry, Error};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::{Found, item};
use crate::binding::Binding;
use crate::config::Profile;

#[cfg(windows)]
#[path = "keyring/credential_manager.rs"]
mod system;
#[cfg(target_os = "macos")]
#[path = "keyring/keychain.rs"]
mod system;
#[cfg(all(unix, not(target_os = "macos")))]
#[path = "keyring/secret_service.rs"]
mod system;

/// How long a keyring may take. It has nobody to ask: what needs the user is an error at once.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Calls that run at once; one that hangs takes up its place until it ends.
const MAX_CALLS: usize = 4;
/// Stack of their threads. The default of 2 MiB is a huge page to Linux, given whole at the first touch.
const THREAD_STACK: usize = 512 * 1024;
/// The service in whose name all items are kept.
const SERVICE: &str = "dph-agent";

/// Why the keyring did not do what was asked. Nothing in it repeats a secret.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// It is locked, absent or out of reach.
    #[error("cannot use the keyring")]
    Closed(#[source] Box<dyn StdError + Send + Sync>),
    /// It took too long.
    #[error("the keyring did not answer within {} s", TIMEOUT.as_secs())]
    Silent,
    /// It has no room for an item as long as this.
    #[error("the keyring keeps no more than {0} bytes in one item")]
    TooLong(u32),
    /// It does what its interface does not tell of.
    #[error("the keyring gave an answer that makes no sense")]
    Senseless,
    /// The item was changed, or written by another version.
    #[error("the item in the keyring is not one that this version of the agent wrote")]
    Foreign,
    /// What was written is not what is read.
    #[error("the keyring did not keep the key")]
    NotKept,
}

impl From<Error> for KeyringError {
    fn from(error: Error) -> Self {
        match error {
            Error::NoStorageAccess(source) | Error::PlatformFailure(source) => Self::Closed(source),
            Error::TooLong(_, limit) => Self::TooLong(limit),
            // Some of these carry what they failed on: the secret.
            Error::NoEntry
            | Error::BadEncoding(_)
            | Error::BadDataFormat(..)
            | Error::BadStoreFormat(_)
            | Error::Invalid(..)
            | Error::Ambiguous(_)
            | Error::NoDefaultStore
            | Error::NotSupportedByStore(_)
            | _ => Self::Senseless,
        }
    }
}

/// Returns the key of `profile`, if there is one.
pub(super) async fn read(profile: &Profile) -> Result<Option<Found>, KeyringError> {
    SYSTEM.read(profile).await
}

/// Keeps the key of `profile` in place of the one before.
pub(super) async fn store(profile: &Profile, key: &ApiKey, binding: &Binding) -> Result<(), KeyringError> {
    SYSTEM.store(profile, key, binding).await
}

/// Keeps what a rotation of the key of `profile` must not lose.
pub(super) async fn store_aside(profile: &Profile, text: Zeroizing<Vec<u8>>) -> Result<(), KeyringError> {
    SYSTEM.keep(ItemName::aside(profile), text).await
}

/// Returns what a rotation of the key of `profile` kept.
pub(super) async fn read_aside(profile: &Profile) -> Result<Option<Zeroizing<Vec<u8>>>, KeyringError> {
    SYSTEM.call(ItemName::aside(profile), secret_of).await
}

/// Deletes what a rotation of the key of `profile` kept.
pub(super) async fn clear_aside(profile: &Profile) -> Result<(), KeyringError> {
    SYSTEM.delete(ItemName::aside(profile)).await
}

/// Deletes the key of `profile`, if there is one.
pub(super) async fn clear(profile: &Profile) -> Result<(), KeyringError> {
    SYSTEM.clear(profile).await
}

static SYSTEM: Keyring = Keyring::new(system::entry);

/// By what an item is found: its profile, whose it is, and where it is sent.
#[derive(Clone, Debug)]
struct ItemName {
    profile: String,
    origin: String,
    username: Option<String>,
}

impl ItemName {
    /// No profile is called so.
    fn aside(profile: &Profile) -> Self {
        let Self { profile, origin, username } = Self::of(profile);
        Self { profile: format!("{profile}:rotation"), origin, username }
    }

    fn of(profile: &Profile) -> Self {
        Self {
            profile: profile.name.to_string(),
            origin: profile.auth_url.origin(),
            username: profile.username().map(str::to_owned),
        }
    }
}

/// A keyring whose calls may hang: each runs on a thread of its own, which nobody waits for at the exit.
struct Keyring {
    entry: fn(&ItemName) -> keyring_core::Result<Entry>,
    places: Semaphore,
}

impl Keyring {
    const fn new(entry: fn(&ItemName) -> keyring_core::Result<Entry>) -> Self {
        Self { entry, places: Semaphore::const_new(MAX_CALLS) }
    }

    async fn read(&'static self, profile: &Profile) -> Result<Option<Found>, KeyringError> {
        let secret = self.call(ItemName::of(profile), secret_of).await?;
        secret.map(|secret| item::decode(&secret).ok_or(KeyringError::Foreign)).transpose()
    }

    async fn store(
        &'static self,
        profile: &Profile,
        key: &ApiKey,
        binding: &Binding,
    ) -> Result<(), KeyringError> {
        self.keep(ItemName::of(profile), item::encode(key, binding)).await
    }

    /// Keeps a secret, and reads it back.
    async fn keep(&'static self, name: ItemName, secret: Zeroizing<Vec<u8>>) -> Result<(), KeyringError> {
        let kept = self.call(name, move |entry| {
            entry.set_secret(&secret)?;
            Ok(secret_of(entry)? == Some(secret))
        });
        if kept.await? { Ok(()) } else { Err(KeyringError::NotKept) }
    }

    async fn clear(&'static self, profile: &Profile) -> Result<(), KeyringError> {
        self.delete(ItemName::of(profile)).await
    }

    async fn delete(&'static self, name: ItemName) -> Result<(), KeyringError> {
        self.call(name, |entry| match entry.delete_credential() {
            Ok(()) | Err(Error::NoEntry) => Ok(()),
            Err(error) => Err(error),
        })
        .await
    }

    async fn call<T: Send + 'static>(
        &'static self,
        name: ItemName,
        work: impl FnOnce(&Entry) -> keyring_core::Result<T> + Send + 'static,
    ) -> Result<T, KeyringError> {
        let done = async {
            let place = self.places.acquire().await;
            let (sender, done) = oneshot::channel();
            let call = move || {
                let _place = place;
                // Who asked may have given up by then.
                drop(sender.send((self.entry)(&name).and_then(|entry| work(&entry))));
            };
            let thread = thread::Builder::new().name("keyring".to_owned()).stack_size(THREAD_STACK);
            thread.spawn(call).map_err(|error| KeyringError::Closed(Box::new(error)))?;
            done.await.map_err(|_lost| KeyringError::Senseless)?.map_err(KeyringError::from)
        };
        timeout(TIMEOUT, done).await.unwrap_or(Err(KeyringError::Silent))
    }
}

fn secret_of(entry: &Entry) -> keyring_core::Result<Option<Zeroizing<Vec<u8>>>> {
    match entry.get_secret() {
        Ok(secret) => Ok(Some(Zeroizing::new(secret))),
        Err(Error::NoEntry) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, LazyLock};

    use dph_agent_protocol::{PlatformKind, Settings};
    use keyring_core::api::CredentialStoreApi as _;
    use keyring_core::mock;

    use super::*;
    use crate::exchange;
    use crate::proxies;

    static MOCK: Keyring = Keyring::new(mocked);

    fn mocked(name: &ItemName) -> keyring_core::Result<Entry> {
        static STORE: LazyLock<Arc<mock::Store>> = LazyLock::new(|| mock::Store::new().unwrap());
        match name.profile.as_str() {
            "silent" => loop {
                thread::park();
            },
            profile => STORE.build(SERVICE, profile, None),
        }
    }

    fn fails_next(profile: &Profile, error: Error) {
        let entry = mocked(&ItemName::of(profile)).unwrap();
        entry.as_any().downcast_ref::<mock::Cred>().unwrap().set_error(error);
    }

    fn profile(name: &str) -> Profile {
        let settings = Settings {
            platform: Some(PlatformKind::SOFTWARE_HUB),
            url: Some("https://cpd.example.com".to_owned()),
            username: Some("alice".to_owned()),
            ..Settings::default()
        };
        Profile::build(name.parse().unwrap(), &settings).unwrap()
    }

    async fn bound(profile: &Profile) -> Binding {
        Binding::of(profile.platform(), &exchange::target(profile, &proxies::from_env()).await.unwrap())
    }

    #[tokio::test]
    async fn a_key_comes_back_with_what_it_was_given_for() {
        let profile = profile("kept");
        let (key, binding) = (ApiKey::new("a \"quoted\" \\ kéy".to_owned()), bound(&profile).await);
        assert!(MOCK.read(&profile).await.unwrap().is_none());
        MOCK.store(&profile, &key, &binding).await.unwrap();
        let found = MOCK.read(&profile).await.unwrap().unwrap();
        assert_eq!((found.key, found.binding), (key, Some(binding)));
        MOCK.clear(&profile).await.unwrap();
        assert!(MOCK.read(&profile).await.unwrap().is_none());
        MOCK.clear(&profile).await.expect("there is none to delete");
    }

    #[tokio::test]
    async fn a_keyring_that_fails_is_tried_again_and_loses_nothing() {
        let profile = profile("failing");
        let (key, binding) = (ApiKey::new("the-key".to_owned()), bound(&profile).await);
        MOCK.store(&profile, &key, &binding).await.unwrap();
        let locked = || Error::NoStorageAccess("locked".into());
        fails_next(&profile, locked());
        assert!(matches!(MOCK.read(&profile).await, Err(KeyringError::Closed(_))));
        fails_next(&profile, locked());
        assert!(matches!(MOCK.clear(&profile).await, Err(KeyringError::Closed(_))));
        fails_next(&profile, locked());
        assert!(matches!(MOCK.store(&profile, &key, &binding).await, Err(KeyringError::Closed(_))));
        assert_eq!(MOCK.read(&profile).await.unwrap().unwrap().key, key);
    }

    #[tokio::test]
    async fn an_error_that_holds_the_secret_is_told_without_it() {
        let profile = profile("leaking");
        fails_next(&profile, Error::BadDataFormat(b"the-key".to_vec(), "the-key".into()));
        let error = MOCK.read(&profile).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("the-key"), "{error:?}");
    }

    #[tokio::test]
    async fn a_call_that_hangs_is_given_up_and_holds_up_no_other() {
        let silent = profile("silent");
        let hanging = tokio::spawn(async move { MOCK.read(&silent).await });
        tokio::task::yield_now().await;
        assert!(MOCK.read(&profile("other")).await.unwrap().is_none());
        tokio::time::pause();
        assert!(matches!(hanging.await.unwrap(), Err(KeyringError::Silent)));
    }

    #[tokio::test]
    async fn an_item_of_another_hand_or_version_is_refused() {
        let profile = profile("foreign");
        mocked(&ItemName::of(&profile)).unwrap().set_secret(b"the-key").unwrap();
        let error = MOCK.read(&profile).await.unwrap_err();
        assert!(matches!(error, KeyringError::Foreign), "{error:?}");
        assert!(!format!("{error:?}").contains("the-key"));
    }
}

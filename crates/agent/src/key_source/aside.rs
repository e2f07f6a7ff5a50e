//! What a rotation must not lose, kept where the key is kept: a bearer token that can ask for a key once more.

use dph_agent_platform::{ApiKey, TokenText};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    KeySource, SealedError, SealedFolder, SourceError, file, file_changed, keyring, off_the_runtime,
};
use crate::config::Profile;
use crate::exchange::blocking_secret;
use crate::seal::Public;

/// Room for what JSON needs around the token.
const AROUND: usize = 256;

/// What is kept.
#[derive(Debug)]
pub struct Aside {
    /// Bought with the old key when that was proven to be the platform's current one.
    pub bearer: TokenText,
}

#[derive(Serialize)]
struct Written<'a> {
    bearer: &'a str,
}

#[derive(Deserialize)]
struct Read {
    bearer: TokenText,
}

impl Aside {
    /// Makes what is kept.
    pub fn new(bearer: &TokenText) -> Self {
        Self { bearer: TokenText::new(bearer.expose().to_owned()) }
    }

    /// Returns the same once more.
    pub fn copy(&self) -> Self {
        Self::new(&self.bearer)
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        // Room for all of it, so that no part is left behind by a move: JSON writes a byte with six at most.
        let mut text = Zeroizing::new(Vec::with_capacity(AROUND + 6 * self.bearer.expose().len()));
        let written = Written { bearer: self.bearer.expose() };
        let written = serde_json::to_writer(&mut *text, &written).is_ok();
        debug_assert!(written, "text can always be written to memory");
        text
    }

    /// Reads what was kept; `None` where this program did not write it.
    pub(super) fn decode(text: &[u8]) -> Option<Self> {
        let Read { bearer } = serde_json::from_slice(text).ok()?;
        Some(Self { bearer })
    }
}

impl KeySource {
    /// Keeps `aside` beside the key of `profile`, where the source has a place for it.
    ///
    /// # Errors
    ///
    /// When it is not kept.
    pub async fn put_aside(
        &self,
        profile: &Profile,
        aside: &Aside,
        sealed: &SealedFolder,
        to: Option<Public>,
    ) -> Result<(), SourceError> {
        let text = aside.encode();
        match self {
            Self::Keyring => Ok(keyring::store_aside(profile, text).await?),
            Self::Sealed => {
                let (folder, name) = (sealed.clone(), profile.name.clone());
                off_the_runtime(move || folder.store_aside(&name, &text, to)).await
            }
            Self::File(path) => {
                let path = file::aside(path);
                file_changed(&path, move |path| file::replace(path, &text)).await
            }
            Self::Session | Self::Command(_) | Self::Credential(_) => Ok(()),
        }
    }

    /// Returns what was kept beside the key of `profile`.
    ///
    /// # Errors
    ///
    /// When its place cannot be read. What is sealed is opened by `unlock` alone.
    pub async fn read_aside(
        &self,
        profile: &Profile,
        sealed: &SealedFolder,
    ) -> Result<Option<Aside>, SourceError> {
        let text = match self {
            Self::Keyring => keyring::read_aside(profile).await?,
            Self::File(path) => {
                let path = file::aside(path);
                let there = path.clone();
                let read = blocking_secret(move || file::read_if_there(&there)).await;
                let read = read.map_err(|_stopping| SourceError::Interrupted)?;
                read.map_err(|source| SourceError::File { path, source })?
            }
            Self::Sealed if sealed.has_aside(&profile.name) => {
                return Err(SealedError::Closed(profile.name.clone()).into());
            }
            Self::Session | Self::Sealed | Self::Command(_) | Self::Credential(_) => None,
        };
        Ok(text.and_then(|text| Aside::decode(&text)))
    }

    /// Deletes what was kept beside the key of `profile`.
    ///
    /// # Errors
    ///
    /// When it may still be there.
    pub async fn clear_aside(&self, profile: &Profile, sealed: &SealedFolder) -> Result<(), SourceError> {
        match self {
            Self::Keyring => Ok(keyring::clear_aside(profile).await?),
            Self::Sealed => {
                let (folder, name) = (sealed.clone(), profile.name.clone());
                off_the_runtime(move || folder.clear_aside(&name)).await
            }
            Self::File(path) => file_changed(&file::aside(path), file::delete_if_there).await,
            Self::Session | Self::Command(_) | Self::Credential(_) => Ok(()),
        }
    }

    /// Puts another key of `profile` in the place of the one that is there.
    ///
    /// # Errors
    ///
    /// When the old one may still be there, or the source is only read.
    pub async fn replace(
        &self,
        profile: &Profile,
        key: &ApiKey,
        binding: &crate::binding::Binding,
        sealed: &SealedFolder,
        to: Option<Public>,
    ) -> Result<(), SourceError> {
        match self {
            Self::File(path) => {
                let mut text = Zeroizing::new(Vec::with_capacity(key.expose().len() + 1));
                text.extend_from_slice(key.expose().as_bytes());
                text.push(b'\n');
                file_changed(path, move |path| file::overwrite(path, &text)).await
            }
            Self::Command(_) if profile.key_store.is_none() => Err(SourceError::OnlyRead(self.to_string())),
            Self::Session | Self::Credential(_) => Err(SourceError::OnlyRead(self.to_string())),
            Self::Keyring | Self::Sealed | Self::Command(_) => {
                self.store(profile, key, binding, sealed, to).await
            }
        }
    }

    /// Whether another key can be put in the place of the one that is there, as far as can be seen.
    ///
    /// # Errors
    ///
    /// When a key file is somebody else's.
    pub async fn can_be_replaced(&self) -> Result<bool, SourceError> {
        match self {
            Self::Keyring | Self::Sealed => Ok(true),
            Self::File(path) => file_changed(path, file::check_own).await.map(|()| true),
            Self::Session | Self::Command(_) | Self::Credential(_) => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_moves_nowhere() {
        let aside = Aside::new(&TokenText::new("eyJ.\"x\".sig".into()));
        let text = aside.encode();
        assert_eq!(text.capacity(), AROUND + 6 * 11, "it grew");
        assert_eq!(Aside::decode(&text).unwrap().bearer.expose(), "eyJ.\"x\".sig");
        assert!(Aside::decode(b"{}").is_none());
    }
}

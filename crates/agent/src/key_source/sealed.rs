//! A key in a file that only the lock's passphrase opens, for machines without a keyring.
//!
//! Sealing takes the public half of the lock's key pair, so that a key can be added at any time; opening
//! takes the private half, which is at hand while a passphrase is being given, and at no other time. What
//! the key was given for stands beside it in the clear, and cannot be changed without being noticed.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dph_agent_platform::ApiKey;
use dph_agent_protocol::ErrorCode;
use serde::{Deserialize, Serialize};

use super::{Aside, Found, item};
use crate::binding::Binding;
use crate::config::ProfileName;
use crate::error::{Chain, Problem};
use crate::private_file;
use crate::seal::{Private, Public, SealError};

/// Longest file that is read, in bytes.
const MAX_LEN: usize = 256 * 1024;
/// Longest that a rotation keeps: a token of 48 KiB in JSON, sealed.
const MAX_ASIDE_LEN: usize = 384 * 1024;
/// The version of the files that this program writes.
const VERSION: u32 = 1;
/// What is sealed, so that it is taken for nothing else.
const PURPOSE: &str = "dph-agent sealed key 1";

/// Why a sealed key is not at hand, or not kept.
#[derive(Debug, thiserror::Error)]
pub enum SealedError {
    /// It was not opened since the agent started.
    #[error("the sealed key of profile `{0}` was not opened since the agent started")]
    Closed(ProfileName),
    /// There is nobody to seal it to.
    #[error("no passphrase is set that a key could be sealed with")]
    NoPassphrase,
    /// Whom it would be sealed to is only what a file says.
    #[error("nothing is sealed before the passphrase was given once since the agent started")]
    Unproven,
    /// The file is there and cannot be used.
    #[error("cannot use the sealed key `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what an agent wrote; it was moved there.
    #[error("the sealed key was damaged: the file is kept as `{0}`")]
    Damaged(PathBuf),
    /// It was sealed to another key pair than the lock has.
    #[error("`{0}` was sealed for another lock than this one")]
    Foreign(PathBuf),
    /// The system has no randomness.
    #[error("cannot seal the key")]
    Seal(#[source] SealError),
}

impl From<SealedError> for Problem {
    fn from(error: SealedError) -> Self {
        let (code, hint) = match &error {
            SealedError::Closed(_) => (ErrorCode::LOCKED, "open it: dph-agent-client unlock"),
            SealedError::NoPassphrase => (
                ErrorCode::BAD_REQUEST,
                "set one: dph-agent-client lock --set-passphrase; then unlock, and add the key",
            ),
            SealedError::Unproven => (
                ErrorCode::LOCKED,
                "dph-agent-client unlock, which takes the passphrase also where nothing is locked; then try again",
            ),
            SealedError::Io { .. } => {
                (ErrorCode::SOURCE_UNAVAILABLE, "look at the file, its owner and its disk")
            }
            SealedError::Damaged(_) => (
                ErrorCode::SOURCE_UNAVAILABLE,
                "put a good copy in its place and unlock, or add the key again",
            ),
            SealedError::Foreign(_) => (
                ErrorCode::SOURCE_UNAVAILABLE,
                "put the lock.json that belongs to it back and restart the agent, or add the key again",
            ),
            SealedError::Seal(_) => (ErrorCode::FAILED, "look at the system"),
        };
        Self::new(code, Chain(&error).to_string(), hint)
    }
}

/// Where sealed keys are: a file for each profile.
#[derive(Clone, Debug)]
pub struct SealedFolder(PathBuf);

/// A key as it lies in its file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SealedKey {
    version: u32,
    /// To whom it is sealed.
    public: Public,
    binding: Binding,
    /// In base64.
    sealed: String,
}

impl SealedKey {
    /// Seals the key of a profile.
    ///
    /// # Errors
    ///
    /// When there is nobody to seal it to.
    pub(super) fn new(
        name: &ProfileName,
        key: &ApiKey,
        binding: &Binding,
        to: Option<Public>,
    ) -> Result<Self, SealedError> {
        let public = proven(to)?;
        let sealed = public.seal(&context(name, binding), &item::encode(key, binding));
        let sealed = BASE64_STANDARD.encode(sealed.map_err(SealedError::Seal)?);
        Ok(Self { version: VERSION, public, binding: binding.clone(), sealed })
    }
}

/// Returns to whom a key can be sealed that is to outlive the agent.
///
/// # Errors
///
/// When there is nobody, or nobody has shown yet that he can open it: the record of the lock may have been exchanged
/// while no agent ran, and what is sealed to a stranger is his.
pub fn proven(to: Option<Public>) -> Result<Public, SealedError> {
    match to {
        None => Err(SealedError::NoPassphrase),
        Some(public) if !public.is_proven() => Err(SealedError::Unproven),
        Some(public) => Ok(public),
    }
}

impl SealedFolder {
    /// Names the folder, which need not exist.
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Returns what the key of a profile was given for, where there is one; it is proven when the key is opened.
    ///
    /// # Errors
    ///
    /// When the file cannot be used.
    pub fn binding(&self, name: &ProfileName) -> Result<Option<Binding>, SealedError> {
        Ok(self.load(name)?.map(|written| written.binding))
    }

    /// Opens the key of a profile, where there is one.
    ///
    /// # Errors
    ///
    /// When the file cannot be used, or was sealed to another key than `private`.
    pub fn open(&self, name: &ProfileName, private: &Private) -> Result<Option<Found>, SealedError> {
        let Some(SealedKey { public, binding, sealed, .. }) = self.load(name)? else { return Ok(None) };
        if public != private.public() {
            return Err(SealedError::Foreign(self.path(name)));
        }
        let sealed = BASE64_STANDARD.decode(sealed).ok();
        let opened = sealed.and_then(|sealed| private.open(&context(name, &binding), &sealed).ok());
        match opened.and_then(|secret| item::decode(&secret)) {
            Some(found) => Ok(Some(found)),
            None => Err(self.put_aside(name)),
        }
    }

    /// Keeps a sealed key in place of the one before, and reads back what was written.
    ///
    /// # Errors
    ///
    /// When it is not kept.
    pub(super) fn store(&self, name: &ProfileName, key: &SealedKey) -> Result<(), SealedError> {
        let path = self.path(name);
        write(&path, key).map_err(|source| SealedError::Io { path, source })
    }

    /// Seals what a rotation must not lose.
    ///
    /// # Errors
    ///
    /// When it is not kept.
    pub(super) fn store_aside(
        &self,
        name: &ProfileName,
        text: &[u8],
        to: Option<Public>,
    ) -> Result<(), SealedError> {
        let sealed = proven(to)?.seal(&aside_context(name), text);
        let (sealed, path) = (sealed.map_err(SealedError::Seal)?, self.rotation(name));
        let written = private_file::create_folder_of(&path)
            .and_then(|()| private_file::replace(&path, |file| file.write_all(&sealed)));
        written.map_err(|source| SealedError::Io { path, source })
    }

    /// Opens what a rotation kept, if it kept anything.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be opened.
    pub fn open_aside(&self, name: &ProfileName, private: &Private) -> Result<Option<Aside>, SealedError> {
        let path = self.rotation(name);
        let sealed = match private_file::read_regular(&path, MAX_ASIDE_LEN) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|source| SealedError::Io { path: path.clone(), source })?,
        };
        let text = private.open(&aside_context(name), &sealed).ok();
        text.and_then(|text| Aside::decode(&text)).map(Some).ok_or(SealedError::Foreign(path))
    }

    /// Whether a rotation kept anything.
    pub(super) fn has_aside(&self, name: &ProfileName) -> bool {
        self.rotation(name).exists()
    }

    /// Deletes what a rotation kept.
    ///
    /// # Errors
    ///
    /// When it may still be there.
    pub(super) fn clear_aside(&self, name: &ProfileName) -> Result<(), SealedError> {
        let path = self.rotation(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(SealedError::Io { path, source }),
            _ => Ok(()),
        }
    }

    /// Deletes the key of a profile, if there is one, and what is left of a damaged one.
    ///
    /// # Errors
    ///
    /// When it may still be there.
    pub fn clear(&self, name: &ProfileName) -> Result<(), SealedError> {
        for path in [self.path(name), self.aside(name), self.rotation(name)] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != ErrorKind::NotFound => {
                    return Err(SealedError::Io { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn load(&self, name: &ProfileName) -> Result<Option<SealedKey>, SealedError> {
        let path = self.path(name);
        match private_file::read_regular(&path, MAX_LEN) {
            Ok(text) => match serde_json::from_slice::<SealedKey>(&text) {
                Ok(written) if written.version == VERSION => Ok(Some(written)),
                Ok(_) | Err(_) => Err(self.put_aside(name)),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => match self.aside(name) {
                aside if aside.exists() => Err(SealedError::Damaged(aside)),
                _ => Ok(None),
            },
            Err(source) => Err(SealedError::Io { path, source }),
        }
    }

    /// Moves a file that cannot be understood away, so that nothing is written over it.
    fn put_aside(&self, name: &ProfileName) -> SealedError {
        let (path, aside) = (self.path(name), self.aside(name));
        match fs::rename(&path, &aside) {
            Ok(()) => SealedError::Damaged(aside),
            Err(source) => SealedError::Io { path, source },
        }
    }

    fn path(&self, name: &ProfileName) -> PathBuf {
        self.0.join(format!("{name}.sealed"))
    }

    fn rotation(&self, name: &ProfileName) -> PathBuf {
        self.0.join(format!("{name}.rotation"))
    }

    fn aside(&self, name: &ProfileName) -> PathBuf {
        self.0.join(format!("{name}.damaged"))
    }
}

fn write(path: &Path, key: &SealedKey) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(key)?;
    text.push(b'\n');
    private_file::create_folder_of(path)?;
    private_file::replace(path, |file| file.write_all(&text))?;
    if private_file::read_regular(path, MAX_LEN)? == text {
        return Ok(());
    }
    Err(io::Error::other("it does not hold what was written to it"))
}

fn aside_context(name: &ProfileName) -> Vec<u8> {
    format!("dph-agent rotation 1\n{name}").into_bytes()
}

/// Binds the key to its profile and to what stands beside it.
fn context(name: &ProfileName, binding: &Binding) -> Vec<u8> {
    // What was written is read back into the same binding, whose fields are written in one order.
    let binding = serde_json::to_string(binding).unwrap_or_default();
    format!("{PURPOSE}\n{name}\n{binding}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        _folder: tempfile::TempDir,
        sealed: SealedFolder,
        private: Private,
        name: ProfileName,
        key: ApiKey,
        binding: Binding,
    }

    fn binding(origin: &str) -> Binding {
        let json =
            serde_json::json!({"platform": "ibm-cloud", "origin": origin, "username": null, "roots": []});
        serde_json::from_value(json).unwrap()
    }

    fn scene() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let scene = Scene {
            sealed: SealedFolder::new(folder.path().join("sealed")),
            _folder: folder,
            private: Private::generate().unwrap(),
            name: "prod".parse().unwrap(),
            key: ApiKey::new("the-key-0123456789".to_owned()),
            binding: binding("https://iam.example"),
        };
        scene.store();
        scene
    }

    impl Scene {
        fn store(&self) {
            let to = Some(self.private.public());
            let key = SealedKey::new(&self.name, &self.key, &self.binding, to).unwrap();
            self.sealed.store(&self.name, &key).unwrap();
        }
    }

    #[test]
    fn a_sealed_key_comes_back_with_what_it_was_given_for() {
        let Scene { sealed, private, name, key, binding, .. } = &scene();
        let text = fs::read_to_string(sealed.path(name)).unwrap();
        assert!(!text.contains(key.expose()) && text.contains("iam.example"), "{text}");
        assert_eq!(sealed.binding(name).unwrap().as_ref(), Some(binding));
        let found = sealed.open(name, private).unwrap().unwrap();
        assert_eq!((&found.key, found.binding.as_ref()), (key, Some(binding)));
        sealed.clear(name).unwrap();
        assert!(sealed.open(name, private).unwrap().is_none());
        sealed.clear(name).expect("there is none to delete");
    }

    #[test]
    fn a_key_is_not_sealed_to_nobody() {
        let Scene { name, key, binding, .. } = &scene();
        assert!(matches!(SealedKey::new(name, key, binding, None), Err(SealedError::NoPassphrase)));
    }

    #[test]
    fn a_damaged_file_is_put_aside_and_named_until_a_key_is_added() {
        let scene = scene();
        let Scene { sealed, private, name, .. } = &scene;
        let good = fs::read_to_string(sealed.path(name)).unwrap();
        let elsewhere = good.replace("iam.example", "evil.example");
        for damage in
            ["", "{}", &good[..good.len() / 2], &good.replace("\"version\": 1", "\"version\": 2"), &elsewhere]
        {
            fs::write(sealed.path(name), damage).unwrap();
            assert!(matches!(sealed.open(name, private), Err(SealedError::Damaged(_))), "{damage}");
            assert_eq!(fs::read_to_string(sealed.aside(name)).unwrap(), damage, "it is kept");
            assert!(matches!(sealed.binding(name), Err(SealedError::Damaged(_))));
            scene.store();
            assert!(sealed.open(name, private).unwrap().is_some());
        }
    }

    #[test]
    fn the_key_of_another_lock_or_profile_does_not_open_and_stays() {
        let Scene { sealed, private, name, .. } = &scene();
        let other = Private::generate().unwrap();
        assert!(matches!(sealed.open(name, &other), Err(SealedError::Foreign(_))));
        let dev = "dev".parse().unwrap();
        fs::copy(sealed.path(name), sealed.path(&dev)).unwrap();
        assert!(matches!(sealed.open(&dev, private), Err(SealedError::Damaged(_))));
        assert!(sealed.open(name, private).unwrap().is_some());
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_for_the_user_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let Scene { sealed, name, .. } = &scene();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&sealed.path(name)), mode(&sealed.0)), (0o600, 0o700));
    }
}

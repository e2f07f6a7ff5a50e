//! Where a key comes from, and survives a restart.

mod aside;
mod command;
mod file;
mod item;
#[cfg(feature = "keyring")]
mod keyring;
#[cfg(not(feature = "keyring"))]
#[path = "key_source/no_keyring.rs"]
mod keyring;
mod sealed;

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dph_agent_platform::ApiKey;
use dph_agent_protocol::{ErrorCode, KeySourceKind};
use zeroize::Zeroizing;

use crate::binding::Binding;
use crate::config::Profile;
use crate::error::{Chain, Problem};
use crate::exchange::blocking_secret;
use crate::seal::{Private, Public};

pub use aside::Aside;
use sealed::SealedKey;
pub use sealed::{SealedError, SealedFolder, proven};

/// Longest key, in bytes; real ones have 40 to 50.
const MAX_KEY_LEN: usize = 16 * 1024;

/// Where a profile's key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// Handed over, and gone when the agent ends.
    Session,
    /// The operating system's keyring.
    Keyring,
    /// A file that the lock's passphrase opens.
    Sealed,
    /// A file, by its absolute path.
    File(PathBuf),
    /// What a command prints: the program and its arguments.
    Command(Vec<String>),
    /// The systemd credential of this name.
    Credential(String),
}

/// A key that was read.
#[derive(Debug)]
pub struct Found {
    /// The key.
    pub key: ApiKey,
    /// What it was given for, where its source says so.
    pub binding: Option<Binding>,
}

/// Why a key cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The keyring did not do what was asked.
    #[error(transparent)]
    Keyring(#[from] keyring::KeyringError),
    /// The sealed key is not at hand, or not kept.
    #[error(transparent)]
    Sealed(#[from] SealedError),
    /// The agent is stopping.
    #[error("interrupted")]
    Interrupted,
    /// The file cannot be used.
    #[error("cannot read the key file `{path}`")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: file::FileError,
    },
    /// The file cannot be changed.
    #[error("cannot change the key file `{path}`")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: file::FileError,
    },
    /// The command did not print a key.
    #[error("`{program}` did not print the key")]
    Command {
        /// The program, without its arguments.
        program: String,
        /// Why.
        source: command::CommandError,
    },
    /// The command of `key-store` did not keep the key.
    #[error("`{program}`, the `key-store`, did not keep the key")]
    KeyStore {
        /// The program, without its arguments.
        program: String,
        /// Why.
        source: command::CommandError,
    },
    /// The command of `key-store` said that it kept the key, which the source does not give.
    #[error("`{program}`, the `key-store`, ended well, but its source gives another key")]
    NotKept {
        /// The program, without its arguments.
        program: String,
    },
    /// Nothing can be put there.
    #[error("a key from {0} can only be read")]
    OnlyRead(String),
    /// The agent was not started by a unit with credentials.
    #[error("there is no credential `{0}`: the agent was not started with LoadCredential=")]
    NoCredentials(String),
    /// What was read is not a key.
    #[error("{place} does not hold a key: {fault}")]
    NotAKey {
        /// What was read.
        place: String,
        /// What is wrong with it.
        fault: &'static str,
    },
}

impl KeySource {
    /// Whether a key has to be handed over for it.
    pub fn wants_key(&self) -> bool {
        matches!(self, Self::Session | Self::Keyring | Self::Sealed)
    }

    /// Whether a key that was handed over can be read again.
    pub fn is_readable(&self) -> bool {
        !matches!(self, Self::Session)
    }

    /// Whether the agent by itself can put a key there that outlives it; see [`Profile::can_store_key`].
    pub fn is_writable(&self) -> bool {
        matches!(self, Self::Keyring | Self::Sealed)
    }

    /// Whether whoever is this user can have the key without the agent.
    pub fn is_open_to_user(&self) -> bool {
        !matches!(self, Self::Session | Self::Sealed)
    }

    /// Whether it may be read whenever a caller asks: files cost nothing, a command may do anything.
    pub fn is_cheap(&self) -> bool {
        matches!(self, Self::File(_) | Self::Credential(_))
    }

    /// Returns the file that it reads, if it reads one.
    pub fn file(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path.clone()),
            Self::Credential(name) => {
                Some(PathBuf::from(std::env::var_os("CREDENTIALS_DIRECTORY")?).join(name))
            }
            Self::Session | Self::Keyring | Self::Sealed | Self::Command(_) => None,
        }
    }

    /// Returns its kind's number on the wire.
    pub fn kind(&self) -> KeySourceKind {
        match self {
            Self::Session => KeySourceKind::SESSION,
            Self::Keyring => KeySourceKind::KEYRING,
            Self::Sealed => KeySourceKind::SEALED,
            Self::File(_) => KeySourceKind::FILE,
            Self::Command(_) => KeySourceKind::COMMAND,
            Self::Credential(_) => KeySourceKind::CREDENTIAL,
        }
    }

    /// Reads the key of `profile`; `None` where only a user can hand it over.
    ///
    /// # Errors
    ///
    /// When its place cannot be read, holds none, or one that others could have read or written.
    pub async fn read(&self, profile: &Profile, sealed: &SealedFolder) -> Result<Option<Found>, SourceError> {
        let key = match self {
            Self::Session => return Ok(None),
            Self::Keyring => return Ok(keyring::read(profile).await?),
            // It is opened by `unlock` and by nothing else.
            Self::Sealed => match sealed_binding(profile, sealed).await? {
                Some(_) => return Err(SealedError::Closed(profile.name.clone()).into()),
                None => return Ok(None),
            },
            Self::File(path) => read_file(path.clone()).await?,
            Self::Command(line) => read_command(line).await?,
            Self::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
                read_file(credential_path(folder.as_deref(), name)?).await?
            }
        };
        Ok(Some(Found { key, binding: None }))
    }

    /// Returns what a key that the source keeps was given for, where it says so.
    ///
    /// # Errors
    ///
    /// When its place cannot be read.
    pub async fn bound_to(
        &self,
        profile: &Profile,
        sealed: &SealedFolder,
    ) -> Result<Option<Binding>, SourceError> {
        match self {
            Self::Keyring => Ok(keyring::read(profile).await?.and_then(|found| found.binding)),
            Self::Sealed => match sealed_binding(profile, sealed).await {
                // There is none to give for anything any more.
                Err(SourceError::Sealed(SealedError::Damaged(_))) => Ok(None),
                binding => binding,
            },
            Self::Session | Self::File(_) | Self::Command(_) | Self::Credential(_) => Ok(None),
        }
    }

    /// Keeps the key of `profile`, and what it was given for, where the source can be written; `to` is what
    /// secrets are sealed to. What a command keeps is read back.
    ///
    /// # Errors
    ///
    /// When it was not kept; a key that was kept before still is, then, unless a command did away with it.
    pub async fn store(
        &self,
        profile: &Profile,
        key: &ApiKey,
        binding: &Binding,
        sealed: &SealedFolder,
        to: Option<Public>,
    ) -> Result<(), SourceError> {
        match self {
            Self::Keyring => Ok(keyring::store(profile, key, binding).await?),
            Self::Sealed => {
                let (folder, name) = (sealed.clone(), profile.name.clone());
                let sealed = SealedKey::new(&name, key, binding, to)?;
                off_the_runtime(move || folder.store(&name, &sealed)).await
            }
            Self::Command(line) => match &profile.key_store {
                Some(store) => give(store, line, key).await,
                None => Ok(()),
            },
            Self::Session | Self::File(_) | Self::Credential(_) => Ok(()),
        }
    }

    /// Deletes the key of `profile` where the source can be written.
    ///
    /// # Errors
    ///
    /// When it may still be there.
    pub async fn clear(&self, profile: &Profile, sealed: &SealedFolder) -> Result<(), SourceError> {
        match self {
            Self::Keyring => {
                keyring::clear(profile).await?;
                Ok(keyring::clear_aside(profile).await?)
            }
            Self::Sealed => {
                let (folder, name) = (sealed.clone(), profile.name.clone());
                off_the_runtime(move || folder.clear(&name)).await
            }
            Self::Session | Self::File(_) | Self::Command(_) | Self::Credential(_) => Ok(()),
        }
    }
}

/// As [`KeySource::store`] and [`KeySource::clear`], and for key files, too: those change only when the user
/// wants a key moved.
impl KeySource {
    /// Puts the key of `profile` where it was not before.
    ///
    /// # Errors
    ///
    /// When it is not there then, or a file that is there already is in the way.
    pub async fn create(
        &self,
        profile: &Profile,
        key: &ApiKey,
        binding: &Binding,
        sealed: &SealedFolder,
        to: Option<Public>,
    ) -> Result<(), SourceError> {
        match self {
            Self::File(path) => {
                let key = Zeroizing::new(key.expose().as_bytes().to_vec());
                file_changed(path, move |path| file::create(path, &key)).await
            }
            Self::Session | Self::Keyring | Self::Sealed | Self::Command(_) | Self::Credential(_) => {
                self.store(profile, key, binding, sealed, to).await
            }
        }
    }

    /// Deletes the key of `profile`, also where it is in a file of the user's own.
    ///
    /// # Errors
    ///
    /// When it may still be there.
    pub async fn erase(&self, profile: &Profile, sealed: &SealedFolder) -> Result<(), SourceError> {
        match self {
            Self::File(path) => file_changed(path, file::delete).await,
            Self::Session | Self::Keyring | Self::Sealed | Self::Command(_) | Self::Credential(_) => {
                self.clear(profile, sealed).await
            }
        }
    }
}

async fn file_changed(
    path: &Path,
    change: impl FnOnce(&Path) -> Result<(), file::FileError> + Send + 'static,
) -> Result<(), SourceError> {
    let there = path.to_owned();
    let changed =
        blocking_secret(move || change(&there)).await.map_err(|_stopping| SourceError::Interrupted)?;
    changed.map_err(|source| SourceError::KeyFile { path: path.to_owned(), source })
}

/// Opens the sealed key of `profile`, where there is one.
///
/// # Errors
///
/// When its file cannot be used, or is not for `private`.
pub async fn open_sealed(
    profile: &Profile,
    sealed: &SealedFolder,
    private: &Private,
) -> Result<Option<Found>, SourceError> {
    let (folder, name, private) = (sealed.clone(), profile.name.clone(), private.clone());
    off_the_runtime(move || folder.open(&name, &private)).await
}

async fn sealed_binding(profile: &Profile, sealed: &SealedFolder) -> Result<Option<Binding>, SourceError> {
    let (folder, name) = (sealed.clone(), profile.name.clone());
    off_the_runtime(move || folder.binding(&name)).await
}

async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SealedError> + Send + 'static,
) -> Result<T, SourceError> {
    Ok(blocking_secret(work).await.map_err(|_stopping| SourceError::Interrupted)??)
}

impl From<SourceError> for Problem {
    fn from(error: SourceError) -> Self {
        let hint = match error {
            SourceError::Sealed(error) => return error.into(),
            SourceError::Interrupted => "start it again: dph-agent start",
            SourceError::Keyring(_) => {
                "unlock it and try again, or keep the key elsewhere: --key-source sealed, --key-source session, \
                 --key-source file:/PATH, --key-source 'command:[\"pass\",\"show\",\"dph\"]'"
            }
            SourceError::File { ref source, .. } | SourceError::KeyFile { ref source, .. } => source.hint(),
            SourceError::Command { .. } => "run it by hand as the agent's user, without a terminal",
            SourceError::KeyStore { .. } | SourceError::NotKept { .. } => {
                "run it by hand as the agent's user, without a terminal, with a key on its standard input"
            }
            SourceError::OnlyRead(_) => {
                "move it to a place that the agent can write: dph-agent-client migrate"
            }
            SourceError::NoCredentials(_) => "add LoadCredential= to the agent's unit and restart it",
            SourceError::NotAKey { .. } => "put the key there, alone on one line",
        };
        Self::new(ErrorCode::SOURCE_UNAVAILABLE, Chain(&error).to_string(), hint)
    }
}

async fn read_file(path: PathBuf) -> Result<ApiKey, SourceError> {
    let place = format!("`{}`", path.display());
    let there = path.clone();
    let text =
        blocking_secret(move || file::read(&there)).await.map_err(|_stopping| SourceError::Interrupted)?;
    key_in(text.map_err(|source| SourceError::File { path, source })?, place)
}

async fn read_command(line: &[String]) -> Result<ApiKey, SourceError> {
    let program = line.first().cloned().unwrap_or_default();
    let place = format!("what `{program}` printed");
    let text = command::run(line).await.map_err(|source| SourceError::Command { program, source })?;
    key_in(text, place)
}

/// Gives a key to the command that keeps it, and reads it back by the one that prints it.
async fn give(store: &[String], line: &[String], key: &ApiKey) -> Result<(), SourceError> {
    let program = store.first().cloned().unwrap_or_default();
    let given = command::give(store, key).await;
    given.map_err(|source| SourceError::KeyStore { program: program.clone(), source })?;
    if read_command(line).await? == *key { Ok(()) } else { Err(SourceError::NotKept { program }) }
}

fn credential_path(folder: Option<&OsStr>, name: &str) -> Result<PathBuf, SourceError> {
    let folder = folder.ok_or_else(|| SourceError::NoCredentials(name.to_owned()))?;
    Ok(PathBuf::from(folder).join(name))
}

/// Takes the key out of a source's bytes: alone on a line, or in IBM Cloud's `apikey.json`.
fn key_in(bytes: Zeroizing<Vec<u8>>, place: String) -> Result<ApiKey, SourceError> {
    let not_a_key = |fault| SourceError::NotAKey { place, fault };
    let Ok(text) = std::str::from_utf8(&bytes) else { return Err(not_a_key("it is not text")) };
    match text.trim() {
        "" => Err(not_a_key("it is empty")),
        json if json.starts_with('{') => {
            key_in_json(json).ok_or_else(|| not_a_key("its JSON has no `apikey`"))
        }
        key if key.contains(char::is_whitespace) => Err(not_a_key("it holds more than one word")),
        key if key.contains(char::is_control) => Err(not_a_key("it holds a control character")),
        key => Ok(ApiKey::new(key.to_owned())),
    }
}

fn key_in_json(json: &str) -> Option<ApiKey> {
    #[derive(serde::Deserialize)]
    struct ApiKeyFile {
        apikey: String,
    }
    serde_json::from_str::<ApiKeyFile>(json).ok().map(|file| ApiKey::new(file.apikey))
}

/// Why a text does not name a key source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySourceError {
    /// There is no such kind. It is not repeated: it may be the key itself, given by mistake.
    #[error(
        "it is one of session, keyring, sealed, file:/PATH, credential:NAME and command:[\"PROGRAM\",\"ARGUMENT\"]"
    )]
    Unknown,
    /// The path is relative.
    #[error("give the whole path of the key file: the agent runs in another folder than you do")]
    RelativePath,
    /// The command is not a list of texts.
    #[error("write the command as a list: command:[\"pass\",\"show\",\"dph\"]")]
    Command,
    /// The credential's name would leave its folder.
    #[error("a credential's name has no `/` in it")]
    Credential,
}

impl FromStr for KeySource {
    type Err = KeySourceError;

    fn from_str(text: &str) -> Result<Self, KeySourceError> {
        match text.split_once(':').unwrap_or((text, "")) {
            ("session", "") => Ok(Self::Session),
            ("keyring", "") => Ok(Self::Keyring),
            ("sealed", "") => Ok(Self::Sealed),
            ("file", path) => match PathBuf::from(path) {
                path if path.is_absolute() => Ok(Self::File(path)),
                _ => Err(KeySourceError::RelativePath),
            },
            ("command", line) => match serde_json::from_str::<Vec<String>>(line) {
                Ok(line) if !line.is_empty() => Ok(Self::Command(line)),
                Ok(_) | Err(_) => Err(KeySourceError::Command),
            },
            ("credential", "" | "." | "..") => Err(KeySourceError::Credential),
            ("credential", name) if name.contains(['/', '\\']) => Err(KeySourceError::Credential),
            ("credential", name) => Ok(Self::Credential(name.to_owned())),
            _ => Err(KeySourceError::Unknown),
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session => f.write_str("session"),
            Self::Keyring => f.write_str("keyring"),
            Self::Sealed => f.write_str("sealed"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Command(line) => write!(f, "command:{}", serde_json::Value::from(line.clone())),
            Self::Credential(name) => write!(f, "credential:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_source_reads_back_as_it_is_written() {
        for text in [
            "session",
            "keyring",
            "sealed",
            "file:/run/secrets/dph",
            "credential:dph",
            "command:[\"pass\",\"show\",\"a \\\"b\\\"\"]",
        ] {
            assert_eq!(text.parse::<KeySource>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_key_source_that_could_surprise_is_refused() {
        for text in [
            "keyrign",
            "file:key",
            "command:pass show",
            "command:[]",
            "credential:../x",
            "credential:",
            "session:x",
            "keyring:x",
        ] {
            assert!(text.parse::<KeySource>().is_err(), "{text}");
        }
    }

    /// Returns a profile whose key lies in a file that one command prints and another one writes.
    #[cfg(unix)]
    fn profile_with_store(kept: &Path, store: &str) -> Profile {
        let text = format!(
            "[profiles.p]\nplatform = \"ibm-cloud\"\nurl = \"https://dph.example.com\"\n\
             key-source = 'command:[\"cat\",\"{}\"]'\nkey-store = [\"sh\",\"-c\",\"{store}\",\"{}\"]\n",
            kept.display(),
            kept.display()
        );
        Profile::clone(&crate::config::parse(&text).unwrap().profiles["p"])
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_key_that_a_command_keeps_is_believed_once_its_source_gives_it() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        std::fs::write(&kept, "the-old-key").unwrap();
        let key = ApiKey::new("the-new-key".to_owned());
        let binding = serde_json::json!({"platform": "ibm-cloud", "origin": "https://iam.example", "username": null, "roots": []});
        let binding = serde_json::from_value(binding).unwrap();
        let sealed = SealedFolder::new(folder.path().join("sealed"));
        let store = |script: &str| {
            let (profile, key, binding, sealed) =
                (profile_with_store(&kept, script), &key, &binding, &sealed);
            async move { profile.key_source.store(&profile, key, binding, sealed, None).await }
        };
        for (script, told) in [("cat; exit 1", "did not keep"), ("cat", "gives another key")] {
            let error = Chain(&store(script).await.unwrap_err()).to_string();
            assert!(error.contains(told) && !error.contains("-key "), "{error}");
        }
        store("cat >$0").await.unwrap();
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), "the-new-key\n");
    }

    fn key(text: &str) -> Result<String, String> {
        let bytes = Zeroizing::new(text.as_bytes().to_vec());
        key_in(bytes, "it".to_owned()).map(|key| key.expose().to_owned()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_key_is_found_alone_on_a_line_or_in_the_file_of_ibm_cloud() {
        assert_eq!(key("abc-123\n").unwrap(), "abc-123");
        assert_eq!(key("{\"name\":\"n\",\"apikey\":\"abc\"}").unwrap(), "abc");
    }

    #[test]
    fn what_is_not_a_key_is_told_without_repeating_it() {
        for text in ["", "\n", "two words", "{\"apikye\":\"two\"}", "two\u{7}words"] {
            let error = key(text).unwrap_err();
            assert!(error.starts_with("it does not hold a key") && !error.contains("two"), "{error}");
        }
    }
}

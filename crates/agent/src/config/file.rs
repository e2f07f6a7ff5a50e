//! The configuration file, which only the agent writes: under a lock, keeping comments, and never
//! over a change that it has not seen.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use dph_agent_protocol::{ErrorCode, Settings};
use toml_edit::{DocumentMut, Item, Table, value};

use super::read::{self, Fault, PROFILE_KEYS};
use super::{Config, ProfileName};
use crate::error::Problem;
use crate::private_file;

/// The file on disk and what was last read from it.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    text: String,
}

/// A change to the configuration.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Gives a profile these settings and no others; it is created if there is none.
    Put(ProfileName, Box<Settings>),
    /// Removes profiles.
    Remove(Vec<ProfileName>),
    /// Makes a profile the default.
    Default(ProfileName),
}

/// Why the configuration cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not be written.
    #[error("cannot write `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It makes no sense.
    #[error("`{path}` is wrong: {}", faults.first().map(ToString::to_string).unwrap_or_default())]
    Faults {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong, at least one thing.
        faults: Vec<Fault>,
    },
    /// Somebody else has changed it since it was read.
    #[error("`{path}` has changed since the agent read it")]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        let hint = match &error {
            ConfigError::Changed { .. } => "let the agent read it (SIGHUP), then try again",
            ConfigError::Faults { .. } => "mend the file: `dph-agent check-config` names every fault",
            ConfigError::Read { .. } | ConfigError::Write { .. } => {
                "look at the owner and mode of the file and its folder"
            }
        };
        Self::new(ErrorCode::CONFIG, crate::error::Chain(&error).to_string(), hint)
    }
}

impl ConfigFile {
    /// Names the file; nothing is read yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, text: String::new() }
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file; a missing one is an empty one.
    ///
    /// # Errors
    ///
    /// When it cannot be read or makes no sense; what was read before is kept then.
    pub fn load(&mut self) -> Result<Config, ConfigError> {
        let text = self.read()?;
        let config = self.parse(&text)?;
        self.text = text;
        Ok(config)
    }

    /// Returns the settings that a profile has in the file.
    pub fn settings_of(&self, name: &ProfileName) -> Settings {
        read::settings(&self.text).remove(name.as_str()).unwrap_or_default()
    }

    /// Changes the file and returns what it says then.
    ///
    /// # Errors
    ///
    /// When it has changed underneath or cannot be written; the file is as it was then.
    pub fn edit(&mut self, edit: &Edit) -> Result<Config, ConfigError> {
        let write_error = |source| ConfigError::Write { path: self.path.clone(), source };
        private_file::create_folder_of(&self.path).map_err(write_error)?;
        let _lock = lock(&self.path.with_extension("toml.lock")).map_err(write_error)?;
        if self.read()? != self.text {
            return Err(ConfigError::Changed { path: self.path.clone() });
        }
        let text = edited(&self.text, edit);
        let config = self.parse(&text)?;
        private_file::replace(&self.path, |file| file.write_all(text.as_bytes())).map_err(write_error)?;
        self.text = text;
        Ok(config)
    }

    fn read(&self) -> Result<String, ConfigError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(source) => Err(ConfigError::Read { path: self.path.clone(), source }),
        }
    }

    fn parse(&self, text: &str) -> Result<Config, ConfigError> {
        read::parse(text).map_err(|faults| ConfigError::Faults { path: self.path.clone(), faults })
    }
}

/// Waits for other writers; the lock ends with the returned file.
fn lock(path: &Path) -> io::Result<File> {
    let file = private_file::open_or_create(path)?;
    file.lock()?;
    Ok(file)
}

fn edited(text: &str, edit: &Edit) -> String {
    // The text was read and parsed before, so that this cannot fail.
    let mut document = text.parse::<DocumentMut>().unwrap_or_default();
    match edit {
        Edit::Put(name, settings) => put(&mut document, name, settings),
        Edit::Remove(names) => names.iter().for_each(|name| remove(&mut document, name)),
        Edit::Default(name) => set(document.as_table_mut(), "default-profile", name.as_str()),
    }
    document.to_string()
}

fn put(document: &mut DocumentMut, name: &ProfileName, settings: &Settings) {
    let profiles = document.entry("profiles").or_insert_with(implicit_table);
    let Some(profiles) = profiles.as_table_mut() else { return };
    let profile = profiles.entry(name.as_str()).or_insert_with(|| Item::Table(Table::new()));
    let Some(profile) = profile.as_table_mut() else { return };
    for (key, text) in PROFILE_KEYS.iter().zip(texts(settings)) {
        match text {
            Some(text) => set(profile, key, &text),
            None => drop(profile.remove(key)),
        }
    }
}

/// Returns the values in the order of [`PROFILE_KEYS`].
fn texts(settings: &Settings) -> [Option<String>; 10] {
    [
        settings.platform.map(|platform| platform.to_string()),
        settings.url.clone(),
        settings.auth_url.clone(),
        settings.username.clone(),
        settings.scope.clone(),
        settings.ca_file.clone(),
        settings.tls_pin.clone(),
        settings.proxy.clone(),
        settings.key_source.clone(),
        settings.refresh.map(|refresh| refresh.to_string()),
    ]
}

/// Sets a value, keeping the comment behind the one that stood there.
fn set(table: &mut Table, key: &str, text: &str) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            let decor = old.decor().clone();
            *old = text.into();
            *old.decor_mut() = decor;
        }
        None => {
            table.insert(key, value(text));
        }
    }
}

fn remove(document: &mut DocumentMut, name: &ProfileName) {
    if let Some(profiles) = document.get_mut("profiles").and_then(Item::as_table_mut) {
        profiles.remove(name.as_str());
    }
    if document.get("default-profile").and_then(Item::as_str) == Some(name.as_str()) {
        remove_default(document);
    }
}

/// The comment above the key may be the file's own, so it stays, at the top.
fn remove_default(document: &mut DocumentMut) {
    let above = document
        .key("default-profile")
        .and_then(|key| key.leaf_decor().prefix()?.as_str().map(str::to_owned));
    document.remove("default-profile");
    let rest = document.to_string();
    if let Ok(kept) = format!("{}{rest}", above.unwrap_or_default()).parse() {
        *document = kept;
    }
}

fn implicit_table() -> Item {
    let mut table = Table::new();
    table.set_implicit(true);
    Item::Table(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\ndefault-profile = \"prod\"\n\n[profiles.prod] # the cluster\nplatform = \"software-hub\"\n\
                        url = \"https://cpd.example.com\" # production\nusername = \"alice\"\n";

    fn file_with(text: &str) -> (tempfile::TempDir, ConfigFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, text).unwrap();
        let mut file = ConfigFile::new(path);
        file.load().unwrap();
        (folder, file)
    }

    fn url(text: &str) -> Box<Settings> {
        let (platform, username) =
            (Some(dph_agent_protocol::PlatformKind::SOFTWARE_HUB), Some("alice".to_owned()));
        Box::new(Settings { platform, username, url: Some(text.to_owned()), ..Settings::default() })
    }

    #[test]
    fn a_change_keeps_comments_and_everything_else() {
        let (_folder, mut file) = file_with(TEXT);
        file.edit(&Edit::Put("prod".parse().unwrap(), url("https://new.example.com"))).unwrap();
        let expected = TEXT.replace("https://cpd.example.com", "https://new.example.com");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), expected);
    }

    #[test]
    fn a_file_that_changed_underneath_is_left_alone() {
        let (_folder, mut file) = file_with(TEXT);
        fs::write(file.path(), "# other\n").unwrap();
        let error = file.edit(&Edit::Remove(vec!["prod".parse().unwrap()])).unwrap_err();
        assert!(matches!(error, ConfigError::Changed { .. }), "{error}");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "# other\n");
    }

    #[test]
    fn a_change_that_makes_no_sense_is_not_written() {
        let (_folder, mut file) = file_with(TEXT);
        file.edit(&Edit::Put("prod".parse().unwrap(), url("ftp://cpd.example.com"))).unwrap_err();
        assert_eq!(fs::read_to_string(file.path()).unwrap(), TEXT);
    }

    #[test]
    fn removing_the_default_profile_leaves_no_default() {
        let (_folder, mut file) = file_with(TEXT);
        let config = file.edit(&Edit::Remove(vec!["prod".parse().unwrap()])).unwrap();
        assert!(config.profiles.is_empty() && config.default.is_none());
        assert!(fs::read_to_string(file.path()).unwrap().starts_with("# mine"), "comments stay");
    }
}

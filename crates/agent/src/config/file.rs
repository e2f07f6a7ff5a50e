//! The configuration file, which only the agent writes: under a lock, keeping comments, and never
//! over a change that it has not seen.

use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use dph_agent_protocol::{ErrorCode, Settings};
use toml_edit::{DocumentMut, InlineTable, Item, Table, TableLike, value};

use super::file_only::stale;
use super::profile::{Profile, SettingError};
use super::read::{self, Fault, PROFILE_KEYS};
use super::{Config, ProfileName};
use crate::error::{Chain, Problem};
use crate::paths::Paths;
use crate::private_file;

/// The longest configuration that is read.
const MAX_LEN: usize = 1024 * 1024;
/// What some editors put before the text.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The file on disk and what was last read from it.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    /// Somebody named the file: without it there is no configuration, instead of an empty one.
    named: bool,
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

impl ConfigError {
    /// Returns the next step.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Changed { .. } => "let the agent read it (SIGHUP), then try again",
            Self::Faults { .. } => "mend the file: `dph-agent check-config` names every fault",
            Self::Read { source, .. } if source.kind() == ErrorKind::NotFound => {
                "create the file, or name the right one with --config or DPH_AGENT_CONFIG"
            }
            Self::Write { source, .. } if source.kind() == ErrorKind::TimedOut => {
                "try again when the other process is done with the file"
            }
            Self::Read { .. } | Self::Write { .. } => "look at the owner and mode of the file and its folder",
        }
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorCode::CONFIG, Chain(&error).to_string(), error.hint())
    }
}

impl ConfigFile {
    /// Names the file; nothing is read yet.
    pub fn of(paths: &Paths) -> Self {
        Self { path: paths.config.clone(), named: paths.named, text: String::new() }
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file; a missing one is an empty one, unless somebody named it.
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
        read::settings(&self.text).remove(name.as_str()).unwrap_or_default().0
    }

    /// Returns the profile that the file would have with these settings.
    ///
    /// # Errors
    ///
    /// When they make no sense, alone or with what only the file says of it.
    pub fn profile_with(&self, name: &ProfileName, settings: &Settings) -> Result<Profile, SettingError> {
        let (before, more) = read::settings(&self.text).remove(name.as_str()).unwrap_or_default();
        Profile::build(name.clone(), settings)?.with(more.after(&before, settings))
    }

    /// Changes the file and returns what it says then.
    ///
    /// # Errors
    ///
    /// When it has changed underneath or cannot be written; the file is as it was then.
    pub fn edit(&mut self, edit: &Edit) -> Result<Config, ConfigError> {
        let write_error = |source| ConfigError::Write { path: self.path.clone(), source };
        private_file::create_folder_of(&self.path).map_err(write_error)?;
        let _lock = private_file::lock(&self.path.with_extension("toml.lock")).map_err(write_error)?;
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
        let text = private_file::read_regular(&self.path, MAX_LEN)
            .and_then(|text| String::from_utf8(text).map_err(|error| io::Error::other(error.utf8_error())));
        match text {
            Err(error) if error.kind() == ErrorKind::NotFound && !self.named => Ok(String::new()),
            text => text.map_err(|source| ConfigError::Read { path: self.path.clone(), source }),
        }
    }

    fn parse(&self, text: &str) -> Result<Config, ConfigError> {
        read::parse(text).map_err(|faults| ConfigError::Faults { path: self.path.clone(), faults })
    }
}

/// Returns the text after a change. The comments at its top are the file's own: they stay there,
/// whatever comes or goes below. So do the marks of other editors, which the parser would drop.
fn edited(text: &str, edit: &Edit) -> String {
    let (mark, unmarked) =
        text.strip_prefix(BYTE_ORDER_MARK).map_or(("", text), |rest| (BYTE_ORDER_MARK, rest));
    let lines = unmarked.replace("\r\n", "\n");
    let (header, rest) = split_header(&lines);
    let gap = if header.is_empty() || !rest.is_empty() { "" } else { "\n\n" };
    // The text was read and parsed before, so that this cannot fail.
    let mut document = rest.parse::<DocumentMut>().unwrap_or_default();
    match edit {
        Edit::Put(name, settings) => {
            let (before, _) = read::settings(unmarked).remove(name.as_str()).unwrap_or_default();
            put(&mut document, name, &before, settings);
        }
        Edit::Remove(names) => names.iter().for_each(|name| remove(&mut document, name)),
        Edit::Default(name) => set(document.as_table_mut(), "default-profile", name.as_str()),
    }
    let lines = format!("{mark}{}{gap}{document}", if gap.is_empty() { header } else { header.trim_end() });
    if unmarked.contains("\r\n") { lines.replace('\n', "\r\n") } else { lines }
}

/// Splits off the comments at the top, as far as an empty line sets them apart from what follows, if any does.
fn split_header(text: &str) -> (&str, &str) {
    let is_above = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let above: usize = text.split_inclusive('\n').take_while(is_above).map(str::len).sum();
    let (above, _) = text.split_at(above);
    text.split_at(above.rfind("\n\n").map_or(above.len(), |at| at + 1))
}

fn put(document: &mut DocumentMut, name: &ProfileName, before: &Settings, settings: &Settings) {
    let profiles = document.entry("profiles").or_insert_with(implicit_table);
    let new = if profiles.is_inline_table() { value(InlineTable::new()) } else { Item::Table(Table::new()) };
    let Some(profiles) = profiles.as_table_like_mut() else { return };
    let Some(profile) = profiles.entry(name.as_str()).or_insert(new).as_table_like_mut() else { return };
    for key in stale(before, settings) {
        profile.remove(key);
    }
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
fn set(table: &mut dyn TableLike, key: &str, text: &str) {
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
    remove_profile(document, name);
    if document.get("default-profile").and_then(Item::as_str) == Some(name.as_str()) {
        remove_default(document);
    }
}

/// Comments that an empty line sets apart from the profile below them are not about it, and stay.
fn remove_profile(document: &mut DocumentMut, name: &ProfileName) {
    let Some(profiles) = document.get_mut("profiles").and_then(Item::as_table_like_mut) else { return };
    let Some(Item::Table(gone)) = profiles.remove(name.as_str()) else { return };
    let Some((above, _its_own)) = prefix(&gone).rsplit_once("\n\n") else { return };
    let tables = profiles.iter_mut().filter_map(|(_, profile)| profile.as_table_mut());
    match tables.filter(|next| next.position() > gone.position()).min_by_key(|next| next.position()) {
        _ if above.trim().is_empty() => {}
        Some(next) => {
            let both = format!("{above}\n{}", prefix(next));
            next.decor_mut().set_prefix(both);
        }
        None => {
            let both = format!("{above}\n{}", document.trailing().as_str().unwrap_or_default());
            document.set_trailing(both);
        }
    }
}

fn prefix(table: &Table) -> &str {
    table.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default()
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
    use std::fs;

    use super::*;

    const TEXT: &str = "# mine\ndefault-profile = \"prod\"\n\n[profiles.prod] # the cluster\nplatform = \"software-hub\"\n\
                        url = \"https://cpd.example.com\" # production\nusername = \"alice\"\n";

    fn file_with(text: &str) -> (tempfile::TempDir, ConfigFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, text).unwrap();
        let mut file = ConfigFile { path, named: false, text: String::new() };
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
    fn a_change_keeps_the_policy_which_no_command_sets() {
        let text = format!(
            "{TEXT}allow = [\"/usr/bin/python3\"] # jobs\nconfirm = true\nconfirm-timeout = \"5m\"\n"
        );
        let edit = Edit::Put("prod".parse().unwrap(), url("https://new.example.com"));
        let after = changed(&text, &edit);
        assert_eq!(after, text.replace("https://cpd.example.com", "https://new.example.com"));
        assert!(read::parse(&after).unwrap().policies["prod"].allow.is_some());
        assert!(!changed(&text, &removal("prod")).contains("allow"));
    }

    #[test]
    fn a_change_keeps_what_only_the_file_says_unless_it_became_meaningless() {
        let with_source = |source: &str| {
            Box::new(Settings { key_source: Some(source.to_owned()), ..*url("https://cpd.example.com") })
        };
        let text = format!("{TEXT}key-source = 'command:[\"show\"]'\nkey-store = [\"keep\"] # by me\n");
        let put = |settings| changed(&text, &Edit::Put("prod".parse().unwrap(), settings));
        assert!(put(with_source("command:[\"show\"]")).contains("key-store = [\"keep\"] # by me\n"));
        for other in ["session", "command:[\"other\"]"] {
            let after = put(with_source(other));
            assert!(!after.contains("key-store"), "{after}");
            let (_folder, file) = file_with(&text);
            let name = "prod".parse().unwrap();
            let told = file.profile_with(&name, &with_source(other)).unwrap();
            assert_eq!(*read::parse(&after).unwrap().profiles["prod"], told, "as it was told before");
        }
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

    const TWO: &str = "# mine\n\n# the first\n[profiles.a]\nplatform = \"ibm-cloud\"\nurl = \"https://a.example.com\"\n\n\
                       # others\n\n# the second\n[profiles.b]\nplatform = \"ibm-cloud\"\nurl = \"https://b.example.com\"\n";

    /// Returns the text after a change, as it is in the file.
    fn changed(text: &str, edit: &Edit) -> String {
        let (_folder, mut file) = file_with(text);
        file.edit(edit).unwrap();
        fs::read_to_string(file.path()).unwrap()
    }

    fn removal(name: &str) -> Edit {
        Edit::Remove(vec![name.parse().unwrap()])
    }

    #[test]
    fn removing_a_profile_keeps_the_comments_that_are_not_its_own() {
        let without_first = changed(TWO, &removal("a"));
        assert!(
            without_first.starts_with("# mine\n\n# others\n\n# the second\n[profiles.b]"),
            "{without_first}"
        );
        let without_second = changed(TWO, &removal("b"));
        assert!(without_second.starts_with("# mine\n\n# the first\n[profiles.a]"), "{without_second}");
        assert!(without_second.ends_with("a.example.com\"\n\n# others\n"), "{without_second}");
        let both = Edit::Remove(vec!["a".parse().unwrap(), "b".parse().unwrap()]);
        assert!(changed(TWO, &both).starts_with("# mine\n"));
    }

    #[test]
    fn a_new_default_goes_below_the_files_own_comment() {
        let text = changed(TWO, &Edit::Default("a".parse().unwrap()));
        assert_eq!(text, TWO.replacen("# mine\n", "# mine\ndefault-profile = \"a\"\n", 1));
        assert_eq!(changed(&text, &Edit::Default("b".parse().unwrap())), text.replace("= \"a\"", "= \"b\""));
    }

    #[test]
    fn a_first_profile_goes_below_the_comments_that_are_there() {
        let text = changed("# mine", &Edit::Put("prod".parse().unwrap(), url("https://cpd.example.com")));
        assert!(text.starts_with("# mine\n\n[profiles.prod]\n"), "{text}");
    }

    #[test]
    fn line_ends_and_byte_order_mark_stay_as_they_are() {
        let windows = format!("\u{feff}{}", TWO.replace('\n', "\r\n"));
        let text = changed(&windows, &Edit::Default("a".parse().unwrap()));
        assert_eq!(text, windows.replacen("# mine\r\n", "# mine\r\ndefault-profile = \"a\"\r\n", 1));
    }

    #[test]
    fn inline_tables_are_read_and_changed() {
        let text = "profiles = { a = { platform = \"ibm-cloud\", url = \"https://a.example.com\" } }\n";
        let text = changed(text, &Edit::Put("b".parse().unwrap(), url("https://b.example.com")));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(read::parse(&text).unwrap().profiles.contains_key("b"));
        assert!(!read::parse(&changed(&text, &removal("b"))).unwrap().profiles.contains_key("b"));
    }

    #[test]
    fn a_named_file_has_to_be_there() {
        let (_folder, mut file) = file_with("");
        fs::remove_file(file.path()).unwrap();
        assert!(file.load().unwrap().profiles.is_empty());
        file.named = true;
        assert!(file.load().unwrap_err().hint().starts_with("create the file"));
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_in_the_files_place_is_refused_without_waiting() {
        use rustix::fs::{CWD, Mode, mkfifoat};
        let (_folder, mut file) = file_with("");
        fs::remove_file(file.path()).unwrap();
        mkfifoat(CWD, file.path(), Mode::RUSR | Mode::WUSR).unwrap();
        assert!(Chain(&file.load().unwrap_err()).to_string().contains("it is not a regular file"));
    }
}

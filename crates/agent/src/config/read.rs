//! From the text of `config.toml` to a [`Config`], or to every fault in it with its place.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use dph_agent_protocol::{PlatformKind, RefreshMode, Settings};
use dph_agent_secret::SecretMemory;
use toml_edit::{Document, Item, TableLike};

use crate::audit::Mode;
use crate::lock::{AutoLock, LOCK_ON_SCREEN_LOCK, LOCK_ON_SUSPEND, LockOn};
use crate::policy::Policy;

use super::Config;
use super::file_only::{FILE_ONLY_KEYS, FileOnly};
use super::policy::POLICY_KEYS;
use super::profile::{Profile, ProfileName, SettingError};

const TOP_KEYS: &[&str] = &[
    "default-profile",
    "allow-uid",
    "idle-lock",
    "max-unlocked",
    LOCK_ON_SUSPEND,
    LOCK_ON_SCREEN_LOCK,
    "secret-memory",
    "audit",
    "profiles",
];

/// The keys of a profile, in the order in which they are written.
pub(super) const PROFILE_KEYS: &[&str] = &[
    "platform",
    "url",
    "auth-url",
    "username",
    "scope",
    "ca-file",
    "tls-pin",
    "proxy",
    "key-source",
    "refresh",
];

/// Longest unknown key that is repeated.
const MAX_WORD: usize = 24;

type Profiles = BTreeMap<ProfileName, Arc<Profile>>;
type Policies = BTreeMap<ProfileName, Arc<Policy>>;

/// Something wrong in the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

/// Reads a configuration. What is wrong is told by its place and never repeated: it may be a key that was pasted
/// there by mistake.
///
/// # Errors
///
/// Everything that is wrong with it, in the order of the text.
pub fn parse(text: &str) -> Result<Config, Vec<Fault>> {
    let mut reader = Reader { text, faults: Vec::new() };
    let config = match Document::parse(text) {
        Ok(document) => reader.config(document.as_table()),
        Err(error) => {
            reader.fault(error.span(), error.message().to_owned());
            Config::default()
        }
    };
    reader.faults.sort_by_key(|fault| (fault.line, fault.column));
    if reader.faults.is_empty() { Ok(config) } else { Err(reader.faults) }
}

/// Returns the settings of each profile in `text`, and what only the file says of it, as far as they can be read.
pub(super) fn settings(text: &str) -> BTreeMap<String, (Settings, FileOnly)> {
    let mut reader = Reader { text, faults: Vec::new() };
    let Ok(document) = Document::parse(text) else { return BTreeMap::new() };
    let profiles = document.as_table().get("profiles").and_then(Item::as_table_like);
    let tables = profiles.into_iter().flat_map(|profiles| profiles.iter());
    tables
        .filter_map(|(name, item)| {
            let table = item.as_table_like()?;
            Some((name.to_owned(), (reader.settings(table), reader.file_only(table))))
        })
        .collect()
}

pub(super) struct Reader<'a> {
    text: &'a str,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn config(&mut self, top: &dyn TableLike) -> Config {
        self.unknown_keys(top, TOP_KEYS);
        let (profiles, policies) = self.profiles(top);
        let default = self.string(top, "default-profile").and_then(|name| {
            let known = profiles.keys().find(|known| known.as_str() == name).cloned();
            if known.is_none() {
                self.fault(
                    span(top, "default-profile"),
                    "`default-profile` names none of this file's profiles".to_owned(),
                );
            }
            known
        });
        let auto_lock = AutoLock {
            idle: self.duration(top, "idle-lock"),
            max_unlocked: self.duration(top, "max-unlocked"),
            on: LockOn {
                suspend: self.flag(top, LOCK_ON_SUSPEND),
                screen_lock: self.flag(top, LOCK_ON_SCREEN_LOCK),
            },
        };
        let audit = self.word(top, "audit", Mode::ALL, |mode| Some(mode.word())).unwrap_or_default();
        let memories = [SecretMemory::Auto, SecretMemory::Memfd, SecretMemory::Encrypted];
        let secret_memory = self.word(top, "secret-memory", &memories, |it| Some(it.as_str()));
        Config {
            default,
            allow_uid: self.allow_uid(top),
            auto_lock,
            audit,
            secret_memory: secret_memory.unwrap_or_default(),
            profiles,
            policies,
        }
    }

    fn profiles(&mut self, top: &dyn TableLike) -> (Profiles, Policies) {
        let (mut profiles, mut policies) = (Profiles::new(), Policies::new());
        let Some(item) = top.get("profiles") else { return (profiles, policies) };
        let Some(tables) = item.as_table_like() else {
            self.fault(span(top, "profiles"), "write each profile as a table: [profiles.NAME]".to_owned());
            return (profiles, policies);
        };
        for (name, item) in tables.iter() {
            let place = span(tables, name);
            let Some(table) = item.as_table_like() else {
                self.fault(place, "write the profile as a table: [profiles.NAME]".to_owned());
                continue;
            };
            let policy = self.policy(table);
            if let Some(profile) = self.profile(name, place, table) {
                policies.extend(policy.map(|policy| (profile.name.clone(), Arc::new(policy))));
                profiles.insert(profile.name.clone(), Arc::new(profile));
            }
        }
        (profiles, policies)
    }

    fn profile(&mut self, name: &str, place: Option<Range<usize>>, table: &dyn TableLike) -> Option<Profile> {
        self.unknown_keys(table, &[PROFILE_KEYS, POLICY_KEYS, FILE_ONLY_KEYS].concat());
        let before = self.faults.len();
        let (settings, more) = (self.settings(table), self.file_only(table));
        if self.faults.len() > before {
            return None;
        }
        let valid: Result<ProfileName, SettingError> = name.parse();
        let valid = valid.map_err(|error| self.fault(place.clone(), error.to_string())).ok()?;
        let built = Profile::build(valid, &settings).and_then(|profile| profile.with(more));
        built
            .map_err(|error: SettingError| {
                self.fault(span(table, error.key).or(place), format!("profile `{name}`: {error}"));
            })
            .ok()
    }

    fn settings(&mut self, table: &dyn TableLike) -> Settings {
        Settings {
            platform: self.word(table, "platform", PlatformKind::ALL, PlatformKind::word),
            url: self.string(table, "url"),
            auth_url: self.string(table, "auth-url"),
            username: self.string(table, "username"),
            scope: self.string(table, "scope"),
            ca_file: self.string(table, "ca-file"),
            tls_pin: self.string(table, "tls-pin"),
            proxy: self.string(table, "proxy"),
            key_source: self.string(table, "key-source"),
            refresh: self.word(table, "refresh", RefreshMode::ALL, RefreshMode::word),
        }
    }

    pub(super) fn string(&mut self, table: &dyn TableLike, key: &str) -> Option<String> {
        let item = table.get(key)?;
        let text = item.as_str().map(str::to_owned);
        if text.is_none() {
            self.fault(
                item.span(),
                format!("`{key}` takes a text in quotation marks, not {}", item.type_name()),
            );
        }
        text
    }

    fn word<T: Copy>(
        &mut self,
        table: &dyn TableLike,
        key: &str,
        all: &[T],
        word: impl Fn(T) -> Option<&'static str>,
    ) -> Option<T> {
        let text = self.string(table, key)?;
        let found = all.iter().copied().find(|item| word(*item) == Some(text.as_str()));
        if found.is_none() {
            let words: Vec<_> = all.iter().filter_map(|item| word(*item)).collect();
            self.fault(span_of_value(table, key), format!("`{key}` is one of {}", words.join(", ")));
        }
        found
    }

    pub(super) fn flag(&mut self, table: &dyn TableLike, key: &str) -> bool {
        let Some(item) = table.get(key) else { return false };
        item.as_bool().unwrap_or_else(|| {
            self.fault(item.span(), format!("`{key}` is true or false, not {}", item.type_name()));
            false
        })
    }

    pub(super) fn duration(&mut self, table: &dyn TableLike, key: &str) -> Option<Duration> {
        let text = self.string(table, key)?;
        let duration = parse_duration(&text).filter(|duration| !duration.is_zero());
        if duration.is_none() {
            self.fault(
                span_of_value(table, key),
                format!("`{key}` takes a time such as \"90s\", \"15m\" or \"1h30m\""),
            );
        }
        duration
    }

    fn allow_uid(&mut self, top: &dyn TableLike) -> Vec<u32> {
        let Some(item) = top.get("allow-uid") else { return Vec::new() };
        let numbers = item.as_array().map(|array| {
            array.iter().map(|value| value.as_integer().and_then(|uid| u32::try_from(uid).ok())).collect()
        });
        numbers
            .unwrap_or_else(|| {
                self.fault(
                    item.span(),
                    "`allow-uid` takes a list of user numbers, such as [1001]".to_owned(),
                );
                Some(Vec::new())
            })
            .unwrap_or_else(|| {
                self.fault(item.span(), "`allow-uid` holds something that is not a user number".to_owned());
                Vec::new()
            })
    }

    fn unknown_keys(&mut self, table: &dyn TableLike, known: &[&str]) {
        for (key, _) in table.iter() {
            if !known.contains(&key) {
                let named =
                    if is_a_word(key) { format!("unknown key `{key}`") } else { "unknown key".to_owned() };
                self.fault(span(table, key), named + &nearest(key, known));
            }
        }
    }

    pub(super) fn fault(&mut self, place: Option<Range<usize>>, message: String) {
        let before = place.and_then(|place| self.text.get(..place.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        self.faults.push(Fault { line, column, message });
    }
}

fn span(table: &dyn TableLike, key: &str) -> Option<Range<usize>> {
    table.key(key).and_then(toml_edit::Key::span)
}

pub(super) fn span_of_value(table: &dyn TableLike, key: &str) -> Option<Range<usize>> {
    table.get(key).and_then(Item::span)
}

/// Whether a key of the file can be repeated: an API key that was pasted alone on a line is no such word.
fn is_a_word(key: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || matches!(b, b'-' | b'_');
    key.len() <= MAX_WORD && key.bytes().all(is_plain)
}

/// Returns `; did you mean …?` where a known name is near.
fn nearest(key: &str, known: &[&str]) -> String {
    let best = known.iter().min_by_key(|name| strsim::damerau_levenshtein(key, name));
    match best.filter(|name| strsim::damerau_levenshtein(key, name) <= 1 + name.len() / 4) {
        Some(name) => format!("; did you mean `{name}`?"),
        None => format!("; known here: {}", known.join(", ")),
    }
}

/// Reads `90`, `90s`, `5m` or `1h30m`.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        let mut behind = behind.chars();
        let seconds = match behind.next() {
            None if total == 0 => 1,
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            None | Some(_) => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(seconds)?)?;
        rest = behind.as_str();
    }
    (!text.is_empty()).then_some(Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automatic_locks_are_times_and_nothing_else() {
        let config = parse("idle-lock = \"1h30m\"\nmax-unlocked = \"90\"").unwrap();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(
            config.auto_lock,
            AutoLock { idle: seconds(5400), max_unlocked: seconds(90), on: LockOn::default() }
        );
        for wrong in ["\"\"", "\"0\"", "\"m\"", "\"5 m\"", "\"5d\"", "\"1m5\"", "5"] {
            assert!(parse(&format!("idle-lock = {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_audit_log_is_on_unless_the_file_says_otherwise() {
        let mode = |text: &str| parse(text).map(|config| config.audit);
        assert_eq!(mode(""), Ok(Mode::On));
        assert_eq!(mode("audit = \"required\""), Ok(Mode::Required));
        assert_eq!(mode("audit = \"off\""), Ok(Mode::Off));
        let faults = mode("audit = \"yes\"").unwrap_err();
        assert!(faults[0].message.contains("one of on, required, off"), "{faults:?}");
    }

    #[test]
    fn what_locks_the_agent_is_true_or_false_and_off_by_default() {
        let on = |text: &str| parse(text).unwrap().auto_lock.on;
        assert!(on("").is_nothing());
        assert_eq!(on("lock-on-suspend = true"), LockOn { suspend: true, screen_lock: false });
        assert_eq!(on("lock-on-screen-lock = true").keys(), "lock-on-screen-lock");
        assert_eq!(
            faults("lock-on-suspend = \"yes\""),
            ["line 1, column 19: `lock-on-suspend` is true or false, not string"]
        );
    }

    const GOOD: &str = "[profiles.prod]\nplatform = \"software-hub\"\nurl = \"https://cpd.example.com\"\nusername = \"alice\"\n";

    fn faults(text: &str) -> Vec<String> {
        parse(text).unwrap_err().iter().map(Fault::to_string).collect()
    }

    #[test]
    fn a_profile_is_read_with_its_defaults() {
        let config = parse(GOOD).unwrap();
        let profile = &config.profiles["prod"];
        assert_eq!(profile.auth_url, profile.url);
        assert!(!profile.always_fresh);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_place_and_the_nearest_known_one() {
        let text = format!("{GOOD}auth_url = \"https://x.example\"\n");
        assert_eq!(faults(&text), ["line 5, column 1: unknown key `auth_url`; did you mean `auth-url`?"]);
    }

    #[test]
    fn every_fault_is_told_in_the_order_of_the_text() {
        let text = "default-profile = \"dev\"\n[profiles.prod]\nplatform = \"hub\"\nurl = 3\n";
        let faults = faults(text);
        assert!(faults[0].starts_with("line 1, column 1: `default-profile` names none"), "{faults:?}");
        assert!(faults[1].starts_with("line 3, column 12: `platform` is one of software-hub"), "{faults:?}");
        assert!(faults[2].starts_with("line 4, column 7: `url` takes a text"), "{faults:?}");
    }

    #[test]
    fn secret_memory_is_one_of_three_words() {
        assert_eq!(parse("").unwrap().secret_memory, SecretMemory::Auto);
        for memory in [SecretMemory::Auto, SecretMemory::Memfd, SecretMemory::Encrypted] {
            let config = parse(&format!("secret-memory = \"{}\"", memory.as_str())).unwrap();
            assert_eq!(config.secret_memory, memory);
        }
        let told = "line 1, column 17: `secret-memory` is one of auto, memfd, encrypted";
        assert_eq!(faults("secret-memory = \"swap\""), [told]);
    }

    #[test]
    fn a_key_that_was_pasted_in_any_place_is_not_repeated() {
        const KEY: &str = "aB3_k3y-of-alice-0123456789-abcdefghijkl";
        let of_profile = ["platform", "scope", "ca-file", "tls-pin", "key-source"];
        let of_profile =
            of_profile.into_iter().chain(["refresh", "allow", "confirm", "confirm-timeout", "allow-zen"]);
        let of_profile = of_profile.chain(["instance-id", "key-store", "rotate-every", "sole-user", KEY]);
        let texts = of_profile.map(|key| {
            let others: String = GOOD
                .lines()
                .filter(|line| !line.starts_with(&format!("{key} ")))
                .fold(String::new(), |text, line| text + line + "\n");
            format!("{others}{key} = \"{KEY} \"\n")
        });
        let of_agent = TOP_KEYS.iter().map(|key| format!("{key} = \"{KEY}\"\n{GOOD}"));
        let broken = [
            "KEY",
            "KEY = 1",
            "KEY = 1\nKEY = 1",
            "url = KEY",
            "[KEY",
            "\"KEY",
            "[profiles.'KEY !']",
            "[profiles]\nKEY = 1\nb = \"KEY\"",
        ];
        let broken = broken.map(|text| text.replace("KEY", KEY));
        for text in texts.chain(of_agent).chain(broken) {
            let faults = faults(&text);
            assert!(!faults.is_empty() && !faults.concat().contains(KEY), "{text}: {faults:?}");
        }
    }

    #[test]
    fn a_missing_setting_is_told_at_its_profile() {
        let faults =
            faults("[profiles.prod]\nplatform = \"software-hub\"\nurl = \"https://cpd.example.com\"\n");
        assert!(
            faults[0].starts_with("line 1, column 11: profile `prod`: `username`: missing"),
            "{faults:?}"
        );
    }

    #[test]
    fn broken_toml_is_told_with_its_place() {
        assert!(
            faults("[profiles.prod\n")[0].starts_with("line 1, column 15"),
            "{:?}",
            faults("[profiles.prod\n")
        );
    }
}

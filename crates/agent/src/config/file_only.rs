//! The keys of a profile that only the file has: no command changes them, and they are never on the wire.

use std::time::Duration;

use dph_agent_platform::{BaseUrl, InstanceId, InstanceIdError, Kind};
use dph_agent_protocol::Settings;
use toml_edit::{Item, TableLike};

use super::profile::{Profile, SettingError};
use super::read::{Reader, span_of_value};
use crate::key_source::KeySource;

const ALLOW_ZEN: &str = "allow-zen";
const INSTANCE_ID: &str = "instance-id";
const KEY_STORE: &str = "key-store";
const ROTATE_EVERY: &str = "rotate-every";
const SOLE_USER: &str = "sole-user";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// These keys, in a profile's table.
pub(super) const FILE_ONLY_KEYS: &[&str] = &[ALLOW_ZEN, INSTANCE_ID, KEY_STORE, ROTATE_EVERY, SOLE_USER];

/// What they say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FileOnly {
    /// Whether the key itself may be handed out.
    allow_zen: bool,
    /// The service instance that tokens are for.
    instance: Option<InstanceId>,
    /// The program that a new key is given to, with its arguments.
    key_store: Option<Vec<String>>,
    /// How old a key becomes before it is replaced.
    rotate_every: Option<Duration>,
    /// Nobody else uses the key.
    sole_user: bool,
}

impl Profile {
    /// Returns the profile with what only the file says of it.
    ///
    /// # Errors
    ///
    /// The first key that does not go with the others.
    pub(super) fn with(mut self, more: FileOnly) -> Result<Self, SettingError> {
        (self.allow_zen, self.key_store) = (more.allow_zen, more.key_store);
        if self.allow_zen && !matches!(self.kind, Kind::SoftwareHub { .. }) {
            return Err(SettingError::new(
                ALLOW_ZEN,
                "only software-hub has ZenApiKey headers: leave it out",
            ));
        }
        match (&mut self.kind, more.instance) {
            (Kind::SoftwareHub { instance, .. }, told) => *instance = told,
            (Kind::IbmCloud | Kind::Mcsp { .. }, None) => {}
            (Kind::IbmCloud | Kind::Mcsp { .. }, Some(_)) => {
                let message = "only software-hub has service instances: leave it out";
                return Err(SettingError::new(INSTANCE_ID, message));
            }
        }
        if self.key_store.is_some() && !matches!(self.key_source, KeySource::Command(_)) {
            let message = "is for a key-source of command:[…], and this one is another: leave it out";
            return Err(SettingError::new(KEY_STORE, message));
        }
        self.rotate_every = more.rotate_every;
        self.check_rotation(more.sole_user)?;
        Ok(self)
    }

    /// A key that others use, too, must not die under their hands.
    fn check_rotation(&self, sole_user: bool) -> Result<(), SettingError> {
        let refuse = |why: &str| Err(SettingError::new(ROTATE_EVERY, why));
        match (&self.kind, self.rotate_every) {
            (_, None) | (Kind::IbmCloud, Some(_)) => {}
            (Kind::SoftwareHub { instance: None, .. }, Some(_)) if sole_user => {}
            (Kind::SoftwareHub { instance: None, .. }, Some(_)) => {
                return refuse(
                    "a user has one key there, which others may use, too: if nobody does, say `sole-user = true`",
                );
            }
            (Kind::SoftwareHub { .. } | Kind::Mcsp { .. }, Some(_)) => {
                return refuse("the platform has no interface for it: leave it out");
            }
        }
        if self.rotate_every.is_some()
            && !(self.can_store_key() || matches!(self.key_source, KeySource::File(_)))
        {
            return refuse(
                "the key cannot be written where it is read from: use keyring, sealed, a file, or a key-store",
            );
        }
        Ok(())
    }
}

impl FileOnly {
    /// Returns what is left of it when the settings of its profile change.
    pub(super) fn after(mut self, before: &Settings, now: &Settings) -> Self {
        let stale = stale(before, now);
        if stale.contains(&ALLOW_ZEN) {
            self.allow_zen = false;
        }
        if stale.contains(&INSTANCE_ID) {
            self.instance = None;
        }
        if stale.contains(&KEY_STORE) {
            self.key_store = None;
        }
        if stale.contains(&ROTATE_EVERY) {
            (self.rotate_every, self.sole_user) = (None, false);
        }
        self
    }
}

/// Returns the keys that a change of settings makes meaningless.
pub(super) fn stale(before: &Settings, now: &Settings) -> Vec<&'static str> {
    let mut keys = Vec::new();
    if before.platform != now.platform {
        keys.push(ALLOW_ZEN);
    }
    // It was said of another key.
    if before.platform != now.platform || before.key_source != now.key_source {
        keys.extend([ROTATE_EVERY, SOLE_USER]);
    }
    // An instance has its name on one cluster.
    if before.platform != now.platform
        || !is_same_url(before.url.as_deref(), now.url.as_deref())
        || !is_same_url(before.auth_url.as_deref(), now.auth_url.as_deref())
    {
        keys.push(INSTANCE_ID);
    }
    // It kept keys where the old command found them.
    if before.key_source != now.key_source {
        keys.push(KEY_STORE);
    }
    keys
}

/// Whether two URLs are the same, however they are written.
fn is_same_url(before: Option<&str>, now: Option<&str>) -> bool {
    let cleaned = |url: &str| BaseUrl::clean(url).ok().map(|(url, _)| url);
    before == now || before.zip(now).is_some_and(|(before, now)| cleaned(before) == cleaned(now))
}

impl Reader<'_> {
    /// Reads what only the file says of a profile.
    pub(super) fn file_only(&mut self, table: &dyn TableLike) -> FileOnly {
        FileOnly {
            allow_zen: self.flag(table, ALLOW_ZEN),
            instance: self.instance(table),
            key_store: self.key_store(table),
            rotate_every: self.rotate_every(table),
            sole_user: self.flag(table, SOLE_USER),
        }
    }

    fn rotate_every(&mut self, table: &dyn TableLike) -> Option<Duration> {
        let text = self.string(table, ROTATE_EVERY)?;
        let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok()).filter(|days| *days > 0);
        if days.is_none() {
            let message = format!("`{ROTATE_EVERY}` takes whole days such as \"30d\"");
            self.fault(span_of_value(table, ROTATE_EVERY), message);
        }
        days.map(|days| DAY * days)
    }

    fn instance(&mut self, table: &dyn TableLike) -> Option<InstanceId> {
        let id = self.string(table, INSTANCE_ID)?.parse();
        id.map_err(|error: InstanceIdError| {
            self.fault(span_of_value(table, INSTANCE_ID), format!("`{INSTANCE_ID}`: {error}"));
        })
        .ok()
    }

    fn key_store(&mut self, table: &dyn TableLike) -> Option<Vec<String>> {
        let item = table.get(KEY_STORE)?;
        let line = command_line(item).filter(|line| !line.is_empty());
        if line.is_none() {
            let message = "`key-store` takes a program and its arguments as a list, such as [\"pass\",\"insert\",\"-m\",\"-f\",\"dph\"]";
            self.fault(span_of_value(table, KEY_STORE), message.to_owned());
        }
        line
    }
}

fn command_line(item: &Item) -> Option<Vec<String>> {
    item.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use dph_agent_protocol::PlatformKind;

    use super::super::{Fault, parse};
    use super::*;

    const PROFILE: &str = "[profiles.prod]\nplatform = \"ibm-cloud\"\nurl = \"https://dph.example.com\"\n";

    fn profile(keys: &str) -> Result<Profile, Vec<Fault>> {
        parse(&format!("{PROFILE}{keys}")).map(|config| (*config.profiles["prod"]).clone())
    }

    fn fault(keys: &str) -> String {
        profile(keys).unwrap_err().first().unwrap().to_string()
    }

    #[test]
    fn a_program_that_keeps_keys_goes_with_a_command_and_with_no_other_source() {
        let command = "key-source = 'command:[\"pass\",\"show\",\"dph\"]'\n";
        let store = "key-store = [\"pass\", \"insert\"]\n";
        let with = profile(&format!("{command}{store}")).unwrap();
        assert_eq!(with.key_store, Some(vec!["pass".to_owned(), "insert".to_owned()]));
        assert!(with.can_store_key() && !profile(command).unwrap().can_store_key());
        for source in ["", "key-source = \"keyring\"\n", "key-source = \"file:/key\"\n"] {
            let line = 4 + source.lines().count();
            let fault = fault(&format!("{source}{store}"));
            let expected =
                format!("line {line}, column 1: profile `prod`: `key-store`: is for a key-source of");
            assert!(fault.starts_with(&expected), "{fault}");
        }
        for wrong in ["[]", "\"pass\"", "[\"pass\", 1]"] {
            let fault = fault(&format!("{command}key-store = {wrong}\n"));
            assert!(fault.starts_with("line 5, column 13: `key-store` takes a program"), "{fault}");
        }
    }

    #[test]
    fn a_key_is_rotated_by_itself_only_where_that_can_be_and_hurts_nobody() {
        let keyring = "key-source = \"keyring\"\n";
        let every = profile(&format!("{keyring}rotate-every = \"30d\"\n")).unwrap().rotate_every;
        assert_eq!(every, Some(30 * DAY));
        assert!(fault("rotate-every = \"30d\"\n").contains("cannot be written"), "a key in memory");
        for wrong in ["30", "0d", "1h", "-1d", ""] {
            assert!(
                fault(&format!("{keyring}rotate-every = \"{wrong}\"\n")).contains("whole days"),
                "{wrong}"
            );
        }
        let hub = |keys: &str| {
            let text = PROFILE.replace("ibm-cloud\"", "software-hub\"\nusername = \"alice\"");
            parse(&format!("{text}{keyring}rotate-every = \"30d\"\n{keys}")).map(|_| ())
        };
        assert!(hub("").unwrap_err()[0].message.contains("sole-user"));
        assert_eq!(hub("sole-user = true\n"), Ok(()));
    }

    #[test]
    fn a_key_may_be_handed_out_only_where_the_file_says_so_and_the_platform_takes_it() {
        let hub = |keys: &str| {
            let text = PROFILE.replace("ibm-cloud\"", "software-hub\"\nusername = \"alice\"");
            parse(&format!("{text}{keys}")).map(|config| config.profiles["prod"].allow_zen)
        };
        assert_eq!((hub(""), hub("allow-zen = false\n")), (Ok(false), Ok(false)));
        assert_eq!(hub("allow-zen = true\n"), Ok(true));
        assert!(!profile("allow-zen = false\n").unwrap().allow_zen);
        assert!(fault("allow-zen = true\n").contains("`allow-zen`: only software-hub has ZenApiKey headers"));
        assert!(fault("allow-zen = 1\n").contains("`allow-zen` is true or false"));
    }

    #[test]
    fn a_service_instance_is_named_on_software_hub_alone() {
        let hub = PROFILE.replace("ibm-cloud\"", "software-hub\"\nusername = \"alice\"");
        let kind =
            |keys: &str| parse(&format!("{hub}{keys}")).map(|config| config.profiles["prod"].kind.clone());
        let expected = |id: Option<&str>| Kind::SoftwareHub {
            username: "alice".to_owned(),
            instance: id.map(|id| id.parse().unwrap()),
        };
        assert_eq!(kind(""), Ok(expected(None)));
        assert_eq!(kind("instance-id = \"1718282382782782\"\n"), Ok(expected(Some("1718282382782782"))));
        assert!(
            kind("instance-id = \"../x\"\n").unwrap_err()[0]
                .message
                .starts_with("`instance-id`: an instance")
        );
        assert!(fault("instance-id = \"1\"\n").contains("`instance-id`: only software-hub has"));
    }

    #[test]
    fn another_cluster_takes_the_instance_away_and_another_spelling_does_not() {
        let at = |url: &str| Settings { url: Some(url.to_owned()), ..Settings::default() };
        let more = FileOnly { instance: Some("1".parse().unwrap()), ..FileOnly::default() };
        let old = at("https://cpd.example.com/");
        assert_eq!(more.clone().after(&old, &at("https://cpd.example.com")), more);
        let elsewhere = Settings { auth_url: Some("https://b.example.com".to_owned()), ..old.clone() };
        for now in [at("https://b.example.com"), elsewhere] {
            assert_eq!(more.clone().after(&old, &now), FileOnly::default());
        }
    }

    #[test]
    fn another_platform_takes_the_leave_to_hand_out_the_key_away() {
        let on = |platform| Settings { platform: Some(platform), ..Settings::default() };
        let (hub, cloud) = (on(PlatformKind::SOFTWARE_HUB), on(PlatformKind::IBM_CLOUD));
        let more = FileOnly { allow_zen: true, ..FileOnly::default() };
        assert_eq!(
            more.clone().after(&hub, &Settings { proxy: Some("none".to_owned()), ..hub.clone() }),
            more
        );
        assert_eq!(more.after(&hub, &cloud), FileOnly::default());
    }

    #[test]
    fn another_source_makes_the_program_that_keeps_keys_meaningless() {
        let more = FileOnly { key_store: Some(vec!["pass".to_owned()]), ..FileOnly::default() };
        let settings = |source: &str| Settings { key_source: Some(source.to_owned()), ..Settings::default() };
        let same = Settings { proxy: Some("none".to_owned()), ..settings("command:[\"a\"]") };
        assert_eq!(more.clone().after(&settings("command:[\"a\"]"), &same), more);
        assert_eq!(more.after(&same, &settings("command:[\"b\"]")), FileOnly::default());
    }
}

//! What a configuration protects less than the one before it: pure, so that every way to loosen it can be tried.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Config, Profile, ProfileName};
use crate::audit::Mode;
use crate::key_source::KeySource;
use crate::lock::{LOCK_ON_SCREEN_LOCK, LOCK_ON_SUSPEND};
use crate::policy::{Confirm, Policy};

/// What protects less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loosened {
    /// Whose it is; absent: the agent's.
    pub profile: Option<ProfileName>,
    /// The keys of the configuration that say less.
    pub weaker: Vec<&'static str>,
}

/// Returns what `after` protects less than `before`.
pub fn loosened(before: &Config, after: &Config) -> Vec<Loosened> {
    let profiles = after.profiles.values().map(|profile| Loosened {
        profile: Some(profile.name.clone()),
        weaker: weaker_profile(before, after, profile),
    });
    let all = std::iter::once(Loosened { profile: None, weaker: weaker_agent(before, after) });
    all.chain(profiles).filter(|loosened| !loosened.weaker.is_empty()).collect()
}

/// Returns the keys that are weaker, of keys with whether they are.
fn named(keys: impl IntoIterator<Item = (&'static str, bool)>) -> Vec<&'static str> {
    keys.into_iter().filter_map(|(key, is_weaker)| is_weaker.then_some(key)).collect()
}

fn weaker_agent(before: &Config, after: &Config) -> Vec<&'static str> {
    let (was, is) = (before.auto_lock, after.auto_lock);
    named([
        ("allow-uid", after.allow_uid.iter().any(|uid| !before.allow_uid.contains(uid))),
        ("audit", strength(after.audit) < strength(before.audit)),
        ("idle-lock", is_longer(was.idle, is.idle)),
        ("max-unlocked", is_longer(was.max_unlocked, is.max_unlocked)),
        (LOCK_ON_SUSPEND, was.on.suspend && !is.on.suspend),
        (LOCK_ON_SCREEN_LOCK, was.on.screen_lock && !is.on.screen_lock),
    ])
}

fn weaker_profile(before: &Config, after: &Config, profile: &Profile) -> Vec<&'static str> {
    let Some(known) = known_as(before, profile) else {
        // Nothing is known of its key: only what it says more than the default.
        return named([("allow-zen", profile.allow_zen)]);
    };
    let policy = |config: &Config, name| config.policies.get(name).map(Arc::clone);
    let (was, is) = (policy(before, &known.name), policy(after, &profile.name));
    named([
        ("allow", is_wider(was.as_deref(), is.as_deref())),
        ("confirm", is_confirmed_by_others(was.as_deref(), is.as_deref())),
        ("allow-zen", profile.allow_zen && !known.allow_zen),
    ])
}

/// Returns the profile of that name, or else one that reads its key from the same place: a policy does not end with
/// another name.
fn known_as<'a>(before: &'a Config, profile: &Profile) -> Option<&'a Arc<Profile>> {
    let is_same_key = |known: &&Arc<Profile>| {
        let is_own = matches!(known.key_source, KeySource::Session | KeySource::Keyring | KeySource::Sealed);
        !is_own && known.key_source == profile.key_source
    };
    before.profiles.get(&profile.name).or_else(|| before.profiles.values().find(is_same_key))
}

fn is_wider(was: Option<&Policy>, is: Option<&Policy>) -> bool {
    let allow = |policy: Option<&Policy>| -> Option<Vec<PathBuf>> { policy?.allow.clone() };
    match (allow(was), allow(is)) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(was), Some(is)) => is.iter().any(|program| !was.contains(program)),
    }
}

/// Whether somebody answers now who did not before, or nobody is asked any more.
fn is_confirmed_by_others(was: Option<&Policy>, is: Option<&Policy>) -> bool {
    let confirm = |policy: Option<&Policy>| -> Option<Confirm> { policy?.confirm.clone() };
    match (confirm(was), confirm(is)) {
        (None, _) | (Some(_), Some(Confirm::Approve)) => false,
        (was, is) => was != is,
    }
}

/// Whether a limit is gone or longer.
fn is_longer(was: Option<Duration>, is: Option<Duration>) -> bool {
    was.is_some_and(|was| is.is_none_or(|is| is > was))
}

fn strength(mode: Mode) -> u8 {
    match mode {
        Mode::Off => 0,
        Mode::On => 1,
        Mode::Required => 2,
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const PROFILE: &str = "platform = \"software-hub\"\nurl = \"https://cpd.example.com\"\nusername = \"alice\"\nkey-source = \"file:/key\"\n";

    fn config(top: &str, policy: &str) -> Config {
        parse(&format!("{top}\n[profiles.prod]\n{PROFILE}{policy}\n")).unwrap()
    }

    /// Returns what of the agent, or of its profile, is weaker after than before.
    fn agent(before: &str, after: &str) -> Vec<&'static str> {
        told(loosened(&config(before, ""), &config(after, "")), None)
    }

    fn profile(before: &str, after: &str) -> Vec<&'static str> {
        told(loosened(&config("", before), &config("", after)), Some("prod"))
    }

    fn told(all: Vec<Loosened>, whose: Option<&str>) -> Vec<&'static str> {
        let mut all = all.into_iter();
        let Some(Loosened { profile, weaker }) = all.next() else { return Vec::new() };
        assert_eq!((profile.as_ref().map(ProfileName::as_str), all.next()), (whose, None));
        weaker
    }

    #[test]
    fn a_limit_that_is_gone_or_longer_is_weaker_and_a_new_or_shorter_one_is_not() {
        for key in ["idle-lock", "max-unlocked"] {
            let limit = |time: &str| format!("{key} = \"{time}\"");
            assert_eq!(agent(&limit("5m"), &limit("6m")), [key]);
            assert_eq!(agent(&limit("5m"), ""), [key]);
            assert!(agent(&limit("5m"), &limit("4m")).is_empty() && agent("", &limit("5m")).is_empty());
        }
        for key in [LOCK_ON_SUSPEND, LOCK_ON_SCREEN_LOCK] {
            assert_eq!(agent(&format!("{key} = true"), ""), [key]);
            assert!(agent("", &format!("{key} = true")).is_empty());
        }
    }

    #[test]
    fn more_users_and_a_weaker_audit_log_are_told() {
        assert_eq!(agent("allow-uid = [1]", "allow-uid = [2]"), ["allow-uid"]);
        assert!(agent("allow-uid = [1, 2]", "allow-uid = [2]").is_empty());
        assert_eq!(agent("audit = \"required\"", ""), ["audit"]);
        assert_eq!(agent("", "audit = \"off\"\nallow-uid = [1]"), ["allow-uid", "audit"]);
        assert!(agent("audit = \"off\"", "audit = \"required\"").is_empty());
    }

    #[test]
    fn programs_that_are_added_and_a_list_that_is_gone_are_told() {
        let allow = |programs: &str| format!("allow = [{programs}]");
        assert_eq!(profile(&allow("\"/a\""), &allow("\"/a\", \"/b\"")), ["allow"]);
        assert_eq!(profile(&allow("\"/a\""), ""), ["allow"]);
        assert!(profile(&allow("\"/a\", \"/b\""), &allow("\"/b\"")).is_empty());
        assert!(profile("", &allow("\"/a\"")).is_empty());
    }

    #[test]
    fn a_question_that_nobody_or_another_program_puts_is_told() {
        assert_eq!(profile("confirm = true", "confirm = false"), ["confirm"]);
        assert_eq!(profile("confirm = true", "confirm = \"/bin/true\""), ["confirm"]);
        assert_eq!(profile("confirm = \"/a\"", "confirm = \"/b\""), ["confirm"]);
        assert!(profile("confirm = \"/a\"", "confirm = true").is_empty());
        assert!(profile("", "confirm = true").is_empty());
    }

    #[test]
    fn the_key_itself_may_be_handed_out_from_now_on() {
        assert_eq!(profile("", "allow-zen = true"), ["allow-zen"]);
        assert!(profile("allow-zen = true", "").is_empty());
    }

    #[test]
    fn another_name_for_the_same_key_is_no_way_around() {
        let before = config("", "confirm = true");
        let after = parse(&format!("[profiles.other]\n{PROFILE}")).unwrap();
        assert_eq!(told(loosened(&before, &after), Some("other")), ["confirm"]);
        let new = parse(&format!("[profiles.other]\n{}allow-zen = true\n", PROFILE.replace("/key", "/new")));
        assert_eq!(told(loosened(&before, &new.unwrap()), Some("other")), ["allow-zen"]);
    }
}

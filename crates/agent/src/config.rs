//! The configuration: parsed once, valid ever after.

mod file;
mod file_only;
mod loosened;
mod policy;
mod profile;
mod read;

use std::collections::BTreeMap;
use std::sync::Arc;

use dph_agent_protocol::{ErrorCode, Selector};
use dph_agent_secret::SecretMemory;

pub use file::{ConfigError, ConfigFile, Edit};
pub use loosened::{Loosened, loosened};
pub use profile::{Profile, ProfileName, ProxySetting, SettingError, merged};
pub use read::{Fault, parse};

use crate::audit::Mode;
use crate::error::Problem;
use crate::lock::AutoLock;
use crate::policy::Policy;

/// What the configuration file says.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The profile of callers that name none.
    pub default: Option<ProfileName>,
    /// Users whose programs may ask for tokens, besides the agent's own.
    pub allow_uid: Vec<u32>,
    /// When the agent locks by itself.
    pub auto_lock: AutoLock,
    /// How keys lie in memory; in force from the agent's start.
    pub secret_memory: SecretMemory,
    /// What becomes of the audit log.
    pub audit: Mode,
    /// The profiles by name.
    pub profiles: BTreeMap<ProfileName, Arc<Profile>>,
    /// Who may have the tokens of a profile, where not everybody may.
    pub policies: BTreeMap<ProfileName, Arc<Policy>>,
}

impl Config {
    /// Returns the profile that `selector` means.
    ///
    /// # Errors
    ///
    /// When there is no such profile, or several and none is the default.
    pub fn select(&self, selector: &Selector) -> Result<&Arc<Profile>, Problem> {
        match (&selector.profile, &selector.for_url) {
            (Some(name), _) => self.named(name),
            (None, Some(url)) => self.for_url(url),
            (None, None) => self.only(),
        }
    }

    /// Returns the name of the default profile, or of the only one.
    pub fn default_name(&self) -> Option<&ProfileName> {
        let only = || self.profiles.keys().next().filter(|_| self.profiles.len() == 1);
        self.default.as_ref().or_else(only)
    }

    /// Returns the profiles whose keys nothing could bring back if the agent locked by itself without a
    /// passphrase.
    pub fn keys_lost_by_auto_lock(&self) -> Vec<&str> {
        let lost = self.profiles.values().filter(|profile| !profile.key_source.is_readable());
        let lost = lost.filter(|_| self.auto_lock != AutoLock::default());
        lost.map(|profile| profile.name.as_str()).collect()
    }

    fn named(&self, name: &str) -> Result<&Arc<Profile>, Problem> {
        self.profiles.get(name).ok_or_else(|| {
            Problem::new(ErrorCode::NO_SUCH_PROFILE, format!("there is no profile `{name}`"), self.known())
        })
    }

    fn for_url(&self, url: &str) -> Result<&Arc<Profile>, Problem> {
        let origin = dph_agent_platform::BaseUrl::clean(url)
            .map_err(|error| {
                Problem::new(
                    ErrorCode::BAD_REQUEST,
                    format!("--for-url: {error}"),
                    "give a URL such as https://cpd.example.com",
                )
            })?
            .0
            .origin();
        let mut matching = self.profiles.values().filter(|profile| profile.url.origin() == origin);
        match (matching.next(), matching.next()) {
            (Some(profile), None) => Ok(profile),
            (None, _) => Err(Problem::new(
                ErrorCode::NO_SUCH_PROFILE,
                format!("no profile has the URL {origin}"),
                self.known(),
            )),
            (Some(_), Some(_)) => Err(self.ambiguous(&format!("several profiles have the URL {origin}"))),
        }
    }

    fn only(&self) -> Result<&Arc<Profile>, Problem> {
        let profile = self.default_name().and_then(|name| self.profiles.get(name));
        profile.ok_or_else(|| match self.profiles.len() {
            0 => Problem::new(ErrorCode::NO_SUCH_PROFILE, "there is no profile yet", NO_PROFILE_HINT),
            _ => self.ambiguous("there are several profiles and none is the default"),
        })
    }

    fn ambiguous(&self, message: &str) -> Problem {
        let names = self.names();
        Problem::new(ErrorCode::AMBIGUOUS_PROFILE, message, format!("name one with --profile: {names}"))
    }

    fn known(&self) -> String {
        if self.profiles.is_empty() {
            return NO_PROFILE_HINT.to_owned();
        }
        format!("known profiles: {}; another one: dph-agent-client add --profile NAME", self.names())
    }

    fn names(&self) -> String {
        self.profiles.keys().map(ProfileName::as_str).collect::<Vec<_>>().join(", ")
    }
}

const NO_PROFILE_HINT: &str = "hand over a key: dph-agent-client add --help";

//! One profile: a named identity on a platform, with no secret in it.

use std::borrow::Borrow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use dph_agent_platform::{BaseUrl, Fingerprint, Kind, ProxyUrl};
use dph_agent_protocol::{PlatformKind, ProfileEntry, RefreshMode, Settings};

use crate::key_source::KeySource;

/// The name of a profile: 1 to 64 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileName(String);

impl ProfileName {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProfileName {
    type Err = SettingError;

    fn from_str(name: &str) -> Result<Self, SettingError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=64).contains(&name.len()) && name.bytes().all(allowed) {
            return Ok(Self(name.to_owned()));
        }
        Err(SettingError::new("profile", "a profile name is 1 to 64 of the characters A-Z a-z 0-9 . _ -"))
    }
}

impl Borrow<str> for ProfileName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {message}")]
pub struct SettingError {
    /// The key as it stands in the configuration.
    pub key: &'static str,
    /// What is wrong with its value.
    pub message: String,
}

impl SettingError {
    pub(crate) fn new(key: &'static str, message: impl Into<String>) -> Self {
        Self { key, message: message.into() }
    }

    fn of(key: &'static str) -> impl Fn(&dyn fmt::Display) -> Self {
        move |error| Self::new(key, error.to_string())
    }
}

/// A profile whose settings make sense together.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// What it is called.
    pub name: ProfileName,
    /// What kind of platform it is on, and for whom or what it sells tokens there.
    pub kind: Kind,
    /// Where the platform's API is called.
    pub url: BaseUrl,
    /// Where tokens are bought.
    pub auth_url: BaseUrl,
    /// Certificate authorities besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The only certificate that the server may have.
    pub tls_pin: Option<Fingerprint>,
    /// How the platform is reached.
    pub proxy: ProxySetting,
    /// Where the key comes from.
    pub key_source: KeySource,
    /// The program that a new key is given to, with its arguments; its source is a command then.
    pub key_store: Option<Vec<String>>,
    /// Whether the key itself may be handed out, in a `ZenApiKey` header.
    pub allow_zen: bool,
    /// How old the key becomes before it is replaced.
    pub rotate_every: Option<Duration>,
    /// Whether tokens are bought even while nobody asks.
    pub always_fresh: bool,
}

/// How a platform is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxySetting {
    /// As `https_proxy` and `no_proxy` of the agent say.
    Environment,
    /// Directly.
    Direct,
    /// Through this one.
    Url(ProxyUrl),
}

impl Profile {
    /// Builds a profile from its settings; what only the file can say is not in it.
    ///
    /// # Errors
    ///
    /// The first setting that makes no sense, alone or with the others.
    pub fn build(name: ProfileName, settings: &Settings) -> Result<Self, SettingError> {
        let platform = settings
            .platform
            .ok_or_else(|| SettingError::new("platform", "missing: software-hub, ibm-cloud or mcsp"))?;
        let url = settings.url.as_deref().ok_or_else(|| {
            SettingError::new("url", "missing: where the API is called, such as https://cpd.example.com")
        })?;
        let url = BaseUrl::clean(url).map_err(|e| SettingError::of("url")(&e))?.0;
        let kind = kind_of(platform, settings)?;
        Ok(Self {
            auth_url: auth_url(&kind, &url, settings.auth_url.as_deref())?,
            url,
            kind,
            ca_file: settings.ca_file.as_deref().map(absolute).transpose()?,
            tls_pin: optional("tls-pin", settings.tls_pin.as_deref())?,
            proxy: proxy(settings.proxy.as_deref())?,
            key_source: optional("key-source", settings.key_source.as_deref())?.unwrap_or(KeySource::Session),
            key_store: None,
            allow_zen: false,
            rotate_every: None,
            always_fresh: settings.refresh == Some(RefreshMode::ALWAYS),
            name,
        })
    }

    /// Returns the user, where the platform needs a name.
    pub fn username(&self) -> Option<&str> {
        match &self.kind {
            Kind::SoftwareHub { username, .. } => Some(username),
            Kind::IbmCloud | Kind::Mcsp { .. } => None,
        }
    }

    /// Whether it is still the same user at the same platform.
    pub fn is_same_identity(&self, other: &Self) -> bool {
        (&self.kind, &self.url, &self.auth_url) == (&other.kind, &other.url, &other.auth_url)
    }

    /// Whether tokens that were bought for `other` are what would be bought for this.
    pub fn buys_like(&self, other: &Self) -> bool {
        (&self.kind, &self.auth_url, &self.ca_file, &self.tls_pin, &self.proxy, &self.key_source)
            == (&other.kind, &other.auth_url, &other.ca_file, &other.tls_pin, &other.proxy, &other.key_source)
    }

    /// Whether the agent can put a new key where this profile's key is read from.
    pub fn can_store_key(&self) -> bool {
        self.key_source.is_writable() || self.key_store.is_some()
    }

    /// Returns the profile as lists show it.
    pub fn entry(&self) -> ProfileEntry {
        ProfileEntry {
            name: self.name.to_string(),
            platform: self.platform(),
            url: self.url.to_string(),
            username: self.username().map(str::to_owned),
            key_source: self.key_source.kind(),
        }
    }

    /// Returns the number of the platform's kind on the wire.
    pub fn platform(&self) -> PlatformKind {
        match self.kind {
            Kind::SoftwareHub { .. } => PlatformKind::SOFTWARE_HUB,
            Kind::IbmCloud => PlatformKind::IBM_CLOUD,
            Kind::Mcsp { .. } => PlatformKind::MCSP,
        }
    }
}

/// Returns the platform with what it alone needs to know.
fn kind_of(platform: PlatformKind, settings: &Settings) -> Result<Kind, SettingError> {
    let (username, scope) = (settings.username.as_deref(), settings.scope.as_deref());
    if username.is_some() && platform != PlatformKind::SOFTWARE_HUB {
        return Err(SettingError::new(
            "username",
            format!("{platform} knows the user from the key: leave it out"),
        ));
    }
    if scope.is_some() && platform != PlatformKind::MCSP {
        return Err(SettingError::new("scope", "only mcsp has scopes: leave it out"));
    }
    match platform {
        PlatformKind::SOFTWARE_HUB => Ok(Kind::SoftwareHub { username: user(username)?, instance: None }),
        PlatformKind::IBM_CLOUD => Ok(Kind::IbmCloud),
        PlatformKind::MCSP => Ok(Kind::Mcsp { scope: optional("scope", scope)? }),
        other => {
            Err(SettingError::new("platform", format!("`{other}` is not software-hub, ibm-cloud or mcsp")))
        }
    }
}

fn user(name: Option<&str>) -> Result<String, SettingError> {
    match name {
        None | Some("") => {
            Err(SettingError::new("username", "missing: software-hub sells tokens to a named user"))
        }
        Some(name) if name.contains(char::is_control) => {
            Err(SettingError::new("username", "holds a control character"))
        }
        Some(name) => Ok(name.to_owned()),
    }
}

/// Where tokens are bought: as told, else where the platform's documentation says.
fn auth_url(kind: &Kind, url: &BaseUrl, told: Option<&str>) -> Result<BaseUrl, SettingError> {
    let text = match (told, kind) {
        (Some(told), _) => told,
        (None, Kind::SoftwareHub { .. }) => return Ok(url.clone()),
        (None, Kind::IbmCloud) => "https://iam.cloud.ibm.com",
        (None, Kind::Mcsp { .. }) => "https://account-iam.platform.saas.ibm.com",
    };
    BaseUrl::parse(text).map_err(|e| SettingError::of("auth-url")(&e))
}

fn optional<T: FromStr<Err: fmt::Display>>(
    key: &'static str,
    text: Option<&str>,
) -> Result<Option<T>, SettingError> {
    text.map(str::parse).transpose().map_err(|e| SettingError::of(key)(&e))
}

fn absolute(path: &str) -> Result<PathBuf, SettingError> {
    let path = PathBuf::from(path);
    if path.is_absolute() {
        return Ok(path);
    }
    Err(SettingError::new("ca-file", "give the whole path: the agent runs in another folder than you do"))
}

fn proxy(text: Option<&str>) -> Result<ProxySetting, SettingError> {
    match text {
        None => Ok(ProxySetting::Environment),
        Some("none") => Ok(ProxySetting::Direct),
        Some(text) if text.contains('@') => {
            let message = "the configuration holds no secrets: put user and password into https_proxy";
            Err(SettingError::new("proxy", message))
        }
        Some(text) => {
            text.parse().map(ProxySetting::Url).map_err(|_not_a_url: dph_agent_platform::UrlError| {
                SettingError::new("proxy", "give `none` or a URL such as http://proxy:3128")
            })
        }
    }
}

/// Returns the settings of `base` with those that `change` names put over them. What another platform,
/// place or trust makes meaningless goes, unless it is named, too.
pub fn merged(base: &Settings, change: &Settings) -> Settings {
    let text = |over: &Option<String>, under: &Option<String>| over.clone().or_else(|| under.clone());
    let base = without_stale(base.clone(), change);
    Settings {
        platform: change.platform.or(base.platform),
        url: text(&change.url, &base.url),
        auth_url: text(&change.auth_url, &base.auth_url),
        username: text(&change.username, &base.username),
        scope: text(&change.scope, &base.scope),
        ca_file: text(&change.ca_file, &base.ca_file),
        tls_pin: text(&change.tls_pin, &base.tls_pin),
        proxy: text(&change.proxy, &base.proxy),
        key_source: text(&change.key_source, &base.key_source),
        refresh: change.refresh.or(base.refresh),
    }
}

fn without_stale(mut base: Settings, change: &Settings) -> Settings {
    let changed = |over: &Option<String>, under: &Option<String>| over.is_some() && over != under;
    if change.platform.is_some() && change.platform != base.platform {
        (base.auth_url, base.username, base.scope, base.tls_pin) = (None, None, None, None);
    }
    if changed(&change.url, &base.url) {
        (base.auth_url, base.tls_pin) = (None, None);
    }
    if changed(&change.auth_url, &base.auth_url) || changed(&change.ca_file, &base.ca_file) {
        base.tls_pin = None;
    }
    base
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let value =
            |key: &str| pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned());
        let platform = value("platform");
        Settings {
            platform: PlatformKind::ALL.iter().copied().find(|it| it.word() == platform.as_deref()),
            url: value("url"),
            auth_url: value("auth-url"),
            username: value("username"),
            ca_file: value("ca-file"),
            tls_pin: value("tls-pin"),
            key_source: value("key-source"),
            ..Settings::default()
        }
    }

    fn prod() -> Settings {
        settings(&[
            ("platform", "software-hub"),
            ("url", "https://old.example"),
            ("auth-url", "https://auth.old.example"),
            ("username", "alice"),
            ("tls-pin", "sha256:00"),
            ("key-source", "session"),
        ])
    }

    #[test]
    fn a_new_url_takes_the_old_place_of_tokens_and_its_pin_away() {
        let merged = merged(&prod(), &settings(&[("url", "https://new.example")]));
        assert_eq!((merged.auth_url, merged.tls_pin), (None, None));
        assert_eq!(merged.username.as_deref(), Some("alice"));
    }

    #[test]
    fn a_new_platform_takes_the_user_away() {
        let merged = merged(&prod(), &settings(&[("platform", "ibm-cloud")]));
        assert_eq!((merged.auth_url, merged.username), (None, None));
        assert_eq!(merged.url.as_deref(), Some("https://old.example"));
    }

    #[test]
    fn new_authorities_end_a_pin_and_the_same_settings_change_nothing() {
        assert_eq!(merged(&prod(), &settings(&[("ca-file", "/etc/ca.pem")])).tls_pin, None);
        assert_eq!(merged(&prod(), &prod()), prod());
        assert_eq!(merged(&prod(), &Settings::default()), prod());
    }
}

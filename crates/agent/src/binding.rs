//! What a key was given for: the agent sends it nowhere else, whatever the configuration says later.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use dph_agent_platform::{Target, Trust};
use dph_agent_protocol::{ErrorCode, PlatformKind};
use serde::{Deserialize, Serialize};

use crate::config::Profile;
use crate::error::{Chain, Problem};
use crate::private_file;

/// Whom a key may be sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    platform: String,
    origin: String,
    username: Option<String>,
    #[serde(flatten)]
    trust: TrustBinding,
}

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TrustBinding {
    /// This certificate.
    Pin(String),
    /// The system's authorities, and these.
    Roots(BTreeSet<String>),
}

impl Binding {
    /// Returns whom an exchange with `target` would send the key to.
    pub fn of(platform: PlatformKind, target: &Target) -> Self {
        let trust = match &target.trust {
            Trust::Pin(pin) => TrustBinding::Pin(pin.to_string()),
            Trust::Roots { extra } => {
                TrustBinding::Roots(extra.fingerprints().map(|fingerprint| fingerprint.to_string()).collect())
            }
        };
        Self {
            platform: platform.to_string(),
            origin: target.auth_url.origin(),
            username: target.username().map(str::to_owned),
            trust,
        }
    }

    /// Whether a key that was given for this may be sent to `now`: the same place, with no more
    /// authorities believed than before.
    pub fn permits(&self, now: &Self) -> bool {
        let trusted = match (&self.trust, &now.trust) {
            (TrustBinding::Pin(then), TrustBinding::Pin(now)) => then == now,
            (TrustBinding::Roots(then), TrustBinding::Roots(now)) => now.is_subset(then),
            (TrustBinding::Pin(_), TrustBinding::Roots(_))
            | (TrustBinding::Roots(_), TrustBinding::Pin(_)) => false,
        };
        trusted
            && (&self.platform, &self.origin, &self.username) == (&now.platform, &now.origin, &now.username)
    }
}

/// Returns why a key is not sent.
pub fn changed(profile: &Profile) -> Problem {
    let name = &profile.name;
    Problem::new(
        ErrorCode::ORIGIN_CHANGED,
        format!(
            "profile `{name}` now names another platform, user or certificate than the key was given for"
        ),
        format!("if that is right: dph-agent-client add --profile {name}"),
    )
}

/// The bindings of keys that are not handed over but read: by the key source's text, so that neither
/// another profile nor a renamed one sends the same key elsewhere.
#[derive(Debug)]
pub struct Bindings {
    path: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Records {
    bindings: Vec<Record>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    source: String,
    profile: String,
    #[serde(flatten)]
    binding: Binding,
}

impl Bindings {
    /// Names the file in which they are kept.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Checks that the key of `profile` may be sent to `now`. A source that was never used is bound
    /// to its first use, as a container's start is one.
    ///
    /// # Errors
    ///
    /// When it may not, or the record cannot be read or written.
    pub fn check(&self, profile: &Profile, now: &Binding) -> Result<(), Problem> {
        let source = profile.key_source.to_string();
        let records = self.load().map_err(|error| self.unreadable(&error))?;
        let mut known = records.bindings.iter().filter(|record| record.source == source).peekable();
        if known.peek().is_none() {
            return self.record(profile, now);
        }
        if known.any(|record| record.binding.permits(now)) { Ok(()) } else { Err(changed(profile)) }
    }

    /// Binds the key of `profile` to `now`, because the user said so.
    ///
    /// # Errors
    ///
    /// When the record cannot be written.
    pub fn record(&self, profile: &Profile, now: &Binding) -> Result<(), Problem> {
        let (source, name) = (profile.key_source.to_string(), profile.name.to_string());
        self.change(|records| {
            records.retain(|record| (&record.source, &record.profile) != (&source, &name));
            records.push(Record { source, profile: name, binding: now.clone() });
        })
    }

    /// Drops what was recorded for a profile.
    ///
    /// # Errors
    ///
    /// When the record cannot be written.
    pub fn forget(&self, profile: &str) -> Result<(), Problem> {
        self.change(|records| records.retain(|record| record.profile != profile))
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Record>)) -> Result<(), Problem> {
        let write = || -> io::Result<()> {
            private_file::create_folder_of(&self.path)?;
            let lock = private_file::open_or_create(&self.path.with_extension("lock"))?;
            lock.lock()?;
            let mut records = self.load()?;
            change(&mut records.bindings);
            let text = serde_json::to_vec_pretty(&records)?;
            private_file::replace(&self.path, |file| file.write_all(&text))
        };
        write().map_err(|error| self.unreadable(&error))
    }

    fn load(&self) -> io::Result<Records> {
        match fs::read(&self.path) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Records::default()),
            Err(error) => Err(error),
        }
    }

    /// Not knowing whom a key is for, the agent sends it to nobody.
    fn unreadable(&self, error: &io::Error) -> Problem {
        let path: &Path = &self.path;
        Problem::new(
            ErrorCode::CONFIG,
            format!("cannot use `{}`, which says whom keys are for: {}", path.display(), Chain(error)),
            "mend its owner and mode, or move it away and add the keys again",
        )
    }
}

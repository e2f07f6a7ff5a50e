//! One try to replace a key, which may go on from where another one was cut off.
//!
//! IBM Cloud: a user has several keys. A new one is made under a name of its own, proven, put where the old
//! one was, and only then the old one is deleted. What a crash left of it is found by that name.
//!
//! Software Hub: a user has one key, and the call that makes another ends it. Before that call, a token is
//! put aside that can ask once more, in case its answer is lost. That tokens outlive their key is assumed.

mod hub;
mod iam;

use std::sync::Arc;

use dph_agent_platform::{ApiKey, KeyCalls, Target};
use dph_agent_protocol::{ChangeOutcome, ErrorCode, PlatformKind};

use super::journal::Record;
use super::platform::{Bearer, Probe, Works, fingerprint, unsupported};
use super::worker::Halt;
use super::{Report, Tools};
use crate::config::Profile;
use crate::error::Problem;
use crate::exchange::{self, usable_key};
use crate::kept_key::KeptKey;
use crate::key_source::{Found, KeySource};
use crate::seal::SealedPrivate;
use crate::vault::{HeldKey, Install};

/// What a try works on.
struct Rotation<'a> {
    profile: &'a Arc<Profile>,
    target: &'a Target,
    /// The key that is in use.
    key: &'a HeldKey,
    record: &'a mut Record,
    tools: &'a Tools,
}

/// Tries it.
pub(super) async fn attempt(
    profile: &Arc<Profile>,
    held: Option<HeldKey>,
    record: &mut Record,
    tools: &Tools,
) -> Result<Report, Halt> {
    let (target, key) = usable_key(profile, held, &tools.surroundings).await?;
    let mut rotation = Rotation { profile, target: &target, key: &key, record, tools };
    rotation.begin().await?;
    match target.key_calls() {
        KeyCalls::SoftwareHub(calls) => rotation.at_hub(&calls).await,
        KeyCalls::IbmCloud(calls) => rotation.at_iam(&calls).await,
        KeyCalls::None => Err(Halt::Over(unsupported("rotating the key", profile))),
    }
}

/// Refuses what the platform has no interface for, and what could not be kept.
///
/// # Errors
///
/// [`ErrorCode::UNSUPPORTED`] with the steps for the web client, or [`ErrorCode::DENIED`].
pub async fn check(profile: &Profile, target: &Target) -> Result<(), Problem> {
    if matches!(target.key_calls(), KeyCalls::None) {
        return Err(unsupported("rotating the key", profile));
    }
    let source = &profile.key_source;
    match source.can_be_replaced().await.map(|can| can || profile.can_store_key()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(cannot_keep(profile, &format!("a key from {source} can only be read"))),
        Err(error) => Err(cannot_keep(profile, &Problem::from(error).message)),
    }
}

/// Returns what else a user should know who is about to replace a key, a line each.
pub fn notes(profile: &Profile) -> Vec<String> {
    let what = match profile.platform() {
        PlatformKind::SOFTWARE_HUB => {
            "a user has one key there: the old one is dead from the first moment, and whatever else uses it stops \
             working; that tokens outlive it for some moments is an assumption"
        }
        _ => "whatever else uses the old key stops working when the new one is in place",
    };
    vec![what.to_owned(), "tokens that were handed out may stay valid until they end".to_owned()]
}

fn cannot_keep(profile: &Profile, why: &str) -> Problem {
    Problem::new(
        ErrorCode::DENIED,
        format!("the key of profile `{}` cannot be rotated: {why}", profile.name),
        format!(
            "move it to a place that the agent can write: dph-agent-client migrate --profile {} --to keyring, or --to sealed",
            profile.name
        ),
    )
}

impl Rotation<'_> {
    /// Remembers which key is to be replaced, and makes sure that another one can be kept, before anything is sent.
    async fn begin(&mut self) -> Result<(), Halt> {
        if self.record.sent > 0 {
            return Ok(());
        }
        // The configuration may be another one than when it was wished.
        check(self.profile, self.target).await.map_err(Halt::Over)?;
        exchange::agrees(self.profile, self.key, &self.tools.surroundings).await?;
        self.record.key = Some(fingerprint(&self.key.key.expose()));
        Ok(self.save().await?)
    }

    fn probe<'p>(&'p self, key: &'p ApiKey) -> Probe<'p> {
        Probe { target: self.target, key, profile: self.profile, tools: self.tools }
    }

    /// Whether this is the key that was to be replaced.
    fn is_old(&self, key: &ApiKey) -> bool {
        self.record.key.as_ref() == Some(&fingerprint(key))
    }

    /// Returns a key that lies in the source in place of the one in use, for the same, and works.
    async fn newer_in_source(&self, used: &ApiKey) -> Result<Option<ApiKey>, Halt> {
        let Some(found) = self.read_source().await? else { return Ok(None) };
        let is_bound = found.binding.is_none_or(|binding| binding == self.key.binding);
        if found.key == *used || !is_bound {
            return Ok(None);
        }
        match self.probe(&found.key).works().await? {
            Works::Yes(_) => Ok(Some(found.key)),
            Works::No => Ok(None),
        }
    }

    /// Returns what lies in the source. What is sealed is opened by `unlock` alone.
    async fn read_source(&self) -> Result<Option<Found>, Problem> {
        let source = &self.profile.key_source;
        if *source == KeySource::Sealed {
            return Ok(None);
        }
        Ok(source.read(self.profile, &self.tools.surroundings.sealed).await?)
    }

    /// Makes sure that the key in use is the one in its place, where another one may have been written.
    async fn restore(&self) -> Result<(), Problem> {
        let key = self.key.key.expose();
        match self.read_source().await? {
            Some(found) if found.key == key => Ok(()),
            _ => self.keep(&key).await,
        }
    }

    /// Puts the new key where the old one was; until then it is nowhere else than here.
    async fn keep(&self, new: &ApiKey) -> Result<(), Problem> {
        let (_, to) = self.tools.vault.keys_place().await?;
        let (sealed, to) = (&self.tools.surroundings.sealed, to.as_ref().map(SealedPrivate::public));
        let profile = self.profile;
        Ok(profile.key_source.replace(profile, new, &self.key.binding, sealed, to).await?)
    }

    /// Has the vault use the new key from now on, with the token that proves it.
    async fn use_it(&self, new: &ApiKey, proof: Option<Bearer>) -> Result<(), Problem> {
        let key = HeldKey {
            key: Arc::new(KeptKey::new(&self.tools.surroundings.pool, new)?),
            binding: self.key.binding.clone(),
            added_at: self.tools.surroundings.clock.wall(),
            until: None,
            told: None,
        };
        let (profile, bought) = (Arc::clone(self.profile), proof.map(Bearer::into_bought));
        let install = Install { profile, key: Some(key.clone()), bought, exchanges: 1 };
        match self.tools.vault.install(install).await {
            // The old key lies sealed there.
            Err(problem) if problem.code == ErrorCode::LOCKED => {
                self.tools.vault.key_replaced(self.profile.name.clone(), key).await
            }
            installed => installed,
        }
    }

    async fn save(&self) -> Result<(), Problem> {
        self.tools.save(&self.profile.name, self.record).await
    }

    /// Ends a rotation before which another key was made elsewhere: that one is not ours to end.
    fn not_current(&self) -> Halt {
        let name = &self.profile.name;
        Halt::Over(Problem::new(
            ErrorCode::KEY_REFUSED,
            format!(
                "the platform refuses the key of profile `{name}`, so it was not rotated: a newer one may have been made elsewhere"
            ),
            format!("hand the newer one over: dph-agent-client add --profile {name}"),
        ))
    }
}

fn rotated(notes: Vec<String>) -> Report {
    Report { outcome: ChangeOutcome::ROTATED, tokens_until: None, notes }
}

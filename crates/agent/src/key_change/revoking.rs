//! One try to make a key invalid.
//!
//! The key is first proven to be the platform's current one: one that was made elsewhere meanwhile is never
//! ended on the strength of an old token. Each call that changes something is counted on the disk before it
//! is made; whether one whose answer was lost was carried out is told by whether the key still works.

use std::sync::Arc;

use dph_agent_platform::{
    ApiKey, CallError, Deletion, HubKeys, IamKeys, KeyCalls, PlatformError, Target, TokenText,
};
use dph_agent_protocol::{ChangeOutcome, ErrorCode, PlatformKind};

use super::journal::Record;
use super::platform::{Probe, Works, fingerprint, told, unsupported};
use super::worker::Halt;
use super::{Report, Tools};
use crate::config::Profile;
use crate::error::Problem;
use crate::exchange::usable_key;
use crate::vault::HeldKey;

/// Calls that make a new key where that is the only way to end the old one.
const MOST_CALLS: u8 = 2;

/// What a call was that should have ended the key.
enum Sent {
    /// The platform said that it did, which shows as soon as it knows everywhere.
    Done,
    /// Whether it did is told by whether the key still works.
    Perhaps,
    /// There was none to end.
    Gone,
}

/// What a try works on.
struct Revocation<'a> {
    profile: &'a Arc<Profile>,
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
    let mut revocation = Revocation { profile, record, tools };
    let outcome = match revocation.record.done_there {
        true if !revocation.is_meant(held.as_ref()).await? => {
            // The key was dropped then, and another one has come into its place.
            return Ok(done(ChangeOutcome::REVOKED, Vec::new()));
        }
        true => ChangeOutcome::REVOKED,
        false => {
            let outcome = revocation.end_there(held).await?;
            revocation.record.done_there = true;
            revocation.save().await?;
            outcome
        }
    };
    profile.key_source.clear(profile, &tools.surroundings.sealed).await.map_err(Problem::from)?;
    Ok(done(outcome, left_notes(profile)))
}

fn done(outcome: ChangeOutcome, notes: Vec<String>) -> Report {
    Report { outcome, tokens_until: None, notes }
}

/// Refuses what the platform has no interface for.
///
/// # Errors
///
/// [`ErrorCode::UNSUPPORTED`] with the steps for the web client.
pub fn check(profile: &Profile, target: &Target) -> Result<(), Problem> {
    match target.key_calls() {
        KeyCalls::SoftwareHub(_) | KeyCalls::IbmCloud(_) => Ok(()),
        KeyCalls::None => Err(unsupported("revoking the key", profile)),
    }
}

/// Returns what else a user should know who is about to make a key invalid, a line each.
pub fn notes(profile: &Profile) -> Vec<String> {
    let what = match profile.platform() {
        PlatformKind::SOFTWARE_HUB => {
            "a user has one key there: whatever else uses it stops working; a new one is generated and thrown away, for \
             the platform documents no other call"
        }
        _ => "whatever else uses this key stops working; other keys of the user go on",
    };
    let mut notes =
        vec![what.to_owned(), "tokens that were handed out may stay valid until they end".to_owned()];
    if !profile.key_source.is_readable() {
        notes.push(
            "the key is in the agent's memory only: if that ends before it is done, the key stays valid"
                .to_owned(),
        );
    }
    notes.extend(left_notes(profile));
    notes
}

impl Revocation<'_> {
    async fn end_there(&mut self, held: Option<HeldKey>) -> Result<ChangeOutcome, Halt> {
        let (profile, tools) = (self.profile, self.tools);
        let (target, key) = usable_key(profile, held, &tools.surroundings).await?;
        let key = key.key.expose();
        self.remember(&key).await?;
        let probe = Probe { target: &target, key: &key, profile, tools };
        let token = match probe.surely_works().await? {
            Works::Yes(bearer) => bearer.token,
            Works::No if self.record.sent > 0 => return Ok(ChangeOutcome::REVOKED),
            Works::No => return Ok(ChangeOutcome::ALREADY_INVALID),
        };
        tools.may_go_on().map_err(Halt::Later)?;
        let sent = match target.key_calls() {
            KeyCalls::SoftwareHub(calls) => self.generate(&calls, &token).await?,
            KeyCalls::IbmCloud(calls) => self.delete(&calls, &token, &key).await?,
            KeyCalls::None => return Err(Halt::Over(unsupported("revoking the key", profile))),
        };
        match sent {
            Sent::Gone => Ok(ChangeOutcome::ALREADY_INVALID),
            sent if probe.stops_working(matches!(sent, Sent::Done)).await? => Ok(ChangeOutcome::REVOKED),
            Sent::Done | Sent::Perhaps => Err(Halt::Later(still_works(profile))),
        }
    }

    /// Makes sure that it is the key that was meant: one that has come into its place since is nobody's to end.
    async fn remember(&mut self, key: &ApiKey) -> Result<(), Halt> {
        match &self.record.key {
            Some(meant) if *meant != fingerprint(key) => Err(Halt::Over(is_another(self.profile))),
            Some(_) => Ok(()),
            None => {
                self.record.key = Some(fingerprint(key));
                Ok(self.save().await?)
            }
        }
    }

    /// Whether what lies in the place of the key, as far as it is there, is the one that was meant.
    async fn is_meant(&self, held: Option<&HeldKey>) -> Result<bool, Halt> {
        let there = match held {
            Some(held) => Some(held.key.expose()),
            None => {
                let sealed = &self.tools.surroundings.sealed;
                let read = self.profile.key_source.read(self.profile, sealed).await;
                read.map_err(Problem::from)?.map(|found| found.key)
            }
        };
        let meant = self.record.key.as_ref();
        Ok(there.is_none_or(|key| meant.is_none_or(|meant| *meant == fingerprint(&key))))
    }

    /// Ends the key of Software Hub, where a user has one, by making another one that nobody sees.
    async fn generate(&mut self, calls: &HubKeys<'_>, token: &TokenText) -> Result<Sent, Halt> {
        if self.record.sent >= MOST_CALLS {
            return Err(Halt::Over(unsupported("revoking the key", self.profile)));
        }
        self.count().await?;
        let sent = calls.generate_and_discard(token).await;
        self.told(sent.map(|()| Sent::Done)).await
    }

    /// Deletes the key of IBM Cloud, where a user may have others.
    async fn delete(&mut self, calls: &IamKeys<'_>, token: &TokenText, key: &ApiKey) -> Result<Sent, Halt> {
        let details = calls.details(token, key).await;
        let details = details.map_err(|error| Halt::Later(told(&error, self.profile, self.tools)))?;
        if details.locked {
            return Err(Halt::Over(key_is_locked(&details.name, self.profile)));
        }
        self.count().await?;
        let sent = calls.delete(token, &details.id).await.map(|deletion| match deletion {
            Deletion::Done => Sent::Done,
            Deletion::GoneBefore => Sent::Gone,
        });
        self.told(sent).await
    }

    /// Takes back the count of a call that surely changed nothing.
    async fn told(&mut self, sent: Result<Sent, CallError>) -> Result<Sent, Halt> {
        let halt = match sent {
            Ok(sent) => return Ok(sent),
            Err(CallError::Unclear(_)) => return Ok(Sent::Perhaps),
            Err(CallError::NotSent(error)) => Halt::Later(told(&error, self.profile, self.tools)),
            Err(CallError::Refused(error)) => refused(&error, self.profile, self.tools),
        };
        self.record.sent = self.record.sent.saturating_sub(1);
        self.save().await?;
        Err(halt)
    }

    /// Writes down that a call is about to be made.
    async fn count(&mut self) -> Result<(), Problem> {
        self.record.sent = self.record.sent.saturating_add(1);
        let saved = self.save().await;
        if saved.is_err() {
            self.record.sent -= 1;
        }
        saved
    }

    async fn save(&self) -> Result<(), Problem> {
        self.tools.save(&self.profile.name, self.record).await
    }
}

/// A platform that throttles or has just forgotten the token says yes later.
fn refused(error: &PlatformError, profile: &Profile, tools: &Tools) -> Halt {
    let problem = told(error, profile, tools);
    match error {
        PlatformError::Throttled { .. } | PlatformError::Refused { .. } => Halt::Later(problem),
        PlatformError::Forbidden | PlatformError::Unreachable { .. } | PlatformError::Misconfigured(_) => {
            Halt::Over(Problem {
                code: ErrorCode::UNSUPPORTED,
                message: format!(
                    "the platform does not revoke the key of profile `{}`: {}",
                    profile.name, problem.message
                ),
                ..unsupported("revoking the key", profile)
            })
        }
    }
}

fn is_another(profile: &Profile) -> Problem {
    let name = &profile.name;
    Problem::new(
        ErrorCode::FAILED,
        format!(
            "profile `{name}` has another key now than when its key was to be revoked: this one was not touched"
        ),
        format!("if it is to be revoked, too: dph-agent-client revoke --profile {name}"),
    )
}

fn key_is_locked(key: &str, profile: &Profile) -> Problem {
    Problem::new(
        ErrorCode::DENIED,
        format!(
            "IBM Cloud does not delete the key `{key}` of profile `{}`: it is locked there",
            profile.name
        ),
        "unlock it (Manage > Access (IAM) > API keys, or `ibmcloud iam api-key-unlock`), then revoke it again",
    )
}

fn still_works(profile: &Profile) -> Problem {
    Problem::new(
        ErrorCode::UNREACHABLE,
        format!("the key of profile `{}` still works a minute after it was revoked", profile.name),
        "the agent looks again, and tries once more",
    )
}

/// Says where the agent leaves the key, which it did not put there.
fn left_notes(profile: &Profile) -> Vec<String> {
    let source = &profile.key_source;
    if source.is_writable() || !source.is_readable() {
        return Vec::new();
    }
    vec![format!("the key stays where {source} finds it: delete it there yourself")]
}

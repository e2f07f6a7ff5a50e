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
use crate::exchange::{blocking, usable_key};
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

/// Tries it.
pub(super) async fn attempt(
    profile: &Arc<Profile>,
    held: Option<HeldKey>,
    record: &mut Record,
    tools: &Tools,
) -> Result<Report, Halt> {
    let mut outcome = ChangeOutcome::REVOKED;
    if !record.done_there {
        outcome = end_there(profile, held, record, tools).await?;
        record.done_there = true;
        save(profile, record, tools).await?;
    } else if !is_meant(profile, held, record, tools).await? {
        // The key was dropped then, and another one has come into its place.
        return Ok(Report { outcome, tokens_until: None, notes: Vec::new() });
    }
    profile.key_source.clear(profile, &tools.surroundings.sealed).await.map_err(Problem::from)?;
    Ok(Report { outcome, tokens_until: None, notes: left_notes(profile) })
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

async fn end_there(
    profile: &Arc<Profile>,
    held: Option<HeldKey>,
    record: &mut Record,
    tools: &Tools,
) -> Result<ChangeOutcome, Halt> {
    let (target, key) = usable_key(profile, held, &tools.surroundings).await?;
    let calls = target.key_calls();
    let key = key.key.expose();
    meant(&key, profile, record, tools).await?;
    let probe = Probe { target: &target, key: &key, profile, tools };
    let token = match probe.surely_works().await? {
        Works::Yes(bearer) => bearer.token,
        Works::No if record.sent > 0 => return Ok(ChangeOutcome::REVOKED),
        Works::No => return Ok(ChangeOutcome::ALREADY_INVALID),
    };
    tools.may_go_on().map_err(Halt::Later)?;
    let sent = match calls {
        KeyCalls::SoftwareHub(calls) => generate(&calls, &token, profile, record, tools).await?,
        KeyCalls::IbmCloud(calls) => delete(&calls, &token, &key, profile, record, tools).await?,
        KeyCalls::None => return Err(Halt::Over(unsupported("revoking the key", profile))),
    };
    match sent {
        Sent::Gone => Ok(ChangeOutcome::ALREADY_INVALID),
        sent if probe.stops_working(matches!(sent, Sent::Done)).await? => Ok(ChangeOutcome::REVOKED),
        Sent::Done | Sent::Perhaps => Err(Halt::Later(still_works(profile))),
    }
}

/// Whether what lies in the place of the key, as far as it is there, is the one that was meant.
async fn is_meant(
    profile: &Arc<Profile>,
    held: Option<HeldKey>,
    record: &Record,
    tools: &Tools,
) -> Result<bool, Halt> {
    let there = match held {
        Some(held) => Some(held.key.expose()),
        None => {
            let read = profile.key_source.read(profile, &tools.surroundings.sealed).await;
            read.map_err(Problem::from)?.map(|found| found.key)
        }
    };
    Ok(there.is_none_or(|key| record.key.as_ref().is_none_or(|meant| *meant == fingerprint(&key))))
}

/// Makes sure that it is the key that was meant: one that has come into its place since is nobody's to end.
async fn meant(key: &ApiKey, profile: &Profile, record: &mut Record, tools: &Tools) -> Result<(), Halt> {
    let name = &profile.name;
    match &record.key {
        Some(meant) if *meant != fingerprint(key) => Err(Halt::Over(Problem::new(
            ErrorCode::FAILED,
            format!(
                "profile `{name}` has another key now than when its key was to be revoked: this one was not touched"
            ),
            format!("if it is to be revoked, too: dph-agent-client revoke --profile {name}"),
        ))),
        Some(_) => Ok(()),
        None => {
            record.key = Some(fingerprint(key));
            Ok(save(profile, record, tools).await?)
        }
    }
}

/// Ends the key of Software Hub, where a user has one, by making another one that nobody sees.
async fn generate(
    calls: &HubKeys<'_>,
    token: &TokenText,
    profile: &Profile,
    record: &mut Record,
    tools: &Tools,
) -> Result<Sent, Halt> {
    if record.sent >= MOST_CALLS {
        return Err(Halt::Over(unsupported("revoking the key", profile)));
    }
    count(profile, record, tools).await?;
    match calls.generate_and_discard(token).await {
        Ok(()) => Ok(Sent::Done),
        Err(CallError::Unclear(_)) => Ok(Sent::Perhaps),
        Err(CallError::NotSent(error)) => {
            uncount(profile, record, tools).await?;
            Err(Halt::Later(told(&error, profile, tools)))
        }
        Err(CallError::Refused(error)) => {
            uncount(profile, record, tools).await?;
            Err(refused(&error, profile, tools))
        }
    }
}

/// Deletes the key of IBM Cloud, where a user may have others.
async fn delete(
    calls: &IamKeys<'_>,
    token: &TokenText,
    key: &ApiKey,
    profile: &Profile,
    record: &mut Record,
    tools: &Tools,
) -> Result<Sent, Halt> {
    let details = calls.details(token, key).await;
    let details = details.map_err(|error| Halt::Later(told(&error, profile, tools)))?;
    if details.locked {
        return Err(Halt::Over(key_is_locked(&details.name, profile)));
    }
    count(profile, record, tools).await?;
    match calls.delete(token, &details.id).await {
        Ok(Deletion::Done) => Ok(Sent::Done),
        Err(CallError::Unclear(_)) => Ok(Sent::Perhaps),
        Ok(Deletion::GoneBefore) => Ok(Sent::Gone),
        Err(CallError::NotSent(error)) => {
            uncount(profile, record, tools).await?;
            Err(Halt::Later(told(&error, profile, tools)))
        }
        Err(CallError::Refused(error)) => {
            uncount(profile, record, tools).await?;
            Err(refused(&error, profile, tools))
        }
    }
}

/// Writes down that a call is about to be made.
async fn count(profile: &Profile, record: &mut Record, tools: &Tools) -> Result<(), Problem> {
    record.sent = record.sent.saturating_add(1);
    let saved = save(profile, record, tools).await;
    if saved.is_err() {
        record.sent -= 1;
    }
    saved
}

/// Writes down that the last call surely changed nothing.
async fn uncount(profile: &Profile, record: &mut Record, tools: &Tools) -> Result<(), Problem> {
    record.sent = record.sent.saturating_sub(1);
    save(profile, record, tools).await
}

async fn save(profile: &Profile, record: &Record, tools: &Tools) -> Result<(), Problem> {
    let (journal, name, record) = (tools.journal.clone(), profile.name.clone(), record.clone());
    blocking(move || journal.save(&name, &record)).await?
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

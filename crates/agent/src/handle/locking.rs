//! `lock`, `unlock` and `lock-state`.

use std::sync::Arc;

use dph_agent_protocol::{ErrorCode, Lock, LockState, Reply, Secret, Unlock};

use super::{Desk, in_time, within};
use crate::config::{Config, Profile, ProfileName};
use crate::error::Problem;
use crate::exchange::blocking_secret;
use crate::kept_key::KeptKey;
use crate::key_source::{Found, KeySource, open_sealed};
use crate::keyhole::wrong_passphrase;
use crate::lock::locked;
use crate::seal::{Private, SealedPrivate};
use crate::vault::{HeldKey, Surroundings};

/// Keys that a passphrase opened.
type Opened = Vec<(ProfileName, HeldKey)>;

/// Locks, with a new passphrase where one is given.
pub(super) async fn lock(request: Lock, desk: &Desk) -> Result<Reply, Problem> {
    let key = match request.new_passphrase {
        None => None,
        Some(new) => {
            let key = new_key(request.passphrase, new, desk);
            Some(within(request.deadline_ms, key, "the derivation of a key", desk).await?)
        }
    };
    desk.vault.lock(key).await?;
    let config = desk.vault.config().await?;
    let (_, key) = desk.vault.keys_place().await?;
    lock_state(notes_on_lock(&config, key.is_some()), desk).await
}

/// Returns the agent's key pair, or a new one, behind a new passphrase.
async fn new_key(old: Option<Secret>, new: Secret, desk: &Desk) -> Result<SealedPrivate, Problem> {
    if desk.vault.is_locked() {
        return Err(locked());
    }
    if new.expose().is_empty() {
        return Err(Problem::new(
            ErrorCode::BAD_REQUEST,
            "the new passphrase is empty",
            "choose another one",
        ));
    }
    let (_, key) = desk.vault.keys_place().await?;
    let private = match (key, old) {
        (None, _) => Private::generate().map_err(|error| {
            Problem::new(ErrorCode::FAILED, format!("cannot make a key: {error}"), "look at the system")
        })?,
        (Some(sealed), old) => open(sealed, old, desk).await?,
    };
    desk.keyhole.seal(private, new).await
}

pub(super) async fn open(
    sealed: SealedPrivate,
    passphrase: Option<Secret>,
    desk: &Desk,
) -> Result<Private, Problem> {
    let passphrase = passphrase.ok_or_else(|| wrong_passphrase("a passphrase is set, and none was given"))?;
    desk.keyhole.open(sealed, passphrase).await
}

/// Opens the agent.
pub(super) async fn unlock(request: Unlock, desk: &Desk) -> Result<Reply, Problem> {
    let work = async {
        let (_, key) = desk.vault.keys_place().await?;
        match key {
            None => Ok(None),
            Some(sealed) => open(sealed, request.passphrase, desk).await.map(Some),
        }
    };
    let private = in_time(request.deadline_ms, work, "the derivation of the key").await?;
    let (opened, notes) = match &private {
        Some(private) => open_sealed_keys(private, desk).await?,
        None => (Vec::new(), Vec::new()),
    };
    // Before anything goes on, for a rotation that finds nothing put aside gives its key up.
    if let Some(private) = private.clone() {
        offer_asides(private, desk).await?;
    }
    let unlocked = desk.vault.unlock(private, opened).await;
    desk.changes.forget_asides_if_locked();
    unlocked?;
    lock_state(notes, desk).await
}

/// Opens the keys that lie in sealed files, and says of which profiles that cannot be done.
async fn open_sealed_keys(private: &Private, desk: &Desk) -> Result<(Opened, Vec<String>), Problem> {
    let config = desk.vault.config().await?;
    let (mut opened, mut notes) = (Vec::new(), Vec::new());
    let sealed = config.profiles.values().filter(|profile| profile.key_source == KeySource::Sealed);
    for profile in sealed {
        match open_sealed_key(profile, private, desk).await {
            Ok(Some(key)) => opened.push((profile.name.clone(), key)),
            Ok(None) => {}
            Err(problem) => notes.push(format!("profile {}: {}", profile.name, problem.message)),
        }
    }
    Ok((opened, notes))
}

/// Hands what was put aside to the rotations that it was put aside for.
async fn offer_asides(private: Private, desk: &Desk) -> Result<(), Problem> {
    let config = desk.vault.config().await?;
    for profile in config.profiles.values().filter(|profile| profile.key_source == KeySource::Sealed) {
        let (sealed, name, private) =
            (desk.surroundings.sealed.clone(), profile.name.clone(), private.clone());
        if let Ok(Some(aside)) = blocking_secret(move || sealed.open_aside(&name, &private)).await? {
            desk.changes.offer(&profile.name, aside);
        }
    }
    Ok(())
}

async fn open_sealed_key(
    profile: &Profile,
    private: &Private,
    desk: &Desk,
) -> Result<Option<HeldKey>, Problem> {
    let Surroundings { pool, sealed, clock, .. } = &desk.surroundings;
    let Some(Found { key, binding: Some(binding) }) = open_sealed(profile, sealed, private).await? else {
        return Ok(None);
    };
    let key = Arc::new(KeptKey::new(pool, &key)?);
    Ok(Some(HeldKey { key, binding, added_at: clock.wall(), until: None, told: None }))
}

/// Tells whether the agent is locked, and what opens it.
pub(super) async fn lock_state(notes: Vec<String>, desk: &Desk) -> Result<Reply, Problem> {
    let (is_locked, key) = desk.vault.keys_place().await?;
    Ok(Reply::LockState(LockState { locked: is_locked, has_passphrase: key.is_some(), notes }))
}

/// Says what a lock does not do.
fn notes_on_lock(config: &Config, has_passphrase: bool) -> Vec<String> {
    let names = |of: fn(&KeySource) -> bool| {
        let profiles = config.profiles.values().filter(|profile| of(&profile.key_source));
        profiles.map(|profile| profile.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let mut notes = Vec::new();
    if !has_passphrase {
        notes.push("no passphrase is set, so keys were dropped, not sealed: see --set-passphrase".to_owned());
        let lost = names(|source| !source.is_readable());
        if !lost.is_empty() {
            notes.push(format!("keys that must be added again: {lost}"));
        }
    }
    let outside = names(KeySource::is_open_to_user);
    if !outside.is_empty() {
        notes.push(format!(
            "the lock protects the agent's memory, not a keyring or file that this user can open: {outside}"
        ));
    }
    notes
}

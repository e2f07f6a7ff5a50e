//! `migrate`: a key goes to another source, which is proven to hold it before the old one is cleared.

use std::sync::Arc;

use dph_agent_platform::ApiKey;
use dph_agent_protocol::{ErrorCode, Migrate, MigrateWith, Migrated, Reply, Secret, Settings};
use tokio::time::Instant;
use tracing::{info, warn};

use super::current_key::key_of;
use super::gate::{Wanted, knows_passphrase, permitted};
use super::{Desk, bad_setting, edit_locked, hold, left_ms, limit, named, while_asked, within};
use crate::audit::account::key_goes_out;
use crate::caller::Asker;
use crate::config::{ConfigFile, Edit, Profile};
use crate::error::Problem;
use crate::exchange::{self, bind};
use crate::key_source::{self, KeySource, KeySourceError};
use crate::lock::locked;
use crate::seal::SealedPrivate;
use crate::vault::{HeldKey, Install};

/// A profile as it is and as it would be.
struct Move {
    old: Arc<Profile>,
    new: Arc<Profile>,
    settings: Settings,
}

/// As [`migrate`], with the lock's passphrase.
pub(super) async fn migrate_with(request: MigrateWith, asker: &Asker, desk: &Desk) -> Result<Reply, Problem> {
    migrate(request.migrate, Some(request.passphrase), asker, desk).await
}

/// Moves a key, or says what moving it would do.
pub(super) async fn migrate(
    request: Migrate,
    passphrase: Option<Secret>,
    asker: &Asker,
    desk: &Desk,
) -> Result<Reply, Problem> {
    let end = Instant::now() + limit(request.deadline_ms);
    let to: KeySource = request.to.parse().map_err(bad_source)?;
    let profile = desk.vault.select(request.selector).await?;
    let leaves = leaves_the_agent(&profile.key_source, &to) && !request.dry_run;
    // Before anything is held, for it may take as long as somebody thinks.
    if leaves {
        while_asked(asker, may_leave(&profile, passphrase, end, asker, desk)).await?;
    }
    let held = hold(std::slice::from_ref(&profile.name), end, desk);
    let (mut file, _still) = while_asked(asker, held).await?;
    let moved = plan(still_from(&profile, desk).await?, &to, &file)?;
    let prepared = async {
        let key = movable(&moved.old, desk).await?;
        exchange::agrees(&moved.old, &key, &desk.surroundings).await?;
        check_place(&moved.new, &key.key.expose(), desk).await?;
        Ok(key)
    };
    let prepared = within(left_ms(end), prepared, "reading the key", desk);
    let key = while_asked(asker, prepared).await?;
    if leaves {
        key_goes_out(&moved.old.name, asker, desk).await?;
    }
    let notes = match request.dry_run {
        true => vec![would_clear(&moved, desk).await?],
        false => carry_out(&moved, key, &mut file, desk).await?,
    };
    Ok(Reply::Migrated(Migrated {
        profile: moved.old.name.to_string(),
        from: moved.old.key_source.to_string(),
        to: moved.new.key_source.to_string(),
        notes,
    }))
}

/// Whether a move hands the key to whatever the user runs, which could not have it before.
fn leaves_the_agent(from: &KeySource, to: &KeySource) -> bool {
    !from.is_open_to_user() && to.is_open_to_user()
}

/// Makes sure that a key may leave the agent: a move to a file gives it away just as an answer would that contains it.
async fn may_leave(
    profile: &Profile,
    passphrase: Option<Secret>,
    end: Instant,
    asker: &Asker,
    desk: &Desk,
) -> Result<(), Problem> {
    let (is_missing, known) = (passphrase.is_none(), knows_passphrase(passphrase, desk));
    within(left_ms(end), known, "the derivation of the key", desk).await.map_err(|problem| {
        let is_asked_for = is_missing && problem.code == ErrorCode::WRONG_PASSPHRASE;
        if is_asked_for { passphrase_is_wanted() } else { problem }
    })?;
    permitted(named(&profile.name), Wanted::MovedKey, end, asker, desk).await.map(drop)
}

fn passphrase_is_wanted() -> Problem {
    Problem::new(
        ErrorCode::WRONG_PASSPHRASE,
        "this takes the key to where any program of yours can read it, and needs the lock's passphrase",
        "run it on a terminal, which asks for the passphrase, or give it by --passphrase-stdin",
    )
}

/// Returns the profile as it is now, if its key is still where it was when it was looked at.
async fn still_from(before: &Profile, desk: &Desk) -> Result<Arc<Profile>, Problem> {
    let now = desk.vault.select(named(&before.name)).await?;
    if now.key_source == before.key_source {
        return Ok(now);
    }
    Err(Problem::new(
        ErrorCode::EXISTS,
        format!("the key source of profile `{}` was changed meanwhile", before.name),
        "nothing was moved: look at it with `dph-agent-client list`",
    ))
}

fn plan(old: Arc<Profile>, to: &KeySource, file: &ConfigFile) -> Result<Move, Problem> {
    if old.key_source == *to {
        return Err(Problem::new(
            ErrorCode::BAD_REQUEST,
            format!("the key of profile `{}` comes from {to} already", old.name),
            "name another source with --to",
        ));
    }
    let settings = Settings { key_source: Some(to.to_string()), ..file.settings_of(&old.name) };
    let new = file.profile_with(&old.name, &settings).map_err(bad_setting)?;
    Ok(Move { old, new: Arc::new(new), settings })
}

/// Returns the key of a profile, if it may be somewhere else.
async fn movable(profile: &Arc<Profile>, desk: &Desk) -> Result<HeldKey, Problem> {
    let key = key_of(profile, desk).await?;
    if key.until.is_none() {
        return Ok(key);
    }
    Err(Problem::new(
        ErrorCode::BAD_REQUEST,
        "the key was given for a time, and would outlive that elsewhere",
        format!("add it again without --ttl: dph-agent-client add --profile {}", profile.name),
    ))
}

/// Makes sure that the new place can be used, and where only others can write it that it holds the key.
async fn check_place(new: &Profile, key: &ApiKey, desk: &Desk) -> Result<(), Problem> {
    match &new.key_source {
        KeySource::Sealed => {
            let (_, to) = desk.vault.keys_place().await?;
            key_source::proven(to.as_ref().map(SealedPrivate::public))?;
            Ok(())
        }
        KeySource::Keyring => {
            new.key_source.bound_to(new, &desk.surroundings.sealed).await?;
            Ok(())
        }
        KeySource::Command(_) | KeySource::Credential(_) => prove(new, key, desk).await,
        KeySource::Session | KeySource::File(_) => Ok(()),
    }
}

/// Makes sure that the new place gives this key to whoever reads it.
async fn prove(new: &Profile, key: &ApiKey, desk: &Desk) -> Result<(), Problem> {
    let found = new.key_source.read(new, &desk.surroundings.sealed).await?;
    if found.is_some_and(|found| found.key == *key) {
        return Ok(());
    }
    Err(Problem::new(
        ErrorCode::SOURCE_UNAVAILABLE,
        format!("{} does not give the key of profile `{}`", new.key_source, new.name),
        "put the key there first; nothing was changed",
    ))
}

/// Returns what to tell the user.
async fn carry_out(
    moved: &Move,
    key: HeldKey,
    file: &mut ConfigFile,
    desk: &Desk,
) -> Result<Vec<String>, Problem> {
    // From here on it is finished on disk, whatever comes.
    if desk.vault.is_locked() {
        return Err(locked());
    }
    let new = &moved.new;
    put(new, &key, desk).await?;
    let edit = Edit::Put(new.name.clone(), Box::new(moved.settings.clone()));
    if let Err(problem) = edit_locked(file, edit, desk).await {
        take_back(new, desk).await;
        return Err(problem);
    }
    let install = Install { profile: Arc::clone(new), key: Some(key.clone()), bought: None, exchanges: 0 };
    match desk.vault.install(install).await {
        // The key is in its new place all the same.
        Err(problem) if problem.code == ErrorCode::LOCKED => {
            desk.vault.key_replaced(new.name.clone(), key).await?;
        }
        // The next agent reads it from there, or this one when the user wants it to after all.
        Err(problem) if [ErrorCode::STOPPING, ErrorCode::NO_KEY].contains(&problem.code) => {}
        installed => installed?,
    }
    info!(profile = %new.name, from = %moved.old.key_source, to = %new.key_source, "a key was moved");
    Ok(clear(moved, desk).await?.into_iter().collect())
}

/// Writes the key to its new place, and reads it from there.
async fn put(new: &Arc<Profile>, key: &HeldKey, desk: &Desk) -> Result<(), Problem> {
    let (sealed, exposed) = (&desk.surroundings.sealed, key.key.expose());
    let (_, to) = desk.vault.keys_place().await?;
    let to = to.as_ref().map(SealedPrivate::public);
    new.key_source.create(new, &exposed, &key.binding, sealed, to).await?;
    match &new.key_source {
        // These were read back when they were written.
        KeySource::Session | KeySource::Keyring | KeySource::Sealed => Ok(()),
        KeySource::File(_) | KeySource::Command(_) | KeySource::Credential(_) => {
            prove(new, &exposed, desk).await?;
            bind(&desk.surroundings.bindings, new, key.binding.clone()).await
        }
    }
}

/// Clears the new place again, which the configuration does not name.
async fn take_back(new: &Profile, desk: &Desk) {
    let written = matches!(new.key_source, KeySource::Keyring | KeySource::Sealed | KeySource::File(_));
    if written && let Err(error) = new.key_source.erase(new, &desk.surroundings.sealed).await {
        let problem = Problem::from(error);
        warn!(profile = %new.name, problem = problem.message, "a key is in a place that nothing names");
    }
}

/// Clears the old place, and says where that was not done.
async fn clear(moved: &Move, desk: &Desk) -> Result<Option<String>, Problem> {
    let source = &moved.old.key_source;
    if let Some(other) = other_user_of(moved, desk).await? {
        return Ok(Some(format!("the key is still in {source}, which profile {other} uses, too")));
    }
    match source {
        KeySource::Command(_) | KeySource::Credential(_) => {
            Ok(Some(format!("the key is still where {source} finds it: delete it there yourself")))
        }
        KeySource::Session | KeySource::Keyring | KeySource::Sealed | KeySource::File(_) => Ok(source.erase(&moved.old, &desk.surroundings.sealed).await.err().map(|error| {
            let problem = Problem::from(error);
            warn!(profile = %moved.old.name, problem = problem.message, "a key is still in its old place");
            format!("the key is still in {source}, too: {}; {}", problem.message, problem.hint)
        })),
    }
}

async fn would_clear(moved: &Move, desk: &Desk) -> Result<String, Problem> {
    let source = &moved.old.key_source;
    Ok(match (source, other_user_of(moved, desk).await?) {
        (_, Some(other)) => format!("the key would stay in {source}, which profile {other} uses, too"),
        (KeySource::Command(_) | KeySource::Credential(_), None) => {
            format!("the key would stay where {source} finds it")
        }
        (source, None) => format!("the key would be deleted from {source}"),
    })
}

/// Returns another profile that reads its key from the same place.
async fn other_user_of(moved: &Move, desk: &Desk) -> Result<Option<String>, Problem> {
    let config = desk.vault.config().await?;
    let shared = |other: &&Arc<Profile>| {
        other.name != moved.old.name
            && moved.old.key_source.file().is_some()
            && other.key_source == moved.old.key_source
    };
    Ok(config.profiles.values().find(shared).map(|other| other.name.to_string()))
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function that maps errors")]
fn bad_source(error: KeySourceError) -> Problem {
    Problem::new(ErrorCode::BAD_REQUEST, format!("--to: {error}"), "see dph-agent-client migrate --help")
}

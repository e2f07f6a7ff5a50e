//! `prepare` and `add`: from the settings of a profile and its key to what is kept.

use std::sync::Arc;
use std::time::Duration;

use dph_agent_platform::{ApiKey, BaseUrl, Target, Verdict};
use dph_agent_protocol::{
    Add, AddFor, Added, Certificate, ErrorCode, Prepare, Prepared, Reply, Secret, Settings, Trust,
};
use tokio::time::Instant;
use tracing::info;

use super::{Desk, OTHERS, bad_setting, edit_locked, hold, left_ms, limit, while_asked, within};
use crate::binding::{self, Binding};
use crate::caller::Asker;
use crate::config::{Config, ConfigFile, Edit, Profile, ProfileName, merged};
use crate::error::{Problem, millis};
use crate::exchange::{self, bind, blocking, prove};
use crate::freshness::Bought;
use crate::kept_key::KeptKey;
use crate::key_source::{self, KeySource};
use crate::seal::SealedPrivate;
use crate::vault::{HeldKey, Install, Moment, changed_meanwhile};

/// Answers whether an `add` would work.
pub(super) async fn prepare(request: Prepare, desk: &Desk) -> Result<Reply, Problem> {
    let config = desk.vault.config().await?;
    let name = match &request.profile {
        Some(name) => name.parse().map_err(bad_setting)?,
        None => default_name(&config)?,
    };
    desk.changes.none_for(&name)?;
    let file = async { Ok(desk.config.lock().await.clone()) };
    let file = within(request.deadline_ms, file, OTHERS, desk).await?;
    let intent = intent(name.clone(), &request.settings, request.replace, &file)?;
    can_be_kept(&intent.profile, desk).await?;
    let mut notes = notes_on(&intent.profile, &request.settings);
    let check = async {
        let (target, _) = destination(&intent, &request.settings, request.replace, desk).await?;
        if request.reach {
            reach(&intent.profile, &target, request.trust_server, desk).await
        } else {
            Ok(None)
        }
    };
    let certificate = within(request.deadline_ms, check, "the check of the server", desk).await?;
    if !request.reach {
        notes.push(
            "the platform was not reached: whether the key works is seen when a token is asked for".into(),
        );
    }
    let Intent { profile, exists, .. } = intent;
    Ok(Reply::Prepared(Prepared {
        profile: name.to_string(),
        exists,
        platform: profile.platform(),
        url: profile.url.to_string(),
        auth_url: profile.auth_url.to_string(),
        username: profile.username().map(str::to_owned),
        key_source: profile.key_source.kind(),
        wants_key: profile.key_source.wants_key(),
        certificate,
        notes,
    }))
}

/// Returns the name for a profile that the user did not name.
fn default_name(config: &Config) -> Result<ProfileName, Problem> {
    config.default_name().map_or_else(|| "default".parse().map_err(bad_setting), |name| Ok(name.clone()))
}

/// What an `add` is about to make.
struct Intent {
    /// The profile as it would be.
    profile: Arc<Profile>,
    /// Its settings, all of them.
    settings: Settings,
    /// Whether there is one of that name.
    exists: bool,
}

/// Returns what a change would make of what the file has.
fn intent(name: ProfileName, change: &Settings, replace: bool, file: &ConfigFile) -> Result<Intent, Problem> {
    let before = file.settings_of(&name);
    let is_new = before == Settings::default();
    let settings = if is_new { with_default_source(change) } else { merged(&before, change) };
    let profile = file.profile_with(&name, &settings).map_err(bad_setting)?;
    let existing = file.profile_with(&name, &before).ok();
    if let Some(existing) =
        existing.as_ref().filter(|existing| !replace && !existing.is_same_identity(&profile))
    {
        return Err(Problem::new(
            ErrorCode::EXISTS,
            format!("profile `{name}` exists with another platform, URL or user ({})", existing.url),
            "add --replace to change it, or give another name with --profile",
        ));
    }
    Ok(Intent { profile: Arc::new(profile), settings, exists: existing.is_some() })
}

/// A key that nobody said anything else about is to survive the agent.
fn with_default_source(settings: &Settings) -> Settings {
    let source = if cfg!(feature = "keyring") { KeySource::Keyring } else { KeySource::Session };
    Settings {
        key_source: settings.key_source.clone().or_else(|| Some(source.to_string())),
        ..settings.clone()
    }
}

/// Returns whom the key would be sent to. Where that is not whom it was given for, though nobody said so in
/// this request, the configuration may have been changed behind the user's back.
async fn destination(
    intent: &Intent,
    change: &Settings,
    replace: bool,
    desk: &Desk,
) -> Result<(Target, Binding), Problem> {
    let profile = &intent.profile;
    let target = exchange::target(profile, &desk.surroundings.proxies).await?;
    let now = Binding::of(profile.platform(), &target);
    let names_trust = change.tls_pin.is_some() || change.ca_file.is_some();
    let bound = given_for(profile, &now, desk).await?;
    let said_so = |bound: &Binding| replace || (names_trust && bound.is_same_place(&now));
    match bound.filter(|bound| !said_so(bound)) {
        Some(bound) => Err(Problem { code: ErrorCode::EXISTS, ..binding::changed(profile, &bound, &now) }),
        None => Ok((target, now)),
    }
}

/// Returns what the profile's key was given for, if that does not permit `now`.
async fn given_for(profile: &Arc<Profile>, now: &Binding, desk: &Desk) -> Result<Option<Binding>, Problem> {
    if profile.key_source.wants_key() {
        // Says now that a keyring is closed, before anybody hands over a key for it.
        let kept = profile.key_source.bound_to(profile, &desk.surroundings.sealed).await?;
        let held = desk.vault.key(profile.name.clone()).await?.map(|key| key.binding);
        return Ok(held.or(kept).filter(|bound| !bound.permits(now)));
    }
    let (bindings, profile, now) =
        (Arc::clone(&desk.surroundings.bindings), Arc::clone(profile), now.clone());
    blocking(move || bindings.conflict(&profile, &now)).await?
}

fn notes_on(profile: &Profile, change: &Settings) -> Vec<String> {
    let mut notes = Vec::new();
    let cleaned =
        change.url.as_deref().and_then(|url| BaseUrl::clean(url).ok()).is_some_and(|(_, changed)| changed);
    if cleaned {
        notes.push(format!("took the URL to be {}", profile.url));
    }
    match &profile.key_source {
        KeySource::Session => {
            notes.push(
                "the key is kept in memory only: it is gone when the agent ends (see --key-source)".into(),
            );
        }
        KeySource::Keyring => notes.push("the key is kept in the keyring".into()),
        KeySource::Sealed => {
            notes.push("the key is kept in a file that the agent's passphrase opens".into());
        }
        source @ (KeySource::File(_) | KeySource::Command(_) | KeySource::Credential(_)) => {
            notes.push(format!("the key is read from {source}"));
        }
    }
    notes
}

/// Looks at the server's certificate before a key is asked for.
async fn reach(
    profile: &Profile,
    target: &Target,
    trust_server: bool,
    desk: &Desk,
) -> Result<Option<Certificate>, Problem> {
    let name = profile.name.as_str();
    let probe = target.probe().await;
    let probe = probe.map_err(|error| {
        let problem = Problem::from_platform(&error, name, desk.surroundings.clock.wall());
        Problem { hint: format!("{}; --no-verify keeps the key unproven", problem.hint), ..problem }
    })?;
    let Some(seen) = probe.certificate else { return Ok(None) };
    let trust = match seen.verdict {
        Verdict::Roots => Trust::ROOTS,
        Verdict::Pin => Trust::PIN,
        Verdict::Untrusted(_) if trust_server => Trust::NOBODY,
        Verdict::Untrusted(reason) => return Err(untrusted(&reason, &seen.fingerprint.to_string())),
    };
    Ok(Some(Certificate {
        subject: seen.subject,
        issuer: seen.issuer,
        names: seen.names,
        sha256: seen.fingerprint.to_string(),
        not_after: seen.not_after,
        trust,
    }))
}

fn untrusted(reason: &str, fingerprint: &str) -> Problem {
    Problem::new(
        ErrorCode::MISCONFIGURED,
        format!("the server's certificate is not trusted: {reason} (it is {fingerprint})"),
        "give its authority with --ca-file FILE, or --trust-server to look at it and pin it",
    )
}

/// Takes over a key for a time, and its profile.
pub(super) async fn add_for(request: AddFor, asker: &Asker, desk: &Desk) -> Result<Reply, Problem> {
    add(request.add, Some(Duration::from_millis(request.ttl_ms)), asker, desk).await
}

/// Takes over a key and its profile.
pub(super) async fn add(
    request: Add,
    ttl: Option<Duration>,
    asker: &Asker,
    desk: &Desk,
) -> Result<Reply, Problem> {
    let end = Instant::now() + limit(request.deadline_ms);
    let began = desk.vault.moment().await?;
    let name: ProfileName = request.profile.parse().map_err(bad_setting)?;
    let file = within(left_ms(end), async { Ok(desk.config.lock().await.clone()) }, OTHERS, desk).await?;
    let intent = intent(name.clone(), &request.settings, request.replace, &file)?;
    check_ttl(ttl, &intent.profile)?;
    can_be_kept(&intent.profile, desk).await?;
    let key = handed_over(request.key, &intent.profile)?;
    let proof = async {
        let (target, binding) = destination(&intent, &request.settings, request.replace, desk).await?;
        Ok((proven(key, &intent.profile, &target, request.verify, desk).await?, binding))
    };
    let rotations = desk.changes.rotations(&name);
    let proof = within(left_ms(end), proof, "the proof of the key", desk);
    let ((key, bought), binding) = while_asked(asker, proof).await?;
    let held = hold(std::slice::from_ref(&name), end, desk);
    let (mut file, _still) = while_asked(asker, held).await?;
    if desk.changes.rotations(&name) != rotations {
        // What was proven is the old key by now, and the new one is nowhere else than where it would go.
        return Err(changed_meanwhile(&name));
    }
    let (life, verified) = (bought.as_ref().and_then(|bought| bought.life), bought.is_some());
    let given = Given { key, binding, ttl, bought, began };
    keep(&intent, &request.settings, request.replace, given, &mut file, desk).await?;
    info!(profile = %name, verified, "a key was added");
    let token_life_ms = life.map(millis);
    Ok(Reply::Added(Added { profile: name.to_string(), verified, token_life_ms, notes: Vec::new() }))
}

/// Returns the key, read where it was not handed over, with the token that proves it.
async fn proven(
    handed_over: Option<ApiKey>,
    profile: &Profile,
    target: &Target,
    verify: bool,
    desk: &Desk,
) -> Result<(Option<ApiKey>, Option<Bought>), Problem> {
    let key = match handed_over {
        None if verify => {
            let found = profile.key_source.read(profile, &desk.surroundings.sealed).await?;
            found.map(|found| found.key)
        }
        handed_over => handed_over,
    };
    let bought = match &key {
        Some(key) if verify => Some(prove(profile, target, key, &desk.surroundings).await?),
        _ => None,
    };
    Ok((key, bought))
}

/// Returns the key that came with the request, if the profile's source wants one.
fn handed_over(key: Option<Secret>, profile: &Profile) -> Result<Option<ApiKey>, Problem> {
    let bad = |message: String, hint: &str| Err(Problem::new(ErrorCode::BAD_REQUEST, message, hint));
    match key {
        Some(_) if !profile.key_source.wants_key() => {
            bad(format!("the key of this profile is read from {}", profile.key_source), "leave the key out")
        }
        None if profile.key_source.wants_key() => {
            bad("no key was handed over".to_owned(), "give it with --key-stdin")
        }
        Some(key)
            if key.expose().is_empty() || key.expose().contains(|c: char| c.is_control() || c == ' ') =>
        {
            bad(
                "what was handed over is not a key: it is empty or has spaces or line breaks in it"
                    .to_owned(),
                "copy the key alone",
            )
        }
        key => Ok(key.map(|key| ApiKey::new(key.expose().to_owned()))),
    }
}

/// What an `add` brings, once it is proven.
struct Given {
    key: Option<ApiKey>,
    binding: Binding,
    /// How long the key is kept.
    ttl: Option<Duration>,
    bought: Option<Bought>,
    /// Keys that were dropped after that stay dropped.
    began: Moment,
}

/// Turns away a time for a key that would outlive it elsewhere.
fn check_ttl(ttl: Option<Duration>, profile: &Profile) -> Result<(), Problem> {
    let bad = |message: String, hint: &str| Err(Problem::new(ErrorCode::BAD_REQUEST, message, hint));
    match ttl {
        Some(Duration::ZERO) => bad("the key's time is over at once".to_owned(), "give a longer --ttl"),
        Some(_) if profile.key_source != KeySource::Session => bad(
            format!("a key from the source {} outlives its time there", profile.key_source),
            "--ttl is for keys that are kept in memory only: --key-source session",
        ),
        _ => Ok(()),
    }
}

/// Says before anybody looks for the key that it could not be kept.
async fn can_be_kept(profile: &Profile, desk: &Desk) -> Result<(), Problem> {
    if profile.key_source == KeySource::Sealed {
        let (_, to) = desk.vault.keys_place().await?;
        key_source::proven(to.as_ref().map(SealedPrivate::public))?;
    }
    Ok(())
}

/// Keeps a proven key, unless its profile was changed meanwhile: first whom it is for, then the profile,
/// then the key.
async fn keep(
    intent: &Intent,
    change: &Settings,
    replace: bool,
    given: Given,
    file: &mut ConfigFile,
    desk: &Desk,
) -> Result<(), Problem> {
    let profile = &intent.profile;
    desk.vault.undropped(&profile.name, given.began).await?;
    let again = self::intent(profile.name.clone(), change, replace, file)?;
    if (&again.profile, again.exists) != (profile, intent.exists) {
        return Err(changed_meanwhile(&profile.name));
    }
    if !profile.key_source.wants_key() {
        bind(&desk.surroundings.bindings, profile, given.binding.clone()).await?;
    }
    // What is read is kept already.
    let Some(key) = given.key.as_ref().filter(|_| profile.key_source.wants_key()) else {
        return take_over(intent, change, given, file, desk).await;
    };
    let (_, to) = desk.vault.keys_place().await?;
    let (sealed, to) = (&desk.surroundings.sealed, to.as_ref().map(SealedPrivate::public));
    profile.key_source.store(profile, key, &given.binding, sealed, to).await?;
    match take_over(intent, change, given, file, desk).await {
        Err(problem) => Err(taken_back(problem, intent, desk).await),
        done => done,
    }
}

/// Keeps the profile of a key that is in its place, and has the vault use it, unless the lock or a signal came
/// while it was put there.
async fn take_over(
    intent: &Intent,
    change: &Settings,
    Given { key, binding, ttl, bought, began }: Given,
    file: &mut ConfigFile,
    desk: &Desk,
) -> Result<(), Problem> {
    let profile = &intent.profile;
    desk.vault.undropped(&profile.name, began).await?;
    if !intent.exists || *change != Settings::default() {
        let url = Some(profile.url.to_string());
        let settings = Box::new(Settings { url, ..intent.settings.clone() });
        edit_locked(file, Edit::Put(profile.name.clone(), settings), desk).await?;
    }
    let added_at = desk.surroundings.clock.wall();
    let exchanges = u64::from(bought.is_some());
    let kept = key.map(|key| KeptKey::new(&desk.surroundings.pool, &key)).transpose()?;
    let until = ttl.map(|ttl| desk.surroundings.clock.steady() + ttl);
    let key = kept.map(|key| HeldKey { key: Arc::new(key), binding, added_at, until, told: None });
    let install = Install { profile: Arc::clone(profile), key, bought, exchanges };
    desk.vault.install_new(install, began).await?;
    desk.changes.found_again(&profile.name).await
}

/// Deletes a key again that was put in its place and is not to be kept after all, and says where it still is. A
/// key of a profile that was there before stays where only the file stood in the way: it took the place of another,
/// which does not come back.
async fn taken_back(problem: Problem, intent: &Intent, desk: &Desk) -> Problem {
    let Profile { name, key_source, .. } = &*intent.profile;
    let is_overtaken = [ErrorCode::LOCKED, ErrorCode::NO_KEY].contains(&problem.code);
    if !is_outside(key_source) || problem.code == ErrorCode::STOPPING {
        return problem;
    }
    let message = if intent.exists && !is_overtaken {
        format!("{}; the new key of profile `{name}` is in {key_source} all the same", problem.message)
    } else {
        match key_source.clear(&intent.profile, &desk.surroundings.sealed).await {
            Ok(()) => format!("{}: no key of profile `{name}` is kept", problem.message),
            Err(error) => {
                let why = Problem::from(error).message;
                format!(
                    "{}, and the key of profile `{name}` is still in {key_source}: {why}",
                    problem.message
                )
            }
        }
    };
    Problem { message, ..problem }
}

/// Whether what is put there is on a disk, or with another program.
fn is_outside(source: &KeySource) -> bool {
    matches!(source, KeySource::Keyring | KeySource::Sealed)
}

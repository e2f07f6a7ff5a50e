//! One function for each request.

use std::sync::Arc;
use std::time::Duration;

use dph_agent_platform::{ApiKey, BaseUrl, Target, Verdict};
use dph_agent_protocol::{
    Add, Added, AgentStatus, Certificate, ErrorCode, Kept, Lock, LockState, MAX_DEADLINE_MS, Pong, Prepare,
    Prepared, Reply, Request, Secret, Selector, Settings, StatusRequest, Statuses, Token, TokenRequest,
    Trust, Unlock, Waiting,
};
use dph_agent_secret::wiped_stack::Wiping;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::authorize::Permit;
use crate::binding::{self, Binding};
use crate::config::{Config, ConfigFile, Edit, Profile, ProfileName, SettingError, merged};
use crate::error::{Problem, millis};
use crate::exchange::{self, bind, blocking, prove};
use crate::freshness::{Bought, Need};
use crate::kept_key::{KeptKey, secret_memory};
use crate::key_source::KeySource;
use crate::keyhole::{Keyhole, wrong_passphrase};
use crate::lock::locked;
use crate::refresh::NEW_ENOUGH;
use crate::seal::{Private, SealedPrivate};
use crate::vault::{HeldKey, Install, Surroundings, VaultHandle, Why, changed_meanwhile};

/// What requests are carried out with.
#[derive(Debug)]
pub struct Desk {
    /// The secrets.
    pub vault: VaultHandle,
    /// Where passphrases are tried.
    pub keyhole: Keyhole,
    /// What the vault works with, too.
    pub surroundings: Surroundings,
    /// The configuration file; held while it is changed or read anew.
    pub config: Mutex<ConfigFile>,
    /// Why the file is not in force, where it is not.
    pub config_error: std::sync::Mutex<Option<String>>,
    /// Where the agent listens.
    pub endpoint: String,
    /// When it was started, in seconds since 1970.
    pub started_at: i64,
    /// Ends the agent.
    pub stop: CancellationToken,
}

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Carries out what was permitted.
///
/// # Errors
///
/// Why it was not; what was before is unchanged then.
pub async fn handle(permit: Permit, desk: &Desk) -> Result<Reply, Problem> {
    match permit.into_request() {
        Request::Ping => Ok(pong()),
        Request::Ready(selector) => desk.vault.ready(selector).await.map(|()| pong()),
        Request::Token(request) => token(request, desk).await,
        Request::List(page) => desk.vault.list(page.after).await.map(Reply::Listing),
        Request::Status(request) => status(request, desk).await,
        Request::Prepare(request) => prepare(request, desk).await,
        Request::Add(request) => Wiping::new(add(request, desk)).await,
        Request::SetDefault(selector) => set_default(selector, desk).await,
        Request::Forget(kept) => forget(kept, desk).await,
        Request::Remove(kept) => remove(kept, desk).await,
        Request::Refresh(waiting) => refresh(waiting, desk).await,
        Request::Lock(request) => Wiping::new(lock(request, desk)).await,
        Request::Unlock(request) => Wiping::new(unlock(request, desk)).await,
        Request::LockState => lock_state(Vec::new(), desk).await,
        Request::Stop => {
            info!("a client asked to stop");
            desk.stop.cancel();
            Ok(Reply::Stopping)
        }
    }
}

fn pong() -> Reply {
    Reply::Pong(Pong { version: VERSION.to_owned(), pid: std::process::id() })
}

async fn token(request: TokenRequest, desk: &Desk) -> Result<Reply, Problem> {
    let need = Need {
        min_life: request.min_ttl_ms.map(Duration::from_millis),
        sent_since: request.new.then(|| desk.surroundings.clock.steady().before(NEW_ENOUGH)),
        not: request.rejected,
    };
    let (profile, answer) =
        within(request.deadline_ms, desk.vault.token(request.selector, need), "an exchange", desk).await?;
    let grant = answer.map_err(|refusal| Problem { retry_after: refusal.retry_after, ..refusal.problem })?;
    let left = grant.left;
    Ok(Reply::Token(Token {
        token: grant.token,
        profile: profile.name.to_string(),
        url: profile.url.to_string(),
        username: profile.username().map(str::to_owned),
        expires_at: left.map(|left| desk.surroundings.clock.wall().saturating_add_unsigned(left.as_secs())),
        expires_in_ms: left.map(millis),
        ca_file: profile.ca_file.as_ref().map(|path| path.display().to_string()),
        warning: grant.warning,
    }))
}

async fn status(request: StatusRequest, desk: &Desk) -> Result<Reply, Problem> {
    let page = desk.vault.status(request.selector, request.page.after).await?;
    let agent = AgentStatus {
        version: VERSION.to_owned(),
        pid: std::process::id(),
        socket: desk.endpoint.clone(),
        locked: page.locked,
        started_at: desk.started_at,
        secret_memory: secret_memory(&desk.surroundings.pool),
        profile_count: u32::try_from(page.count).unwrap_or(u32::MAX),
        config_error: desk.config_error.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone(),
    };
    Ok(Reply::Statuses(Statuses { agent, profiles: page.profiles, more: page.more }))
}

async fn prepare(request: Prepare, desk: &Desk) -> Result<Reply, Problem> {
    let config = desk.vault.config().await?;
    let name = match &request.profile {
        Some(name) => name.parse().map_err(bad_setting)?,
        None => default_name(&config)?,
    };
    let file = desk.config.lock().await.clone();
    let intent = intent(name.clone(), &request.settings, request.replace, &file)?;
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
    let settings = merged(&before, change);
    let profile = Profile::build(name.clone(), &settings).map_err(bad_setting)?;
    let existing = Profile::build(name.clone(), &before).ok();
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
        let kept = profile.key_source.read(profile).await?.and_then(|found| found.binding);
        let held = desk.vault.binding(profile.name.clone()).await?;
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

async fn add(request: Add, desk: &Desk) -> Result<Reply, Problem> {
    let name: ProfileName = request.profile.parse().map_err(bad_setting)?;
    let file = desk.config.lock().await.clone();
    let intent = intent(name.clone(), &request.settings, request.replace, &file)?;
    let key = handed_over(request.key, &intent.profile)?;
    let proof = async {
        let (target, binding) = destination(&intent, &request.settings, request.replace, desk).await?;
        Ok((proven(key, &intent.profile, &target, request.verify, desk).await?, binding))
    };
    let ((key, bought), binding) = within(request.deadline_ms, proof, "the proof of the key", desk).await?;
    let (life, verified) = (bought.as_ref().and_then(|bought| bought.life), bought.is_some());
    keep(&intent, &request.settings, request.replace, binding, (key, bought), desk).await?;
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
        None if verify => profile.key_source.read(profile).await?.map(|found| found.key),
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

/// Keeps a proven key, unless its profile was changed meanwhile: first whom it is for, then the profile,
/// then the key.
async fn keep(
    intent: &Intent,
    change: &Settings,
    replace: bool,
    binding: Binding,
    (key, bought): (Option<ApiKey>, Option<Bought>),
    desk: &Desk,
) -> Result<(), Problem> {
    let profile = &intent.profile;
    let mut file = desk.config.lock().await;
    // From here on it is finished on disk, whatever comes.
    if desk.vault.is_locked() {
        return Err(locked());
    }
    let again = self::intent(profile.name.clone(), change, replace, &file)?;
    if (&again.profile, again.exists) != (profile, intent.exists) {
        return Err(changed_meanwhile(&profile.name));
    }
    if !profile.key_source.wants_key() {
        bind(&desk.surroundings.bindings, profile, binding.clone()).await?;
    }
    if let Some(key) = &key {
        profile.key_source.store(profile, key, &binding).await?;
    }
    if !intent.exists || *change != Settings::default() {
        let url = Some(profile.url.to_string());
        let settings = Box::new(Settings { url, ..intent.settings.clone() });
        edit_locked(&mut file, Edit::Put(profile.name.clone(), settings), desk).await?;
    }
    let added_at = desk.surroundings.clock.wall();
    let exchanges = u64::from(bought.is_some());
    let kept = key.map(|key| KeptKey::new(&desk.surroundings.pool, &key)).transpose()?;
    let key = kept.map(|key| HeldKey { key: Arc::new(key), binding, added_at });
    desk.vault.install(Install { profile: Arc::clone(profile), key, bought, exchanges }).await
}

async fn set_default(selector: Selector, desk: &Desk) -> Result<Reply, Problem> {
    let profile = desk.vault.select(selector).await?;
    edit(Edit::Default(profile.name.clone()), desk).await?;
    Ok(Reply::Done(vec![profile.name.to_string()]))
}

async fn forget(kept: Kept, desk: &Desk) -> Result<Reply, Problem> {
    let names = meant(kept.selector, kept.all, desk).await?;
    if !kept.dry_run {
        desk.vault.drop_secrets(names.clone()).await?;
        clear(&names, desk).await?;
        info!(profiles = ?names, "keys were forgotten");
    }
    Ok(done(&names))
}

async fn remove(kept: Kept, desk: &Desk) -> Result<Reply, Problem> {
    let names = meant(kept.selector, kept.all, desk).await?;
    if !kept.dry_run {
        clear(&names, desk).await?;
        edit(Edit::Remove(names.clone()), desk).await?;
        let (bindings, gone) = (Arc::clone(&desk.surroundings.bindings), names.clone());
        blocking(move || gone.iter().try_for_each(|name| bindings.forget(name.as_str()))).await??;
        info!(profiles = ?names, "profiles were removed");
    }
    Ok(done(&names))
}

/// Deletes keys from where they outlive the agent.
async fn clear(names: &[ProfileName], desk: &Desk) -> Result<(), Problem> {
    let config = desk.vault.config().await?;
    for profile in names.iter().filter_map(|name| config.profiles.get(name)) {
        profile.key_source.clear(profile).await?;
    }
    Ok(())
}

async fn refresh(waiting: Waiting, desk: &Desk) -> Result<Reply, Problem> {
    let names = meant(waiting.selector, waiting.all, desk).await?;
    let mut tries = tokio::task::JoinSet::new();
    for name in &names {
        let (vault, selector) = (desk.vault.clone(), named(name));
        tries.spawn(async move { vault.retry(selector).await });
    }
    for tried in
        within(waiting.deadline_ms, async { Ok(tries.join_all().await) }, "an exchange", desk).await?
    {
        let (profile, answer) = tried?;
        answer.map_err(|refusal| Problem {
            message: format!("{}: {}", profile.name, refusal.problem.message),
            retry_after: refusal.retry_after,
            ..refusal.problem
        })?;
    }
    Ok(done(&names))
}

/// Returns the profiles that a request is about.
async fn meant(selector: Selector, all: bool, desk: &Desk) -> Result<Vec<ProfileName>, Problem> {
    if all {
        return Ok(desk.vault.config().await?.profiles.keys().cloned().collect());
    }
    Ok(vec![desk.vault.select(selector).await?.name.clone()])
}

fn named(name: &ProfileName) -> Selector {
    Selector { profile: Some(name.to_string()), for_url: None }
}

fn done(names: &[ProfileName]) -> Reply {
    Reply::Done(names.iter().map(ProfileName::to_string).collect())
}

/// Changes the configuration file and puts it into force.
async fn edit(edit: Edit, desk: &Desk) -> Result<(), Problem> {
    edit_locked(&mut *desk.config.lock().await, edit, desk).await
}

async fn edit_locked(file: &mut ConfigFile, edit: Edit, desk: &Desk) -> Result<(), Problem> {
    let mut copy = file.clone();
    let (copy, config) = blocking(move || {
        let config = copy.edit(&edit);
        (copy, config)
    })
    .await?;
    let config = config?;
    *file = copy;
    desk.vault.apply(Arc::new(config), Why::Edit).await
}

async fn lock(request: Lock, desk: &Desk) -> Result<Reply, Problem> {
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

async fn open(sealed: SealedPrivate, passphrase: Option<Secret>, desk: &Desk) -> Result<Private, Problem> {
    let passphrase = passphrase.ok_or_else(|| wrong_passphrase("a passphrase is set, and none was given"))?;
    desk.keyhole.open(sealed, passphrase).await
}

async fn unlock(request: Unlock, desk: &Desk) -> Result<Reply, Problem> {
    let work = async {
        let (_, key) = desk.vault.keys_place().await?;
        match key {
            None => Ok(None),
            Some(sealed) => open(sealed, request.passphrase, desk).await.map(Some),
        }
    };
    let private = in_time(request.deadline_ms, work, "the derivation of the key").await?;
    desk.vault.unlock(private).await?;
    lock_state(Vec::new(), desk).await
}

async fn lock_state(notes: Vec<String>, desk: &Desk) -> Result<Reply, Problem> {
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
    let outside = names(KeySource::is_readable);
    if !outside.is_empty() {
        notes.push(format!(
            "the lock protects the agent's memory, not a keyring or file that this user can open: {outside}"
        ));
    }
    notes
}

/// Waits for `work` as long as the caller does, and no longer than the agent is open.
async fn within<T>(
    deadline_ms: u32,
    work: impl Future<Output = Result<T, Problem>>,
    what: &str,
    desk: &Desk,
) -> Result<T, Problem> {
    tokio::select! {
        biased;
        () = desk.vault.falls() => Err(locked()),
        done = in_time(deadline_ms, work, what) => done,
    }
}

/// Waits for `work` as long as the caller does.
async fn in_time<T>(
    deadline_ms: u32,
    work: impl Future<Output = Result<T, Problem>>,
    what: &str,
) -> Result<T, Problem> {
    let limit = Duration::from_millis(deadline_ms.min(MAX_DEADLINE_MS).into());
    timeout(limit, work).await.unwrap_or_else(|_| {
        Err(Problem::new(
            ErrorCode::DEADLINE,
            format!("{what} is still running"),
            "ask again, or wait longer with --timeout",
        ))
    })
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function that maps errors")]
fn bad_setting(error: SettingError) -> Problem {
    Problem::new(ErrorCode::BAD_REQUEST, error.to_string(), "see dph-agent-client add --help")
}

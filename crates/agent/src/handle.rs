//! One function for each request.

mod adding;
mod changing;
mod confirming;
mod current_key;
mod gate;
mod locking;
mod migrating;
mod zen;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use dph_agent_protocol::{
    AgentStatus, ErrorCode, Kept, MAX_DEADLINE_MS, Pong, Reply, Request, Selector, StatusRequest, Statuses,
    Token, TokenRequest, Waiting,
};
use dph_agent_secret::wiped_stack::Wiping;
use tokio::sync::{Mutex, MutexGuard, OwnedMutexGuard};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use adding::{add, add_for, prepare};
use changing::{revoke, rotate};
use confirming::{approve, deny, explain};
use gate::{Wanted, permitted};
use locking::{lock, lock_state, unlock};
use migrating::{migrate, migrate_with};
use zen::zen;

use crate::authorize::Permit;
use crate::caller::Asker;
use crate::config::{Config, ConfigFile, Edit, ProfileName, SettingError};
use crate::errands::Errands;
use crate::error::{Problem, millis};
use crate::exchange::blocking;
use crate::freshness::Need;
use crate::kept_key::secret_memory;
use crate::key_change::KeyChanges;
use crate::keyhole::Keyhole;
use crate::lock::locked;
use crate::pending::Pending;
use crate::refresh::NEW_ENOUGH;
use crate::screen::Screen;
use crate::vault::{Surroundings, VaultHandle, Why};

/// What requests are carried out with.
#[derive(Debug)]
pub struct Desk {
    /// The secrets.
    pub vault: VaultHandle,
    /// What is being done to keys at their platforms.
    pub changes: Arc<KeyChanges>,
    /// Where passphrases are tried.
    pub keyhole: Keyhole,
    /// What the vault works with, too.
    pub surroundings: Surroundings,
    /// The configuration file; held while it is changed or read anew.
    pub config: Mutex<ConfigFile>,
    /// Why the file is not in force, where it is not.
    pub config_error: std::sync::Mutex<Option<String>>,
    /// Why the agent would not notice what is to lock it, where that is so.
    pub lock_on_error: std::sync::Mutex<Option<String>>,
    /// Where the agent listens.
    pub endpoint: String,
    /// When it was started, in seconds since 1970.
    pub started_at: i64,
    /// Ends the agent.
    pub stop: CancellationToken,
    /// The requests that wait to be confirmed.
    pub pending: Pending,
    /// Where questions are shown.
    pub screen: Screen,
    /// Whether there is a screen for one.
    pub has_display: bool,
    /// The requests that go on without their callers.
    pub errands: Errands,
}

impl Desk {
    /// Returns what the configuration says and the agent does not do.
    fn not_in_force(&self) -> Option<String> {
        let errors = [&self.config_error, &self.lock_on_error];
        let errors = errors.map(|error| error.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let errors: Vec<_> = errors.into_iter().flatten().collect();
        (!errors.is_empty()).then(|| errors.join("; "))
    }
}

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Carries out what was permitted.
///
/// # Errors
///
/// Why it was not; what was before is unchanged then.
pub async fn handle(permit: Permit, asker: &Asker, desk: &Desk) -> Result<Reply, Problem> {
    match permit.into_request() {
        Request::Ping => Ok(pong()),
        Request::Ready(selector) => desk.vault.ready(selector).await.map(|()| pong()),
        Request::Token(request) => token(request, asker, desk).await,
        Request::List(page) => desk.vault.list(page.after).await.map(Reply::Listing),
        Request::Status(request) => status(request, desk).await,
        Request::Prepare(request) => prepare(request, desk).await,
        Request::Add(request) => Wiping::new(add(request, None, asker, desk)).await,
        Request::AddFor(request) => Wiping::new(add_for(request, asker, desk)).await,
        Request::SetDefault(selector) => set_default(selector, desk).await,
        Request::Forget(kept) => forget(kept, desk).await,
        Request::Remove(kept) => remove(kept, desk).await,
        Request::Refresh(waiting) => refresh(waiting, desk).await,
        Request::Lock(request) => Wiping::new(lock(request, desk)).await,
        Request::Unlock(request) => Wiping::new(unlock(request, desk)).await,
        Request::LockState => lock_state(Vec::new(), desk).await,
        Request::Revoke(request) => revoke(request, desk).await,
        Request::Rotate(request) => rotate(request, desk).await,
        Request::Migrate(request) => Wiping::new(migrate(request, None, asker, desk)).await,
        Request::MigrateWith(request) => Wiping::new(migrate_with(request, asker, desk)).await,
        Request::Zen(request) => Wiping::new(zen(request, asker, desk)).await,
        Request::AuditState => Ok(Reply::AuditState(desk.surroundings.audit.state())),
        Request::Pending(page) => Ok(Reply::PendingList(desk.pending.list(&page.after))),
        Request::Approve(request) => Wiping::new(approve(request, desk)).await,
        Request::Deny(request) => deny(&request, desk),
        Request::Explain(request) => explain(request, desk).await,
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

async fn token(request: TokenRequest, asker: &Asker, desk: &Desk) -> Result<Reply, Problem> {
    let end = Instant::now() + limit(request.deadline_ms);
    let need = Need {
        min_life: request.min_ttl_ms.map(Duration::from_millis),
        sent_since: request.new.then(|| desk.surroundings.clock.steady().before(NEW_ENOUGH)),
        not: request.rejected,
    };
    let name = permitted(request.selector, Wanted::Token, end, asker, desk).await?;
    let (profile, answer) =
        within(left_ms(end), desk.vault.token(named(&name), need), "an exchange", desk).await?;
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
        config_error: desk.not_in_force(),
    };
    Ok(Reply::Statuses(Statuses { agent, profiles: page.profiles, more: page.more }))
}

async fn set_default(selector: Selector, desk: &Desk) -> Result<Reply, Problem> {
    let profile = desk.vault.select(selector).await?;
    edit(Edit::Default(profile.name.clone()), desk).await?;
    Ok(Reply::Done(vec![profile.name.to_string()]))
}

async fn forget(kept: Kept, desk: &Desk) -> Result<Reply, Problem> {
    let names = meant(kept.selector, kept.all, desk).await?;
    if !kept.dry_run {
        let _still = match desk.vault.is_locked() {
            true => {
                desk.vault.drop_secrets(names.clone()).await?;
                // In an emergency what is under way is given up. A try that cannot be cut off may yet bring a key.
                desk.changes.abandon(&names).await;
                in_time(OTHERS_MS, desk.changes.standstill(&[]), OTHERS).await?
            }
            false => within(OTHERS_MS, desk.changes.standstill(&names), OTHERS, desk).await?,
        };
        let config = desk.vault.config().await?;
        desk.vault.drop_secrets(names.clone()).await?;
        clear(&names, &config, desk).await?;
        info!(profiles = ?names, "keys were forgotten");
    }
    Ok(done(&names))
}

async fn remove(kept: Kept, desk: &Desk) -> Result<Reply, Problem> {
    let names = meant(kept.selector, kept.all, desk).await?;
    if !kept.dry_run {
        let (mut file, _still) = hold(&names, Instant::now() + limit(OTHERS_MS), desk).await?;
        let before = desk.vault.config().await?;
        // First what may be refused: a key that is gone does not come back with the file.
        edit_locked(&mut file, Edit::Remove(names.clone()), desk).await?;
        info!(profiles = ?names, "profiles were removed");
        let cleared = clear(&names, &before, desk).await;
        let (bindings, gone) = (Arc::clone(&desk.surroundings.bindings), names.clone());
        blocking(move || gone.iter().try_for_each(|name| bindings.forget(name.as_str()))).await??;
        cleared.map_err(removed_all_the_same)?;
    }
    Ok(done(&names))
}

/// Deletes keys from where they outlive the agent, all that can be.
///
/// # Errors
///
/// Which are still where.
async fn clear(names: &[ProfileName], config: &Config, desk: &Desk) -> Result<(), Problem> {
    let (mut left, mut why) = (Vec::new(), None);
    for profile in names.iter().filter_map(|name| config.profiles.get(name)) {
        if let Err(error) = profile.key_source.clear(profile, &desk.surroundings.sealed).await {
            left.push(format!("{} in {}", profile.name, profile.key_source));
            why.get_or_insert_with(|| Problem::from(error));
        }
    }
    let Some(why) = why else { return Ok(()) };
    let message = format!("a key is still there ({}): {}", left.join(", "), why.message);
    Err(Problem { message, ..why })
}

fn removed_all_the_same(problem: Problem) -> Problem {
    Problem {
        message: format!("the profile was removed, but {}", problem.message),
        hint:
            "delete it there yourself, or add the profile again and remove it when that place can be changed"
                .to_owned(),
        ..problem
    }
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

/// What a request may have to wait for that puts or deletes a key.
const OTHERS: &str = "another command";
/// How long one waits for that whose caller set no deadline.
const OTHERS_MS: u32 = 30_000;

/// Waits for the configuration file, and keeps changes at the platform from beginning for these profiles. Whoever
/// needs both takes them here, for in another order two requests would wait for each other for ever.
async fn hold<'a>(
    names: &[ProfileName],
    end: Instant,
    desk: &'a Desk,
) -> Result<(MutexGuard<'a, ConfigFile>, OwnedMutexGuard<()>), Problem> {
    let both = async {
        let file = desk.config.lock().await;
        Ok((file, desk.changes.standstill(names).await?))
    };
    within(left_ms(end), both, OTHERS, desk).await
}

/// Changes the configuration file and puts it into force.
async fn edit(edit: Edit, desk: &Desk) -> Result<(), Problem> {
    let file = async { Ok(desk.config.lock().await) };
    edit_locked(&mut *within(OTHERS_MS, file, OTHERS, desk).await?, edit, desk).await
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

/// Waits for `work` only while the caller is there: for what comes before anything is changed.
async fn while_asked<T>(asker: &Asker, work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    tokio::select! {
        biased;
        () = asker.goes() => Err(Problem::new(ErrorCode::DEADLINE, "the caller has gone", "ask again")),
        done = work => done,
    }
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
    timeout(limit(deadline_ms), work).await.unwrap_or_else(|_| {
        Err(Problem::new(
            ErrorCode::DEADLINE,
            format!("{what} is still running"),
            "ask again, or wait longer with --timeout",
        ))
    })
}

fn limit(deadline_ms: u32) -> Duration {
    Duration::from_millis(deadline_ms.min(MAX_DEADLINE_MS).into())
}

/// Returns the time until `end`, as a deadline.
fn left_ms(end: Instant) -> u32 {
    let left = end.saturating_duration_since(Instant::now());
    u32::try_from(left.as_millis()).unwrap_or(MAX_DEADLINE_MS)
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function that maps errors")]
fn bad_setting(error: SettingError) -> Problem {
    Problem::new(ErrorCode::BAD_REQUEST, error.to_string(), "see dph-agent-client add --help")
}

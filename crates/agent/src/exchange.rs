//! One attempt to buy a token: find the key, make sure whom it is for, ask the platform.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dph_agent_platform::{ApiKey, CaBundle, PlatformError, Proxy, ProxyEnv, Target, Trust};
use dph_agent_protocol::{ErrorCode, MAX_TOKEN_LEN, Secret};
use dph_agent_secret::wiped_stack::wiping;
use tokio::time::timeout;

use crate::binding::{self, Binding, Bindings};
use crate::config::{Profile, ProfileName, ProxySetting};
use crate::error::{Chain, Problem};
use crate::freshness::{Bought, Mode, Outcome};
use crate::kept_key::KeptKey;
use crate::key_source::{Found, KeySource};
use crate::private_file;
use crate::vault::{HeldKey, Surroundings};

/// How long an attempt may take in all: a key source, a refusal, the source again, and another try.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Longest `ca-file`, in bytes; the system's own bundle has a fifth of that.
const MAX_CA_FILE_LEN: usize = 1024 * 1024;

/// What is needed to try.
#[derive(Debug)]
pub struct Attempt {
    /// For whom.
    pub profile: Arc<Profile>,
    /// The key that is held.
    pub held: Option<HeldKey>,
    /// Which key to take.
    pub mode: Mode,
    /// Tells this attempt from others of the profile.
    pub run: u64,
    /// What the vault works with.
    pub surroundings: Surroundings,
}

/// What came of it.
#[derive(Debug)]
pub struct Finished {
    /// For whom.
    pub profile: ProfileName,
    /// Which attempt it was.
    pub run: u64,
    /// A key that was read.
    pub key: Option<HeldKey>,
    /// Calls to the platform.
    pub exchanges: u64,
    /// The token, or why there is none.
    pub outcome: Outcome,
}

impl Attempt {
    /// Makes the attempt.
    pub async fn make(self) -> Finished {
        let mut finished = Finished {
            profile: self.profile.name.clone(),
            run: self.run,
            key: None,
            exchanges: 0,
            outcome: Outcome::Unchanged,
        };
        let run = timeout(TIMEOUT, self.run(&mut finished)).await;
        finished.outcome = run.unwrap_or_else(|_| Err(too_slow())).unwrap_or_else(Outcome::Failed);
        finished
    }

    async fn run(&self, done: &mut Finished) -> Result<Outcome, Problem> {
        let target = target(&self.profile, &self.surroundings.proxies).await?;
        let binding = Binding::of(self.profile.platform(), &target);
        let Some(key) = self.key(&binding).await? else { return Ok(Outcome::Unchanged) };
        done.key = Some(key.clone());
        if !key.binding.permits(&binding) {
            return Err(binding::changed(&self.profile, &key.binding, &binding));
        }
        done.exchanges += 1;
        let first = buy(&target, &key.key.expose(), &self.surroundings).await;
        let Err(PlatformError::Refused { .. }) = first else { return self.outcome(first) };
        // It may have been rotated elsewhere since it was read.
        let another = |newer: &HeldKey| newer.key != key.key && newer.binding.permits(&binding);
        let Some(newer) = self.read(&binding).await.ok().flatten().filter(another) else {
            return self.outcome(first);
        };
        done.key = Some(newer.clone());
        done.exchanges += 1;
        self.outcome(buy(&target, &newer.key.expose(), &self.surroundings).await)
    }

    /// Returns the key to try, or `None` when only another one was wanted.
    async fn key(&self, binding: &Binding) -> Result<Option<HeldKey>, Problem> {
        let found = match (self.mode, &self.held) {
            (Mode::Held, Some(held)) => return Ok(Some(held.clone())),
            (Mode::Reread, Some(held)) => {
                return Ok(Some(self.read(binding).await.ok().flatten().unwrap_or_else(|| held.clone())));
            }
            (Mode::IfChanged, Some(held)) => {
                return Ok(self.read(binding).await.ok().flatten().filter(|found| found.key != held.key));
            }
            (_, None) => self.read(binding).await?,
        };
        found
            .map(Some)
            .ok_or_else(|| Problem::new(ErrorCode::NO_KEY, "there is no key", "dph-agent-client add"))
    }

    /// Reads the key from its source; one that is held already is as old as that.
    async fn read(&self, now: &Binding) -> Result<Option<HeldKey>, Problem> {
        let read = read_key(&self.profile, now, &self.surroundings).await?;
        Ok(read.map(|read| match self.held.as_ref().filter(|held| held.key == read.key) {
            Some(held) => HeldKey { added_at: held.added_at, ..read },
            None => read,
        }))
    }

    fn outcome(&self, bought: Result<Bought, PlatformError>) -> Result<Outcome, Problem> {
        usable(bought, &self.profile, &self.surroundings).map(Outcome::Bought)
    }
}

/// Buys a token with a key that is not kept yet, to prove it.
///
/// # Errors
///
/// Why it did not prove itself.
pub async fn prove(
    profile: &Profile,
    target: &Target,
    key: &ApiKey,
    surroundings: &Surroundings,
) -> Result<Bought, Problem> {
    let bought = buy(target, key, surroundings).await;
    usable(bought, profile, surroundings)
}

async fn buy(target: &Target, key: &ApiKey, surroundings: &Surroundings) -> Result<Bought, PlatformError> {
    let sent = surroundings.clock.steady();
    let token = target.buy_token(key).await?;
    Ok(Bought { token: Secret::new(token.value.expose().to_owned()), sent, life: token.life })
}

/// Turns away what cannot be handed out.
fn usable(
    bought: Result<Bought, PlatformError>,
    profile: &Profile,
    surroundings: &Surroundings,
) -> Result<Bought, Problem> {
    let clock = &surroundings.clock;
    let bought =
        bought.map_err(|error| Problem::from_platform(&error, profile.name.as_str(), clock.wall()))?;
    if bought.token.expose().len() > MAX_TOKEN_LEN {
        return Err(Problem::new(
            ErrorCode::TOKEN_TOO_LARGE,
            format!("the platform's token is longer than {MAX_TOKEN_LEN} bytes"),
            "tokens list the user's groups: ask the administrator for a user with fewer",
        ));
    }
    if bought.ends() <= clock.steady() {
        return Err(Problem::new(
            ErrorCode::UNREACHABLE,
            "the platform's token was used up when it arrived",
            "the platform is slow, or sells tokens of very short life, or its servers' clocks differ",
        ));
    }
    Ok(bought)
}

/// Returns the key of a profile, held or read now, and whom it may be sent to as things stand.
///
/// # Errors
///
/// When there is none, or it was given for another place than the configuration names.
pub async fn usable_key(
    profile: &Arc<Profile>,
    held: Option<HeldKey>,
    surroundings: &Surroundings,
) -> Result<(Target, HeldKey), Problem> {
    let target = target(profile, &surroundings.proxies).await?;
    let now = Binding::of(profile.platform(), &target);
    let key = match held {
        Some(held) => held,
        None => read_key(profile, &now, surroundings).await?.ok_or_else(|| no_key(profile))?,
    };
    if key.binding.permits(&now) {
        return Ok((target, key));
    }
    Err(binding::changed(profile, &key.binding, &now))
}

/// Reads the key of a profile from its source, with what it was given for. A source that does not say is
/// asked for keys that go to where `now` says, as the first time.
async fn read_key(
    profile: &Arc<Profile>,
    now: &Binding,
    surroundings: &Surroundings,
) -> Result<Option<HeldKey>, Problem> {
    let read = profile.key_source.read(profile, &surroundings.sealed);
    let Some(Found { key, binding }) = read.await? else { return Ok(None) };
    if binding.is_none() {
        let (bindings, profile, now) = (Arc::clone(&surroundings.bindings), Arc::clone(profile), now.clone());
        blocking(move || bindings.check(&profile, &now)).await??;
    }
    Ok(Some(HeldKey {
        key: Arc::new(KeptKey::new(&surroundings.pool, &key)?),
        binding: binding.unwrap_or_else(|| now.clone()),
        added_at: surroundings.clock.wall(),
        until: None,
        told: None,
    }))
}

/// Makes sure that the source of a profile has no other key than the one that is held: it would be the newer one.
///
/// # Errors
///
/// When it has, or cannot be read.
pub async fn agrees(
    profile: &Arc<Profile>,
    held: &HeldKey,
    surroundings: &Surroundings,
) -> Result<(), Problem> {
    let source = &profile.key_source;
    // What is sealed changes by this agent alone, and is read by `unlock` alone.
    if *source == KeySource::Sealed || !source.is_readable() {
        return Ok(());
    }
    let read = source.read(profile, &surroundings.sealed).await?;
    if read.is_none_or(|found| found.key == held.key.expose()) {
        return Ok(());
    }
    let name = &profile.name;
    Err(Problem::new(
        ErrorCode::EXISTS,
        format!(
            "{source} has another key now than the agent holds for profile `{name}`: neither was touched"
        ),
        format!("have the agent use that one: dph-agent-client add --profile {name}"),
    ))
}

/// Returns what is told where only the user can bring a key.
pub fn no_key(profile: &Profile) -> Problem {
    let name = &profile.name;
    Problem::new(
        ErrorCode::NO_KEY,
        format!("profile `{name}` holds no key"),
        format!("hand it over: dph-agent-client add --profile {name}"),
    )
}

/// Returns whom an exchange for `profile` talks to.
///
/// # Errors
///
/// When its `ca-file` cannot be used.
pub async fn target(profile: &Profile, proxies: &ProxyEnv) -> Result<Target, Problem> {
    let trust = match (&profile.tls_pin, &profile.ca_file) {
        (Some(pin), _) => Trust::Pin(*pin),
        (None, None) => Trust::Roots { extra: CaBundle::default() },
        (None, Some(path)) => {
            let path = path.clone();
            Trust::Roots { extra: blocking(move || ca_bundle(&path)).await?? }
        }
    };
    let proxy = match &profile.proxy {
        ProxySetting::Environment => Proxy::Environment(proxies.clone()),
        ProxySetting::Direct => Proxy::None,
        ProxySetting::Url(url) => Proxy::Url(url.clone()),
    };
    Ok(Target { kind: profile.kind.clone(), auth_url: profile.auth_url.clone(), trust, proxy })
}

fn ca_bundle(path: &Path) -> Result<CaBundle, Problem> {
    let wrong = |code, error: &dyn std::error::Error| {
        Problem::new(
            code,
            format!("cannot use the ca-file `{}`: {}", path.display(), Chain(error)),
            "it must hold certificates in PEM form, readable for the agent",
        )
    };
    let pem =
        private_file::read_regular(path, MAX_CA_FILE_LEN).map_err(|error| wrong(kind_of(&error), &error))?;
    CaBundle::from_pem(&pem).map_err(|error| wrong(ErrorCode::MISCONFIGURED, &error))
}

/// A file that is not there or not readable stays so until somebody mends it; other trouble passes.
fn kind_of(error: &io::Error) -> ErrorCode {
    use io::ErrorKind::{FileTooLarge, InvalidData, InvalidInput, NotFound, Other, PermissionDenied};
    let lasting = [FileTooLarge, InvalidData, InvalidInput, NotFound, Other, PermissionDenied];
    if lasting.contains(&error.kind()) { ErrorCode::MISCONFIGURED } else { ErrorCode::FAILED }
}

fn too_slow() -> Problem {
    let message = format!("key source and platform together took longer than {} s", TIMEOUT.as_secs());
    Problem::new(
        ErrorCode::UNREACHABLE,
        message,
        "look at the disk of the key file or ca-file, and at the network",
    )
}

/// Runs what waits for a disk on a thread where it holds up nobody.
///
/// # Errors
///
/// When the agent is stopping.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_cancelled| {
        Problem::new(ErrorCode::STOPPING, "the agent is stopping", "start it again: dph-agent start")
    })
}

/// As [`blocking`], for work on secrets: it leaves nothing on the thread's stack.
///
/// # Errors
///
/// When the agent is stopping.
pub async fn blocking_secret<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    blocking(|| wiping(work)).await
}

/// Records whom a key that is read may be sent to, because the user said so.
///
/// # Errors
///
/// When it cannot be written.
pub async fn bind(bindings: &Arc<Bindings>, profile: &Arc<Profile>, binding: Binding) -> Result<(), Problem> {
    let (bindings, profile) = (Arc::clone(bindings), Arc::clone(profile));
    blocking(move || bindings.record(&profile, &binding)).await?
}

//! What changes have in common in how they ask the platform.

use std::time::Duration;

use dph_agent_platform::{ApiKey, PlatformError, Target, Token, TokenText};
use dph_agent_protocol::{ErrorCode, Secret};
use ring::digest::{SHA256, digest};
use tokio::time::{Instant, sleep};

use super::Tools;
use super::worker::Halt;
use crate::clock::Steady;
use crate::config::Profile;
use crate::error::Problem;
use crate::freshness::Bought;
use crate::lock::locked;

/// How long a platform may take to know of what it has just done.
const PROOF_TIME: Duration = Duration::from_secs(60);
/// Pause before a refusal is believed.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Bytes of a hash that tell keys apart.
const FINGERPRINT_LEN: usize = 8;
/// First pause between two looks; doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// A token that was just bought.
#[derive(Debug)]
pub(super) struct Bearer {
    pub(super) token: TokenText,
    sent: Steady,
    life: Option<Duration>,
}

impl Bearer {
    /// Returns it as the vault hands it out.
    pub(super) fn into_bought(self) -> Bought {
        Bought { token: Secret::new(self.token.expose().to_owned()), sent: self.sent, life: self.life }
    }

    /// Returns the same once more.
    pub(super) fn copy(&self) -> Self {
        Self { token: TokenText::new(self.token.expose().to_owned()), ..*self }
    }
}

/// Whether a key buys tokens, as far as can be seen.
#[derive(Debug)]
pub(super) enum Works {
    /// It does; the token that shows it.
    Yes(Bearer),
    /// It does not.
    No,
}

/// Buys a token to see whether a key works.
///
/// # Errors
///
/// When the platform does not say.
pub(super) async fn works(
    target: &Target,
    key: &ApiKey,
    profile: &Profile,
    tools: &Tools,
) -> Result<Works, Halt> {
    let sent = tools.surroundings.clock.steady();
    let bought = tokio::select! {
        biased;
        () = tools.vault.falls() => return Err(Halt::Later(locked())),
        bought = target.buy_token(key) => bought,
    };
    match bought {
        Ok(Token { value, life }) => Ok(Works::Yes(Bearer { token: value, sent, life })),
        Err(PlatformError::Refused { .. }) => Ok(Works::No),
        Err(error) => Err(Halt::Later(told(&error, profile, tools))),
    }
}

/// As [`works`], but that a key does not work is believed the second time only: maintenance sends stray refusals.
///
/// # Errors
///
/// When the platform does not say.
pub(super) async fn surely_works(
    target: &Target,
    key: &ApiKey,
    profile: &Profile,
    tools: &Tools,
) -> Result<Works, Halt> {
    match works(target, key, profile, tools).await? {
        Works::No => {
            sleep(SECOND_LOOK).await;
            works(target, key, profile, tools).await
        }
        yes => Ok(yes),
    }
}

/// Returns the beginning of a hash of a key, by which it is known again.
pub(super) fn fingerprint(key: &ApiKey) -> String {
    let hash = digest(&SHA256, key.expose().as_bytes());
    hash.as_ref().iter().take(FINGERPRINT_LEN).map(|byte| format!("{byte:02x}")).collect()
}

/// Looks again and again whether a key has stopped working. Returns `false` where it still works in the end.
///
/// # Errors
///
/// When the platform does not say.
pub(super) async fn stops_working(
    target: &Target,
    key: &ApiKey,
    profile: &Profile,
    tools: &Tools,
) -> Result<bool, Halt> {
    let end = Instant::now() + PROOF_TIME;
    let mut pause = FIRST_PAUSE;
    loop {
        let last = match works(target, key, profile, tools).await {
            Ok(Works::No) => return Ok(true),
            Ok(Works::Yes(_)) => Ok(false),
            Err(halt) => Err(halt),
        };
        if Instant::now() + pause > end {
            return last;
        }
        sleep(pause).await;
        pause *= 2;
    }
}

/// Looks again and again whether a new key works, for a platform may take a moment to know it everywhere.
///
/// # Errors
///
/// When the platform does not say.
pub(super) async fn begins_working(
    target: &Target,
    key: &ApiKey,
    profile: &Profile,
    tools: &Tools,
) -> Result<Works, Halt> {
    let end = Instant::now() + PROOF_TIME;
    let mut pause = FIRST_PAUSE;
    loop {
        let last = works(target, key, profile, tools).await;
        if matches!(last, Ok(Works::Yes(_))) || Instant::now() + pause > end {
            return last;
        }
        sleep(pause).await;
        pause *= 2;
    }
}

/// Returns what the platform's answer means for the profile.
pub(super) fn told(error: &PlatformError, profile: &Profile, tools: &Tools) -> Problem {
    Problem::from_platform(error, profile.name.as_str(), tools.surroundings.clock.wall())
}

/// Returns what is told where the platform has no interface for something, with what the user can do.
pub(super) fn unsupported(what: &str, profile: &Profile) -> Problem {
    let url = &profile.url;
    Problem::new(
        ErrorCode::UNSUPPORTED,
        format!(
            "{what} of profile `{}` cannot be done by a program: {} has no documented interface for it",
            profile.name,
            profile.platform()
        ),
        format!(
            "log in to {url}, open the profile and settings of your user, choose API key, and revoke or generate it there; then: dph-agent-client forget --profile {}",
            profile.name
        ),
    )
}

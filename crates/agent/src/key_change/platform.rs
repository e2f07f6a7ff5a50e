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

/// How long a platform may take to know of what it has just done.
pub(super) const PROOF_TIME: Duration = Duration::from_secs(60);
/// How long a key must be refused, look after look, before it is believed: maintenance sends stray refusals.
const DOUBT_TIME: Duration = Duration::from_secs(8);
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

/// A key, and where to see whether it works.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe<'a> {
    pub(super) target: &'a Target,
    pub(super) key: &'a ApiKey,
    pub(super) profile: &'a Profile,
    pub(super) tools: &'a Tools,
}

impl Probe<'_> {
    /// Buys a token to see whether the key works.
    ///
    /// # Errors
    ///
    /// When the platform does not say.
    pub(super) async fn works(&self) -> Result<Works, Halt> {
        let sent = self.tools.surroundings.clock.steady();
        let bought = tokio::select! {
            biased;
            problem = self.tools.halted() => return Err(Halt::Later(problem)),
            bought = self.target.buy_token(self.key) => bought,
        };
        match bought {
            Ok(Token { value, life }) => Ok(Works::Yes(Bearer { token: value, sent, life })),
            Err(PlatformError::Refused { .. }) => Ok(Works::No),
            Err(error) => Err(Halt::Later(told(&error, self.profile, self.tools))),
        }
    }

    /// As [`Probe::works`], but believes that the key does not only when that lasts.
    ///
    /// # Errors
    ///
    /// When the platform does not say.
    pub(super) async fn surely_works(&self) -> Result<Works, Halt> {
        self.watch(Instant::now() + DOUBT_TIME, |look| !matches!(look, Ok(Works::No))).await
    }

    /// Whether the key stops working in the time that a platform may need for it. Where the platform did not
    /// say that it ended the key, that must last.
    ///
    /// # Errors
    ///
    /// When the platform does not say, or the agent is locked or ends.
    pub(super) async fn stops_working(&self, is_certain: bool) -> Result<bool, Halt> {
        let end = Instant::now() + PROOF_TIME;
        loop {
            match self.watch(end, |look| matches!(look, Ok(Works::No))).await? {
                Works::Yes(_) => return Ok(false),
                Works::No if is_certain => return Ok(true),
                Works::No if matches!(self.surely_works().await?, Works::No) => return Ok(true),
                Works::No => {}
            }
        }
    }

    /// Looks again and again whether a new key works, for a platform may take a moment to know it everywhere.
    ///
    /// # Errors
    ///
    /// When the platform does not say, or the agent is locked or ends.
    pub(super) async fn begins_working(&self) -> Result<Works, Halt> {
        self.watch(Instant::now() + PROOF_TIME, |look| matches!(look, Ok(Works::Yes(_)))).await
    }

    /// Looks until it `is_enough` or it is `end`, and returns the last look.
    async fn watch(
        &self,
        end: Instant,
        is_enough: impl Fn(&Result<Works, Halt>) -> bool,
    ) -> Result<Works, Halt> {
        let mut pause = FIRST_PAUSE;
        loop {
            let look = self.works().await;
            if is_enough(&look) || Instant::now() + pause > end {
                return look;
            }
            tokio::select! {
                biased;
                problem = self.tools.halted() => return Err(Halt::Later(problem)),
                () = sleep(pause) => {}
            }
            pause *= 2;
        }
    }
}

/// Returns the beginning of a hash of a key, by which it is known again.
pub(super) fn fingerprint(key: &ApiKey) -> String {
    let hash = digest(&SHA256, key.expose().as_bytes());
    hash.as_ref().iter().take(FINGERPRINT_LEN).map(|byte| format!("{byte:02x}")).collect()
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

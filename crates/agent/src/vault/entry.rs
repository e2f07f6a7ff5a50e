//! What the vault holds for one profile, and how `status` shows it.

use std::sync::Arc;

use dph_agent_protocol::{ErrorCode, KeyState, LastError, ProfileStatus};
use tracing::{debug, info, warn};

use crate::clock::{Clock, Steady};
use crate::config::{Profile, ProfileName};
use crate::error::Problem;
use crate::freshness::{Answer, Freshness, Outcome};

use super::HeldKey;
use super::command::Reply;

/// A profile with its secrets.
pub(super) struct Entry {
    pub(super) profile: Arc<Profile>,
    pub(super) key: Option<HeldKey>,
    pub(super) freshness: Freshness<Reply<Answer>>,
    /// The user dropped a key that could be read again: it is not, until the user says so.
    pub(super) forgotten: bool,
    /// The attempt whose outcome counts.
    pub(super) run: u64,
    pub(super) exchanges: u64,
}

impl Entry {
    pub(super) fn new(profile: &Arc<Profile>) -> Self {
        let freshness = Freshness::new(profile.always_fresh, profile.key_source.is_cheap());
        Self { profile: Arc::clone(profile), key: None, freshness, forgotten: false, run: 0, exchanges: 0 }
    }

    /// Whether only the user can bring a key.
    pub(super) fn has_no_key(&self) -> bool {
        self.key.is_none() && (self.forgotten || !self.profile.key_source.is_readable())
    }

    fn key_state(&self) -> KeyState {
        let trouble = self.freshness.trouble().map(|trouble| trouble.problem.code);
        match trouble {
            Some(ErrorCode::KEY_REFUSED) => KeyState::REJECTED,
            Some(ErrorCode::ORIGIN_CHANGED) => KeyState::ORIGIN_CHANGED,
            Some(ErrorCode::MISCONFIGURED | ErrorCode::TOKEN_TOO_LARGE | ErrorCode::CONFIG) => {
                KeyState::MISCONFIGURED
            }
            Some(ErrorCode::SOURCE_UNAVAILABLE) => KeyState::UNAVAILABLE,
            Some(ErrorCode::NO_KEY) => KeyState::NONE,
            _ if self.key.is_some() => KeyState::HELD,
            _ if self.has_no_key() => KeyState::NONE,
            _ => KeyState::UNREAD,
        }
    }

    pub(super) fn status(&self, clock: &dyn Clock) -> ProfileStatus {
        let (now, wall) = (clock.steady(), clock.wall());
        // Steady instants are shown on the wall clock as it stands now.
        let shown = |at: Steady| wall + seconds(at.since(now)) - seconds(now.since(at));
        ProfileStatus {
            entry: self.profile.entry(),
            key_state: self.key_state(),
            key_added_at: self.key.as_ref().map(|key| key.added_at),
            key_expires_at: None,
            token_state: self.freshness.token_state(now),
            usable_until: self.freshness.usable_until().map(shown),
            next_refresh_at: self.freshness.next_due().map(shown),
            served: self.freshness.served,
            exchanges: self.exchanges,
            last_error: self.freshness.trouble().map(|trouble| LastError {
                code: trouble.problem.code,
                message: trouble.problem.message.clone(),
                since: shown(trouble.since),
                next_try_at: trouble.next_try.map(shown),
            }),
        }
    }
}

fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

pub(super) fn no_key(profile: &Profile) -> Problem {
    let name = &profile.name;
    Problem::new(
        ErrorCode::NO_KEY,
        format!("profile `{name}` holds no key"),
        format!("hand it over: dph-agent-client add --profile {name}"),
    )
}

/// Logs an outcome: the first failure of a kind is a warning, its repeats are not, recovery is news.
pub(super) fn report(name: &ProfileName, entry: &Entry, outcome: &Outcome) {
    let before = entry.freshness.trouble().map(|trouble| trouble.problem.code);
    match outcome {
        Outcome::Bought(_) if before.is_some() => info!(profile = %name, "tokens are bought again"),
        Outcome::Bought(_) => debug!(profile = %name, "bought a token"),
        Outcome::Failed(problem) if before == Some(problem.code) => {
            debug!(profile = %name, code = %problem.code, problem = problem.message, "still no token");
        }
        Outcome::Failed(problem) => {
            warn!(profile = %name, code = %problem.code, problem = problem.message, "cannot buy a token");
        }
        Outcome::Unchanged => debug!(profile = %name, "the source still has the refused key"),
    }
}

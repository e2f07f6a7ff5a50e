//! What the vault holds for one profile, and how `status` shows it.

use std::sync::Arc;

use dph_agent_protocol::{ErrorCode, KeyState, LastError, ProfileStatus, TokenState};
use tracing::{debug, info, warn};

use crate::clock::{Clock, Steady};
use crate::config::{Profile, ProfileName};
use crate::error::Problem;
use crate::exchange::no_key;
use crate::freshness::{Answer, Freshness, Mode, Outcome};
use crate::key_source::{KeySource, SealedError};

use super::HeldKey;
use super::command::{Change, ChangeKind, Reply};

/// A profile with its secrets.
pub(super) struct Entry {
    pub(super) profile: Arc<Profile>,
    pub(super) key: Option<HeldKey>,
    pub(super) freshness: Freshness<Reply<Answer>>,
    /// What is being done to the key at the platform.
    pub(super) change: Option<Change>,
    /// An attempt that waits for the end of that.
    pub(super) deferred: Option<Mode>,
    /// Why there is no key though there could be one.
    pub(super) withheld: Option<Withheld>,
    /// The attempt whose outcome counts.
    pub(super) run: u64,
    pub(super) exchanges: u64,
}

/// Why a key is gone, and its source is not read until the user says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Withheld {
    /// The user dropped it.
    Forgotten,
    /// The user dropped all keys by a signal.
    Signalled {
        /// When.
        at: Steady,
    },
    /// It was given for a time that is over.
    Expired {
        /// Since when.
        at: Steady,
    },
}

impl Withheld {
    /// Returns what callers are told, and since when that is so where it came by itself.
    fn told(self, profile: &Profile) -> (Problem, Option<Steady>) {
        let Problem { message, hint, .. } = no_key(profile);
        let problem = |message, hint| Problem::new(ErrorCode::NO_KEY, message, hint);
        match self {
            Self::Forgotten => (problem(message, hint), None),
            Self::Signalled { at } => {
                let hint = format!("dph-agent-client unlock, to read its source again; or {hint}");
                (problem(format!("{message}: all keys were dropped by SIGUSR1"), hint), Some(at))
            }
            Self::Expired { at } => {
                (problem(format!("{message}: the time that it was given for is over"), hint), Some(at))
            }
        }
    }
}

impl Entry {
    pub(super) fn new(profile: &Arc<Profile>, change: Option<&Change>) -> Self {
        let freshness = Freshness::new(profile.always_fresh, profile.key_source.is_cheap());
        Self {
            profile: Arc::clone(profile),
            key: None,
            freshness,
            change: change.cloned(),
            deferred: None,
            withheld: None,
            run: 0,
            exchanges: 0,
        }
    }

    /// Whether only the user can bring a key.
    pub(super) fn has_no_key(&self) -> bool {
        self.key.is_none() && (self.withheld.is_some() || !self.profile.key_source.is_readable())
    }

    /// Returns why only the user can bring a key.
    pub(super) fn no_key(&self) -> Problem {
        self.withheld.map_or_else(|| no_key(&self.profile), |withheld| withheld.told(&self.profile).0)
    }

    /// Whether there may be a key that a passphrase opens.
    pub(super) fn awaits_passphrase(&self) -> bool {
        self.key.is_none() && self.withheld.is_none() && self.profile.key_source == KeySource::Sealed
    }

    /// Returns why nothing is served, where that is so whatever is held.
    pub(super) fn refusal(&self) -> Option<Problem> {
        match &self.change {
            Some(Change { kind: ChangeKind::Revoke, .. }) => Some(being_revoked(&self.profile)),
            _ => self.has_no_key().then(|| self.no_key()),
        }
    }

    /// Returns why a token request would not be answered well, as far as is known.
    pub(super) fn obstacle(&self, now: Steady) -> Option<Problem> {
        match self.freshness.trouble() {
            _ if self.freshness.token_state(now) == TokenState::FRESH => None,
            Some(trouble) => Some(trouble.problem.clone()),
            None if self.refusal().is_some() => self.refusal(),
            None if self.awaits_passphrase() => Some(SealedError::Closed(self.profile.name.clone()).into()),
            None => None,
        }
    }

    fn key_state(&self) -> KeyState {
        match self.change.as_ref().map(|change| change.kind) {
            Some(ChangeKind::Revoke) => return KeyState::REVOKING,
            Some(ChangeKind::Rotate) => return KeyState::ROTATING,
            Some(ChangeKind::Lost) => return KeyState::LOST,
            None => {}
        }
        let trouble = self.freshness.trouble().map(|trouble| trouble.problem.code);
        match trouble {
            Some(ErrorCode::KEY_REFUSED) => KeyState::REJECTED,
            Some(ErrorCode::ORIGIN_CHANGED) => KeyState::ORIGIN_CHANGED,
            Some(ErrorCode::MISCONFIGURED | ErrorCode::TOKEN_TOO_LARGE | ErrorCode::CONFIG) => {
                KeyState::MISCONFIGURED
            }
            Some(ErrorCode::SOURCE_UNAVAILABLE | ErrorCode::LOCKED) => KeyState::UNAVAILABLE,
            Some(ErrorCode::NO_KEY) => KeyState::NONE,
            _ if self.key.is_some() => KeyState::HELD,
            _ if self.has_no_key() => KeyState::NONE,
            _ if self.awaits_passphrase() => KeyState::UNAVAILABLE,
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
            key_expires_at: self.key.as_ref().and_then(|key| ends(key, shown)),
            token_state: self.freshness.token_state(now),
            usable_until: self.freshness.usable_until().map(shown),
            next_refresh_at: self.freshness.next_due().map(shown),
            served: self.freshness.served,
            exchanges: self.exchanges,
            last_error: self.last_error(shown),
        }
    }

    fn last_error(&self, shown: impl Fn(Steady) -> i64) -> Option<LastError> {
        let error = |problem: &Problem, since, next_try| LastError {
            code: problem.code,
            message: problem.message.clone(),
            since: shown(since),
            next_try_at: Option::map(next_try, &shown),
        };
        if let Some(Change { problem: Some(problem), since, next_try, .. }) = &self.change {
            return Some(error(problem, *since, *next_try));
        }
        if let Some(trouble) = self.freshness.trouble() {
            return Some(error(&trouble.problem, trouble.since, trouble.next_try));
        }
        let (problem, since) = self.withheld.filter(|_| self.key.is_none())?.told(&self.profile);
        since.map(|since| error(&problem, since, None))
    }
}

/// Returns when a key ends, by the user's wish or by the platform's word, whichever comes first.
fn ends(key: &HeldKey, shown: impl Fn(Steady) -> i64) -> Option<i64> {
    let told = key.told.and_then(|told| told.expires_at);
    key.until.map(shown).into_iter().chain(told).min()
}

fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn being_revoked(profile: &Profile) -> Problem {
    let name = &profile.name;
    Problem::new(
        ErrorCode::NO_KEY,
        format!("the key of profile `{name}` is being revoked"),
        format!(
            "see dph-agent-client status; until it has been sent: dph-agent-client revoke --profile {name} --cancel"
        ),
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

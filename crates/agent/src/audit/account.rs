//! What of a request is recorded: who asked, for what, and how it ended.

use std::sync::Arc;

use dph_agent_protocol::{
    AddFor, ChangeKey, ChangeMode, ChangeOutcome, ErrorCode, Kept, Migrate, MigrateWith, Reply, Request,
};

use super::{Decision, Entry, Event, Mode, TokenDigest};
use crate::caller::{Asker, Caller};
use crate::config::{Loosened, ProfileName};
use crate::error::Problem;
use crate::freshness::Outcome;
use crate::handle::Desk;
use crate::key_change::Report;
use crate::lock::locked;
use crate::refusals::Told;
use crate::vault::{ChangeKind, Surroundings};

/// What a request is to the log.
#[derive(Debug)]
pub enum Asked {
    /// Something about one profile or several.
    About {
        /// What it is called there.
        event: fn(Option<String>) -> Event,
        /// The profile that was named, if one was.
        named: Option<String>,
        /// Only what it would do was asked: recorded where it is refused.
        rehearsal: bool,
    },
    /// Something about the agent.
    Plain(Event),
    /// Something that changes nothing and hands out nothing: recorded where it is denied to a user.
    Look(&'static str),
}

impl Asked {
    /// Returns what `request` is.
    pub fn of(request: &Request) -> Self {
        let about = |event: fn(Option<String>) -> Event, named: &Option<String>| Self::About {
            event,
            named: named.clone(),
            rehearsal: false,
        };
        match request {
            Request::Token(token) => {
                about(|profile| Event::Token { profile, token: None }, &token.selector.profile)
            }
            Request::Add(add) => about(|profile| Event::Add { profile }, &Some(add.profile.clone())),
            Request::AddFor(AddFor { add, .. }) => {
                about(|profile| Event::Add { profile }, &Some(add.profile.clone()))
            }
            Request::Migrate(migrate) | Request::MigrateWith(MigrateWith { migrate, .. }) => {
                Self::moving(migrate)
            }
            Request::Revoke(change) => Self::changing(|profile| Event::Revoke { profile }, change),
            Request::Rotate(change) => Self::changing(|profile| Event::Rotate { profile }, change),
            Request::SetDefault(selector) => about(|profile| Event::Default { profile }, &selector.profile),
            Request::Forget(kept) => Self::dropping(|profile| Event::Forget { profile }, kept),
            Request::Remove(kept) => Self::dropping(|profile| Event::Remove { profile }, kept),
            Request::Refresh(waiting) => about(|profile| Event::Retry { profile }, &waiting.selector.profile),
            // Without a hash, which would be one of the key.
            Request::Zen(zen) => about(|profile| Event::Zen { profile }, &zen.selector.profile),
            Request::Approve(_) => about(|profile| Event::Approve { profile }, &None),
            Request::Deny(_) => about(|profile| Event::Deny { profile }, &None),
            Request::Lock(_) => Self::Plain(Event::Lock),
            Request::Unlock(_) => Self::Plain(Event::Unlock),
            Request::Stop => Self::Plain(Event::Stop),
            Request::Ping
            | Request::Ready(_)
            | Request::List(_)
            | Request::Status(_)
            | Request::Prepare(_)
            | Request::LockState
            | Request::Pending(_)
            | Request::Explain(_)
            | Request::AuditState => Self::Look(request.name()),
        }
    }

    fn changing(event: fn(Option<String>) -> Event, change: &ChangeKey) -> Self {
        let rehearsal = [ChangeMode::DRY_RUN, ChangeMode::JOIN].contains(&change.mode);
        let named = change.selector.profile.clone();
        Self::About { event, named, rehearsal }
    }

    fn moving(migrate: &Migrate) -> Self {
        let (named, rehearsal) = (migrate.selector.profile.clone(), migrate.dry_run);
        Self::About { event: |profile| Event::Migrate { profile }, named, rehearsal }
    }

    fn dropping(event: fn(Option<String>) -> Event, kept: &Kept) -> Self {
        Self::About { event, named: kept.selector.profile.clone(), rehearsal: kept.dry_run }
    }

    fn granted(self, reply: &Reply) -> Vec<Event> {
        match (self, reply) {
            (Self::Look(_) | Self::About { rehearsal: true, .. }, _) => Vec::new(),
            (Self::About { .. }, Reply::Token(token)) => vec![Event::Token {
                profile: Some(token.profile.clone()),
                token: Some(TokenDigest::of(token.token.expose())),
            }],
            (Self::About { event, .. }, Reply::Done(names)) => {
                names.iter().cloned().map(Some).map(event).collect()
            }
            (Self::About { event, .. }, Reply::Changed(changed)) => {
                vec![event(Some(changed.profile.clone()))]
            }
            (Self::About { event, .. }, Reply::Migrated(migrated)) => {
                vec![event(Some(migrated.profile.clone()))]
            }
            (Self::About { event, .. }, Reply::Zen(header)) => vec![event(Some(header.profile.clone()))],
            (Self::About { event, .. }, Reply::Added(added)) => vec![event(Some(added.profile.clone()))],
            (Self::About { event, named, .. }, _) => vec![event(named)],
            (Self::Plain(event), _) => vec![event],
        }
    }

    fn refused(self, code: ErrorCode) -> Option<Event> {
        match self {
            Self::About { event, named, .. } => Some(event(named)),
            Self::Plain(event) => Some(event),
            Self::Look(request) => (code == ErrorCode::DENIED).then_some(Event::Look { request }),
        }
    }

    /// Forgets a name that no profile has: whatever stands in a profile's place by mistake, a key for one,
    /// must not get into the log.
    async fn known(self, desk: &Desk) -> Self {
        let Self::About { event, named: Some(named), rehearsal } = self else { return self };
        let config = desk.vault.config().await;
        let is_known = config.is_ok_and(|config| config.profiles.contains_key(named.as_str()));
        Self::About { event, named: is_known.then_some(named), rehearsal }
    }
}

/// Records how a request ended, and returns that.
///
/// # Errors
///
/// Why it was not carried out; or why what was to be handed out must not be.
pub async fn account(
    asked: Asked,
    outcome: Result<Reply, Problem>,
    asker: &Asker,
    desk: &Desk,
) -> Result<Reply, Problem> {
    let audit = &desk.surroundings.audit;
    if audit.mode() == Mode::Off {
        return outcome;
    }
    let time = desk.surroundings.clock.wall();
    let entry = |event, decision| Entry {
        time,
        event,
        decision: Some(decision),
        caller: Some(asker.for_the_record()),
    };
    match &outcome {
        Ok(reply @ (Reply::Token(_) | Reply::Zen(_))) => {
            for event in asked.granted(reply) {
                audit.hand_out(entry(event.clone(), Decision::Granted)).await?;
                // The disk may have taken its time, and nothing is handed out after a lock was answered.
                if desk.vault.is_locked() {
                    audit.record(entry(event, Decision::not(ErrorCode::LOCKED)));
                    return Err(locked());
                }
            }
        }
        Ok(reply) => {
            asked.granted(reply).into_iter().for_each(|event| audit.record(entry(event, Decision::Granted)));
        }
        Err(problem) => {
            if let Some(event) = asked.known(desk).await.refused(problem.code) {
                audit.record(entry(event, Decision::not(problem.code)));
            }
        }
    }
    outcome
}

/// Records that a key is about to leave the agent, which is more than a token that does.
///
/// # Errors
///
/// Why it must not.
pub async fn key_goes_out(profile: &ProfileName, asker: &Asker, desk: &Desk) -> Result<(), Problem> {
    let Surroundings { audit, clock, .. } = &desk.surroundings;
    let entry = Entry {
        time: clock.wall(),
        event: Event::KeyOut { profile: profile.to_string() },
        decision: Some(Decision::Granted),
        caller: Some(asker.for_the_record()),
    };
    audit.hand_out(entry).await
}

/// Records connections that were turned away.
pub fn turned_away(told: &Told, desk: &Desk) {
    desk.surroundings.audit.record(Entry {
        time: desk.surroundings.clock.wall(),
        event: Event::Connect { count: told.count },
        decision: Some(Decision::not(told.code)),
        caller: told.peer.clone().map(Caller::of_connection).map(Arc::new),
    });
}

/// Records that a configuration is about to be in force that protects less than the one before.
pub fn loosened(loosened: Vec<Loosened>, Surroundings { audit, clock, .. }: &Surroundings) {
    for Loosened { profile, weaker } in loosened {
        let event = Event::Config { profile: profile.map(|name| name.to_string()), weaker };
        audit.record(Entry::own(clock.wall(), event));
    }
}

/// Records how an exchange ended, unless nothing was asked of the platform.
pub fn exchange(profile: &ProfileName, outcome: &Outcome, Surroundings { audit, clock, .. }: &Surroundings) {
    let (token, decision) = match outcome {
        Outcome::Bought(bought) => (Some(TokenDigest::of(bought.token.expose())), Decision::Granted),
        Outcome::Failed(problem) => (None, Decision::not(problem.code)),
        Outcome::Unchanged => return,
    };
    let event = Event::Refresh { profile: profile.to_string(), token };
    audit.record(Entry { decision: Some(decision), ..Entry::own(clock.wall(), event) });
}

/// Records how a change of a key ended, which may be long after somebody asked for it.
pub fn key_changed(
    kind: ChangeKind,
    profile: &ProfileName,
    ended: &Result<Report, Problem>,
    Surroundings { audit, clock, .. }: &Surroundings,
) {
    if ended.as_ref().is_ok_and(|report| report.outcome == ChangeOutcome::CANCELLED) {
        // Nothing was done to the key; who wanted that is told by the line of the command.
        return;
    }
    let profile = Some(profile.to_string());
    let event = match kind {
        ChangeKind::Revoke => Event::Revoke { profile },
        ChangeKind::Rotate | ChangeKind::Lost => Event::Rotate { profile },
    };
    let decision = ended.as_ref().map_or_else(|problem| Decision::not(problem.code), |_| Decision::Granted);
    audit.record(Entry { decision: Some(decision), ..Entry::own(clock.wall(), event) });
}

/// Records that all keys and tokens were dropped by a signal.
pub fn dropped_by_signal(Surroundings { audit, clock, .. }: &Surroundings) {
    audit.record(Entry { decision: Some(Decision::Granted), ..Entry::own(clock.wall(), Event::DropAll) });
}

/// Records that the agent locked without being asked.
pub fn locked_by_itself(Surroundings { audit, clock, .. }: &Surroundings) {
    audit.record(Entry { decision: Some(Decision::Granted), ..Entry::own(clock.wall(), Event::Lock) });
}

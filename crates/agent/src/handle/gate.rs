//! A profile's policy before each of its tokens, and before its key: who asks, and whether somebody has to confirm it.

use std::path::Path;
use std::sync::Arc;

use dph_agent_protocol::{ErrorCode, Secret, Selector};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::locking::open;
use super::{Desk, left_ms, within};
use crate::askpass;
use crate::caller::{Asker, Caller, Executable};
use crate::config::{Profile, ProfileName};
use crate::error::Problem;
use crate::exchange::blocking;
use crate::lock::locked;
use crate::policy::{Confirm, Decision, Policy, not_confirmed, refused};
use crate::vault::stopping;

/// What is handed out, as the question on the screen has it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    Token,
    /// In a header of its own.
    Key,
    /// Where whatever the user runs can read it.
    MovedKey,
}

impl Wanted {
    fn described(self) -> &'static str {
        match self {
            Self::Token => "a token",
            Self::Key => "the API key itself (ZenApiKey)",
            Self::MovedKey => "the API key itself moved to where any program can read it",
        }
    }
}

/// Returns the profile that is meant, if its policy lets the caller have what is wanted by `end`.
///
/// # Errors
///
/// [`ErrorCode::DENIED`] when it does not, [`ErrorCode::DEADLINE`] when nobody confirms it.
pub(super) async fn permitted(
    selector: Selector,
    wanted: Wanted,
    end: Instant,
    asker: &Asker,
    desk: &Desk,
) -> Result<ProfileName, Problem> {
    let case = Case::open(&selector, wanted, asker, desk);
    let (profile, case) = within(left_ms(end), case, LOOK, desk).await?;
    if let Some(case) = case
        && let Some(confirm) = within(left_ms(end), case.decided(), LOOK, desk).await?
    {
        case.confirmed(confirm, end, desk).await?;
        within(left_ms(end), case.still_stands(asker, desk), LOOK, desk).await?;
    }
    Ok(profile)
}

/// Makes sure that the lock's passphrase was given, where one is set.
///
/// # Errors
///
/// [`ErrorCode::WRONG_PASSPHRASE`] where it is missing or wrong.
pub(super) async fn knows_passphrase(passphrase: Option<Secret>, desk: &Desk) -> Result<(), Problem> {
    match desk.vault.keys_place().await? {
        (_, Some(sealed)) => open(sealed, passphrase, desk).await.map(drop),
        (_, None) => Ok(()),
    }
}

/// What takes long where an executable lies on a disk that does not answer.
const LOOK: &str = "the look at the calling program";

/// A request to which a policy applies.
struct Case {
    profile: Arc<Profile>,
    policy: Arc<Policy>,
    caller: Arc<Caller>,
    wanted: Wanted,
}

impl Case {
    /// Finds the profile, and who asks where it has a policy.
    async fn open(
        selector: &Selector,
        wanted: Wanted,
        asker: &Asker,
        desk: &Desk,
    ) -> Result<(ProfileName, Option<Self>), Problem> {
        let config = desk.vault.config().await?;
        let profile = config.select(selector)?;
        let name = profile.name.clone();
        let Some(policy) = config.policies.get(&name) else { return Ok((name, None)) };
        let (profile, policy) = (Arc::clone(profile), Arc::clone(policy));
        Ok((name, Some(Self { profile, policy, caller: asker.caller().await?, wanted })))
    }

    /// Returns who is to be asked, if somebody is.
    async fn decided(&self) -> Result<Option<&Confirm>, Problem> {
        match decide(&self.policy, &self.caller).await? {
            Decision::Allowed => Ok(None),
            Decision::Confirm => Ok(self.policy.confirm.as_ref()),
            Decision::Denied(denial) => {
                let problem = refused(self.profile.name.as_str(), &self.caller, denial);
                info!(profile = %self.profile.name, caller = %self.caller, %denial, "`allow` refused a request");
                Err(problem)
            }
        }
    }

    /// Waits until somebody confirms the request.
    async fn confirmed(&self, confirm: &Confirm, end: Instant, desk: &Desk) -> Result<(), Problem> {
        let name = self.profile.name.as_str();
        let until = end.min(Instant::now() + self.policy.confirm_timeout);
        let since = desk.surroundings.clock.wall();
        let mut place = desk.pending.enter(name, Arc::clone(&self.caller), since, until)?;
        let wanted = self.wanted.described();
        info!(id = place.id, profile = name, caller = %self.caller, wanted, "a request waits to be confirmed");
        let question = self.question();
        let yes = tokio::select! {
            biased;
            () = desk.vault.falls() => return Err(locked()),
            () = desk.stop.cancelled() => return Err(stopping()),
            yes = place.answered() => yes,
            yes = on_screen(confirm, &question, desk.pending.is_own(&self.caller), desk) => yes,
            () = sleep_until(until) => return Err(unanswered(name)),
        };
        info!(id = place.id, profile = name, confirmed = yes, "a request was answered");
        if yes { Ok(()) } else { Err(not_confirmed(name)) }
    }

    /// Makes sure that what was confirmed is still what is asked, and still needs no more than that.
    async fn still_stands(&self, asker: &Asker, desk: &Desk) -> Result<(), Problem> {
        let config = desk.vault.config().await?;
        if config.policies.get(&self.profile.name) != Some(&self.policy) || !asker.is_unchanged().await? {
            return Err(changed(self.profile.name.as_str()));
        }
        Ok(())
    }

    fn question(&self) -> String {
        let Profile { name, url, .. } = &*self.profile;
        format!("Let {} have {} of profile {name} ({url})?", self.caller, self.wanted.described())
    }
}

/// Lets a policy decide. What it names may lie on a disk that does not answer.
pub(super) async fn decide(policy: &Arc<Policy>, caller: &Arc<Caller>) -> Result<Decision, Problem> {
    let (policy, caller) = (Arc::clone(policy), Arc::clone(caller));
    blocking(move || policy.decide(&caller, |path| Executable::at(path).ok())).await
}

/// Asks by the program that is configured, one question at a time, those of the agent's own user first. Without a screen, or where the program
/// cannot be run, the request goes on waiting.
async fn on_screen(confirm: &Confirm, question: &str, is_own: bool, desk: &Desk) -> bool {
    if let Confirm::Askpass(program) = confirm
        && desk.has_display
        && let Some(yes) = asked(program, question, is_own, desk).await
    {
        return yes;
    }
    std::future::pending().await
}

async fn asked(program: &Path, question: &str, is_own: bool, desk: &Desk) -> Option<bool> {
    let _turn = desk.screen.turn(is_own).await;
    match askpass::ask(program, question).await {
        Ok(yes) => Some(yes),
        Err(error) => {
            let program = program.display();
            warn!(%program, %error, "`confirm` names a program that cannot be run: requests wait for `approve`");
            None
        }
    }
}

fn unanswered(profile: &str) -> Problem {
    Problem::new(
        ErrorCode::DEADLINE,
        format!("`confirm` of profile `{profile}`: nobody confirmed the request in time"),
        "while it waits: dph-agent-client pending, then approve ID; wait longer with --timeout and `confirm-timeout`",
    )
}

fn changed(profile: &str) -> Problem {
    Problem::new(
        ErrorCode::DENIED,
        format!("the program, or the policy of profile `{profile}`, changed while the request waited"),
        "ask again",
    )
}

//! `revoke` and `rotate`: what is done to a key at its platform, and how long a caller waits for it.

use std::sync::Arc;

use dph_agent_protocol::{ChangeKey, ChangeMode, ChangeOutcome, Changed, ErrorCode, Reply};

use super::{Desk, within};
use crate::config::Profile;
use crate::error::Problem;
use crate::exchange;
use crate::key_change::{Progress, Report, check_revoke, check_rotate, revoke_notes, rotate_notes};
use crate::vault::ChangeKind;

/// Makes a key invalid at its platform.
pub(super) async fn revoke(request: ChangeKey, desk: &Desk) -> Result<Reply, Problem> {
    let profile = desk.vault.select(request.selector.clone()).await?;
    if begins(request.mode) {
        check_revoke(&profile, &exchange::target(&profile, &desk.surroundings.proxies).await?)?;
    }
    change(ChangeKind::Revoke, request, &profile, revoke_notes(&profile), desk).await
}

/// Replaces a key at its platform.
pub(super) async fn rotate(request: ChangeKey, desk: &Desk) -> Result<Reply, Problem> {
    let profile = desk.vault.select(request.selector.clone()).await?;
    if begins(request.mode) {
        check_rotate(&profile, &exchange::target(&profile, &desk.surroundings.proxies).await?).await?;
    }
    change(ChangeKind::Rotate, request, &profile, rotate_notes(&profile), desk).await
}

/// Whether what is meant must be possible: what is under way may have become impossible since.
fn begins(mode: ChangeMode) -> bool {
    ![ChangeMode::CANCEL, ChangeMode::JOIN].contains(&mode)
}

async fn change(
    kind: ChangeKind,
    request: ChangeKey,
    profile: &Arc<Profile>,
    notes: Vec<String>,
    desk: &Desk,
) -> Result<Reply, Problem> {
    match request.mode {
        ChangeMode::CANCEL => within(request.deadline_ms, cancel(kind, profile, desk), BEGINNING, desk).await,
        ChangeMode::DRY_RUN => Ok(planned(profile, notes)),
        mode => carry_out(kind, mode, request.deadline_ms, profile, desk).await,
    }
}

async fn cancel(kind: ChangeKind, profile: &Profile, desk: &Desk) -> Result<Reply, Problem> {
    desk.changes.cancel(kind, &profile.name).await.map(|report| changed(profile, report))
}

/// What may take as long as another command that puts a key somewhere.
const BEGINNING: &str = "the beginning of the change";

/// Begins, or hurries on what has begun, and waits for its end or, unless the caller stays, for its first try.
async fn carry_out(
    kind: ChangeKind,
    mode: ChangeMode,
    deadline_ms: u32,
    profile: &Arc<Profile>,
    desk: &Desk,
) -> Result<Reply, Problem> {
    let begun = async {
        match mode {
            ChangeMode::JOIN => desk.changes.join(kind, &profile.name),
            _ => desk.changes.begin(kind, &profile.name).await,
        }
    };
    let mut progress = within(deadline_ms, begun, BEGINNING, desk).await?;
    let before = progress.borrow().tries;
    let stays = mode != ChangeMode::TRY;
    let told = move |progress: &Progress| progress.ended.is_some() || (!stays && progress.tries > before);
    let wait = async {
        tokio::select! {
            biased;
            told = progress.wait_for(told) => {
                Ok(told.map(|progress| progress.clone()).unwrap_or_default())
            }
            // The next agent goes on; this one has nothing more to tell.
            () = desk.stop.cancelled() => Err(crate::vault::stopping()),
        }
    };
    let waited = within(deadline_ms, wait, "the change of the key", desk).await;
    let still_running = |problem: Problem| match problem.code {
        ErrorCode::DEADLINE => goes_on(problem, kind, profile),
        _ => problem,
    };
    match waited.map_err(still_running)? {
        Progress { ended: Some(ended), .. } => ended.map(|report| changed(profile, report)),
        Progress { trouble: Some(trouble), .. } => Err(goes_on(trouble, kind, profile)),
        Progress { .. } => Err(crate::vault::stopping()),
    }
}

/// Says that the agent goes on, beside what is in the way.
fn goes_on(trouble: Problem, kind: ChangeKind, profile: &Profile) -> Problem {
    let command = if kind == ChangeKind::Revoke { "revoke" } else { "rotate" };
    let until = if profile.key_source.is_readable() {
        ""
    } else {
        " while it runs, for the key is in its memory only"
    };
    Problem {
        hint: format!(
            "the agent goes on trying{until}: see status, or dph-agent-client {command} --profile {} --wait, or --cancel",
            profile.name
        ),
        ..trouble
    }
}

fn planned(profile: &Profile, notes: Vec<String>) -> Reply {
    changed(profile, Report { outcome: ChangeOutcome::PLANNED, tokens_until: None, notes })
}

fn changed(profile: &Profile, Report { outcome, tokens_until, notes }: Report) -> Reply {
    Reply::Changed(Changed { profile: profile.name.to_string(), outcome, tokens_until, notes })
}
